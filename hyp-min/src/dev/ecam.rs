//! Configuration space of one PCI function as the host bridge maps it (PCI Express Base 5.0, 7.2.2).
//!
//! Nothing may answer, and a host bridge may say so by an abort: reads give all ones then, writes are lost.
#![allow(unsafe_code)] // accesses that may abort

use crate::arch::aarch64::{probe_store, probe_word};
use hyp_min::vdev::Frame;

/// The 4 KiB at this EL2 virtual address.
pub(crate) struct Ecam(pub(crate) u64);

/// By aligned dwords; the caller keeps to the function's 4 KiB.
impl Frame for Ecam {
    fn read(&self, offset: u32, _: u8) -> u64 {
        // SAFETY: the plan's page of this function, device memory; an abort of this load is an answer.
        u64::from(unsafe { probe_word(self.0 + u64::from(offset)) } as u32)
    }

    fn write(&self, offset: u32, _: u8, value: u64) {
        // SAFETY: as above. What the dword may become, vdev has decided.
        unsafe { probe_store(self.0 + u64::from(offset), value) };
    }
}
