//! Attacks on what a restart relies on: the copy of the images that nobody may reach (I80), and the watchdog (I41, I42).
#![allow(unsafe_code)] // memory of this domain's own; calls

use super::address;
use crate::deaf::become_deaf;
use crate::probe::{load8, load32, load64, store16, store64};
use crate::report::Report;
use core::arch::asm;
use core::time::Duration;
use unikernel::{clock, cpu};

/// RAM of QEMU's `virt` with 2 GiB, in steps of a page that no copy of an image is smaller than.
const RAM: (u64, u64) = (0x4000_0000, 0xC000_0000);
const STEP: u64 = 0x8_0000;
/// This domain's own, as the scenario's layout gives it.
const OWN: (u64, u64) = (0x4000_0000, 0x4080_0000);
/// Initialised data, in the middle of the image.
static DATA: [u64; 512] = [0x5EED_5EED_5EED_5EED; 512];

/// Stores everywhere outside its own RAM, then over its own initialised data, then faults for good. If it starts again as it
/// was, it says the same again.
pub(super) fn pristine(report: &mut Report) {
    let changed = DATA.iter().filter(|word| {
        // SAFETY: a static; volatile, because it is changed below through its address.
        let value = unsafe { core::ptr::from_ref(*word).read_volatile() };
        value != 0x5EED_5EED_5EED_5EED
    });
    report.equal("changed words of initialised data", changed.count() as u64, 0);
    let outside = (RAM.0..RAM.1).step_by(STEP as usize).filter(|at| *at < OWN.0 || *at >= OWN.1);
    let (mut tried, mut refused) = (0u64, 0u64);
    for at in outside {
        tried += 1;
        refused += u64::from(store64(at, u64::MAX).is_err_and(|fault| fault.is_external(at)));
    }
    report.equal("stores outside its RAM that were not refused", tried - refused, 0);
    for word in &DATA {
        let _ = store64(core::ptr::from_ref(word) as u64, 0);
    }
    super::storms::lose_vectors(address("ram"));
}

/// The watchdog's function, and its commands (docs/layout.md).
const WATCHDOG: u64 = 0x8600_0001;
const INIT: u64 = 0;
const SET_TIMEOUT: u64 = 1;
const ENABLE: u64 = 2;
const PET: u64 = 3;
const GET_TIMELEFT: u64 = 4;

/// Calls it: x0 to x2.
fn watchdog(command: u64, argument: u64) -> [u64; 3] {
    let (code, first, second): (u64, u64, u64);
    // SAFETY: the calling convention lets x0 to x17 change (DEN 0028, 2.6).
    unsafe {
        asm!("smc #0", inout("x0") WATCHDOG => code, inout("x1") command => first, inout("x2") argument => second,
            in("x3") 0, clobber_abi("C"), options(nostack))
    };
    [code, first, second]
}

/// Patted in time for longer than it allows, then never again.
fn pat_for(length: Duration) {
    let end = clock::ticks() + clock::to_ticks(length);
    while clock::ticks() < end {
        watchdog(PET, 0);
        clock::sleep(Duration::from_millis(50));
    }
}

/// Pats for a while, then spins with everything masked that can be (I41).
pub(super) fn spin_unpatted(report: &mut Report) {
    pat_for(Duration::from_millis(2500));
    report.check("patted", true, "");
    become_deaf();
    loop {
        cpu::relax();
    }
}

/// The same, asleep (I42).
pub(super) fn sleep_unpatted(report: &mut Report) {
    pat_for(Duration::from_millis(1000));
    report.check("patted", true, "");
    become_deaf();
    loop {
        cpu::wfi();
    }
}

