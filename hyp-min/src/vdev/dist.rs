//! The distributor as a guest with direct delivery sees it: its own SPIs, everything else as if not implemented.

use super::{Access, Frame, Outcome, View};
use core::sync::atomic::AtomicU32;

/// Bytes of the frame (IHI 0069, 12.8).
pub const FRAME_SIZE: u32 = 0x1_0000;

/// What of a domain's virtual distributor is not in the hardware. All zeroes is the reset state.
#[derive(Debug)]
pub struct State {
    /// GICD_CTLR.EnableGrp1A.
    pub enabled: AtomicU32,
}

impl State {
    /// The reset state.
    pub const fn new() -> Self {
        Self { enabled: AtomicU32::new(0) }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// Decides and does one access. `frame` is the physical distributor.
#[inline]
pub fn access<F: Frame>(view: &View<'_>, frame: &F, access: Access) -> Outcome {
    let _ = (view, frame, access);
    Outcome::Handled(0)
}
