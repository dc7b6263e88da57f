//! Where a vCPU or a whole domain ends: parked by a fault, turned off, about to start again, or waiting for CPU_ON.
//!
//! What must work against the guest is revocation: its stage-2 root is made invalid and the TLBs are flushed under its VMID, so
//! each of its CPUs comes here at its next fetch. The kick SGI only makes that sooner.

use super::percpu::PerCpu;
use super::registers::mrs;
use super::{enter, firmware, inject, inject2, restart, revoke};
use crate::deadline::Duty;
use crate::dev::{gicv3, its, smmu};
use crate::state::{self, DomainState, Status, vcpu};
use crate::{console, pci};
use cofferdam_plan::{Domain, Policy};
use core::sync::atomic::Ordering;
use hyp_min::vdev::sgi::Targets;
use hyp_min::vdev::{View, dist2, syndrome};

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
    let subject = Subject::of(cpu);
    if !reason.is_guests() {
        forget_own(cpu);
        restart::abandon(cpu);
    }
    let Some(fate) = subject.take(policy, cpu.state.status()) else { stand_by(cpu) };
    // One that starts again may fault as often as its limit allows: an allowance of records, and no last words.
    if fate != Fate::Restarted {
        cpu.log.last_words(true);
    } else if cpu.log.permit().is_none() {
        finish(cpu, &subject, fate, true);
        stand_by(cpu);
    }
    if syndrome::hpfar_valid(esr) && is_guest_abort(esr) {
        let ipa = syndrome::ipa(mrs!("hpfar_el2"), far);
        defmt::error!(
            "{=str} domain {=u16} vcpu {=u32}: {} pc {=u64:#x} esr {=u64:#x} far {=u64:#x} ipa {=u64:#x}",
            fate.of_a_fault(),
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
            fate.of_a_fault(),
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
    finish(cpu, &subject, fate, true);
    stand_by(cpu)
}

/// EL2 has failed on this CPU. An interrupt of EL2's own that it may have been serving is over, and may come again: what the CPU
/// owes others goes on. Else it would stay active in the interrupt controller, which does not signal it then.
fn forget_own(cpu: &PerCpu) {
    let plan = cpu.plan();
    let own = plan.header.kick_sgi.bit() | gicv3::HYP_TIMER.bit();
    match &cpu.gicv2 {
        Some(_) => cpu.distributor.deactivate(0, own),
        None => cpu.redistributor.deactivate(own),
    }
    if cpu.index == plan.header.housekeeping_cpu {
        let [event, error] = smmu::interrupts(pci::view(plan));
        for intid in [plan.header.console_intid, event, error].into_iter().filter(|intid| intid.is_spi()) {
            cpu.distributor.deactivate(intid.word() as u32, intid.bit());
        }
    }
}

fn is_guest_abort(esr: u64) -> bool {
    matches!(syndrome::class(esr), syndrome::ec::DATA_ABORT | syndrome::ec::INSTRUCTION_ABORT)
}

/// The domain turns itself off, or with `reset` asks to start again: by its policy.
pub(crate) fn off(cpu: &'static PerCpu, reset: bool) -> ! {
    let policy = if reset { cpu.domain().on_reset } else { cpu.domain().on_off };
    let subject = Subject::of(cpu);
    let Some(fate) = subject.take(policy, cpu.state.status()) else { stand_by(cpu) };
    match fate {
        Fate::Restarted if cpu.log.permit().is_some() => {
            defmt::info!("restarted domain {=u16}: {=str}", cpu.id.0, if reset { "reset" } else { "off" });
        }
        Fate::Halted if reset => defmt::info!("domain {=u16} asked for a reset and is off", cpu.id.0),
        _ => {}
    }
    finish(cpu, &subject, fate, false);
    stand_by(cpu)
}

/// The watchdog of another domain has expired: it ends by its policy for faults.
/// `status`: what it was when it had not been patted.
pub(crate) fn expired(cpu: &'static PerCpu, id: usize, domain: &'static Domain, status: Status) {
    ended_from_outside(cpu, id, domain, status, "its watchdog has expired");
}

/// A device of a domain has done what it may not, and is stopped: the domain ends by its policy for faults. `status` as above.
pub(crate) fn ended_by_device(cpu: &'static PerCpu, id: usize, domain: &'static Domain, status: Status) {
    ended_from_outside(cpu, id, domain, status, "a fault of its device");
}

fn ended_from_outside(cpu: &'static PerCpu, id: usize, domain: &'static Domain, status: Status, why: &'static str) {
    let targets = Targets::new(cpu.plan(), domain);
    let subject = Subject { id: id as u16, domain, state: state::state_of(domain), foreign: Some(&targets) };
    let Some(fate) = subject.take(domain.on_fault, status) else { return };
    // The limit on restarts, or the end, bounds these records.
    cpu.log.last_words(true);
    defmt::error!("{=str} domain {=u16}: {=str}", fate.of_a_fault(), subject.id, why);
    finish(cpu, &subject, fate, true);
    cpu.log.last_words(false);
}

/// What becomes of a domain whose run has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Halted,
    /// It should start again, and has done so too often.
    Exhausted,
    Restarted,
    BoardReset,
}

