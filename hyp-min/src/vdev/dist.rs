//! The distributor as a guest with direct delivery sees it: its own SPIs, everything else as if not implemented.
//!
//! Several domains share the physical one, on other CPUs, at the same time. So nothing is read, changed and written back:
//! bits go through the write-one registers, priorities through bytes, and what packs several owners into one word and has
//! neither (trigger, group) is baked by the compiler and ignores writes. No lock, no wait (RWP is never polled).
//!
//! References are to IHI 0069 (GICv3 and GICv4 architecture).

use super::{Access, Frame, Outcome, View, dist2};
use cofferdam_plan::limits::INTID_WORDS;
use cofferdam_plan::{HeaderFlags, Mpidr};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Bytes of the frame (12.8).
pub const FRAME_SIZE: u32 = 0x1_0000;

/// What a register does with a guest's access. A location that is no register reads as zero and ignores writes; a register
/// in a size or alignment it does not have aborts (12.1.3 leaves the choice).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// CTLR, TYPER, IIDR; nothing else (SETSPI and CLRSPI are message-based: an SPI nobody could be asked for).
    Head,
    /// IGROUPR: own bits read as Group 1.
    Group,
    /// A set or clear register: own bits only, to the hardware.
    Bits,
    /// ISENABLER and ICENABLER: the same while the distributor is on, kept for later while it is off.
    Enable,
    /// IPRIORITYR: own bytes, kept in the lower half.
    Priority,
    /// ICFGR: own fields, from the plan.
    Config,
    /// Not there for a guest: ITARGETSR, IGRPMODR, NSACR, SGIR, CPENDSGIR, SPENDSGIR, INMIR, all extended SPIs.
    Absent,
}

/// Policy per 128 bytes below [`BLOCKS_END`] (table 12-25). Above lie IROUTER and the identification registers.
const POLICY: [Kind; 32] = {
    let mut policy = [Kind::Absent; 32];
    policy[0x000 >> 7] = Kind::Head;
    policy[0x080 >> 7] = Kind::Group;
    policy[ISENABLER >> 7] = Kind::Enable;
    policy[ICENABLER >> 7] = Kind::Enable;
    policy[0x200 >> 7] = Kind::Bits; // ISPENDR
    policy[0x280 >> 7] = Kind::Bits; // ICPENDR
    policy[0x300 >> 7] = Kind::Bits; // ISACTIVER
    policy[0x380 >> 7] = Kind::Bits; // ICACTIVER
    let mut block = IPRIORITYR >> 7;
    while block < 0x800 >> 7 {
        policy[block] = Kind::Priority;
        block += 1;
    }
    policy[ICFGR >> 7] = Kind::Config;
    policy[(ICFGR >> 7) + 1] = Kind::Config;
    policy
};
const BLOCKS_END: u32 = 0x1000;
const ISENABLER: usize = 0x100;
const ICENABLER: usize = 0x180;
const IPRIORITYR: usize = 0x400;
const ICFGR: usize = 0xC00;
const IROUTER: u32 = 0x6000;
const IROUTER_END: u32 = 0x8000;

pub(super) const CTLR: u32 = 0x0;
const TYPER: u32 = 0x4;
const IIDR: u32 = 0x8;
/// GICD_CTLR, Non-secure view (12.9.4): ARE_NS, always set.
const ARE_NS: u32 = 1 << 4;
/// GICD_CTLR.EnableGrp1A.
const ENABLE_GRP1A: u32 = 1 << 1;
/// GICD_IIDR and GICR_IIDR: implementer Arm, product, variant and revision 0.
pub(super) const IIDR_VALUE: u64 = 0x43B;
/// GICD_IROUTER.Interrupt_Routing_Mode: any participating CPU.
const IRM: u64 = 1 << 31;

/// The SPIs of each word: INTIDs 0 to 31 belong to the redistributors, 1020 to 1023 are special (2.2).
const SPIS: [u32; INTID_WORDS] = {
    let mut spis = [u32::MAX; INTID_WORDS];
    spis[0] = 0;
    spis[INTID_WORDS - 1] = 0x0FFF_FFFF;
    spis
};

