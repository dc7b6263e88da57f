//! Accesses to emulated and absent registers in every shape an instruction set has (I06 to I08, I20).
#![allow(unsafe_code)] // instructions under guard

use crate::instruction;
use crate::probe::{self, alias_as_normal, fetch, load8, load16, load32, load64, set_level1, store8, store16, store64};
use crate::report::Report;

const GICD: u64 = 0x0800_0000;
const TYPER: u64 = GICD + 4;
const PRIORITY: u64 = 0x080B_0400; // own SGIs
const HOLE: u64 = 0x0700_0000;

instruction! {
    /// Store of the zero register.
    fn store_zero = "str wzr, [x9]";
    /// Load into the zero register; gives 7 if the ones around it are whole.
    fn load_zero = "mov x11, sp\n ldr wzr, [x9]\n mov x12, sp\n cmp x11, x12\n mov x10, #7";
    /// Load to a 64-bit zero register.
    fn load_zero64 = "ldr xzr, [x9]\n mov x10, #7";
    /// Sign-extending byte load, 32 bits.
    fn load_s8 = "ldrsb w10, [x9]";
    /// The same to 64 bits.
    fn load_s8x = "ldrsb x10, [x9]";
    /// Sign-extending word load.
    fn load_s32x = "ldrsw x10, [x9]";
    /// Load pair.
    fn load_pair = "ldp x10, x11, [x9]";
    /// Load pair of words.
    fn load_pair32 = "ldp w10, w11, [x9]";
    /// Store pair.
    fn store_pair = "stp x10, x10, [x9]";
    /// Post-indexed load; the base must stay.
    fn load_post = "ldr x10, [x9], #8";
    /// Pre-indexed store.
    fn store_pre = "str w10, [x9, #0]!";
    /// Load exclusive.
    fn load_exclusive = "ldxr w10, [x9]";
    /// Load acquire.
    fn load_acquire = "ldar w10, [x9]";
    /// SIMD load.
    fn load_simd = "ldr q0, [x9]";
    /// SIMD store.
    fn store_simd = "str q0, [x9]";
    /// SIMD load of four registers.
    fn load_simd4 = "ld1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [x9]";
    /// Zeroes a cache block.
    fn zero_block = "dc zva, x9";
    /// Cleans a line.
    fn clean = "dc cvac, x9";
    /// Cleans and invalidates a line.
    fn clean_invalidate = "dc civac, x9";
    /// Prefetch: never faults.
    fn prefetch = "prfm pldl1keep, [x9]";
}

/// Loads into and stores from the zero register.
pub(super) fn zero_register(report: &mut Report) {
    let want = load32(TYPER, 0).unwrap_or(0);
    report.value("load to wzr", load_zero(TYPER, 0), 7);
    report.check("store of wzr", store_zero(GICD + 0x180, 0).is_ok(), "a fault");
    report.value("the same register again", load32(TYPER, 0), want);
    report.external("load from a hole to xzr", load_zero64(HOLE, 0), HOLE);
    report.external("store of wzr to a hole", store_zero(HOLE, 0), HOLE);
}

/// Instructions whose syndrome says nothing (ISV = 0): refused, never guessed.
pub(super) fn no_syndrome(report: &mut Report) {
    probe::enable_simd();
    // Through Normal memory at stage 1, so that stage 1 refuses nothing.
    let alias = alias_as_normal();
    for (name, at) in [("GICD", alias + TYPER - 4), ("hole", alias + HOLE)] {
        unikernel::println!("# {name}");
        report.external("ldp", load_pair(at, 0), at);
        report.external("ldp of words", load_pair32(at, 0), at);
        report.external("stp", store_pair(at, 0), at);
        report.external("post-indexed load", load_post(at, 0), at);
        report.external("pre-indexed store", store_pre(at, 0), at);
        report.external("ldxr", load_exclusive(at, 0), at);
        report.external("SIMD load", load_simd(at, 0), at);
        report.external("SIMD store", store_simd(at, 0), at);
        report.external("SIMD load of 64 bytes", load_simd4(at, 0), at);
        report.fault("dc zva", zero_block(at, 0), |f| f.class() == 0x25 && f.status() == 0x10);
        let cleaned = clean(at, 0);
        report.check(
            "dc cvac is harmless",
            cleaned.is_ok() || cleaned.is_err_and(|f| f.is_external(at)),
            "another fault",
        );
        let cleaned = clean_invalidate(at, 0);
        report.check(
            "dc civac is harmless",
            cleaned.is_ok() || cleaned.is_err_and(|f| f.is_external(at)),
            "another fault",
        );
        report.check("prfm is harmless", prefetch(at, 0).is_ok(), "a fault");
    }
    report.value("the register is as it was", load32(GICD + 0x80, 0), 0);
}

