//! The distributor, the redistributor and the CPU interface (I32 to I40, I44 to I46).

use super::address;
use crate::probe::{load8, load32, load64, store8, store32, store64};
use crate::report::Report;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;
use unikernel::platform::platform;
use unikernel::{clock, cpu, irq, read_sysreg, write_sysreg};

const GICD: u64 = 0x0800_0000;
const GICR: u64 = 0x080A_0000;
const SGI: u64 = GICR + 0x1_0000;

static TAKEN: AtomicU32 = AtomicU32::new(0);

fn taken(_: u32) {
    TAKEN.fetch_add(1, Relaxed);
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
    for (what, offset) in [("ISENABLER", 0x100), ("ISPENDR", 0x200), ("ISACTIVER", 0x300)] {
        let _ = store32(GICD + offset + word, u64::MAX);
        let got = load32(GICD + offset + word, 0).map(|value| value & bit);
        report.value(what, got, 0);
        // Own bits of the same word were set too: put them back.
        if offset != 0x100 {
            let _ = store32(GICD + offset + 0x80 + word, u64::MAX);
        }
    }
    let _ = store32(GICD + 0x80 + word, 0);
    report.value("IGROUPR", load32(GICD + 0x80 + word, 0).map(|value| value & bit), 0);
    let _ = store8(GICD + 0x400 + intid, 0);
    report.value("IPRIORITYR", load8(GICD + 0x400 + intid, 0), 0);
    let _ = store32(GICD + 0xC00 + intid / 16 * 4, u64::MAX);
    let shift = intid % 16 * 2;
    report.value("ICFGR", load32(GICD + 0xC00 + intid / 16 * 4, 0).map(|value| value >> shift & 3), 0);
    for route in [0, 1, 1 << 31] {
        let _ = store64(GICD + 0x6000 + intid * 8, route);
    }
    report.value("IROUTER", load64(GICD + 0x6000 + intid * 8, 0), 0);
    for (what, offset) in
        [("SETSPI_NSR", 0x40), ("CLRSPI_NSR", 0x48), ("SETSPI_SR", 0x50), ("CLRSPI_SR", 0x58), ("SGIR", 0xF00)]
    {
        report.check(what, store32(GICD + offset, intid).is_ok(), "a fault");
    }
    for _ in 0..1000 {
        let _ = store32(GICD + 0x180 + word, u64::MAX);
    }
}

/// This domain's own SPI, routed to where it must not go.
pub(super) fn spi_route(report: &mut Report) {
    let Some(intid) = platform().console.and_then(|device| device.intid) else {
        return report.check("console has an interrupt", false, "none");
    };
    let register = GICD + 0x6000 + u64::from(intid) * 8;
    report.value("starts at vCPU 0", load64(register, 0), 0);
    for (what, route) in [
        ("any CPU (IRM)", 1 << 31),
        ("the victim's CPU", 1),
        ("Aff1", 0x100),
        ("Aff2", 0x1_0000),
        ("Aff3", 1 << 32),
        ("everything", u64::MAX),
    ] {
        let _ = store64(register, route);
        report.value(what, load64(register, 0), 0);
    }
    let _ = store32(register, 1 << 31);
    report.value("IRM by half", load64(register, 0), 0);
    let _ = store8(GICD + 0x400 + u64::from(intid), 0x40);
    report.value("own priority is kept", load8(GICD + 0x400 + u64::from(intid), 0), 0x40);
}

/// LPIs: tables the redistributor would read and write anywhere (I39).
pub(super) fn lpi_tables(report: &mut Report) {
    let ram = address("ram");
    report.value("TYPER.PLPIS", load64(GICR + 8, 0).map(|value| value & 1), 0);
    report.value("GICD_TYPER.LPIS", load32(GICD + 4, 0).map(|value| value >> 17 & 1), 0);
    for (what, offset, value) in [
        ("PROPBASER", 0x70, ram | 0x78F),
        ("PENDBASER", 0x78, ram | 0x780),
        ("SETLPIR", 0x40, 8192),
        ("CLRLPIR", 0x48, 8192),
        ("INVLPIR", 0xA0, 8192),
        ("INVALLR", 0xB0, 0),
    ] {
        let stored = store64(GICR + offset, value);
        report.check(what, stored.is_ok() && load64(GICR + offset, 0) == Ok(0), "something kept");
    }
    let _ = store32(GICR, 1);
    report.value("CTLR.EnableLPIs", load32(GICR, 0).map(|value| value & 1), 0);
    let _ = store32(GICR + 0x14, 2);
    report.value("WAKER stays awake", load32(GICR + 0x14, 0), 0);
}