/// What of a domain's virtual distributor is not in the hardware. All zeroes is the reset state.
///
/// vCPUs of the domain use it at the same time without a lock: each access is one atomic load or store. A guest whose
/// vCPUs race on GICD_CTLR may find an SPI of its own enabled that it meant to disable, and nothing else.
#[derive(Debug)]
pub struct State {
    /// GICD_CTLR.EnableGrp1A, of a GICv2 Enable; zero while off.
    enabled: AtomicU32,
    /// Enable bits the guest wants while the distributor is off; stale while it is on.
    wanted: [AtomicU32; INTID_WORDS],
}

impl State {
    /// The reset state.
    pub const fn new() -> Self {
        Self { enabled: AtomicU32::new(0), wanted: [const { AtomicU32::new(0) }; INTID_WORDS] }
    }

    /// Back to the reset state. While no vCPU of the domain runs.
    pub fn reset(&self) {
        self.enabled.store(0, Relaxed);
        self.wanted.iter().for_each(|word| word.store(0, Relaxed));
    }

    /// Whether the guest has its distributor on.
    #[inline]
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Relaxed) != 0
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// Own SPIs of word `word & 31`.
#[inline(always)]
pub(super) fn own(view: &View<'_>, word: usize) -> u32 {
    view.domain.owned[word & (INTID_WORDS - 1)] & SPIS[word & (INTID_WORDS - 1)]
}

/// Decides and does one access. `frame` is the physical distributor.
///
/// What guests do often comes first and inline; it is what [`POLICY`] says, only found sooner.
#[inline(always)]
pub fn access<F: Frame>(view: &View<'_>, frame: &F, access: Access) -> Outcome {
    let Access { offset, size, write } = access;
    if size == 4 && offset & 3 == 0 {
        if offset == TYPER && write.is_none() {
            return Outcome::Handled(u64::from(view.domain.gicd_typer));
        }
        // Word 0 is a redistributor's business, or of a GICv2 what differs.
        let word = (offset >> 2) as usize & 31;
        if offset.wrapping_sub(ISENABLER as u32) < (IPRIORITYR - ISENABLER) as u32
            && word != 0
            && view.dist.is_enabled()
        {
            return bits(frame, offset, own(view, word), write);
        }
    }
    any(view, frame, access)
}

/// Every access, by the table.
#[inline(never)]
pub(super) fn any<F: Frame>(view: &View<'_>, frame: &F, access: Access) -> Outcome {
    let Access { offset, size, write } = access;
    if view.plan.header.flags & HeaderFlags::GICV2 != 0 {
        return dist2::access(view, frame, access);
    }
    if offset >= BLOCKS_END {
        return high(view, frame, access);
    }
    let kind = POLICY[(offset >> 7) as usize & 31];
    if kind == Kind::Priority {
        return priority(view, frame, access);
    }
    if size != 4 || offset & 3 != 0 {
        return if kind == Kind::Absent { Outcome::Handled(0) } else { Outcome::Abort };
    }
    let word = (offset >> 2) as usize & 31;
    match kind {
        Kind::Enable if !view.dist.is_enabled() => Outcome::Handled(wanted(view, offset, word, write)),
        Kind::Enable | Kind::Bits => bits(frame, offset, own(view, word), write),
        Kind::Head => match (offset, write) {
            (TYPER, None) => Outcome::Handled(u64::from(view.domain.gicd_typer)),
            (CTLR, None) => Outcome::Handled(u64::from(ARE_NS | view.dist.enabled.load(Relaxed))),
            (CTLR, Some(value)) => {
                switch(view, frame, value as u32 & ENABLE_GRP1A);
                Outcome::Handled(0)
            }
            (IIDR, None) => Outcome::Handled(IIDR_VALUE),
            _ => Outcome::Handled(0),
        },
        Kind::Group => Outcome::Handled(u64::from(own(view, word))),
        Kind::Config => Outcome::Handled(config(view, offset)),
        Kind::Priority | Kind::Absent => Outcome::Handled(0),
    }
}

