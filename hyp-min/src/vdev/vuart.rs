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

    /// One access to its page. `room`: the domain's output ring takes another byte. `input`: what waits behind the
    /// receive FIFO; this call is its consumer.
    ///
    /// Registers are 16 bits wide at most and answer accesses of 1, 2 and 4 bytes at their own offset; everything else
    /// reads as zero and ignores writes.
    pub fn access(&mut self, access: Access, room: bool, input: &Ring<INPUT>) -> (Outcome, Effect) {
        let Access { offset, size, write } = access;
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
            FR => {
                let transmit = if room { FR_TXFE } else { FR_TXFF | FR_BUSY };
                let empty = if self.count == 0 { FR_RXFE } else { 0 };
                let full = if usize::from(self.count) >= self.depth() { FR_RXFF } else { 0 };
                transmit | empty | full
            }
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

    fn write(&mut self, offset: u32, value: u32, room: bool, effect: &mut Effect) {
        match offset {
            DR => self.transmit(value as u8, room, effect),
            RSR_ECR => self.errors = 0,
            ILPR => self.ilpr = value as u8,
            IBRD => self.ibrd = value as u16,
            FBRD => self.fbrd = value as u8 & 0x3F,
            LCR_H => {
                // Turning the FIFOs off or on empties them.
                if (self.lcr_h ^ value as u8) & LCR_FEN != 0 {
                    self.count = 0;
                    self.ris &= !(RX | RT);
                }
                self.lcr_h = value as u8;
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
    fn pull(&mut self, room: bool, input: &Ring<INPUT>) -> bool {
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
mod tests {
    use super::*;

    /// A UART with its input, as one guest sees it.
    struct Machine {
        uart: Vuart,
        input: Ring<INPUT>,
        room: bool,
        effect: Effect,
    }

    impl Machine {
        fn new() -> Self {
            Self { uart: Vuart::new(), input: Ring::new(), room: true, effect: Effect::default() }
        }

        /// As Linux leaves it after startup: FIFOs on, RX and RT unmasked.
        fn started() -> Self {
            let mut m = Self::new();
            m.write(LCR_H, 0x70);
            m.write(CR, 0x301);
            m.write(IMSC, u64::from(RX | RT));
            m
        }

        fn go(&mut self, offset: u32, size: u8, write: Option<u64>) -> u64 {
            let (outcome, effect) = self.uart.access(Access { offset, size, write }, self.room, &self.input);
            self.effect = effect;
            match outcome {
                Outcome::Handled(value) => value,
                Outcome::Abort => panic!("a virtual PL011 never aborts"),
            }
        }

        fn read(&mut self, offset: u32) -> u32 {
            self.go(offset, 4, None) as u32
        }

        fn write(&mut self, offset: u32, value: u64) {
            self.go(offset, 4, Some(value));
        }

        fn type_in(&mut self, text: &[u8]) -> Effect {
            for byte in text {
                self.input.push(*byte);
            }
            self.uart.refresh(self.room, &self.input)
        }
    }

    #[test]
    fn reset_state_and_identity() {
        let mut m = Machine::new();
        assert_eq!((m.read(CR), m.read(IFLS), m.read(FR), m.read(RIS)), (0x300, 0x12, 0x90, 0));
        let id = |m: &mut Machine, base| (0..4u32).map(|i| m.read(base + i * 4) << (i * 8)).sum::<u32>();
        assert_eq!(id(&mut m, 0xFE0), 0x0034_1011, "PL011 r1p5: Linux takes a FIFO of 32");
        assert_eq!(id(&mut m, 0xFF0), 0xB105_F00D);
    }

    #[test]
    fn bytes_leave_at_once() {
        let mut m = Machine::new();
        m.write(DR, 0x141);
        assert_eq!(m.effect, Effect { send: Some(0x41), lost: false, line: None }, "even without UARTEN");
        m.write(CR, 0x201);
        m.write(DR, 0x42);
        assert_eq!(m.effect.send, None, "transmitter off");
    }

    #[test]
    fn a_full_ring_is_a_full_fifo() {
        let mut m = Machine::started();
        m.write(IMSC, u64::from(TX));
        m.write(DR, 0x41);
        assert_eq!(m.effect.line, Some(true), "sent, and room for more");
        m.room = false;
        assert_eq!(m.read(FR) & (FR_TXFF | FR_TXFE | FR_BUSY), FR_TXFF | FR_BUSY);
        assert_eq!(m.effect.line, Some(false));
        m.write(DR, 0x42);
        assert_eq!((m.effect.send, m.effect.lost), (None, true));
        m.room = true;
        assert_eq!(m.type_in(b"").line, Some(true), "drained: the guest hears of it");
        assert_eq!(m.read(FR) & (FR_TXFF | FR_TXFE | FR_BUSY), FR_TXFE);
    }

    #[test]
    fn received_bytes_raise_the_timeout_and_reading_clears_it() {
        let mut m = Machine::started();
        assert_eq!(m.type_in(b"ab").line, Some(true));
        assert_eq!(m.read(MIS), u32::from(RT));
        assert_eq!(m.read(FR) & (FR_RXFE | FR_RXFF), 0);
        assert_eq!(m.read(DR), u32::from(b'a'));
        assert_eq!(m.effect.line, Some(true), "a byte is left: the level holds");
        assert_eq!(m.read(DR), u32::from(b'b'));
        assert_eq!(m.effect.line, Some(false));
        assert_eq!((m.read(RIS), m.read(FR) & FR_RXFE), (0, FR_RXFE));
        assert_eq!(m.read(DR), 0);
    }

    #[test]
    fn the_trigger_level_counts() {
        for (select, level) in [(0, 4), (1, 8), (2, 16), (3, 24), (4, 28)] {
            let mut m = Machine::started();
            m.write(IFLS, select << 3);
            m.write(IMSC, u64::from(RX));
            for n in 1..=40u32 {
                m.type_in(b"x");
                assert_eq!(m.read(RIS) & u32::from(RX) != 0, n >= level, "{n} of {level}");
            }
            assert_eq!(m.read(FR) & FR_RXFF, FR_RXFF);
            for left in (0..40u32).rev() {
                m.read(DR);
                assert_eq!(m.read(RIS) & u32::from(RX) != 0, left >= level, "{left} of {level}");
            }
        }
    }

    #[test]
    fn linux_drains_what_came_before_startup() {
        let mut m = Machine::new();
        m.type_in(b"early");
        m.write(LCR_H, 0x70);
        m.write(CR, 0x301);
        m.write(ICR, u64::from(RT | RX));
        for _ in 0..64 {
            if m.read(FR) & FR_RXFE != 0 {
                break;
            }
            m.read(DR);
        }
        m.write(IMSC, u64::from(RX | RT));
        assert_eq!(m.effect.line, None);
        assert_eq!(m.type_in(b"x").line, Some(true));
    }

    #[test]
    fn fifos_off_hold_one_byte() {
        let mut m = Machine::new();
        m.write(CR, 0x301);
        m.type_in(b"ab");
        assert_eq!(m.read(FR) & FR_RXFF, FR_RXFF);
        assert_eq!((m.read(DR), m.read(DR)), (u32::from(b'a'), u32::from(b'b')));
    }

    #[test]
    fn overflow_is_an_overrun_and_nothing_worse() {
        let mut m = Machine::started();
        m.write(IMSC, u64::from(OE));
        assert_eq!(m.type_in(&[b'x'; FIFO]).line, None, "the FIFO takes these");
        assert_eq!(m.type_in(&[b'x'; INPUT]).line, None, "these wait behind it");
        assert_eq!(m.type_in(b"y").line, Some(true));
        let words: Vec<u32> = (0..FIFO + INPUT).map(|_| m.read(DR)).collect();
        assert!(words.iter().any(|w| w & 0x800 != 0));
        m.write(ICR, u64::from(OE));
        assert_eq!((m.read(RIS) & u32::from(OE), m.effect.line), (0, None));
    }

    #[test]
    fn errors_stay_until_cleared() {
        let mut m = Machine::started();
        m.type_in(&[b'x'; INPUT + 1]);
        for _ in 0..INPUT {
            if m.read(DR) & 0x800 != 0 {
                break;
            }
        }
        assert_eq!(m.read(RSR_ECR), u32::from(DR_OE >> 8));
        m.write(RSR_ECR, 0);
        assert_eq!(m.read(RSR_ECR), 0);
    }

    #[test]
    fn unmasking_a_waiting_cause_raises_the_line() {
        let mut m = Machine::started();
        m.write(IMSC, 0);
        assert_eq!(m.type_in(b"a").line, None);
        m.write(IMSC, u64::from(RT));
        assert_eq!(m.effect.line, Some(true));
        m.write(IMSC, 0);
        assert_eq!(m.effect.line, Some(false));
    }

    #[test]
    fn loopback() {
        let mut m = Machine::started();
        m.write(CR, u64::from(CR_LBE | CR_TXE | CR_RXE | 1));
        m.write(DR, 0x5A);
        assert_eq!((m.effect.send, m.read(DR)), (None, 0x5A));
    }

    #[test]
    fn registers_keep_what_they_have_and_nothing_else() {
        for (offset, kept) in [
            (ILPR, 0xFF),
            (IBRD, 0xFFFF),
            (FBRD, 0x3F),
            (LCR_H, 0xFF),
            (CR, 0xFF87),
            (IFLS, 0x3F),
            (IMSC, 0x7FF),
            (DMACR, 7),
        ] {
            let mut m = Machine::new();
            m.write(offset, 0xFFFF_FFFF);
            assert_eq!(m.read(offset), kept, "{offset:#x}");
            assert_eq!(m.go(offset, 1, None), u64::from(kept & 0xFF));
        }
        let mut m = Machine::new();
        for offset in [0x08, 0x14, 0x1C, 0x4C, 0x80, 0xFDC, 0x1000, 0xFFFC] {
            m.write(offset, 0xFFFF_FFFF);
            assert_eq!(m.read(offset), 0, "{offset:#x}");
        }
    }

    #[test]
    fn any_sequence_of_accesses_ends() {
        let mut random = super::super::fake::Random::new(3);
        let mut m = Machine::new();
        for _ in 0..200_000 {
            let dice = random.next();
            m.room = dice & 3 != 0;
            if dice & 0xC == 0 {
                m.type_in(&dice.to_le_bytes());
            }
            let size = 1u8 << (dice >> 8 & 3);
            let offset = if dice & 0x10 == 0 { dice >> 16 & 0x4C } else { dice >> 16 & 0xFFFF } as u32;
            let write = (dice & 0x20 == 0).then(|| random.next() & (u64::MAX >> (64 - u32::from(size) * 8)));
            m.go(offset, size, write);
            assert!(usize::from(m.uart.count) <= FIFO && usize::from(m.uart.first) < FIFO);
            assert_eq!(m.uart.told, m.uart.ris & m.uart.imsc);
        }
    }
}
