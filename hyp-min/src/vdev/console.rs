//! One UART for all: turns the domains' byte rings into prefixed lines.
//!
//! A line on the wire starts with `[name] `, or with `[name]+ ` where it goes on after others had the wire. It ends as the
//! domain ended it, by LF or CR LF, or by CR CR LF where others needed the wire; so the domain's bytes can be had back. EL2's
//! own lines end by CR LF, as terminals want it. Only EL2 writes a prefix; what the domains write has been through `encode`.
//! Whole lines are preferred: one that is not complete waits a moment for its end, and one that is open keeps the wire until
//! it has been silent for a moment.
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
/// Idle times after which an open line gives way to others even if it grows byte by byte.
const DRIP: u64 = 5;
/// Longest output of one source byte: prefix, text, newline.
const STAGE: usize = (MAX_NAME + 4) + LONGEST + 1;

/// Where the bytes come from: the domains by index, then the hypervisor itself.
pub trait Sources {
    /// Output ring of domain `index`, `None` where it has no console.
    fn domain(&self, index: usize) -> Option<&Ring<OUTPUT>>;
    /// Name of domain `index`, at most `limits::MAX_NAME` bytes, printable.
    fn name(&self, index: usize) -> &[u8];
    /// The hypervisor's own ring: whole lines (`Ring::push_all`), prefix and newline included, written out as they are.
    /// `None` where it has another UART.
    fn own(&self) -> Option<&Ring<OUTPUT>>;
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
    /// Counter when its owner took the wire.
    taken: u64,
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
    /// Whose byte the stage holds; `None`: the hypervisor's.
    staged: Option<usize>,
}

impl Mux {
    /// A multiplexer that holds nothing back. `idle_ticks`: counter ticks after which a silent open line may be cut (20 ms).
    pub const fn new(idle_ticks: u64) -> Self {
        Self {
            idle_ticks,
            hold_ticks: 0,
            wire: Wire::Free,
            grown: 0,
            taken: 0,
            length: 0,
            released: false,
            own_before: false,
            next: 0,
            sources: [const { Source { encoder: Encoder::new(), cut: false, seen: 0, since: 0 } }; MAX_DOMAINS],
            stage: [0; STAGE],
            stage_from: 0,
            stage_to: 0,
            staged: None,
        }
    }

    /// The silence after which an open line may be cut, and the time a line that is not complete is held back; 0 where
    /// nobody would call again at [`Left::Until`].
    pub fn set_patience(&mut self, idle_ticks: u64, hold_ticks: u64) {
        (self.idle_ticks, self.hold_ticks) = (idle_ticks, hold_ticks);
    }

    /// Whether the UART has yet to take a byte of domain `index` or of the hypervisor that is in no ring any more.
    pub fn is_staged_for(&self, index: usize) -> bool {
        self.stage_from < self.stage_to && self.staged.is_none_or(|owner| owner == index)
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
                _ => sources.own().is_some_and(|ring| !ring.is_empty()),
            };
            if more && self.length < LONG_LINE {
                self.take(self.wire, sources, now);
                continue;
            }
            // An empty ring, or a long line: look who else wants the wire.
            let others = self.others(sources, count, now, released);
            // Silent for a moment, or dripping for several.
            let patience = self.grown.wrapping_add(self.idle_ticks);
            let patience = patience.min(self.taken.wrapping_add(DRIP * self.idle_ticks));
            let idle = released || others.pressing || now >= patience;
            match others.due {
                Due::Now if more || idle => self.cut(),
                _ if more => self.length = 0,
                Due::Now => return Left::Until(patience),
                Due::At(at) => return Left::Until(at),
                Due::Never => return Left::Nothing,
            }
        }
        if self.flush(sink) { Left::More } else { Left::Room }
    }

    /// Hands the stage to `sink`. False where something is left.
    #[inline(always)]
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
        let own = sources.own().is_some_and(|ring| !ring.is_empty());
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
        if let Some(own) = sources.own().filter(|own| self.wire != Wire::Own && !own.is_empty()) {
            others = Others { due: Due::Now, pressing: own.len() > OUTPUT / 2 };
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
        b"\r\r\n".iter().for_each(|byte| self.put(*byte));
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
                let Some(byte) = sources.own().and_then(Ring::pop) else { return };
                if self.wire != Wire::Own {
                    self.taken = now;
                }
                self.wire = Wire::Own;
                self.staged = None;
                self.grow(now);
                if byte == b'\n' {
                    self.put(b'\r');
                }
                self.put(byte);
                if byte == b'\n' {
                    self.end_line();
                }
            }
            Wire::Domain(index) => {
                let byte = sources.domain(index).and_then(Ring::pop);
                let (Some(byte), Some(source)) = (byte, self.sources.get_mut(index)) else { return };
                source.seen = 0;
                if self.wire == wire && source.encoder.is_plain(byte) {
                    self.grow(now);
                    self.staged = Some(index);
                    return self.put(byte);
                }
                let text = source.encoder.feed(byte);
                self.grow(now);
                if text.is_nothing() {
                    return;
                }
                self.staged = Some(index);
                if self.wire != Wire::Domain(index) {
                    self.taken = now;
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

    #[inline(always)]
    fn put(&mut self, byte: u8) {
        if let Some(slot) = self.stage.get_mut(self.stage_to) {
            *slot = byte;
            self.stage_to += 1;
        }
    }
}

#[cfg(test)]
mod tests;
