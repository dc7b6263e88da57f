//! Arithmetic on addresses that cannot overflow, and the shape shared by many checks.

/// `value` rounded up to a multiple of `align`, a power of two. Saturates, so that a bad number stays a large number.
pub(crate) const fn up(value: u64, align: u64) -> u64 {
    match value.checked_add(align - 1) {
        Some(sum) => sum & !(align - 1),
        None => !(align - 1),
    }
}

/// `value` rounded down to a multiple of `align`, a power of two.
pub(crate) const fn down(value: u64, align: u64) -> u64 {
    value & !(align - 1)
}

/// The smallest address not below `from` that is `like` modulo `align`, a power of two.
pub(crate) const fn congruent(from: u64, like: u64, align: u64) -> u64 {
    from.saturating_add(like.wrapping_sub(from) & (align - 1))
}

/// Number of bits needed to address everything below `end`.
pub(crate) const fn bits(end: u64) -> u32 {
    if end == 0 { 0 } else { 64 - (end - 1).leading_zeros() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding() {
        assert_eq!(up(0x1001, 0x1000), 0x2000);
        assert_eq!(up(u64::MAX, 0x1000), 0xFFFF_FFFF_FFFF_F000);
        assert_eq!(congruent(0x4060_0001, 0x8_0000, 0x20_0000), 0x4068_0000);
        assert_eq!(congruent(0x4000_0000, 0, 0x20_0000), 0x4000_0000);
        assert_eq!(bits(0x1_0000_0000), 32);
        assert_eq!(bits(0x1_0000_0001), 33);
    }
}
