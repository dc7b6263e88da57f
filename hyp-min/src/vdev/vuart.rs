//! The virtual PL011 (DDI 0183, r1p5): what Linux' `amba-pl011`, U-Boot and small kernels expect of one.
//!
//! A line without a baud rate: a byte sent is gone at once while the domain's output ring has room, and when it has none
//! the transmit FIFO looks full. Received bytes wait in a ring of their own behind a FIFO of the real depth. There is no
//! modem, no DMA, and no other end that sends wrong parity.

use super::console::INPUT;
use super::ring::Ring;
use super::{Access, Outcome};

/// Bytes in the receive FIFO: r1p5's depth (DDI 0183, 2.4.3).
const FIFO: usize = 32;

// Registers (DDI 0183, table 3-1).
const DR: u32 = 0x00;
const RSR_ECR: u32 = 0x04;
const FR: u32 = 0x18;
const ILPR: u32 = 0x20;
const IBRD: u32 = 0x24;
const FBRD: u32 = 0x28;
const LCR_H: u32 = 0x2C;
const CR: u32 = 0x30;
const IFLS: u32 = 0x34;
const IMSC: u32 = 0x38;
const RIS: u32 = 0x3C;
const MIS: u32 = 0x40;
const ICR: u32 = 0x44;
const DMACR: u32 = 0x48;
/// PeriphID0 to 3 (part 0x011, designer Arm, revision 3 = r1p5), PCellID0 to 3, one byte every four.
const IDENTIFICATION: u32 = 0xFE0;
const IDS: [u8; 8] = [0x11, 0x10, 0x34, 0x00, 0x0D, 0xF0, 0x05, 0xB1];

// FR.
const FR_TXFE: u32 = 1 << 7;
const FR_RXFF: u32 = 1 << 6;
const FR_TXFF: u32 = 1 << 5;
const FR_RXFE: u32 = 1 << 4;
const FR_BUSY: u32 = 1 << 3;
// CR.
const CR_LBE: u32 = 1 << 7;
const CR_TXE: u32 = 1 << 8;
const CR_RXE: u32 = 1 << 9;
/// LCR_H.FEN: FIFOs on; off, both are one byte deep.
const LCR_FEN: u8 = 1 << 4;
// Interrupts, the same bits in IMSC, RIS, MIS and ICR.
const RX: u16 = 1 << 4;
const TX: u16 = 1 << 5;
const RT: u16 = 1 << 6;
const OE: u16 = 1 << 10;
const ALL: u16 = 0x7FF;
/// Overrun, as DR holds it; RSR has it in bit 3.
const DR_OE: u16 = 1 << 11;

/// What the caller must do after a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Effect {
    /// Put this byte into the domain's output ring.
    pub send: Option<u8>,
    /// A byte was written while there was no room: count it as lost (`Ring::count_loss`).
    pub lost: bool,
    /// The interrupt line: `Some(true)` make its SPI pending, `Some(false)` clear the pending state, `None` leave it.
    ///
    /// The SPI has no wire behind it. It is made pending when the line rises and whenever a new cause joins while it is
    /// up, so that a handler that left one cause unserved still hears of the next.
    pub line: Option<bool>,
}

/// The registers of one virtual PL011. The caller excludes its vCPUs from each other (a try-lock: one that does not get it
/// returns to the guest at the same instruction, or answers as if nothing had happened).
#[derive(Debug)]
pub struct Vuart {
    /// Received bytes, oldest at `first`. In DR format: overrun in bit 11.
    fifo: [u16; FIFO],
    first: u8,
    count: u8,
    /// RSR: the errors of the byte last read.
    errors: u8,
    lcr_h: u8,
    ilpr: u8,
    fbrd: u8,
    dmacr: u8,
    ifls: u8,
    ibrd: u16,
    cr: u16,
    imsc: u16,
    ris: u16,
    /// RIS & IMSC when the line was last told to the caller.
    told: u16,
    /// The output ring had room at the last look.
    had_room: bool,
    /// `Ring::lost` of the input ring at the last look: a change is an overrun.
    input_lost: u32,
}

impl Vuart {
    /// The reset state (DDI 0183, table 3-1).
    pub const fn new() -> Self {
        Self {
            fifo: [0; FIFO],
            first: 0,
            count: 0,
            errors: 0,
            lcr_h: 0,
            ilpr: 0,
            fbrd: 0,
            dmacr: 0,
            ifls: 0x12,
            ibrd: 0,
            cr: (CR_RXE | CR_TXE) as u16,
            imsc: 0,
            ris: 0,
            told: 0,
            had_room: true,
            input_lost: 0,
        }
    }

