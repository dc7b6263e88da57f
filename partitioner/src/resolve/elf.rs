//! The ELF files guests come in: AArch64, 64 bits, little-endian, loaded by physical address.
//!
//! Read with the `object` crate; nothing in a file is trusted to be inside the file.

use object::LittleEndian;
use object::elf::{EM_AARCH64, ET_EXEC, FileHeader64, PF_X, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

/// What is wrong with an ELF file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ElfError {
    /// 32 bits.
    Class,
    /// Big-endian.
    Endian,
    /// For another machine: its `e_machine`.
    Machine(u16),
    /// Position-independent or relocatable: its `e_type`.
    Type(u16),
    /// Headers outside the file or contradicting it.
    Damaged,
    /// No `PT_LOAD` segment with a byte in it.
    NoSegments,
}

/// One segment to load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    /// Physical address, which for a guest is an IPA.
    pub(crate) at: u64,
    /// First byte in the file.
    pub(crate) offset: u64,
    /// Bytes in the file.
    pub(crate) len: u64,
    /// Bytes in memory.
    pub(crate) mem: u64,
    /// Whether it may be executed.
    pub(crate) executable: bool,
}

/// Whether the file says it is ELF.
pub(crate) fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// Hands each loadable segment to `each` and returns the entry point (an address in the same space as the segments).
pub(crate) fn read(bytes: &[u8], mut each: impl FnMut(Segment)) -> Result<u64, ElfError> {
    match (bytes.get(4), bytes.get(5)) {
        (Some(2), Some(1)) => {}
        (Some(2), Some(2)) => return Err(ElfError::Endian),
        (Some(1), _) => return Err(ElfError::Class),
        _ => return Err(ElfError::Damaged),
    }
    let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(|_| ElfError::Damaged)?;
    let endian = LittleEndian;
    if header.e_machine(endian) != EM_AARCH64 {
        return Err(ElfError::Machine(header.e_machine(endian)));
    }
    if header.e_type(endian) != ET_EXEC {
        return Err(ElfError::Type(header.e_type(endian)));
    }
    let programs = header.program_headers(endian, bytes).map_err(|_| ElfError::Damaged)?;
    let mut entry = header.e_entry(endian);
    let mut found = false;
    for program in programs.iter().filter(|p| p.p_type(endian) == PT_LOAD && p.p_memsz(endian) != 0) {
        let segment = Segment {
            at: program.p_paddr(endian),
            offset: program.p_offset(endian),
            len: program.p_filesz(endian),
            mem: program.p_memsz(endian),
            executable: program.p_flags(endian) & PF_X != 0,
        };
        let file_end = segment.offset.checked_add(segment.len).ok_or(ElfError::Damaged)?;
        if file_end > bytes.len() as u64 || segment.len > segment.mem || segment.at.checked_add(segment.mem).is_none() {
            return Err(ElfError::Damaged);
        }
        // The entry is a virtual address; the guest starts with its MMU off, so it is needed as a physical one.
        let vaddr = program.p_vaddr(endian);
        let at = header.e_entry(endian);
        if vaddr != segment.at && at >= vaddr && at - vaddr < segment.mem {
            entry = segment.at + (at - vaddr);
        }
        found = true;
        each(segment);
    }
    if found { Ok(entry) } else { Err(ElfError::NoSegments) }
}
