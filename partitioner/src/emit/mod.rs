//! From decisions to bytes: translation tables, guest device trees, records, the audit section.
//!
//! Nothing is decided here but where things lie inside the blob.

pub(crate) mod aliases;
pub(crate) mod area;
pub(crate) mod assemble;
pub(crate) mod audit;
pub(crate) mod audit_pci;
pub(crate) mod blob;
pub(crate) mod copied;
pub(crate) mod cpus;
pub(crate) mod dma;
pub(crate) mod el2;
pub(crate) mod fdt;
pub(crate) mod guest;
pub(crate) mod guest_pci;
pub(crate) mod images;
pub(crate) mod its;
pub(crate) mod overlay;
pub(crate) mod pages;
pub(crate) mod parts;
pub(crate) mod pci;
pub(crate) mod reader;
pub(crate) mod records;
pub(crate) mod restart;
pub(crate) mod stage2;
pub(crate) mod supplies;
