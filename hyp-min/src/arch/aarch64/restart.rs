//! A domain starts again: its CPUs gather in EL2, then its first one makes everything as it was and enters.
//!
//! Revocation brings every CPU here, so nothing of the domain runs while its memory is written. Until the last has come, one
//! that still runs can reach what belongs to the others (CPU_ON, their redistributors), so the first CPU resets all of that
//! afterwards; on arrival each resets only what no other CPU reaches. One that does not come within the time all have costs
//! the domain, not the others.
#![allow(unsafe_code)] // leaves EL2's own tables for a moment

use super::park::Subject;
use super::percpu::PerCpu;
use super::{enter, park, revoke};
use crate::console;
use crate::deadline::Duty;
use crate::dev::its;
use crate::state::{self, DomainState, Status, vcpu};
use crate::{pci, watchdog};
use cofferdam_plan::RESTART_PERIOD_S;
use core::sync::atomic::Ordering;

/// Seconds that a domain's CPUs have to come: they need microseconds, unless something is broken.
const PATIENCE_S: u64 = 5;
/// Times the virtual UART's registers are asked for, each with the lock's own bound.
const CONSOLE_TRIES: u32 = 100;

/// From now on counts the time that the CPUs of a domain have to come. Before they are called.
pub(super) fn be_patient(state: &DomainState) {
    state.patience.store(console::now().saturating_add(console::frequency() * PATIENCE_S), Ordering::Relaxed);
}

/// Counts a restart. Answers whether the domain's limit allows it.
pub(super) fn count(subject: &Subject<'_>) -> bool {
    let period = console::frequency() * RESTART_PERIOD_S;
    subject.state.count_restart(console::now(), period, subject.domain.restart_limit)
}

/// The domain has been about to start again and does not.
fn give_up(cpu: &'static PerCpu, from: u32, why: &'static str) {
    park_from(cpu, cpu.id.0, cpu.state, from, why);
}

fn park_from(cpu: &'static PerCpu, id: u16, state: &DomainState, from: u32, why: &'static str) {
    if state.change(from, state::PARKED) {
        cpu.log.last_words(true);
        defmt::error!("parked domain {=u16}: {=str}", id, why);
        // Counted first: what may have failed is this.
        park::ended(cpu, true);
        pci::end(cpu.plan(), id);
    }
}

/// EL2 has failed on this CPU while a domain was between two runs: its own, or one whose watchdog it looks after. It may have
/// been the one to bring that to its end, so nothing comes of it any more.
pub(super) fn abandon(cpu: &'static PerCpu) {
    let why = "the hypervisor has failed between its runs";
    for (id, domain) in (0..).zip(cpu.plan().domains) {
        let (own, state) = (id == cpu.id.0, state::state_of(domain));
        if own || domain.watchdog_ms != 0 && domain.watcher == cpu.index {
            if state.status().is() == state::ENDING {
                revoke::revoke(domain);
            }
            park_from(cpu, id, state, state::ENDING, why);
        }
        if own {
            park_from(cpu, id, state, state::RESTARTING, why);
            park_from(cpu, id, state, state::RELOADING, why);
        }
    }
}

/// A CPU of a domain that starts again, by `status`. Returns while there is something to wait for.
pub(super) fn step(cpu: &'static PerCpu, status: Status) {
    let Some(own) = cpu.state.vcpus.get(cpu.vcpu) else { return };
    if own.arrived.load(Ordering::Relaxed) != status.0 {
        if let Some(gic) = &cpu.gicv2 {
            gic.set_up_cpu();
            gic.take();
        }
        cpu.again.set(false);
        own.arrived.store(status.0, Ordering::Release);
        park::wake(cpu, 0);
    }
    let count = cpu.domain().vcpu_count as usize;
    let all = cpu.state.vcpus.iter().take(count).all(|vcpu| vcpu.arrived.load(Ordering::Acquire) == status.0);
    let patience = cpu.state.patience.load(Ordering::Relaxed);
    if !all && console::now() >= patience {
        give_up(cpu, status.is(), "one of its CPUs does not come");
    } else if !all {
        cpu.deadlines.set(Duty::Restart, patience);
    } else if cpu.vcpu != 0 {
    } else if status.is() == state::RELOADING {
        begin(cpu);
    } else if cpu.state.change(state::RESTARTING, state::RELOADING) {
        if cpu.gicv2.is_none() {
            return begin(cpu);
        }
        // An SGI that one has sent after another had come is pending there, where only that other reaches it: all come again.
        (1..count).for_each(|vcpu| park::wake(cpu, vcpu));
        step(cpu, cpu.state.status());
    }
}

/// All CPUs are here: makes everything as it was at the first start, and enters.
fn begin(cpu: &'static PerCpu) {
    cpu.deadlines.clear(Duty::Restart);
    // Before the interrupts are reset: whoever looks after it may still be raising its signal.
    watchdog::rest(cpu.state);
    // Here, where all CPUs have left what they were about: one may have been in the middle of starting another.
    for vcpu in &cpu.state.vcpus {
        vcpu.state.store(vcpu::OFF, Ordering::Relaxed);
        vcpu.recheck.store(false, Ordering::Relaxed);
    }
    // Another domain's CPU may be looking at the console's registers while its firmware interrupts it.
    if !(0..CONSOLE_TRIES).any(|_| console::start_anew(cpu.plan(), cpu.domain(), cpu.state)) {
        return give_up(cpu, state::RELOADING, "its console is held by a CPU that does not let go");
    }
    // What its functions have been told to do to its memory is over before that is written, and the last of their interrupts has come
    // before those are reset.
    pci::reset(cpu);
    let count = cpu.domain().vcpu_count as usize;
    cpu.state.dist.reset();
    if let Some(gic) = &cpu.gicv2 {
        gic.reset_domain(cpu.plan(), cpu.domain());
    } else {
        // Its functions have been stopped: what they have sent before is this run's.
        its::collect(cpu);
        cpu.distributor.reset_domain(cpu.plan(), cpu.domain());
        let (kick, injected) = (enter::kick(cpu.plan()), cpu.is_injected());
        let set_up =
            |vcpu| cpu.redistributor_of(vcpu).is_some_and(|redistributor| redistributor.set_up(kick, injected));
        if !(0..count).all(set_up) {
            return give_up(cpu, state::RELOADING, "the redistributor of one of its CPUs does not follow");
        }
    }
    reload(cpu);
    revoke::restore(cpu.domain());
    pci::start(cpu);
    if cpu.state.begin_next_run() {
        enter::anew(cpu);
    }
    // EL2 has failed on another of its CPUs.
    revoke::revoke(cpu.domain());
    pci::end(cpu.plan(), cpu.id.0);
}

/// Writes every byte of the domain's RAM: what the image has for it, and zeroes. Cleaned to the point of coherency, so that a
/// guest with its caches off sees it too (invariant I25).
fn reload(cpu: &PerCpu) {
    let (plan, domain) = (cpu.plan(), cpu.domain());
    let base = plan.header.base.0;
    // SAFETY: only the address is taken.
    let routine = base + super::offset_in_image(unsafe { &super::reload });
    for part in plan.reloads_of(domain).unwrap_or(&[]) {
        let from = base + part.offset;
        // SAFETY: the routine lies in the page that both roots map at its physical address, and uses no stack. The restart
        // root maps this part's bytes and nothing of anybody else (the verifier's proof); no CPU of the domain runs.
        unsafe { super::call_reload(part.to.0, from, part.len, part.zero, domain.restart_ttbr, routine) };
    }
}
