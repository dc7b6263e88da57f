//! The virtual PL011 (DDI 0183): what Linux' `amba-pl011`, U-Boot and small kernels expect of one.

use super::console::INPUT;
use super::ring::Ring;
use super::{Access, Outcome};

/// What the caller must do after a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Effect {
    /// Put this byte into the domain's output ring.
    pub send: Option<u8>,
    /// The interrupt line: `Some(true)` make its SPI pending, `Some(false)` clear the pending state, `None` leave it.
    pub line: Option<bool>,
}

/// The registers of one virtual PL011. The caller excludes its vCPUs from each other.
#[derive(Debug)]
pub struct Vuart {
    control: u32,
}

impl Vuart {
    /// The reset state.
    pub const fn new() -> Self {
        Self { control: 0x300 }
    }

    /// One access to its page. `room`: the domain's output ring takes another byte. `input`: what waits behind the
    /// receive FIFO; this call is its consumer.
    pub fn access(&mut self, access: Access, room: bool, input: &Ring<INPUT>) -> (Outcome, Effect) {
        let _ = (access, room, input, self.control);
        (Outcome::Handled(0), Effect::default())
    }

    /// Something changed outside: input arrived, or the output ring was drained. Same parameters as `access`.
    pub fn refresh(&mut self, room: bool, input: &Ring<INPUT>) -> Effect {
        let _ = (room, input);
        Effect::default()
    }
}

impl Default for Vuart {
    fn default() -> Self {
        Self::new()
    }
}
