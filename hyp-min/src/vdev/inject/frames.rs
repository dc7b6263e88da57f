//! Distributor and redistributors of a domain with injected delivery: those of direct delivery, corrected by what the list
//! registers hold.
//!
//! An interrupt in a list register is active for the hardware, whatever it is for the guest. So reads of pending and active
//! states look there too, a disabled or cleared interrupt is taken out, and active states are changed there only: the
//! hardware's say whether EL2 may see an interrupt a second time. Of the list registers only those of the CPU that runs are
//! in reach. What waits in another's shows as active; once disabled, it goes back when that one has been told.
//!
//! Of a GICv2 the distributor has the first 32 interrupts too, those of the CPU that asks.

use super::{Interface, What, recheck, remove, used};
use crate::vdev::{Access, Frame, Outcome, View, dist, redist};

// Blocks of 32 words, at the same offsets in the distributor and in an SGI frame (12.9, 12.12).
const ISENABLER: u32 = 0x100;
const ICENABLER: u32 = 0x180;
const ISPENDR: u32 = 0x200;
const ICPENDR: u32 = 0x280;
const ISACTIVER: u32 = 0x300;
const ICACTIVER: u32 = 0x380;
/// Behind the last of them.
const STATES_END: u32 = 0x400;

/// One access to the distributor. `private` is this vCPU's own redistributor, of a GICv2 the distributor again.
pub fn distributor<F: Frame, I: Interface>(
    view: &View<'_>,
    frame: &F,
    private: &F,
    lrs: &I,
    access: Access,
) -> Outcome {
    let Access { offset, size, write } = access;
    let is_word = size == 4 && offset & 3 == 0;
    if is_word && (ICENABLER..STATES_END).contains(&offset) {
        let word = offset >> 2 & 31;
        let own = if I::BANKED && word == 0 { view.domain.owned[0] } else { dist::own(view, word as usize) };
        let word = Word { view, frame, own, first: word * 32 };
        return word.access(offset, offset & !0x7F, write, Some(lrs), &|| dist::any(view, frame, access));
    }
    let outcome = dist::any(view, frame, access);
    if is_word && offset == dist::CTLR && write.is_some() {
        recheck(view, lrs, &|intid| is_enabled::<F, I>(frame, private, intid));
        lrs.recheck_elsewhere();
    }
    outcome
}

/// One access to the redistributors; `offset` counts from the first, `me` is the vCPU that runs here.
pub fn redistributor<F: Frame, I: Interface>(
    view: &View<'_>,
    frame: impl Fn(usize) -> Option<F>,
    me: usize,
    lrs: &I,
    access: Access,
) -> Outcome {
    let (vcpu, at) = ((access.offset / redist::STRIDE) as usize, access.offset % redist::STRIDE);
    let block = at.wrapping_sub(redist::SGI_FRAME);
    // Of each register only the one for INTIDs 0 to 31 exists.
    let is_state = access.size == 4 && matches!(block, ICENABLER | ISPENDR | ICPENDR | ISACTIVER | ICACTIVER);
    let found = if is_state && vcpu < view.domain.vcpu_count as usize { frame(vcpu) } else { None };
    let Some(found) = found else { return redist::access(view, frame, access) };
    let word = Word { view, frame: &found, own: view.domain.owned[0], first: 0 };
    let lrs_of = (vcpu == me).then_some(lrs);
    let outcome = word.access(at, block, access.write, lrs_of, &|| redist::access(view, &frame, access));
    if vcpu != me && block == ICENABLER && access.write.is_some() {
        lrs.recheck_elsewhere();
    }
    outcome
}

/// Whether the hardware has `intid` enabled. `private` as for [`distributor`].
pub fn is_enabled<F: Frame, I: Interface>(frame: &F, private: &F, intid: u32) -> bool {
    let bits = if intid < 32 && !I::BANKED {
        private.read(redist::SGI_FRAME + ISENABLER, 4)
    } else {
        frame.read(ISENABLER + intid / 32 % 32 * 4, 4)
    };
    bits >> (intid % 32) & 1 != 0
}

/// 32 interrupts of one frame.
struct Word<'a, F> {
    view: &'a View<'a>,
    frame: &'a F,
    /// The guest's of them.
    own: u32,
    /// The first INTID.
    first: u32,
}

impl<F: Frame> Word<'_, F> {
    /// One access to the register at `offset`, of kind `block`; `plain` makes it as with direct delivery. `lrs` is `None`
    /// where the interrupts are another vCPU's.
    #[inline(never)]
    fn access<I: Interface>(
        &self,
        offset: u32,
        block: u32,
        write: Option<u64>,
        lrs: Option<&I>,
        plain: &dyn Fn() -> Outcome,
    ) -> Outcome {
        let (pending, active) = self.held(lrs);
        let Some(value) = write else {
            let (set, clear) = if block < ISACTIVER { (pending, 0) } else { (active, pending) };
            return match plain() {
                Outcome::Handled(value) if block >= ISPENDR => {
                    Outcome::Handled(value & !u64::from(clear) | u64::from(set))
                }
                outcome => outcome,
            };
        };
        let mut bits = value as u32 & self.own;
        if I::BANKED && self.first == 0 && matches!(block, ISPENDR | ICPENDR) {
            // Of SGIs these are read-only (IHI 0048, 4.3.7 and 4.3.8).
            bits &= !0xFFFF;
        }
        let what = match block {
            ICENABLER => What::Waiting,
            ICPENDR => What::Pending,
            ICACTIVER => What::Active,
            // One that is pending already stays so, once.
            ISPENDR => return dist::bits(self.frame, offset, bits & !pending, write),
            // ISACTIVER. Nothing a guest does makes the hardware believe that EL2 has taken an interrupt.
            _ => return Outcome::Handled(0),
        };
        let outcome = if block == ICACTIVER { Outcome::Handled(0) } else { plain() };
        if let Some(lrs) = lrs.filter(|_| bits != 0) {
            if bits & (pending | active) != 0 {
                remove(self.view, lrs, what, &|intid| self.bit(intid) & bits != 0);
            }
            let elsewhere = || self.frame.read(offset & !0x3FF | ISACTIVER | offset & 0x7F, 4) as u32 & bits;
            if block == ICENABLER && self.first != 0 && elsewhere() & !(pending | active) != 0 {
                lrs.recheck_elsewhere();
            }
        }
        outcome
    }

    /// Bits of those that list registers hold pending, and active.
    fn held<I: Interface>(&self, lrs: Option<&I>) -> (u32, u32) {
        let (mut pending, mut active) = (0, 0);
        for (_, entry) in lrs.into_iter().flat_map(used) {
            pending |= if entry.pending { self.bit(entry.intid) } else { 0 };
            active |= if entry.active { self.bit(entry.intid) } else { 0 };
        }
        (pending, active)
    }

    /// The bit of `intid` where it is one of these and the guest's.
    fn bit(&self, intid: u32) -> u32 {
        1u32.checked_shl(intid.wrapping_sub(self.first)).unwrap_or(0) & self.own
    }
}
