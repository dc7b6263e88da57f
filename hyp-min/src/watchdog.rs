//! Watchdogs: a domain pats its own, and a CPU of another domain, which the plan names, looks whether it has.
//!
//! Nothing on the domain's own CPUs is relied on: it may have masked whatever comes to them. The look comes at a rate that the
//! plan decides, so that no guest makes another domain's CPU exit more often.

use crate::arch::aarch64::park;
use crate::arch::aarch64::percpu::PerCpu;
use crate::console;
use crate::deadline::Duty;
use crate::state::{DomainState, state_of};
use cofferdam_plan::Domain;
use core::sync::atomic::Ordering;
use hyp_min::vdev::psci::SUCCESS;
use hyp_min::vdev::watchdog::{Answer, decide};

fn ticks(ms: u32) -> u64 {
    console::frequency() * u64::from(ms) / 1000
}

/// `domain` begins a run.
pub(crate) fn begin(domain: &Domain, state: &DomainState) {
    if domain.watchdog_ms != 0 {
        pat(state, domain.watchdog_ms);
    }
}

/// Nobody needs to pat it until the next run begins.
pub(crate) fn rest(state: &DomainState) {
    state.pat_until.store(0, Ordering::Relaxed);
}

fn pat(state: &DomainState, ms: u32) {
    state.pat_every.store(ms, Ordering::Relaxed);
    state.pat_until.store(console::now().saturating_add(ticks(ms)), Ordering::Release);
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
        let until = state_of(domain).pat_until.load(Ordering::Acquire);
        if until != 0 && now > until {
            park::expired(cpu, id, domain);
        }
    }
}

/// A call of this CPU's domain to its watchdog. Answers x0.
pub(crate) fn call(cpu: &PerCpu, command: u32, argument: u32) -> i64 {
    let state = cpu.state;
    let left = state.pat_until.load(Ordering::Relaxed).saturating_sub(console::now());
    let left = left.saturating_mul(1000) / console::frequency().max(1);
    match decide(command, argument, cpu.domain().watchdog_ms, state.pat_every.load(Ordering::Relaxed), left) {
        Answer::Code(code) => return code,
        Answer::Pat(ms) => pat(state, ms),
        Answer::Values(first, second) => {
            cpu.set_register(1, first);
            cpu.set_register(2, second);
        }
    }
    SUCCESS
}