    /// Back to the reset state. What `input` has lost so far is no overrun of what comes next.
    pub fn reset(&mut self, input: &Ring<INPUT>) {
        *self = Self { input_lost: input.lost(), ..Self::new() };
    }

    /// One access to its page. `room`: the domain's output ring takes another byte. `input`: what waits behind the
    /// receive FIFO; this call is its consumer.
    ///
    /// Registers are 16 bits wide at most and answer accesses of 1, 2 and 4 bytes at their own offset; everything else
    /// reads as zero and ignores writes.
    pub fn access(&mut self, access: Access, room: bool, input: &Ring<INPUT>) -> (Outcome, Effect) {
        let Access { offset, size, write } = access;
        if offset == FR && size <= 4 && write.is_none() && self.is_settled(room, input) {
            return (Outcome::Handled(u64::from(self.flags(room))), Effect::default());
        }
        let mut effect = Effect::default();
        let mut value = 0;
        let mut news = self.pull(room, input);
        if offset & 3 == 0 && matches!(size, 1 | 2 | 4) {
            match write {
                Some(value) => self.write(offset, value as u32, room, &mut effect),
                None => value = self.read(offset, room),
            }
            if write.is_some() || offset == DR {
                self.pull(room, input);
                news = true;
            }
        }
        effect.line = self.line(news);
        let covered = if size == 1 { 0xFF } else { 0xFFFF };
        (Outcome::Handled(u64::from(value & covered)), effect)
    }

    /// Whether nothing has happened outside since the last look. A guest that prints looks before every byte.
    #[inline]
    fn is_settled(&self, room: bool, input: &Ring<INPUT>) -> bool {
        room && self.had_room && input.is_empty() && input.lost() == self.input_lost
    }

    /// Something changed outside: input arrived, or the output ring was drained. Same parameters as `access`.
    ///
    /// Who cannot get the registers to itself makes the SPI pending instead: the guest's handler then looks by itself, and
    /// looking does the same as this.
    pub fn refresh(&mut self, room: bool, input: &Ring<INPUT>) -> Effect {
        let news = self.pull(room, input);
        Effect { line: self.line(news), ..Effect::default() }
    }

    /// What becomes of the line. `news`: something happened after which a wire would have been looked at again.
    fn line(&mut self, news: bool) -> Option<bool> {
        let (before, now) = (self.told, self.ris & self.imsc);
        self.told = now;
        match now {
            0 => (before != 0).then_some(false),
            _ => (news || now & !before != 0).then_some(true),
        }
    }

    fn read(&mut self, offset: u32, room: bool) -> u32 {
        match offset {
            DR => {
                let word = self.pop().unwrap_or(0);
                self.errors = (word >> 8) as u8;
                u32::from(word)
            }
            RSR_ECR => u32::from(self.errors),
            FR => self.flags(room),
            ILPR => u32::from(self.ilpr),
            IBRD => u32::from(self.ibrd),
            FBRD => u32::from(self.fbrd),
            LCR_H => u32::from(self.lcr_h),
            CR => u32::from(self.cr),
            IFLS => u32::from(self.ifls),
            IMSC => u32::from(self.imsc),
            RIS => u32::from(self.ris),
            MIS => u32::from(self.ris & self.imsc),
            DMACR => u32::from(self.dmacr),
            IDENTIFICATION..=0xFFC => u32::from(IDS[((offset - IDENTIFICATION) / 4) as usize & 7]),
            _ => 0,
        }
    }

    /// FR.
    #[inline(always)]
    fn flags(&self, room: bool) -> u32 {
        let transmit = if room { FR_TXFE } else { FR_TXFF | FR_BUSY };
        let empty = if self.count == 0 { FR_RXFE } else { 0 };
        let full = if usize::from(self.count) >= self.depth() { FR_RXFF } else { 0 };
        transmit | empty | full
    }

