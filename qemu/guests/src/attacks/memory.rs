//! Memory and registers that were not granted (I18, I19, I21): every access ends as a synchronous external abort.

use super::address;
use crate::probe::{fetch, load8, load16, load32, load64, store8, store32, store64};
use crate::report::Report;
use core::time::Duration;
use unikernel::clock;
use unikernel::platform::platform;

/// Reads and writes one address in every way that has a syndrome.
fn refused(report: &mut Report, what: &str, at: u64) {
    let mut each = |how: &str, outcome| {
        let mut holds = false;
        if let Err(fault) = &outcome {
            holds = crate::probe::Fault::is_external(fault, at);
        }
        match outcome {
            Ok(value) => report.check(what, false, format_args!("{how}: value {value:#x}")),
            Err(fault) if !holds => report.check(what, false, format_args!("{how}: {fault}")),
            Err(_) => {}
        }
        holds
    };
    let all = [
        each("8-bit load", load8(at, 0)),
        each("16-bit load", load16(at, 0)),
        each("32-bit load", load32(at, 0)),
        each("64-bit load", load64(at, 0)),
        each("8-bit store", store8(at, 0)),
        each("32-bit store", store32(at, 0)),
        each("64-bit store", store64(at, 0)),
    ];
    if all == [true; 7] {
        report.check(what, true, "");
    }
}

/// The victim's RAM, by its physical address.
pub(super) fn foreign_ram(report: &mut Report) {
    let ram = address("ram");
    refused(report, "victim's RAM, first bytes", ram);
    refused(report, "victim's RAM, its code", ram + 0x10_0000);
    refused(report, "victim's RAM, last bytes", ram + 0x100_0000 - 8);
    report.fault("victim's code executed", fetch(ram + 0x10_0000, 0), |f| f.is_external_fetch(ram + 0x10_0000));
}

/// The hypervisor's image, plan and tables. This domain's own RAM ends below them.
pub(super) fn hypervisor_ram(report: &mut Report) {
    let base = address("base");
    refused(report, "hypervisor's head", base);
    refused(report, "64 KiB in", base + 0x1_0000);
    refused(report, "128 KiB in", base + 0x2_0000);
    refused(report, "256 KiB in", base + 0x4_0000);
    refused(report, "end of its first 2 MiB", base + 0x20_0000 - 8);
    report.fault("hypervisor's code executed", fetch(base, 0), |f| f.is_external_fetch(base));
}

/// Address space with nothing behind it.
pub(super) fn hole(report: &mut Report) {
    refused(report, "hole between devices", 0x0700_0000);
    refused(report, "hole below RAM", 0x3FFF_0000);
    refused(report, "behind all RAM", 0x1_0000_0000);
    refused(report, "far above", 0x20_0000_0000);
    report.fault("hole executed", fetch(0x1_0000_0000, 0), |f| {
        f.is_external_fetch(0x1_0000_0000) || f.class() == 0x21 && f.status() & 0x3C == 0x0C // XN at stage 1 is as good
    });
}

/// Both ends of this domain's own RAM, 8 bytes to either side.
pub(super) fn edge(report: &mut Report) {
    let memory = platform().memory;
    let (first, end) = (memory.base, memory.base + memory.size);
    refused(report, "8 bytes below", first - 8);
    report.check("first 8 bytes", load64(first, 0).is_ok(), "a fault");
    report.value("last 8 bytes", store64(end - 8, 7), 7);
    refused(report, "8 bytes behind", end);
    report.fault("across the end", load64(end - 4, 0), |f| {
        f.class() == 0x25 && f.status() == 0x10 && (f.far == end - 4 || f.far == end)
    });
    refused(report, "2 MiB behind", end + 0x20_0000);
}

/// Two copies of this guest's own file (`first=`, `second=`), which the layout put into its RAM: equal to the last byte, and
/// its own to write.
pub(super) fn files(report: &mut Report) {
    // An ELF64 file for a little-endian machine starts so.
    const ELF: u64 = u64::from_le_bytes(*b"\x7fELF\x02\x01\x01\0");
    let (first, second, len) = (address("first"), address("second"), address("compare"));
    report.value("first file", load64(first, 0), ELF);
    report.value("second file", load64(second, 0), ELF);
    let mut at = 0;
    while at < len && load64(first + at, 0).ok() == load64(second + at, 0).ok() {
        at += 8;
    }
    report.equal("both the same so far", at, len);
    report.value("first file written", store64(first, 7), 7);
    report.value("second file untouched", load64(second, 0), ELF);
}

