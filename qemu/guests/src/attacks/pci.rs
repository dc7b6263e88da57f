//! Configuration space (I71): what a guest writes there moves nothing, reaches nobody else's function, decodes no port and resets no bus.
//!
//! The attacker has an `edu` device, whose first register says so, and an NVMe disk, which has a reset of its own.

use super::address;
use super::storms::storm;
use crate::probe::{Outcome, load8, load16, load32, load64, store8, store16, store32, store64};
use crate::report::Report;
use core::time::Duration;
use unikernel::clock;
use unikernel::pci::{Function, Host};
use unikernel::platform::platform;

const DWORDS: usize = 0x400;
pub(super) const COMMAND: u64 = 0x04;
const BAR0: u64 = 0x10;
pub(super) const IO: u64 = 1 << 0;
pub(super) const MEMORY: u64 = 1 << 1;
pub(super) const MASTER: u64 = 1 << 2;
/// QEMU's documentation of `edu`: ID of the device and what its identification register reads.
pub(super) const EDU: u64 = 0x11E8_1234;
const EDU_IDENTITY: u64 = 0x0100_00ED;
pub(super) const NVME: u64 = 0x0010_1B36;
/// NVMe's version register (NVM Express Base 2.0, 3.1.3.2).
const NVME_VERSION: u64 = 0x08;
/// Capability of PCI Express; Device Control in it, and the reset in that.
const EXPRESS: u64 = 0x10;
const DEVICE_CONTROL: u64 = 8;
pub(super) const FLR: u64 = 1 << 15;
/// How long a reset takes at least.
const RESET: Duration = Duration::from_millis(100);

/// Where the byte at `offset` of `function` lies.
fn at(function: Function, offset: u64) -> u64 {
    let base = platform().device("pci-host-ecam-generic", 0).map_or(0, |device| device.region.base);
    base + u64::from(function.0) * 0x1000 + offset
}

pub(super) fn get(function: Function, offset: u64) -> u64 {
    load32(at(function, offset), 0).unwrap_or(0xBAD)
}

pub(super) fn set(function: Function, offset: u64, value: u64) {
    let _ = store32(at(function, offset), value);
}

/// The function with this ID, which the layout gives.
pub(super) fn own(report: &mut Report, id: u64) -> Function {
    let found = Host::find().and_then(|host| host.functions().find(|f| u64::from(host.id(*f)) == id));
    report.check("own function is there", found.is_some(), "none");
    found.unwrap_or(Function(0))
}

/// Byte offset of Device Control.
pub(super) fn device_control(function: Function) -> Option<u64> {
    let mut next = get(function, 0x34) & 0xFC;
    for _ in 0..48 {
        match (next, get(function, next)) {
            (0, _) => return None,
            (_, head) if head & 0xFF == EXPRESS => return Some(next + DEVICE_CONTROL),
            (_, head) => next = head >> 8 & 0xFC,
        }
    }
    None
}

/// What the device answers where its first base address register says it is.
pub(super) fn register(function: Function, offset: u64) -> Outcome {
    set(function, COMMAND, MEMORY);
    let upper = if get(function, BAR0) & 7 == 4 { get(function, BAR0 + 4) << 32 } else { 0 };
    load32((get(function, BAR0) & !0xF | upper) + offset, 0)
}

