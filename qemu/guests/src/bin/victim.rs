//! The guest that must not notice anything: ticks at absolute deadlines, talks, owns an alarm and some memory.
//!
//! A tick is missed when it is handled after the next one was due. Interrupts it did not ask for are counted: every SGI is
//! enabled, so one sent from outside would arrive.
#![no_std]
#![no_main]

use attackers::watched::{self, Watched};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use unikernel::mmio::Registers;
use unikernel::{clock, irq, platform, println};

unikernel::entry!(main);

/// SGIs a domain may use; the hypervisor keeps the last one.
const SGIS: u32 = 15;
/// PL031 registers (DDI 0224): data, match, interrupt mask, clear.
const RTC_DR: usize = 0x00;
const RTC_MR: usize = 0x04;
const RTC_IMSC: usize = 0x10;
const RTC_ICR: usize = 0x1C;

static ALARMS: AtomicU32 = AtomicU32::new(0);
static STRAYS: AtomicU32 = AtomicU32::new(0);
static CANARY: [AtomicU64; 512] = [const { AtomicU64::new(0) }; 512];

fn rtc() -> Option<(Registers, u32)> {
    let device = platform::platform().device("arm,pl031", 0)?;
    Some((Registers::new(device.region), device.intid?))
}

fn alarm(_: u32) {
    if let Some((registers, _)) = rtc() {
        registers.write(RTC_ICR, 1);
        registers.write(RTC_IMSC, 0);
        ALARMS.fetch_add(1, Ordering::Relaxed);
    }
}

fn stray(_: u32) {
    STRAYS.fetch_add(1, Ordering::Relaxed);
}

/// The first page of this domain's memory, which the program does not use: what its device tree or nothing is in.
fn first_page(index: usize) -> u64 {
    Registers::new(platform::platform().memory).read64(index * 8)
}

fn pattern(index: usize) -> u64 {
    (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn main() {
    let number = |key, or| platform::platform().argument(key).and_then(|text| text.parse().ok()).unwrap_or(or);
    let (ticks, period) = (number("ticks", 20), Duration::from_millis(number("period", 100)));
    // With a UART of its own there is nobody to say whose line it is.
    let who = if platform::platform().argument("bare").is_some() { "[victim] " } else { "" };
    println!("{who}victim: {ticks} ticks of {} ms begin", period.as_millis());
    for (index, word) in CANARY.iter().enumerate() {
        word.store(pattern(index), Ordering::Relaxed);
    }
    let page: [u64; 512] = core::array::from_fn(first_page);
    for sgi in 0..SGIS {
        if irq::register(sgi, stray).is_ok() {
            irq::enable(sgi);
        }
    }
    let at_work = platform::platform().argument("watch").is_some();
    // What a device of its sends arrives too: at work it sends the first, else nothing.
    let messages = platform::platform().fdt.find(|node| {
        let is_it = node.is_compatible("arm,gic-v2m-frame");
        is_it.then(|| Some((node.word("arm,msi-base-spi", 0)?, node.word("arm,msi-num-spis", 0)?))).flatten()
    });
    if let Some((first, count)) = messages {
        for intid in first..first + count {
            let handler = if at_work && intid == first { watched::message } else { stray };
            if irq::register(intid, handler).is_ok() {
                irq::set_edge(intid, true);
                irq::enable(intid);
            }
        }
    }
    let rtc = rtc();
    if let Some((registers, intid)) = rtc {
        if irq::register(intid, alarm).is_ok() {
            irq::enable(intid);
        }
        registers.write(RTC_MR, registers.read(RTC_DR) + 1);
        registers.write(RTC_IMSC, 1);
    }
    let period = clock::to_ticks(period);
    let start = clock::ticks();
    let mut missed = 0;
    let mut functions = Watched::find(at_work, messages.map(|(first, _)| first));
    for tick in 1..=ticks {
        let due = start + tick * period;
        clock::sleep_until(due);
        if clock::ticks() >= due + period {
            missed += 1;
        }
        if let Some(functions) = &mut functions {
            functions.tick();
        }
        println!("{who}victim: tick {tick:03} of {ticks:03}, the quick brown fox jumps over the lazy dog");
    }
    println!("{who}victim: {ticks} ticks, {missed} missed");
    if rtc.is_some() {
        println!("{who}victim: {} alarm of its RTC", ALARMS.load(Ordering::Relaxed));
    }
    if let Some(functions) = &functions {
        functions.end(ticks);
    }
    let changed =
        CANARY.iter().enumerate().filter(|(index, word)| word.load(Ordering::Relaxed) != pattern(*index)).count();
    let changed = changed + page.iter().enumerate().filter(|(index, word)| **word != first_page(*index)).count();
    println!("{who}victim: {} stray interrupts, {changed} words of memory changed", STRAYS.load(Ordering::Relaxed));
}
