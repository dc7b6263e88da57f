//! Attacks by devices: DMA to where nothing of this domain's is, messages that are not its own (I49, I63 to I67, I73).
//!
//! A stream's first fault ends the run. Most of these start again after each and count their runs in a device that nobody resets.

use super::address;
use crate::edu::{DOORBELL, Edu};
use crate::probe::{load32, store8, store16, store32, store64};
use crate::report::Report;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use core::time::Duration;
use unikernel::fdt::Region;
use unikernel::mmio::Registers;
use unikernel::pci::Host;
use unikernel::platform::platform;
use unikernel::{clock, irq, println, psci};

/// RAM of this domain that nothing uses: behind the program.
const UNUSED: u64 = 0x401C_0000;
const DISTRIBUTOR: u64 = 0x0800_0000;
/// The ITS's control registers, and the page of the doorbell.
const ITS: u64 = 0x0808_0000;
const TRANSLATER: u64 = 0x0809_0000;
/// PL061 (DDI 0190): two registers of eight bits.
const GPIO_DIR: usize = 0x400;
const GPIO_AFSEL: usize = 0x420;

/// Which run of this domain this is.
fn run() -> Option<u32> {
    let gpio = Registers::new(platform().device("arm,pl061", 0)?.region);
    let run = gpio.read(GPIO_DIR) & 0xFF | (gpio.read(GPIO_AFSEL) & 0xFF) << 8;
    gpio.write(GPIO_DIR, (run + 1) & 0xFF);
    gpio.write(GPIO_AFSEL, (run + 1) >> 8);
    Some(run)
}

fn memory(at: u64) -> Registers {
    Registers::new(Region { base: at, size: 0x1000 })
}

/// One DMA per run to each place that is not this domain's; in the last run to one that is.
pub(super) fn outside(report: &mut Report) {
    let (Some(run), Some(edu)) = (run(), Edu::find(0)) else {
        return report.check("a GPIO to count with and an edu", false, "none");
    };
    let targets = [
        ("the other domain's RAM", address("victim"), true),
        ("the other domain's RAM", address("victim"), false),
        ("the hypervisor's RAM", address("base"), true),
        ("the hypervisor's RAM", address("base") + 0x1_0000, false),
        ("the distributor", 0x0800_0000, true),
        ("the ITS's registers", ITS, true),
        ("the console's UART", 0x0900_0000, true),
        ("the SMMU's registers", 0x0905_0000, true),
        ("the other edu", address("peer"), true),
        ("behind all RAM", 0xC000_0000, true),
        ("as high as it can", 0xFF_FFFF_F000, true),
    ];
    if let Some((what, at, write)) = targets.get(run as usize) {
        println!("{} {what}", if *write { "writes to" } else { "reads" });
        // Something to write that nobody takes for nothing.
        memory(UNUSED).write64(0, 0x5EED_5EED_5EED_5EED);
        edu.read(UNUSED, 8);
        if !edu.wait() {
            return report.check("read its own RAM", false, "no end");
        }
        if *write {
            edu.write(*at, 8)
        } else {
            edu.read(*at, 8)
        }
        clock::sleep(Duration::from_secs(2));
        return report.check(what, false, "another instruction");
    }
    let (first, second) = (memory(UNUSED), memory(UNUSED + 0x1000));
    for offset in (0..0x1000).step_by(8) {
        first.write64(offset, 0x5EED_0000 + offset as u64);
    }
    edu.read(UNUSED, 0x1000);
    report.check("read its own RAM", edu.wait(), "no end");
    edu.write(UNUSED + 0x1000, 0x1000);
    report.check("wrote its own RAM", edu.wait(), "no end");
    let same = (0..0x1000).step_by(8).filter(|offset| second.read64(*offset) == first.read64(*offset));
    report.equal("words that have arrived", same.count() as u64, 0x200);
}

/// After so many milliseconds, one DMA to the other domain's RAM.
pub(super) fn late(report: &mut Report) {
    let after = platform().argument("after").and_then(|after| after.parse().ok()).unwrap_or(0);
    let Some(edu) = Edu::find(0) else { return report.check("an edu", false, "none") };
    clock::sleep(Duration::from_millis(after));
    edu.read(UNUSED, 8);
    report.check("read its own RAM", edu.wait(), "no end");
    println!("writes to the other domain's RAM");
    edu.write(address("victim"), 8);
    clock::sleep(Duration::from_secs(2));
    report.check("a write to the other domain's RAM", false, "another instruction");
}