/// All ones, then zeroes, to every dword; then what was there.
pub(super) fn every_dword(report: &mut Report) {
    for id in [EDU, NVME] {
        let function = own(report, id);
        let control = device_control(function);
        let all = || (0..DWORDS as u64).map(|n| n * 4);
        // On a small stack.
        let before: [u32; DWORDS] = core::array::from_fn(|n| get(function, n as u64 * 4) as u32);
        let was = |offset: u64| u64::from(before[offset as usize / 4]);
        for (how, value) in [("ones", 0xFFFF_FFFF), ("zeroes", 0)] {
            // But the reset, which is an attack of its own.
            all().for_each(|at| set(function, at, if Some(at) == control { value & !FLR } else { value }));
            let changed = all().filter(|at| get(function, *at) != was(*at)).count();
            unikernel::println!("{how}: {changed} dwords changed");
            for (what, offset, mask) in [
                ("ID", 0, !0),
                ("class", 8, !0),
                ("header type", 0xC, 0xFF_0000),
                ("subsystem", 0x2C, !0),
                ("list", 0x34, !0),
            ] {
                report.equal(what, get(function, offset) & mask, was(offset) & mask);
            }
            report.equal("I/O decode", get(function, COMMAND) & IO, 0);
            report.equal("bus master is what was written", get(function, COMMAND) & MASTER, value & MASTER);
        }
        let moved = (BAR0..0x34).step_by(4).filter(|at| get(function, *at) != was(*at)).count();
        report.equal("base addresses that moved", moved as u64, 0);
        all().filter(|at| Some(*at) != control).for_each(|at| set(function, at, was(at)));
        let changed = all().filter(|at| Some(*at) != control && get(function, *at) != was(*at)).count();
        report.equal("dwords that did not come back", changed as u64, 0);
    }
    let function = own(report, EDU);
    report.value("the device works", register(function, 0), EDU_IDENTITY);
}

/// Base address registers onto what is not the attacker's.
pub(super) fn base_addresses(report: &mut Report) {
    let (edu, nvme) = (own(report, EDU), own(report, NVME));
    let (low, high) = (get(nvme, BAR0), get(nvme, BAR0 + 4));
    let planned = get(edu, BAR0);
    let version = register(nvme, NVME_VERSION).unwrap_or(0);
    let neighbour = planned ^ 0x10_0000;
    for (what, target) in [
        ("the victim's RAM", address("ram")),
        ("the hypervisor", address("base")),
        ("the ITS", 0x0809_0000),
        ("the SMMU", 0x0905_0000),
        ("configuration space", at(edu, 0)),
        ("the next device", neighbour),
        ("nowhere", 0),
    ] {
        set(edu, COMMAND, 0);
        set(edu, BAR0, target & 0xFFFF_FFF0);
        set(nvme, BAR0, target & 0xFFFF_FFF0 | 4);
        set(nvme, BAR0 + 4, target >> 32);
        report.equal(what, get(edu, BAR0), planned);
        report.equal(what, get(nvme, BAR0) | get(nvme, BAR0 + 4) << 32, low | high << 32);
        report.value("edu is where it was", register(edu, 0), EDU_IDENTITY);
        report.value("the disk is where it was", register(nvme, NVME_VERSION), version);
    }
    report.external("what lies beside it", load32(neighbour, 0), neighbour);
}

/// Everybody else's functions, the bridge, the buses behind it.
pub(super) fn foreign(report: &mut Report) {
    let mine = [own(report, EDU), own(report, NVME)];
    let mut wrong = 0u64;
    for function in (0..=u8::MAX).map(Function).filter(|function| !mine.contains(function)) {
        for offset in (0..0x40).step_by(4).chain([0x100, 0xFFC]) {
            let place = at(function, offset);
            let reads = [(load32(place, 0), 32), (load16(place + 2, 0), 16), (load8(place + 1, 0), 8)];
            wrong += reads.iter().filter(|(read, bits)| *read != Ok((1 << bits) - 1)).count() as u64;
            let writes = [store32(place, 0), store16(place, 0xFFFF), store8(place, 6)];
            wrong += writes.iter().filter(|write| write.is_err()).count() as u64;
        }
    }
    report.equal("foreign functions that answer", wrong, 0);
    // The board's root port: bus numbers, secondary bus reset, its memory window.
    let bridge = Function(9 << 3);
    for (what, offset, value) in [
        ("the bridge's bus numbers", 0x18, 0x00FF_FF00),
        ("the bridge's window", 0x20, 0xFFF0_0000),
        ("hot reset behind the bridge", 0x3C, 1 << 22),
        ("the bridge's link off", 0x54 + 0x10, 1 << 4),
    ] {
        // Who owns what is behind it looks every 100 ms.
        let tries = (0..20).filter(|_| {
            clock::sleep(Duration::from_millis(10));
            store32(at(bridge, offset), value).is_ok()
        });
        report.equal(what, tries.count() as u64, 20);
        report.value(what, load32(at(bridge, offset), 0), 0xFFFF_FFFF);
    }
    let base = at(Function(0), 0);
    for (what, place) in [
        ("bus 1", base + 0x10_0000),
        ("the last bus", base + 0xFFF_FFFC),
        ("bus 1 of the next board", base + 0x1010_0000),
    ] {
        report.external(what, load32(place, 0), place);
        report.external(what, store32(place, 0), place);
    }
    report.equal("own function", get(mine[0], 0), EDU);
}

