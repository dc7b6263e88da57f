//! What a domain writes, as bytes that are safe on a shared terminal.
//!
//! Text goes out as it is; everything that could move the cursor, end a line or hide what stands there comes out as `\\xNN`.
//! So no bytes of a guest can forge another's prefix (I56). What the domain wrote can be had back exactly: a backslash is
//! itself, but an `x` right behind one is escaped, so `\\x` on the wire is always ours. Knows nothing of prefixes, rings or
//! who has the wire.

/// Longest text of one source byte: three held bytes, a held CR and the byte itself, all escaped.
pub(super) const LONGEST: usize = 3 * 4 + 4 + 4;

/// What one source byte has become.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    bytes: [u8; LONGEST],
    len: usize,
    /// A newline follows the bytes.
    pub(super) ends_line: bool,
}

impl Text {
    const fn new() -> Self {
        Self { bytes: [0; LONGEST], len: 0, ends_line: false }
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// Whether nothing came of it yet.
    pub(super) fn is_nothing(&self) -> bool {
        self.len == 0 && !self.ends_line
    }

    #[inline(never)]
    fn put(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    #[inline(never)]
    fn escape(&mut self, byte: u8) {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        for out in [b'\\', b'x', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]] {
            self.put(out);
        }
    }

    /// A complete UTF-8 sequence: as it is where it is valid and only text; C1 controls, line separators and direction
    /// overrides are escaped.
    fn character(&mut self, bytes: &[u8]) {
        let first = core::str::from_utf8(bytes).ok().and_then(|text| text.chars().next());
        match first {
            Some('\0'..='\u{9F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}') | None => {
                bytes.iter().for_each(|byte| self.escape(*byte));
            }
            Some(_) => bytes.iter().for_each(|byte| self.put(*byte)),
        }
    }
}

/// What is kept of one domain between its bytes. All zeroes is the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encoder {
    /// A UTF-8 character that is not complete yet.
    held: [u8; 3],
    held_len: u8,
    /// A CR that is part of a line's end if LF follows.
    carriage: bool,
    /// The byte before was a backslash.
    backslash: bool,
}

impl Encoder {
    /// Nothing held.
    pub(super) const fn new() -> Self {
        Self { held: [0; 3], held_len: 0, carriage: false, backslash: false }
    }

    /// Whether `byte` is text that stands for itself here and leaves nothing to remember: most are.
    #[inline]
    pub(super) const fn is_plain(&self, byte: u8) -> bool {
        let nothing_held = self.held_len == 0 && !self.carriage && !self.backslash;
        nothing_held && matches!(byte, b' '..=b'~') && byte != b'\\'
    }

    /// Takes one byte.
    pub(super) fn feed(&mut self, byte: u8) -> Text {
        let mut text = Text::new();
        let held_len = usize::from(self.held_len).min(self.held.len());
        if held_len != 0 && byte & 0xC0 == 0x80 {
            self.continuation(byte, held_len, &mut text);
            return text;
        }
        // What was held back turns out to be no character, and no line end unless LF follows.
        for stray in self.held.iter().take(held_len) {
            text.escape(*stray);
        }
        self.held_len = 0;
        match (core::mem::take(&mut self.carriage), byte) {
            (true, b'\n') => text.put(b'\r'),
            (true, _) => text.escape(b'\r'),
            (false, _) => {}
        }
        let after_backslash = core::mem::replace(&mut self.backslash, byte == b'\\');
        match byte {
            b'\n' => text.ends_line = true,
            b'\r' => self.carriage = true,
            b'x' if after_backslash => text.escape(byte),
            b'\t' | b' '..=b'~' => text.put(byte),
            _ if utf8_len(byte) > 1 => (self.held[0], self.held_len) = (byte, 1),
            _ => text.escape(byte),
        }
        text
    }

    /// A byte that goes on with the character held.
    fn continuation(&mut self, byte: u8, held_len: usize, text: &mut Text) {
        if held_len + 1 < utf8_len(self.held[0]) {
            if let Some(slot) = self.held.get_mut(held_len) {
                *slot = byte;
                self.held_len += 1;
            }
            return;
        }
        let mut character = [0; 4];
        for (to, from) in character.iter_mut().zip(self.held.iter().take(held_len).chain([&byte])) {
            *to = *from;
        }
        self.held_len = 0;
        text.character(character.get(..=held_len).unwrap_or(&[]));
    }
}

