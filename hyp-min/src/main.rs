//! The hypervisor's program. Built for `aarch64-unknown-none-softfloat` by `cargo xtask`; on a host it is empty.
//!
//! The order of [`boot::primary_main`] is the design: everything has been decided by the compiler, this only checks that
//! plan and machine fit and carries it out.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(target_os = "none", allow(unsafe_code))] // exported to boot.S

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod arch {
    pub(crate) mod aarch64;
}
#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod deadline;
#[cfg(target_os = "none")]
mod dev;
#[cfg(target_os = "none")]
mod log;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod pci;
#[cfg(target_os = "none")]
mod state;
#[cfg(target_os = "none")]
mod watchdog;