/// EL2's own PPIs and SGI in this CPU's SGI frame (I38): not there, and this domain's stay Group 1.
pub(super) fn private_interrupts(report: &mut Report) {
    let timer = platform().timer.unwrap_or(27);
    let own = 1 << timer;
    // Maintenance 25, EL2 physical 26, EL2 virtual 28, secure 29, and the SGI the hypervisor keeps.
    let foreign: u64 = 1 << 25 | 1 << 26 | 1 << 28 | 1 << 29 | 1 << 15;
    let _ = store32(SGI + 0x80, 0);
    report.value("IGROUPR0 keeps Group 1", load32(SGI + 0x80, 0).map(|value| value & (own | foreign)), own);
    let _ = store32(SGI + 0x180, u64::MAX);
    report.value("ICENABLER0 clears own", load32(SGI + 0x100, 0), 0);
    let _ = store32(SGI + 0x100, u64::MAX);
    let got = load32(SGI + 0x100, 0).map(|value| value & (own | foreign));
    report.value("ISENABLER0 sets own only", got, own);
    for (what, offset) in [("ISPENDR0", 0x200), ("ISACTIVER0", 0x300)] {
        let _ = store32(SGI + offset, foreign);
        report.value(what, load32(SGI + offset, 0).map(|value| value & foreign), 0);
    }
    for (what, intid) in [("priority of the EL2 timer", 26), ("priority of the kick", 15)] {
        let _ = store8(SGI + 0x400 + intid, 0xF0);
        report.value(what, load8(SGI + 0x400 + intid, 0), 0);
    }
    let _ = store32(SGI + 0xC04, u64::MAX);
    let _ = store32(SGI + 0xD00, u64::MAX);
    report.value("IGRPMODR0", load32(SGI + 0xD00, 0), 0);
    let _ = store32(SGI + 0xE00, u64::MAX);
    report.value("NSACR", load32(SGI + 0xE00, 0), 0);
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
        let sgi = intid << 24;
        for target in 0..16 {
            if target != 0 {
                write_sysreg!("icc_sgi1r_el1", sgi | 1 << target);
            }
        }
        write_sysreg!("icc_sgi1r_el1", sgi | 0xFFFE); // all targets but oneself
        write_sysreg!("icc_sgi1r_el1", sgi | 1 << 40); // IRM: all but oneself
        write_sysreg!("icc_sgi1r_el1", sgi | 1 << 40 | 0xFFFF);
        write_sysreg!("icc_sgi1r_el1", sgi | 1 << 44 | 0xFFFF); // RS: Aff0 16 to 31
        write_sysreg!("icc_sgi1r_el1", sgi | 1 << 16 | 0xFFFF); // Aff1
        write_sysreg!("icc_sgi1r_el1", sgi | 1 << 32 | 0xFFFF); // Aff2
        write_sysreg!("icc_sgi1r_el1", sgi | 1 << 48 | 0xFFFF); // Aff3
        write_sysreg!("icc_sgi0r_el1", sgi | 0xFFFF);
        write_sysreg!("icc_sgi0r_el1", sgi | 1 << 40);
        write_sysreg!("icc_asgi1r_el1", sgi | 0xFFFF);
        write_sysreg!("icc_asgi1r_el1", sgi | 1 << 40);
    }
    clock::sleep(Duration::from_millis(50));
    report.equal("none of them came back", u64::from(TAKEN.load(Relaxed)), 0);
    write_sysreg!("icc_sgi1r_el1", 15 << 24 | 1);
    clock::sleep(Duration::from_millis(50));
    report.equal("the hypervisor's SGI is not mine", u64::from(TAKEN.load(Relaxed)), 0);
    write_sysreg!("icc_sgi1r_el1", 3 << 24 | 1);
    clock::sleep(Duration::from_millis(50));
    report.equal("SGI 3 to myself arrives", u64::from(TAKEN.load(Relaxed)), 1);
    // All targets, oneself among them: only that one is left.
    write_sysreg!("icc_sgi1r_el1", 4 << 24 | 0xFFFF);
    clock::sleep(Duration::from_millis(50));
    report.equal("a list is cut to the domain", u64::from(TAKEN.load(Relaxed)), 2);
}

/// Ends the victim's RTC interrupt a million times (I44).
pub(super) fn foreign_eoi(report: &mut Report) {
    let intid = address("intid");
    for _ in 0..1_000_000 {
        write_sysreg!("icc_eoir1_el1", intid);
    }
    for _ in 0..1000 {
        write_sysreg!("icc_dir_el1", intid);
        write_sysreg!("icc_eoir0_el1", intid);
    }
    report.check("a million times", true, "");
}

/// Acknowledges its timer at the highest priority and never ends it, with everything masked (I40).
pub(super) fn never_ended(report: &mut Report) {
    let timer = platform().timer.unwrap_or(27);
    cpu::mask();
    irq::set_priority(timer, 0);
    report.value("priority 0 reads back", load8(SGI + 0x400 + u64::from(timer), 0), 0);
    write_sysreg!("cntv_cval_el0", clock::ticks());
    write_sysreg!("cntv_ctl_el0", 1);
    cpu::wfi();
    report.equal("acknowledged", read_sysreg!("icc_iar1_el1"), u64::from(timer));
    write_sysreg!("icc_pmr_el1", 0);
    write_sysreg!("icc_igrpen1_el1", 0);
    write_sysreg!("icc_ap1r0_el1", 1);
    cpu::isb();
    let end = clock::ticks() + clock::to_ticks(Duration::from_secs(1));
    while clock::ticks() < end {
        cpu::relax();
    }
    report.check("spun for a second, never ended it", true, "");
}
