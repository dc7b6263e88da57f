//! The victim's own PCI functions at work: what their registers hold stays, their DMA and their messages go on.
//!
//! Whatever another domain does to a bridge above them, to their configuration space or to their interrupts would be seen here.

use crate::edu::{DOORBELL, Edu};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use unikernel::fdt::Region;
use unikernel::mmio::Registers;
use unikernel::pci::{Function, Host};
use unikernel::platform::platform;
use unikernel::println;

/// Functions looked at.
const FUNCTIONS: usize = 4;
/// Dwords of configuration space of each, and of its registers.
const CONFIGURATION: usize = 64;
const REGISTERS: usize = 16;
const BAR0: u16 = 0x10;
/// Class code of an NVMe, and its registers for the admin queues (NVM Express Base 2.0, 3.1.3): a reset would lose them.
const NVME: u32 = 0x01_0802;
const AQA: usize = 0x24;
const ASQ: usize = 0x28;

static MESSAGES: AtomicU32 = AtomicU32::new(0);

#[repr(align(4096))]
struct Page([AtomicU64; 512]);
static THERE: Page = Page([const { AtomicU64::new(0) }; 512]);
static BACK: Page = Page([const { AtomicU64::new(0) }; 512]);

/// Counts a message of the function's own.
pub fn message(_: u32) {
    MESSAGES.fetch_add(1, SeqCst);
}

/// What one function reads.
type Seen = ([u32; CONFIGURATION], [u32; REGISTERS]);

/// The domain's functions.
pub struct Watched {
    host: Host,
    /// Each with its registers, where they are looked at.
    functions: [Option<(Function, Option<Registers>)>; FUNCTIONS],
    before: Option<[Seen; FUNCTIONS]>,
    edu: Option<Edu>,
    configuration: usize,
    registers: usize,
    sent: u32,
    /// Halves of round trips through the device's memory.
    halves: u64,
    wrong: usize,
}

fn pattern(round: u64, index: usize) -> u64 {
    (round << 16 | index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}

impl Watched {
    /// The domain's functions, if it has any. With `at_work` their registers are looked at too, and an `edu` among them has memory to move and
    /// sends the message `intid`.
    pub fn find(at_work: bool, intid: Option<u32>) -> Option<Self> {
        let host = Host::find()?;
        let mut functions = [None; FUNCTIONS];
        for (place, function) in functions.iter_mut().zip(host.functions()) {
            *place = Some((function, at_work.then(|| registers(&host, function)).flatten()));
        }
        let edu = if at_work { Edu::find(0) } else { None };
        if let (Some(edu), Some(intid)) = (edu, intid) {
            edu.message(DOORBELL, intid);
        }
        Some(Self { host, functions, before: None, edu, configuration: 0, registers: 0, sent: 0, halves: 0, wrong: 0 })
    }

    /// Looks, and has the device go on.
    pub fn tick(&mut self) {
        if let Some(edu) = self.edu {
            edu.acknowledge();
        }
        let host = self.host;
        let now = self.functions.map(|function| {
            let mut seen = ([u32::MAX; CONFIGURATION], [u32::MAX; REGISTERS]);
            if let Some((function, registers)) = function {
                seen.0 = core::array::from_fn(|dword| host.read(function, dword as u16 * 4));
                if let Some(registers) = registers {
                    seen.1 = core::array::from_fn(|dword| registers.read(dword * 4));
                }
            }
            seen
        });
        let before = self.before.get_or_insert(now);
        for (now, before) in now.iter().zip(before) {
            self.configuration += differ(&now.0, &before.0);
            self.registers += differ(&now.1, &before.1);
        }
        if let Some(edu) = self.edu {
            self.transfer(edu);
            edu.raise();
            self.sent += 1;
        }
    }

    /// The next half of a round trip, where the one before has come to its end.
    fn transfer(&mut self, edu: Edu) {
        if edu.is_busy() {
            return;
        }
        let round = self.halves / 2;
        if self.halves % 2 == 1 {
            edu.write(BACK.0.as_ptr() as u64, 0x1000);
        } else {
            // The first has nothing behind it.
            let wrong =
                |(index, word): (usize, &AtomicU64)| round > 0 && word.load(SeqCst) != pattern(round - 1, index);
            self.wrong += BACK.0.iter().enumerate().filter(|item| wrong(*item)).count();
            for (index, word) in THERE.0.iter().enumerate() {
                word.store(pattern(round, index), SeqCst);
            }
            edu.read(THERE.0.as_ptr() as u64, 0x1000);
        }
        self.halves += 1;
    }

    /// What has been seen in so many ticks.
    pub fn end(&self, ticks: u64) {
        println!("victim: {} dwords of configuration space changed", self.configuration);
        if self.functions.iter().flatten().any(|(_, registers)| registers.is_some()) {
            println!("victim: {} registers of its functions changed", self.registers);
        }
        if self.edu.is_none() {
            return;
        }
        println!("victim: {} messages of its edu, {} sent", MESSAGES.load(SeqCst), self.sent);
        // A transfer takes as long as a tick, so each is seen at the next but one.
        let goes_on = if self.halves >= ticks / 4 { "goes on" } else { "has stopped" };
        println!("victim: DMA of its edu {goes_on}, {} words wrong", self.wrong);
    }
}

fn differ(now: &[u32], before: &[u32]) -> usize {
    now.iter().zip(before).filter(|(now, before)| now != before).count()
}

/// The registers behind the function's first base address register, with something in them that a reset would lose.
fn registers(host: &Host, function: Function) -> Option<Registers> {
    if !host.enable(function) {
        return None;
    }
    let low = host.read(function, BAR0);
    let high = if low & 7 == 4 { host.read(function, BAR0 + 4) } else { 0 };
    let base = u64::from(low & !0xF) | u64::from(high) << 32;
    let registers = Registers::new(Region { base, size: 0x1000 });
    if host.read(function, 8) >> 8 == NVME {
        registers.write(AQA, 0x001F_001F);
        registers.write64(ASQ, platform().memory.base + 0x5000);
    }
    Some(registers)
}
