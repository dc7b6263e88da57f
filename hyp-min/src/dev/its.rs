//! The ITS (IHI 0069, 5): its tables and commands are the plan's, carried out once at boot; afterwards nobody talks to it.
//!
//! What arrives from it are LPIs, at EL2: each stands for an SPI of a domain, see [`collect`].
#![allow(unsafe_code)] // the plan's commands

use super::mmio::Mmio;
use crate::arch::aarch64::percpu::PerCpu;
use crate::console;
use crate::dev::gicv3::{self, Redistributor};
use crate::pci;
use cofferdam_plan::pci::{FIRST_LPI, Its};
use cofferdam_plan::{IntId, PciView, Plan, va};
use hyp_min::vdev::its::{GITS_CREADR, GITS_TYPER, collection, lacks, start};

/// The address in GITS_CBASER.
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// Tables as planned, then the plan's commands. Before any function may send a message, and before CPUs enable LPIs. True without an
/// ITS; false where it does not follow or is not the one planned for, which has been logged.
pub(crate) fn set_up(plan: &Plan<'_>, view: &PciView<'_>) -> bool {
    let its = &view.record.its;
    if its.control_va == 0 {
        return true;
    }
    let registers = Mmio::new(its.control_va);
    if registers.probe(GITS_TYPER).is_none() {
        defmt::error!("refused: the ITS does not follow: nothing at its address");
        return false;
    }
    let typer = registers.load64(GITS_TYPER);
    if let Some(what) = lacks(its, typer) {
        defmt::error!("refused: the ITS lacks {}: GITS_TYPER {=u64:#x}", what, typer);
        return false;
    }
    if !redistributors_are_planned(plan, its) {
        return false;
    }
    let started = start(its, &registers, || (console::now(), console::frequency()));
    if let Err(why) = started {
        let offset = registers.load64(GITS_CREADR);
        let command = commands(plan, its).and_then(|commands| commands.get(offset as usize / 32));
        defmt::error!(
            "refused: the ITS does not follow: {}; GITS_CREADR {=u64:#x}, a command of device {=u64:#x}",
            why,
            offset,
            command.map_or(0, |command| command[0] >> 32)
        );
    }
    started.is_ok()
}

/// The plan's commands, where they lie in it.
fn commands<'a>(plan: &Plan<'a>, its: &Its) -> Option<&'a [[u64; 4]]> {
    let header = plan.header;
    let offset = (its.command_base & ADDRESS).wrapping_sub(header.base.0);
    let end = u64::from(header.blob_offset) + u64::from(header.blob_len);
    if offset > end || its.command_end > end - offset || !its.command_end.is_multiple_of(32) {
        return None;
    }
    let first = (va::HYP_VA + offset) as usize as *const [u64; 4];
    // SAFETY: inside the plan's blob, which EL2 maps readable and nobody writes, as just checked; 4 KiB aligned at the start.
    Some(unsafe { core::slice::from_raw_parts(first, its.command_end as usize / 32) })
}

/// Whether the redistributors have the numbers by which the plan's commands name them, and LPIs.
fn redistributors_are_planned(plan: &Plan<'_>, its: &Its) -> bool {
    let Some(commands) = commands(plan, its) else {
        defmt::error!("refused: the ITS's commands are not in the plan");
        return false;
    };
    for (index, number) in commands.iter().filter_map(|command| collection(*command)) {
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
