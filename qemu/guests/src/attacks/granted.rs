//! What a domain is granted of its CPUs (`sve`, `pmu`, `debug`): it works, starts as after reset, and gives nothing more (I09, I10,
//! I15).
#![allow(unsafe_code)] // instructions under guard

use crate::probe::{self, catch};
use crate::report::Report;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use core::time::Duration;
use unikernel::platform::Conduit::Hvc;
use unikernel::psci::{self, Affinity, call};
use unikernel::{clock, cpu, read_sysreg, write_sysreg};

/// Runs instructions on x9 and gives back x10.
macro_rules! run {
    ($($text:literal),*; $x9:expr) => {{
        let result: u64;
        // SAFETY: instructions on registers the runtime does not use, or on the memory the caller names.
        unsafe {
            asm!(".arch_extension sve", $($text,)* inout("x9") $x9 => _, out("x10") result, out("x11") _, options(nostack))
        };
        result
    }};
}

fn field(register: u64, shift: u32) -> u64 {
    register >> shift & 0xF
}

/// Runs `first` on vCPU 1, turns it off, runs `second` there.
fn twice_on_vcpu_1(first: fn(), second: fn()) {
    for work in [first, second] {
        let before = DONE.load(SeqCst);
        let started = psci::start(1, work).is_ok();
        while started && (DONE.load(SeqCst) == before || psci::affinity_info(1) != Ok(Affinity::Off)) {
            cpu::relax();
        }
    }
}

static DONE: AtomicU64 = AtomicU64::new(0);
/// What vCPU 1 has found.
static FOUND: AtomicU64 = AtomicU64::new(u64::MAX);

fn done() {
    DONE.fetch_add(1, SeqCst);
}

/// Everything EL1 can allow itself is allowed; vectors as long as there are. Gives ZCR_EL1 as it was.
fn open_sve() -> u64 {
    write_sysreg!("cpacr_el1", 3 << 16 | 3 << 20 | 3 << 24);
    cpu::isb();
    let before = read_sysreg!("S3_0_C1_C2_0");
    write_sysreg!("S3_0_C1_C2_0", 0xF);
    cpu::isb();
    before
}

/// What is not zero in Z0 to Z31, P0 to P15 and FFR: 0 for nothing. Overwrites Z0, P0 and P1.
fn sve_state() -> u64 {
    run!(
        ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
        "orr z0.d, z0.d, z\\n\\().d", ".endr",
        ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "cntp x11, p\\n, p\\n\\().b", "add x9, x9, x11", ".endr",
        "cntp x11, p0, p0.b", "add x9, x9, x11", "rdffr p1.b", "cntp x11, p1, p1.b", "add x9, x9, x11",
        "ptrue p0.b", "cmpne p1.d, p0/z, z0.d, #0", "cntp x10, p0, p1.d", "add x10, x10, x9"; 0u64)
}

/// Leaves something in all of them.
fn dirty_sve() {
    run!(".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
        "dup z\\n\\().b, #0x5a", ".endr",
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "ptrue p\\n\\().b", ".endr", "setffr", "mov x10, #0"; 0u64);
}

/// SVE: there, empty at entry and at CPU_ON, kept over calls; SME and what else is newer stays away.
pub(super) fn sve(report: &mut Report) {
    report.equal("ID_AA64PFR0_EL1.SVE", field(read_sysreg!("id_aa64pfr0_el1"), 32), 1);
    report.check("ID_AA64ZFR0_EL1", catch(|| read_sysreg!("S3_0_C0_C4_4")).is_ok(), "a fault");
    report.equal("ZCR_EL1 at entry", open_sve(), 0);
    report.equal("Z, P and FFR at entry", sve_state(), 0);
    let bytes = run!("rdvl x10, #1"; 0u64);
    report.check("vectors longer than 128 bits", bytes > 16 && bytes.is_multiple_of(16), bytes);
    dirty_sve();
    call(Hvc, 0x8400_0000, [0; 3]);
    // z0 to z31 all hold 0x5a, p0 to p15 and FFR are full: seventeen times the length, and every doubleword is not zero.
    report.equal("kept over a call", sve_state(), 17 * bytes + bytes / 8);
    twice_on_vcpu_1(
        || {
            open_sve();
            dirty_sve();
            done();
        },
        || {
            FOUND.store(open_sve() | sve_state(), SeqCst);
            done();
        },
    );
    report.equal("empty again at CPU_ON", FOUND.load(SeqCst), 0);
    // SAFETY: undefined, and skipped.
    let sme = catch(|| unsafe {
        asm!("msr S3_0_C1_C2_6, xzr", options(nostack));
        0
    });
    report.undefined("SMCR_EL1 (SME)", sme);
}

