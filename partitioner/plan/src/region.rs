//! Half-open address ranges that cannot wrap.

use crate::{Ipa, Pa};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! region {
    ($(#[$doc:meta])* $name:ident, $address:ident) => {
        $(#[$doc])*
        ///
        /// `[base, base + size)`. Built by `new`, the end never exceeds 2^64 - 1. One read from a blob may be anything:
        /// its methods stay total (they saturate), and readers check `is_valid`.
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
        )]
        #[repr(C)]
        pub struct $name {
            /// First address.
            pub base: $address,
            /// Length in bytes.
            pub size: u64,
        }

        impl $name {
            /// The range, or `None` where its end would not fit 64 bits.
            pub const fn new(base: $address, size: u64) -> Option<Self> {
                match base.0.checked_add(size) {
                    Some(_) => Some(Self { base, size }),
                    None => None,
                }
            }

            /// Whether the end fits 64 bits.
            pub const fn is_valid(&self) -> bool {
                self.base.0.checked_add(self.size).is_some()
            }

            /// First address behind the range.
            pub const fn end(&self) -> $address {
                $address(self.base.0.saturating_add(self.size))
            }

            /// Whether the range holds no byte.
            pub const fn is_empty(&self) -> bool {
                self.size == 0
            }

            /// Whether `address` lies inside.
            pub const fn contains(&self, address: $address) -> bool {
                address.0 >= self.base.0 && address.0 < self.end().0
            }

            /// Whether all of `other` lies inside. An empty range does where its base does or touches the end.
            pub const fn contains_region(&self, other: &Self) -> bool {
                other.base.0 >= self.base.0 && other.end().0 <= self.end().0
            }

            /// Whether the two share a byte.
            pub const fn overlaps(&self, other: &Self) -> bool {
                !self.is_empty() && !other.is_empty() && self.base.0 < other.end().0 && other.base.0 < self.end().0
            }

            /// The bytes both share, where there are any.
            pub fn intersection(&self, other: &Self) -> Option<Self> {
                let base = self.base.max(other.base);
                let end = self.end().min(other.end());
                (base < end).then(|| Self { base, size: end.0 - base.0 })
            }

            /// The smallest range of whole `align`-byte units that covers this one. `align` is a power of two.
            pub const fn widened(&self, align: u64) -> Self {
                let base = self.base.0 & !(align - 1);
                let end = match self.end().0.checked_add(align - 1) {
                    Some(end) => end & !(align - 1),
                    None => u64::MAX & !(align - 1),
                };
                Self { base: $address(base), size: end - base }
            }

            /// Whether base and size are multiples of `align`, a power of two.
            pub const fn is_aligned(&self, align: u64) -> bool {
                (self.base.0 | self.size) & (align - 1) == 0
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                if self.size == 0 {
                    return write!(f, "{} (empty)", self.base);
                }
                write!(f, "{}..={:#x}", self.base, self.end().0 - 1)
            }
        }
    };
}

region!(
    /// A physical range.
    PaRegion,
    Pa
);
region!(
    /// A guest-physical range.
    IpaRegion,
    Ipa
);

#[cfg(test)]
mod tests {
    use super::*;

    fn r(base: u64, size: u64) -> PaRegion {
        PaRegion::new(Pa(base), size).unwrap()
    }

    #[test]
    fn wrapping_is_refused() {
        assert!(PaRegion::new(Pa(u64::MAX), 1).is_none());
        assert!(PaRegion::new(Pa(u64::MAX - 1), 1).is_some());
    }

    #[test]
    fn neighbours_do_not_overlap() {
        assert!(!r(0, 0x1000).overlaps(&r(0x1000, 0x1000)));
        assert!(r(0, 0x1001).overlaps(&r(0x1000, 0x1000)));
        assert_eq!(r(0, 0x1800).intersection(&r(0x1000, 0x1000)), Some(r(0x1000, 0x800)));
    }

    #[test]
    fn widening_covers() {
        assert_eq!(r(0x1234, 0x10).widened(0x1000), r(0x1000, 0x1000));
        assert_eq!(r(0x1fff, 2).widened(0x1000), r(0x1000, 0x2000));
    }
}
