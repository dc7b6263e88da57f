//! The same and more with a GICv2 (I21, I32, I34 to I37, I44, I47): its windows, its distributor, and the CPU interface that is
//! this domain's own.

use super::address;
use crate::deaf::mask_interface;
use crate::probe::{load8, load32, store8, store32};
use crate::report::Report;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;
use unikernel::platform::platform;
use unikernel::{clock, cpu, irq};

const GICD: u64 = 0x0800_0000;
const GICC: u64 = 0x0801_0000;
const IAR: u64 = GICC + 0x0C;
const EOIR: u64 = GICC + 0x10;
const SGIR: u64 = GICD + 0xF00;

static TAKEN: AtomicU32 = AtomicU32::new(0);

fn taken(_: u32) {
    TAKEN.fetch_add(1, Relaxed);
}

/// What lies around the pages this domain has: with injected delivery GICC_DIR's is one, and virtual.
pub(super) fn windows(report: &mut Report) {
    report.check("own CPU interface", load32(GICC + 0xFC, 0).is_ok(), "a fault");
    let mut refused = |what: &str, at: u64| {
        report.external(what, load32(at, 0), at);
        report.external(what, store32(at, 0), at);
    };
    refused("behind the distributor", GICD + 0x1000);
    refused("where a GICv3 has its last distributor page", GICD + 0xFFE8);
    let pages = if platform().argument("delivery") == Some("injected") { 2 } else { 1 };
    refused("behind the CPU interface", GICC + pages * 0x1000);
    refused("last page of the CPU interface", GICC + 0xFFFC);
    refused("v2m frame", 0x0802_0008);
    refused("v2m frame's doorbell", 0x0802_0040);
    refused("GICH_HCR", 0x0803_0000);
    refused("GICH_LR0", 0x0803_0100);
    refused("another CPU's GICH", 0x0803_0200);
    refused("GICV_CTLR", 0x0804_0000);
    refused("GICV_DIR", 0x0804_1000);
    refused("where a GICv3 has its redistributors", 0x080A_0000);
}

/// Every register that has something of the victim's RTC interrupt.
pub(super) fn foreign_spi(report: &mut Report) {
    let intid = address("intid");
    let (word, bit) = (intid / 32 * 4, 1 << (intid % 32));
    for _ in 0..1000 {
        for clear in [0x180, 0x280, 0x380] {
            let _ = store32(GICD + clear + word, bit);
        }
    }
    let _ = store32(GICD, 0);
    let _ = store32(GICD, 3);
    report.value("CTLR is mine alone", load32(GICD, 0), 1);
    for (what, offset) in [("ISENABLER", 0x100), ("ISPENDR", 0x200), ("ISACTIVER", 0x300)] {
        let _ = store32(GICD + offset + word, u64::MAX);
        report.value(what, load32(GICD + offset + word, 0).map(|value| value & bit), 0);
        if offset != 0x100 {
            let _ = store32(GICD + offset + 0x80 + word, u64::MAX);
        }
    }
    let _ = store32(GICD + 0x80 + word, u64::MAX);
    report.value("IGROUPR", load32(GICD + 0x80 + word, 0), 0);
    let _ = store8(GICD + 0x400 + intid, 0);
    report.value("IPRIORITYR", load8(GICD + 0x400 + intid, 0), 0);
    let _ = store32(GICD + 0xC00 + intid / 16 * 4, u64::MAX);
    let shift = intid % 16 * 2;
    report.value("ICFGR", load32(GICD + 0xC00 + intid / 16 * 4, 0).map(|value| value >> shift & 3), 0);
    for targets in [0, 1, 2, 0xFF] {
        let _ = store8(GICD + 0x800 + intid, targets);
        let _ = store32(GICD + 0x800 + (intid & !3), targets * 0x0101_0101);
    }
    report.value("ITARGETSR", load8(GICD + 0x800 + intid, 0), 0);
    report.value("I am vCPU 0", load32(GICD + 0x800, 0), 0x0101_0101);
    let _ = store32(GICD + 0xE00 + intid / 16 * 4, u64::MAX);
    report.value("NSACR", load32(GICD + 0xE00 + intid / 16 * 4, 0), 0);
    for _ in 0..1000 {
        let _ = store32(GICD + 0x180 + word, u64::MAX);
    }
}

/// This domain's own SPI, sent to where it must not go.
pub(super) fn spi_target(report: &mut Report) {
    let Some(intid) = platform().console.and_then(|device| device.intid) else {
        return report.check("console has an interrupt", false, "none");
    };
    let register = GICD + 0x800 + u64::from(intid);
    report.value("starts at vCPU 0", load8(register, 0), 1);
    for (what, targets, left) in [("nobody", 0, 0), ("everybody", 0xFF, 1), ("others", 0xFE, 0), ("vCPU 0", 1, 1)] {
        let _ = store8(register, targets);
        report.value(what, load8(register, 0), left);
    }
    let _ = store8(GICD + 0x400 + u64::from(intid), 0x40);
    report.value("own priority is kept", load8(GICD + 0x400 + u64::from(intid), 0), 0x40);
}

