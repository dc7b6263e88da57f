//! A GICv2 (IHI 0048): distributor and CPU interface in memory, what belongs to a vCPU banked. There is one group.

use crate::fdt::Region;
use crate::mmio::Registers;
use crate::platform::{Gic, platform};

const GICD_CTLR: usize = 0x000;
const ITARGETSR: usize = 0x800;
const SGIR: usize = 0xF00;
const GICC_CTLR: usize = 0x00;
const GICC_PMR: usize = 0x04;
const GICC_BPR: usize = 0x08;
const GICC_IAR: usize = 0x0C;
const GICC_EOIR: usize = 0x10;

/// The distributor.
pub(super) fn init(gic: &Gic) {
    Registers::new(gic.distributor).write(GICD_CTLR, 1);
}

/// This vCPU's interface: all priorities, no groups, one step EOI.
pub(super) fn init_cpu(interface: Region) {
    let own = Registers::new(interface);
    own.write(GICC_PMR, 0xFF);
    own.write(GICC_BPR, 0);
    own.write(GICC_CTLR, 1);
}

/// SPI `intid` comes to this vCPU, which is the one that the distributor names in INTID 0's byte.
pub(super) fn route_here(registers: Registers, intid: u32) {
    let own = registers.read(ITARGETSR) as u8;
    registers.write8(ITARGETSR + intid as usize, own);
}

/// Sends an SGI to vCPU `index`.
pub(super) fn send(gic: &Gic, index: usize, intid: u32) {
    if index < platform().cpus().len().min(8) {
        Registers::new(gic.distributor).write(SGIR, 1 << (16 + index) | intid & 0xF);
    }
}

/// Takes the highest pending interrupt: INTID in bits 9:0, of an SGI its sender above.
pub(super) fn acknowledge(interface: Region) -> u32 {
    Registers::new(interface).read(GICC_IAR)
}

/// Ends it.
pub(super) fn end(interface: Region, taken: u32) {
    Registers::new(interface).write(GICC_EOIR, taken);
}
