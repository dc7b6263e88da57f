//! The virtual PL011, its rings and the multiplexer together, used the way an interrupt-driven kernel driver uses them:
//! send until the FIFO is full, then wait for the interrupt; receive in the interrupt handler. Nothing may get lost, stall,
//! or need a poll.

use hyp_min::vdev::console::{INPUT, Left, Mux, OUTPUT, Sources};
use hyp_min::vdev::ring::Ring;
use hyp_min::vdev::vuart::{Effect, Vuart};
use hyp_min::vdev::{Access, Outcome};

const DR: u32 = 0x00;
const FR: u32 = 0x18;
const LCR_H: u32 = 0x2C;
const CR: u32 = 0x30;
const IMSC: u32 = 0x38;
const MIS: u32 = 0x40;
const ICR: u32 = 0x44;
const TXFF: u64 = 1 << 5;
const RXFE: u64 = 1 << 4;
const RX: u64 = 1 << 4;
const TX: u64 = 1 << 5;
const RT: u64 = 1 << 6;

/// The hypervisor's side: what it keeps per domain, and an interrupt that is pending or not.
struct Machine {
    uart: Vuart,
    input: Ring<INPUT>,
    output: Ring<OUTPUT>,
    own: Ring<OUTPUT>,
    pending: bool,
    was_full: bool,
}

impl Sources for Machine {
    fn domain(&self, index: usize) -> Option<&Ring<OUTPUT>> {
        (index == 0).then_some(&self.output)
    }
    fn name(&self, _: usize) -> &[u8] {
        b"linux"
    }
    fn own(&self) -> Option<&Ring<OUTPUT>> {
        Some(&self.own)
    }
    fn count(&self) -> usize {
        1
    }
}

impl Machine {
    fn new() -> Self {
        Self {
            uart: Vuart::new(),
            input: Ring::new(),
            output: Ring::new(),
            own: Ring::new(),
            pending: false,
            was_full: false,
        }
    }

    fn apply(&mut self, effect: Effect) {
        assert!(!effect.lost, "the driver asks before it sends");
        if let Some(byte) = effect.send {
            assert!(self.output.push(byte));
        }
        if let Some(high) = effect.line {
            self.pending = high;
        }
    }

    fn go(&mut self, offset: u32, write: Option<u64>) -> u64 {
        let room = !self.output.is_full();
        self.was_full |= !room;
        let (outcome, effect) = self.uart.access(Access { offset, size: 4, write }, room, &self.input);
        self.apply(effect);
        match outcome {
            Outcome::Handled(value) => value,
            Outcome::Abort => panic!("never aborts"),
        }
    }

    /// The real UART takes up to `room` bytes.
    fn drain(&mut self, mux: &mut Mux, out: &mut Vec<u8>, mut room: usize) -> Left {
        let left = mux.drain(self, 0, &mut |byte| {
            if room == 0 {
                return false;
            }
            room -= 1;
            out.push(byte);
            true
        });
        if self.was_full && self.output.len() <= OUTPUT / 2 {
            self.was_full = false;
            let effect = self.uart.refresh(true, &self.input);
            self.apply(effect);
        }
        left
    }

    fn type_in(&mut self, byte: u8) {
        self.input.push(byte);
        let effect = self.uart.refresh(!self.output.is_full(), &self.input);
        self.apply(effect);
    }
}

/// The guest's driver.
struct Driver {
    to_send: Vec<u8>,
    sent: usize,
    got: Vec<u8>,
    mask: u64,
}

impl Driver {
    fn start(machine: &mut Machine, to_send: Vec<u8>) -> Self {
        machine.go(IMSC, Some(0));
        machine.go(LCR_H, Some(0x70));
        machine.go(CR, Some(0x301));
        machine.go(ICR, Some(RX | RT));
        while machine.go(FR, None) & RXFE == 0 {
            machine.go(DR, None);
        }
        let mut driver = Self { to_send, sent: 0, got: Vec::new(), mask: RX | RT };
        driver.send(machine);
        driver.mask |= TX;
        machine.go(IMSC, Some(driver.mask));
        driver
    }

    /// Sends at most half a FIFO; false once there is nothing left.
    fn send(&mut self, machine: &mut Machine) -> bool {
        for _ in 0..16 {
            let Some(byte) = self.to_send.get(self.sent) else { return false };
            if machine.go(FR, None) & TXFF != 0 {
                return true;
            }
            machine.go(DR, Some(u64::from(*byte)));
            self.sent += 1;
        }
        true
    }

    fn interrupt(&mut self, machine: &mut Machine) {
        machine.pending = false; // acknowledged
        for _ in 0..4 {
            let status = machine.go(MIS, None);
            if status == 0 {
                return;
            }
            machine.go(ICR, Some(status & !(TX | RX | RT)));
            if status & (RX | RT) != 0 {
                while machine.go(FR, None) & RXFE == 0 {
                    self.got.push(machine.go(DR, None) as u8);
                }
            }
            if status & TX != 0 && !self.send(machine) {
                self.mask &= !TX;
                machine.go(IMSC, Some(self.mask));
            }
        }
    }
}

#[test]
fn a_long_text_leaves_by_interrupts_alone() {
    for room in [1, 7, 64, 4096] {
        let text: Vec<u8> = (0..20_000u32).map(|i| if i % 61 == 60 { b'\n' } else { b'a' + (i % 26) as u8 }).collect();
        let (mut machine, mut mux, mut out) = (Machine::new(), Mux::new(20), Vec::new());
        let mut driver = Driver::start(&mut machine, text.clone());
        for _ in 0..60_000 {
            if machine.pending {
                driver.interrupt(&mut machine);
            }
            let left = machine.drain(&mut mux, &mut out, room);
            if left == Left::Nothing && !machine.pending {
                break;
            }
        }
        assert_eq!(driver.sent, text.len(), "stalled with room {room}");
        let out = String::from_utf8(out).unwrap();
        let lines: String = out.split_inclusive('\n').map(|line| line.strip_prefix("[linux] ").unwrap()).collect();
        assert_eq!(lines.as_bytes(), text);
        assert_eq!(machine.output.lost(), 0);
    }
}

#[test]
fn what_is_typed_arrives_whatever_the_pace() {
    for burst in [1usize, 3, 16, 31, 32, 33, 100, INPUT] {
        let text: Vec<u8> = (0..3000u32).map(|i| (i % 251) as u8).collect();
        let mut machine = Machine::new();
        let mut driver = Driver::start(&mut machine, Vec::new());
        driver.mask = RX | RT;
        machine.go(IMSC, Some(driver.mask));
        for chunk in text.chunks(burst) {
            chunk.iter().for_each(|byte| machine.type_in(*byte));
            for _ in 0..64 {
                if !machine.pending {
                    break;
                }
                driver.interrupt(&mut machine);
            }
        }
        assert_eq!(driver.got, text, "bursts of {burst}");
        assert_eq!(machine.input.lost(), 0);
    }
}

#[test]
fn a_handler_that_serves_one_byte_per_interrupt_is_called_again() {
    let mut machine = Machine::new();
    let driver = Driver::start(&mut machine, Vec::new());
    machine.go(IMSC, Some(driver.mask & !TX));
    b"hello".iter().for_each(|byte| machine.type_in(*byte));
    let mut got = Vec::new();
    for _ in 0..5 {
        assert!(machine.pending, "after {got:?}");
        machine.pending = false;
        got.push(machine.go(DR, None) as u8);
    }
    assert_eq!(got, b"hello");
    assert!(!machine.pending);
}
