//! I/O ports where there are none (I71): the I/O BARs of two network cards stay absent, their I/O decode off, whatever is written, and the
//! window that would reach ports is nobody's.

use crate::probe::{load32, store8, store16, store32};
use crate::report::Report;
use unikernel::pci::{Function, Host};
use unikernel::platform::platform;
use unikernel::println;

const COMMAND: u16 = 0x04;
const BAR0: u16 = 0x10;
const IO: u32 = 1 << 0;
const MEMORY: u32 = 1 << 1;
/// Cards with an I/O BAR: their ID, where it is, and what they are called.
const CARDS: [(u32, u16, &str); 2] = [(0x10D3_8086, 0x18, "e1000e"), (0x100E_8086, 0x14, "e1000")];
/// Device status of both (Intel 8254x Software Developer's Manual, 13.4.2), in the first memory BAR.
const STATUS: u64 = 0x8;
/// Where QEMU's `virt` has the window of its host bridge for ports, 64 KiB.
const WINDOW: u64 = 0x3EFF_0000;

pub(super) fn io_ports(report: &mut Report) {
    let Some(host) = Host::find() else { return report.check("PCI", false, "none") };
    // Entries of seven cells; the first has the kind of space in bits 25:24, 1 is I/O (IEEE 1275 PCI bus binding).
    let windows = platform().fdt.find(|node| {
        let is_it = node.is_compatible("pci-host-ecam-generic");
        let kinds = || (0..8).map_while(|entry| node.word("ranges", entry * 7));
        is_it.then(|| kinds().filter(|kind| kind >> 24 & 3 == 1).count() as u64)
    });
    report.equal("windows for ports", windows.unwrap_or(u64::MAX), 0);
    for (id, bar, name) in CARDS {
        let Some(card) = host.functions().find(|function| host.id(*function) == id) else {
            report.check(name, false, "none");
            continue;
        };
        println!("{name}");
        let at = host.address(card);
        let place = host.read(card, BAR0);
        let io = host.read(card, COMMAND) & IO;
        report.equal("I/O decode at the start", io.into(), 0);
        report.equal("the I/O BAR", host.read(card, bar).into(), 0);
        for value in [u32::MAX, 0xC001, 1, 0] {
            host.write(card, bar, value);
            report.equal("the I/O BAR, written", host.read(card, bar).into(), 0);
        }
        // All of the command register at once, its low half, its low byte.
        let command = u64::from(IO | MEMORY);
        let stores = [store32(at + 4, command), store16(at + 4, command), store8(at + 4, command)];
        report.check("I/O decode may be asked for", stores.iter().all(Result::is_ok), "a fault");
        report.equal("decode", (host.read(card, COMMAND) & (IO | MEMORY)).into(), MEMORY.into());
        report.equal("where it was", host.read(card, BAR0).into(), place.into());
        let status = load32(u64::from(place & !0xF) + STATUS, 0);
        report.check("its memory BAR", status.is_ok_and(|status| ![0, 0xFFFF_FFFF].contains(&status)), "nothing");
    }
    for port in [0, 0x3F8, 0xC000, 0xFFFC] {
        report.external("a port", load32(WINDOW + port, 0), WINDOW + port);
    }
}

/// Configuration space of which nothing is there.
pub(super) fn absent(report: &mut Report) {
    let Some(host) = Host::find() else { return report.check("PCI", false, "none") };
    let places =
        || (0..=u8::MAX).flat_map(|number| (0..0x40).step_by(4).map(move |at| host.address(Function(number)) + at));
    report.equal("functions that answer", places().filter(|at| load32(*at, 0) != Ok(0xFFFF_FFFF)).count() as u64, 0);
    report.equal("writes that fault", places().filter(|at| store32(*at, 0xFFFF_FFFF).is_err()).count() as u64, 0);
}
