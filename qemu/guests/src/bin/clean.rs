//! The guest that looks at what it is given: its first instructions keep every register, then it checks interrupts, time and
//! the RAM its image does not fill. A dirty boot loader (`preload`) has been at work before.
#![no_std]
#![no_main]
#![allow(unsafe_code)] // memory nothing owns

use attackers::report::Report;
use attackers::{first, probe};
use unikernel::mmio::Registers;
use unikernel::{platform, println};

unikernel::entry!(main);

/// Where this guest's image, tables, stacks and device tree are not: the middle of its 16 MiB.
const UNUSED: (u64, u64) = (0x4040_0000, 0x40C0_0000);

fn main() {
    probe::install();
    let mut report = Report::default();
    first::check(&mut report);
    let Some(gic) = platform::platform().gic else { return println!("FAIL no interrupt controller") };
    // Of INTIDs below 32 the bits are in the redistributor's SGI frame, or banked in the distributor.
    let (private, at) = gic.private();
    let sgis = Registers::new(private);
    // The runtime uses the virtual timer by now; the physical one's interrupt, 30, is as the hypervisor gave it.
    for (name, offset) in [("30 enabled", 0x100), ("30 pending", 0x200), ("30 active", 0x300)] {
        report.equal(name, u64::from(sgis.read(at + offset) >> 30 & 1), 0);
    }
    // The RTC's, 34: nobody has asked for it.
    let spis = Registers::new(gic.distributor);
    for (name, offset) in [("34 enabled", 0x104), ("34 pending", 0x204), ("34 active", 0x304)] {
        report.equal(name, u64::from(spis.read(offset) >> 2 & 1), 0);
    }
    let words = (UNUSED.0..UNUSED.1).step_by(8);
    // SAFETY: this domain's own RAM, used by nobody.
    let junk = words.filter(|address| unsafe { (*address as *const u64).read_volatile() } != 0).count();
    println!("unused RAM: {junk} words are not zero");
    report.end();
}
