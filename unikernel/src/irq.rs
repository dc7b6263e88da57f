//! Interrupts as one domain sees them: handlers, and the interrupt controller that its device tree names, by version.
#![allow(unsafe_code)] // function pointers kept in atomics

mod gicv2;
mod gicv3;

use crate::cpu;
use crate::mmio::Registers;
use crate::platform::{Gic, GicFrames, platform};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

// The same in both versions; of INTIDs below 32 in a redistributor's SGI frame, or banked.
const ISENABLER: usize = 0x0100;
const ICENABLER: usize = 0x0180;
const IPRIORITYR: usize = 0x0400;
const ICFGR: usize = 0x0C00;
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

/// The frame that holds `intid`'s bits, and where in it.
fn frame(gic: &Gic, intid: u32) -> (Registers, usize) {
    match gic.frames {
        GicFrames::V3 { redistributors } => gicv3::frame(gic, redistributors, intid),
        GicFrames::V2 { .. } => (Registers::new(gic.distributor), 0),
    }
}

/// Turns on the distributor and this vCPU's side.
pub(crate) fn init() {
    let Some(gic) = &platform().gic else { return };
    match gic.frames {
        GicFrames::V3 { .. } => gicv3::init(gic),
        GicFrames::V2 { .. } => gicv2::init(gic),
    }
    init_cpu();
}

/// Turns on this vCPU's side.
pub(crate) fn init_cpu() {
    match platform().gic.map(|gic| gic.frames) {
        Some(GicFrames::V3 { redistributors }) => gicv3::init_cpu(redistributors),
        Some(GicFrames::V2 { interface }) => gicv2::init_cpu(interface),
        None => {}
    }
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
    match gic.frames {
        GicFrames::V3 { .. } if intid >= 32 => gicv3::route_here(registers, intid),
        GicFrames::V2 { .. } if intid >= 32 => gicv2::route_here(registers, intid),
        _ => {}
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
    let Some(gic) = &platform().gic else { return };
    // What was written before must be seen by the vCPU that takes the interrupt.
    cpu::publish();
    match gic.frames {
        GicFrames::V3 { .. } => gicv3::send(index, intid),
        GicFrames::V2 { .. } => gicv2::send(gic, index, intid),
    }
}

/// Takes what is pending, one interrupt per exception.
pub(crate) fn dispatch() {
    let Some(gic) = &platform().gic else { return };
    let taken = match gic.frames {
        GicFrames::V3 { .. } => gicv3::acknowledge(),
        GicFrames::V2 { interface } => gicv2::acknowledge(interface),
    };
    let intid = if let GicFrames::V2 { .. } = gic.frames { taken & 0x3FF } else { taken };
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
    match gic.frames {
        GicFrames::V3 { .. } => gicv3::end(taken),
        GicFrames::V2 { interface } => gicv2::end(interface, taken),
    }
}
