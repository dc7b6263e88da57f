//! The part of the hypervisor that decides: pure functions, no hardware, tested on the host in milliseconds.
//!
//! `main.rs`, `arch/` and `dev/` (built for the target only) do what this crate decides.
#![no_std]

pub mod vdev;
