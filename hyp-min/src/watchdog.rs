//! Watchdogs: a domain pats its own, and a CPU which the plan names looks whether it has.
//!
//! Nothing that the domain could mask is relied on: that CPU is another domain's, or its interrupts are injected. The look comes at a rate that the
//! plan decides, so that no guest makes another domain's CPU exit more often.

use crate::arch::aarch64::park;
use crate::arch::aarch64::percpu::PerCpu;
use crate::console;
use crate::deadline::Duty;
use crate::state::{DomainState, state_of};
use cofferdam_plan::{Domain, NO_INTID};
use core::sync::atomic::Ordering;
use cortex_a::asm::barrier;
use hyp_min::vdev::psci::SUCCESS;
use hyp_min::vdev::watchdog::{Answer, FRAMES_SIZE, Watch, decide, frames};
use hyp_min::vdev::{Access, Outcome};

fn ticks(ms: u32) -> u64 {
    console::frequency() * u64::from(ms) / 1000
}

/// `domain` begins a run.
pub(crate) fn begin(domain: &Domain, state: &DomainState) {
    if domain.watchdog_ms != 0 {
        pat(domain, state, Some(ticks(domain.watchdog_ms)));
    }
}

/// Nobody needs to pat it until the next run begins.
pub(crate) fn rest(state: &DomainState) {
    state.pat_until.store(0, Ordering::Relaxed);
}

/// The time begins again; `every`: another than before.
fn pat(domain: &Domain, state: &DomainState, every: Option<u64>) {
    if let Some(every) = every {
        state.pat_every.store(every, Ordering::Relaxed);
    }
    let time = state.pat_every.load(Ordering::Relaxed).min(ticks(domain.watchdog_ms));
    state.pat_until.store(console::now().saturating_add(time), Ordering::SeqCst);
}

/// The watchdog of `domain` as it is now.
fn watch(domain: &Domain, state: &DomainState) -> Watch {
    let until = state.pat_until.load(Ordering::SeqCst);
    let (every, offset) = (state.pat_every.load(Ordering::Relaxed), state.time_offset.load(Ordering::Relaxed));
    Watch { now: console::now(), until, every, most: ticks(domain.watchdog_ms), offset }
}

/// This CPU takes up its duty, if the plan gives it one.
pub(crate) fn take_up(cpu: &PerCpu) {
    if let Some(every @ 1..) = cpu.plan().cpus.get(usize::from(cpu.index.0)).map(|own| own.watch_ms) {
        cpu.deadlines.set(Duty::Watch, console::now().saturating_add(ticks(every)));
    }
}

/// This CPU's EL2 timer has come: where it is time, looks after the domains in its care.
pub(crate) fn look(cpu: &'static PerCpu, now: u64) {
    if !cpu.deadlines.take(Duty::Watch, now) {
        return;
    }
    take_up(cpu);
    let care = |domain: &&Domain| domain.watchdog_ms != 0 && domain.watcher == cpu.index;
    for (id, domain) in cpu.plan().domains.iter().enumerate().filter(|(_, domain)| care(domain)) {
        let state = state_of(domain);
        // First: the run that is ended is the one whose time is over.
        let status = state.status();
        let watch = watch(domain, state);
        if watch.until == 0 {
        } else if watch.now > watch.until {
            park::expired(cpu, id, domain, status);
        } else if domain.watchdog_intid != NO_INTID && watch.is_late() {
            signal(cpu, domain, true);
            // A pat lowers it too: one that has come in between has not seen it high.
            if state.pat_until.load(Ordering::SeqCst) != watch.until {
                signal(cpu, domain, false);
            }
        }
    }
}

/// A call of this CPU's domain to its watchdog. Answers x0.
pub(crate) fn call(cpu: &PerCpu, command: u32, argument: u32) -> i64 {
    let watch = watch(cpu.domain(), cpu.state);
    let left = watch.until.saturating_sub(watch.now).saturating_mul(1000) / console::frequency().max(1);
    match decide(command, argument, cpu.domain().watchdog_ms, left) {
        Answer::Code(code) => return code,
        Answer::Pat => patted(cpu, None),
        Answer::Hold(ms) => patted(cpu, Some(ticks(ms))),
        Answer::Values(first, second) => {
            cpu.set_register(1, first);
            cpu.set_register(2, second);
        }
    }
    SUCCESS
}

/// An access of this CPU's domain that no other emulated frame has answered: to the frames of its watchdog, or to nothing.
#[inline(never)]
pub(crate) fn access(cpu: &PerCpu, ipa: u64, size: u8, write: Option<u64>) -> Outcome {
    let offset = ipa.wrapping_sub(cpu.domain().watchdog_ipa.0);
    if offset >= FRAMES_SIZE {
        return Outcome::Abort;
    }
    let touch = frames(Access { offset: offset as u32, size, write }, &watch(cpu.domain(), cpu.state));
    if touch.pats {
        patted(cpu, touch.every);
    }
    touch.outcome
}

fn patted(cpu: &PerCpu, every: Option<u64>) {
    pat(cpu.domain(), cpu.state, every);
    if cpu.domain().watchdog_intid != NO_INTID {
        signal(cpu, cpu.domain(), false);
    }
}

/// The first signal of the watchdog of `domain`. After what has been stored, before what is loaded next.
fn signal(cpu: &PerCpu, domain: &Domain, high: bool) {
    barrier::dsb(barrier::SY);
    cpu.distributor.set_line(domain.watchdog_intid, high);
    barrier::dsb(barrier::SY);
}
