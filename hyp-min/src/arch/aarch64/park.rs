//! Where a vCPU or a whole domain ends: parked by a fault, turned off, or waiting for CPU_ON.
//!
//! What must work against the guest is revocation: its stage-2 root is emptied and the TLBs are flushed under its VMID, so
//! each of its CPUs comes here at its next fetch. The kick SGI only makes that sooner.
#![allow(unsafe_code)] // revocation

use super::percpu::PerCpu;
use super::registers::mrs;
use super::{enter, firmware};
use crate::state::{self, vcpu};
use crate::{console, dev::gicv3};
use cofferdam_plan::Domain;
use core::arch::asm;
use core::sync::atomic::Ordering;
use hyp_min::vdev::syndrome;

/// Why a domain is parked.
#[derive(Clone, Copy, PartialEq, Eq, defmt::Format)]
pub(crate) enum Reason {
    /// An abort came from the guest's own exception vectors.
    VectorAbort,
    /// A physical SError.
    SystemError,
    /// An exception class that EL2 does not handle.
    UnhandledClass,
    /// An exception in EL2 itself while it worked for this domain.
    Hypervisor,
    /// The interrupt controller of one of its CPUs does not do what it must.
    Redistributor,
    /// EL2 panicked while it worked for this domain.
    Panic,
}

/// Parks this CPU's domain and leaves a record. Reads the syndrome from the registers.
pub(crate) fn fault(cpu: &'static PerCpu, reason: Reason) -> ! {
    let (pc, esr, far) = (mrs!("elr_el2"), mrs!("esr_el2"), mrs!("far_el2"));
    let (domain, vcpu) = (cpu.id.0, cpu.vcpu as u32);
    let first = cpu.state.status.compare_exchange(state::RUNNING, state::PARKED, Ordering::AcqRel, Ordering::Acquire);
    if first.is_err() {
        idle(cpu);
    }
    cpu.log.last_words();
    if syndrome::hpfar_valid(esr) && is_guest_abort(esr) {
        let ipa = syndrome::ipa(mrs!("hpfar_el2"), far);
        defmt::error!(
            "parked domain {=u16} vcpu {=u32}: {} pc {=u64:#x} esr {=u64:#x} far {=u64:#x} ipa {=u64:#x}",
            domain,
            vcpu,
            reason,
            pc,
            esr,
            far,
            ipa
        );
    } else {
        defmt::error!(
            "parked domain {=u16} vcpu {=u32}: {} pc {=u64:#x} esr {=u64:#x} far {=u64:#x} no ipa",
            domain,
            vcpu,
            reason,
            pc,
            esr,
            far
        );
    }
    if reason == Reason::VectorAbort {
        // The first abort, that the guest did not survive.
        defmt::error!(
            "domain {=u16} came from pc {=u64:#x} esr_el1 {=u64:#x} far_el1 {=u64:#x}",
            domain,
            mrs!("elr_el1"),
            mrs!("esr_el1"),
            mrs!("far_el1")
        );
    }
    finish(cpu, true)
}

fn is_guest_abort(esr: u64) -> bool {
    matches!(syndrome::class(esr), syndrome::ec::DATA_ABORT | syndrome::ec::INSTRUCTION_ABORT)
}

/// The domain turns itself off.
pub(crate) fn off(cpu: &'static PerCpu) -> ! {
    let first = cpu.state.status.compare_exchange(state::RUNNING, state::OFF, Ordering::AcqRel, Ordering::Acquire);
    if first.is_err() {
        idle(cpu);
    }
    finish(cpu, false)
}

/// The first of a domain's CPUs to end it does the rest; when it was the last domain, the machine goes off.
fn finish(cpu: &'static PerCpu, parked: bool) -> ! {
    revoke(cpu.domain());
    kick_others(cpu);
    console::flush(cpu.plan());
    if state::count_end(parked, cpu.plan().domains.len()) {
        console::drain(cpu.plan());
        console::say_end();
        console::drain(cpu.plan());
        firmware::power_off();
    }
    idle(cpu)
}

/// Entries of the largest root there is: sixteen concatenated tables (DDI 0487, D8.2.2).
const MOST_ENTRIES: u32 = 16 * 512;

/// Empties the domain's stage-2 root and flushes every CPU's TLBs under its VMID. Runs on a CPU of the domain, so
/// VTTBR_EL2 holds that VMID. Valid to invalid only: no break-before-make (DDI 0487, D8.17).
fn revoke(domain: &Domain) {
    let root = domain.root_va as usize as *mut u64;
    for entry in 0..domain.root_entries.min(MOST_ENTRIES) as usize {
        // SAFETY: `root_entries` of the plan lie in the root table, mapped writable at `root_va` for this purpose.
        let place = unsafe { root.add(entry) };
        // SAFETY: as above; walkers on other CPUs read single-copy atomically.
        unsafe { place.write_volatile(0) };
    }
    // SAFETY: maintenance of this domain's translations; EL2's own are another regime.
    unsafe { asm!("dsb ish", "tlbi vmalls12e1is", "dsb ish", "isb", options(nostack, preserves_flags)) };
}

fn kick_others(cpu: &PerCpu) {
    for vcpu in (0..cpu.domain().vcpu_count as usize).filter(|vcpu| *vcpu != cpu.vcpu) {
        wake(cpu, vcpu);
    }
}

/// Kicks vCPU `vcpu` of this domain. A plan whose domains have more than one has Group 0.
#[inline(never)]
pub(crate) fn wake(cpu: &PerCpu, vcpu: usize) {
    if let Some(value) = enter::kick(cpu.plan()).and_then(|kick| cpu.targets.kick(vcpu, kick)) {
        gicv3::send_group0(value);
    }
}

/// A vCPU that is off waits here for CPU_ON, or for its domain's end.
pub(crate) fn wait_for_start(cpu: &'static PerCpu) -> ! {
    quiet(cpu);
    loop {
        if cpu.state.status.load(Ordering::Acquire) != state::RUNNING {
            idle(cpu);
        }
        if let Some(own) = cpu.state.vcpus.get(cpu.vcpu) {
            let ready = own.state.compare_exchange(vcpu::READY, vcpu::ON, Ordering::AcqRel, Ordering::Acquire);
            if ready.is_ok() {
                enter::again(cpu, own.entry.load(Ordering::Relaxed), own.context.load(Ordering::Relaxed));
            }
        }
        rest(cpu);
    }
}

/// A CPU whose domain has ended stays here, and goes on serving EL2's own interrupts.
pub(crate) fn idle(cpu: &'static PerCpu) -> ! {
    quiet(cpu);
    loop {
        rest(cpu);
    }
}

/// Nothing of the guest keeps this CPU awake or holds off EL2's interrupts.
fn quiet(cpu: &PerCpu) {
    gicv3::clear_active(enter::kick(cpu.plan()).is_some());
    gicv3::close_guest_group();
}

fn rest(cpu: &'static PerCpu) {
    cortex_a::asm::wfi();
    if enter::kick(cpu.plan()).is_some() {
        super::traps::serve(cpu);
    }
}
