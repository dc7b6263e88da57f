//! The part of the hypervisor that decides: pure functions, no hardware, tested on the host in milliseconds.
//!
//! `main.rs`, `arch/` and `dev/` (built for the target only) do what this crate decides.
#![cfg_attr(not(test), no_std)]

pub mod vdev;
