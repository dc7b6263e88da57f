//! The redistributors as a guest with direct delivery sees them: one pair of frames per vCPU of its own domain.
//!
//! The RD frame is answered from the plan alone: behind it lie the LPI tables, which are DMA, and power control. In the SGI
//! frame the guest has its own SGIs and PPIs; EL2's are not there for it. A vCPU may use every redistributor of its
//! domain, as on hardware; what lies behind the last one aborts.
//!
//! References are to IHI 0069 (GICv3 and GICv4 architecture).

use super::dist::{IDENTIFICATION, IIDR_VALUE, bits, fields, identification, priorities};
use super::{Access, Frame, Outcome, View};

/// Bytes from one vCPU's redistributor to the next: RD frame, then SGI frame (12.10).
pub const STRIDE: u32 = 0x2_0000;
/// Offset of the SGI frame in a redistributor.
pub(super) const SGI_FRAME: u32 = 0x1_0000;

// RD frame (12.11). CTLR, STATUSR, WAKER, SETLPIR, CLRLPIR, PROPBASER, PENDBASER, INVLPIR, INVALLR and SYNCR read as zero
// and ignore writes: no LPIs, never asleep, nothing pending.
const IIDR: u32 = 0x4;
const TYPER: u32 = 0x8;
const TYPER_UPPER: u32 = 0xC;
/// GICR_TYPER.Last.
const LAST: u64 = 1 << 4;

/// Decides and does one access. `access.offset` counts from the first redistributor of the domain; `frame` gives the
/// physical redistributor (128 KiB, RD frame first) of one of the domain's vCPUs.
#[inline]
pub fn access<F: Frame>(view: &View<'_>, frame: impl FnOnce(usize) -> Option<F>, access: Access) -> Outcome {
    let vcpu = access.offset / STRIDE;
    if vcpu >= view.domain.vcpu_count {
        return Outcome::Abort;
    }
    let inner = Access { offset: access.offset % STRIDE, ..access };
    if inner.offset < SGI_FRAME {
        return rd(view, u64::from(vcpu), inner);
    }
    match frame(vcpu as usize) {
        Some(frame) => sgi(view, &frame, inner),
        None => Outcome::Abort,
    }
}

/// The RD frame of vCPU `vcpu`. Writes are ignored wherever the size fits.
fn rd(view: &View<'_>, vcpu: u64, access: Access) -> Outcome {
    let Access { offset, size, write } = access;
    if offset >= IDENTIFICATION {
        return identification(access, 0x93);
    }
    let aligned = offset & u32::from(size).saturating_sub(1) == 0;
    // Affinity Aff0 = number in the upper half, Processor_Number, Last (12.11.35).
    let last = if vcpu + 1 == u64::from(view.domain.vcpu_count) { LAST } else { 0 };
    let typer = vcpu << 32 | vcpu << 8 | last;
    let value = match (offset & !3, size) {
        (TYPER, 8) if aligned => typer,
        (TYPER, 4) if aligned => typer & 0xFFFF_FFFF,
        (TYPER_UPPER, 4) if aligned => typer >> 32,
        (IIDR, 4) if aligned => IIDR_VALUE,
        (IIDR | TYPER | TYPER_UPPER, _) => return Outcome::Abort,
        _ => 0,
    };
    Outcome::Handled(if write.is_some() { 0 } else { value })
}

