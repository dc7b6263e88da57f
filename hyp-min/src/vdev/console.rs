//! One UART for all: turns the domains' byte rings into prefixed lines.
//!
//! A line on the wire starts with `[name] `, or with `[name]+ ` where it goes on after others had the wire. Only EL2 writes
//! a prefix; what the domains write has been through `encode`. Whole lines are preferred: one that is not complete waits a
//! moment for its end, and one that is open keeps the wire until it has been silent for a moment.
//!
//! Works on rings alone: who calls it, and what a UART is, it does not know. Nothing is waited for and no loop is longer
//! than a constant; a full UART ends the call.

use super::encode::{Encoder, LONGEST};
use super::ring::Ring;
use cofferdam_plan::limits::{MAX_DOMAINS, MAX_NAME};

/// Bytes of output a domain can have waiting.
pub const OUTPUT: usize = 2048;
/// Bytes of input that can wait behind a domain's receive FIFO.
pub const INPUT: usize = 256;
/// Bytes taken from the rings by one call of [`Mux::drain`]: what one exit may cost for the others' sake.
pub const PER_CALL: usize = 64;
/// A line this long gives way to others that wait.
const LONG_LINE: u32 = 512;
/// Longest output of one source byte: prefix, text, newline.
const STAGE: usize = (MAX_NAME + 4) + LONGEST + 1;

/// Where the bytes come from: the domains by index, then the hypervisor itself.
pub trait Sources {
    /// Output ring of domain `index`, `None` where it has no console.
    fn domain(&self, index: usize) -> Option<&Ring<OUTPUT>>;
    /// Name of domain `index`, at most `limits::MAX_NAME` bytes, printable.
    fn name(&self, index: usize) -> &[u8];
    /// The hypervisor's own ring: whole lines (`Ring::push_all`), prefix and newline included, written out as they are.
    fn own(&self) -> &Ring<OUTPUT>;
    /// Number of domains, at most `limits::MAX_DOMAINS`.
    fn count(&self) -> usize;
}

/// Why a call of [`Mux::drain`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Nothing waits.
    Nothing,
    /// The UART is full: call when it has room.
    Room,
    /// The bound of one call: call again at the next occasion.
    More,
    /// Somebody waits for the end of a line: call at this counter value, unless something brings an earlier call.
    Until(u64),
}

/// Who has the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wire {
    /// At the start of a line.
    Free,
    /// In a line of the hypervisor.
    Own,
    /// In a line of this domain.
    Domain(usize),
}

/// What is kept of one domain.
#[derive(Clone, Copy, Debug)]
struct Source {
    encoder: Encoder,
    /// Its line was cut: the next piece continues it.
    cut: bool,
    /// Bytes of an incomplete line that were waiting at the last look, and the counter when they became so many.
    seen: u16,
    since: u64,
}

/// Whether a domain should have the wire.
enum Due {
    /// It has nothing to say.
    Never,
    /// Its line is not complete: then, if nothing more comes.
    At(u64),
    /// Now.
    Now,
}

/// What those want that do not have the wire.
struct Others {
    due: Due,
    /// One of them has a ring more than half full.
    pressing: bool,
}

/// The multiplexer: one per physical UART, used by one CPU at a time (a try-lock).
#[derive(Debug)]
pub struct Mux {
    idle_ticks: u64,
    hold_ticks: u64,
    wire: Wire,
    /// Counter when the line on the wire last grew.
    grown: u64,
    /// Source bytes of the line on the wire since it last took the wire.
    length: u32,
    /// No patience in the next call.
    released: bool,
    /// The hypervisor had the last line.
    own_before: bool,
    /// Whose turn is next.
    next: usize,
    sources: [Source; MAX_DOMAINS],
    stage: [u8; STAGE],
    stage_from: usize,
    stage_to: usize,
}

impl Mux {
    /// A multiplexer that holds nothing back. `idle_ticks`: counter ticks after which a silent open line may be cut (20 ms).
    pub const fn new(idle_ticks: u64) -> Self {
        Self {
            idle_ticks,
            hold_ticks: 0,
            wire: Wire::Free,
            grown: 0,
            length: 0,
            released: false,
            own_before: false,
            next: 0,
            sources: [const { Source { encoder: Encoder::new(), cut: false, seen: 0, since: 0 } }; MAX_DOMAINS],
            stage: [0; STAGE],
            stage_from: 0,
            stage_to: 0,
        }
    }

