//! Translation tables of either stage: 4 KiB granule, the largest block that fits, tables taken from a row of pages.
//!
//! Descriptor format: DDI 0487, D8.3.

use super::super::lent::{Full, Lent};

/// Entries of a table.
const ENTRIES: usize = 512;
/// Bytes of a table.
pub(crate) const TABLE: usize = 4096;
/// Output address of a descriptor (bits 47:12).
const ADDRESS: u64 = 0x0000_FFFF_FFFF_F000;
const VALID: u64 = 1;
/// With `VALID`: a table above level 3, a page at level 3.
const TABLE_OR_PAGE: u64 = 2;

/// Why a table could not be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PagesError {
    /// The lent memory is too short.
    Full(Full),
    /// Something is mapped there already: a mistake of the compiler.
    Twice,
    /// The page the boot stub turns the MMU on in lies among EL2's own addresses, which end here.
    Window(u64),
}

/// A row of table pages being filled.
pub(crate) struct Pages<'b> {
    bytes: &'b mut [u8],
    used: usize,
    pa: u64,
}

/// A translation regime's root.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Root {
    /// Index of its first page.
    pub(crate) page: usize,
    /// Pages: more than one where tables are concatenated.
    pub(crate) pages: usize,
    /// Level of its entries: 0 or 1.
    pub(crate) level: u32,
}

/// Bytes one entry of a level translates.
const fn span(level: u32) -> u64 {
    (TABLE as u64) << (9 * (3 - level))
}

impl<'b> Pages<'b> {
    /// Fills `bytes`, whose first byte will lie at physical address `pa`, 4 KiB aligned.
    pub(crate) fn new(bytes: &'b mut [u8], pa: u64) -> Self {
        Self { bytes, used: 0, pa }
    }

    /// Pages in use.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Gives back all pages behind the first `used`.
    pub(crate) fn truncate(&mut self, used: usize) {
        self.used = self.used.min(used);
    }

    /// Physical address of a page.
    pub(crate) fn pa_of(&self, page: usize) -> u64 {
        self.pa + (page * TABLE) as u64
    }

    /// Makes a root of `pages` concatenated tables. The caller sees to it that it is aligned to its size.
    pub(crate) fn root(&mut self, level: u32, pages: usize) -> Result<Root, PagesError> {
        Ok(Root { page: self.take(pages)?, pages, level })
    }

    /// Index of the last valid entry of a root, plus one.
    pub(crate) fn root_entries(&self, root: Root) -> u32 {
        (0..root.pages * ENTRIES)
            .rev()
            .find(|index| self.entry(root.page, *index) != 0)
            .map_or(0, |index| index as u32 + 1)
    }

    /// Takes pages, zeroed, and gives the index of the first.
    pub(crate) fn take(&mut self, pages: usize) -> Result<usize, PagesError> {
        let first = self.used;
        let range = first * TABLE..(first + pages) * TABLE;
        self.bytes.get_mut(range).ok_or(PagesError::Full(Full(Lent::Blob)))?.fill(0);
        self.used += pages;
        Ok(first)
    }

    /// Writes bytes of a page that is no table. What does not fit is not written.
    pub(crate) fn write(&mut self, page: usize, offset: usize, bytes: &[u8]) {
        let at = page * TABLE + offset;
        if let Some(slot) = self.bytes.get_mut(at..at + bytes.len()) {
            slot.copy_from_slice(bytes);
        }
    }

    fn entry(&self, page: usize, index: usize) -> u64 {
        let at = page * TABLE + index * 8;
        self.bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    }

    fn set(&mut self, page: usize, index: usize, value: u64) {
        let at = page * TABLE + index * 8;
        if let Some(slot) = self.bytes.get_mut(at..at + 8) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Maps `size` bytes at `from` to `to` with the given lower and upper attributes. All are multiples of 4 KiB.
    pub(crate) fn map(&mut self, root: Root, from: u64, to: u64, size: u64, attributes: u64) -> Result<(), PagesError> {
        let mut done = 0;
        while done < size {
            done += self.map_one(root, from + done, to + done, size - done, attributes)?;
        }
        Ok(())
    }

    /// Maps one leaf, the largest that fits, and returns its size.
    fn map_one(&mut self, root: Root, from: u64, to: u64, left: u64, attributes: u64) -> Result<u64, PagesError> {
        let mut page = root.page;
        let mut level = root.level;
        let mut index = (from / span(level)) as usize;
        loop {
            let size = span(level);
            let found = self.entry(page, index);
            let leaf = level == 3 || (level > 0 && (from | to).is_multiple_of(size) && left >= size);
            if leaf {
                if found != 0 {
                    return Err(PagesError::Twice);
                }
                let kind = if level == 3 { VALID | TABLE_OR_PAGE } else { VALID };
                self.set(page, index, to | attributes | kind);
                return Ok(size);
            }
            let next = if found == 0 {
                let next = self.take(1)?;
                self.set(page, index, self.pa_of(next) | VALID | TABLE_OR_PAGE);
                next
            } else if found & TABLE_OR_PAGE == 0 {
                return Err(PagesError::Twice);
            } else {
                ((found & ADDRESS) - self.pa) as usize / TABLE
            };
            page = next;
            level += 1;
            index = (from / span(level)) as usize % ENTRIES;
        }
    }

    /// Fills the tables below `to`, a root of the shape of `from`, with those leaves of `from` that `keep` is true of. Tables that
    /// have no others are shared, unless `apart` lies in what they translate.
    pub(crate) fn share(
        &mut self,
        from: Root,
        to: Root,
        keep: &dyn Fn(u64) -> bool,
        apart: Option<u64>,
    ) -> Result<(), PagesError> {
        self.share_table((from.page, to.page), from.pages * ENTRIES, from.level, 0, keep, apart)
    }

    fn share_table(
        &mut self,
        (from, to): (usize, usize),
        count: usize,
        level: u32,
        base: u64,
        keep: &dyn Fn(u64) -> bool,
        apart: Option<u64>,
    ) -> Result<(), PagesError> {
        for index in 0..count {
            let found = self.entry(from, index);
            let start = base + index as u64 * span(level);
            let Some(next) = self.next(found, level) else {
                if found != 0 && keep(found) {
                    self.set(to, index, found);
                }
                continue;
            };
            let is_apart = apart.is_some_and(|address| address >= start && address - start < span(level));
            match self.holds(next, level + 1, keep) {
                (false, _) => {}
                (true, false) if !is_apart => self.set(to, index, found),
                _ => {
                    let own = self.take(1)?;
                    self.set(to, index, self.pa_of(own) | VALID | TABLE_OR_PAGE);
                    self.share_table((next, own), ENTRIES, level + 1, start, keep, apart)?;
                }
            }
        }
        Ok(())
    }

    /// The table an entry of this level leads to.
    fn next(&self, entry: u64, level: u32) -> Option<usize> {
        let is_table = level < 3 && entry & TABLE_OR_PAGE != 0;
        is_table.then(|| ((entry & ADDRESS) - self.pa) as usize / TABLE)
    }

    /// Whether there are leaves below a table that `keep` is true of, and others.
    fn holds(&self, page: usize, level: u32, keep: &dyn Fn(u64) -> bool) -> (bool, bool) {
        (0..ENTRIES).map(|index| self.entry(page, index)).filter(|entry| *entry != 0).fold(
            (false, false),
            |all, entry| {
                let (kept, others) = match self.next(entry, level) {
                    Some(next) => self.holds(next, level + 1, keep),
                    None => (keep(entry), !keep(entry)),
                };
                (all.0 || kept, all.1 || others)
            },
        )
    }
}
