//! Injected delivery: which interrupt goes into which list register, and what becomes of the others.
//!
//! The physical interrupt controller stays the only store. An interrupt that has come to EL2 is active there until the guest
//! ends it, so it cannot come twice; an SGI is over at once and lives in its list register alone. What finds no list
//! register goes back to be pending where it was, and nothing that is as urgent or less is let through before there is room:
//! no queue, no state of EL2's own, and every loop is over the list registers.
//!
//! Knows no system register: GICv3 and GICv2 list registers are reached through [`Interface`].
//! References are to IHI 0069 (GICv3 and GICv4 architecture) where nothing else is said.
//!
//! SGIs of a GICv2 with the same number from different vCPUs are different interrupts (IHI 0048, 1.4.1), but no two list
//! registers may hold the same number (5.3.8). The second one goes back to be pending and stays active too, which holds it off;
//! its list register asks for a maintenance interrupt at its end, and that ends the active state.

pub mod frames;

use super::View;
use cofferdam_plan::IntId;

/// Most list registers there can be (12.4.12, ICH_VTR_EL2.ListRegs).
pub const MOST: usize = 16;

/// Fewest that injected delivery needs. With one alone "at most one is in use" ([`Until::AlmostEmpty`]) would be true while the guest
/// has its interrupt active, so that what is held back would come, and go back, without end.
pub const LEAST: u32 = 2;

/// What one list register holds. Neither pending nor active: nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    /// The interrupt, the same number for guest and hardware.
    pub intid: u32,
    /// As the guest sees it: 0 is the most urgent.
    pub priority: u8,
    /// The guest has not taken it yet.
    pub pending: bool,
    /// The guest has taken it and not ended it.
    pub active: bool,
    /// An SGI of a GICv2: the vCPU that has sent it. Else 0.
    pub source: u8,
}

impl Entry {
    /// Whether the guest's end of it must end the physical interrupt too. Not so for an SGI, which EL2 has ended.
    pub const fn is_physical(&self) -> bool {
        self.intid >= 16
    }
}

/// When a CPU that holds interrupts back wants to hear from its list registers (ICH_HCR_EL2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// None is pending any more: the guest has taken them all.
    NonePending,
    /// At most one is in use.
    AlmostEmpty,
}

/// The virtual CPU interface of the vCPU that runs here, and what of the physical controller concerns it.
pub trait Interface {
    /// A GICv2: INTIDs 0 to 31 are the distributor's, which has them once for each CPU, and SGIs have a sender.
    const BANKED: bool;
    /// How many list registers there are, 1 to [`MOST`].
    fn count(&self) -> usize;
    /// Bit per list register that holds nothing.
    fn empty(&self) -> u32;
    /// Reads list register `n`.
    fn get(&self, n: usize) -> Entry;
    /// Writes list register `n`. For an SGI that is still active physically, it asks to hear of its end.
    fn put(&self, n: usize, entry: Entry);
    /// Makes the physical interrupt pending.
    fn pend(&self, entry: Entry);
    /// Ends the physical interrupt `intid`, whose priority has been dropped, or the SGI `intid` of any sender.
    fn deactivate(&self, intid: u32);
    /// Lets only more urgent physical interrupts than `priority` come, `until` the list registers say that there is room.
    fn hold(&self, priority: u8, until: Until);
    /// Has the other vCPUs of the domain call [`recheck`].
    fn recheck_elsewhere(&self);
}

/// The list registers in use, with what they hold.
fn used<I: Interface>(lrs: &I) -> impl Iterator<Item = (usize, Entry)> {
    let (count, empty) = (lrs.count().min(MOST), lrs.empty());
    (0..count).filter(move |n| empty >> n & 1 == 0).map(|n| (n, lrs.get(n)))
}

