//! A domain's text on the wire, back into the bytes it wrote: the inverse of the hypervisor's `vdev/encode.rs`.
//!
//! `\xNN` is a byte. A backslash before anything else is itself, for the hypervisor escapes an `x` that a domain writes behind
//! one. A line ends as the domain ended it; where others interrupted it, nothing was written. Pure, one state per domain.

use crate::wire::{LineEnd, Part};

/// What is held of one domain's text.
#[derive(Default)]
pub(crate) struct Raw {
    /// A backslash and what followed it, while that may become an escape: at most three bytes.
    held: Vec<u8>,
}

impl Raw {
    /// Adds what `part` stands for to `out`.
    pub(crate) fn feed(&mut self, part: Part<'_>, out: &mut Vec<u8>) {
        match part {
            Part::Opens { .. } | Part::Ends(LineEnd::Cut) => {}
            Part::Text(text) => text.iter().for_each(|byte| self.byte(*byte, out)),
            Part::Ends(end) => {
                out.append(&mut self.held);
                out.extend_from_slice(if end == LineEnd::Feed { b"\n" } else { b"\r\n" });
            }
        }
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        match (self.held.as_slice(), byte) {
            ([], b'\\') | ([b'\\'], b'x') => self.held.push(byte),
            ([], _) => out.push(byte),
            ([_, _], _) if digit(byte).is_some() => self.held.push(byte),
            ([_, _, high], low) if digit(low).is_some() => {
                let value = digit(*high).unwrap_or(0) << 4 | digit(low).unwrap_or(0);
                out.push(value as u8);
                self.held.clear();
            }
            _ => {
                out.append(&mut self.held);
                self.byte(byte, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Heard, Wire};
    use hyp_min::vdev::console::{Left, Mux, OUTPUT, Sources};
    use hyp_min::vdev::ring::Ring;

    fn raw(text: &str) -> Vec<u8> {
        let (mut raw, mut out) = (Raw::default(), Vec::new());
        raw.feed(Part::Text(text.as_bytes()), &mut out);
        out
    }

    #[test]
    fn escapes_and_backslashes() {
        assert_eq!(raw(r"a\x1B[0m\x5Cx"), b"a\x1b[0m\\x");
        assert_eq!(raw(r"C:\dir\\n \\x78y\"), b"C:\\dir\\\\n \\xy", "the last may begin an escape");
        assert_eq!(raw(r"\xG\x1\x0A"), b"\\xG\\x1\n", "what the hypervisor never writes stays as it is");
    }

    /// The hypervisor's own multiplexer between two domains and the wire.
    struct Board {
        rings: [Ring<OUTPUT>; 2],
        log: Ring<OUTPUT>,
    }

    impl Sources for Board {
        fn domain(&self, index: usize) -> Option<&Ring<OUTPUT>> {
            self.rings.get(index)
        }
        fn name(&self, index: usize) -> &[u8] {
            [&b"red"[..], b"green"][index]
        }
        fn own(&self) -> Option<&Ring<OUTPUT>> {
            Some(&self.log)
        }
        fn count(&self) -> usize {
            2
        }
    }

    /// A small generator (Knuth's MMIX constants), so that a failure can be repeated.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % sides
        }
    }

    /// Bytes that mean something to one of the two sides, and every other byte.
    const PIECES: [&[u8]; 14] = [
        b"\\",
        b"x",
        b"\\x",
        b"1B",
        b"\r",
        b"\n",
        b"\r\n",
        b"\x1b[2K",
        b"[green] ",
        b"]+ ",
        "\u{e9}".as_bytes(),
        "\u{2028}".as_bytes(),
        b"\xe2\x82",
        b"text ",
    ];

    /// Both domains write whatever they like, others cut in, the wire comes in pieces of any length: what comes out is what they
    /// wrote, byte for byte.
    #[test]
    fn what_a_domain_wrote_comes_back_through_the_whole_way() {
        let names = ["red".to_string(), "green".to_string()];
        for seed in 0..400 {
            let mut dice = Dice(seed);
            let board = Board { rings: [Ring::new(), Ring::new()], log: Ring::new() };
            let mut mux = Mux::new(20);
            mux.set_patience(20, dice.roll(3) as u64 * 10);
            let (mut wire, mut sent, mut now) = (Vec::new(), [Vec::new(), Vec::new()], 0);
            for round in 0..300 {
                let who = dice.roll(2);
                let any = [dice.roll(256) as u8];
                let piece = if dice.roll(4) == 0 { &any[..] } else { PIECES[dice.roll(PIECES.len())] };
                // The end of all: a character or a line that nothing ends stays with the hypervisor.
                let piece = if round < 298 { piece } else { b"\n" };
                let who = if round < 298 { who } else { round - 298 };
                assert!(board.rings[who].push_all(piece));
                sent[who].extend_from_slice(piece);
                if dice.roll(20) == 0 {
                    board.log.push_all(b"[hyp] ~00\n");
                }
                now += dice.roll(15) as u64;
                mux.drain(&board, now, &mut |byte| {
                    wire.push(byte);
                    true
                });
            }
            for _ in 0..100 {
                mux.release();
                let left = mux.drain(&board, now, &mut |byte| {
                    wire.push(byte);
                    true
                });
                if left == Left::Nothing {
                    break;
                }
            }
            let (mut got, mut raws) = ([Vec::new(), Vec::new()], [Raw::default(), Raw::default()]);
            let (mut parts, mut rest) = (Wire::new(&names), wire.as_slice());
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(rest.len().min(1 + dice.roll(40)));
                parts.feed(piece, &mut |heard| match heard {
                    Heard::Domain(index, part) => raws[index].feed(part, &mut got[index]),
                    Heard::Line(line) => assert_eq!(line, "[hyp] ~00"),
                });
                rest = more;
            }
            assert!(got == sent, "seed {seed}\n{:?}", String::from_utf8_lossy(&wire));
        }
    }
}
