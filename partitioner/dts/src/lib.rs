//! Device-tree source, from text to a merged tree in which every cell knows the place it was written at.
//!
//! Why our own: no tool gives positions per cell, and a diagnostic without a place is worth little. The pipeline is
//! `lex` → `preprocess` → `parse` → `merge`; everything lives in slices the caller lends ([`Storage`]), so there is no
//! allocator, no limit that is not the caller's, and no file system: a [`Loader`] gives text.
//!
//! This crate must not know what a domain, a CPU or an interrupt is.
#![no_std]
#![forbid(unsafe_code)]

mod diag;
mod span;
mod tree;

pub use diag::{Arg, Code, Diagnostic, Diagnostics, Label, Severity};
pub use span::{FileId, Span};
pub use tree::{Cell, LabelData, Node, NodeData, NodeId, Property, PropertyData, Tree, Value, ValueKind};