/// Every size and place of an access.
pub(super) fn requests(report: &mut Report) {
    let function = own(report, EDU);
    for byte in 0..4 {
        report.value("a byte", load8(at(function, byte), 0), EDU >> (8 * byte) & 0xFF);
    }
    report.value("low half", load16(at(function, 0), 0), EDU & 0xFFFF);
    report.value("high half", load16(at(function, 2), 0), EDU >> 16);
    let place = at(function, 0);
    report.external("8 bytes", load64(place, 0), place);
    report.external("8 bytes written", store64(place, 0), place);
    // Only the lanes that are written: the interrupt line, not the pin beside it.
    let before = get(function, 0x3C);
    report.check("a byte written", store8(at(function, 0x3C), 0x5A).is_ok(), "a fault");
    report.equal("interrupt line", get(function, 0x3C), before & !0xFF | 0x5A);
    report.check("two bytes written", store16(at(function, 0x3E), 0xFFFF).is_ok(), "a fault");
    report.equal("bridge control, which is none", get(function, 0x3C), before & !0xFF | 0x5A);
}

/// As many accesses as there is time for.
pub(super) fn config_storm(report: &mut Report) {
    let function = own(report, EDU);
    let mut n = 0u64;
    let count = storm(|| {
        n = n.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        let place = at(Function((n >> 48) as u8), n >> 32 & 0xFFC);
        let _ = load32(place, 0);
        let _ = store32(place, n >> 16);
        let _ = store16(at(function, COMMAND), n >> 40);
        let _ = load8(at(function, n >> 56), 0);
    });
    report.check("configuration storm", count > 1000, count);
    set(function, COMMAND, 0);
    // One of the disk's resets may still be under way.
    clock::sleep(RESET * 2);
    report.value("the device works", register(function, 0), EDU_IDENTITY);
    let nvme = own(report, NVME);
    report.check("the disk works", register(nvme, NVME_VERSION).is_ok_and(|version| version >> 16 != 0), "nothing");
}

/// Resets of the disk: nobody waits for them, and nothing is moved by them.
pub(super) fn reset(report: &mut Report) {
    let function = own(report, NVME);
    let Some(control) = device_control(function) else { return report.check("Device Control", false, "none") };
    let version = register(function, NVME_VERSION).unwrap_or(0);
    let bars = [get(function, BAR0), get(function, BAR0 + 4)];
    for round in 0..3 {
        set(function, COMMAND, MEMORY | MASTER);
        let start = clock::ticks();
        set(function, control, FLR);
        report.equal("gone while it resets", get(function, 0), 0xFFFF_FFFF);
        report.check("nobody waits", clock::ticks() - start < clock::to_ticks(RESET / 2), clock::ticks() - start);
        // Again, and again, from the second round on: it takes no longer.
        while get(function, 0) == 0xFFFF_FFFF && clock::ticks() - start < clock::to_ticks(RESET * 10) {
            if round > 0 {
                set(function, control, FLR);
                set(function, BAR0, 0);
                set(function, COMMAND, IO | MEMORY | MASTER);
            }
        }
        let took = clock::ticks() - start;
        report.check("its time has passed", took >= clock::to_ticks(RESET), took);
        report.equal("it is back", get(function, 0), NVME);
        // The last of the writes above may have come just after it was back.
        let on = if round == 0 { IO | MEMORY | MASTER } else { IO };
        report.equal("nothing is on", get(function, COMMAND) & on, 0);
        report.equal("where it was", get(function, BAR0) | get(function, BAR0 + 4) << 32, bars[0] | bars[1] << 32);
        report.value("the disk works", register(function, NVME_VERSION), version);
    }
}
