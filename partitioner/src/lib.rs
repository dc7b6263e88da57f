//! The layout compiler.
//!
//! tree → `board`, `layout` (typed, checked for shape) → `resolve` (nothing implicit) → `emit` (tables, guest device trees,
//! blob) → `cofferdam_verify`. No allocator, no file system, no clock: memory is lent, files come through a trait.
#![no_std]
#![forbid(unsafe_code)]

pub mod address;
pub mod arch;
pub mod board;
pub mod catalog;
pub mod cells;
mod clocks;
pub mod codes;
pub mod compile;
pub mod devices;
mod emit;
pub mod front;
pub mod interrupts;
pub mod layout;
mod lent;
pub mod model;
pub mod pci;
pub mod ports;
mod promise;
mod resolve;
mod shape;

pub use lent::{Full, Lent};
pub use resolve::{Carried, Payload, Piece, Range};
