//! The plan: everything the compiler decided, in the form the hypervisor reads.
//!
//! Why a crate of its own: it is the only code the compiler, the verifier and `hyp-min` share, so a
//! mistake in it is a mistake on both sides of every proof. It holds types, identifiers, ranges, the
//! codec and its checksums, and nothing that decides. It must not know device trees or registers.
//!
//! # The blob
//! ```text
//! 0            Header
//!              records: cpus, domains, vcpus, spis, icfgr, moves, probes, scrubs, reloads, pci } checksum 1,
//! records_len                                                                       } at every boot
//!              audit section (see `audit`): what the verifier and auditor need
//! 4 KiB align  EL2 and stage-2 translation tables                                     } checksum 2
//!              guest device trees
//! blob_len
//! ```
//! The blob starts on the first 4 KiB boundary after the hypervisor's own image.
#![no_std]
#![forbid(unsafe_code)]

pub mod audit;
mod blob;
pub mod crc;
mod id;
pub mod limits;
pub mod pci;
mod record;
mod region;
pub mod va;

pub use blob::{AuditView, PciView, Plan, PlanError, records_checksum, tables_checksum};
pub use id::{Bdf, CpuIndex, DomainId, IntId, Ipa, Mpidr, Pa, StreamId, Vmid};
pub use record::{
    Cpu, Domain, DomainFlags, Header, HeaderFlags, MAGIC, Move, NO_DOMAIN, NO_INTID, NO_WINDOW, Policy, Probe,
    RESTART_PERIOD_S, Scrub, Spi, Table, UartKind, VERSION, WATCHDOG_FUNCTION,
};
pub use region::{IpaRegion, PaRegion};

#[cfg(target_endian = "big")]
compile_error!("the plan is little-endian and read in place; big-endian machines are out of scope");