/// EL2's own interrupts among the banked ones, and this domain's.
pub(super) fn private_interrupts(report: &mut Report) {
    let own = 1 << platform().timer.unwrap_or(27);
    // Maintenance 25, EL2 physical 26, EL2 virtual 28, secure 29, and the SGI the hypervisor keeps.
    let foreign: u64 = 1 << 25 | 1 << 26 | 1 << 28 | 1 << 29 | 1 << 15;
    let _ = store32(GICD + 0x180, u64::MAX);
    report.value("ICENABLER0 clears own", load32(GICD + 0x100, 0).map(|value| value & own), 0);
    let _ = store32(GICD + 0x100, u64::MAX);
    let got = load32(GICD + 0x100, 0).map(|value| value & (own | foreign));
    report.value("ISENABLER0 sets own only", got, own);
    for (what, offset) in [("ISPENDR0", 0x200), ("ISACTIVER0", 0x300)] {
        let _ = store32(GICD + offset, foreign);
        report.value(what, load32(GICD + offset, 0).map(|value| value & foreign), 0);
    }
    for (what, intid) in [("priority of the EL2 timer", 26), ("priority of the kick", 15)] {
        let _ = store8(GICD + 0x400 + intid, 0xF0);
        report.value(what, load8(GICD + 0x400 + intid, 0), 0);
    }
    for (what, offset) in [("CPENDSGIR", 0xF1C), ("SPENDSGIR", 0xF2C)] {
        let _ = store32(GICD + offset, u64::MAX);
        report.value(what, load32(GICD + offset, 0), 0);
    }
    let start = clock::ticks();
    clock::sleep(Duration::from_millis(50));
    report.check("own timer still works", clock::ticks() > start, "no progress");
}

/// Software-generated interrupts in every form that could leave the domain (I35). The victim counts what it gets.
pub(super) fn foreign_sgi(report: &mut Report) {
    for intid in 0..16 {
        if irq::register(intid, taken).is_ok() {
            irq::enable(intid);
        }
    }
    for intid in 0..16u64 {
        for target in 1..8 {
            let _ = store32(SGIR, 1 << (16 + target) | intid);
        }
        for form in
            [0xFE << 16, 1 << 24, 1 << 24 | 0xFF << 16, 3 << 24 | 0xFF << 16, 0xFE << 16 | 1 << 15, 0xFE << 16 | 0x7FF0]
        {
            let _ = store32(SGIR, form | intid);
        }
        // Pending bits of other CPUs' SGIs.
        let _ = store8(GICD + 0xF20 + intid, 0xFF);
    }
    clock::sleep(Duration::from_millis(50));
    report.equal("none of them came back", u64::from(TAKEN.load(Relaxed)), 0);
    let _ = store32(SGIR, 2 << 24 | 15);
    let _ = store32(SGIR, 1 << 16 | 15);
    clock::sleep(Duration::from_millis(50));
    report.equal("the hypervisor's SGI is not mine", u64::from(TAKEN.load(Relaxed)), 0);
    let _ = store32(SGIR, 1 << 16 | 3);
    clock::sleep(Duration::from_millis(50));
    report.equal("SGI 3 to myself arrives", u64::from(TAKEN.load(Relaxed)), 1);
    let _ = store32(SGIR, 0xFF << 16 | 4);
    clock::sleep(Duration::from_millis(50));
    report.equal("a list is cut to the domain", u64::from(TAKEN.load(Relaxed)), 2);
    let _ = store32(SGIR, 2 << 24 | 5);
    clock::sleep(Duration::from_millis(50));
    report.equal("SGI 5 by the filter arrives", u64::from(TAKEN.load(Relaxed)), 3);
}

/// Ends the victim's RTC interrupt a million times (I44), as IRQ and by the aliases.
pub(super) fn foreign_eoi(report: &mut Report) {
    let intid = address("intid");
    for _ in 0..1_000_000 {
        let _ = store32(EOIR, intid);
    }
    for _ in 0..1000 {
        let _ = store32(GICC + 0x24, intid); // AEOIR
    }
    report.check("a million times", true, "");
}

/// The CPU interface is this domain's own: whatever it does to it is its own affair.
pub(super) fn interface(report: &mut Report) {
    let timer = u64::from(platform().timer.unwrap_or(27));
    cpu::mask();
    irq::set_priority(timer as u32, 0);
    report.value("priority 0 reads back", load8(GICD + 0x400 + timer, 0), 0);
    clock::set_alarm(clock::ticks(), || ());
    cpu::wfi();
    report.value("acknowledged and never ended", load32(IAR, 0), timer);
    // Every bit of CTLR, FIQEn and the bypasses among them: its interrupts may be FIQs, EL2 takes none.
    for control in [0xFFFF_FFFF, 0x9, 0x1E0, 0] {
        let _ = store32(GICC, control);
    }
    for offset in (0..0x1000).step_by(4) {
        let _ = store32(GICC + offset, u64::MAX);
    }
    mask_interface();
    let end = clock::ticks() + clock::to_ticks(Duration::from_secs(1));
    while clock::ticks() < end {
        cpu::relax();
    }
    report.check("spun for a second, deaf", true, "");
}