/// A physical interrupt has been acknowledged here and its priority dropped: it goes to the guest, or back. `source` is the
/// sender of a GICv2's SGI, else 0.
pub fn admit<I: Interface>(view: &View<'_>, lrs: &I, intid: u32, priority: u8, source: u8) {
    let new = Entry { intid, priority, pending: true, active: false, source };
    // An SGI is over at once, unless it has to wait for its like.
    let over = |now: bool| {
        if now && !new.is_physical() {
            lrs.deactivate(intid);
        }
    };
    over(!I::BANKED);
    let (mut least, mut is_waiting) = (None, false);
    for (n, entry) in used(lrs) {
        // Two list registers must not hold the same (12.4.10). An SGI can come while an earlier one is there; another only where a
        // foreign domain has ended it (ICC_EOIR1_EL1, I44), and pending and active at once it is the hardware's to keep.
        if entry.intid == intid {
            if I::BANKED && !new.is_physical() && entry.source != source {
                lrs.pend(new);
                return lrs.put(n, entry);
            }
            over(I::BANKED);
            return if new.is_physical() && entry.active {
                remember(view, lrs, new);
            } else {
                lrs.put(n, Entry { pending: true, ..entry });
            };
        }
        is_waiting |= !entry.active;
        if !entry.active && entry.priority > least.map_or(priority, |(_, least): (usize, Entry)| least.priority) {
            least = Some((n, entry));
        }
    }
    over(I::BANKED);
    let free = lrs.empty().trailing_zeros() as usize;
    if free < lrs.count().min(MOST) {
        return lrs.put(free, new);
    }
    // All are in use. The least urgent of those that the guest has not taken yet, or the new one, goes back.
    let back = least.map_or(new, |(n, entry)| {
        lrs.put(n, new);
        entry
    });
    lrs.hold(back.priority, if is_waiting { Until::NonePending } else { Until::AlmostEmpty });
    give_back(view, lrs, back);
}

/// Makes an interrupt that has left its list register without having been taken pending where it came from.
fn give_back<I: Interface>(view: &View<'_>, lrs: &I, entry: Entry) {
    if entry.is_physical() {
        remember(view, lrs, entry);
    } else {
        lrs.pend(entry);
    }
    end(lrs, entry);
}

/// Has the hardware remember that a PPI or SPI has come. A level-sensitive one comes again by itself, as long as its line
/// says so; what has no wire or only had an edge does not.
fn remember<I: Interface>(view: &View<'_>, lrs: &I, entry: Entry) {
    let intid = entry.intid;
    let register = (intid as usize / 16).checked_sub(2);
    let fields = register.and_then(|register| view.plan.icfgr.get(register)).map_or(0, |fields| *fields);
    if fields >> (intid % 16 * 2) & 2 != 0 || view.domain.vuart_intid == IntId(intid) {
        lrs.pend(entry);
    }
}

/// Ends the physical interrupt of an entry that has left its list register, or what held off one like it.
fn end<I: Interface>(lrs: &I, entry: Entry) {
    if I::BANKED || entry.is_physical() {
        lrs.deactivate(entry.intid);
    }
}

/// What [`remove`] takes away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    /// Interrupts the guest has not taken: they go back.
    Waiting,
    /// The pending state.
    Pending,
    /// The active state.
    Active,
    /// Everything: what is pending goes back, what is active is ended.
    All,
}

/// Takes `what` of the chosen interrupts out of the list registers.
#[inline(never)]
fn remove<I: Interface>(view: &View<'_>, lrs: &I, what: What, chosen: &dyn Fn(u32) -> bool) {
    for (n, entry) in used(lrs).filter(|(_, entry)| chosen(entry.intid)) {
        let left = match what {
            What::Waiting if entry.active => continue,
            What::Waiting | What::All => Entry::default(),
            What::Pending => Entry { pending: false, ..entry },
            What::Active => Entry { active: false, ..entry },
        };
        if left == entry {
            continue;
        }
        lrs.put(n, left);
        match what {
            What::Waiting | What::All if entry.pending => give_back(view, lrs, entry),
            _ if !left.pending && !left.active => end(lrs, entry),
            _ => {}
        }
    }
}

/// Another vCPU, or this one, has disabled interrupts: those that wait here and are not `enabled` any more go back.
pub fn recheck<I: Interface>(view: &View<'_>, lrs: &I, enabled: &dyn Fn(u32) -> bool) {
    remove(view, lrs, What::Waiting, &|intid| !enabled(intid));
}

/// This vCPU runs no more: what waits goes back, what it has not ended is ended.
pub fn leave<I: Interface>(view: &View<'_>, lrs: &I) {
    remove(view, lrs, What::All, &|_| true);
}

/// Whether an interrupt waits here for the guest.
pub fn is_pending<I: Interface>(lrs: &I) -> bool {
    used(lrs).any(|(_, entry)| entry.pending)
}

#[cfg(test)]
mod tests;
