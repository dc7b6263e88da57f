//! Looking things up in a flattened device tree: nodes with their path, properties, `reg` and interrupts.
//!
//! Tokens come from `fdt-rs`; it has no paths and no cell decoding, which is what this file adds. Nothing is copied: a
//! [`Node`] is an offset, and each lookup reads the tree again. It must not know what the nodes mean.
#![allow(unsafe_code)] // fdt-rs takes a byte slice on the caller's word that it is a device tree

use fdt_rs::base::DevTree;
use fdt_rs::base::parse::{DevTreeParseIter, ParsedTok};
use fdt_rs::prelude::FallibleIterator;

/// Deepest node that is looked at.
const MAX_DEPTH: usize = 8;

/// A range of addresses: registers or memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Region {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

/// A device tree in memory, for good.
#[derive(Clone, Copy)]
pub struct Fdt {
    tree: DevTree<'static>,
}

/// One node, while the tree is walked.
pub struct Node<'a> {
    fdt: &'a Fdt,
    offset: usize,
    path: &'a [&'static str],
    address_cells: usize,
    size_cells: usize,
}

impl Fdt {
    /// The tree in `bytes`, or `None` where its header does not hold. The slice may be longer than the tree.
    pub fn new(bytes: &'static [u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
        let size = word(4)?;
        let aligned = (bytes.as_ptr() as usize).is_multiple_of(8);
        if !aligned || word(0)? != 0xD00D_FEED || word(8)? >= size || word(12)? >= size || word(16)? >= size {
            return None;
        }
        // SAFETY: magic, alignment and the offsets of all blocks were checked, and the slice has exactly totalsize bytes.
        let tree = unsafe { DevTree::new(bytes.get(..size)?) }.ok()?;
        Some(Self { tree })
    }

    /// Calls `visit` for each node, parents first, until it returns `Some`.
    pub fn find<T>(&self, mut visit: impl FnMut(&Node) -> Option<T>) -> Option<T> {
        let mut path = [""; MAX_DEPTH];
        // (#address-cells, #size-cells) of the node at each depth; entry 0 is above the root.
        let mut cells = [(2, 1); MAX_DEPTH + 1];
        let mut depth = 0;
        let mut tokens = DevTreeParseIter::new(&self.tree);
        while let Ok(Some(token)) = tokens.next() {
            match token {
                ParsedTok::BeginNode(begin) => {
                    let name = core::str::from_utf8(begin.name).ok()?;
                    depth += 1;
                    *path.get_mut(depth - 1)? = name;
                    let (address_cells, size_cells) = cells[depth - 1];
                    let node =
                        Node { fdt: self, offset: tokens.offset, path: &path[1..depth], address_cells, size_cells };
                    let own = |name, default| node.word(name, 0).map_or(default, |word| word as usize);
                    cells[depth] = (own("#address-cells", 2), own("#size-cells", 1));
                    if let Some(found) = visit(&node) {
                        return Some(found);
                    }
                }
                ParsedTok::EndNode => depth = depth.checked_sub(1)?,
                _ => {}
            }
        }
        None
    }

    /// A property of the node at `path` (`/chosen`), as bytes.
    pub fn property(&self, path: &str, name: &str) -> Option<&'static [u8]> {
        self.find(|node| node.is_at(path).then(|| node.property(name)))?
    }

    /// The same as a string.
    pub fn string(&self, path: &str, name: &str) -> Option<&'static str> {
        self.property(path, name).and_then(text)
    }

    fn name_at(&self, offset: usize) -> Option<&'static [u8]> {
        let bytes = self.tree.buf().get(self.tree.off_dt_strings() + offset..)?;
        bytes.split(|byte| *byte == 0).next()
    }
}

