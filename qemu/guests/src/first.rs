//! What a guest finds at its very first instruction: every register is kept before anything else runs, and checked later.
//!
//! A program that uses it starts at `first_start` (build.rs); it goes on to the runtime.
#![allow(unsafe_code)] // registers before the runtime touches them

use crate::report::Report;
use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};
use unikernel::clock;

// In order: general registers but x0, all or-ed; the system registers of NAMES; FP and SIMD registers, or-ed. x0 is kept for
// the runtime in x29.
global_asm!(
    ".section .text.first, \"ax\"",
    ".arch_extension fp",
    ".arch_extension simd",
    ".global first_start",
    "first_start:",
    ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29",
    "orr x30, x30, x\\n",
    ".endr",
    "mov x29, x0",
    "mov x1, sp",
    "orr x30, x30, x1",
    "mrs x1, cntvct_el0",
    "mrs x3, cntpct_el0",
    "adrp x2, FIRST_STARTED",
    "add x2, x2, :lo12:FIRST_STARTED",
    "stp x1, x3, [x2]",
    "adrp x2, FIRST_KEPT",
    "add x2, x2, :lo12:FIRST_KEPT",
    "str x30, [x2], #8",
    ".irp r, sp_el0, sctlr_el1, cpacr_el1, ttbr0_el1, ttbr1_el1, tcr_el1, mair_el1, vbar_el1, esr_el1, far_el1, elr_el1, spsr_el1, tpidr_el0, tpidrro_el0, tpidr_el1, contextidr_el1, cntkctl_el1, cntv_ctl_el0, cntp_ctl_el0",
    "mrs x1, \\r",
    "str x1, [x2], #8",
    ".endr",
    // With a GICv2 there are none of these: ID_AA64PFR0_EL1.GIC.
    "mov x1, #0",
    "mov x3, #0",
    "mrs x4, id_aa64pfr0_el1",
    "ubfx x4, x4, #24, #4",
    "cbz x4, 1f",
    "mrs x1, icc_igrpen1_el1",
    "mrs x3, icc_ap1r0_el1",
    "1: stp x1, x3, [x2], #16",
    ".irp r, daif, mpidr_el1",
    "mrs x1, \\r",
    "str x1, [x2], #8",
    ".endr",
    "mov x1, #3 << 20",
    "msr cpacr_el1, x1",
    "isb",
    ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "orr v0.16b, v0.16b, v\\n\\().16b",
    ".endr",
    "mov x1, v0.d[0]",
    "mov x3, v0.d[1]",
    "orr x1, x1, x3",
    "mrs x3, fpcr",
    "orr x1, x1, x3",
    "mrs x3, fpsr",
    "orr x1, x1, x3",
    "str x1, [x2]",
    "msr cpacr_el1, xzr",
    "isb",
    "mov x0, x29",
    "b _start",
);

/// What the first instructions keep, and what it must be.
const KEPT: [(&str, u64); 25] = [
    ("x1 to x30, SP", 0),
    ("SP_EL0", 0),
    ("SCTLR_EL1", 0x30D0_0800),
    ("CPACR_EL1", 0),
    ("TTBR0_EL1", 0),
    ("TTBR1_EL1", 0),
    ("TCR_EL1", 0),
    ("MAIR_EL1", 0),
    ("VBAR_EL1", 0),
    ("ESR_EL1", 0),
    ("FAR_EL1", 0),
    ("ELR_EL1", 0),
    ("SPSR_EL1", 0),
    ("TPIDR_EL0", 0),
    ("TPIDRRO_EL0", 0),
    ("TPIDR_EL1", 0),
    ("CONTEXTIDR_EL1", 0),
    ("CNTKCTL_EL1", 0),
    ("CNTV_CTL_EL0", 0),
    ("CNTP_CTL_EL0", 0),
    ("ICC_IGRPEN1_EL1", 0),
    ("ICC_AP1R0_EL1", 0),
    ("DAIF", 0x3C0),
    ("MPIDR_EL1", 0x8000_0000),
    ("FP and SIMD registers", 0),
];

/// Initialised data, so that clearing .bss leaves it alone.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.first_kept")]
static FIRST_KEPT: [AtomicU64; KEPT.len()] = [const { AtomicU64::new(u64::MAX) }; KEPT.len()];

/// CNTVCT_EL0 and CNTPCT_EL0 near the first instruction.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.first_kept")]
static FIRST_STARTED: [AtomicU64; 2] = [const { AtomicU64::new(u64::MAX) }; 2];

/// Holds what was kept against what a first start gives.
pub fn check(report: &mut Report) {
    for ((name, want), got) in KEPT.iter().zip(&FIRST_KEPT) {
        report.equal(name, got.load(Ordering::Relaxed), *want);
    }
    let [virtual_time, physical_time] = FIRST_STARTED.each_ref().map(|time| time.load(Ordering::Relaxed));
    // A machine that was busy between the entry and here is not the hypervisor's doing; 100 runs are longer than that.
    let soon = virtual_time < physical_time / 2 || virtual_time < clock::frequency() / 20;
    report.check("virtual time starts at 0", soon && virtual_time < physical_time, virtual_time);
}
