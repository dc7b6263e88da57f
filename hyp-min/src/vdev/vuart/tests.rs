//! The virtual PL011, held against DDI 0183 register by register.

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
    let mut random = crate::vdev::fake::Random::new(3);
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

#[test]
fn turning_the_fifos_on_keeps_what_was_typed() {
    let mut m = Machine::new();
    m.write(CR, 0x301);
    m.type_in(b"abc");
    m.write(LCR_H, 0x70);
    assert_eq!([m.read(DR), m.read(DR), m.read(DR)].map(|w| w as u8), *b"abc");
    m.type_in(b"de");
    m.write(LCR_H, 0x60);
    assert_eq!(m.read(DR) as u8, b'd');
    assert_eq!(m.read(FR) & FR_RXFE, FR_RXFE, "one byte deep again");
}
