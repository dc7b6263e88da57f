//! Walks translation tables as the hardware does, from the root's physical address down.
//!
//! The walk is bounded: a table page is entered once. A second reference to it, from anywhere, is a finding, so cycles and
//! tables shared between domains end there.

use crate::regime::{Regime, shift};
use cofferdam_plan::{Pa, va};

/// Bits of a descriptor that hold an output address with a 4 KiB granule and 48 bits (DDI 0487, D8.3).
const ADDRESS: u64 = 0x0000_FFFF_FFFF_F000;
/// Slots of one table.
const SLOTS: u64 = 512;

/// The plan's tables and where they lie.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) pa: u64,
}

impl Tables<'_> {
    /// Number of the table page at `pa`, if there is one.
    pub(crate) fn page(&self, pa: u64) -> Option<usize> {
        let offset = pa.checked_sub(self.pa)?;
        (offset % va::PAGE == 0 && offset < self.bytes.len() as u64).then_some((offset / va::PAGE) as usize)
    }

    /// Entry `slot` of table `page`; zero, which is invalid, where there is none.
    pub(crate) fn entry(&self, page: usize, slot: u64) -> u64 {
        let at = page * va::PAGE as usize + slot as usize * 8;
        self.bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
    }
}

/// A block or page descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    /// First input address.
    pub(crate) at: u64,
    /// Bytes mapped.
    pub(crate) size: u64,
    /// First output address.
    pub(crate) pa: Pa,
    /// The descriptor without its output address and type bits: attributes.
    pub(crate) attributes: u64,
    /// The descriptor.
    pub(crate) entry: u64,
}

/// What a walk meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// A mapping.
    Leaf(Leaf),
    /// A descriptor that is not what the plan's tables may hold.
    Broken { at: u64, level: u32, entry: u64, why: &'static str },
    /// A table page that is referenced twice.
    Shared { at: u64, pa: Pa },
}

/// Whether the root of `regime` may lie at `pa`: aligned to its size, inside the tables (DDI 0487, D19.2.147).
pub(crate) fn root_page(tables: &Tables<'_>, regime: &Regime, pa: u64) -> Option<usize> {
    let len = u64::from(regime.roots) * va::PAGE;
    let last = pa.checked_add(len - va::PAGE)?;
    tables.page(last)?;
    pa.is_multiple_of(len).then(|| tables.page(pa)).flatten()
}

/// One walk.
pub(crate) struct Walk<'a, 'm> {
    pub(crate) tables: Tables<'a>,
    pub(crate) regime: Regime,
    /// Per table page: 0, or the number of the walk that entered it.
    pub(crate) marks: &'m mut [u32],
    /// Number of this walk, not 0.
    pub(crate) number: u32,
    /// Number of the walk whose tables, but not whose root, this one may enter a second time; 0 for none.
    pub(crate) shares: u32,
}

/// On the mark of a page that two walks have entered, as [`Walk::shares`] allows once.
pub(crate) const AGAIN: u32 = 1 << 29;

impl Walk<'_, '_> {
    /// Visits every valid descriptor below the root at table `page`, ascending by input address.
    pub(crate) fn run(&mut self, page: usize, visit: &mut dyn FnMut(Step)) {
        for i in 0..u64::from(self.regime.roots) {
            let at = i << (shift(self.regime.start) + 9);
            self.table(page.saturating_add(i as usize), self.regime.start, at, visit);
        }
    }

    fn table(&mut self, page: usize, level: u32, base: u64, visit: &mut dyn FnMut(Step)) {
        match self.marks.get_mut(page) {
            Some(mark) if *mark == 0 => *mark = self.number,
            Some(mark) if *mark == self.shares && level != self.regime.start => *mark |= AGAIN,
            _ => {
                let pa = Pa(self.tables.pa.saturating_add(page as u64 * va::PAGE));
                return visit(Step::Shared { at: base, pa });
            }
        }
        for slot in 0..SLOTS {
            let entry = self.tables.entry(page, slot);
            if entry == 0 {
                continue;
            }
            // Input addresses have at most 48 bits, so this cannot wrap.
            let at = base + (slot << shift(level));
            let mut broken = |why| visit(Step::Broken { at, level, entry, why });
            if at >> self.regime.ia_bits != 0 {
                broken("lies beyond the input addresses");
                continue;
            }
            let target = entry & ADDRESS;
            match (entry & 3, level) {
                (0 | 2, _) => broken("is invalid but not zero"),
                (3, 0..=2) if entry & !(ADDRESS | 3) != 0 => broken("is a table descriptor with attributes"),
                (3, 0..=2) => match self.tables.page(target) {
                    Some(next) => self.table(next, level + 1, at, visit),
                    None => broken("points to a table outside the plan"),
                },
                (3, 3) | (1, 1 | 2) => {
                    let size = 1 << shift(level);
                    if !target.is_multiple_of(size) {
                        broken("has an output address that is not aligned to its size");
                    } else if target >> self.regime.oa_bits != 0 {
                        broken("has an output address beyond the physical address size");
                    } else {
                        let attributes = entry & !(ADDRESS | 3);
                        visit(Step::Leaf(Leaf { at, size, pa: Pa(target), attributes, entry }));
                    }
                }
                _ => broken("is a block where the level has none"),
            }
        }
    }
}

/// Looks one address up, as the walker would.
pub(crate) fn lookup(tables: &Tables<'_>, regime: &Regime, root: usize, address: u64) -> Option<Leaf> {
    if address >> regime.ia_bits != 0 {
        return None;
    }
    let mut page = root.saturating_add((address >> (shift(regime.start) + 9)) as usize);
    for level in regime.start..=3 {
        let entry = tables.entry(page, address >> shift(level) & (SLOTS - 1));
        let target = entry & ADDRESS;
        match (entry & 3, level) {
            (3, 0..=2) => page = tables.page(target)?,
            (3, 3) | (1, 1 | 2) => {
                let size = 1 << shift(level);
                let attributes = entry & !(ADDRESS | 3);
                return Some(Leaf { at: address & !(size - 1), size, pa: Pa(target & !(size - 1)), attributes, entry });
            }
            _ => return None,
        }
    }
    None
}