/// A write-one register at `offset`: only the bits in `own` reach the hardware, only they are read.
#[inline(always)]
pub(super) fn bits<F: Frame>(frame: &F, offset: u32, own: u32, write: Option<u64>) -> Outcome {
    match write {
        Some(value) => {
            let value = value & u64::from(own);
            if value != 0 {
                frame.write(offset, 4, value);
            }
            Outcome::Handled(0)
        }
        None if own == 0 => Outcome::Handled(0),
        None => Outcome::Handled(frame.read(offset, 4) & u64::from(own)),
    }
}

/// ISENABLER and ICENABLER while the distributor is off.
#[cold]
pub(super) fn wanted(view: &View<'_>, offset: u32, word: usize, write: Option<u64>) -> u64 {
    let state = &view.dist.wanted[word & (INTID_WORDS - 1)];
    let now = state.load(Relaxed);
    match write {
        None => return u64::from(now),
        Some(value) if offset < ICENABLER as u32 => state.store(now | value as u32 & own(view, word), Relaxed),
        Some(value) => state.store(now & !(value as u32), Relaxed),
    }
    0
}

/// A write of GICD_CTLR.EnableGrp1A, or of a GICv2's Enable. The physical one belongs to everybody, so an off distributor is one whose SPIs are
/// all disabled. SGIs and PPIs go on: their enables are the vCPU's own affair (ICC_IGRPEN1, GICR_ICENABLER0).
pub(super) fn switch<F: Frame>(view: &View<'_>, frame: &F, enable: u32) {
    if enable == view.dist.enabled.load(Relaxed) {
        return;
    }
    if enable != 0 {
        view.dist.enabled.store(enable, Relaxed);
    }
    let words = (view.plan.header.gicd_words as usize).min(INTID_WORDS);
    for (word, wanted) in view.dist.wanted.iter().enumerate().take(words).skip(1) {
        let (own, at) = (own(view, word), 4 * word as u32);
        if own == 0 {
            continue;
        }
        if enable != 0 {
            bits(frame, ISENABLER as u32 + at, own, Some(u64::from(wanted.load(Relaxed))));
        } else {
            let on = frame.read(ISENABLER as u32 + at, 4) as u32 & own;
            wanted.store(on, Relaxed);
            bits(frame, ICENABLER as u32 + at, own, Some(u64::from(on)));
        }
    }
    if enable == 0 {
        view.dist.enabled.store(0, Relaxed);
    }
}

/// The trigger types of 16 INTIDs, as the compiler baked them.
pub(super) fn config(view: &View<'_>, offset: u32) -> u64 {
    let register = (offset as usize - ICFGR) / 4;
    let baked = register.checked_sub(2).and_then(|i| view.plan.icfgr.get(i)).copied().unwrap_or(0);
    let half = own(view, register / 2) >> (register % 2 * 16);
    u64::from(baked & fields(half as u16))
}

/// Two bits for each bit of `own`, as GICD_ICFGR packs them.
pub(super) const fn fields(own: u16) -> u32 {
    let mut x = own as u32;
    x = (x | x << 8) & 0x00FF_00FF;
    x = (x | x << 4) & 0x0F0F_0F0F;
    x = (x | x << 2) & 0x3333_3333;
    x = (x | x << 1) & 0x5555_5555;
    x * 3
}

fn priority<F: Frame>(view: &View<'_>, frame: &F, access: Access) -> Outcome {
    let first = access.offset as usize - IPRIORITYR;
    priorities(frame, access, own(view, first / 32) >> (first % 32))
}

