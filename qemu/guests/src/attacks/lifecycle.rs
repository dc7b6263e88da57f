//! Attacks on what a restart relies on: the copy of the images that nobody may reach (I80).
#![allow(unsafe_code)] // memory of this domain's own

use super::address;
use crate::probe::store64;
use crate::report::Report;

/// RAM of QEMU's `virt` with 2 GiB, in steps of a page that no copy of an image is smaller than.
const RAM: (u64, u64) = (0x4000_0000, 0xC000_0000);
const STEP: u64 = 0x8_0000;
/// This domain's own, as the scenario's layout gives it.
const OWN: (u64, u64) = (0x4000_0000, 0x4080_0000);
/// Initialised data, in the middle of the image.
static DATA: [u64; 512] = [0x5EED_5EED_5EED_5EED; 512];

/// Stores everywhere outside its own RAM, then over its own initialised data, then faults for good. If it starts again as it
/// was, it says the same again.
pub(super) fn pristine(report: &mut Report) {
    let changed = DATA.iter().filter(|word| {
        // SAFETY: a static; volatile, because it is changed below through its address.
        let value = unsafe { core::ptr::from_ref(*word).read_volatile() };
        value != 0x5EED_5EED_5EED_5EED
    });
    report.equal("changed words of initialised data", changed.count() as u64, 0);
    let outside = (RAM.0..RAM.1).step_by(STEP as usize).filter(|at| *at < OWN.0 || *at >= OWN.1);
    let (mut tried, mut refused) = (0u64, 0u64);
    for at in outside {
        tried += 1;
        refused += u64::from(store64(at, u64::MAX).is_err_and(|fault| fault.is_external(at)));
    }
    report.equal("stores outside its RAM that were not refused", tried - refused, 0);
    for word in &DATA {
        let _ = store64(core::ptr::from_ref(word) as u64, 0);
    }
    super::storms::lose_vectors(address("ram"));
}
