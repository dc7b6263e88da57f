//! Firmware calls: nothing unknown is done, nothing reaches the firmware (I58 to I61).
#![allow(unsafe_code)] // calls with immediates the runtime has no words for

use crate::report::Report;
use core::arch::asm;
use core::time::Duration;
use unikernel::platform::Conduit::{self, Hvc, Smc};
use unikernel::psci::{self, call};
use unikernel::{clock, cpu, write_sysreg};

const NOT_SUPPORTED: u64 = 0xFFFF_FFFF;
const CPU_ON: u64 = 0xC400_0003;
const AFFINITY_INFO: u64 = 0xC400_0004;
const SYSTEM_RESET2: u64 = 0xC400_0012;

fn low(value: u64) -> u64 {
    value & 0xFFFF_FFFF
}

/// CPUs of others, CPUs that are none, and itself.
pub(super) fn cpu_on(report: &mut Report) {
    let entry = cpu_on as *const () as u64;
    for conduit in [Hvc, Smc] {
        for (what, mpidr) in [
            ("CPU 1", 1),
            ("CPU 2", 2),
            ("CPU 3", 3),
            ("CPU with U set", 0x8000_0001),
            ("Aff1", 0x100),
            ("Aff2", 0x1_0000),
            ("Aff3", 1 << 32),
            ("all ones", u64::MAX),
        ] {
            report.equal(what, low(call(conduit, CPU_ON, [mpidr, entry, 0])), low(-2i64 as u64));
            report.equal(what, low(call(conduit, AFFINITY_INFO, [mpidr, 0, 0])), low(-2i64 as u64));
        }
        report.equal("myself is on", low(call(conduit, CPU_ON, [0, entry, 0])), low(-4i64 as u64));
        report.equal("and says so", low(call(conduit, AFFINITY_INFO, [0, 0, 0])), 0);
    }
    for _ in 0..10_000 {
        call(Smc, CPU_ON, [1, entry, 0]);
    }
    report.check("10,000 times CPU 1", true, "");
}

/// Function identifiers nobody has, by both conduits.
pub(super) fn unknown_calls(report: &mut Report) {
    // PSCI and SMCCC functions a domain has: the only ones that may answer anything else.
    let known =
        |id: u64| matches!(id & 0xBFFF_FFFF, 0x8400_0000..=0x8400_000A | 0x8400_0012 | 0x8000_0000 | 0x8000_0001);
    for (what, conduit) in [("HVC", Hvc), ("SMC", Smc)] {
        let mut wrong = None;
        let mut count = 0u32;
        let mut probe = |id: u64| {
            if !known(id) {
                count += 1;
                let got = low(call(conduit, id, [0; 3]));
                if got != NOT_SUPPORTED {
                    wrong = Some((id, got));
                }
            }
        };
        // Every range of owners (DEN 0028, 6.1), 32 and 64 bits, fast and yielding.
        for owner in 0..64 {
            for base in [0, 0x4000_0000, 0x8000_0000, 0xC000_0000u64] {
                for function in [0, 1, 2, 3, 0xB, 0x12, 0x13, 0x14, 0x15, 0x50, 0x53, 0xFF00, 0xFF01, 0xFFFF] {
                    probe(base | owner << 24 | function);
                }
            }
        }
        let mut id = 0x1234_5678u64;
        for _ in 0..2000 {
            id = id.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            probe(id >> 32);
        }
        match wrong {
            Some((id, got)) => report.check(what, false, format_args!("{got:#x} from {id:#x}")),
            None => report.check(what, count > 5000, format_args!("only {count} probes")),
        }
    }
    report.equal("SYSTEM_SUSPEND", low(call(Smc, 0xC400_000E, [0x4010_0000, 0, 0])), NOT_SUPPORTED);
    report.equal("MEM_PROTECT", low(call(Smc, 0x8400_0013, [1, 0, 0])), NOT_SUPPORTED);
    for kind in [1, 0x8000_0000, 0xFFFF_FFFF] {
        report.equal("SYSTEM_RESET2 of a bad type", low(call(Smc, SYSTEM_RESET2, [kind, 0, 0])), low(-2i64 as u64));
    }
    report.equal("CPU_SUSPEND to a bad state", low(call(Smc, 0xC400_0001, [0x0101_0000, 0, 0])), low(-2i64 as u64));
    report.equal("VERSION by HVC", call(Hvc, 0x8400_0000, [0; 3]) >> 16, 1);
    report.equal("VERSION by SMC", call(Smc, 0x8400_0000, [0; 3]) >> 16, 1);
    report.equal("HVC #1", low(immediate(Hvc)), NOT_SUPPORTED);
    report.equal("SMC #1", low(immediate(Smc)), NOT_SUPPORTED);
    let (count, kept) = straight();
    report.equal("both return to the next instruction", count, 4);
    report.equal("x4 to x17 are kept", kept, 14);
}

/// Its only vCPU turns itself off: the domain is off.
pub(super) fn last_off(report: &mut Report) {
    report.check("before", true, "");
    psci::cpu_off()
}

