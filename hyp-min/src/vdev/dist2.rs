//! The distributor of a GICv2 as a guest sees it: its own SPIs, SGIs and PPIs.
//!
//! What is the same as in a GICv3's stays in [`dist`](super::dist), which comes here for the rest: registers of INTIDs 0 to 31
//! are banked, and an access is made on the guest's own CPU, so it reaches that CPU's. CPUs are named by the number of
//! their CPU interface; a guest's numbers are those of its vCPUs.
//!
//! References are to IHI 0048 (GICv2 architecture).

use super::dist::{self, bits, fields, own, priorities};
use super::{Access, Frame, Outcome, View};
use cofferdam_plan::IntId;
use cofferdam_plan::limits::INTID_WORDS;

/// Bytes of the frame (4.1.2).
pub const FRAME_SIZE: u32 = 0x1000;
const ISENABLER: u32 = 0x100;
const IPRIORITYR: u32 = 0x400;
const ITARGETSR: u32 = 0x800;
const ICFGR1: u32 = 0xC04;
const SGIR: u32 = 0xF00;
/// GICD_IIDR of a GIC-400 r0p1, which is what the guest's device tree says it is.
const IIDR_VALUE: u64 = 0x0200_143B;

/// Every access that [`dist::access`] has not handled. `frame` is the physical distributor.
pub(super) fn access<F: Frame>(view: &View<'_>, frame: &F, access: Access) -> Outcome {
    let Access { offset, size, write } = access;
    match offset {
        IPRIORITYR..ITARGETSR => {
            let first = offset - IPRIORITYR;
            return priorities(frame, access, banked(view, first as usize / 32) >> (first % 32));
        }
        ITARGETSR..0xC00 => return targets(view, frame, access),
        FRAME_SIZE.. => return Outcome::Abort,
        _ => {}
    }
    if size != 4 || offset & 3 != 0 {
        return Outcome::Abort;
    }
    let word = (offset >> 2) as usize & 31;
    let value = match (offset, write) {
        // Enables of SGIs and PPIs are the vCPU's own affair, whether the distributor is on or not.
        (ISENABLER..0x200, _) if word != 0 && !view.dist.is_enabled() => dist::wanted(view, offset, word, write),
        (ISENABLER..IPRIORITYR, _) => return bits(frame, offset, banked(view, word), write),
        (SGIR, Some(value)) => {
            if let Some(value) = sgi(view, value as u32) {
                frame.write(SGIR, 4, u64::from(value));
            }
            0
        }
        (0x0, Some(value)) => {
            dist::switch(view, frame, value as u32 & 1);
            0
        }
        (_, Some(_)) => 0,
        (0x0, None) => u64::from(view.dist.is_enabled()),
        (0x4, None) => u64::from(view.domain.gicd_typer),
        (0x8, None) => IIDR_VALUE,
        // SGIs are edge-triggered; the triggers of PPIs are the hardware's.
        (0xC00, None) => u64::from(0xAAAA_AAAA & fields(view.domain.owned[0] as u16)),
        (ICFGR1, None) => frame.read(ICFGR1, 4) & u64::from(fields((view.domain.owned[0] >> 16) as u16)),
        (0xC08..0xD00, None) => dist::config(view, offset),
        // PIDR4, PIDR0 to PIDR2, CIDR0 to CIDR3 of a GIC-400; ArchRev 2.
        (0xFD0, None) => 0x04,
        (0xFE0, None) => 0x90,
        (0xFE4, None) => 0xB4,
        (0xFE8, None) => 0x2B,
        (0xFF0, None) => 0x0D,
        (0xFF4, None) => 0xF0,
        (0xFF8, None) => 0x05,
        (0xFFC, None) => 0xB1,
        // IGROUPR as without the Security Extensions' Secure side (4.3.4); PPISR, SPISR, NSACR, SPENDSGIR, CPENDSGIR.
        (_, None) => 0,
    };
    Outcome::Handled(value)
}

