//! System registers a domain has not got (I09, I11 to I15, I45, I46, I51), and those it has.
#![allow(unsafe_code)] // single instructions under guard

use crate::probe::{Outcome, catch};
use crate::report::Report;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use unikernel::{clock, cpu, read_sysreg, write_sysreg};

macro_rules! mrs {
    ($name:literal) => {
        catch(|| {
            let mut value: u64 = 0xDEAD;
            // SAFETY: reads a register, or faults and is skipped.
            unsafe { asm!(concat!("mrs {0}, ", $name), inout(reg) value, options(nostack)) };
            value
        })
    };
}

macro_rules! msr {
    ($name:literal, $value:expr) => {
        catch(|| {
            let value: u64 = $value;
            // SAFETY: expected to fault; where it does not, the report says so.
            unsafe { asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack)) };
            0
        })
    };
}

macro_rules! undefined {
    ($report:ident, read: $($read:literal)*; write: $($write:literal)*) => {
        $( $report.undefined(concat!("read ", $read), mrs!($read)); )*
        $( $report.undefined(concat!("write ", $write), msr!($write, 1)); )*
    };
}

/// Implementation defined space, EL2's and EL3's registers, tracing, profiling, memory tagging and partitioning.
pub(super) fn unknown(report: &mut Report) {
    undefined!(report,
        read: "S3_0_C15_C0_0" "S3_1_C15_C0_0" "S3_1_C15_C2_0" "S3_1_C15_C2_1" "S3_1_C15_C3_0" "S3_1_C11_C0_2"
            "S3_0_C11_C0_0" "S3_3_C15_C0_0" "S3_7_C15_C0_0"
            "hcr_el2" "vttbr_el2" "vbar_el2" "elr_el2" "ich_hcr_el2" "cnthctl_el2" "scr_el3"
            "S3_0_C9_C9_0" "S3_0_C9_C11_0" "S3_3_C13_C2_0" "S3_3_C13_C4_0" "S2_1_C0_C1_0";
        write: "S3_0_C15_C0_0" "S3_1_C15_C0_0" "S3_1_C15_C2_0" "S3_1_C15_C2_1" "S3_7_C15_C0_0"
            "hcr_el2" "vttbr_el2" "vbar_el2" "ich_hcr_el2" "ich_lr0_el2" "S3_0_C9_C9_0" "S3_0_C9_C11_0"
    );
    // SAFETY: the zero register forms of the same traps.
    let zero = catch(|| unsafe {
        asm!("msr S3_1_C15_C2_0, xzr", options(nostack));
        0
    });
    report.undefined("write S3_1_C15_C2_0, xzr", zero);
    // SAFETY: as above.
    let zero = catch(|| unsafe {
        asm!("mrs xzr, S3_1_C15_C2_0", options(nostack));
        0
    });
    report.undefined("read xzr, S3_1_C15_C2_0", zero);
    // An implementation defined SYS instruction.
    // SAFETY: as above.
    let sys = catch(|| unsafe {
        asm!("sys #1, c15, c2, #0, xzr", options(nostack));
        0
    });
    report.undefined("sys #1, c15, c2, #0", sys);
    denied(report, "ACTLR_EL1", msr!("actlr_el1", u64::MAX), mrs!("actlr_el1"), 0);
    denied(report, "PMCR_EL0", msr!("pmcr_el0", 1), mrs!("pmcr_el0"), 0);
    denied(report, "PMCNTENSET_EL0", msr!("pmcntenset_el0", 1 << 31), mrs!("pmcntenset_el0"), 0);
    denied(report, "PMCCNTR_EL0", msr!("pmccntr_el0", 5), mrs!("pmccntr_el0"), 0);
    let sre = msr!("icc_sre_el1", 0);
    report.check("ICC_SRE_EL1 stays 7", sre.is_ok() && mrs!("icc_sre_el1") == Ok(7), "something else");
}

/// A register that is either not there or reads as a constant, whatever was written.
fn denied(report: &mut Report, what: &str, write: Outcome, read: Outcome, constant: u64) {
    let holds = |outcome: &Outcome, fine: u64| match outcome {
        Ok(value) => *value == fine,
        Err(fault) => fault.is_undefined(),
    };
    let text = match &read {
        Ok(value) => *value,
        Err(fault) => fault.esr,
    };
    report.check(what, holds(&write, 0) && holds(&read, constant), format_args!("{text:#x}"));
}

