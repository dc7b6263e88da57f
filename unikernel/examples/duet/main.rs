//! Two vCPUs that play ping-pong: each stroke is one SGI, the score is a shared atomic. What is typed meanwhile is echoed,
//! line by line.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use unikernel::console::console;
use unikernel::psci::Affinity;
use unikernel::{clock, cpu, irq, platform, println, psci};

unikernel::entry!(main);

const STROKES: u32 = 1000;
const BALL: u32 = 1;
const LISTEN: Duration = Duration::from_millis(2500);

/// Strokes so far: vCPU 1 makes the odd ones, vCPU 0 the even ones.
static SCORE: AtomicU32 = AtomicU32::new(0);

fn main() {
    println!("duet: vCPU 0 of {} is up", platform::platform().cpus().len());
    if irq::register(BALL, hit).is_err() || psci::start(1, second).is_err() {
        return println!("duet: no second vCPU, nobody to play with");
    }
    irq::enable(BALL);
    // vCPU 1 serves when it is ready. Sleeping is enough to play: a stroke is an interrupt handler.
    let end = clock::ticks() + clock::to_ticks(LISTEN);
    let mut told = false;
    let mut line = Line { bytes: [0; 64], len: 0 };
    while clock::ticks() < end {
        clock::sleep(Duration::from_millis(20));
        if !told && SCORE.load(Ordering::Acquire) >= STROKES && is_off(1) {
            told = true;
            println!("duet: {STROKES} strokes played, {} by each", STROKES / 2);
        }
        line.echo();
    }
    println!("duet: {}", if told { "done" } else { "the ball was lost" });
}

fn is_off(index: usize) -> bool {
    platform::platform().cpus().get(index).is_some_and(|mpidr| psci::affinity_info(*mpidr) == Ok(Affinity::Off))
}

fn second() {
    println!("duet: vCPU 1 is up (affinity {:#x}) and serves", cpu::mpidr());
    irq::enable(BALL);
    SCORE.store(1, Ordering::Release);
    irq::send(0, BALL);
    while SCORE.load(Ordering::Acquire) < STROKES {
        clock::sleep(Duration::from_millis(5));
    }
    println!("duet: vCPU 1 is off");
}

/// Takes the ball and returns it, until the last stroke is made.
fn hit(_: u32) {
    if SCORE.fetch_add(1, Ordering::AcqRel) + 1 < STROKES {
        irq::send(1 - cpu::index(), BALL);
    }
}

/// A line of input as it grows.
struct Line {
    bytes: [u8; 64],
    len: usize,
}

impl Line {
    fn echo(&mut self) {
        let Some(console) = console() else { return };
        while let Some(byte) = console.try_read() {
            if byte == b'\r' || byte == b'\n' {
                let text = core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("(not text)");
                println!("duet: you said {text}");
                self.len = 0;
            } else if let Some(slot) = self.bytes.get_mut(self.len) {
                *slot = byte;
                self.len += 1;
            }
        }
    }
}
