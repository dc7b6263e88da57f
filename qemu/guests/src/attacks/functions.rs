//! The life of a function (I71, I73): what a run leaves behind in it, and two vCPUs that race its reset and the end of the run.

use super::pci::{COMMAND, EDU, FLR, IO, MASTER, MEMORY, NVME, device_control, get, own, register, set};
use crate::edu::Edu;
use crate::report::Report;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use core::time::Duration;
use unikernel::fdt::Region;
use unikernel::mmio::Registers;
use unikernel::pci::{Function, Host};
use unikernel::platform::platform;
use unikernel::{clock, psci};

/// Intel 82574L: ID; registers that say what it does (82574 GbE Controller Family Datasheet, 10.2), and what a run leaves in them: receive
/// and transmit on, rings in its RAM, interrupts armed.
const E1000E: u32 = 0x10D3_8086;
const DIRT: [(&str, usize, u32); 8] = [
    ("receive control", 0x100, 0x8002),
    ("transmit control", 0x400, 0x2),
    ("interrupt mask", 0xD0, 0x17),
    ("receive ring", 0x2800, 0x401C_0000),
    ("its length", 0x2808, 0x80),
    ("transmit ring", 0x3800, 0x401C_1000),
    ("its length", 0x3808, 0x80),
    ("multicast table", 0x5200, 0xDEAD_BEEF),
];
/// Interrupt cause set.
const CAUSE: usize = 0xC8;
/// In its configuration space (qemu/tests/pci-bus-reset.dts): interrupt line, MSI-X control.
const LINE: u16 = 0x3C;
const MSIX: u16 = 0xA0;
/// PL061 (DDI 0190): a register of eight bits, which nobody resets.
const GPIO_DIR: usize = 0x400;

/// Which run of this domain this is.
fn run() -> u32 {
    let Some(gpio) = platform().device("arm,pl061", 0) else { return u32::MAX };
    let gpio = Registers::new(gpio.region);
    let run = gpio.read(GPIO_DIR) & 0xFF;
    gpio.write(GPIO_DIR, run + 1);
    run
}

/// Two of a card without a reset of its own: one shares the root bus, one is alone behind a port. Two runs leave both as they should
/// not be left; the third finds the first as it was left and the second as after power-on.
pub(super) fn left_dirty(report: &mut Report) {
    let run = run();
    let Some(host) = Host::find() else { return report.check("a host bridge", false, "none") };
    let mut cards = host.functions().filter(|function| host.id(*function) == E1000E);
    let (Some(kept), Some(reset)) = (cards.next(), cards.next()) else {
        return report.check("two cards", false, "none");
    };
    let memory = |card: Function| {
        host.write(card, COMMAND as u16, MEMORY as u32);
        Registers::new(Region { base: u64::from(host.read(card, 0x10) & !0xF), size: 0x2_0000 })
    };
    let config = |card| [host.read(card, 4) & 0x407, host.read(card, LINE) & 0xFF, host.read(card, MSIX) >> 30];
    let (before, found) = (config(kept), config(reset));
    let is_power_on = found == [0x400, 0, 0] && {
        let registers = memory(reset);
        DIRT.iter().all(|(_, at, _)| registers.read(*at) == 0)
    };
    if run < 2 && is_power_on {
        for card in [kept, reset] {
            let registers = memory(card);
            host.write(card, COMMAND as u16, 0x7);
            host.write(card, LINE, 0x5A);
            host.write(card, MSIX, 3 << 30);
            DIRT.iter().for_each(|(_, at, dirt)| registers.write(*at, *dirt));
            registers.write(CAUSE, 0x1F);
        }
        psci::system_reset();
    }
    report.equal("runs before this one", run.into(), 2);
    for (what, which, expected) in [("command", 0, 0x400), ("interrupt line", 1, 0), ("messages", 2, 0)] {
        report.equal(what, found[which].into(), expected);
        report.equal("the same of one that shares its bus", before[which].into(), expected);
    }
    let (kept, reset) = (memory(kept), memory(reset));
    for (what, at, dirt) in DIRT {
        report.equal(what, reset.read(at).into(), 0);
        report.equal("the same of one that shares its bus", kept.read(at).into(), dirt.into());
    }
}