/// Starts DMA to its own RAM, sends a message and ends at once, again and again: no run finds anything of an earlier one's.
pub(super) fn over_restarts(report: &mut Report) {
    let last = platform().argument("runs").and_then(|runs| runs.parse().ok()).unwrap_or(1);
    let (Some(run), Some(host)) = (run(), Host::find()) else {
        return report.check("a GPIO to count with and PCI", false, "none");
    };
    // Whatever is still under way has time to come.
    clock::sleep(Duration::from_millis(if run == 0 { 0 } else { 150 }));
    let page = memory(UNUSED);
    let found = (0..0x1000).step_by(8).filter(|offset| page.read64(*offset) != 0).count();
    if found != 0 {
        return report.equal("words that an earlier run's DMA has left", found as u64, 0);
    }
    let masters = host.functions().filter(|function| host.read(*function, 4) & 4 != 0).count();
    if masters != 0 {
        return report.equal("bus masters at the start", masters as u64, 0);
    }
    let (Some(edu), Some((base, _))) = (Edu::find(0), own()) else {
        return report.check("an edu and a v2m frame", false, "none");
    };
    let pending = load32(DISTRIBUTOR + 0x200 + u64::from(base / 32) * 4, 0).map_or(1, |word| word >> (base % 32) & 1);
    if pending != 0 {
        return report.equal("messages of an earlier run", pending, 0);
    }
    if run == last {
        return report.check("every run has found its memory as at the first start", true, "");
    }
    (0..0x1000).step_by(8).for_each(|offset| memory(UNUSED + 0x1000).write64(offset, u64::MAX));
    edu.read(UNUSED + 0x1000, 0x1000);
    edu.wait();
    edu.write(UNUSED, 0x1000);
    edu.message(DOORBELL, base);
    edu.raise();
    psci::system_reset()
}

/// NVM Express Base 2.0, 3.1.3: controller configuration and status, admin queues; the first doorbell.
const CC: usize = 0x14;
const CSTS: usize = 0x1C;
const AQA: usize = 0x24;
const ASQ: usize = 0x28;
const ACQ: usize = 0x30;
const DOORBELL0: usize = 0x1000;
/// Its MSI-X capability in configuration space, and the table in BAR 0 (dts/qemu-virt-pci.dts).
const MSIX: u16 = 0x40;
const TABLE: usize = 0x2000;

/// The domain's NVMe, enabled with queues for commands and completions at these addresses.
fn nvme(commands: u64, completions: u64) -> Option<Registers> {
    let host = Host::find()?;
    let function = host.functions().find(|function| host.read(*function, 8) >> 8 == 0x01_0802)?;
    host.enable(function);
    let base = u64::from(host.read(function, 0x10) & !0xF) | u64::from(host.read(function, 0x14)) << 32;
    let nvme = Registers::new(Region { base, size: 0x4000 });
    nvme.write(AQA, 0x003F_003F);
    nvme.write64(ASQ, commands);
    nvme.write64(ACQ, completions);
    // It looks at this when it starts.
    host.write(function, MSIX, host.read(function, MSIX) | 1 << 31);
    nvme.write(CC, 4 << 20 | 6 << 16 | 1);
    while nvme.read(CSTS) & 3 == 0 {
        clock::sleep(Duration::from_millis(1));
    }
    Some(nvme)
}

/// A device that reads what it may not as fast as it can be told: its queue of commands lies outside, and is rung a million times.
pub(super) fn flood(report: &mut Report) {
    let Some(nvme) = nvme(address("victim"), address("victim")) else {
        return report.check("an NVMe", false, "none");
    };
    println!("rings");
    for tail in 1..1_000_000 {
        nvme.write(DOORBELL0, tail & 0x3F);
    }
    clock::sleep(Duration::from_secs(2));
    report.check("a million reads of the other domain's RAM", false, "no end");
}