/// What Linux asks before it trusts PSCI and SMCCC, and what a guest may not hear of: the answers of I61 and I62.
pub(super) fn psci(report: &mut Report) {
    const FEATURES: u64 = 0x8400_000A;
    const ARCH_FEATURES: u64 = 0x8000_0001;
    for conduit in [Hvc, Smc] {
        report.equal("PSCI 1.1", low(call(conduit, 0x8400_0000, [0; 3])), 0x1_0001);
        report.equal("SMCCC 1.1", low(call(conduit, 0x8000_0000, [0; 3])), 0x1_0001);
        report.equal("no Trusted OS to migrate", low(call(conduit, 0x8400_0006, [0; 3])), 2);
        for id in
            [0x8000_0000, 0x8400_0001, 0xC400_0001, 0x8400_0002, 0xC400_0003, 0xC400_0004, 0x8400_0009, 0xC400_0012]
        {
            report.equal("feature", low(call(conduit, FEATURES, [id, 0, 0])), 0);
        }
        // MIGRATE, CPU_FREEZE, CPU_DEFAULT_SUSPEND, NODE_HW_STATE, SYSTEM_SUSPEND, SET_SUSPEND_MODE, STAT, MEM_PROTECT.
        for id in [5, 0xB, 0xC, 0xD, 0xE, 0xF, 0x10, 0x11, 0x13, 0x14].map(|low| 0x8400_0000u64 | low) {
            report.equal("no feature", low(call(conduit, FEATURES, [id, 0, 0])), NOT_SUPPORTED);
        }
        // This firmware knows no SMCCC, so no mitigation is promised: WORKAROUND_1 to 3, SOC_ID; PV_TIME.
        for id in [0x8000_8000, 0x8000_7FFF, 0x8000_3FFF, 0x8000_0002, 0xC500_0020] {
            report.equal("not promised", low(call(conduit, ARCH_FEATURES, [id, 0, 0])), NOT_SUPPORTED);
            report.equal("and not there", low(call(conduit, id, [0; 3])), NOT_SUPPORTED);
        }
        // TRNG_VERSION, TRNG_RND64: the board's entropy is not for draining.
        let drained = (0..10_000).any(|_| low(call(conduit, 0xC400_0053, [192, 0, 0])) != NOT_SUPPORTED);
        report.check("TRNG_RND, 10,000 times", !drained, "an answer");
        report.equal("TRNG_VERSION", low(call(conduit, 0x8400_0050, [0; 3])), NOT_SUPPORTED);
        report.equal(
            "a mitigation is called with rubbish",
            low(call(conduit, 0x8000_8000, [u64::MAX; 3])),
            NOT_SUPPORTED,
        );
    }
}

/// A firmware that keeps a record of what reaches it: it has been asked once about mitigations, does one when that is called,
/// and sees no value of a guest's (I59, I62).
pub(super) fn firmware(report: &mut Report) {
    const RECORD: u64 = 0x40C0_0000;
    const ARCH_FEATURES: u64 = 0x8000_0001;
    let record = |n: u64| {
        // SAFETY: this domain's own RAM, in which the firmware counts.
        unsafe { ((RECORD + n * 8) as *const u64).read_volatile() }
    };
    let (rubbish, before) = ([u64::MAX, 0x4010_0000, 7], record(0));
    report.equal("features asked at boot", record(1), 3);
    for conduit in [Hvc, Smc] {
        for _ in 0..1000 {
            call(conduit, ARCH_FEATURES, [0x8000_8000, 1, 2]);
        }
        report.equal("WORKAROUND_1 is to be called", low(call(conduit, ARCH_FEATURES, [0x8000_8000, 0, 0])), 0);
        report.equal(
            "WORKAROUND_2 stays on",
            low(call(conduit, ARCH_FEATURES, [0x8000_7FFF, 0, 0])),
            low(-2i64 as u64),
        );
        report.equal("WORKAROUND_3 is not needed", low(call(conduit, ARCH_FEATURES, [0x8000_3FFF, 0, 0])), 1);
        report.equal("WORKAROUND_3 does nothing", low(call(conduit, 0x8000_3FFF, rubbish)), 0);
        report.equal("WORKAROUND_2 is no switch", low(call(conduit, 0x8000_7FFF, rubbish)), NOT_SUPPORTED);
    }
    report.equal("calls that reached the firmware", record(0) - before, 0);
    let done = (0..1000).all(|n| low(call(if n % 2 == 0 { Hvc } else { Smc }, 0x8000_8000, rubbish)) == 0);
    report.check("WORKAROUND_1, 1,000 times", done, "a refusal");
    report.equal("the firmware has done as many", record(2), 1000);
    report.equal("and has seen no argument", record(3), 0);
    // CPU_ON, AFFINITY_INFO, SYSTEM_SUSPEND, services of SoC, OEM, standard, hypervisor, applications and Trusted OS, TRNG.
    for owner in
        [0x8000_0000u64, 0x8100_0000, 0x8200_0000, 0x8300_0000, 0x8400_0000, 0x8600_0000, 0xB000_0000, 0xB200_0000]
    {
        for function in (1..0x60).filter(|low| owner != 0x8400_0000 || !matches!(low, 1 | 2 | 8 | 9 | 0x12)) {
            call(Smc, owner | function, rubbish);
            call(Smc, owner | 0x4000_0000 | function, rubbish);
        }
    }
    report.equal("others that reached it", record(0) - before, 1000);
}

