//! What the verifier can find, one variant per mistake.

use core::fmt;

/// A violation, typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Finding {}

impl fmt::Display for Finding {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}
