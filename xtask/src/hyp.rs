//! The prebuilt hypervisor as the compiler and the image writer see it: flat bytes, access of its pages, build ID.

use crate::cross::{self, Item};
use crate::elf::{Elf, hex};
use crate::repo;
use crate::trouble::Trouble;
use cofferdam_partitioner::compile::{Access, HypImage, HypSegment};
use cofferdam_plan::va::{HYP_VA, PAGE};
use std::cell::OnceCell;

/// The builds of `hyp-min` with PCI and without it (decision 0062), each made when a layout first needs it.
#[derive(Default)]
pub(crate) struct Hypervisors {
    pub(crate) with: OnceCell<Hypervisor>,
    without: OnceCell<Hypervisor>,
}

impl Hypervisors {
    /// The one for plans with PCI functions, or for those without.
    ///
    /// # Errors
    /// As [`Hypervisor::build`].
    pub(crate) fn of(&self, pci: bool) -> Result<&Hypervisor, Trouble> {
        let place = if pci { &self.with } else { &self.without };
        match place.get() {
            Some(built) => Ok(built),
            None => {
                let built = Hypervisor::build(pci)?;
                Ok(place.get_or_init(|| built))
            }
        }
    }
}

/// `hyp-min`, built and flattened.
pub(crate) struct Hypervisor {
    /// Whether it has the code for PCI.
    pub(crate) pci: bool,
    /// The ELF with symbols, for the log.
    pub(crate) elf: Vec<u8>,
    /// Its bytes from the start of the image, without `.bss`.
    pub(crate) flat: Vec<u8>,
    /// Bytes of code and constants: loaded segments that are not writable.
    pub(crate) text_and_constants: u64,
    len: u64,
    segments: Vec<HypSegment>,
    build_id: [u8; 20],
}

impl Hypervisor {
    /// Builds `hyp-min` with or without PCI, where needed, and reads it.
    ///
    /// # Errors
    /// It cannot be built, or is not laid out as the plan needs it.
    pub(crate) fn build(pci: bool) -> Result<Self, Trouble> {
        let item = if pci { Item::BinsWith(cross::PCI) } else { Item::Bins };
        let found = cross::build(cross::HYPERVISOR, &item)?;
        let path = found.first().ok_or_else(|| Trouble::other("hyp-min has no program"))?;
        Self::read(repo::read(path)?, pci)
    }

    /// Reads a linked `hyp-min`.
    fn read(elf: Vec<u8>, pci: bool) -> Result<Self, Trouble> {
        let bad = |what: &str| Trouble::other(format!("hyp-min is not laid out as the plan needs it: {what}"));
        let file = Elf::new(&elf)?;
        let mut flat = Vec::new();
        let mut segments: Vec<HypSegment> = Vec::new();
        let mut len = 0;
        let mut text_and_constants = 0;
        for segment in file.segments()? {
            let offset = segment.vaddr.checked_sub(HYP_VA).ok_or_else(|| bad("a segment below its link address"))?;
            if offset % PAGE != 0 || offset < len {
                return Err(bad("segments overlap, or do not start at a page"));
            }
            let access = match segment.flags {
                5 => Access::Execute,
                4 => Access::Read,
                6 => Access::Write,
                _ => return Err(bad("a segment is writable and executable")),
            };
            if segment.flags & 2 == 0 {
                text_and_constants += segment.memsz;
            }
            flat.resize(offset as usize, 0);
            flat.extend_from_slice(segment.data);
            len = (offset + segment.memsz).next_multiple_of(PAGE);
            segments.push(HypSegment { offset, len: len - offset, access });
        }
        let id = file.build_id().ok_or_else(|| bad("no build ID"))?;
        let build_id = id.try_into().map_err(|_| bad("its build ID is not 20 bytes long"))?;
        Ok(Self { pci, elf, flat, text_and_constants, len, segments, build_id })
    }

    /// For the compiler.
    pub(crate) fn image(&self) -> HypImage<'_> {
        HypImage { len: self.len, segments: &self.segments, build_id: self.build_id }
    }

    /// File name of the ELF with symbols.
    pub(crate) fn elf_name(&self) -> String {
        format!("hyp-min-{}.elf", hex(&self.build_id))
    }
}