/// Everything its function knows, and what would stop it.
pub(super) fn watchdog_calls(report: &mut Report) {
    const INVALID: u64 = -2i64 as u64;
    const DENIED: u64 = -3i64 as u64;
    report.check("INIT: 1 to 3 s", watchdog(INIT, 0) == [0, 1, 3], watchdog(INIT, 0)[2]);
    report.equal("SET_TIMEOUT 2", watchdog(SET_TIMEOUT, 2)[0], 0);
    report.equal("SET_TIMEOUT 0", watchdog(SET_TIMEOUT, 0)[0], INVALID);
    report.equal("SET_TIMEOUT 4", watchdog(SET_TIMEOUT, 4)[0], INVALID);
    report.equal("SET_TIMEOUT 4294967297", watchdog(SET_TIMEOUT, 1 << 32 | 1)[0], 0);
    report.equal("ENABLE", watchdog(ENABLE, 1)[0], 0);
    report.equal("ENABLE 0: not to be stopped", watchdog(ENABLE, 0)[0], DENIED);
    report.equal("an unknown command", watchdog(5, 0)[0], INVALID);
    report.equal("SET_TIMEOUT 3", watchdog(SET_TIMEOUT, 3)[0], 0);
    report.equal("GET_TIMELEFT", watchdog(GET_TIMELEFT, 0)[1], 2);
    pat_for(Duration::from_millis(500));
    report.equal("PET", watchdog(PET, 0)[0], 0);
}

// The frames of a watchdog (BSA 1.0, Generic Watchdog), the refresh frame a page behind the control frame.
const WCS: u64 = 0;
const WOR: u64 = 8;
const WCV: u64 = 0x10;
const IIDR: u64 = 0xFCC;
const WRR: u64 = 0x1000;
/// GICD_ISPENDR<n>, where the scenario's board has it.
const ISPENDR: u64 = 0x0800_0200;

/// Whatever is written to its registers, it goes on, and for no longer than the layout allows; the first signal comes and goes.
/// Then the end, unpatted (I41). The scenario allows a second.
pub(super) fn watchdog_registers(report: &mut Report) {
    let (frames, spi) = (address("frames"), address("spi"));
    let read = |offset| load64(frames + offset, 0).unwrap_or(u64::MAX);
    let write = |offset, value| store64(frames + offset, value).is_ok();
    let is_pending = || load32(ISPENDR + spi / 32 * 4, 0).is_ok_and(|word| word >> (spi % 32) & 1 == 1);
    let half = clock::to_ticks(Duration::from_millis(500));
    report.equal("W_IIDR: revision 1", load32(frames + IIDR, 0).unwrap_or(0), 0x1_0000);
    report.equal("  in the refresh frame too", load32(frames + WRR + IIDR, 0).unwrap_or(0), 0x1_0000);
    report.equal("WOR: half of what the layout allows", read(WOR), half);
    report.check("WCS = 0 does not stop it", write(WCS, 0) && read(WCS) & 1 == 1, read(WCS));
    report.check("WOR = all ones is not longer", write(WOR, u64::MAX) && read(WOR) == half, read(WOR));
    report.check("WOR = half is half", write(WOR, half / 2) && read(WOR) == half / 2, read(WOR));
    report.check("and longer again", write(WOR, half) && read(WOR) == half, read(WOR));
    report.check("WCV = all ones is ignored", write(WCV, u64::MAX) && read(WCV) < clock::ticks() + half, read(WCV));
    let narrow = [load8(frames, 0).is_err(), store16(frames + WOR, 0).is_err(), load64(frames + 4, 0).is_err()];
    report.check("no bytes, no halves, nothing across", narrow == [true; 3], "");
    report.check("nothing behind", load32(frames + 0x2000, 0).is_err(), "");
    for offset in (0..0x2000).step_by(8).filter(|offset| *offset != WOR) {
        let _ = store64(frames + offset, u64::MAX);
    }
    report.equal("every other register written: WOR", read(WOR), half);
    write(WRR, 0);
    report.check("patted: no signal", read(WCS) & 2 == 0 && !is_pending(), "");
    let end = clock::ticks() + half * 9 / 5;
    while clock::ticks() < end && !is_pending() {
        clock::sleep(Duration::from_millis(10));
    }
    report.check("not patted: the first signal", read(WCS) & 2 != 0 && is_pending(), "");
    write(WRR, 0);
    report.check("patted: it is gone", read(WCS) & 2 == 0 && !is_pending(), "");
    become_deaf();
    loop {
        cpu::relax();
    }
}
