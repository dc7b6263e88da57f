//! Time: the virtual counter as a monotonic clock, and the virtual timer for sleeping and one alarm per vCPU.
//!
//! Sleeping is WFI, so an idle domain costs nothing. Deadlines are absolute counter values: they do not drift.
#![allow(unsafe_code)] // timer registers, and function pointers kept in atomics

use crate::platform::platform;
use crate::{MAX_CPUS, cpu, irq, read_sysreg, write_sysreg};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use embedded_hal::delay::DelayNs;

const NEVER: u64 = u64::MAX;

static START: AtomicU64 = AtomicU64::new(0);
static ALARMS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(NEVER) }; MAX_CPUS];
static HANDLERS: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];

/// The counter, in ticks of [`frequency`].
pub fn ticks() -> u64 {
    cpu::isb();
    read_sysreg!("cntvct_el0")
}

/// Ticks per second.
pub fn frequency() -> u64 {
    read_sysreg!("cntfrq_el0")
}

/// Ticks in `duration`, rounded up, at most `u64::MAX`.
pub fn to_ticks(duration: Duration) -> u64 {
    let frequency = frequency();
    let whole = duration.as_secs().saturating_mul(frequency);
    // Below 1e9 times a frequency the architecture keeps near 1e9 (DDI 0487, D12.1.2): no overflow.
    let rest = (u64::from(duration.subsec_nanos()) * frequency).div_ceil(1_000_000_000);
    whole.saturating_add(rest)
}

/// `ticks` as a duration.
pub fn to_duration(ticks: u64) -> Duration {
    let frequency = frequency();
    let nanos = (ticks % frequency) * 1_000_000_000 / frequency;
    Duration::new(ticks / frequency, nanos as u32)
}

/// Time since this domain started.
pub fn uptime() -> Duration {
    to_duration(ticks().saturating_sub(START.load(Ordering::Relaxed)))
}

pub(crate) fn note_start() {
    START.store(ticks(), Ordering::Relaxed);
}

/// Turns on this vCPU's timer interrupt.
pub(crate) fn init() {
    program(NEVER);
    if let Some(intid) = platform().timer
        && irq::register(intid, expired).is_ok()
    {
        irq::enable(intid);
    }
}

fn program(at: u64) {
    write_sysreg!("cntv_cval_el0", at);
    write_sysreg!("cntv_ctl_el0", u64::from(at != NEVER));
    cpu::isb();
}

/// Calls `handler` on this vCPU, in an interrupt, once the counter reaches `at`. One alarm per vCPU: a new one replaces it.
pub fn set_alarm(at: u64, handler: fn()) {
    let mask = cpu::mask();
    HANDLERS[cpu::index()].store(handler as usize, Ordering::Relaxed);
    ALARMS[cpu::index()].store(at, Ordering::Relaxed);
    program(at);
    cpu::restore(mask);
}

/// Sleeps until the counter reaches `at`. Interrupts are handled meanwhile, unless the caller has masked them.
pub fn sleep_until(at: u64) {
    let alarm = &ALARMS[cpu::index()];
    loop {
        let mask = cpu::mask();
        if ticks() >= at {
            program(alarm.load(Ordering::Relaxed));
            cpu::restore(mask);
            return;
        }
        program(at.min(alarm.load(Ordering::Relaxed)));
        cpu::wfi();
        cpu::restore(mask);
    }
}

/// Sleeps for at least `duration`.
pub fn sleep(duration: Duration) {
    sleep_until(ticks().saturating_add(to_ticks(duration)));
}

fn expired(_: u32) {
    let index = cpu::index();
    let at = ALARMS[index].load(Ordering::Relaxed);
    if ticks() < at {
        // A sleep ended; it looks at the counter itself.
        return program(at);
    }
    ALARMS[index].store(NEVER, Ordering::Relaxed);
    program(NEVER);
    run(HANDLERS[index].load(Ordering::Relaxed));
}

fn run(handler: usize) {
    if handler != 0 {
        // SAFETY: only `set_alarm` stores here, and it stores a `fn()`.
        let handler = unsafe { core::mem::transmute::<usize, fn()>(handler) };
        handler();
    }
}

/// Delays through sleeping: `embedded-hal`'s way to wait.
#[derive(Clone, Copy, Default, Debug)]
pub struct Delay;

impl DelayNs for Delay {
    fn delay_ns(&mut self, ns: u32) {
        sleep(Duration::from_nanos(u64::from(ns)));
    }

    fn delay_us(&mut self, us: u32) {
        sleep(Duration::from_micros(u64::from(us)));
    }

    fn delay_ms(&mut self, ms: u32) {
        sleep(Duration::from_millis(u64::from(ms)));
    }
}
