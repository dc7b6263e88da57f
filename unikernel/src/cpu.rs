//! This vCPU: its number, its interrupt mask, its hints.
#![allow(unsafe_code)] // single instructions

use crate::{read_sysreg, write_sysreg};
use core::arch::asm;

/// Number of this vCPU: 0 is the one that ran first.
pub fn index() -> usize {
    read_sysreg!("tpidr_el1") as usize
}

/// Affinity fields of this vCPU's MPIDR_EL1.
pub fn mpidr() -> u64 {
    read_sysreg!("mpidr_el1") & 0xFF_00FF_FFFF
}

/// Sleeps until an interrupt is pending, masked or not.
pub fn wfi() {
    // SAFETY: waits; the barrier makes writes visible to whoever is to wake us.
    unsafe { asm!("dsb sy", "wfi", options(nostack)) }
}

/// One turn of a loop that waits for another vCPU or a device.
pub fn relax() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nomem, nostack)) }
}

/// Makes system register writes take effect before the next instruction.
pub fn isb() {
    // SAFETY: a barrier.
    unsafe { asm!("isb", options(nostack)) }
}

/// Masks interrupts of this vCPU; returns the mask as it was, for [`restore`].
pub fn mask() -> u64 {
    let before = read_sysreg!("daif");
    // SAFETY: masking interrupts is always sound.
    unsafe { asm!("msr daifset, #2", options(nostack)) };
    before
}

/// Takes interrupts again.
pub fn unmask() {
    // SAFETY: handlers run on this stack below the current frame.
    unsafe { asm!("msr daifclr, #2", "isb", options(nostack)) }
}

/// Puts back what [`mask`] returned.
pub fn restore(mask: u64) {
    write_sysreg!("daif", mask);
    isb();
}

/// Makes this vCPU's writes visible to all others before what follows.
pub fn publish() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb ishst", options(nostack)) }
}
