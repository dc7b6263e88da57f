//! Interrupts taken by hand, from either version of the interrupt controller: what a CPU interface has, by name.
//!
//! Of a GICv2 an SGI comes with its sender in bits 12:10, as a vCPU's number.

use crate::deaf::interface;
use crate::probe::{load32, store32};
use unikernel::{cpu, read_sysreg, write_sysreg};

const GICD_SGIR: u64 = 0x0800_0F00;
/// Nothing is pending.
pub const SPURIOUS: u64 = 1023;

/// Long enough for what has been asked for to happen.
pub fn settle() {
    for _ in 0..100 {
        cpu::isb();
    }
}

/// Acknowledges once.
pub fn acknowledge() -> u64 {
    interface().map_or_else(|| read_sysreg!("icc_iar1_el1"), |gicc| load32(gicc + 0x0C, 0).unwrap_or(SPURIOUS))
}

/// Takes what is pending; waits a moment for it.
pub fn take() -> u64 {
    for _ in 0..200 {
        let taken = acknowledge();
        if taken != SPURIOUS {
            return taken;
        }
        settle();
    }
    SPURIOUS
}

/// Ends what has been taken.
pub fn end(taken: u64) {
    match interface() {
        None => write_sysreg!("icc_eoir1_el1", taken),
        Some(gicc) => _ = store32(gicc + 0x10, taken),
    }
    settle();
}

/// Sends an SGI to the vCPUs of `list`, without waiting.
pub fn post(intid: u64, list: u64) {
    match interface() {
        None => write_sysreg!("icc_sgi1r_el1", intid << 24 | list),
        Some(_) => _ = store32(GICD_SGIR, list << 16 | intid),
    }
}

/// Sends an SGI to all other vCPUs, without waiting.
pub fn post_others(intid: u64) {
    match interface() {
        None => write_sysreg!("icc_sgi1r_el1", intid << 24 | 1 << 40),
        Some(_) => _ = store32(GICD_SGIR, 1 << 24 | intid),
    }
}

/// Sends an SGI to vCPU 0.
pub fn send(intid: u64) {
    post(intid, 1);
    settle();
}

/// The running priority.
pub fn running() -> u64 {
    interface().map_or_else(|| read_sysreg!("icc_rpr_el1"), |gicc| load32(gicc + 0x14, 0).unwrap_or(0))
}

/// Sets the priority mask.
pub fn mask(priority: u64) {
    match interface() {
        None => write_sysreg!("icc_pmr_el1", priority),
        Some(gicc) => _ = store32(gicc + 0x04, priority),
    }
    cpu::isb();
}
