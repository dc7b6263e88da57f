//! The hypervisor's log: defmt frames, one per line, in hex: `[hyp] ~…` on the console, or on a UART of its own.
//!
//! A frame is built in the CPU's own buffer, so CPUs never mix; a record that a guest can cause goes through its CPU's
//! allowance, and what was held back is counted and told.
#![allow(unsafe_code)] // defmt's logger is an unsafe trait

use crate::arch::aarch64::percpu::PerCpu;
use crate::{console, state};
use core::cell::{Cell, UnsafeCell};
use hyp_min::vdev::lock::FlagLock;

/// Longest frame in bytes.
const FRAME: usize = 96;
const PREFIX: &[u8; 7] = b"[hyp] ~";
/// Records a CPU may write in a row.
const BURST: u32 = 8;
/// Records it gets back per second.
const REFILL_PER_SECOND: u64 = 4;
/// Asks for room in the log's own UART before a byte is given up.
const POLLS: u32 = 100_000;

/// One CPU's frame and allowance.
pub(crate) struct Buffer {
    bytes: [Cell<u8>; FRAME],
    len: Cell<usize>,
    spent: Cell<u32>,
    since: Cell<u64>,
    held_back: Cell<u32>,
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

    fn emit(&self) {
        let mut line = [0u8; PREFIX.len() + 2 * FRAME + 1];
        let Some(frame) = self.bytes.get(..self.len.get()) else { return };
        let mut len = 0;
        let mut put = |byte: u8| {
            if let Some(place) = line.get_mut(len) {
                *place = byte;
                len += 1;
            }
        };
        PREFIX.iter().for_each(|byte| put(*byte));
        for byte in frame {
            put(hex(byte.get() >> 4));
            put(hex(byte.get() & 0xF));
        }
        put(b'\n');
        let line = line.get(..len).unwrap_or(&[]);
        let Some(plan) = state::plan() else { return };
        let Some(uart) = console::log_uart(plan) else {
            console::say(line);
            console::flush(plan);
            return;
        };
        LOG_UART.with(|()| line.iter().all(|byte| (0..POLLS).any(|_| uart.send(*byte))));
    }
}

fn hex(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

static LOG_UART: FlagLock<()> = FlagLock::new(());
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
