//! The blob's bytes: records appended in order, some rewritten once the rest is known.

use crate::lent::{Full, Lent};
use cofferdam_plan::Table;
use zerocopy::{Immutable, IntoBytes};

/// A blob being written.
pub(crate) struct Blob<'b> {
    pub(crate) bytes: &'b mut [u8],
    pub(crate) at: usize,
}

impl Blob<'_> {
    /// Appends zeroes up to a multiple of `align`.
    pub(crate) fn align(&mut self, align: usize) -> Result<(), Full> {
        let to = self.at.next_multiple_of(align);
        self.bytes.get_mut(self.at..to).ok_or(Full(Lent::Blob))?.fill(0);
        self.at = to;
        Ok(())
    }

    /// Appends bytes as they are.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let end = self.at + bytes.len();
        self.bytes.get_mut(self.at..end).ok_or(Full(Lent::Blob))?.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    /// Overwrites bytes written before.
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) -> Result<(), Full> {
        self.bytes.get_mut(at..at + bytes.len()).ok_or(Full(Lent::Blob))?.copy_from_slice(bytes);
        Ok(())
    }

    /// Starts a table of records, 8-byte aligned.
    pub(crate) fn table(&mut self) -> Result<Table, Full> {
        self.align(8)?;
        Ok(Table { offset: self.at as u32, count: 0 })
    }

    /// Appends one record to the table started last.
    pub(crate) fn push<T: IntoBytes + Immutable>(&mut self, table: &mut Table, record: &T) -> Result<(), Full> {
        table.count += 1;
        self.append(record.as_bytes())
    }

    /// Overwrites record `index` of a table.
    pub(crate) fn set<T: IntoBytes + Immutable>(&mut self, table: Table, index: usize, record: &T) -> Result<(), Full> {
        self.put(table.offset as usize + index * size_of::<T>(), record.as_bytes())
    }
}