    /// The silence after which an open line may be cut, and the time a line that is not complete is held back; 0 where
    /// nobody would call again at [`Left::Until`].
    pub fn set_patience(&mut self, idle_ticks: u64, hold_ticks: u64) {
        (self.idle_ticks, self.hold_ticks) = (idle_ticks, hold_ticks);
    }

    /// The next call has no patience: an open line gives way, an incomplete one goes out. For power-off.
    pub fn release(&mut self) {
        self.released = true;
    }

    /// Moves bytes from the rings to `sink` until that says false (no room), nothing may go out now, or [`PER_CALL`]
    /// bytes have been taken. `now` is the counter.
    pub fn drain(&mut self, sources: &impl Sources, now: u64, sink: &mut impl FnMut(u8) -> bool) -> Left {
        let count = sources.count().min(MAX_DOMAINS);
        let released = core::mem::take(&mut self.released);
        for _ in 0..PER_CALL {
            if !self.flush(sink) {
                return Left::Room;
            }
            if self.wire == Wire::Free {
                self.length = 0;
                match self.choose(sources, count, now, released) {
                    Ok(wire) => self.take(wire, sources, now),
                    Err(left) => return left,
                }
                continue;
            }
            let more = match self.wire {
                Wire::Domain(index) => sources.domain(index).is_some_and(|ring| !ring.is_empty()),
                _ => !sources.own().is_empty(),
            };
            if more && self.length < LONG_LINE {
                self.take(self.wire, sources, now);
                continue;
            }
            // An empty ring, or a long line: look who else wants the wire.
            let others = self.others(sources, count, now, released);
            let idle = released || others.pressing || now.wrapping_sub(self.grown) >= self.idle_ticks;
            match others.due {
                Due::Now if more || idle => self.cut(),
                _ if more => self.length = 0,
                Due::Now => return Left::Until(self.grown.wrapping_add(self.idle_ticks)),
                Due::At(at) => return Left::Until(at),
                Due::Never => return Left::Nothing,
            }
        }
        if self.flush(sink) { Left::More } else { Left::Room }
    }

    /// Hands the stage to `sink`. False where something is left.
    fn flush(&mut self, sink: &mut impl FnMut(u8) -> bool) -> bool {
        for _ in 0..STAGE {
            if self.stage_from >= self.stage_to {
                break;
            }
            match self.stage.get(self.stage_from) {
                Some(byte) if !sink(*byte) => return false,
                _ => self.stage_from += 1,
            }
        }
        (self.stage_from, self.stage_to) = (0, 0);
        true
    }

    /// Who gets a free wire: the hypervisor before the domains, but not twice in a row against them; the domains in turn.
    fn choose(&mut self, sources: &impl Sources, count: usize, now: u64, released: bool) -> Result<Wire, Left> {
        let own = !sources.own().is_empty();
        if own && !self.own_before {
            return Ok(Wire::Own);
        }
        let mut left = Left::Nothing;
        for step in 0..count {
            let index = (self.next + step) % count;
            match self.due(index, sources, now, released) {
                Due::Now => return Ok(Wire::Domain(index)),
                Due::At(at) => left = Left::Until(at),
                Due::Never => {}
            }
        }
        if own { Ok(Wire::Own) } else { Err(left) }
    }

    /// Whether domain `index` has something that should go out.
    fn due(&mut self, index: usize, sources: &impl Sources, now: u64, released: bool) -> Due {
        let (Some(ring), Some(source)) = (sources.domain(index), self.sources.get_mut(index)) else {
            return Due::Never;
        };
        let len = ring.len();
        if len == 0 {
            return Due::Never;
        }
        if released || self.hold_ticks == 0 || len > OUTPUT / 2 || ring.has_line() {
            return Due::Now;
        }
        if usize::from(source.seen) != len {
            (source.seen, source.since) = (len as u16, now);
        }
        if now.wrapping_sub(source.since) >= self.hold_ticks {
            return Due::Now;
        }
        Due::At(source.since.wrapping_add(self.hold_ticks))
    }

    /// Who beside the wire's owner wants it.
    fn others(&mut self, sources: &impl Sources, count: usize, now: u64, released: bool) -> Others {
        let mut others = Others { due: Due::Never, pressing: false };
        if self.wire != Wire::Own && !sources.own().is_empty() {
            others = Others { due: Due::Now, pressing: sources.own().len() > OUTPUT / 2 };
        }
        let wire = self.wire;
        for index in (0..count).filter(|index| wire != Wire::Domain(*index)) {
            others.due = match (self.due(index, sources, now, released), others.due) {
                (Due::Never, due) | (_, due @ Due::Now) => due,
                (due, _) => due,
            };
            others.pressing |= sources.domain(index).is_some_and(|ring| ring.len() > OUTPUT / 2);
        }
        others
    }