/// Own interrupts of a word, SGIs and PPIs among them.
fn banked(view: &View<'_>, word: usize) -> u32 {
    if word == 0 { view.domain.owned[0] } else { own(view, word & (INTID_WORDS - 1)) }
}

/// GICD_ITARGETSR (4.3.12) by byte or word: a guest names vCPUs, the hardware holds their CPU interfaces. Those of INTIDs 0
/// to 31 say which vCPU reads them.
fn targets<F: Frame>(view: &View<'_>, frame: &F, access: Access) -> Outcome {
    let Access { offset, size, write } = access;
    if !matches!((size, offset % 4), (1, _) | (4, 0)) {
        return Outcome::Abort;
    }
    let first = offset - ITARGETSR;
    let own = own(view, first as usize / 32) >> (first % 32);
    let mut value = 0;
    for byte in 0..u32::from(size) {
        let shift = byte * 8;
        if first < 32 {
            value |= 1u64.checked_shl(view.vcpu as u32).unwrap_or(0) << shift;
        } else if own >> byte & 1 == 0 {
            continue;
        } else if let Some(write) = write {
            frame.write(offset + byte, 1, u64::from(physical(view, (write >> shift) as u32)));
        } else {
            value |= u64::from(vcpus(view, frame.read(offset + byte, 1) as u32)) << shift;
        }
    }
    Outcome::Handled(if write.is_some() { 0 } else { value })
}

/// The CPU interface of vCPU `vcpu` as a bit, 0 where there is none.
fn target(view: &View<'_>, vcpu: u32) -> u32 {
    let cpus = view.plan.vcpus_of(view.domain).unwrap_or(&[]);
    let cpu = cpus.get(vcpu as usize).and_then(|cpu| view.plan.cpus.get(usize::from(cpu.0)));
    cpu.map_or(0, |cpu| cpu.gicv2_target & 0xFF)
}

/// CPU interfaces of the vCPUs in the low byte of `list`; bits that are none of the domain's vanish.
fn physical(view: &View<'_>, list: u32) -> u32 {
    (0..8).filter(|vcpu| list >> vcpu & 1 != 0).fold(0, |targets, vcpu| targets | target(view, vcpu))
}

/// The way back.
fn vcpus(view: &View<'_>, targets: u32) -> u32 {
    (0..8).filter(|vcpu| targets & target(view, *vcpu) != 0).fold(0, |list, vcpu| list | 1 << vcpu)
}

/// What a guest's GICD_SGIR write (4.3.15) becomes: own SGIs to own CPUs, `None` where nothing is left of it.
fn sgi(view: &View<'_>, value: u32) -> Option<u32> {
    let intid = value & 0xF;
    if view.domain.owned[0] >> intid & 1 == 0 {
        return None;
    }
    let me = 1u32.checked_shl(view.vcpu as u32).unwrap_or(0);
    let list = match value >> 24 & 3 {
        0 => value >> 16,
        1 => !me,
        2 => me,
        _ => 0,
    };
    let targets = physical(view, list);
    (targets != 0).then_some(targets << 16 | intid)
}

/// The vCPU behind CPU interface `number`, as GICC_IAR names the sender of an SGI (IHI 0048, 4.4.4); 0 where it is none of the
/// domain's.
pub fn sender(view: &View<'_>, number: u32) -> u8 {
    vcpus(view, 1 << (number & 7)).trailing_zeros() as u8 & 7
}

/// The CPU interface of vCPU `vcpu` as a bit, as GICD_SPENDSGIR wants a sender (IHI 0048, 4.3.17).
pub fn sent_by(view: &View<'_>, vcpu: u8) -> u8 {
    target(view, u32::from(vcpu)) as u8
}

/// The GICD_SGIR value that sends `kick`, the hypervisor's own SGI, to vCPU `vcpu`.
pub fn kick(view: &View<'_>, vcpu: usize, kick: IntId) -> Option<u32> {
    let target = target(view, u32::try_from(vcpu).ok()?);
    (target != 0).then_some(target << 16 | kick.0 & 0xF)
}

#[cfg(test)]
mod tests;
