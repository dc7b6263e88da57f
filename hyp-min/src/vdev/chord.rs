//! The key chord that leads console input to another domain: the escape byte, then one more.
//!
//! Space: the next domain that can read. `0` and the 63 characters after it: the domain of that number, or nobody where that one
//! cannot read, so that what is meant for it never reaches another. The escape byte again: the byte itself. Anything else is no chord and goes nowhere. Knows nothing of UARTs, and nothing a guest does reaches it.

/// What a byte from the wire means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// A byte for the domain that reads.
    Byte(u8),
    /// The next domain is to read.
    Next,
    /// This domain is to read.
    Domain(usize),
    /// A chord's first byte, or one that is none.
    Nothing,
}

/// Takes `byte`. `armed`: the one before was the escape byte. With `escape` 0 there is no chord.
pub fn key(escape: u8, armed: &mut bool, byte: u8) -> Key {
    let chord = core::mem::take(armed);
    match byte {
        _ if escape == 0 => Key::Byte(byte),
        _ if byte == escape && !chord => {
            *armed = true;
            Key::Nothing
        }
        _ if byte == escape || !chord => Key::Byte(byte),
        b' ' => Key::Next,
        b'0'..=b'o' => Key::Domain(usize::from(byte - b'0')),
        _ => Key::Nothing,
    }
}

/// The first of `count` domains behind `current`, in a circle, that can read; `current` itself comes last. Behind nobody
/// (any index that is too large) comes the first.
pub fn next(current: usize, count: usize, can_read: impl Fn(usize) -> bool) -> Option<usize> {
    let start = current.min(count.saturating_sub(1));
    (1..=count).map(|step| (start + step) % count).find(|index| can_read(*index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(escape: u8, bytes: &[u8]) -> Vec<Key> {
        let mut armed = false;
        bytes.iter().map(|byte| key(escape, &mut armed, *byte)).collect()
    }

    #[test]
    fn chords() {
        use Key::{Byte, Domain, Next, Nothing};
        assert_eq!(keys(15, b"a\x0f b"), [Byte(b'a'), Nothing, Next, Byte(b'b')]);
        assert_eq!(
            keys(15, b"\x0f0\x0f9\x0fo1"),
            [Nothing, Domain(0), Nothing, Domain(9), Nothing, Domain(63), Byte(b'1')]
        );
        assert_eq!(keys(15, b"\x0f\x0f "), [Nothing, Byte(15), Byte(b' ')], "the byte itself");
        assert_eq!(
            keys(15, b"\x0fp\x0f\r\x0f\xffx"),
            [Nothing, Nothing, Nothing, Nothing, Nothing, Nothing, Byte(b'x')]
        );
    }

    #[test]
    fn without_an_escape_byte_every_byte_is_the_guests() {
        for byte in 0..=255 {
            assert_eq!(keys(0, &[byte, byte]), [Key::Byte(byte); 2]);
        }
    }

    #[test]
    fn every_byte_but_the_escape_byte_passes() {
        for byte in (0..=255).filter(|byte| *byte != 1) {
            assert_eq!(keys(1, &[byte]), [Key::Byte(byte)]);
        }
    }

    #[test]
    fn turns_go_round() {
        let can = |index| index != 1;
        assert_eq!((next(0, 3, can), next(2, 3, can), next(1, 3, can)), (Some(2), Some(0), Some(2)));
        assert_eq!(next(0, 2, can), Some(0), "nobody else");
        assert_eq!((next(0, 3, |_| false), next(7, 0, can), next(usize::MAX, 3, can)), (None, None, Some(0)));
    }
}