/// IPRIORITYR by byte or word: `own` has the bit of the INTID at `access.offset` in bit 0, the following ones above.
///
/// A guest's priority p is kept as 0x80 | p >> 1, so that none reaches EL2's (0), and reads back as p without its lowest
/// bit. Hardware that was reset to 0x80 reads 0.
pub(super) fn priorities<F: Frame>(frame: &F, access: Access, own: u32) -> Outcome {
    let Access { offset, size, write } = access;
    let bytes: u32 = match size {
        1 => own & 1,
        4 if offset % 4 == 0 => own & 0xF,
        _ => return Outcome::Abort,
    };
    // One 0xFF for each byte that is the guest's.
    let mask = ((bytes & 1) * 0xFF)
        | ((bytes >> 1 & 1) * 0xFF00)
        | ((bytes >> 2 & 1) * 0xFF_0000)
        | ((bytes >> 3) * 0xFF00_0000);
    if mask == 0 {
        return Outcome::Handled(0);
    }
    let Some(value) = write else {
        let value = frame.read(offset, size) as u32 & mask;
        return Outcome::Handled(u64::from((value & 0x7F7F_7F7F) << 1));
    };
    let value = (value as u32 >> 1 & 0x7F7F_7F7F | 0x8080_8080) & mask;
    if mask == u32::MAX || size == 1 {
        frame.write(offset, size, u64::from(value));
    } else {
        for byte in 0..4 {
            if bytes >> byte & 1 != 0 {
                frame.write(offset + byte, 1, u64::from(value >> (byte * 8) & 0xFF));
            }
        }
    }
    Outcome::Handled(0)
}

/// IROUTER and the identification registers.
fn high<F: Frame>(view: &View<'_>, frame: &F, access: Access) -> Outcome {
    match access.offset {
        IROUTER..IROUTER_END => route(view, frame, access),
        IDENTIFICATION.. => identification(access, 0x92),
        _ => Outcome::Handled(0),
    }
}

/// GICD_IROUTER (12.9.22), 64 bits or halves. A guest names a vCPU (Aff0 = number); the hardware holds its CPU. Writes with
/// IRM or an affinity that is not one of its vCPUs are ignored. The upper half, Aff3, is always zero for a guest: it can
/// be written alone without changing anything, and the lower half alone says everything.
fn route<F: Frame>(view: &View<'_>, frame: &F, access: Access) -> Outcome {
    let Access { offset, size, write } = access;
    if !(size == 8 && offset & 7 == 0 || size == 4 && offset & 3 == 0) {
        return Outcome::Abort;
    }
    let intid = (offset - IROUTER) / 8;
    let upper = offset & 4 != 0;
    let register = offset & !7;
    if own(view, intid as usize / 32) >> (intid % 32) & 1 == 0 || upper {
        return Outcome::Handled(0);
    }
    match write {
        Some(vcpu) => {
            if let Some(cpu) = usize::try_from(vcpu).ok().and_then(|vcpu| view.mpidr(vcpu)) {
                frame.write(register, 8, cpu.0);
            }
            Outcome::Handled(0)
        }
        None => {
            let raw = frame.read(register, 8);
            let vcpu = if raw & IRM == 0 { view.vcpu(Mpidr::from_raw(raw)) } else { None };
            Outcome::Handled(vcpu.unwrap_or(0) as u64)
        }
    }
}

/// Start of the identification registers of every GICv3 frame (12.1.4).
pub(super) const IDENTIFICATION: u32 = 0xFFD0;

/// PIDR4 to PIDR7, PIDR0 to PIDR3, CIDR0 to CIDR3 of an Arm GICv3; `part` is PIDR0. `access.offset` counts from the frame.
pub(super) fn identification(access: Access, part: u8) -> Outcome {
    if access.size != 4 || access.offset & 3 != 0 {
        return Outcome::Abort;
    }
    let value = match access.offset {
        0xFFD0 => 0x44,
        0xFFE0 => part,
        0xFFE4 => 0xB4,
        0xFFE8 => 0x3B, // PIDR2: ArchRev 3, JEDEC, Arm
        0xFFF0 => 0x0D,
        0xFFF4 => 0xF0,
        0xFFF8 => 0x05,
        0xFFFC => 0xB1,
        _ => 0,
    };
    Outcome::Handled(if access.write.is_some() { 0 } else { u64::from(value) })
}

#[cfg(test)]
mod tests;
