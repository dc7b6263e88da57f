//! The console: a PL011 (DDI 0183), real or virtual, with `embedded-io` on top and `print!` for everyone.
//!
//! Polled for output. Input can be polled, waited for, or announced by an interrupt.

use crate::lock::Lock;
use crate::mmio::Registers;
use crate::platform::platform;
use crate::{cpu, irq};
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use embedded_io::{ErrorType, Read, ReadReady, Write};

const DR: usize = 0x00;
const FR: usize = 0x18;
const LCR_H: usize = 0x2C;
const CR: usize = 0x30;
const IMSC: usize = 0x38;
const ICR: usize = 0x44;
const FR_RXFE: u32 = 1 << 4;
const FR_TXFF: u32 = 1 << 5;
/// Receive and receive timeout interrupts.
const RX: u32 = 1 << 4 | 1 << 6;

/// The domain's console. All copies are the same device.
#[derive(Clone, Copy)]
pub struct Console {
    registers: Registers,
}

/// Whole lines under one lock, so that those of two vCPUs do not mix.
static OUTPUT: Lock<()> = Lock::new(());
static RX_INTERRUPT: AtomicBool = AtomicBool::new(false);

/// The console, where the domain has one.
pub fn console() -> Option<Console> {
    let device = crate::platform::get()?.console?;
    Some(Console { registers: Registers::new(device.region) })
}

/// Turns on the UART: 8 bits, FIFO, both directions. The rate is the firmware's business.
pub(crate) fn init() {
    let Some(Console { registers }) = console() else { return };
    registers.write(IMSC, 0);
    registers.write(LCR_H, 3 << 5 | 1 << 4);
    registers.write(CR, 1 | 1 << 8 | 1 << 9);
}

impl Console {
    /// One byte of input, if there is one.
    pub fn try_read(&self) -> Option<u8> {
        if self.registers.read(FR) & FR_RXFE != 0 {
            return None;
        }
        Some(self.registers.read(DR) as u8)
    }

    /// Calls `handler` (in an interrupt) whenever input arrives; it reads until [`Console::try_read`] has none. Returns false
    /// where the console has no interrupt.
    pub fn on_input(&self, handler: fn(u32)) -> bool {
        let Some(intid) = platform().console.and_then(|device| device.intid) else { return false };
        let taken = irq::register(intid, handler).is_ok();
        if taken {
            irq::enable(intid);
            self.registers.write(IMSC, RX);
        }
        taken
    }

    fn put(&self, byte: u8) {
        while self.registers.read(FR) & FR_TXFF != 0 {
            cpu::relax();
        }
        self.registers.write(DR, u32::from(byte));
    }

    /// Sleeps until there is input: the interrupt only has to wake this vCPU, the reader takes the byte.
    fn wait(&self) {
        if !RX_INTERRUPT.swap(true, Ordering::AcqRel) && !self.on_input(quiet) {
            RX_INTERRUPT.store(false, Ordering::Release);
            return cpu::relax();
        }
        let mask = cpu::mask();
        self.registers.write(IMSC, RX);
        if self.registers.read(FR) & FR_RXFE != 0 {
            cpu::wfi();
        }
        cpu::restore(mask);
    }
}

/// Silences the level until the next [`Console::wait`].
fn quiet(_: u32) {
    if let Some(Console { registers }) = console() {
        registers.write(IMSC, 0);
        registers.write(ICR, RX);
    }
}

impl ErrorType for Console {
    type Error = core::convert::Infallible;
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        bytes.iter().for_each(|byte| self.put(*byte));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

impl Read for Console {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        let mut count = 0;
        while count < bytes.len() {
            match self.try_read() {
                Some(byte) => {
                    bytes[count] = byte;
                    count += 1;
                }
                None if count > 0 => break,
                None => self.wait(),
            }
        }
        Ok(count)
    }
}

impl ReadReady for Console {
    fn read_ready(&mut self) -> Result<bool, Self::Error> {
        Ok(self.registers.read(FR) & FR_RXFE == 0)
    }
}

/// Text for a terminal: a newline goes to the line's start too.
struct Lines(Console);

impl fmt::Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.0.put(b'\r');
            }
            self.0.put(byte);
        }
        Ok(())
    }
}

/// What `print!` calls. Without a console the text is gone.
#[doc(hidden)]
pub fn print(text: fmt::Arguments) {
    if let Some(console) = console() {
        // Writing to the console cannot fail; an error could only come from a Display implementation.
        OUTPUT.with(|()| fmt::Write::write_fmt(&mut Lines(console), text).unwrap_or(()));
    }
}

pub(crate) fn force() {
    OUTPUT.force();
}

/// Prints to the console, whole calls at a time.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::console::print(format_args!($($arg)*)) };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($arg)*))) };
}
