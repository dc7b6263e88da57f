//! The physical PL011 (DDI 0183): bytes out and in, one receive interrupt. Never waits.

use super::mmio::Mmio;

const DR: u32 = 0x00;
const FR: u32 = 0x18;
const LCR_H: u32 = 0x2C;
const CR: u32 = 0x30;
const IMSC: u32 = 0x38;
const ICR: u32 = 0x44;

const FR_BUSY: u32 = 1 << 3;
const FR_RXFE: u32 = 1 << 4;
const FR_TXFF: u32 = 1 << 5;
/// UARTEN, TXE, RXE.
const CR_ON: u32 = 1 | 1 << 8 | 1 << 9;
/// Eight bits.
const LCR_8: u32 = 3 << 5;
/// FIFOs on.
const LCR_FIFO: u32 = 1 << 4;
/// Looks at a UART after which nobody is typing: more than the 87 us of a byte at 115,200 baud.
const SILENCE: u32 = 2000;
/// All interrupts.
const ALL: u32 = 0x7FF;
/// Receive and receive timeout.
const RX: u32 = 1 << 4 | 1 << 6;

/// One PL011.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pl011 {
    registers: Mmio,
}

impl Pl011 {
    /// The one at EL2 virtual address `base`.
    pub(crate) const fn new(base: u64) -> Self {
        Self { registers: Mmio::new(base) }
    }

    /// Eight bits, FIFOs, on, interrupts masked. The baud rate stays the firmware's. What has been received before goes to
    /// `keep`, at most `room` bytes.
    ///
    /// Turning the FIFOs on throws away what waits, and somebody may be typing: so it is done once nothing more comes. Who
    /// sends more than `room` bytes without a pause gets a UART without FIFOs.
    pub(crate) fn set_up(&self, room: usize, mut keep: impl FnMut(u8)) {
        self.registers.store(IMSC, 0);
        self.registers.store(ICR, ALL & !RX);
        let (mut fifo, mut polls) = (LCR_FIFO, 1);
        for left in (0..room).rev() {
            let Some(byte) = (0..polls).find_map(|_| self.receive()) else { break };
            keep(byte);
            polls = SILENCE;
            if left == 0 {
                fifo &= self.registers.load(LCR_H);
            }
        }
        self.registers.store(LCR_H, LCR_8 | fifo);
        self.registers.store(CR, CR_ON);
    }

    /// Sends `byte` if there is room.
    pub(crate) fn send(&self, byte: u8) -> bool {
        if self.registers.load(FR) & FR_TXFF != 0 {
            return false;
        }
        self.registers.store(DR, u32::from(byte));
        true
    }

    /// Whether bytes are still on their way out.
    pub(crate) fn is_busy(&self) -> bool {
        self.registers.load(FR) & FR_BUSY != 0
    }

    /// The next received byte, errors dropped.
    pub(crate) fn receive(&self) -> Option<u8> {
        if self.registers.load(FR) & FR_RXFE != 0 {
            return None;
        }
        Some(self.registers.load(DR) as u8)
    }

    /// Lets receive interrupts through, or stops them.
    pub(crate) fn listen(&self, on: bool) {
        self.registers.store(IMSC, if on { RX } else { 0 });
    }
}
