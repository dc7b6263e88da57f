//! The ITS (IHI 0069, 5): its tables and commands are the plan's, carried out once at boot; afterwards nobody talks to it.
//!
//! What arrives from it are LPIs, at EL2: each stands for an SPI of a domain, see [`collect`].
#![allow(unsafe_code)] // the plan's commands

use super::mmio::Mmio;
use crate::arch::aarch64::percpu::PerCpu;
use crate::dev::gicv3::{self, Redistributor};
use crate::pci;
use cofferdam_plan::pci::{FIRST_LPI, Its};
use cofferdam_plan::{IntId, PciView, Plan, va};
use hyp_min::vdev::its::{COLLECTIONS, DEVICES, collection, is_taken, lacks};

const GITS_CTLR: u32 = 0x0000;
const GITS_TYPER: u32 = 0x0008;
const GITS_CBASER: u32 = 0x0080;
const GITS_CWRITER: u32 = 0x0088;
const GITS_CREADR: u32 = 0x0090;
const GITS_BASER: u32 = 0x0100;

const CTLR_ENABLED: u32 = 1 << 0;
const CTLR_QUIESCENT: u32 = 1 << 31;
/// GITS_CREADR.Stalled.
const STALLED: u64 = 1 << 0;
/// The address in GITS_CBASER.
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// Reads of a status before the hardware counts as broken.
const POLLS: u32 = 1_000_000;

fn refuse(what: &str) -> bool {
    defmt::error!("refused: the ITS does not follow: {=str}", what);
    false
}

/// Tables as planned, then the plan's commands. Before any function may send a message, and before CPUs enable LPIs. True without an
/// ITS; false where it does not follow or is not the one planned for, which has been logged.
pub(crate) fn set_up(plan: &Plan<'_>, view: &PciView<'_>) -> bool {
    let its = &view.record.its;
    if its.control_va == 0 {
        return true;
    }
    let registers = Mmio::new(its.control_va);
    if registers.probe(GITS_TYPER).is_none() {
        return refuse("nothing at its address");
    }
    let typer = registers.load64(GITS_TYPER);
    if let Some(what) = lacks(its, typer) {
        defmt::error!("refused: the ITS lacks {=str}: GITS_TYPER {=u64:#x}", what, typer);
        return false;
    }
    if !redistributors_are_planned(plan, its) {
        return false;
    }
    registers.store(GITS_CTLR, registers.load(GITS_CTLR) & !CTLR_ENABLED);
    if !(0..POLLS).any(|_| registers.load(GITS_CTLR) & CTLR_QUIESCENT != 0) {
        return refuse("GITS_CTLR.Quiescent");
    }
    let mut tables = 0;
    for register in (GITS_BASER..GITS_BASER + 64).step_by(8) {
        let (planned, bits) = match registers.load64(register) >> 56 & 7 {
            0 => continue,
            DEVICES => (its.device_base, its.device_bits),
            COLLECTIONS => (its.collection_base, 0),
            _ => (0, 0),
        };
        registers.store64(register, planned);
        if !is_taken(planned, registers.load64(register), bits) {
            return refuse("GITS_BASER");
        }
        tables += u32::from(planned != 0);
    }
    if tables != u32::from(its.device_base != 0) + u32::from(its.collection_base != 0) {
        return refuse("GITS_BASER.Type");
    }
    registers.store64(GITS_CBASER, its.command_base);
    registers.store64(GITS_CWRITER, 0);
    if registers.load64(GITS_CBASER) != its.command_base {
        return refuse("GITS_CBASER");
    }
    registers.store(GITS_CTLR, CTLR_ENABLED);
    registers.store64(GITS_CWRITER, its.command_end);
    let is_done = || registers.load64(GITS_CREADR) & !STALLED == its.command_end;
    let is_over = || is_done() || registers.load64(GITS_CREADR) & STALLED != 0;
    _ = (0..POLLS).any(|_| is_over());
    if !is_done() {
        defmt::error!(
            "refused: the ITS stops at GITS_CREADR {=u64:#x} of {=u64:#x}",
            registers.load64(GITS_CREADR),
            its.command_end
        );
    }
    is_done()
}

/// Whether the redistributors have the numbers by which the plan's commands name them, and LPIs.
fn redistributors_are_planned(plan: &Plan<'_>, its: &Its) -> bool {
    let header = plan.header;
    let offset = (its.command_base & ADDRESS).wrapping_sub(header.base.0);
    let end = u64::from(header.blob_offset) + u64::from(header.blob_len);
    if offset > end || its.command_end > end - offset || !its.command_end.is_multiple_of(32) {
        return refuse("its commands are not in the plan");
    }
    let first = (va::HYP_VA + offset) as usize as *const [u64; 4];
    for n in 0..its.command_end as usize / 32 {
        // SAFETY: inside the plan's blob, which EL2 maps readable, as just checked.
        let place = unsafe { first.add(n) };
        // SAFETY: as above; 4 KiB aligned at the start.
        let Some((index, number)) = collection(unsafe { place.read() }) else { continue };
        let found = plan.cpus.get(usize::from(index)).and_then(|cpu| Redistributor::new(cpu.gicr_va).lpi_number());
        if found != Some(number as u32) {
            defmt::error!("refused: redistributor of CPU {=u16} has no LPIs or is not number {=u64}", index, number);
            return false;
        }
    }
    true
}

/// The LPIs of the CPU with this index in the plan: what its redistributor needs, and the SPI of each. `None` where it takes none.
pub(crate) fn of_cpu<'a>(plan: &Plan<'a>, index: usize) -> Option<([u64; 2], &'a [u32])> {
    let view = pci::view(plan)?;
    let pending = *view.pending.get(index)?;
    (pending != 0).then_some(([view.record.its.properties, pending], view.lpis))
}

/// Takes the LPIs that have come to this CPU, each at most once. While nothing else of Group 1 is let through, see
/// [`gicv3::messages_only`]. The SPI that an LPI stands for is pending from now on, and the rest is the distributor's; vectors.S does the
/// same while a guest runs. An LPI has no active state.
pub(crate) fn collect(cpu: &PerCpu) {
    let Some((_, lpis)) = of_cpu(cpu.plan(), usize::from(cpu.index.0)) else { return };
    for _ in lpis {
        let Some(intid) = gicv3::acknowledge_group1() else { break };
        if let Some(spi) = intid.checked_sub(FIRST_LPI).and_then(|n| lpis.get(n as usize)) {
            cpu.distributor.set_line(IntId(*spi), true);
        }
        gicv3::drop_priority(IntId(intid));
    }
}
