//! The hypervisor's log: defmt frames, one per line, in hex: `[hyp] ~…` on the console, or on a UART of its own.
//!
//! A frame is built in the CPU's own buffer, so CPUs never mix; a record that a guest can cause goes through its CPU's
//! allowance, and what was held back is counted and told. A record that finds no room is counted and told too; half of
//! the room is for domains' last records alone.
#![allow(unsafe_code)] // defmt's logger is an unsafe trait

use crate::arch::aarch64::percpu::PerCpu;
use crate::{console, state};
use core::cell::{Cell, UnsafeCell};
use core::sync::atomic::{AtomicU32, Ordering};

/// Longest frame in bytes.
const FRAME: usize = 96;
const PREFIX: &[u8; 7] = b"[hyp] ~";
/// Records a CPU may write in a row.
const BURST: u32 = 8;
/// Records it gets back per second.
const REFILL_PER_SECOND: u64 = 4;

/// One CPU's frame and allowance.
pub(crate) struct Buffer {
    bytes: [Cell<u8>; FRAME],
    len: Cell<usize>,
    spent: Cell<u32>,
    since: Cell<u64>,
    held_back: Cell<u32>,
    last: Cell<bool>,
}

impl Buffer {
    /// Empty, full allowance.
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [const { Cell::new(0) }; FRAME],
            len: Cell::new(0),
            spent: Cell::new(0),
            since: Cell::new(0),
            held_back: Cell::new(0),
            last: Cell::new(false),
        }
    }

    /// Whether this CPU's guest may cause another record now. `Some` says how many were held back before.
    pub(crate) fn permit(&self) -> Option<u32> {
        let now = console::now();
        let step = (console::frequency() / REFILL_PER_SECOND).max(1);
        let back = now.wrapping_sub(self.since.get()) / step;
        if back > 0 {
            self.spent.set(self.spent.get().saturating_sub(back.min(u64::from(BURST)) as u32));
            self.since.set(now);
        }
        if self.spent.get() >= BURST {
            self.held_back.set(self.held_back.get().saturating_add(1));
            return None;
        }
        self.spent.set(self.spent.get() + 1);
        Some(self.held_back.take())
    }

    fn push(&self, bytes: &[u8]) {
        for byte in bytes {
            // A frame that is too long keeps counting and is dropped as a whole.
            if let Some(cell) = self.bytes.get(self.len.get()) {
                cell.set(*byte);
            }
            self.len.set(self.len.get() + 1);
        }
    }

    /// What this CPU logs from now on is about a domain's end, or EL2's own: it may use the room kept for that. Or no longer.
    pub(crate) fn last_words(&self, on: bool) {
        self.last.set(on);
    }

    fn emit(&self) {
        let Some(plan) = state::plan() else { return };
        let keep_room = state::is_open_to_guests() && !self.last.get();
        tell_losses(keep_room);
        let frame = self.bytes.get(..self.len.get());
        if !frame.is_some_and(|frame| write_out(frame, keep_room)) {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        console::flush(plan);
    }
}

/// Records that had no room.
static LOST: AtomicU32 = AtomicU32::new(0);

/// Says how many records were lost, if any were and there is room for saying so.
pub(crate) fn tell_losses(keep_room: bool) {
    let lost = LOST.swap(0, Ordering::Relaxed);
    if lost != 0 && !console::say_number(b"[hyp] records lost: ", lost, keep_room) {
        LOST.fetch_add(lost, Ordering::Relaxed);
    }
}

/// One frame as a line. Answers whether it had room.
fn write_out(frame: &[Cell<u8>], keep_room: bool) -> bool {
    let mut line = [0u8; PREFIX.len() + 2 * FRAME + 1];
    let nibbles = frame.iter().flat_map(|byte| [hex(byte.get() >> 4), hex(byte.get() & 0xF)]);
    let text = PREFIX.iter().copied().chain(nibbles).chain([b'\n']);
    let mut len = 0;
    for (place, byte) in line.iter_mut().zip(text) {
        *place = byte;
        len += 1;
    }
    let line = line.get(..len).unwrap_or(&[]);
    console::say(line, keep_room)
}

fn hex(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

/// A zero padded name of the plan's. Names are ASCII; the general way to find that out is many times as long.
pub(crate) fn text(name: &[u8]) -> &str {
    let len = name.iter().take_while(|byte| matches!(byte, 1..=0x7F)).count();
    let name = name.get(..len).unwrap_or(&[]);
    // SAFETY: all ASCII.
    unsafe { core::str::from_utf8_unchecked(name) }
}

static BOOT: BootBuffer = BootBuffer(UnsafeCell::new(Buffer::new()));

struct BootBuffer(UnsafeCell<Buffer>);
// SAFETY: used only while TPIDR_EL2 is 0: by the boot CPU before it has set up its PerCpu, or for good where the plan does
// not name it. Others set theirs up before they can log.
unsafe impl Sync for BootBuffer {}

fn with_buffer(work: impl FnOnce(&Buffer)) {
    match PerCpu::current() {
        Some(cpu) => work(&cpu.log),
        None => {
            let buffer = BOOT.0.get();
            // SAFETY: see `BootBuffer`; only shared references are ever made.
            work(unsafe { &*buffer });
        }
    }
}

#[defmt::global_logger]
struct Log;

// SAFETY: EL2 does not nest and a frame never leaves its CPU, so acquire and release pair up by themselves.
unsafe impl defmt::Logger for Log {
    fn acquire() {
        with_buffer(|buffer| buffer.len.set(0));
    }

    unsafe fn flush() {}

    unsafe fn release() {
        with_buffer(Buffer::emit);
    }

    unsafe fn write(bytes: &[u8]) {
        with_buffer(|buffer| buffer.push(bytes));
    }
}
