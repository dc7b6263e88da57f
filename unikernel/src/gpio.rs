//! GPIO: a PL061 (DDI 0190), eight pins, through `embedded-hal`'s digital traits.
//!
//! The data register is addressed by a mask: bits 9:2 of the address select the pins, so a pin is changed without touching
//! the others and without a lock.

use crate::lock::Lock;
use crate::mmio::Registers;
use crate::platform::platform;
use core::convert::Infallible;
use embedded_hal::digital::{ErrorType, InputPin, OutputPin, StatefulOutputPin};

const DIR: usize = 0x400;
const IS: usize = 0x404;
const IBE: usize = 0x408;
const IEV: usize = 0x40C;
const IE: usize = 0x410;
const MIS: usize = 0x418;
const IC: usize = 0x41C;

/// Direction and interrupt registers are shared by the pins.
static SHARED: Lock<()> = Lock::new(());

/// Which change of a pin interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edge {
    /// Low to high.
    Rising,
    /// High to low.
    Falling,
    /// Either.
    Both,
}

/// One PL061.
#[derive(Clone, Copy, Debug)]
pub struct Gpio {
    registers: Registers,
    intid: Option<u32>,
}

/// A pin that is read.
#[derive(Debug)]
pub struct Input {
    gpio: Gpio,
    mask: u8,
}

/// A pin that is driven.
#[derive(Debug)]
pub struct Output {
    gpio: Gpio,
    mask: u8,
}

impl Gpio {
    /// The `index`-th PL061 of this domain.
    pub fn new(index: usize) -> Option<Self> {
        let device = platform().device("arm,pl061", index)?;
        Some(Self { registers: Registers::new(device.region), intid: device.intid })
    }

    /// INTID of its one interrupt.
    pub fn intid(&self) -> Option<u32> {
        self.intid
    }

    /// Pin `number` (0 to 7) as an input.
    pub fn input(&self, number: u8) -> Option<Input> {
        let mask = mask_of(number)?;
        self.change(DIR, mask, false);
        Some(Input { gpio: *self, mask })
    }

    /// Pin `number` (0 to 7) as an output, low at first.
    pub fn output(&self, number: u8) -> Option<Output> {
        let mask = mask_of(number)?;
        self.set(mask, false);
        self.change(DIR, mask, true);
        Some(Output { gpio: *self, mask })
    }

    /// Pins whose edge interrupt is pending, as a mask; clears them.
    pub fn take_edges(&self) -> u8 {
        let pending = self.registers.read(MIS) as u8;
        self.registers.write(IC, u32::from(pending));
        pending
    }

    fn get(&self, mask: u8) -> bool {
        self.registers.read(usize::from(mask) << 2) != 0
    }

    fn set(&self, mask: u8, high: bool) {
        self.registers.write(usize::from(mask) << 2, if high { u32::from(mask) } else { 0 });
    }

    fn change(&self, offset: usize, mask: u8, on: bool) {
        SHARED.with(|()| {
            let word = self.registers.read(offset);
            let mask = u32::from(mask);
            self.registers.write(offset, if on { word | mask } else { word & !mask });
        });
    }
}

fn mask_of(number: u8) -> Option<u8> {
    (number < 8).then(|| 1 << number)
}

impl Input {
    /// Interrupts on `edge` from now on. Register a handler for [`Gpio::intid`]; it calls [`Gpio::take_edges`].
    pub fn listen(&mut self, edge: Edge) {
        let Self { gpio, mask } = self;
        gpio.change(IS, *mask, false);
        gpio.change(IBE, *mask, edge == Edge::Both);
        gpio.change(IEV, *mask, edge == Edge::Rising);
        gpio.registers.write(IC, u32::from(*mask));
        gpio.change(IE, *mask, true);
    }

    /// Stops interrupting.
    pub fn ignore(&mut self) {
        self.gpio.change(IE, self.mask, false);
    }
}

impl ErrorType for Input {
    type Error = Infallible;
}

impl InputPin for Input {
    fn is_high(&mut self) -> Result<bool, Infallible> {
        Ok(self.gpio.get(self.mask))
    }

    fn is_low(&mut self) -> Result<bool, Infallible> {
        Ok(!self.gpio.get(self.mask))
    }
}

impl ErrorType for Output {
    type Error = Infallible;
}

impl OutputPin for Output {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.gpio.set(self.mask, false);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        self.gpio.set(self.mask, true);
        Ok(())
    }
}

impl StatefulOutputPin for Output {
    fn is_set_high(&mut self) -> Result<bool, Infallible> {
        Ok(self.gpio.get(self.mask))
    }

    fn is_set_low(&mut self) -> Result<bool, Infallible> {
        Ok(!self.gpio.get(self.mask))
    }
}
