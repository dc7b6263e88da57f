//! Attacks with two vCPUs: storms on CPU_ON, and a vCPU that cannot be interrupted while its domain is turned off (I41, I60).
#![allow(unsafe_code)] // a vCPU entry of its own

use crate::deaf::become_deaf;
use crate::report::Report;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use core::time::Duration;
use unikernel::platform::{Conduit, platform};
use unikernel::psci::function::CPU_ON;
use unikernel::psci::{self, Affinity};
use unikernel::{clock, cpu, irq, println};

core::arch::global_asm!(
    ".section .text.attack_vcpu_off, \"ax\"",
    "attack_vcpu_off: movz w0, #0x8400, lsl #16",
    "movk w0, #2",
    "hvc #0",
    "b attack_vcpu_off",
);

unsafe extern "C" {
    /// A vCPU started here turns itself off.
    static attack_vcpu_off: u8;
}

const ALREADY_ON: i32 = -4;
const ON_PENDING: i32 = -5;

static RUNS: AtomicU32 = AtomicU32::new(0);
static SPINNING: AtomicBool = AtomicBool::new(false);
static OFF_AT: AtomicU64 = AtomicU64::new(u64::MAX);

/// Starts and stops the second vCPU 200 times, with a call every time that must be refused.
pub(super) fn cpu_storm(report: &mut Report) {
    let second = platform().cpus().get(1).copied().unwrap_or(0);
    let conduit = platform().psci.unwrap_or(Conduit::Hvc);
    let mut refused = 0u32;
    for _ in 0..200 {
        while psci::affinity_info(second) != Ok(Affinity::Off) {
            cpu::relax();
        }
        let before = RUNS.load(SeqCst);
        if psci::start(1, || {
            RUNS.fetch_add(1, SeqCst);
            clock::sleep(Duration::from_millis(2));
        })
        .is_err()
        {
            break;
        }
        // It runs, or is about to: a second call cannot succeed, unless it is over already.
        let again = psci::call(conduit, CPU_ON, [second, &raw const attack_vcpu_off as u64, 0]) as i32;
        refused += u32::from(matches!(again, ALREADY_ON | ON_PENDING));
        let patience = clock::ticks() + clock::to_ticks(Duration::from_secs(2));
        while RUNS.load(SeqCst) == before && clock::ticks() < patience {
            cpu::relax();
        }
        if RUNS.load(SeqCst) == before {
            break; // the second call has won: it must not
        }
    }
    report.equal("started 200 times", u64::from(RUNS.load(SeqCst)), 200);
    report.check("nearly every second call refused", refused > 150, refused);
}

/// What vCPU 1 does: masks everything it can, forges a running priority, and spins. If it still lives half a second after its
/// domain was turned off, it says so.
fn spin() {
    become_deaf();
    SPINNING.store(true, SeqCst);
    loop {
        if clock::ticks() > OFF_AT.load(SeqCst).saturating_add(clock::to_ticks(Duration::from_millis(500))) {
            println!("FAIL: running half a second after SYSTEM_OFF");
            OFF_AT.store(u64::MAX, SeqCst);
        }
        cpu::relax();
    }
}

fn start_spinner(report: &mut Report) {
    let started = psci::start(1, spin).is_ok();
    while started && !SPINNING.load(SeqCst) {
        cpu::relax();
    }
    report.check("vCPU 1 spins, deaf to everything", started, "an error");
}

/// SYSTEM_OFF (by returning) while the other vCPU spins.
pub(super) fn spin_off(report: &mut Report) {
    start_spinner(report);
    clock::sleep(Duration::from_millis(300));
    OFF_AT.store(clock::ticks(), SeqCst);
}

/// The same, after taking the kick SGI away as far as the SGI frame lets it.
pub(super) fn mute_kick(report: &mut Report) {
    let base = 0x080B_0000;
    for frame in [base, base + 0x2_0000] {
        for (offset, value) in [(0x80, 0), (0x180, u64::MAX), (0x280, u64::MAX), (0x380, u64::MAX), (0xD00, u64::MAX)] {
            let _ = crate::probe::store32(frame + offset, value);
        }
        let _ = crate::probe::store8(frame + 0x400 + 15, 0xFF);
        irq::enable(27);
    }
    start_spinner(report);
    clock::sleep(Duration::from_millis(300));
    OFF_AT.store(clock::ticks(), SeqCst);
}

/// A fault in its own vectors while the other vCPU spins: parked as a whole.
pub(super) fn spin_park(report: &mut Report) {
    let ram = super::address("ram");
    start_spinner(report);
    clock::sleep(Duration::from_millis(300));
    OFF_AT.store(clock::ticks(), SeqCst);
    super::storms::lose_vectors(ram);
}
