//! The hypervisor's program. Built for `aarch64-unknown-none-softfloat` by `cargo xtask`; on a host it is empty.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}