/// The debug architecture: the OS lock and MDSCR cannot be changed, breakpoints stay with the guest.
pub(super) fn debug(report: &mut Report) {
    denied(report, "OSLAR_EL1", msr!("oslar_el1", 0), Ok(0), 0);
    let _ = msr!("mdscr_el1", 1 << 14 | 1 << 15 | 1);
    denied(report, "MDSCR_EL1", Ok(0), mrs!("mdscr_el1"), 0);
    let _ = msr!("dbgbvr0_el1", 0x4010_0000);
    denied(report, "DBGBVR0_EL1", Ok(0), mrs!("dbgbvr0_el1"), 0);
    let _ = msr!("dbgbcr0_el1", 0x1E5 | 1 << 13);
    denied(report, "DBGBCR0_EL1", Ok(0), mrs!("dbgbcr0_el1"), 0);
    denied(report, "DBGWCR0_EL1", msr!("dbgwcr0_el1", 0x1FFF), mrs!("dbgwcr0_el1"), 0);
    denied(report, "DBGCLAIMSET_EL1", msr!("dbgclaimset_el1", 1), Ok(0), 0);
    denied(report, "OSDLR_EL1", msr!("osdlr_el1", 1), mrs!("osdlr_el1"), 0);
    let at: u64;
    // SAFETY: the address of the BRK below.
    unsafe { asm!("adr {}, 2f", "b 3f", "2: brk #0x42", "ret", "3:", out(reg) at, options(nostack)) };
    let broke = crate::probe::fetch(at, 0);
    report.fault("BRK comes to me", broke, |f| f.esr == 0x3C << 26 | 1 << 25 | 0x42 && f.elr == at);
    // SAFETY: HLT is undefined where halting debug is off.
    let halted = catch(|| unsafe {
        asm!("hlt #0", options(nostack));
        0
    });
    report.undefined("HLT", halted);
}

/// EL2's timers are undefined, the guest's own are exact, with the priority mask closed too (I46, I51).
pub(super) fn timers(report: &mut Report) {
    undefined!(report,
        read: "cnthp_ctl_el2" "cnthp_cval_el2" "cnthp_tval_el2" "S3_4_C14_C3_1" "cntvoff_el2" "cntps_ctl_el1" "S3_4_C14_C5_1";
        write: "cnthp_ctl_el2" "cnthp_cval_el2" "S3_4_C14_C3_1" "cntvoff_el2" "cntps_ctl_el1" "cntfrq_el0"
    );
    // Virtual time began with the domain, physical time with the board; both run, at one distance.
    let distance = || {
        let before = clock::ticks();
        cpu::isb();
        read_sysreg!("cntpct_el0").wrapping_sub(before)
    };
    let (first, slack) = (distance(), clock::frequency() / 10);
    report.check("time starts with the domain", clock::ticks() < 5 * clock::frequency(), clock::ticks());
    clock::sleep(Duration::from_millis(200));
    let drift = distance().wrapping_sub(first);
    report.check("both counters run alike", drift.wrapping_add(slack) < 2 * slack, drift);
    // The physical timer's comparator counts physical time: due now, it fires; due in an hour, it does not.
    for (what, wait, fires) in [("physical timer due", 0, 1), ("physical timer not due", 3600 * clock::frequency(), 0)]
    {
        write_sysreg!("cntp_cval_el0", read_sysreg!("cntpct_el0") + wait);
        write_sysreg!("cntp_ctl_el0", 3);
        cpu::isb();
        report.equal(what, read_sysreg!("cntp_ctl_el0") >> 2 & 1, fires);
        write_sysreg!("cntp_ctl_el0", 0);
    }
    write_sysreg!("icc_pmr_el1", 0);
    cpu::isb();
    let period = clock::to_ticks(Duration::from_millis(100));
    let start = clock::ticks();
    let late = (1..=10).filter(|tick| {
        clock::sleep_until(start + tick * period);
        clock::ticks() >= start + (tick + 1) * period
    });
    report.equal("ticks missed with PMR = 0", late.count() as u64, 0);
}

/// Set/way operations over every level the CLIDR names lose nothing: the guest's own memory, dirty in the caches, stays what it
/// is, and so does the victim's (I27). Then a storm of them, that must not hold up the victim.
pub(super) fn set_way(report: &mut Report) {
    static MARKS: [AtomicU64; 4096] = [const { AtomicU64::new(0) }; 4096];
    for (n, mark) in MARKS.iter().enumerate() {
        mark.store(n as u64 ^ 0xA5A5_5A5A, Relaxed);
    }
    let lines = every_line(|operand| {
        // SAFETY: invalidates lines by set and way; what is dirty in them must be written back all the same.
        unsafe { asm!("dc isw, {}", in(reg) operand, options(nostack)) };
    });
    report.check("DC ISW is no exception", lines > 0, lines);
    let lost = |marks: &[AtomicU64]| {
        marks.iter().enumerate().filter(|(n, mark)| mark.load(Relaxed) != *n as u64 ^ 0xA5A5_5A5A).count()
    };
    report.equal("words lost by DC ISW", lost(&MARKS) as u64, 0);
    // SAFETY: cleans, or cleans and invalidates.
    every_line(|operand| unsafe {
        asm!("dc csw, {0}", "dc cisw, {0}", in(reg) operand, options(nostack));
    });
    report.equal("words lost by DC CSW, CISW", lost(&MARKS) as u64, 0);
    for operand in [u64::MAX, 0xE, 0xFFFF_FFF0, 1 << 32] {
        // A line, a way or a level that is not there.
        let odd = catch(|| {
            // SAFETY: does nothing, or is undefined.
            unsafe { asm!("dc isw, {}", in(reg) operand, options(nostack)) };
            0
        });
        report.check("a line that is not there", odd.map_or_else(|fault| fault.is_undefined(), |_| true), operand);
    }
    for _ in 0..200 {
        // SAFETY: as above.
        every_line(|operand| unsafe { asm!("dc cisw, {}", in(reg) operand, options(nostack)) });
    }
    report.equal("words lost in a storm", lost(&MARKS) as u64, 0);
}