/// Writes the table of messages anew before each completion: every number, then another address.
pub(super) fn table(report: &mut Report) {
    let page = memory(UNUSED);
    let (Some(nvme), Some((base, count))) = (nvme(UNUSED, UNUSED + 0x1000), own()) else {
        return report.check("an NVMe and a v2m frame", false, "none");
    };
    for intid in base..base + count {
        _ = irq::register(intid, taken);
        irq::set_edge(intid, true);
        irq::enable(intid);
    }
    let mut tail = 0;
    // One Identify Controller, with the first message as said.
    let mut sent = |address: u64, data: u32| {
        let before = TAKEN.load(SeqCst);
        nvme.write64(TABLE, address);
        nvme.write(TABLE + 8, data);
        nvme.write(TABLE + 12, 0);
        let at = tail as usize * 64;
        page.write(at, 6 | tail << 16);
        page.write64(at + 24, UNUSED + 0x2000);
        page.write(at + 40, 1);
        tail = (tail + 1) & 0x3F;
        nvme.write(DOORBELL0, tail);
        clock::sleep(Duration::from_millis(2));
        nvme.write(DOORBELL0 + 4, tail);
        TAKEN.load(SeqCst) - before
    };
    report.equal("own messages", (base..base + count).map(|data| u64::from(sent(DOORBELL, data))).sum(), count.into());
    let foreign = (0..300).chain([8192, 0xFFFF, 0x1_0000 | base, 0x8000_0000 | base, u32::MAX]);
    let foreign = foreign.filter(|data| !(base..base + count).contains(data));
    report.equal("numbers of others", foreign.map(|data| u64::from(sent(DOORBELL, data))).sum(), 0);
    report.equal("own message", sent(DOORBELL, base).into(), 1);
    report.end();
    println!("sends one to the other domain's RAM");
    sent(address("victim"), u32::MAX);
    clock::sleep(Duration::from_secs(2));
    report.check("a message elsewhere", false, "another instruction");
}

static TAKEN: AtomicU32 = AtomicU32::new(0);

fn taken(_: u32) {
    TAKEN.fetch_add(1, SeqCst);
}

/// The domain's own SPIs for messages: first, number.
fn own() -> Option<(u32, u32)> {
    platform().fdt.find(|node| {
        let is_it = node.is_compatible("arm,gic-v2m-frame");
        is_it.then(|| Some((node.word("arm,msi-base-spi", 0)?, node.word("arm,msi-num-spis", 0)?))).flatten()
    })
}

/// vCPU 0, where messages come to, turns itself off; the others' interrupts come all the same.
pub(super) fn asleep(report: &mut Report) {
    report.check("vCPU 1 starts", psci::start(1, by_the_second).is_ok(), "no");
    psci::cpu_off()
}

fn by_the_second() {
    let mut report = Report::default();
    let first = platform().cpus().first().copied().unwrap_or(0);
    while psci::affinity_info(first) != Ok(psci::Affinity::Off) {
        core::hint::spin_loop();
    }
    let (Some(edu), Some((base, _))) = (Edu::find(0), own()) else {
        return report.check("an edu and a v2m frame", false, "none");
    };
    _ = irq::register(base, taken);
    irq::set_edge(base, true);
    irq::enable(base);
    edu.message(DOORBELL, base);
    for sent in 1..=100 {
        edu.raise();
        let end = clock::ticks() + clock::to_ticks(Duration::from_secs(1));
        while TAKEN.load(SeqCst) < sent && clock::ticks() < end {
            core::hint::spin_loop();
        }
        edu.acknowledge();
    }
    report.equal("messages while vCPU 0 is off", TAKEN.load(SeqCst).into(), 100);
    report.end();
    psci::system_off()
}

