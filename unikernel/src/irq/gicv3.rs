//! A GICv3 (IHI 0069): distributor, this vCPU's redistributor, CPU interface by system registers. Everything is Group 1; Group
//! 0 belongs to others.

use crate::fdt::Region;
use crate::mmio::Registers;
use crate::platform::{Gic, platform};
use crate::{cpu, read_sysreg, write_sysreg};

const GICD_CTLR: usize = 0x0000;
const GICR_TYPER: usize = 0x0008;
const GICR_WAKER: usize = 0x0014;
/// The same offset in the distributor and in a redistributor's SGI frame.
const IGROUPR: usize = 0x0080;
const IROUTER: usize = 0x6000;
/// Bytes from a redistributor's RD frame to its SGI frame, and to the next redistributor.
const SGI_FRAME: u64 = 0x1_0000;
const STRIDE: u64 = 0x2_0000;

/// This vCPU's redistributor of those in `region`, both frames: found by its affinity, as the architecture wants it.
fn redistributor(mut region: Region) -> Registers {
    let wanted = cpu::mpidr();
    let packed = (wanted >> 32 & 0xFF) << 24 | wanted & 0xFF_FFFF;
    region.size = STRIDE;
    loop {
        let frame = Registers::new(region);
        let typer = frame.read64(GICR_TYPER);
        if typer >> 32 == packed {
            return frame;
        }
        assert!(typer & 1 << 4 == 0, "no redistributor for vCPU {wanted:#x}");
        region.base += STRIDE;
    }
}

/// The frame that holds `intid`'s bits, and where in it.
pub(super) fn frame(gic: &Gic, redistributors: Region, intid: u32) -> (Registers, usize) {
    if intid < 32 { (redistributor(redistributors), SGI_FRAME as usize) } else { (Registers::new(gic.distributor), 0) }
}

/// Affinity routing, Group 1 (12.9.4). Enable bits may read back as something else: a hypervisor keeps them virtual.
pub(super) fn init(gic: &Gic) {
    Registers::new(gic.distributor).write(GICD_CTLR, 1 << 4 | 1 << 1);
}

/// This vCPU's redistributor and CPU interface.
pub(super) fn init_cpu(redistributors: Region) {
    let own = redistributor(redistributors);
    own.write(GICR_WAKER, own.read(GICR_WAKER) & !(1 << 1));
    while own.read(GICR_WAKER) & 1 << 2 != 0 {
        cpu::relax();
    }
    own.write(SGI_FRAME as usize + IGROUPR, u32::MAX);
    write_sysreg!("icc_sre_el1", read_sysreg!("icc_sre_el1") | 1);
    cpu::isb();
    write_sysreg!("icc_pmr_el1", 0xFF);
    write_sysreg!("icc_bpr1_el1", 0);
    write_sysreg!("icc_ctlr_el1", 0);
    write_sysreg!("icc_igrpen1_el1", 1);
    cpu::isb();
}

/// SPI `intid` is Group 1 and comes to this vCPU.
pub(super) fn route_here(registers: Registers, intid: u32) {
    let (word, bit) = (intid as usize / 32 * 4, 1 << (intid % 32));
    let group = registers.read(IGROUPR + word);
    registers.write(IGROUPR + word, group | bit);
    registers.write64(IROUTER + intid as usize * 8, cpu::mpidr());
}

/// Sends an SGI to vCPU `index`.
pub(super) fn send(index: usize, intid: u32) {
    let Some(mpidr) = platform().cpus().get(index) else { return };
    let affinity = (mpidr >> 32 & 0xFF) << 48 | (mpidr >> 16 & 0xFF) << 32 | (mpidr >> 8 & 0xFF) << 16;
    let (range, bit) = ((mpidr & 0xFF) / 16, 1 << (mpidr & 0xF));
    write_sysreg!("icc_sgi1r_el1", affinity | range << 44 | u64::from(intid & 0xF) << 24 | bit);
    cpu::isb();
}

/// Takes the highest pending interrupt: its INTID.
pub(super) fn acknowledge() -> u32 {
    read_sysreg!("icc_iar1_el1") as u32 & 0xFF_FFFF
}

/// Ends it.
pub(super) fn end(taken: u32) {
    write_sysreg!("icc_eoir1_el1", u64::from(taken));
    cpu::isb();
}