impl Fate {
    /// In a word, after a fault.
    const fn of_a_fault(self) -> &'static str {
        match self {
            Self::Halted | Self::Exhausted => "parked",
            Self::Restarted => "restarted",
            Self::BoardReset => "board reset by",
        }
    }
}

/// A domain whose run ends, as the CPU sees it that ends it: one of its own, or the one that looks after its watchdog.
pub(super) struct Subject<'t> {
    id: u16,
    pub(super) domain: &'static Domain,
    pub(super) state: &'static DomainState,
    /// Its vCPUs, where this CPU is another domain's.
    foreign: Option<&'t Targets>,
}

impl Subject<'static> {
    /// This CPU's own domain.
    fn of(cpu: &'static PerCpu) -> Self {
        Self { id: cpu.id.0, domain: cpu.domain(), state: cpu.state, foreign: None }
    }
}

impl Subject<'_> {
    /// Takes the domain out of its run, that of `status`, and decides what becomes of it. `None` where another CPU has been first.
    /// From here on its CPUs wait in [`stand_by`], until [`finish`] says what for.
    fn take(&self, policy: u8, status: Status) -> Option<Fate> {
        if !self.state.end_run(status) {
            return None;
        }
        Some(match policy {
            Policy::RESTART if restart::count(self) => Fate::Restarted,
            Policy::RESTART => Fate::Exhausted,
            Policy::REBOOT_BOARD => Fate::BoardReset,
            _ => Fate::Halted,
        })
    }

    fn kick_others(&self, cpu: &PerCpu) {
        for vcpu in 0..self.domain.vcpu_count as usize {
            match (self.foreign, enter::kick(cpu.plan())) {
                (None, _) if vcpu != cpu.vcpu => wake(cpu, vcpu),
                (Some(targets), Some(kick)) => _ = targets.kick(vcpu, kick).inspect(|value| gicv3::send_group0(*value)),
                (Some(_), None) => wake_foreign(cpu, self.domain, vcpu),
                _ => {}
            }
        }
    }
}