/// SYSTEM_RESET2, the architectural warm reset: as SYSTEM_RESET.
pub(super) fn reset2(report: &mut Report) {
    report.check("before", true, "");
    call(Hvc, SYSTEM_RESET2, [0; 3]);
    report.check("after", false, "still here");
}

/// SYSTEM_RESET: off, as long as there is no restart.
pub(super) fn reset(report: &mut Report) {
    report.check("before", true, "");
    psci::system_reset()
}

/// CPU_SUSPEND to standby or power-down returns at the next interrupt, masked or not; every other state is refused.
pub(super) fn suspend(report: &mut Report) {
    const CPU_SUSPEND: u64 = 0xC400_0001;
    for (what, state) in [("standby", 0), ("power down, made a standby", 1 << 16)] {
        let mask = cpu::mask();
        let due = clock::ticks() + clock::to_ticks(Duration::from_millis(100));
        write_sysreg!("cntv_cval_el0", due);
        write_sysreg!("cntv_ctl_el0", 1);
        cpu::isb();
        let mut result = 0;
        for _ in 0..1000 {
            result = low(call(Smc, CPU_SUSPEND, [state, 0x4010_0000, 0]));
            if clock::ticks() >= due {
                break;
            }
        }
        report.equal(what, result, 0);
        report.check("until the timer", clock::ticks() >= due, "too early");
        write_sysreg!("cntv_ctl_el0", 0);
        cpu::restore(mask);
    }
    for (what, state) in [("cluster", 1 << 24), ("cluster off", 0x101 << 16), ("state 1", 1), ("all ones", u64::MAX)] {
        report.equal(what, low(call(Smc, CPU_SUSPEND, [state, 0x4010_0000, 0])), low(-2i64 as u64));
    }
    report.equal("bad entry", low(call(Smc, CPU_SUSPEND, [1 << 16, 0x4010_0001, 0])), low(-9i64 as u64));
}

/// PSCI_VERSION with an immediate that is not zero.
fn immediate(conduit: Conduit) -> u64 {
    let result: u64;
    match conduit {
        // SAFETY: a call that is refused or answered; either way the calling convention holds.
        Hvc => unsafe { asm!("hvc #1", inout("x0") 0x8400_0000u64 => result, clobber_abi("C"), options(nostack)) },
        // SAFETY: as above.
        Smc => unsafe { asm!("smc #1", inout("x0") 0x8400_0000u64 => result, clobber_abi("C"), options(nostack)) },
    }
    result
}

/// Counts the instructions around calls, and the registers x4 to x17 that have their value afterwards.
fn straight() -> (u64, u64) {
    let count: u64;
    let kept: u64;
    // SAFETY: changes only registers it gives up.
    unsafe {
        asm!(
            "mov x18, #1",
            "mov x4, #4", "mov x5, #5", "mov x6, #6", "mov x7, #7", "mov x8, #8", "mov x9, #9", "mov x10, #10",
            "mov x11, #11", "mov x12, #12", "mov x13, #13", "mov x14, #14", "mov x15, #15", "mov x16, #16", "mov x17, #17",
            "mov x0, #0xbad", "hvc #0", "add x18, x18, #1", "mov x0, #0xbad", "smc #0", "add x18, x18, #1",
            "add x18, x18, #1", "mov x0, x18", "mov x18, #0",
            "cmp x4, #4", "cinc x18, x18, eq", "cmp x5, #5", "cinc x18, x18, eq", "cmp x6, #6", "cinc x18, x18, eq",
            "cmp x7, #7", "cinc x18, x18, eq", "cmp x8, #8", "cinc x18, x18, eq", "cmp x9, #9", "cinc x18, x18, eq",
            "cmp x10, #10", "cinc x18, x18, eq", "cmp x11, #11", "cinc x18, x18, eq", "cmp x12, #12", "cinc x18, x18, eq",
            "cmp x13, #13", "cinc x18, x18, eq", "cmp x14, #14", "cinc x18, x18, eq", "cmp x15, #15", "cinc x18, x18, eq",
            "cmp x16, #16", "cinc x18, x18, eq", "cmp x17, #17", "cinc x18, x18, eq",
            "mov x1, x18",
            out("x0") count, out("x1") kept, out("x2") _, out("x3") _, out("x4") _, out("x5") _, out("x6") _, out("x7") _,
            out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _,
            out("x16") _, out("x17") _, out("x18") _,
            options(nostack)
        )
    };
    (count, kept)
}
