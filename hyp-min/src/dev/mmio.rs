//! A window of device registers in EL2's address space. Loads and stores of the exact size, nothing else.
#![allow(unsafe_code)] // volatile access

use hyp_min::vdev::Frame;

/// The window, by its address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mmio {
    /// vectors.S knows the distributor's.
    pub(crate) base: usize,
}

impl Mmio {
    /// The window at EL2 virtual address `base`, from the plan: mapped as device memory for all its users' offsets.
    pub(crate) const fn new(base: u64) -> Self {
        Self { base: base as usize }
    }

    /// Loads a word.
    #[inline(always)]
    pub(crate) fn load(&self, offset: u32) -> u32 {
        let place = (self.base + offset as usize) as *const u32;
        // SAFETY: the window of the plan (device memory, EL2's own); offsets are the driver's constants or checked by vdev
        // to lie inside the frame and to be aligned.
        unsafe { place.read_volatile() }
    }

    /// Stores a word.
    #[inline(always)]
    pub(crate) fn store(&self, offset: u32, value: u32) {
        let place = (self.base + offset as usize) as *mut u32;
        // SAFETY: as in `load`.
        unsafe { place.write_volatile(value) };
    }

    /// Loads a word where it is not known whether a device is there; `None` where the load aborts.
    pub(crate) fn probe(&self, offset: u32) -> Option<u32> {
        let address = (self.base + offset as usize) as u64;
        // SAFETY: as in `load`; the vectors turn an abort of exactly this load into all ones.
        let value = unsafe { crate::arch::aarch64::probe_word(address) };
        u32::try_from(value).ok()
    }

    /// Loads a doubleword.
    #[inline(always)]
    pub(crate) fn load64(&self, offset: u32) -> u64 {
        let place = (self.base + offset as usize) as *const u64;
        // SAFETY: as in `load`.
        unsafe { place.read_volatile() }
    }

    /// Stores a doubleword.
    #[inline(always)]
    pub(crate) fn store64(&self, offset: u32, value: u64) {
        let place = (self.base + offset as usize) as *mut u64;
        // SAFETY: as in `load`.
        unsafe { place.write_volatile(value) };
    }

    /// Loads a byte.
    #[inline(always)]
    pub(crate) fn load8(&self, offset: u32) -> u8 {
        let place = (self.base + offset as usize) as *const u8;
        // SAFETY: as in `load`.
        unsafe { place.read_volatile() }
    }

    /// Stores a byte.
    #[inline(always)]
    pub(crate) fn store8(&self, offset: u32, value: u8) {
        let place = (self.base + offset as usize) as *mut u8;
        // SAFETY: as in `load`.
        unsafe { place.write_volatile(value) };
    }
}

impl Frame for Mmio {
    #[inline(always)]
    fn read(&self, offset: u32, size: u8) -> u64 {
        match size {
            1 => u64::from(self.load8(offset)),
            8 => self.load64(offset),
            _ => u64::from(self.load(offset)),
        }
    }

    #[inline(always)]
    fn write(&self, offset: u32, size: u8, value: u64) {
        match size {
            1 => self.store8(offset, value as u8),
            8 => self.store64(offset, value),
            _ => self.store(offset, value as u32),
        }
    }
}
