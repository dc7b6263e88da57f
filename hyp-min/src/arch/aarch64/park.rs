//! Where a vCPU or a whole domain ends: parked by a fault, turned off, about to start again, or waiting for CPU_ON.
//!
//! What must work against the guest is revocation: its stage-2 root is made invalid and the TLBs are flushed under its VMID, so
//! each of its CPUs comes here at its next fetch. The kick SGI only makes that sooner.
#![allow(unsafe_code)] // revocation

use super::percpu::PerCpu;
use super::registers::mrs;
use super::{enter, firmware, inject, restart};
use crate::deadline::Duty;
use crate::state::{self, vcpu};
use crate::{console, dev::gicv3};
use cofferdam_plan::{Domain, Policy};
use core::arch::asm;
use core::sync::atomic::Ordering;
use hyp_min::vdev::{dist2, syndrome};

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
    InterruptController,
    /// One of its CPUs has not got what the domain is granted.
    Feature,
    /// EL2 panicked while it worked for this domain.
    Panic,
}

impl Reason {
    /// Whether the guest has brought it about. What EL2 or the machine has is not mended by another run.
    const fn is_guests(self) -> bool {
        matches!(self, Self::VectorAbort | Self::SystemError | Self::UnhandledClass)
    }
}

/// Ends this CPU's domain by its policy for faults and leaves a record. Reads the syndrome from the registers.
pub(crate) fn fault(cpu: &'static PerCpu, reason: Reason) -> ! {
    let (pc, esr, far) = (mrs!("elr_el2"), mrs!("esr_el2"), mrs!("far_el2"));
    let (domain, vcpu) = (cpu.id.0, cpu.vcpu as u32);
    let policy = match cpu.domain().on_fault {
        Policy::RESTART if !reason.is_guests() => Policy::HALT,
        policy => policy,
    };
    if !take(cpu, policy, state::PARKED) {
        stand_by(cpu);
    }
    // One that starts again may fault as often as its limit allows: an allowance of records, and no last words.
    let fate = match policy {
        Policy::RESTART => "restarted",
        Policy::REBOOT_BOARD => "board reset by",
        _ => "parked",
    };
    if policy != Policy::RESTART {
        cpu.log.last_words();
    } else if cpu.log.permit().is_none() {
        finish(cpu, policy, true);
    }
    if syndrome::hpfar_valid(esr) && is_guest_abort(esr) {
        let ipa = syndrome::ipa(mrs!("hpfar_el2"), far);
        defmt::error!(
            "{=str} domain {=u16} vcpu {=u32}: {} pc {=u64:#x} esr {=u64:#x} far {=u64:#x} ipa {=u64:#x}",
            fate,
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
            "{=str} domain {=u16} vcpu {=u32}: {} pc {=u64:#x} esr {=u64:#x} far {=u64:#x} no ipa",
            fate,
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
    finish(cpu, policy, true)
}

fn is_guest_abort(esr: u64) -> bool {
    matches!(syndrome::class(esr), syndrome::ec::DATA_ABORT | syndrome::ec::INSTRUCTION_ABORT)
}

/// The domain turns itself off, or with `reset` asks to start again: by its policy.
pub(crate) fn off(cpu: &'static PerCpu, reset: bool) -> ! {
    let policy = if reset { cpu.domain().on_reset } else { cpu.domain().on_off };
    if !take(cpu, policy, state::OFF) {
        stand_by(cpu);
    }
    match policy {
        Policy::RESTART if cpu.log.permit().is_some() => {
            defmt::info!("restarted domain {=u16}: {=str}", cpu.id.0, if reset { "reset" } else { "off" });
        }
        Policy::HALT if reset => defmt::info!("domain {=u16} asked for a reset and is off", cpu.id.0),
        _ => {}
    }
    finish(cpu, policy, false)
}

/// Takes the domain out of its run, into `end` or on the way to the next. False where it has been taken already.
fn take(cpu: &PerCpu, policy: u8, end: u32) -> bool {
    restart::be_patient(cpu.state);
    cpu.state.change(state::RUNNING, if policy == Policy::RESTART { state::RESTARTING } else { end })
}

/// The CPU that has taken a domain out of its run does the rest. `fault`: it has not ended by its own will.
fn finish(cpu: &'static PerCpu, policy: u8, fault: bool) -> ! {
    revoke(cpu.domain());
    kick_others(cpu);
    console::flush(cpu.plan());
    match policy {
        Policy::RESTART => restart::count(cpu),
        Policy::REBOOT_BOARD => {
            defmt::warn!("domain {=u16} resets the board", cpu.id.0);
            state::count_end(fault, cpu.plan().domains.len());
            last_line(cpu);
            firmware::reset();
        }
        _ => ended(cpu, fault),
    }
    stand_by(cpu)
}

/// A domain has ended for good; when it was the last one, the machine goes off.
pub(crate) fn ended(cpu: &PerCpu, fault: bool) {
    if state::count_end(fault, cpu.plan().domains.len()) {
        last_line(cpu);
        firmware::power_off();
    }
}

fn last_line(cpu: &PerCpu) {
    console::drain(cpu.plan());
    console::say_end();
    console::drain(cpu.plan());
}

/// Entries of the largest root there is: sixteen concatenated tables (DDI 0487, D8.2.2).
const MOST_ENTRIES: u32 = 16 * 512;

/// The valid bit of a descriptor (DDI 0487, D8.3). Without it the walker looks at nothing else.
const VALID: u64 = 1;

/// Makes every entry of the domain's stage-2 root invalid and flushes every CPU's TLBs under its VMID. Runs on a CPU of the
/// domain, so VTTBR_EL2 holds that VMID. Valid to invalid only: no break-before-make (DDI 0487, D8.17). The rest of each
/// entry stays for [`restore`].
fn revoke(domain: &Domain) {
    change_root(domain, |entry| entry & !VALID);
    // The event is for a CPU that sleeps in WFE, where no interrupt may reach it.
    // SAFETY: maintenance of this domain's translations; EL2's own are another regime.
    unsafe { asm!("dsb ish", "tlbi vmalls12e1is", "dsb ish", "isb", "sev", options(nostack, preserves_flags)) };
}

/// Makes the root's entries valid again: exactly those that were (a plan has no invalid entry that is not zero). While every
/// CPU of the domain is in EL2.
pub(crate) fn restore(domain: &Domain) {
    change_root(domain, |entry| if entry == 0 { 0 } else { entry | VALID });
    cortex_a::asm::barrier::dsb(cortex_a::asm::barrier::ISHST);
}

fn change_root(domain: &Domain, change: impl Fn(u64) -> u64) {
    let root = domain.root_va as usize as *mut u64;
    for entry in 0..domain.root_entries.min(MOST_ENTRIES) as usize {
        // SAFETY: `root_entries` of the plan lie in the root table, mapped writable at `root_va` for this purpose.
        let place = unsafe { root.add(entry) };
        // SAFETY: as above; walkers on other CPUs read single-copy atomically.
        let value = unsafe { place.read_volatile() };
        // SAFETY: as above.
        unsafe { place.write_volatile(change(value)) };
    }
}

fn kick_others(cpu: &PerCpu) {
    for vcpu in (0..cpu.domain().vcpu_count as usize).filter(|vcpu| *vcpu != cpu.vcpu) {
        wake(cpu, vcpu);
    }
}

/// Kicks vCPU `vcpu` of this domain. A plan whose domains have more than one has Group 0.
#[inline(never)]
pub(crate) fn wake(cpu: &PerCpu, vcpu: usize) {
    if let Some(gic) = &cpu.gicv2 {
        // One that runs in its guest takes it for an SGI: it is kicked only when its domain ends or starts again.
        if let Some(value) = dist2::kick(&cpu.view, vcpu, cpu.plan().header.kick_sgi) {
            gic.send(value);
        }
    } else if let Some(value) = enter::kick(cpu.plan()).and_then(|kick| cpu.targets.kick(vcpu, kick)) {
        gicv3::send_group0(value);
    }
}

/// A CPU without a vCPU to run stays here: one that is off and waits for CPU_ON, one whose domain has ended, one whose domain
/// starts again. It goes on serving EL2's own interrupts.
pub(crate) fn stand_by(cpu: &'static PerCpu) -> ! {
    quiet(cpu);
    let mut kicked = false;
    loop {
        let status = cpu.state.status();
        match status.is() {
            state::RUNNING => {
                cpu.deadlines.clear(Duty::Restart);
                start(cpu, kicked);
            }
            state::RESTARTING => restart::step(cpu, status),
            _ => {}
        }
        kicked = rest(cpu);
    }
}

/// On a GICv2 the kick that comes with a start must not reach the guest, whose all interrupts are: it is taken here. The
/// caller of CPU_ON is between two instructions, or it has sent it before this CPU had set itself up; then it was lost.
fn collect_kick(cpu: &'static PerCpu, kicked: bool) {
    if cpu.gicv2.is_some() && !kicked {
        (0..1000).any(|_| super::traps::serve(cpu));
    }
}

/// Starts this CPU's vCPU where CPU_ON has been called for it.
fn start(cpu: &'static PerCpu, kicked: bool) {
    let Some(own) = cpu.state.vcpus.get(cpu.vcpu) else { return };
    if own.state.compare_exchange(vcpu::READY, vcpu::ON, Ordering::AcqRel, Ordering::Acquire).is_ok() {
        collect_kick(cpu, kicked);
        enter::again(cpu, own.entry.load(Ordering::Relaxed), own.context.load(Ordering::Relaxed));
    }
}

/// Nothing of the guest keeps this CPU awake or holds off EL2's interrupts.
fn quiet(cpu: &'static PerCpu) {
    if let Some(gic) = &cpu.gicv2 {
        return gic.take();
    }
    if cpu.is_injected() {
        inject::leave(cpu);
    }
    gicv3::clear_active(enter::kick(cpu.plan()).is_some());
    gicv3::close_guest_group();
}

/// Sleeps, then serves what has come. Answers whether it was a kick.
fn rest(cpu: &'static PerCpu) -> bool {
    cortex_a::asm::wfi();
    (cpu.gicv2.is_some() || enter::kick(cpu.plan()).is_some()) && super::traps::serve(cpu)
}
