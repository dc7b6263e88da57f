//! Injected delivery on a GICv3: does what `vdev::inject` has decided, with this CPU's list registers.
//!
//! The usual interrupt does not come here: vectors.S writes list register 0 itself where all are empty.
#![allow(unsafe_code)] // exported to vectors.S; system registers

use super::park;
use super::percpu::PerCpu;
use super::registers::{barrier, mrs, msr};
use crate::dev::gicv3::{self, MAINTENANCE};
use crate::state::vcpu;
use cofferdam_plan::IntId;
use core::sync::atomic::Ordering;
use hyp_min::vdev::inject::{self, Entry, Interface, MOST, Until, frames};
use hyp_min::vdev::{Access, Outcome};

// Fields of ICH_LR<n>_EL2 (IHI 0069, 12.4.10).
const PENDING: u64 = 1 << 62;
const ACTIVE: u64 = 1 << 63;
const HW: u64 = 1 << 61;
const GROUP1: u64 = 1 << 60;
const PRIORITY_SHIFT: u32 = 48;
const PINTID_SHIFT: u32 = 32;
// ICH_HCR_EL2 (12.4.9): virtual interface on, no interrupt pending, underflow.
const EN: u64 = 1 << 0;
const UIE: u64 = 1 << 1;
const NPIE: u64 = 1 << 3;

impl Interface for PerCpu {
    const BANKED: bool = false;

    fn count(&self) -> usize {
        (mrs!("ich_vtr_el2") & 0xF) as usize + 1
    }

    fn empty(&self) -> u32 {
        mrs!("ich_elrsr_el2") as u32
    }

    #[inline(never)]
    fn get(&self, n: usize) -> Entry {
        let value = super::read_list_register(n as u64 & (MOST as u64 - 1));
        Entry {
            intid: value as u32,
            priority: (value >> PRIORITY_SHIFT) as u8,
            pending: value & PENDING != 0,
            active: value & ACTIVE != 0,
            source: 0,
        }
    }

    #[inline(never)]
    fn put(&self, n: usize, entry: Entry) {
        let mut value = GROUP1 | u64::from(entry.priority) << PRIORITY_SHIFT | u64::from(entry.intid);
        if entry.is_physical() {
            value |= HW | u64::from(entry.intid) << PINTID_SHIFT;
        }
        match (entry.pending, entry.active) {
            (false, false) => value = 0,
            (true, false) => value |= PENDING,
            (false, true) => value |= ACTIVE,
            (true, true) => value |= PENDING | ACTIVE,
        }
        super::write_list_register(n as u64 & (MOST as u64 - 1), value);
    }

    fn pend(&self, entry: Entry) {
        if entry.intid < 32 {
            self.redistributor.pend(IntId(entry.intid));
        } else {
            self.distributor.set_line(IntId(entry.intid), true);
        }
    }

    fn deactivate(&self, intid: u32) {
        gicv3::deactivate(IntId(intid));
    }

    fn hold(&self, priority: u8, until: Until) {
        gicv3::mask(Some(priority));
        msr!("ich_hcr_el2", EN | if until == Until::NonePending { NPIE } else { UIE });
    }

    fn recheck_elsewhere(&self) {
        recheck_elsewhere(self);
    }
}

/// Has the other vCPUs of this CPU's domain look at their list registers again.
#[inline(never)]
pub(super) fn recheck_elsewhere(cpu: &PerCpu) {
    for (vcpu, other) in cpu.state.vcpus.iter().enumerate().take(cpu.domain().vcpu_count as usize) {
        if vcpu != cpu.vcpu && other.state.load(Ordering::Acquire) == vcpu::ON {
            other.recheck.store(true, Ordering::Release);
            park::wake(cpu, vcpu);
        }
    }
}

/// Whether another vCPU has asked this one to look at its list registers again.
pub(super) fn is_asked(cpu: &PerCpu) -> bool {
    cpu.state.vcpus.get(cpu.vcpu).is_some_and(|own| own.recheck.swap(false, Ordering::AcqRel))
}

/// A physical IRQ that vectors.S has acknowledged and not dealt with.
#[unsafe(no_mangle)]
extern "C" fn trap_irq_injected(cpu: &'static PerCpu, intid: u32) {
    if intid >= 1020 {
        return;
    }
    let priority = gicv3::running_priority();
    gicv3::drop_priority(IntId(intid));
    if intid == MAINTENANCE.0 {
        // There is room again.
        msr!("ich_hcr_el2", EN);
        gicv3::mask(None);
        gicv3::deactivate(MAINTENANCE);
    } else {
        inject::admit(&cpu.view, cpu, intid, priority, 0);
    }
}

/// This CPU has taken a kick.
pub(crate) fn kicked(cpu: &PerCpu) {
    if is_asked(cpu) {
        let (shared, private) = (&cpu.distributor.0, &cpu.redistributor.0);
        inject::recheck(&cpu.view, cpu, &|intid| frames::is_enabled::<_, PerCpu>(shared, private, intid));
    }
}

/// The vCPU of this CPU runs no more.
pub(crate) fn leave(cpu: &PerCpu) {
    inject::leave(&cpu.view, cpu);
    barrier();
}

/// After [`leave`]: of what comes to this CPU LPIs alone are taken, see [`gicv3::messages_only`]. Nor do list registers ask for more.
pub(crate) fn messages_only() {
    msr!("ich_hcr_el2", EN);
    gicv3::messages_only();
}

/// Whether an interrupt waits for the guest in a list register.
pub(crate) fn is_pending(cpu: &PerCpu) -> bool {
    inject::is_pending(cpu)
}

/// An access to the distributor.
#[inline(never)]
pub(crate) fn distributor(cpu: &PerCpu, access: Access) -> Outcome {
    frames::distributor(&cpu.view, &cpu.distributor.0, &cpu.redistributor.0, cpu, access)
}

/// An access to the redistributors.
#[inline(never)]
pub(crate) fn redistributor(cpu: &PerCpu, access: Access) -> Outcome {
    frames::redistributor(&cpu.view, |vcpu| Some(cpu.redistributor_of(vcpu)?.0), cpu.vcpu, cpu, access)
}