    /// Takes the wire from its owner in mid-line.
    fn cut(&mut self) {
        if let Wire::Domain(index) = self.wire
            && let Some(source) = self.sources.get_mut(index)
        {
            source.cut = true;
        }
        self.put(b'\n');
        self.end_line();
    }

    fn end_line(&mut self) {
        self.own_before = self.wire == Wire::Own;
        if let Wire::Domain(index) = self.wire {
            self.next = index + 1;
        }
        self.wire = Wire::Free;
    }

    /// Takes one byte of `wire`'s ring and stages what it means.
    fn take(&mut self, wire: Wire, sources: &impl Sources, now: u64) {
        match wire {
            Wire::Free => {}
            Wire::Own => {
                let Some(byte) = sources.own().pop() else { return };
                self.wire = Wire::Own;
                self.grow(now);
                self.put(byte);
                if byte == b'\n' {
                    self.end_line();
                }
            }
            Wire::Domain(index) => {
                let byte = sources.domain(index).and_then(Ring::pop);
                let (Some(byte), Some(source)) = (byte, self.sources.get_mut(index)) else { return };
                source.seen = 0;
                let text = source.encoder.feed(byte);
                self.grow(now);
                if text.is_nothing() {
                    return;
                }
                self.open(index, sources.name(index));
                text.bytes().iter().for_each(|byte| self.put(*byte));
                if text.ends_line {
                    self.put(b'\n');
                    self.end_line();
                }
            }
        }
    }

    fn grow(&mut self, now: u64) {
        self.grown = now;
        self.length = self.length.saturating_add(1);
    }

    /// Makes the wire `index`'s, with its prefix, unless it is already.
    fn open(&mut self, index: usize, name: &[u8]) {
        if self.wire == Wire::Domain(index) {
            return;
        }
        self.wire = Wire::Domain(index);
        let cut = self.sources.get_mut(index).is_some_and(|source| core::mem::take(&mut source.cut));
        self.put(b'[');
        name.iter().take(MAX_NAME).for_each(|byte| self.put(*byte));
        self.put(b']');
        if cut {
            self.put(b'+');
        }
        self.put(b' ');
    }

