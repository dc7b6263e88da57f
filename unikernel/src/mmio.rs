//! Device registers and system registers: the two ways to the hardware, each in one place.
#![allow(unsafe_code)] // volatile access to registers

use crate::fdt::Region;

/// Registers of one device. Offsets are checked against its size.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    base: usize,
    size: usize,
}

impl Registers {
    /// The registers at `region`, which the device tree names as a device's. A device too small to hold its registers is
    /// noticed at the first access beyond its end.
    pub fn new(region: Region) -> Self {
        Self { base: region.base as usize, size: region.size as usize }
    }

    fn at<T>(self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= self.size, "offset {offset:#x} is outside the device");
        (self.base + offset) as *mut T
    }

    /// Reads 32 bits at byte `offset`.
    pub fn read(self, offset: usize) -> u32 {
        // SAFETY: inside a device's registers, mapped as Device memory; reading them has no effect on Rust objects.
        unsafe { self.at::<u32>(offset).read_volatile() }
    }

    /// Writes 32 bits at byte `offset`.
    pub fn write(self, offset: usize, value: u32) {
        // SAFETY: inside a device's registers, which hold no Rust objects.
        unsafe { self.at::<u32>(offset).write_volatile(value) }
    }

    /// Reads 64 bits at byte `offset`.
    pub fn read64(self, offset: usize) -> u64 {
        // SAFETY: as `read`.
        unsafe { self.at::<u64>(offset).read_volatile() }
    }

    /// Writes 64 bits at byte `offset`.
    pub fn write64(self, offset: usize, value: u64) {
        // SAFETY: as `write`.
        unsafe { self.at::<u64>(offset).write_volatile(value) }
    }

    /// Writes one byte at byte `offset`.
    pub fn write8(self, offset: usize, value: u8) {
        // SAFETY: as `write`.
        unsafe { self.at::<u8>(offset).write_volatile(value) }
    }
}

/// Reads a system register by its assembler name.
#[macro_export]
macro_rules! read_sysreg {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading a register changes no memory; one that does not exist traps, and the trap is reported.
        unsafe { core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack)) };
        value
    }};
}

/// Writes a system register by its assembler name. The caller follows with `isb` where the effect must be seen.
#[macro_export]
macro_rules! write_sysreg {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the registers written here steer interrupts, timers and traps of this vCPU, not Rust memory.
        unsafe { core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack)) };
    }};
}