/// PMEVTYPER and PMCCFILTR: do not count at EL1, do not count at EL0, count at EL2.
const EL2_ONLY: u64 = 1 << 31 | 1 << 30 | 1 << 27;
/// CPU_CYCLES, SW_INCR (DDI 0487, D13.10.2).
const CYCLES: u64 = 0x11;
const SW_INCR: u64 = 0;

/// What is not as after reset in the performance counters: 0 for nothing.
fn counters_state() -> u64 {
    let mut dirty = read_sysreg!("pmcr_el0") & 1 | read_sysreg!("pmcntenset_el0") | read_sysreg!("pmovsset_el0");
    dirty |= read_sysreg!("pmintenset_el1") | read_sysreg!("pmuserenr_el0") | read_sysreg!("pmccntr_el0");
    dirty |= read_sysreg!("pmccfiltr_el0") | read_sysreg!("pmselr_el0");
    for counter in 0..read_sysreg!("pmcr_el0") >> 11 & 0x1F {
        write_sysreg!("pmselr_el0", counter);
        cpu::isb();
        dirty |= read_sysreg!("pmxevtyper_el0") | read_sysreg!("pmxevcntr_el0");
    }
    dirty
}

fn dirty_counters() {
    for counter in 0..read_sysreg!("pmcr_el0") >> 11 & 0x1F {
        write_sysreg!("pmselr_el0", counter);
        cpu::isb();
        write_sysreg!("pmxevtyper_el0", CYCLES);
        write_sysreg!("pmxevcntr_el0", 0xFFFF_FFF0);
    }
    write_sysreg!("pmuserenr_el0", 0xF);
    write_sysreg!("pmccfiltr_el0", EL2_ONLY);
    write_sysreg!("pmintenset_el1", 0x8000_0001);
    write_sysreg!("pmcntenset_el0", 0x8000_0001);
    write_sysreg!("pmcr_el0", 1);
    cpu::isb();
}

/// Performance counters: they count the domain and not EL2; their interrupt arrives; they start from nothing.
pub(super) fn pmu(report: &mut Report) {
    let version = field(read_sysreg!("id_aa64dfr0_el1"), 8);
    report.check("ID_AA64DFR0_EL1.PMUVer", (4..=7).contains(&version), version);
    report.equal("counters at entry", counters_state(), 0);
    let all = read_sysreg!("pmcr_el0") >> 11 & 0x1F;
    report.check("event counters", all >= 1, all);
    for (what, filter, counts) in [("counted at EL1", 1 << 27, true), ("counted at EL2", EL2_ONLY, false)] {
        write_sysreg!("pmevtyper0_el0", CYCLES | filter);
        write_sysreg!("pmccfiltr_el0", filter);
        write_sysreg!("pmcntenset_el0", 0x8000_0001);
        write_sysreg!("pmcr_el0", 0b111);
        cpu::isb();
        for _ in 0..1000 {
            call(Hvc, 0x8400_0000, [0; 3]);
            read_sysreg!("id_aa64pfr0_el1");
        }
        clock::sleep(Duration::from_millis(20));
        write_sysreg!("pmcr_el0", 0);
        cpu::isb();
        let (events, cycles) = (read_sysreg!("pmevcntr0_el0"), read_sysreg!("pmccntr_el0"));
        report.check(what, (events != 0) == counts, format_args!("{events} events"));
        report.check("cycles likewise", (cycles != 0) == counts, format_args!("{cycles} cycles"));
    }
    overflow(report);
    report.undefined("MDCR_EL2", catch(|| read_sysreg!("mdcr_el2")));
    twice_on_vcpu_1(
        || {
            dirty_counters();
            done();
        },
        || {
            FOUND.store(counters_state(), SeqCst);
            done();
        },
    );
    report.equal("nothing left at CPU_ON", FOUND.load(SeqCst), 0);
}