impl Node<'_> {
    /// Whether this is the node at `path`.
    pub fn is_at(&self, path: &str) -> bool {
        path.split('/').filter(|part| !part.is_empty()).eq(self.path.iter().copied())
    }

    /// A property's bytes.
    pub fn property(&self, name: &str) -> Option<&'static [u8]> {
        let mut tokens = DevTreeParseIter { offset: self.offset, fdt: &self.fdt.tree };
        loop {
            match tokens.next() {
                Ok(Some(ParsedTok::Prop(prop))) if self.fdt.name_at(prop.name_offset) == Some(name.as_bytes()) => {
                    // The slice is one of the tree's, which lives for good; the iterator only lent it for shorter.
                    let at = prop.prop_buf.as_ptr() as usize - self.fdt.tree.buf().as_ptr() as usize;
                    return self.fdt.tree.buf().get(at..at + prop.prop_buf.len());
                }
                Ok(Some(ParsedTok::Prop(_) | ParsedTok::Nop)) => {}
                _ => return None,
            }
        }
    }

    /// A property as a string.
    pub fn string(&self, name: &str) -> Option<&'static str> {
        self.property(name).and_then(text)
    }

    /// The `index`-th cell of a property.
    pub fn word(&self, name: &str, index: usize) -> Option<u32> {
        cells(self.property(name)?, index, 1).map(|value| value as u32)
    }

    /// Whether one of the node's `compatible` strings is `wanted`.
    pub fn is_compatible(&self, wanted: &str) -> bool {
        self.property("compatible")
            .is_some_and(|list| list.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes()))
    }

    /// Whether the node is in use: no `status`, or `okay`.
    pub fn is_enabled(&self) -> bool {
        self.string("status").is_none_or(|status| status == "okay" || status == "ok")
    }

    /// The `index`-th entry of `reg`. Buses that translate addresses are not looked at: guests have none.
    pub fn reg(&self, index: usize) -> Option<Region> {
        let reg = self.property("reg")?;
        let first = index * (self.address_cells + self.size_cells);
        let base = cells(reg, first, self.address_cells)?;
        let size = if self.size_cells == 0 { 0 } else { cells(reg, first + self.address_cells, self.size_cells)? };
        Some(Region { base, size })
    }

    /// INTID of the `index`-th interrupt, for a parent that is a GIC: three cells of type, number and trigger.
    pub fn interrupt(&self, index: usize) -> Option<u32> {
        let number = self.word("interrupts", index * 3 + 1)?;
        match self.word("interrupts", index * 3)? {
            0 => Some(32 + number),
            1 => Some(16 + number),
            _ => None,
        }
    }

    /// INTID that pin `pin` (1 to 4) of the PCI function with the unit address `unit` (its device and function in bits 15:8)
    /// arrives as: the node's `interrupt-map` (Devicetree Specification 0.4, 2.4.3), for a parent that is a GIC.
    pub fn pin_interrupt(&self, unit: u32, pin: u32) -> Option<u32> {
        let map = self.property("interrupt-map")?;
        let mask = |index| self.word("interrupt-map-mask", index).unwrap_or(u32::MAX);
        let mut first = 0;
        // Unit address and pin of the function, the parent, its unit address, its interrupt.
        while let Some(parent) = cells(map, first + 4, 1) {
            let parent_cells = self.fdt.find(|node| {
                let is_parent = node.word("phandle", 0) == Some(parent as u32);
                is_parent.then(|| node.word("#address-cells", 0).unwrap_or(0) as usize)
            })?;
            let is_it =
                cells(map, first, 1)? as u32 == unit & mask(0) && cells(map, first + 3, 1)? as u32 == pin & mask(3);
            let interrupt = first + 5 + parent_cells;
            if is_it && cells(map, interrupt, 1)? == 0 {
                return Some(32 + cells(map, interrupt + 1, 1)? as u32);
            }
            first = interrupt + 3;
        }
        None
    }
}

fn text(bytes: &'static [u8]) -> Option<&'static str> {
    core::str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()
}

/// `count` big-endian cells (1 or 2) from cell `first` on.
fn cells(bytes: &[u8], first: usize, count: usize) -> Option<u64> {
    let bytes = bytes.get(first * 4..(first + count) * 4)?;
    (count <= 2).then(|| bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}
