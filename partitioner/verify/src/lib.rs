//! The verifier: re-derives isolation from the bytes of a finished plan.
//!
//! Why independent: what the compiler believes it wrote and what it wrote are two things. This crate reads the blob as the
//! hypervisor and the page-table walker would, and shares with the compiler only `cofferdam-plan`. It must not know device
//! tree source, layouts or diagnostics.
#![no_std]
#![forbid(unsafe_code)]