    fn write(&mut self, offset: u32, value: u32, room: bool, effect: &mut Effect) {
        match offset {
            DR => self.transmit(value as u8, room, effect),
            RSR_ECR => self.errors = 0,
            ILPR => self.ilpr = value as u8,
            IBRD => self.ibrd = value as u16,
            FBRD => self.fbrd = value as u8 & 0x3F,
            LCR_H => {
                // Hardware may drop what waits when the FIFOs are turned on or off. Here the bytes that fit stay: a guest
                // that sets its UART up after somebody has typed gets it all.
                self.lcr_h = value as u8;
                self.count = self.count.min(self.depth() as u8);
                if usize::from(self.count) < self.trigger() {
                    self.ris &= !RX;
                }
            }
            CR => self.cr = value as u16 & 0xFF87,
            IFLS => self.ifls = value as u8 & 0x3F,
            IMSC => self.imsc = value as u16 & ALL,
            ICR => self.ris &= !(value as u16),
            DMACR => self.dmacr = value as u8 & 7,
            _ => {}
        }
    }

    /// DR written. UARTEN is not asked for: early consoles rely on firmware that has set it.
    fn transmit(&mut self, byte: u8, room: bool, effect: &mut Effect) {
        let control = u32::from(self.cr);
        if control & CR_TXE == 0 {
            return;
        }
        if control & CR_LBE != 0 {
            self.receive(byte);
        } else if room {
            effect.send = Some(byte);
        } else {
            effect.lost = true;
            return;
        }
        // The FIFO has drained through its trigger level already (DDI 0183, 2.8.3).
        self.ris |= TX;
    }

    /// Receive FIFO depth: one byte while the FIFOs are off.
    fn depth(&self) -> usize {
        if self.lcr_h & LCR_FEN != 0 { FIFO } else { 1 }
    }

    /// Bytes at which the receive interrupt comes (IFLS.RXIFLSEL: 1/8, 1/4, 1/2, 3/4, 7/8).
    fn trigger(&self) -> usize {
        let depth = self.depth();
        match self.ifls >> 3 & 7 {
            _ if depth == 1 => 1,
            0 => depth / 8,
            1 => depth / 4,
            2 => depth / 2,
            3 => depth * 3 / 4,
            _ => depth * 7 / 8,
        }
    }

    /// Fills the receive FIFO from behind and looks at the output ring. Answers whether anything changed.
    #[inline]
    fn pull(&mut self, room: bool, input: &Ring<INPUT>) -> bool {
        !self.is_settled(room, input) && self.take_in(room, input)
    }

    #[inline(never)]
    fn take_in(&mut self, room: bool, input: &Ring<INPUT>) -> bool {
        let mut news = room != self.had_room;
        match (self.had_room, room) {
            (false, true) => self.ris |= TX,
            (_, false) => self.ris &= !TX,
            _ => {}
        }
        self.had_room = room;
        if u32::from(self.cr) & CR_RXE == 0 {
            return news;
        }
        for _ in 0..FIFO {
            if usize::from(self.count) >= self.depth() {
                break;
            }
            let Some(byte) = input.pop() else { break };
            self.receive(byte);
            news = true;
            // Nothing more is coming, so the timeout of 32 bit periods is over at once (DDI 0183, 2.8.4).
            if input.is_empty() {
                self.ris |= RT;
            }
        }
        if input.lost() != self.input_lost {
            self.input_lost = input.lost();
            self.overrun();
            news = true;
        }
        news
    }

    /// A byte comes in.
    fn receive(&mut self, byte: u8) {
        if usize::from(self.count) >= self.depth() {
            return self.overrun();
        }
        let at = (usize::from(self.first) + usize::from(self.count)) % FIFO;
        if let Some(slot) = self.fifo.get_mut(at) {
            *slot = u16::from(byte);
        }
        self.count += 1;
        if usize::from(self.count) >= self.trigger() {
            self.ris |= RX;
        }
    }

    /// The newest byte is followed by others that are lost (DDI 0183, 3.3.1).
    fn overrun(&mut self) {
        let newest = (usize::from(self.first) + usize::from(self.count) + FIFO - 1) % FIFO;
        match self.fifo.get_mut(newest) {
            Some(slot) if self.count != 0 => *slot |= DR_OE,
            _ => self.errors |= (DR_OE >> 8) as u8,
        }
        self.ris |= OE;
    }

    /// DR read: the oldest byte, in DR format.
    fn pop(&mut self) -> Option<u16> {
        if self.count == 0 {
            return None;
        }
        let word = self.fifo.get(usize::from(self.first)).copied()?;
        self.first = (self.first + 1) % FIFO as u8;
        self.count -= 1;
        if usize::from(self.count) < self.trigger() {
            self.ris &= !RX;
        }
        if self.count == 0 {
            self.ris &= !RT;
        }
        Some(word)
    }
}

impl Default for Vuart {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
