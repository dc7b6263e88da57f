//! The verifier: re-derives isolation from the bytes of a finished plan.
//!
//! Why independent: what the compiler believes it wrote and what it wrote are two things. This crate reads the blob as the
//! hypervisor and the page-table walker would, and shares with the compiler only `cofferdam-plan`. It must not know device
//! tree source, layouts or diagnostics.
//!
//! Each module proves one part; `docs/isolation.md` names the function behind each invariant. Reading order: `memory` (what
//! is granted is sound), `stage2` (the tables say exactly what is granted), `el2` (the hypervisor reaches only its own),
//! `irq`, `gicv2`, `cpus`, `domains`, `payload`, `dtb`; of PCI functions `pci` (whose they are), `bar`, `bridge`, `config` (what a guest
//! may do to them), `dma` (what they reach), `msi` (what they interrupt).
#![no_std]

mod bar;
mod bridge;
mod command;
mod config;
mod cpus;
mod dma;
mod domains;
mod dtb;
mod el2;
mod finding;
mod gicv2;
mod header;
mod irq;
mod memory;
mod msi;
mod payload;
mod pci;
mod regime;
mod restart;
mod shape;
mod stage2;
mod walk;
mod work;

pub use finding::{Finding, Root};
pub use work::scratch_words;

use cofferdam_plan::{Plan, PlanError};
use work::{Report, Work};

/// What has been proven. Only [`verify`] makes one, and only without findings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Proof {
    /// Domains.
    pub domains: u32,
    /// Translation tables walked, 4 KiB each: EL2 and stage 2.
    pub tables: u32,
    /// Leaf descriptors seen.
    pub leaves: u64,
}

/// Why there is no proof.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Not a plan, or damaged.
    Plan(PlanError),
    /// The scratch slice is too short; this many words are needed.
    Scratch(usize),
    /// This many findings have been handed to the sink.
    Findings(u32),
}

/// Proves that the plan in `blob` isolates its domains. Every violation goes to `sink`.
///
/// `blob` is the whole plan, its first byte 8-byte aligned. `scratch` holds [`scratch_words`] words at least; what is in it
/// does not matter. Total for any bytes: no panic, no loop without a bound.
///
/// # Errors
/// [`Refusal`]; with [`Refusal::Findings`] the sink has seen each of them.
pub fn verify(blob: &[u8], scratch: &mut [u32], sink: &mut dyn FnMut(Finding)) -> Result<Proof, Refusal> {
    let plan = Plan::read_whole(blob).map_err(Refusal::Plan)?;
    let audit = plan.audit().map_err(Refusal::Plan)?;
    plan.tables().map_err(Refusal::Plan)?;
    let needed = scratch_words(blob);
    let scratch = scratch.get_mut(..needed).ok_or(Refusal::Scratch(needed))?;
    let mut report = Report::new(sink);

    // Everything below may rely on well-formed records; a malformed one ends the work here.
    work::records_are_well_formed(&plan, &audit, &mut report);
    if report.count > 0 {
        return Err(Refusal::Findings(report.count));
    }
    let Some((work, marks)) = Work::new(plan, audit, scratch) else { return Err(Refusal::Scratch(needed)) };
    header::prove(&work, &mut report);
    memory::prove(&work, &mut report);
    let leaves = stage2::prove(&work, marks, &mut report) + el2::prove(&work, marks, &mut report);
    let leaves = leaves + restart::prove(&work, marks, &mut report) + dma::prove(&work, marks, &mut report);
    msi::prove(&work, el2::state_of_functions(&work), marks, &mut report);
    stage2::every_table_is_used(&work, marks, &mut report);
    cpus::prove(&work, &mut report);
    domains::prove(&work, &mut report);
    irq::prove(&work, &mut report);
    gicv2::prove(&work, &mut report);
    payload::prove(&work, &mut report);
    dtb::prove(&work, &mut report);
    pci::prove(&work, &mut report);
    bar::prove(&work, &mut report);
    bridge::prove(&work, &mut report);
    config::prove(&work, &mut report);
    if report.count > 0 {
        return Err(Refusal::Findings(report.count));
    }
    let plan = work.plan;
    Ok(Proof { domains: plan.domains.len() as u32, tables: plan.header.tables.count, leaves })
}
