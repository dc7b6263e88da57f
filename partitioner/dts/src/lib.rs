//! Device-tree source, from text to a merged tree in which every cell knows the place it was written at.
//!
//! Why our own: no tool gives positions per cell, and a diagnostic without a place is worth little. The pipeline is
//! `lex` → `preprocess` → `parse` → `merge`; everything lives in slices the caller lends ([`Storage`]), so there is no
//! allocator, no limit that is not the caller's, and no file system: a [`Loader`] gives text.
//!
//! This crate must not know what a domain, a CPU or an interrupt is.
#![no_std]

mod build;
mod check;
pub mod codes;
mod diag;
mod directive;
pub mod dtb;
mod expr;
mod lex;
mod macros;
mod nearest;
mod parse;
mod pre;
mod resolve;
mod source;
mod span;
mod store;
mod tree;
mod value;

pub use build::{Draft, Pending};
pub use diag::{Arg, Code, Diagnostic, Diagnostics, Label, Severity};
pub use lex::Token;
pub use nearest::Nearest;
pub use parse::{Parsed, parse};
pub use pre::{Expansion, Macro, Slot};
pub use source::{Loaded, Loader, NoIncludes, Source};
pub use span::{FileId, Span};
pub use store::{Capacities, Full, Resource, Storage};
pub use tree::{Cell, LabelData, Node, NodeData, NodeId, Property, PropertyData, Tree, TreeData, Value, ValueKind};