/// The SGI frame (12.12). Of each register only the one for INTIDs 0 to 31 exists: no extended PPIs.
fn sgi<F: Frame>(view: &View<'_>, frame: &F, access: Access) -> Outcome {
    let Access { offset, size, write } = access;
    let own = view.domain.owned[0];
    let at = offset - SGI_FRAME;
    if at >= IDENTIFICATION {
        return Outcome::Handled(0);
    }
    if let 0x400..0x420 = at {
        return priorities(frame, access, own >> (at - 0x400));
    }
    let read = |value: u32| Outcome::Handled(if write.is_some() { 0 } else { u64::from(value) });
    let word = size == 4 && offset & 3 == 0;
    match at & !3 {
        // IGROUPR0: own bits are Group 1. ISENABLER0 to ICACTIVER0. ICFGR0, ICFGR1.
        0x080 | 0x100 | 0x180 | 0x200 | 0x280 | 0x300 | 0x380 | 0xC00 | 0xC04 if !word => Outcome::Abort,
        0x080 => read(own),
        0x100 | 0x180 | 0x200 | 0x280 | 0x300 | 0x380 => bits(frame, offset, own, write),
        // SGIs are edge-triggered; the triggers of PPIs are the hardware's.
        0xC00 => read(0xAAAA_AAAA & fields(own as u16)),
        0xC04 if write.is_none() => Outcome::Handled(frame.read(offset, 4) & u64::from(fields((own >> 16) as u16))),
        // ICFGR1 written; IGRPMODR0, NSACR, INMIR0 and what is not there.
        _ => Outcome::Handled(0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::dist::State;
    use super::super::fake::{self, Memory};
    use super::*;
    use core::cell::Cell;

    const MPIDRS: &[&[u64]] = &[&[0x0, 0x100, 0x1], &[0x2]];

    /// Runs `run` as domain 0, with one memory per vCPU.
    fn domain0(run: impl FnOnce(&View<'_>, &[Memory; 3])) {
        let memories = [0, 1, 2].map(|_| Memory::new(STRIDE as usize, 0));
        fake::board(MPIDRS).view(0, &State::new(), |view| run(view, &memories));
    }

    fn go(view: &View<'_>, memories: &[Memory; 3], offset: u32, size: u8, write: Option<u64>) -> Outcome {
        access(view, |vcpu| memories.get(vcpu), Access { offset, size, write })
    }

    const SGI: u32 = SGI_FRAME;

    #[test]
    fn type_names_the_virtual_cpu() {
        domain0(|v, m| {
            for (n, last) in [(0u64, 0u64), (1, 0), (2, 0x10)] {
                let at = n as u32 * STRIDE + 8;
                assert_eq!(go(v, m, at, 8, None), Outcome::Handled(n << 32 | n << 8 | last));
                assert_eq!(go(v, m, at, 4, None), Outcome::Handled(n << 8 | last));
                assert_eq!(go(v, m, at + 4, 4, None), Outcome::Handled(n));
                assert_eq!(go(v, m, at + 0xFFE0, 4, None), Outcome::Handled(0x3B));
            }
            assert_eq!(go(v, m, 9, 4, None), Outcome::Abort);
            assert_eq!(go(v, m, 12, 8, None), Outcome::Abort);
            assert_eq!(go(v, m, 3 * STRIDE, 4, None), Outcome::Abort, "no fourth vCPU");
            assert_eq!(go(v, m, u32::MAX, 4, None), Outcome::Abort);
        });
    }

    #[test]
    fn lpi_tables_and_power_are_out_of_reach() {
        domain0(|v, m| {
            for offset in [0x0, 0x10, 0x14, 0x40, 0x48, 0x70, 0x78, 0xA0, 0xB0, 0xC0, 0x100, 0x110] {
                for size in [4, 8] {
                    assert_eq!(go(v, m, offset, size, Some(u64::MAX >> (64 - size * 8))), Outcome::Handled(0));
                    assert_eq!(go(v, m, offset, size, None), Outcome::Handled(0), "{offset:#x}");
                }
            }
            assert!(m.iter().all(|m| m.seen.borrow().is_empty()));
        });
    }

    #[test]
    fn own_bits_of_any_own_vcpu() {
        domain0(|v, m| {
            for base in [0x100, 0x180, 0x200, 0x280, 0x300, 0x380] {
                for (n, memory) in m.iter().enumerate() {
                    let at = n as u32 * STRIDE + SGI + base;
                    assert_eq!(go(v, m, at, 4, Some(0xFFFF_FFFF)), Outcome::Handled(0));
                    assert_eq!(memory.writes(), [(SGI + base, 4, 0x0800_7FFF)]);
                    memory.set(SGI + base, 4, 0xFFFF_FFFF);
                    assert_eq!(go(v, m, at, 4, None), Outcome::Handled(0x0800_7FFF));
                    assert_eq!(go(v, m, at, 1, None), Outcome::Abort);
                    assert_eq!(go(v, m, at + 4, 4, None), Outcome::Handled(0), "no extended PPIs");
                    assert_eq!(memory.writes(), []);
                }
            }
        });
    }

    #[test]
    fn groups_and_triggers_are_fixed() {
        domain0(|v, m| {
            assert_eq!(go(v, m, SGI + 0x80, 4, None), Outcome::Handled(0x0800_7FFF));
            m[0].set(SGI + 0xC04, 4, 0xFFFF_FFFF);
            assert_eq!(go(v, m, SGI + 0xC00, 4, None), Outcome::Handled(0x2AAA_AAAA));
            assert_eq!(go(v, m, SGI + 0xC04, 4, None), Outcome::Handled(3 << 22), "PPI 27");
            for offset in [0x80, 0xC00, 0xC04, 0xD00, 0xE00, 0xF80] {
                assert_eq!(go(v, m, SGI + offset, 4, Some(0xFFFF_FFFF)), Outcome::Handled(0));
            }
            assert_eq!(m[0].writes(), []);
        });
    }

    #[test]
    fn priorities_are_clamped() {
        domain0(|v, m| {
            go(v, m, SGI + 0x400 + 27, 1, Some(0));
            assert_eq!(m[0].writes(), [(SGI + 0x41B, 1, 0x80)]);
            go(v, m, SGI + 0x400, 4, Some(0x1020_3040));
            assert_eq!(m[0].writes(), [(SGI + 0x400, 4, 0x8890_98A0)]);
            assert_eq!(go(v, m, SGI + 0x400, 4, None), Outcome::Handled(0x1020_3040));
            go(v, m, SGI + 0x40C, 4, Some(0));
            assert_eq!(m[0].writes(), [(SGI + 0x40C, 1, 0x80), (SGI + 0x40D, 1, 0x80), (SGI + 0x40E, 1, 0x80)]);
            go(v, m, SGI + 0x41A, 1, Some(0));
            assert_eq!(m[0].writes(), [], "PPI 26 is EL2's");
        });
    }

    #[test]
    fn no_access_touches_what_is_not_owned() {
        domain0(|v, m| {
            let own = v.domain.owned[0];
            let asked = Cell::new(0);
            for offset in 0..4 * STRIDE {
                for size in [1u8, 2, 4, 8] {
                    for value in [0, 1, 0xFF, 0x8000_0000, u64::MAX] {
                        let value = value & (u64::MAX >> (64 - u32::from(size) * 8));
                        let frame = |vcpu: usize| {
                            asked.set(vcpu);
                            m.get(vcpu)
                        };
                        access(v, frame, Access { offset, size, write: Some(value) });
                        for (at, size, value) in m[asked.get().min(2)].writes() {
                            assert_eq!(asked.get() as u32, offset / STRIDE);
                            match (at - SGI, size) {
                                (0x100..0x400, 4) => assert!(at % 0x80 == 0 && value as u32 & !own == 0),
                                (0x400..0x420, 1 | 4) => {
                                    for byte in 0..u32::from(size) {
                                        assert!(own >> (at - SGI - 0x400 + byte) & 1 != 0);
                                        assert!(value >> (byte * 8) & 0x80 != 0);
                                    }
                                }
                                _ => panic!("{at:#x} by {size} is never written"),
                            }
                        }
                    }
                }
            }
        });
    }
}
