//! PCI: what the board says of its host bridge and functions, and what becomes of them.
//!
//! Reading order: `model` (types); `host`, `function`, `capability` (read nodes); `settle` (decides), with `bars` (places),
//! `lines` (interrupts), `reset`, `policy` (configuration space) and `smmu`. It must not know where things lie in the plan, which is
//! `emit`'s.

pub mod bars;
pub mod capability;
pub(crate) mod check;
mod demands;
pub mod function;
pub mod host;
pub mod lines;
pub mod model;
pub mod policy;
pub(crate) mod ports;
pub(crate) mod reset;
pub mod settle;
pub(crate) mod smmu;
