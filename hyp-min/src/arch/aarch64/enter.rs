//! From boot or CPU_ON into the guest: the CPU's interrupt controller, EL2's registers, scrubbing, EL1.
#![allow(unsafe_code)] // leaves Rust

use super::percpu::PerCpu;
use super::{granted, park, registers};
use crate::dev::gicv2::Gic;
use crate::dev::{gicv3, its};
use crate::state::vcpu;
use crate::{pci, watchdog};
use cofferdam_plan::{DomainFlags, HeaderFlags, IntId, Plan};
use core::sync::atomic::Ordering;
use hyp_min::vdev::inject::LEAST;

/// The SGI of EL2, where it has Group 0.
pub(crate) fn kick(plan: &Plan<'_>) -> Option<IntId> {
    (plan.header.flags & HeaderFlags::GROUP0 != 0).then_some(plan.header.kick_sgi)
}

/// The end of the boot on every CPU: vCPU 0 starts, the others wait for CPU_ON.
pub(crate) fn first(cpu: &'static PerCpu) -> ! {
    let plan = cpu.plan();
    let kick = kick(plan);
    // First, so that whatever fails from here on is revoked under the domain's own VMID.
    registers::write_all(cpu);
    if let Some(gic) = &cpu.gicv2 {
        set_up_gicv2(cpu, gic);
    } else {
        let lpis = its::of_cpu(plan, usize::from(cpu.index.0)).map(|(tables, _)| tables);
        let redistributor = cpu.redistributor;
        let set_up = redistributor.wake()
            && redistributor.set_up(kick, cpu.is_injected())
            && lpis.is_none_or(|tables| redistributor.enable_lpis(tables));
        if !set_up {
            defmt::error!("refused: redistributor of CPU {=u16} does not follow", cpu.index.0);
            park::fault(cpu, park::Reason::InterruptController);
        }
        gicv3::cpu_interface(kick.is_some(), cpu.is_injected());
        if !is_group0_ours(cpu, kick) {
            defmt::error!("refused: CPU {=u16} gets no Group 0 interrupt", cpu.index.0);
            park::fault(cpu, park::Reason::InterruptController);
        }
    }
    watchdog::take_up(cpu);
    // Not before this CPU does what it owes other domains: their console input, their watchdogs.
    if cpu.is_injected() && cpu.lists() < LEAST {
        defmt::error!("refused: CPU {=u16} has {=u32} list registers", cpu.index.0, cpu.lists());
        park::fault(cpu, park::Reason::InterruptController);
    }
    if !granted::is_there(cpu.domain().flags, cpu.index.0) {
        park::fault(cpu, park::Reason::Feature);
    }
    if cpu.vcpu != 0 {
        park::stand_by(cpu);
    }
    scrub(cpu);
    if pci::has_functions(cpu) {
        park::quiet(cpu);
        pci::reset(cpu);
        pci::start(cpu);
        if !cpu.state.is_running() {
            pci::end(cpu.plan(), cpu.id.0);
            park::stand_by(cpu);
        }
        anew(cpu);
    }
    start(cpu)
}

/// The domain starts again, on the CPU of its vCPU 0.
pub(crate) fn anew(cpu: &'static PerCpu) -> ! {
    prepare(cpu);
    start(cpu)
}

/// vCPU 0 starts where the plan says.
fn start(cpu: &'static PerCpu) -> ! {
    if let Some(own) = cpu.state.vcpus.first() {
        own.state.store(vcpu::ON, Ordering::Release);
    }
    watchdog::begin(cpu.domain(), cpu.state);
    registers::start_time(cpu);
    let domain = cpu.domain();
    guest(domain.entry.0, domain.dtb.0)
}

/// CPU_ON has been called for this vCPU.
pub(crate) fn again(cpu: &'static PerCpu, entry: u64, context: u64) -> ! {
    prepare(cpu);
    guest(entry, context)
}

/// EL2's registers and the CPU interface, for a guest that is entered from EL2's own waiting.
fn prepare(cpu: &'static PerCpu) {
    registers::write_all(cpu);
    match &cpu.gicv2 {
        Some(gic) => hand_over(cpu, gic),
        None => gicv3::cpu_interface(kick(cpu.plan()).is_some(), cpu.is_injected()),
    }
}

fn guest(entry: u64, x0: u64) -> ! {
    // SAFETY: all EL2 registers have been written for this CPU's vCPU, TPIDR_EL2 points to its PerCpu; stage 2 confines
    // whatever `entry` is.
    unsafe { super::enter_guest(entry, x0) }
}

/// That SPIs of this CPU's domain come here, and its SGIs, depends on the CPU interface's number: asked, not believed.
fn set_up_gicv2(cpu: &'static PerCpu, gic: &Gic) {
    gic.set_up_cpu();
    let planned = cpu.plan().cpus.get(usize::from(cpu.index.0)).map_or(0, |cpu| cpu.gicv2_target);
    if gic.target() != planned {
        let (index, target) = (cpu.index.0, gic.target());
        defmt::error!("refused: CPU {=u16} has GIC target {=u32:#x}, planned {=u32:#x}", index, target, planned);
        park::fault(cpu, park::Reason::InterruptController);
    }
    hand_over(cpu, gic);
}

/// The CPU interface is the guest's from now on, or a virtual one is.
fn hand_over(cpu: &PerCpu, gic: &Gic) {
    if cpu.is_injected() {
        gic.inject();
    } else {
        gic.give();
    }
}

/// Group 0 ownership is probed, not believed (invariant I48): the kick SGI, sent to this CPU, must show as an FIQ. Which of
/// several pending ones of equal priority is acknowledged first is the hardware's choice; any proves it.
fn is_group0_ours(cpu: &PerCpu, kick: Option<IntId>) -> bool {
    let Some(kick) = kick else { return true };
    let Some(value) = cpu.targets.kick(cpu.vcpu, kick) else { return false };
    gicv3::send_group0(value);
    let seen = (0..1000).any(|_| gicv3::is_fiq_pending());
    let Some(intid) = gicv3::acknowledge() else { return false };
    gicv3::end(intid);
    seen
}

/// `scrub = "boot"`: clears what the image does not fill of the domain's RAM, before its first instruction.
fn scrub(cpu: &PerCpu) {
    let (plan, domain) = (cpu.plan(), cpu.domain());
    let Some(ranges) = plan.scrubs_of(domain) else { return };
    if domain.flags & DomainFlags::SCRUB_AT_BOOT == 0 || ranges.is_empty() {
        return;
    }
    let base = plan.header.base.0;
    let records = core::ptr::from_ref(ranges).cast::<u8>() as u64 - cofferdam_plan::va::HYP_VA + base;
    // SAFETY: only the address is taken.
    let routine = base + super::offset_in_image(unsafe { &super::scrub_off });
    // SAFETY: the routine lies in the page that is mapped at its physical address and uses no stack; the ranges are this
    // domain's RAM (the verifier's proof), not yet in use; it turns the MMU back on.
    unsafe { super::call_scrub(records, ranges.len() as u64, routine) };
}