/// A counter overflows: PPI 23 becomes pending in the domain's own redistributor, and goes with its cause.
fn overflow(report: &mut Report) {
    const ISPENDR: u64 = 0x080B_0200;
    let pending = || probe::load32(ISPENDR, 0).map(|bits| bits >> 23 & 1);
    report.value("PPI 23 before", pending(), 0);
    write_sysreg!("pmevtyper0_el0", SW_INCR);
    write_sysreg!("pmevcntr0_el0", 0xFFFF_FFFF);
    write_sysreg!("pmintenset_el1", 1);
    write_sysreg!("pmcntenset_el0", 1);
    write_sysreg!("pmcr_el0", 1);
    cpu::isb();
    write_sysreg!("pmswinc_el0", 1);
    cpu::isb();
    report.equal("overflow", read_sysreg!("pmovsset_el0") & 1, 1);
    report.value("PPI 23 at overflow", pending(), 1);
    write_sysreg!("pmovsclr_el0", 1);
    cpu::isb();
    report.value("PPI 23 after", pending(), 0);
    write_sysreg!("pmcr_el0", 0);
    write_sysreg!("pmintenclr_el1", 1);
}

static WATCHED: AtomicU64 = AtomicU64::new(0);
/// MDSCR_EL1: MDE, KDE.
const MONITOR: u64 = 1 << 15 | 1 << 13;

/// What is not as after reset in the debug registers that QEMU's smallest CPU has.
fn debug_state() -> u64 {
    read_sysreg!("mdscr_el1")
        | read_sysreg!("dbgbcr0_el1")
        | read_sysreg!("dbgbvr0_el1")
        | read_sysreg!("dbgbcr5_el1")
        | read_sysreg!("dbgwcr0_el1")
        | read_sysreg!("dbgwvr3_el1")
}

/// Steps over an instruction that EL2 carries out, and gives its address: the step ends behind it.
fn step(at: &mut u64) -> probe::Outcome {
    catch(|| {
        // SAFETY: goes on with the next instruction, interrupts masked meanwhile; SPSR_EL1: EL1h, D open, SS.
        unsafe {
            asm!(
                "mrs x11, daif", "msr daifset, #15", "msr mdscr_el1, x10", "adr x9, 2f", "msr elr_el1, x9",
                "mov x10, #0x1c5", "movk x10, #0x20, lsl #16", "msr spsr_el1, x10", "isb", "eret",
                "2: mrs x10, id_aa64pfr0_el1", "nop", "nop", "msr daif, x11",
                out("x9") *at, inout("x10") MONITOR | 1 => _, out("x11") _, options(nostack)
            );
        }
        0
    })
}

