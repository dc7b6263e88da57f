//! Injected delivery on a GICv2: does what `vdev::inject` has decided, with this CPU's list registers in memory.
//!
//! Every interrupt comes as an IRQ, EL2's own too, which have a priority that no guest's has. The usual one does not come here:
//! vectors.S writes list register 0 itself where all are empty.
#![allow(unsafe_code)] // exported to vectors.S

use super::inject::{is_asked, recheck_elsewhere};
use super::percpu::PerCpu;
use super::{park, traps};
use crate::dev::gicv2::{EL2_ONLY, Gic};
use crate::dev::gicv3::MAINTENANCE;
use cofferdam_plan::IntId;
use hyp_min::vdev::inject::{self, Entry, Interface, Until, frames};
use hyp_min::vdev::{Access, Outcome, dist2};

/// The list registers of a CPU with a GICv2.
struct Lists<'a> {
    cpu: &'a PerCpu,
    gic: &'a Gic,
}

impl Interface for Lists<'_> {
    const BANKED: bool = true;

    fn count(&self) -> usize {
        self.gic.lists() as usize
    }

    fn empty(&self) -> u32 {
        self.gic.empty_lists()
    }

    #[inline(never)]
    fn get(&self, n: usize) -> Entry {
        self.gic.list(n as u32)
    }

    #[inline(never)]
    fn put(&self, n: usize, entry: Entry) {
        self.gic.set_list(n as u32, entry);
    }

    fn pend(&self, entry: Entry) {
        if entry.is_physical() {
            self.cpu.distributor.set_line(IntId(entry.intid), true);
        } else {
            self.gic.pend_sgi(IntId(entry.intid), dist2::sent_by(&self.cpu.view, entry.source));
        }
    }

    fn deactivate(&self, intid: u32) {
        self.gic.deactivate(IntId(intid));
    }

    fn hold(&self, priority: u8, until: Until) {
        self.gic.mask(Some(priority));
        self.gic.listen(Some(until));
    }

    fn recheck_elsewhere(&self) {
        recheck_elsewhere(self.cpu);
    }
}

/// A physical IRQ that vectors.S has acknowledged, `taken` being what GICC_IAR said, and not dealt with.
#[unsafe(no_mangle)]
extern "C" fn trap_irq_injected_v2(cpu: &'static PerCpu, taken: u32) {
    let (Some(gic), intid) = (&cpu.gicv2, taken & 0x3FF) else { return };
    if intid >= 1020 {
        return;
    }
    let running = gic.running_priority();
    if running < EL2_ONLY && intid != MAINTENANCE.0 {
        let kicked = traps::serve_taken(cpu, taken);
        if !cpu.state.is_running() {
            park::stand_by(cpu);
        }
        if kicked && is_asked(cpu) {
            let frame = &cpu.distributor.0;
            let lists = Lists { cpu, gic };
            inject::recheck(&cpu.view, &lists, &|intid| frames::is_enabled::<_, Lists<'_>>(frame, frame, intid));
        }
        return;
    }
    gic.drop_priority(taken);
    // What waits for its like to end goes first: there must be room in its list register.
    gic.release_ended();
    if intid == MAINTENANCE.0 {
        gic.listen(None);
        gic.mask(None);
        gic.deactivate(MAINTENANCE);
    } else {
        let sender = dist2::sender(&cpu.view, taken >> 10);
        let source = if intid < 16 { sender } else { 0 };
        inject::admit(&cpu.view, &Lists { cpu, gic }, intid, (running << 1) as u8, source);
    }
}

/// The vCPU of this CPU runs no more.
#[inline(never)]
pub(crate) fn leave(cpu: &PerCpu, gic: &Gic) {
    inject::leave(&cpu.view, &Lists { cpu, gic });
}

/// Whether an interrupt waits for the guest in a list register.
#[inline(never)]
pub(crate) fn is_pending(cpu: &PerCpu, gic: &Gic) -> bool {
    inject::is_pending(&Lists { cpu, gic })
}

/// An access to the distributor, where it is one and interrupts are injected.
#[inline(never)]
pub(crate) fn distributor(cpu: &PerCpu, gic: &Gic, ipa: u64, size: u8, write: Option<u64>) -> Option<Outcome> {
    let offset = ipa.wrapping_sub(cpu.plan().header.gicd_ipa.0);
    if !cpu.is_injected() || offset >= u64::from(dist2::FRAME_SIZE) {
        return None;
    }
    let frame = &cpu.distributor.0;
    let access = Access { offset: offset as u32, size, write };
    Some(frames::distributor(&cpu.view, frame, frame, &Lists { cpu, gic }, access))
}
