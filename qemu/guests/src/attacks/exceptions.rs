//! Exceptions that are the guest's own, and instructions of newer CPUs (I03, I06, I13): what EL2 must not take, and what it
//! must refuse.
#![allow(unsafe_code)] // instructions under guard

use crate::instruction;
use crate::probe::{alias_as_normal, catch, fetch};
use crate::report::Report;
use core::arch::asm;

const GICD: u64 = 0x0800_0000;
const HOLE: u64 = 0x0700_0000;

macro_rules! one {
    ($($text:literal),*) => {
        // SAFETY: faults and is skipped, or does nothing.
        catch(|| unsafe {
            asm!(".arch_extension lse", ".arch_extension ras", $($text,)* out("x9") _, out("x10") _, options(nostack));
            0
        })
    };
}

instruction! {
    /// Compare and swap.
    fn cas = ".arch_extension lse\n cas w11, w10, [x9]";
    /// Swap.
    fn swp = ".arch_extension lse\n swp w11, w10, [x9]";
    /// Atomic add.
    fn ldadd = ".arch_extension lse\n ldadd w11, w10, [x9]";
    /// Atomic add without result.
    fn stadd = ".arch_extension lse\n stadd w10, [x9]";
    /// Compare and swap of a pair.
    fn casp = ".arch_extension lse\n casp x10, x11, x10, x11, [x9]";
    /// Load of 64 bytes (LD64B x10, [x9]): registers x10 to x17.
    fn ld64b = ".inst 0xf83fd12a";
}

/// What an ordinary kernel handles itself comes to its own vector, with the syndrome the architecture says.
pub(super) fn own(report: &mut Report) {
    let svc = one!("svc #7", "nop");
    // An SVC returns behind itself, so the instruction skipped is the NOP.
    report.fault("SVC", svc, |f| f.esr == 0x15 << 26 | 1 << 25 | 7);
    report.fault("UDF", one!("udf #0"), |f| f.class() == 0);
    report.fault("BRK", one!("brk #1"), |f| f.esr == 0x3C << 26 | 1 << 25 | 1);
    report.fault("unaligned program counter", fetch(0x4010_0002, 0), |f| f.class() == 0x22 && f.far == 0x4010_0002);
    report.fault("unmapped at stage 1", crate::probe::load32(1 << 40, 0), |f| {
        f.class() == 0x25 && f.status() & 0x3C == 4
    });
    report.undefined("SIMD before it is enabled is mine", simd_off());
    let eret = one!("mrs x9, sctlr_el1", "hvc #0xffff", "mov x10, x9");
    report.check("HVC #0xffff returns", eret.is_ok(), "a fault");
}

/// SIMD with CPACR_EL1.FPEN = 0: EC 7 to EL1. Told as undefined or as a SIMD trap, it is the guest's.
fn simd_off() -> crate::probe::Outcome {
    unikernel::write_sysreg!("cpacr_el1", 0);
    unikernel::cpu::isb();
    one!(".arch_extension fp", "fmov d0, xzr").map_err(|mut fault| {
        if fault.class() == 7 {
            fault.esr = 0;
        }
        fault
    })
}

/// Atomics on MMIO, error records, 64-byte loads, statistics and trace of a newer CPU (`-cpu max`).
pub(super) fn newer(report: &mut Report) {
    let alias = alias_as_normal();
    for (name, at) in [("GICD", alias + GICD), ("hole", alias + HOLE)] {
        unikernel::println!("# {name}");
        report.external("cas", cas(at, 0), at);
        report.external("casp", casp(at, 0), at);
        report.external("swp", swp(at, 0), at);
        report.external("ldadd", ldadd(at, 0), at);
        report.external("stadd", stadd(at, 0), at);
        report.fault("ld64b", ld64b(at, 0), |f| f.is_undefined() || f.class() == 0x25 || f.class() == 0x0A);
    }
    report.undefined("ERRSELR_EL1", one!("msr S3_0_C5_C3_1, xzr"));
    report.undefined("ERXFR_EL1", one!("mrs x9, S3_0_C5_C4_0"));
    report.undefined("ERXPFGCTL_EL1", one!("msr S3_0_C5_C4_5, xzr"));
    report.undefined("PMSCR_EL1", one!("msr S3_0_C9_C9_0, xzr"));
    report.undefined("TRFCR_EL1", one!("msr S3_0_C1_C2_1, xzr"));
    report.undefined("TRBLIMITR_EL1", one!("msr S3_0_C9_C11_0, xzr"));
    report.undefined("AMCNTENSET0_EL0", one!("mrs x9, S3_3_C13_C2_5"));
    report.undefined("MPAM1_EL1", one!("mrs x9, S3_0_C10_C5_0"));
    report.undefined("GCR_EL1 (MTE)", one!("msr S3_0_C1_C0_6, xzr"));
    // Everything EL1 can allow itself is allowed.
    unikernel::write_sysreg!("cpacr_el1", 3 << 16 | 3 << 20 | 3 << 24);
    unikernel::cpu::isb();
    report.undefined("SMCR_EL1 (SME)", one!("msr S3_0_C1_C2_6, xzr"));
    report.undefined("ZCR_EL1 (SVE)", one!("msr S3_0_C1_C2_0, xzr"));
}
