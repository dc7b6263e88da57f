//! The redistributors as a guest with direct delivery sees them: one pair of frames per vCPU of its own domain.

use super::{Access, Frame, Outcome, View};

/// Bytes from one vCPU's redistributor to the next: RD frame, then SGI frame (IHI 0069, 12.10).
pub const STRIDE: u32 = 0x2_0000;

/// Decides and does one access. `access.offset` counts from the first redistributor of the domain; `frame` gives the
/// physical redistributor (128 KiB, RD frame first) of one of the domain's vCPUs.
#[inline]
pub fn access<F: Frame>(view: &View<'_>, frame: impl FnOnce(usize) -> Option<F>, access: Access) -> Outcome {
    let _ = (view, frame, access);
    Outcome::Abort
}
