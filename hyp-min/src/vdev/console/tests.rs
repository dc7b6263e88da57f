//! The multiplexer, held against its rules with rings and a UART that takes as much as it likes.

use super::*;
use crate::vdev::fake::Random;

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
    fn own(&self) -> Option<&Ring<OUTPUT>> {
        Some(&self.own)
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

    /// What came out, line ends as a reader sees them.
    fn text(&mut self) -> String {
        self.wire().replace('\r', "")
    }

    fn wire(&mut self) -> String {
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
        if String::from_utf8_lossy(&b.out).contains("\r\r\n[green] victim\n[red]+ x") {
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
    let (mut streams, mut cut) = ([String::new(), String::new()], [false; 2]);
    for line in text.split_inclusive('\n') {
        let domain = usize::from(line.starts_with("[green]"));
        let (prefix, rest) = line.split_once("] ").or_else(|| line.split_once("]+ ")).expect("every line has a prefix");
        assert!(prefix == "[red" || prefix == "[green", "{line}");
        let continues = line[prefix.len()..].starts_with("]+");
        assert_eq!(continues, core::mem::take(&mut cut[domain]), "a continuation follows a cut: {line}");
        let whole = rest.strip_suffix("\r\r\n");
        cut[domain] = whole.is_some();
        streams[domain].push_str(whole.unwrap_or(rest));
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
        assert_eq!(sort(&b.wire()), sent);
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

#[test]
fn a_line_that_drips_gives_way() {
    let mut bench = Bench::new();
    bench.mux.set_patience(20, 0);
    bench.say(0, b"a").drain();
    bench.say(1, b"whole line\n");
    for step in 1..=20u64 {
        bench.now = step * 19;
        bench.say(0, b"a").drain();
        if String::from_utf8_lossy(&bench.out).contains("[green] whole line\n") {
            assert!(bench.now <= (DRIP + 1) * 20, "only at {}", bench.now);
            return;
        }
    }
    panic!("never: {}", String::from_utf8_lossy(&bench.out));
}

#[test]
fn what_a_full_uart_leaves_is_its_owners_business() {
    let mut bench = Bench::new();
    assert!(!bench.mux.is_staged_for(0));
    bench.say(0, b"x");
    assert_eq!(bench.mux.drain(&bench.board, 0, &mut |_| false), Left::Room);
    assert!(bench.mux.is_staged_for(0) && !bench.mux.is_staged_for(1));
    bench.drain();
    assert!(!bench.mux.is_staged_for(0));
    bench.say(0, b"\n").drain();
    bench.log("[hyp] x\n");
    assert_eq!(bench.mux.drain(&bench.board, 0, &mut |_| false), Left::Room);
    assert!(bench.mux.is_staged_for(0) && bench.mux.is_staged_for(1));
}