/// Self-hosted debug: breakpoint, watchpoint and single step come to the domain; what halts a CPU does not exist.
pub(super) fn debug(report: &mut Report) {
    let dfr0 = read_sysreg!("id_aa64dfr0_el1");
    report.equal("breakpoints", field(dfr0, 12) + 1, 6);
    report.equal("watchpoints", field(dfr0, 20) + 1, 4);
    report.equal("debug registers at entry", debug_state(), 0);
    report.equal("OS lock is open", read_sysreg!("oslsr_el1"), 8);
    write_sysreg!("oslar_el1", 1);
    cpu::isb();
    report.equal("and cannot be locked", read_sysreg!("oslsr_el1"), 8);
    write_sysreg!("osdlr_el1", 1);
    report.equal("no double lock", read_sysreg!("osdlr_el1"), 0);
    let at: u64;
    // SAFETY: the address of the two instructions.
    unsafe { asm!("adr {}, 2f", "b 3f", "2: nop", "ret", "3:", out(reg) at, options(nostack)) };
    write_sysreg!("mdscr_el1", MONITOR);
    // SAFETY: debug exceptions at EL1.
    unsafe { asm!("msr daifclr, #8", options(nostack)) };
    write_sysreg!("dbgbvr0_el1", at);
    write_sysreg!("dbgbcr0_el1", 0xF << 5 | 1 << 1 | 1); // any byte, at EL1, enabled
    cpu::isb();
    report.fault("breakpoint", probe::fetch(at, 0), |f| f.class() == 0x31 && f.elr == at);
    write_sysreg!("dbgbcr0_el1", 0);
    let watched = WATCHED.as_ptr() as u64;
    write_sysreg!("dbgwvr0_el1", watched);
    write_sysreg!("dbgwcr0_el1", 0xFFu64 << 5 | 2 << 3 | 1 << 1 | 1); // all bytes, stores, at EL1, enabled
    cpu::isb();
    report.check("a load is not watched", probe::load64(watched, 0).is_ok(), "a fault");
    report.fault("watchpoint", probe::store64(watched, 7), |f| f.class() == 0x35 && f.far == watched);
    write_sysreg!("dbgwcr0_el1", 0);
    cpu::isb();
    let mut at = 0u64;
    report.fault("a step over what EL2 does", step(&mut at), |f| f.class() == 0x33 && f.elr == at + 4);
    // SAFETY: HLT is undefined where halting debug is off.
    let halted = catch(|| unsafe {
        asm!("hlt #0", options(nostack));
        0
    });
    report.undefined("HLT", halted);
    // A breakpoint for EL2 as well (HMC, SSC 0b11, PMC 0b11), on any address: the hypervisor goes on.
    write_sysreg!("dbgbvr1_el1", 0);
    write_sysreg!("dbgbcr1_el1", 4 << 20 | 1 << 13 | 0xF << 5 | 3 << 1 | 1); // address mismatch where there is one
    cpu::isb();
    report.equal("a breakpoint for EL2 is none", call(Hvc, 0x8400_0000, [0; 3]) & 0xFFFF_FFFF, 0x1_0001);
    write_sysreg!("dbgbcr1_el1", 0);
    write_sysreg!("mdscr_el1", 0);
    twice_on_vcpu_1(
        || {
            write_sysreg!("mdscr_el1", MONITOR);
            write_sysreg!("dbgbvr0_el1", 0x4000_0000);
            write_sysreg!("dbgbcr5_el1", 0x1E6);
            write_sysreg!("dbgwcr0_el1", 0x1FFE);
            write_sysreg!("dbgwvr3_el1", 0x4000_0000);
            done();
        },
        || {
            FOUND.store(debug_state(), SeqCst);
            done();
        },
    );
    report.equal("nothing left at CPU_ON", FOUND.load(SeqCst), 0);
}

/// Everything granted, used, and reset by a restart: each run finds it as the first one did, time included (I78).
pub(super) fn restart(report: &mut Report) {
    let second = clock::to_ticks(Duration::from_secs(1));
    report.check("time has just begun", clock::ticks() < second, clock::ticks());
    report.equal("SVE as after reset", open_sve() | sve_state(), 0);
    report.equal("counters as after reset", counters_state(), 0);
    report.equal("debug registers as after reset", debug_state(), 0);
    dirty_sve();
    dirty_counters();
    write_sysreg!("mdscr_el1", MONITOR);
    write_sysreg!("dbgbvr0_el1", 0x4000_0000);
    write_sysreg!("dbgbcr5_el1", 0x1E6);
    write_sysreg!("dbgwcr0_el1", 0x1FFE);
    clock::sleep_until(second);
    psci::system_reset()
}

