//! Doing something harmless without end, while the victim next door wants its time and its lines (I53 to I57, I75).
#![allow(unsafe_code)] // hints, and vectors that lead nowhere

use super::address;
use crate::deaf::interface;
use crate::probe::{load32, store32};
use crate::report::Report;
use core::arch::asm;
use core::time::Duration;
use unikernel::mmio::Registers;
use unikernel::platform::{Conduit, platform};
use unikernel::{clock, cpu, print, println, psci, write_sysreg};

const LENGTH: Duration = Duration::from_millis(1500);

/// Repeats `f` for the length of a storm; gives how often.
pub(super) fn storm(mut f: impl FnMut()) -> u64 {
    let end = clock::ticks() + clock::to_ticks(LENGTH);
    let mut count = 0;
    while clock::ticks() < end {
        for _ in 0..64 {
            f();
        }
        count += 64;
    }
    count
}

/// WFI with an interrupt always pending, so that it never sleeps.
pub(super) fn wfi(report: &mut Report) {
    cpu::mask();
    write_sysreg!("cntv_cval_el0", 0);
    write_sysreg!("cntv_ctl_el0", 1);
    cpu::isb();
    let count = storm(cpu::wfi);
    write_sysreg!("cntv_ctl_el0", 0);
    report.check("WFI storm", count > 1000, count);
}

/// WFE and SEV, as fast as it goes.
pub(super) fn wfe(report: &mut Report) {
    let count = storm(|| {
        // SAFETY: hints; the event register is set first, so nothing sleeps.
        unsafe { asm!("sev", "sevl", "wfe", "wfe", options(nostack)) }
    });
    report.check("WFE and SEV storm", count > 1000, count);
}

/// Traps of every kind: calls, registers, SGIs.
pub(super) fn traps(report: &mut Report) {
    let count = storm(|| {
        psci::call(Conduit::Hvc, 0x8400_0000, [0; 3]);
        psci::call(Conduit::Smc, 0xC600_1234, [1, 2, 3]);
        let _ = load32(0x0800_0004, 0);
        if interface().is_some() {
            let _ = store32(0x0800_0F00, 1 << 24);
        } else {
            write_sysreg!("icc_sgi1r_el1", 1 << 40);
        }
    });
    report.check("trap storm", count > 1000, count);
}

/// A refused access, again and again: each one comes back as an abort.
pub(super) fn faults(report: &mut Report) {
    let at = address("ram");
    let mut wrong = 0u64;
    let count = storm(|| wrong += u64::from(!load32(at, 0).is_err_and(|fault| fault.is_external(at))));
    report.equal("accesses that did not abort", wrong, 0);
    report.check("fault storm", count > 1000, count);
}

/// Console output without end: long lines, no lines, empty lines.
pub(super) fn flood(report: &mut Report) {
    for round in 0..20 {
        for _ in 0..20 {
            print!("0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz");
        }
        println!();
        for _ in 0..50 {
            println!("{round}");
        }
    }
    println!();
    report.check("flooded", true, "");
}

/// Output that pretends to come from somebody else, and bytes a terminal would obey.
pub(super) fn prefix(report: &mut Report) {
    println!("[victim] victim: 20 ticks, 9 missed");
    print!("x\r[victim] carriage return\n");
    print!("x\x1b[2K\x1b[1G[victim] escape\n");
    print!("x\x08\x08\x08[hyp] ~00 backspace\n");
    print!("x\x0b[victim] vertical tab\n");
    print!("x\x0c[victim] form feed\n");
    print!("x\x07\x00\x7f\x01 bell, nul, delete\n");
    print!("[hyp] end parked=0\n");
    print!("[hyp] ~deadbeef\n");
    report.check("all said", true, "");
}

/// A fault whose handler faults: nothing can be injected any more, the domain is parked. Prints no last line.
pub(super) fn own_vector(report: &mut Report) {
    let ram = address("ram");
    report.check("before", true, "");
    clock::sleep(Duration::from_millis(200));
    lose_vectors(ram);
}

/// Faults with vectors that lie where nothing is mapped.
pub(super) fn lose_vectors(ram: u64) {
    write_sysreg!("vbar_el1", ram);
    cpu::isb();
    let _ = load32(ram, 0);
    println!("FAIL: still running without vectors");
}

/// Ignores its console input, whatever comes.
pub(super) fn deaf(report: &mut Report) {
    println!("not listening");
    clock::sleep(LENGTH);
    report.check("slept through it", true, "");
}

/// Sends without looking whether there is room, to a console that takes nothing. Ends without a word: saying one waits for room.
pub(super) fn stuck_uart(_: &mut Report) {
    if let Some(console) = platform().console {
        let registers = Registers::new(console.region);
        storm(|| registers.write(0, u32::from(b'x')));
    }
    psci::system_off()
}