/// Bytes of the UTF-8 sequence that starts with `byte`; 1 where it starts none.
const fn utf8_len(byte: u8) -> usize {
    match byte {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(bytes: &[u8]) -> String {
        let mut encoder = Encoder::new();
        let mut out = Vec::new();
        for byte in bytes {
            let text = encoder.feed(*byte);
            out.extend_from_slice(text.bytes());
            if text.ends_line {
                out.push(b'\n');
            }
        }
        String::from_utf8(out).expect("UTF-8 only")
    }

    #[test]
    fn control_bytes_cannot_move_the_cursor() {
        assert_eq!(encoded(b"a\r\nb\n"), "a\r\nb\n");
        assert_eq!(encoded(b"\r[green] x\n"), "\\x0D[green] x\n");
        assert_eq!(encoded(b"\r\r\n\x1b[2K\x07\x7f\0\t|\n"), "\\x0D\r\n\\x1B[2K\\x07\\x7F\\x00\t|\n");
        assert_eq!(encoded(b"\x85\x9b31m\n"), "\\x85\\x9B31m\n", "bare C1");
        assert_eq!(encoded("\u{9b}x\n".as_bytes()), "\\xC2\\x9Bx\n", "C1 in UTF-8");
        assert_eq!(encoded(b"\xe0\x82\x9b\xc0\x8a\n"), "\\xE0\\x82\\x9B\\xC0\\x8A\n", "overlong");
        assert_eq!(encoded("\u{2028}\u{202e}\n".as_bytes()), "\\xE2\\x80\\xA8\\xE2\\x80\\xAE\n");
    }

    #[test]
    fn text_stays_text() {
        let text = "h\u{e9}llo \u{2014} \u{1f980} \u{a0}\u{fffd}\n";
        assert_eq!(encoded(text.as_bytes()), text);
        assert_eq!(encoded(b"\xe2\x82x\xc3\n\xf0\x9f\r\ny\n"), "\\xE2\\x82x\\xC3\n\\xF0\\x9F\r\ny\n");
        assert_eq!(encoded(b"\xe2\xe2\x82\xac\xc3\xc3\xa9\n"), "\\xE2\u{20ac}\\xC3\u{e9}\n");
    }

    #[test]
    fn a_backslash_is_itself_and_an_escape_is_ours() {
        assert_eq!(encoded(b"C:\\dir \\n\n"), "C:\\dir \\n\n");
        assert_eq!(encoded(b"\\x1B\n"), "\\\\x781B\n");
        assert_eq!(encoded(b"\\\x1b\\\\xx\n"), "\\\\x1B\\\\\\x78x\n");
        assert_eq!(encoded(b"\\\rx\\\nx\n"), "\\\\x0Dx\\\nx\n");
    }

    #[test]
    fn plain_bytes_come_out_as_they_are_and_change_nothing() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let mut encoder = Encoder::new();
                encoder.feed(first);
                if encoder.is_plain(second) {
                    let (text, after) = (encoder.feed(second), encoder);
                    assert_eq!((text.bytes(), text.ends_line), (&[second][..], false), "{first:#x} {second:#x}");
                    assert_eq!((after.held_len, after.carriage, after.backslash), (0, false, false));
                }
            }
        }
        assert!((b' '..=b'~').filter(|byte| Encoder::new().is_plain(*byte)).count() == 94, "all but the backslash");
    }

    #[test]
    fn every_pair_of_bytes_is_safe() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let out = encoded(&[b'a', first, second, b'z', b'\n']);
                assert!(out.starts_with('a') && out.ends_with("z\n"), "{out:?}");
                let seen = out.replace("\r\n", "\n");
                assert!(!seen.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{out:?}");
                assert!(!out.contains("\r\r"), "that is how a line is cut: {out:?}");
                let lines = 1 + usize::from(first == b'\n') + usize::from(second == b'\n');
                assert_eq!(out.lines().count(), lines, "{first:#x} {second:#x}");
            }
        }
    }
}