/// Devices: one of the victim's, nobody's, and those with power over the whole board.
pub(super) fn foreign_device(report: &mut Report) {
    refused(report, "victim's RTC", 0x0901_0000);
    refused(report, "its load register", 0x0901_0008);
    refused(report, "GPIO nobody has", 0x0903_0000);
    refused(report, "second UART", 0x0904_0000);
    refused(report, "fw_cfg DMA", 0x0902_0010);
    refused(report, "virtio-mmio", 0x0A00_0000);
    refused(report, "boot flash", 0x0000_0000);
    refused(report, "second flash", 0x0400_0000);
    refused(report, "SMMU", 0x0905_0000);
    refused(report, "PCI memory window", 0x1000_0000);
    refused(report, "PCI I/O window", 0x3EFF_0000);
    refused(report, "PCI configuration space", 0x40_1000_0000);
}

/// The physical UART. This domain's virtual one may lie at the very same address: then what it does there must stay its own.
/// It turns the UART off, loops it back and spoils its rate for half a second, in which the victim goes on talking.
pub(super) fn hypervisor_uart(report: &mut Report) {
    const UART: u64 = 0x0900_0000;
    let own = platform().console.map(|device| device.region.base);
    if own == Some(UART) {
        for (offset, value) in [(0x30, 0), (0x24, 1), (0x28, 0x3F), (0x2C, 0), (0x38, 0x7FF), (0x48, 7), (0x30, 0x381)]
        {
            let _ = store32(UART + offset, value);
        }
        for byte in 0..64 {
            let _ = store32(UART, byte);
        }
        clock::sleep(Duration::from_millis(500));
        for (offset, value) in [(0x38, 0), (0x30, 0), (0x2C, 0), (0x2C, 0x70), (0x44, 0x7FF), (0x30, 0x301)] {
            let _ = store32(UART + offset, value);
        }
        report.check("physical UART untouched", true, "");
    } else {
        refused(report, "physical UART untouched", UART);
    }
    refused(report, "page behind it", UART + 0x2000);
    refused(report, "second UART", 0x0904_0000);
}

/// Flash the domain was given: erased and written by commands, through registers that are also its memory.
pub(super) fn flash(report: &mut Report) {
    // Two 16-bit chips side by side, each with the Intel command set; a block of both has 256 KiB.
    const READ: u64 = 0x00FF_00FF;
    const READY: u64 = 0x0080_0080;
    let at = address("at") + 0x4_0000;
    let send = |command: u64| store32(at, command).is_ok();
    let wait = || (0..1_000_000).any(|_| load32(at, 0).is_ok_and(|status| status & READY == READY));
    report.check("erase", send(0x0020_0020) && send(0x00D0_00D0) && wait() && send(READ), "a fault, or never ready");
    report.value("erased", load32(at, 0), 0xFFFF_FFFF);
    report.check("write", send(0x0040_0040) && send(0x1234_5678) && wait() && send(READ), "a fault, or never ready");
    report.value("written", load32(at, 0), 0x1234_5678);
    report.value("neighbour untouched", load32(at + 4, 0), 0xFFFF_FFFF);
    refused(report, "boot flash", 0);
}

/// What of the interrupt controller is not this domain's: other redistributors, the ITS, the GICv2 and virtualization windows.
pub(super) fn gic_windows(report: &mut Report) {
    let own = 0x080A_0000;
    report.check("own redistributor", load64(own + 8, 0).is_ok(), "a fault");
    refused(report, "next CPU's RD frame", own + 0x2_0000);
    refused(report, "next CPU's SGI frame", own + 0x3_0080);
    refused(report, "last CPU's RD frame", own + 0x6_0000);
    refused(report, "end of the redistributors", 0x0900_0000 - 8);
    refused(report, "behind the distributor", 0x0801_0000);
    refused(report, "GICH of a GICv2", 0x0803_0000);
    refused(report, "GICV of a GICv2", 0x0804_0000);
    refused(report, "ITS", 0x0808_0000);
    refused(report, "GITS_TRANSLATER", 0x0809_0040);
}
