//! PCI functions of a generic host bridge: what is there, its configuration space, its interrupt.
//!
//! A hypervisor has placed the base address registers and says so (`linux,pci-probe-only`); on a bare machine without firmware nobody has,
//! and [`Host::enable`] does. It must not know what the functions are.

use crate::fdt::Region;
use crate::mmio::Registers;
use crate::platform::platform;
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes of one function's configuration space (PCI Express Base 5.0, 7.2.2).
const CONFIG_SIZE: usize = 0x1000;
/// Device and function numbers on one bus.
const FUNCTIONS: usize = 256;

// Registers of the header (7.5.1).
const COMMAND: u16 = 0x04;
const HEADER_TYPE: u16 = 0x0C;
const BAR0: u16 = 0x10;
const PIN: u16 = 0x3C;
/// Memory space, bus master.
const MEMORY_AND_MASTER: u32 = 1 << 1 | 1 << 2;

/// The first bus of a host bridge (`pci-host-ecam-generic`).
#[derive(Clone, Copy, Debug)]
pub struct Host {
    config: Registers,
    base: u64,
    window: Region,
    placed: bool,
}

/// A function of its: device in bits 7:3, function in 2:0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function(pub u8);

/// First address of the window nobody has yet.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Host {
    /// The domain's host bridge.
    pub fn find() -> Option<Self> {
        let fdt = &platform().fdt;
        let placed = fdt.property("/chosen", "linux,pci-probe-only").is_some_and(|value| value.last() == Some(&1));
        let device = platform().device("pci-host-ecam-generic", 0)?;
        let size = device.region.size.min((FUNCTIONS * CONFIG_SIZE) as u64);
        let config = Registers::new(Region { base: device.region.base, size });
        let window = fdt.find(|node| {
            // Entries of `ranges`: three cells of bus address, two of the CPU's, two of size. Kind 2 is memory of 32 bits.
            let is_it = node.is_compatible("pci-host-ecam-generic");
            let word = |entry: usize, cell: usize| node.word("ranges", entry * 7 + cell);
            let wide = |entry, cell| Some(u64::from(word(entry, cell)?) << 32 | u64::from(word(entry, cell + 1)?));
            let entry = (0..8).find(|entry| is_it && word(*entry, 0).is_some_and(|kind| kind >> 24 & 3 == 2))?;
            Some(Region { base: wide(entry, 3)?, size: wide(entry, 5)? })
        });
        Some(Self { config, base: device.region.base, window: window.unwrap_or_default(), placed })
    }

    /// Every function of the bus, by number.
    pub fn functions(&self) -> impl Iterator<Item = Function> {
        let host = *self;
        (0..=u8::MAX).map(Function).filter(move |function| {
            // Only a device of several functions decodes their numbers.
            let first = Function(function.0 & !7);
            let several = host.read(first, HEADER_TYPE) >> 23 & 1 == 1;
            (*function == first || several) && host.id(*function) != u32::MAX
        })
    }

    /// Device ID and vendor ID; all ones where there is no such function.
    pub fn id(&self, function: Function) -> u32 {
        self.read(function, 0)
    }

    /// Address of the function's configuration space.
    pub fn address(&self, function: Function) -> u64 {
        self.base + u64::from(function.0) * CONFIG_SIZE as u64
    }

    /// Reads the dword at byte `offset` of configuration space.
    pub fn read(&self, function: Function, offset: u16) -> u32 {
        self.config.read(usize::from(function.0) * CONFIG_SIZE + usize::from(offset))
    }

    /// Writes the dword at byte `offset` of configuration space.
    pub fn write(&self, function: Function, offset: u16, value: u32) {
        self.config.write(usize::from(function.0) * CONFIG_SIZE + usize::from(offset), value);
    }

    /// INTID of the function's interrupt pin, if it has one.
    pub fn interrupt(&self, function: Function) -> Option<u32> {
        let pin = self.read(function, PIN) >> 8 & 0xFF;
        let unit = u32::from(function.0) << 8;
        platform().fdt.find(|node| {
            let is_it = pin != 0 && node.is_compatible("pci-host-ecam-generic");
            is_it.then(|| node.pin_interrupt(unit, pin)).flatten()
        })
    }

    /// Lets the function answer at its base address registers and reach memory. `false` where they have no address and none
    /// can be found.
    pub fn enable(&self, function: Function) -> bool {
        let mut offset = BAR0;
        while offset < 0x28 {
            let before = self.read(function, offset);
            let wide = before & 7 == 4;
            let is_placed = before & !0xF != 0 || (wide && self.read(function, offset + 4) != 0);
            if before & 1 == 0 && !is_placed && !self.place(function, offset) {
                return false;
            }
            offset += if wide { 8 } else { 4 };
        }
        let command = self.read(function, COMMAND) & 0xFFFF;
        self.write(function, COMMAND, command | MEMORY_AND_MASTER);
        true
    }

    /// Gives the base address register at `offset` the next address of the window, where there is such a register.
    fn place(&self, function: Function, offset: u16) -> bool {
        self.write(function, offset, u32::MAX);
        let mask = self.read(function, offset) & !0xF;
        self.write(function, offset, 0);
        if mask == 0 {
            return true;
        }
        let size = u64::from(mask.wrapping_neg());
        let end = self.window.base + self.window.size;
        let next = NEXT.load(Ordering::Relaxed).max(self.window.base).next_multiple_of(size);
        if self.placed || next + size > end {
            return false;
        }
        NEXT.store(next + size, Ordering::Relaxed);
        self.write(function, offset, next as u32);
        true
    }
}