/// Messages with every number, from the device and from the CPU, to the doorbell and beside it: its own interrupts come, and
/// no other. The last goes to the other domain's RAM.
pub(super) fn messages(report: &mut Report) {
    let (Some(edu), Some((base, count))) = (Edu::find(0), own()) else {
        return report.check("an edu and a v2m frame", false, "none");
    };
    for intid in base..base + count {
        _ = irq::register(intid, taken);
        irq::set_edge(intid, true);
        irq::enable(intid);
    }
    let sent = |address, data| {
        let before = TAKEN.load(SeqCst);
        edu.message(address, data);
        edu.raise();
        let end = clock::ticks() + clock::to_ticks(Duration::from_millis(if address == DOORBELL { 20 } else { 5 }));
        while TAKEN.load(SeqCst) == before && clock::ticks() < end && (base..base + count).contains(&data) {
            core::hint::spin_loop();
        }
        edu.acknowledge();
        TAKEN.load(SeqCst) - before
    };
    report.equal("own message", sent(DOORBELL, base).into(), 1);
    report.equal("a thousand", (0..1000).map(|_| u64::from(sent(DOORBELL, base))).sum(), 1000);
    // What comes late is counted too.
    let all = |send: &mut dyn FnMut()| {
        let before = TAKEN.load(SeqCst);
        send();
        clock::sleep(Duration::from_millis(20));
        u64::from(TAKEN.load(SeqCst) - before)
    };
    let foreign = || (0..1200).filter(|data| !(base..base + count).contains(data));
    report.equal("numbers of others", all(&mut || foreign().for_each(|data| _ = sent(DOORBELL, data))), 0);
    // Of an MSI without a table the data has 16 bits (PCI 3.0, 6.8.1.4).
    let strange = [8191, 8192, 8193, 0x7FFF, 0xFFFF];
    report.equal("numbers of nobody", all(&mut || strange.iter().for_each(|data| _ = sent(DOORBELL, *data))), 0);
    let beside = [0, 4, 0x3C, 0x44, 0x48, 0xFFC];
    let beside = all(&mut || beside.iter().for_each(|offset| _ = sent(TRANSLATER + offset, base)));
    report.equal("beside the doorbell", beside, 0);
    // What the CPU finds there is a GICv2m frame of words, and no message comes of writing it.
    let before = TAKEN.load(SeqCst);
    report.check("a word to the doorbell", store32(DOORBELL, base.into()).is_ok(), "a fault");
    report.check("a word beside it", store32(TRANSLATER, u64::MAX).is_ok(), "a fault");
    report.external("a byte to the doorbell", store8(DOORBELL, base.into()), DOORBELL);
    report.external("two bytes to the doorbell", store16(DOORBELL, base.into()), DOORBELL);
    report.external("eight bytes to the doorbell", store64(DOORBELL, base.into()), DOORBELL);
    clock::sleep(Duration::from_millis(20));
    report.equal("the doorbell by the CPU", (TAKEN.load(SeqCst) - before).into(), 0);
    report.external("the ITS's registers by the CPU", load32(ITS, 0), ITS);
    by_dma(report, &edu, base);
    report.equal("own message", sent(DOORBELL, base).into(), 1);
    report.end();
    println!("sends one to the other domain's RAM");
    edu.message(address("victim"), u32::MAX);
    edu.raise();
    clock::sleep(Duration::from_secs(2));
    report.check("a message elsewhere", false, "another instruction");
}

/// Numbers written to the doorbell and beside it by DMA. It goes on, and has not written anything anywhere else.
fn by_dma(report: &mut Report, edu: &Edu, base: u32) {
    let (page, back) = (memory(UNUSED), memory(UNUSED + 0x1000));
    let before = TAKEN.load(SeqCst);
    let (mut done, mut same) = (0, 0);
    for data in [base, 0, 32, 40, 8192] {
        let word = u64::from(data) | u64::from(data) << 32;
        page.write64(0, word);
        back.write64(0, !word);
        edu.read(UNUSED, 8);
        done += u64::from(edu.wait());
        for (to, count) in [(DOORBELL, 4), (TRANSLATER, 8), (UNUSED + 0x1000, 8)] {
            edu.write(to, count);
            done += u64::from(edu.wait());
        }
        same += u64::from(back.read64(0) == word);
    }
    report.equal("DMA to the doorbell, of five numbers", done, 20);
    report.equal("numbers that it had", same, 5);
    // QEMU's DMA has no requester ID, which is what an ITS goes by (hw/misc/edu.c): a device of hardware would have sent its own, once.
    report.equal("messages by DMA", (TAKEN.load(SeqCst) - before).into(), 0);
}
