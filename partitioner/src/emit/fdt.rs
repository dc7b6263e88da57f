//! Writes a flattened device tree into a lent buffer (Devicetree Specification 0.4, chapter 5).
//!
//! Writing never fails midway: what does not fit is remembered and [`Fdt::finish`] says so.

use crate::lent::{Full, Lent};
use cofferdam_dts::{Node, Property, ValueKind};
use core::fmt;

const HEADER: usize = 40;
/// One empty entry ends the reservation block.
const RESERVATIONS: usize = 16;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const END: u32 = 9;
/// Bytes of a node name, unit address included, that every reader takes: `fdt-rs`, which the verifier uses, is the strictest.
const LONGEST_NAME: usize = 29;

/// A tree being written.
pub(crate) struct Fdt<'b> {
    bytes: &'b mut [u8],
    at: usize,
    strings: &'b mut [u8],
    strings_len: usize,
    full: Option<Lent>,
}

impl<'b> Fdt<'b> {
    /// Writes into `bytes`; `strings` is scratch for property names.
    pub(crate) fn new(bytes: &'b mut [u8], strings: &'b mut [u8]) -> Self {
        let mut fdt = Self { bytes, at: 0, strings, strings_len: 0, full: None };
        for _ in 0..(HEADER + RESERVATIONS) / 4 {
            fdt.cell(0);
        }
        fdt
    }

    /// Raw bytes of a value.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        match self.bytes.get_mut(self.at..self.at + bytes.len()) {
            Some(slot) => slot.copy_from_slice(bytes),
            None => self.full = Some(Lent::Blob),
        }
        self.at += bytes.len();
    }

    /// One 32-bit cell of a value.
    pub(crate) fn cell(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Two cells: a 64-bit number.
    pub(crate) fn cells2(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// A string of a value, with its NUL.
    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
        self.bytes(&[0]);
    }

    fn pad(&mut self) {
        while !self.at.is_multiple_of(4) {
            self.bytes(&[0]);
        }
    }

    /// Starts a node.
    pub(crate) fn begin(&mut self, name: fmt::Arguments<'_>) {
        self.cell(BEGIN_NODE);
        self.name(name);
        self.bytes(&[0]);
        self.pad();
    }

    /// A node's name as it stands in the tree, in its place or in a path.
    pub(crate) fn name(&mut self, name: fmt::Arguments<'_>) {
        let from = self.at;
        // Writing to a tree never fails, see `full`.
        let _ = fmt::write(self, name);
        self.shorten(from);
    }

    /// The values of a property of a source tree: references become what `phandle` says, paths what `path` writes.
    pub(crate) fn values<'a>(
        &mut self,
        property: Property<'a>,
        phandle: impl Fn(Node<'a>) -> u32,
        path: impl Fn(Node<'a>, &mut Self),
    ) {
        let node = |id| property.node().tree().node(id);
        for value in property.values() {
            match value.kind {
                ValueKind::String(text) => self.text(text),
                ValueKind::RawString(bytes) => {
                    self.bytes(bytes);
                    self.bytes(&[0]);
                }
                ValueKind::Bytes(bytes) => self.bytes(bytes),
                ValueKind::Path(id) => {
                    path(node(id), self);
                    self.bytes(&[0]);
                }
                ValueKind::Cells { bits, cells } => {
                    for cell in cells {
                        let number = cell.target.map_or(cell.value, |id| phandle(node(id)).into());
                        let bytes = number.to_be_bytes();
                        self.bytes(bytes.get(8 - usize::from(bits / 8)..).unwrap_or(&bytes));
                    }
                }
            }
        }
    }

    /// Cuts the base name of the node name written from `from` on, so that strict readers take it. The unit address stays.
    fn shorten(&mut self, from: usize) {
        let over = (self.at - from).saturating_sub(LONGEST_NAME);
        let Some(name) = self.bytes.get_mut(from..self.at) else { return };
        let unit = name.iter().position(|byte| *byte == b'@').unwrap_or(name.len());
        if let Some(cut) = unit.checked_sub(over) {
            name.copy_within(unit.., cut);
            self.at -= over;
        }
    }

    /// Ends the node started last.
    pub(crate) fn end(&mut self) {
        self.cell(END_NODE);
    }

    /// A property whose value `write` writes.
    pub(crate) fn property(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.cell(PROPERTY);
        let len_at = self.at;
        self.cell(0);
        let name = self.string(name);
        self.cell(name);
        let from = self.at;
        write(self);
        let len = (self.at - from) as u32;
        if let Some(slot) = self.bytes.get_mut(len_at..len_at + 4) {
            slot.copy_from_slice(&len.to_be_bytes());
        }
        self.pad();
    }

    /// A property without value.
    pub(crate) fn flag(&mut self, name: &str) {
        self.property(name, |_| ());
    }

    /// A property of one cell.
    pub(crate) fn number(&mut self, name: &str, value: u32) {
        self.property(name, |fdt| fdt.cell(value));
    }

    /// A property of strings.
    pub(crate) fn strings(&mut self, name: &str, values: &[&str]) {
        self.property(name, |fdt| values.iter().for_each(|value| fdt.text(value)));
    }

    /// Offset of a property name in the strings block.
    fn string(&mut self, name: &str) -> u32 {
        let known = self.strings.get(..self.strings_len).unwrap_or(&[]);
        let mut at = 0;
        for entry in known.split_inclusive(|byte| *byte == 0) {
            if entry.split_last().is_some_and(|(_, text)| text == name.as_bytes()) {
                return at as u32;
            }
            at += entry.len();
        }
        let end = self.strings_len + name.len() + 1;
        match self.strings.get_mut(self.strings_len..end) {
            Some(slot) => {
                slot[..name.len()].copy_from_slice(name.as_bytes());
                slot[name.len()] = 0;
                self.strings_len = end;
            }
            None => self.full = Some(Lent::Bytes),
        }
        at as u32
    }

    /// Writes strings and header; returns the length, a multiple of 16.
    pub(crate) fn finish(mut self) -> Result<usize, Full> {
        self.cell(END);
        let structure = HEADER + RESERVATIONS;
        let strings = self.at;
        let strings_len = self.strings_len;
        match (self.bytes.get_mut(strings..strings + strings_len), self.strings.get(..strings_len)) {
            (Some(to), Some(from)) => to.copy_from_slice(from),
            _ => self.full = Some(Lent::Blob),
        }
        self.at += strings_len;
        while !self.at.is_multiple_of(16) {
            self.bytes(&[0]);
        }
        let total = self.at;
        let header = [0xD00D_FEED, total, structure, strings, HEADER, 17, 16, 0, strings_len, strings - structure];
        self.at = 0;
        for value in header {
            self.cell(value as u32);
        }
        match self.full {
            Some(what) => Err(Full(what)),
            None => Ok(total),
        }
    }
}

impl fmt::Write for Fdt<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}