    #[inline(never)]
    fn put(&mut self, byte: u8) {
        if let Some(slot) = self.stage.get_mut(self.stage_to) {
            *slot = byte;
            self.stage_to += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Random;
    use super::*;

    struct Board {
        rings: Vec<Option<Ring<OUTPUT>>>,
        own: Ring<OUTPUT>,
    }

    impl Sources for Board {
        fn domain(&self, index: usize) -> Option<&Ring<OUTPUT>> {
            self.rings.get(index)?.as_ref()
        }
        fn name(&self, index: usize) -> &[u8] {
            [&b"red"[..], b"green", b"blue"][index]
        }
        fn own(&self) -> &Ring<OUTPUT> {
            &self.own
        }
        fn count(&self) -> usize {
            self.rings.len()
        }
    }

    struct Bench {
        board: Board,
        mux: Mux,
        now: u64,
        out: Vec<u8>,
        left: Left,
    }

    impl Bench {
        fn new() -> Self {
            let board = Board { rings: vec![Some(Ring::new()), Some(Ring::new()), None], own: Ring::new() };
            Self { board, mux: Mux::new(20), now: 0, out: Vec::new(), left: Left::Nothing }
        }

        fn say(&mut self, index: usize, text: &[u8]) -> &mut Self {
            let ring = self.board.rings[index].as_ref().unwrap();
            for byte in text {
                ring.push(*byte);
            }
            self
        }

        fn log(&mut self, line: &str) -> &mut Self {
            assert!(self.board.own.push_all(line.as_bytes()));
            self
        }

        /// Drains as far as it goes at `now`.
        fn drain(&mut self) -> &mut Self {
            for _ in 0..10_000 {
                self.left = self.mux.drain(&self.board, self.now, &mut |byte| {
                    self.out.push(byte);
                    true
                });
                if self.left != Left::More {
                    return self;
                }
            }
            panic!("drain does not end");
        }

        fn text(&mut self) -> String {
            String::from_utf8(core::mem::take(&mut self.out)).expect("the wire carries UTF-8 only")
        }
    }

    fn alone(text: &[u8]) -> String {
        Bench::new().say(0, text).drain().text()
    }

    #[test]
    fn lines_get_their_prefix() {
        assert_eq!(alone(b"hello\nworld\n"), "[red] hello\n[red] world\n");
        assert_eq!(alone(b"\n"), "[red] \n");
        assert_eq!(alone(b"login: "), "[red] login: ", "an open line shows at once");
    }

    #[test]
    fn an_open_line_keeps_the_wire_until_it_is_silent() {
        let mut b = Bench::new();
        b.say(0, b"Hel").drain();
        b.say(1, b"ready\n").now = 19;
        b.drain();
        assert_eq!(b.left, Left::Until(20));
        b.say(0, b"lo\n").drain();
        assert_eq!(b.text(), "[red] Hello\n[green] ready\n");
    }

    #[test]
    fn a_silent_line_is_cut_and_continued() {
        let mut b = Bench::new();
        b.say(0, b"login: ").drain();
        b.say(1, b"ready\n").now = 20;
        b.drain();
        b.say(0, b"root\n").drain();
        b.say(0, b"next\n").drain();
        assert_eq!(b.text(), "[red] login: \n[green] ready\n[red]+ root\n[red] next\n");
    }

    #[test]
    fn an_incomplete_line_waits_for_its_end() {
        let mut b = Bench::new();
        b.mux.set_patience(20, 20);
        b.say(0, b"He").drain();
        assert_eq!((b.text().as_str(), b.left), ("", Left::Until(20)));
        b.say(1, b"ready\n").now = 10;
        b.drain();
        assert_eq!((b.text().as_str(), b.left), ("[green] ready\n", Left::Until(20)));
        b.say(0, b"llo").now = 19;
        b.drain();
        assert_eq!((b.text().as_str(), b.left), ("", Left::Until(39)), "it has grown");
        b.say(0, b"\n").drain();
        assert_eq!((b.text().as_str(), b.left), ("[red] Hello\n", Left::Nothing));
    }

    #[test]
    fn a_prompt_shows_after_a_moment_and_then_echoes_at_once() {
        let mut b = Bench::new();
        b.mux.set_patience(20, 20);
        b.say(0, b"login: ").drain();
        b.now = 20;
        b.drain();
        b.say(0, b"r").drain();
        assert_eq!(b.text(), "[red] login: r");
        b.say(1, b"x").now = 100;
        b.drain();
        assert_eq!((b.text().as_str(), b.left), ("", Left::Until(120)), "an incomplete line cuts nothing");
        b.now = 120;
        b.drain();
        assert_eq!(b.text(), "\n[green] x");
    }

    #[test]
    fn nothing_is_held_back_at_the_end() {
        let mut b = Bench::new();
        b.mux.set_patience(20, 20);
        b.say(0, b"dying").say(1, b"too").mux.release();
        b.drain();
        b.mux.release();
        b.drain();
        assert_eq!(b.text(), "[red] dying\n[green] too");
    }

    #[test]
    fn nobody_waits_so_nothing_is_cut() {
        let mut b = Bench::new();
        b.say(0, b"login: ").drain();
        b.now = 1_000_000;
        b.say(0, b"root\n").drain();
        assert_eq!(b.text(), "[red] login: root\n");
        assert_eq!(b.left, Left::Nothing);
    }

    #[test]
    fn a_ring_more_than_half_full_does_not_wait() {
        let mut b = Bench::new();
        b.say(0, b"login: ").drain();
        b.say(1, &[b"x".repeat(OUTPUT / 2), b"\n".to_vec()].concat()).drain();
        b.say(0, b"root\n").drain();
        let text = b.text();
        assert!(text.starts_with("[red] login: \n[green] xxx"), "{text}");
        assert!(text.ends_with("x\n[red]+ root\n"), "{text}");
    }

    #[test]
    fn released_lines_give_way_at_once() {
        let mut b = Bench::new();
        b.say(0, b"dying").drain();
        b.log("[hyp] end\n").mux.release();
        b.drain();
        assert_eq!(b.text(), "[red] dying\n[hyp] end\n");
    }

    #[test]
    fn the_hypervisor_goes_first_but_not_alone() {
        let mut b = Bench::new();
        b.say(0, b"a\nb\n").log("[hyp] 1\n[hyp] 2\n[hyp] 3\n").drain();
        assert_eq!(b.text(), "[hyp] 1\n[red] a\n[hyp] 2\n[red] b\n[hyp] 3\n");
    }

    #[test]
    fn domains_take_turns_by_line() {
        let mut b = Bench::new();
        b.say(0, b"a\nb\nc\n").say(1, b"1\n2\n").drain();
        assert_eq!(b.text(), "[red] a\n[green] 1\n[red] b\n[green] 2\n[red] c\n");
    }

    #[test]
    fn an_endless_line_does_not_starve_others() {
        let mut b = Bench::new();
        let mut calls = 0;
        b.say(1, b"victim\n");
        for _ in 0..100 {
            b.say(0, &[b'x'; 64]);
            b.mux.drain(&b.board, b.now, &mut |byte| {
                b.out.push(byte);
                true
            });
            calls += 1;
            if String::from_utf8_lossy(&b.out).contains("\n[green] victim\n[red]+ x") {
                break;
            }
        }
        assert!(calls <= 10, "{calls}");
    }

    #[test]
    fn a_call_is_bounded_and_a_full_uart_loses_nothing() {
        let mut b = Bench::new();
        b.say(0, &[0x1B; 1000]);
        let mut taken = 0;
        b.mux.drain(&b.board, 0, &mut |_| {
            taken += 1;
            true
        });
        assert!(taken <= PER_CALL * 4 + 40, "{taken}");
        // A UART that takes one byte per call.
        let mut b = Bench::new();
        b.say(0, "a\x1b\u{20ac}\r\n".as_bytes()).say(1, b"1\n");
        for _ in 0..100 {
            let mut room = 1;
            b.mux.drain(&b.board, 0, &mut |byte| {
                if room == 0 {
                    return false;
                }
                room -= 1;
                b.out.push(byte);
                true
            });
        }
        assert_eq!(b.text(), "[red] a\\x1B\u{20ac}\n[green] 1\n");
    }

    /// Splits what was on the wire back into domains.
    fn sort(text: &str) -> [String; 2] {
        let mut streams = [String::new(), String::new()];
        for line in text.split_inclusive('\n') {
            let domain = usize::from(line.starts_with("[green]"));
            let (prefix, rest) =
                line.split_once("] ").or_else(|| line.split_once("]+ ")).expect("every line has a prefix");
            assert!(prefix == "[red" || prefix == "[green", "{line}");
            if line[prefix.len()..].starts_with("]+") {
                assert_eq!(streams[domain].pop(), Some('\n'), "a continuation follows a cut");
            }
            streams[domain].push_str(rest);
        }
        streams
    }

    #[test]
    fn both_streams_arrive_whole_whatever_the_order() {
        let mut random = Random::new(11);
        for round in 0..200 {
            let mut b = Bench::new();
            b.mux.set_patience(20, round % 3 * 10);
            let mut sent = [String::new(), String::new()];
            for _ in 0..300 {
                let dice = random.next();
                let who = dice as usize & 1;
                let piece: String =
                    (0..dice >> 8 & 31).map(|i| if (dice >> (i + 16)) & 7 == 0 { '\n' } else { 'a' }).collect();
                if OUTPUT - b.board.rings[who].as_ref().unwrap().len() > piece.len() {
                    b.say(who, piece.as_bytes());
                    sent[who].push_str(&piece);
                }
                b.now += dice >> 2 & 15;
                let mut room = dice >> 40 & 127;
                b.mux.drain(&b.board, b.now, &mut |byte| {
                    if room == 0 {
                        return false;
                    }
                    room -= 1;
                    b.out.push(byte);
                    true
                });
            }
            b.say(0, b"\n").say(1, b"\n");
            sent.iter_mut().for_each(|s| s.push('\n'));
            b.mux.release();
            b.drain();
            b.now += 100;
            b.drain();
            assert_eq!(sort(&b.text()), sent);
        }
    }

    #[test]
    fn no_bytes_can_forge_a_prefix() {
        let mut random = Random::new(5);
        for _ in 0..300 {
            let mut b = Bench::new();
            let noise: Vec<u8> = (0..1500).map(|_| random.next() as u8).collect();
            b.say(0, &noise).say(0, b"\n[green] no\r[green] no\x85[green] no\n").drain();
            let text = b.text();
            assert!(text.lines().all(|line| line.starts_with("[red] ")), "{text:?}");
            assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
        }
    }
}
