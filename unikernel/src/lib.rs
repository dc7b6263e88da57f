//! Guest runtime for single-purpose domains: what stands between `_start` and a `main` of your own.
//!
//! A domain that does one thing needs no operating system. This crate takes a vCPU at EL1, turns on an identity-mapped
//! stage 1 with caches, finds console, interrupt controller, timer, PSCI and devices in the device tree it is given, and
//! calls `main`. There is no heap, no scheduler and no process; what the tree does not name does not exist.
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//! use unikernel::{clock, println};
//!
//! unikernel::entry!(main);
//!
//! fn main() {
//!     println!("hello after {} us", clock::uptime().as_micros());
//! } // returning powers the domain off
//! ```
//!
//! Drivers are the ones of the embedded Rust ecosystem: [`console`] implements `embedded-io`, [`clock::Delay`] and [`gpio`]
//! implement `embedded-hal`. Build with `--features guest` for `aarch64-unknown-none-softfloat`; programs outside this
//! crate link with `-Tunikernel.ld`.
//!
//! The same program runs in a domain and on bare QEMU (`-M virt,gic-version=3 -kernel x.elf`); it cannot tell, and must not
//! know, whether a hypervisor is there.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod fdt;
pub mod platform;

#[cfg(target_os = "none")]
mod arch;
#[cfg(target_os = "none")]
pub mod clock;
#[cfg(target_os = "none")]
pub mod console;
#[cfg(target_os = "none")]
pub mod cpu;
#[cfg(target_os = "none")]
pub mod exception;
#[cfg(target_os = "none")]
pub mod gpio;
#[cfg(target_os = "none")]
pub mod irq;
#[cfg(target_os = "none")]
pub mod lock;
#[cfg(target_os = "none")]
pub mod mmio;
#[cfg(target_os = "none")]
mod panic;
#[cfg(target_os = "none")]
pub mod pci;
#[cfg(target_os = "none")]
pub mod psci;

/// vCPUs one domain can have, and stacks this runtime keeps.
pub const MAX_CPUS: usize = 16;

/// Names the function that runs on vCPU 0 once the platform is up: `fn main()`. When it returns the domain powers off.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[allow(unsafe_code)] // a name the runtime calls
        #[unsafe(no_mangle)]
        extern "Rust" fn unikernel_main() {
            $main()
        }
    };
}
