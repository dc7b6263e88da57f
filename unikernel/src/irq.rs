//! Interrupts: a GICv3 (IHI 0069) as one domain sees it. Everything is Group 1; Group 0 belongs to others.
#![allow(unsafe_code)] // function pointers kept in atomics

use crate::mmio::Registers;
use crate::platform::{Gic, platform};
use crate::{cpu, read_sysreg, write_sysreg};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

const GICD_CTLR: usize = 0x0000;
const GICR_TYPER: usize = 0x0008;
const GICR_WAKER: usize = 0x0014;
/// The same offsets in the distributor and in a redistributor's SGI frame.
const IGROUPR: usize = 0x0080;
const ISENABLER: usize = 0x0100;
const ICENABLER: usize = 0x0180;
const IPRIORITYR: usize = 0x0400;
const ICFGR: usize = 0x0C00;
const IROUTER: usize = 0x6000;
/// Bytes from a redistributor's RD frame to its SGI frame, and to the next redistributor.
const SGI_FRAME: u64 = 0x1_0000;
const STRIDE: u64 = 0x2_0000;
/// SPIs that can have a handler at once.
const SPI_SLOTS: usize = 16;

/// Why a handler was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Not an SGI, PPI or SPI.
    NoSuchInterrupt,
    /// More SPIs than this runtime keeps handlers for.
    Full,
}

static PRIVATE: [AtomicUsize; 32] = [const { AtomicUsize::new(0) }; 32];
static SHARED: [(AtomicU32, AtomicUsize); SPI_SLOTS] = [const { (AtomicU32::new(0), AtomicUsize::new(0)) }; SPI_SLOTS];

fn distributor(gic: &Gic) -> Registers {
    Registers::new(gic.distributor)
}

/// This vCPU's redistributor, both frames: found by its affinity, as the architecture wants it.
fn redistributor(gic: &Gic) -> Registers {
    let wanted = cpu::mpidr();
    let packed = (wanted >> 32 & 0xFF) << 24 | wanted & 0xFF_FFFF;
    let mut region = gic.redistributors;
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

/// The frame that holds `intid`'s bits.
fn frame(gic: &Gic, intid: u32) -> (Registers, usize) {
    if intid < 32 { (redistributor(gic), SGI_FRAME as usize) } else { (distributor(gic), 0) }
}

/// Turns on the distributor and this vCPU's side.
pub(crate) fn init() {
    let Some(gic) = &platform().gic else { return };
    // Affinity routing, Group 1 (12.9.4). Enable bits may read back as something else: a hypervisor keeps them virtual.
    distributor(gic).write(GICD_CTLR, 1 << 4 | 1 << 1);
    init_cpu();
}

/// Turns on this vCPU's redistributor and CPU interface.
pub(crate) fn init_cpu() {
    let Some(gic) = &platform().gic else { return };
    let own = redistributor(gic);
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

/// Calls `handler` with the INTID whenever `intid` is taken, on any vCPU. Replaces an earlier handler.
///
/// # Errors
/// For an INTID that cannot be, or too many SPIs.
pub fn register(intid: u32, handler: fn(u32)) -> Result<(), Error> {
    if let Some(slot) = PRIVATE.get(intid as usize) {
        slot.store(handler as usize, Ordering::Release);
        return Ok(());
    }
    if intid > 1019 {
        return Err(Error::NoSuchInterrupt);
    }
    for (owner, slot) in &SHARED {
        let free = owner.compare_exchange(0, intid, Ordering::AcqRel, Ordering::Acquire);
        if free.is_ok() || free == Err(intid) {
            slot.store(handler as usize, Ordering::Release);
            return Ok(());
        }
    }
    Err(Error::Full)
}

/// Enables `intid`: an SPI goes to this vCPU, an SGI or PPI is this vCPU's own. Priority stays what it is.
pub fn enable(intid: u32) {
    let Some(gic) = &platform().gic else { return };
    let (registers, offset) = frame(gic, intid);
    let word = intid as usize / 32 * 4;
    let bit = 1 << (intid % 32);
    if intid >= 32 {
        let group = registers.read(IGROUPR + word);
        registers.write(IGROUPR + word, group | bit);
        registers.write64(IROUTER + intid as usize * 8, cpu::mpidr());
    }
    registers.write(offset + ISENABLER + word, bit);
}

/// Disables `intid`.
pub fn disable(intid: u32) {
    let Some(gic) = &platform().gic else { return };
    let (registers, offset) = frame(gic, intid);
    registers.write(offset + ICENABLER + intid as usize / 32 * 4, 1 << (intid % 32));
}

/// Sets the priority of `intid`: 0 is the highest.
pub fn set_priority(intid: u32, priority: u8) {
    let Some(gic) = &platform().gic else { return };
    let (registers, offset) = frame(gic, intid);
    registers.write8(offset + IPRIORITYR + intid as usize, priority);
}

/// Makes SPI `intid` edge-triggered, or level-sensitive.
pub fn set_edge(intid: u32, edge: bool) {
    let Some(gic) = &platform().gic else { return };
    let (registers, offset) = frame(gic, intid);
    let at = offset + ICFGR + intid as usize / 16 * 4;
    let bit = 2 << (intid % 16 * 2);
    let word = registers.read(at);
    registers.write(at, if edge { word | bit } else { word & !bit });
}

/// Sends SGI `intid` (0 to 15) to vCPU `index` of this domain. A vCPU that does not exist gets none.
pub fn send(index: usize, intid: u32) {
    let Some(mpidr) = platform().cpus().get(index) else { return };
    let affinity = (mpidr >> 32 & 0xFF) << 48 | (mpidr >> 16 & 0xFF) << 32 | (mpidr >> 8 & 0xFF) << 16;
    let (range, bit) = ((mpidr & 0xFF) / 16, 1 << (mpidr & 0xF));
    // What was written before must be seen by the vCPU that takes the interrupt.
    cpu::publish();
    write_sysreg!("icc_sgi1r_el1", affinity | range << 44 | u64::from(intid & 0xF) << 24 | bit);
    cpu::isb();
}

/// Takes what is pending, one interrupt per exception.
pub(crate) fn dispatch() {
    let intid = read_sysreg!("icc_iar1_el1") as u32 & 0xFF_FFFF;
    if intid > 1019 {
        return; // spurious
    }
    let handler = match PRIVATE.get(intid as usize) {
        Some(slot) => slot.load(Ordering::Acquire),
        None => SHARED
            .iter()
            .find(|(owner, _)| owner.load(Ordering::Acquire) == intid)
            .map_or(0, |(_, slot)| slot.load(Ordering::Acquire)),
    };
    if handler == 0 {
        disable(intid); // nobody could end a level
    } else {
        // SAFETY: only `register` stores here, and it stores a `fn(u32)`.
        let handler = unsafe { core::mem::transmute::<usize, fn(u32)>(handler) };
        handler(intid);
    }
    write_sysreg!("icc_eoir1_el1", u64::from(intid));
    cpu::isb();
}
