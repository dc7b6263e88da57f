//! QEMU's teaching device `edu` (docs/specs/edu.rst): a function that masters the bus and sends interrupts as it is told, nothing else.

use core::time::Duration;
use unikernel::clock;
use unikernel::fdt::Region;
use unikernel::mmio::Registers;
use unikernel::pci::{Function, Host};

/// Where messages go: GITS_TRANSLATER on QEMU's `virt` (IHI 0069, 12.18.10), and MSI_SETSPI_NS of the GICv2m frame a guest finds there.
pub const DOORBELL: u64 = 0x0809_0040;

/// Device ID, vendor ID.
const ID: u32 = 0x11E8_1234;
/// Bytes of its one BAR.
const SIZE: u64 = 0x10_0000;
/// Its own memory, as its DMA engine names it.
const BUFFER: u64 = 0x4_0000;
// Registers.
const STATUS: usize = 0x24;
const RAISE: usize = 0x60;
const ACKNOWLEDGE: usize = 0x64;
const SOURCE: usize = 0x80;
const DESTINATION: usize = 0x88;
const COUNT: usize = 0x90;
const COMMAND: usize = 0x98;
const START: u64 = 1 << 0;
const TO_MEMORY: u64 = 1 << 1;
// Configuration space: the command register, and its one capability, MSI with addresses of 64 bits.
const CONFIG_COMMAND: u16 = 0x04;
const BAR0: u16 = 0x10;
const MSI: u16 = 0x40;
const MSI_ENABLE: u32 = 1 << 16;

/// One of them.
#[derive(Clone, Copy)]
pub struct Edu {
    /// The host bridge.
    pub host: Host,
    /// Its number there.
    pub function: Function,
    registers: Registers,
}

impl Edu {
    /// The domain's `index`-th, ready to be told.
    pub fn find(index: usize) -> Option<Self> {
        let host = Host::find()?;
        let function = host.functions().filter(|function| host.id(*function) == ID).nth(index)?;
        let base = u64::from(host.read(function, BAR0) & !0xF);
        host.enable(function).then(|| Self { host, function, registers: Registers::new(Region { base, size: SIZE }) })
    }

    /// Has it write `count` bytes of its memory to bus address `to`, in a tenth of a second.
    pub fn write(&self, to: u64, count: u64) {
        self.registers.write64(SOURCE, BUFFER);
        self.registers.write64(DESTINATION, to);
        self.registers.write64(COUNT, count);
        self.registers.write64(COMMAND, START | TO_MEMORY);
    }

    /// Has it read `count` bytes from bus address `from` to its memory, in a tenth of a second.
    pub fn read(&self, from: u64, count: u64) {
        self.registers.write64(SOURCE, from);
        self.registers.write64(DESTINATION, BUFFER);
        self.registers.write64(COUNT, count);
        self.registers.write64(COMMAND, START);
    }

    /// Whether that is still under way.
    pub fn is_busy(&self) -> bool {
        self.registers.read64(COMMAND) & START != 0
    }

    /// Waits until it has done so. False where it does not within a second.
    pub fn wait(&self) -> bool {
        let end = clock::ticks() + clock::to_ticks(Duration::from_secs(1));
        while self.is_busy() {
            if clock::ticks() > end {
                return false;
            }
            clock::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Lets it master the bus, or not.
    pub fn master(&self, on: bool) {
        let command = self.host.read(self.function, CONFIG_COMMAND) & 0xFFFF & !4;
        self.host.write(self.function, CONFIG_COMMAND, command | u32::from(on) << 2);
    }

    /// Has it send `data` to `address` when it has an interrupt.
    pub fn message(&self, address: u64, data: u32) {
        let control = self.host.read(self.function, MSI);
        self.host.write(self.function, MSI, control & !MSI_ENABLE);
        self.host.write(self.function, MSI + 4, address as u32);
        self.host.write(self.function, MSI + 8, (address >> 32) as u32);
        self.host.write(self.function, MSI + 12, data);
        self.host.write(self.function, MSI, control | MSI_ENABLE);
    }

    /// Has it have an interrupt: it sends the message at once.
    #[inline(always)]
    pub fn raise(&self) {
        self.registers.write(RAISE, 1);
    }

    /// Has it have none, so that [`Edu::raise`] sends again.
    pub fn acknowledge(&self) {
        let status = self.registers.read(STATUS);
        self.registers.write(ACKNOWLEDGE, status);
    }
}