/// The CPU that has taken a domain out of its run does the rest. `fault`: it has not ended by its own will. Its memory is
/// revoked before its CPUs may begin another run: none of that run is ever revoked by mistake.
fn finish(cpu: &'static PerCpu, subject: &Subject<'_>, fate: Fate, fault: bool) {
    revoke::revoke(subject.domain);
    let silent = pci::end(cpu.plan(), subject.id);
    if fate == Fate::Exhausted {
        cpu.log.last_words(true);
        defmt::error!("parked domain {=u16}: its restart-limit is reached", subject.id);
    }
    let fate = match fate {
        Fate::Restarted if !silent => {
            cpu.log.last_words(true);
            defmt::error!("parked domain {=u16}: the DMA of its functions does not stop", subject.id);
            Fate::Exhausted
        }
        fate => fate,
    };
    let fault = fault || fate == Fate::Exhausted;
    restart::be_patient(subject.state);
    let next = match fate {
        Fate::Restarted => state::RESTARTING,
        _ if fault => state::PARKED,
        _ => state::OFF,
    };
    let decided = subject.state.change(state::ENDING, next);
    subject.kick_others(cpu);
    // Else EL2 has failed on another of its CPUs, which has parked and counted it.
    if !decided {
        return;
    }
    console::flush(cpu.plan());
    match fate {
        Fate::Restarted => {}
        Fate::BoardReset => {
            defmt::warn!("domain {=u16} resets the board", subject.id);
            state::count_end(fault, cpu.plan().domains.len());
            last_line(cpu);
            firmware::reset();
        }
        _ => ended(cpu, fault),
    }
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

/// Kicks a vCPU of another domain, on a GICv2. The guest of one with direct delivery may take it for an SGI: its domain has ended.
fn wake_foreign(cpu: &PerCpu, domain: &Domain, vcpu: usize) {
    let view = View { domain, ..cpu.view };
    if let (Some(gic), Some(value)) = (&cpu.gicv2, dist2::kick(&view, vcpu, cpu.plan().header.kick_sgi)) {
        gic.send(value);
    }
}

/// A CPU without a vCPU to run stays here: one that is off and waits for CPU_ON, one whose domain has ended, one whose domain
/// starts again. It goes on serving EL2's own interrupts.
pub(crate) fn stand_by(cpu: &'static PerCpu) -> ! {
    quiet(cpu);
    let mut kicked = false;
    loop {
        let status = cpu.state.status();
        if status.is() != state::RUNNING {
            pci::rest(cpu);
        }
        match status.is() {
            state::RUNNING => {
                cpu.deadlines.clear(Duty::Restart);
                start(cpu, kicked);
            }
            state::RESTARTING => restart::step(cpu, status),
            state::RELOADING if cpu.gicv2.is_some() => restart::step(cpu, status),
            _ => {}
        }
        kicked = rest(cpu);
    }
}

/// On a GICv2 the kick that comes with a start must not reach a guest whose all interrupts are: it is taken here. The
/// caller of CPU_ON is between two instructions, or it has sent it before this CPU had set itself up; then it was lost.
fn collect_kick(cpu: &'static PerCpu, kicked: bool) {
    if cpu.gicv2.is_some() && !cpu.is_injected() && !kicked {
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
pub(super) fn quiet(cpu: &'static PerCpu) {
    if let Some(gic) = &cpu.gicv2 {
        if cpu.is_injected() {
            inject2::leave(cpu, gic);
        }
        return gic.take();
    }
    if cpu.is_injected() {
        inject::leave(cpu);
    }
    gicv3::clear_active(enter::kick(cpu.plan()).is_some());
    if cpu.takes_lpis() {
        // Its domain's other vCPUs may wait for what they say. See `rest`.
        return inject::messages_only();
    }
    gicv3::close_guest_group();
}

/// Sleeps, then serves what has come. Answers whether it was a kick.
fn rest(cpu: &'static PerCpu) -> bool {
    cortex_a::asm::wfi();
    if cpu.takes_lpis() {
        its::collect(cpu);
    }
    has_interrupts(cpu) && super::traps::serve(cpu)
}

/// Whether EL2 has any interrupts while no guest runs.
fn has_interrupts(cpu: &PerCpu) -> bool {
    cpu.gicv2.is_some() || enter::kick(cpu.plan()).is_some()
}

/// Sleeps until the counter is at `until` and serves EL2's interrupts, for a vCPU 0 that is about to start. Where EL2 has none, nothing
/// would wake it, and it stays awake.
pub(crate) fn sleep_until(cpu: &'static PerCpu, until: u64) {
    cpu.deadlines.set(Duty::Restart, until);
    while console::now() < until {
        if has_interrupts(cpu) {
            rest(cpu);
        } else {
            core::hint::spin_loop();
        }
    }
    cpu.deadlines.clear(Duty::Restart);
}