/// Calls `each` with the operand of every line of every data or unified cache (DDI 0487, D7.5.9), and counts them.
fn every_line(each: impl Fn(u64)) -> u64 {
    let levels = read_sysreg!("clidr_el1");
    let mut count = 0;
    for level in
        (0..7).take_while(|level| levels >> (3 * level) & 7 != 0).filter(|level| levels >> (3 * level) & 7 >= 2)
    {
        write_sysreg!("csselr_el1", level << 1);
        cpu::isb();
        let size = read_sysreg!("ccsidr_el1");
        let wide = read_sysreg!("id_aa64mmfr2_el1") >> 20 & 0xF == 1;
        let (ways, sets) = match wide {
            true => (size >> 3 & 0x1F_FFFF, size >> 32 & 0xFF_FFFF),
            false => (size >> 3 & 0x3FF, size >> 13 & 0x7FFF),
        };
        let line = (size & 7) + 4;
        let way_shift = if ways == 0 { 0 } else { (ways as u32).leading_zeros() };
        for way in 0..=ways {
            for set in 0..=sets {
                each(way << way_shift | set << line | level << 1);
                count += 1;
            }
        }
    }
    // SAFETY: waits for the maintenance.
    unsafe { asm!("dsb sy", options(nostack)) };
    count
}

/// What the ID registers show is what is granted (I15): nothing that would trap or is not there.
pub(super) fn id_registers(report: &mut Report) {
    let field = |value: Outcome, shift: u32| value.map(|value| value >> shift & 0xF);
    let pfr0 = mrs!("id_aa64pfr0_el1");
    report.value("EL1 is AArch64", field(pfr0, 4).map(|value| value & 1), 1);
    report.value("no EL2", field(pfr0, 8), 0);
    report.value("no EL3", field(pfr0, 12), 0);
    report.value("GIC system registers", field(pfr0, 24), 1);
    report.value("no RAS", field(pfr0, 28), 0);
    report.value("no SVE", field(pfr0, 32), 0);
    report.value("no MPAM", field(pfr0, 40), 0);
    report.value("no AMU", field(pfr0, 44), 0);
    let dfr0 = mrs!("id_aa64dfr0_el1");
    report.value("no trace", field(dfr0, 4), 0);
    report.value("no PMU", field(dfr0, 8), 0);
    report.value("no SPE", field(dfr0, 32), 0);
    report.value("no trace buffer", field(dfr0, 44), 0);
    report.value("no double lock trick", field(dfr0, 36), 0xF);
    let pfr1 = mrs!("id_aa64pfr1_el1");
    report.value("no MTE", field(pfr1, 8), 0);
    report.value("no SME", field(pfr1, 24), 0);
    report.value("no SVE details", mrs!("S3_0_C0_C4_4"), 0);
    report.value("no SME details", mrs!("S3_0_C0_C4_5"), 0);
    report.value("AFR0", mrs!("id_aa64afr0_el1"), 0);
    // AArch32's, all of CRm 1 to 3; then what is younger than the list: PFR2, FPFR0, DFR1, ISAR3, MMFR3, MMFR4.
    for (what, value) in [
        ("ID_PFR0", mrs!("id_pfr0_el1")),
        ("ID_DFR0", mrs!("id_dfr0_el1")),
        ("ID_MMFR0", mrs!("id_mmfr0_el1")),
        ("ID_ISAR0", mrs!("id_isar0_el1")),
        ("ID_ISAR6", mrs!("S3_0_C0_C2_7")),
        ("MVFR0", mrs!("mvfr0_el1")),
        ("MVFR2", mrs!("mvfr2_el1")),
        ("ID_PFR2", mrs!("S3_0_C0_C3_4")),
        ("PFR2", mrs!("S3_0_C0_C4_2")),
        ("FPFR0", mrs!("S3_0_C0_C4_7")),
        ("DFR1", mrs!("id_aa64dfr1_el1")),
        ("ISAR3", mrs!("S3_0_C0_C6_3")),
        ("MMFR3", mrs!("S3_0_C0_C7_3")),
        ("MMFR4", mrs!("S3_0_C0_C7_4")),
    ] {
        report.value(what, value, 0);
    }
    for (what, value) in [("CTR", mrs!("ctr_el0")), ("CLIDR", mrs!("clidr_el1")), ("CCSIDR", mrs!("ccsidr_el1"))] {
        report.check(what, value.is_ok_and(|value| value != 0), "zero or a fault");
    }
    report.value("reserved space reads 0", mrs!("S3_0_C0_C7_7"), 0);
    report.check("physical addresses", mrs!("id_aa64mmfr0_el1").is_ok(), "a fault");
    report.value("I am vCPU 0", mrs!("mpidr_el1").map(|value| value & 0xFF_00FF_FFFF), 0);
    report.undefined("write ID_AA64PFR0_EL1", msr!("S3_0_C0_C4_0", 0));
}