/// What the ID registers show works: an instruction or a register of each feature that could be trapped.
pub(super) fn shown(report: &mut Report) {
    let (pfr0, pfr1) = (read_sysreg!("id_aa64pfr0_el1"), read_sysreg!("id_aa64pfr1_el1"));
    let (isar0, isar1) = (read_sysreg!("id_aa64isar0_el1"), read_sysreg!("id_aa64isar1_el1"));
    let (isar2, mmfr1) = (read_sysreg!("S3_0_C0_C6_2"), read_sysreg!("id_aa64mmfr1_el1"));
    let here = WATCHED.as_ptr() as u64;
    let mut try_one = |what: &str, shown: bool, run: &dyn Fn() -> u64| {
        let holds = !shown || catch(run).is_ok();
        report.check(what, holds, "a fault");
    };
    try_one("random numbers", field(isar0, 60) > 0, &|| read_sysreg!("S3_3_C2_C4_0"));
    try_one("DIT", field(pfr0, 48) > 0, &|| read_sysreg!("S3_3_C4_C2_5"));
    try_one("SSBS", field(pfr1, 4) > 1, &|| read_sysreg!("S3_3_C4_C2_6"));
    try_one("DC CVAP", field(isar1, 0) > 0, &|| run!("sys #3, c7, c12, #1, x9", "mov x10, x9"; here));
    try_one("DC CVADP", field(isar1, 0) > 1, &|| run!("sys #3, c7, c13, #1, x9", "mov x10, x9"; here));
    try_one("TLBI by range", field(isar0, 56) > 1, &|| run!("sys #0, c8, c2, #1, x9", "mov x10, x9"; 0));
    try_one("TLBI outer shareable", field(isar0, 56) > 0, &|| run!("sys #0, c8, c1, #0", "mov x10, x9"; 0));
    try_one("CFP RCTX", field(isar1, 40) > 0, &|| run!("sys #3, c7, c3, #4, x9", "mov x10, x9"; 0));
    try_one("SB", field(isar1, 36) > 0, &|| run!(".inst 0xd50330ff", "mov x10, x9"; 0));
    try_one("LDAPR", field(isar1, 20) > 0, &|| run!(".inst 0xf8bfc12a"; here));
    try_one("AT S1E1RP", field(mmfr1, 20) > 1, &|| run!("sys #0, c7, c9, #0, x9", "mov x10, x9"; here));
    let signs = (isar1 & 0xFF00_0FF0 | isar2 & 0xFF00) != 0;
    try_one("pointer authentication keys", signs, &|| {
        write_sysreg!("S3_0_C2_C1_0", 0x0123_4567_89AB_CDEF);
        write_sysreg!("S3_0_C2_C1_1", 0xFEDC_BA98_7654_3210);
        cpu::isb();
        read_sysreg!("S3_0_C2_C1_0")
    });
    let before = read_sysreg!("sctlr_el1");
    write_sysreg!("sctlr_el1", before | 1 << 31); // EnIA
    cpu::isb();
    // PACIA x9, x10; a call to the hypervisor, which has no keys of its own; AUTIA x9, x10.
    let signed = catch(|| run!("mov x10, #5", ".inst 0xdac10149", "mov x10, x9"; here));
    call(Hvc, 0x8400_0000, [0; 3]);
    let authenticated = catch(|| run!("mov x10, #5", ".inst 0xdac11149", "mov x10, x9"; signed.unwrap_or(0)));
    write_sysreg!("sctlr_el1", before);
    cpu::isb();
    report.check("a pointer signed", !signs || signed.is_ok_and(|pointer| pointer != here), "not signed");
    report.check("and authenticated behind a call", !signs || authenticated == Ok(here), "another pointer");
}
