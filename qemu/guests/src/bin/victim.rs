//! The guest that must not notice anything: ticks at absolute deadlines, talks, owns an alarm and some memory.
//!
//! A tick is missed when it is handled after the next one was due. Interrupts it did not ask for are counted: every SGI is
//! enabled, so one sent from outside would arrive.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use unikernel::mmio::Registers;
use unikernel::pci::Host;
use unikernel::{clock, irq, platform, println};

unikernel::entry!(main);

const PERIOD: Duration = Duration::from_millis(100);
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

/// Dwords of configuration space that are not what `before` says, if it says something; and what they are.
fn configuration(before: &mut Option<[u32; 64]>) -> usize {
    let Some(host) = Host::find() else { return 0 };
    let Some(function) = host.functions().next() else { return 64 };
    let now = core::array::from_fn(|dword| host.read(function, dword as u16 * 4));
    let before = before.get_or_insert(now);
    now.iter().zip(before).filter(|(now, before)| now != before).count()
}

fn pattern(index: usize) -> u64 {
    (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn main() {
    let ticks = platform::platform().argument("ticks").and_then(|text| text.parse().ok()).unwrap_or(20);
    // With a UART of its own there is nobody to say whose line it is.
    let who = if platform::platform().argument("bare").is_some() { "[victim] " } else { "" };
    println!("{who}victim: {ticks} ticks of {} ms begin", PERIOD.as_millis());
    for (index, word) in CANARY.iter().enumerate() {
        word.store(pattern(index), Ordering::Relaxed);
    }
    for sgi in 0..SGIS {
        if irq::register(sgi, stray).is_ok() {
            irq::enable(sgi);
        }
    }
    // What a device of its sends arrives too; it has been told to send nothing.
    let messages = platform::platform().fdt.find(|node| {
        let is_it = node.is_compatible("arm,gic-v2m-frame");
        is_it.then(|| Some((node.word("arm,msi-base-spi", 0)?, node.word("arm,msi-num-spis", 0)?))).flatten()
    });
    if let Some((first, count)) = messages {
        for intid in first..first + count {
            if irq::register(intid, stray).is_ok() {
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
    let period = clock::to_ticks(PERIOD);
    let start = clock::ticks();
    let mut missed = 0;
    let (mut before, mut moved) = (None, 0);
    for tick in 1..=ticks {
        let due = start + tick * period;
        clock::sleep_until(due);
        if clock::ticks() >= due + period {
            missed += 1;
        }
        moved += configuration(&mut before);
        println!("{who}victim: tick {tick:03} of {ticks:03}, the quick brown fox jumps over the lazy dog");
    }
    println!("{who}victim: {ticks} ticks, {missed} missed");
    if rtc.is_some() {
        println!("{who}victim: {} alarm of its RTC", ALARMS.load(Ordering::Relaxed));
    }
    if before.is_some() {
        println!("{who}victim: {moved} dwords of configuration space changed");
    }
    let changed =
        CANARY.iter().enumerate().filter(|(index, word)| word.load(Ordering::Relaxed) != pattern(*index)).count();
    println!("{who}victim: {} stray interrupts, {changed} words of memory changed", STRAYS.load(Ordering::Relaxed));
}
