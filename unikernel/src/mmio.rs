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
        unsafe { access::load32(self.at(offset)) }
    }

    /// Writes 32 bits at byte `offset`.
    pub fn write(self, offset: usize, value: u32) {
        // SAFETY: inside a device's registers, which hold no Rust objects.
        unsafe { access::store32(self.at(offset), value) }
    }

    /// Reads 64 bits at byte `offset`.
    pub fn read64(self, offset: usize) -> u64 {
        // SAFETY: as `read`.
        unsafe { access::load64(self.at(offset)) }
    }

    /// Writes 64 bits at byte `offset`.
    pub fn write64(self, offset: usize, value: u64) {
        // SAFETY: as `write`.
        unsafe { access::store64(self.at(offset), value) }
    }

    /// Writes one byte at byte `offset`.
    pub fn write8(self, offset: usize, value: u8) {
        // SAFETY: as `write`.
        unsafe { access::store8(self.at(offset), value) }
    }
}

/// One load or store without writeback: what a compiler may make of a volatile access in a loop (`str w0, [x1], #4`) a
/// hypervisor that emulates the device is told nothing about (DDI 0487, D24.2.40, ISV).
mod access {
    macro_rules! access {
        ($($load:ident, $store:ident, $type:ty, $ldr:literal, $str:literal;)*) => {$(
            /// # Safety
            /// `at` is a device register of this size.
            #[inline(always)]
            #[allow(dead_code)]
            pub(super) unsafe fn $load(at: *mut $type) -> $type {
                #[cfg(target_arch = "aarch64")]
                {
                    let value: u64;
                    // SAFETY: the caller's.
                    unsafe { core::arch::asm!($ldr, out(reg) value, in(reg) at, options(nostack, preserves_flags)) };
                    value as $type
                }
                #[cfg(not(target_arch = "aarch64"))]
                // SAFETY: the caller's.
                unsafe { at.read_volatile() }
            }

            /// # Safety
            /// `at` is a device register of this size.
            #[inline(always)]
            pub(super) unsafe fn $store(at: *mut $type, value: $type) {
                #[cfg(target_arch = "aarch64")]
                // SAFETY: the caller's.
                unsafe {
                    core::arch::asm!($str, in(reg) u64::from(value), in(reg) at, options(nostack, preserves_flags));
                }
                #[cfg(not(target_arch = "aarch64"))]
                // SAFETY: the caller's.
                unsafe { at.write_volatile(value) }
            }
        )*};
    }

    access! {
        load8, store8, u8, "ldrb {0:w}, [{1}]", "strb {0:w}, [{1}]";
        load32, store32, u32, "ldr {0:w}, [{1}]", "str {0:w}, [{1}]";
        load64, store64, u64, "ldr {0}, [{1}]", "str {0}, [{1}]";
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
