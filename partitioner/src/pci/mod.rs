//! PCI: what the board says of its host bridge and functions, and what becomes of them.
//!
//! Reading order: `model` (types); `host`, `function`, `capability` (read nodes); then what places base address registers,
//! decides configuration space and interrupts. It must not know the plan's layout in bytes, which is `emit`'s.

pub mod capability;
pub(crate) mod check;
pub mod function;
pub mod host;
pub mod model;
pub(crate) mod ports;