/// Sizes and alignments registers have not got, signs and widths they have.
pub(super) fn sizes(report: &mut Report) {
    let typer = load32(TYPER, 0).unwrap_or(0);
    report.external("8-bit load of TYPER", load8(TYPER, 0), TYPER);
    report.external("16-bit load of TYPER", load16(TYPER, 0), TYPER);
    report.external("64-bit load of CTLR", load64(GICD, 0), GICD);
    report.external("8-bit store to CTLR", store8(GICD, 0), GICD);
    report.external("16-bit store to CTLR", store16(GICD, 0), GICD);
    report.external("64-bit store to CTLR", store64(GICD, 0), GICD);
    let alias = alias_as_normal();
    for shift in [1, 2, 3] {
        let at = alias + TYPER + shift;
        report.external("32-bit load off its alignment", load32(at, 0), at);
    }
    // Alignment (DFSC 0x21) comes first on hardware; not every QEMU checks it.
    report.fault("unaligned load of Device memory", load32(TYPER + 2, 0), |f| {
        f.class() == 0x25 && (f.status() == 0x21 || f.status() == 0x10) && f.far == TYPER + 2
    });
    report.value("TYPER is whole", load32(TYPER, 0), typer);
    let _ = store8(PRIORITY + 1, 0xA0);
    report.value("byte", load8(PRIORITY + 1, u64::MAX), 0xA0);
    report.value("signed byte to w", load_s8(PRIORITY + 1, 0), 0xFFFF_FFA0);
    report.value("signed byte to x", load_s8x(PRIORITY + 1, 0), 0xFFFF_FFFF_FFFF_FFA0);
    for at in 0..4 {
        let _ = store8(PRIORITY + at, 0xC0);
    }
    report.value("word clears the upper half", load32(PRIORITY, u64::MAX), 0xC0C0_C0C0);
    report.value("signed word to x", load_s32x(PRIORITY, 0), 0xFFFF_FFFF_C0C0_C0C0);
    report.value("load acquire", load_acquire(TYPER, 0), typer);
}

/// Executes emulated, granted and absent device registers, past this guest's own XN.
pub(super) fn fetch_from_device(report: &mut Report) {
    let alias = alias_as_normal();
    for (what, ipa) in
        [("distributor", GICD), ("redistributor", 0x080A_0000), ("granted GPIO", 0x0903_0000), ("hole", HOLE)]
    {
        let at = alias + ipa;
        report.fault(what, fetch(at, 0), |f| f.is_external_fetch(at));
    }
    report.check("the GPIO itself is mine", load32(0x0903_0400, 0).is_ok(), "a fault");
}

/// Points a table of its own stage 1 at device registers and at nothing (S1PTW).
pub(super) fn walk_in_device(report: &mut Report) {
    for (what, ipa) in [("distributor", GICD), ("hole", HOLE), ("behind all RAM", 0x1_0000_0000)] {
        set_level1(probe::ALIAS_WALK >> 30, ipa | 3);
        let at = probe::ALIAS_WALK + 0x1000;
        // An external abort, or one on the walk itself (DFSC 0x14 to 0x17): never a translation of what lies there.
        report.fault(what, load32(at, 0), |f| {
            f.class() == 0x25 && f.far == at && (f.status() == 0x10 || f.status() & 0x3C == 0x14)
        });
        report.fault(what, fetch(at, 0), |f| {
            f.class() == 0x21 && f.far == at && (f.status() == 0x10 || f.status() & 0x3C == 0x14)
        });
    }
    set_level1(probe::ALIAS_WALK >> 30, 0);
}