/// Whether the second vCPU has begun.
static STORMS: AtomicBool = AtomicBool::new(false);

/// What it writes to: an `edu`, a disk and the disk's Device Control.
static AT: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// The second vCPU writes command registers and resets as fast as it can, for ever.
fn storm() {
    let [edu, nvme, control] = AT.each_ref().map(|at| at.load(SeqCst));
    let (edu, nvme) = (Function(edu as u8), Function(nvme as u8));
    loop {
        set(edu, COMMAND, IO | MEMORY | MASTER);
        set(nvme, COMMAND, IO | MEMORY | MASTER);
        set(nvme, control, 0x10);
        set(nvme, COMMAND, IO | MASTER);
        set(nvme, control, FLR);
        STORMS.store(true, SeqCst);
    }
}

/// Each run ends, in the middle of DMA and resets, while the second vCPU turns bus masters on. No run finds anything of an earlier one.
pub(super) fn race(report: &mut Report) {
    let (run, last) = (run(), platform().argument("runs").and_then(|runs| runs.parse().ok()).unwrap_or(1));
    let (edu, nvme) = (own(report, EDU), own(report, NVME));
    let Some(control) = device_control(nvme) else { return report.check("Device Control", false, "none") };
    let on = |function| get(function, COMMAND) & (IO | MEMORY | MASTER);
    report.equal("what is on at the start", on(edu) | on(nvme), 0);
    // What is under way has time to come.
    clock::sleep(Duration::from_millis(if run == 0 { 0 } else { 150 }));
    let page = Registers::new(Region { base: 0x401C_0000, size: 0x1000 });
    let found = (0..0x1000).step_by(8).filter(|offset| page.read64(*offset) != 0).count();
    report.equal("words that an earlier run's DMA has left", found as u64, 0);
    report.check("the disk works", register(nvme, 8).is_ok_and(|version| version >> 16 != 0), "nothing");
    if run >= last {
        return;
    }
    let Some(device) = Edu::find(0) else { return report.check("an edu", false, "none") };
    let places = [edu.0.into(), nvme.0.into(), control];
    AT.iter().zip(places).for_each(|(at, place)| at.store(place, SeqCst));
    if psci::start(1, storm).is_err() {
        return report.check("a second vCPU", false, "none");
    }
    while !STORMS.load(SeqCst) {
        core::hint::spin_loop();
    }
    device.write(0x401C_0000, 0x1000);
    // Not always at the same distance from the other's stores.
    (0..clock::ticks() & 0x1FF).for_each(|_| core::hint::spin_loop());
    if run & 1 == 0 {
        set(nvme, control, FLR);
    }
    psci::system_reset()
}

/// Of three functions two are not what the board says, one by its ID, one by its size: they are absent, the third works.
pub(super) fn wrong_board(report: &mut Report) {
    let Some(host) = Host::find() else { return report.check("a host bridge", false, "none") };
    let functions = || (0..=u8::MAX).map(Function).filter(|function| host.id(*function) != u32::MAX);
    report.equal("functions that answer", functions().count() as u64, 1);
    for function in [4 << 3, 5 << 3].map(Function) {
        let all = || (0..0x400).map(|n| n * 4);
        all().for_each(|offset| set(function, offset, 0x0000_0007));
        report.equal(
            "dwords of another function",
            all().filter(|offset| get(function, *offset) != 0xFFFF_FFFF).count() as u64,
            0,
        );
    }
    let card = own(report, E1000E.into());
    report.value("the card has its address", register(card, DIRT[3].1 as u64), 0);
}
