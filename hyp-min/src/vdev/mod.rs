//! Emulation that decides: what a trapped access means for the domain that made it.
//!
//! Nothing here touches hardware or blocks; registers are reached through [`Frame`], which a test replaces by an array.

/// What becomes of a trapped access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Handled; a read returns this value (zero-extended), a write ignores it.
    Handled(u64),
    /// Not granted: the guest gets a synchronous external abort.
    Abort,
}

/// One guest access to an emulated frame, decoded from the syndrome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Byte offset from the start of the frame.
    pub offset: u32,
    /// Bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// The value written (already truncated to `size`), `None` for a read.
    pub write: Option<u64>,
}

/// A frame of physical registers. Offsets are within the frame and aligned to the access.
pub trait Frame {
    /// Reads `size` bytes (1, 4 or 8).
    fn read(&self, offset: u32, size: u8) -> u64;
    /// Writes `size` bytes (1, 4 or 8).
    fn write(&self, offset: u32, size: u8, value: u64);
}
