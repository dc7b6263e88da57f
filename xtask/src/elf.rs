//! Reading and shortening ELF files: loaded bytes, build ID, the shippable part.

use crate::trouble::Trouble;

/// A 64-bit little-endian ELF's few fields, each bounds-checked.
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
}

/// A loadable segment (`PT_LOAD`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    /// Link address.
    pub(crate) vaddr: u64,
    /// Bytes in memory, at least as many as in the file.
    pub(crate) memsz: u64,
    /// Bytes in the file.
    pub(crate) data: &'a [u8],
    /// `PF_X` 1, `PF_W` 2, `PF_R` 4.
    pub(crate) flags: u32,
}

const PT_LOAD: u32 = 1;
const SHT_NOTE: u32 = 7;
const NT_GNU_BUILD_ID: u32 = 3;
const PHDR_SIZE: u64 = 56;

impl<'a> Elf<'a> {
    /// Checks the header.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, Trouble> {
        if bytes.get(..6) != Some(b"\x7fELF\x02\x01") || bytes.len() < 64 {
            return Err(Trouble::other("not a 64-bit little-endian ELF file"));
        }
        Ok(Self { bytes })
    }

    /// Where execution starts.
    pub(crate) fn entry(&self) -> u64 {
        self.u64(24).unwrap_or(0)
    }

    /// The loadable segments with a size, in file order.
    pub(crate) fn segments(&self) -> Result<Vec<Segment<'a>>, Trouble> {
        let mut found = Vec::new();
        for at in self.headers()? {
            if self.u32(at) != Some(PT_LOAD) || self.u64(at + 40) == Some(0) {
                continue;
            }
            let data = self.file_range(at).ok_or_else(damaged)?;
            let (Some(vaddr), Some(memsz), Some(flags)) = (self.u64(at + 16), self.u64(at + 40), self.u32(at + 4))
            else {
                return Err(damaged());
            };
            if memsz < data.len() as u64 {
                return Err(damaged());
            }
            found.push(Segment { vaddr, memsz, data, flags });
        }
        Ok(found)
    }

    /// The GNU build ID, where the linker wrote one.
    pub(crate) fn build_id(&self) -> Option<Vec<u8>> {
        let (first, counts) = (self.u64(40)?, self.u32(58)?);
        let (size, count) = (u64::from(counts & 0xFFFF), u64::from(counts >> 16));
        (0..count).find_map(|index| {
            let header = first.checked_add(index * size)?;
            if self.u32(header.checked_add(4)?)? != SHT_NOTE {
                return None;
            }
            let (offset, len) = (self.u64(header.checked_add(24)?)?, self.u64(header.checked_add(32)?)?);
            let mut notes = self.bytes.get(offset as usize..offset.checked_add(len)? as usize)?;
            loop {
                let word = |at: usize| Some(u32::from_le_bytes(notes.get(at..at + 4)?.try_into().ok()?));
                let desc = 12 + (word(0)? as usize).next_multiple_of(4);
                let end = desc.checked_add(word(4)? as usize)?;
                let found = notes.get(desc..end)?;
                if word(8)? == NT_GNU_BUILD_ID && notes.get(12..16)? == b"GNU\0" {
                    return Some(found.to_vec());
                }
                notes = notes.get(end.next_multiple_of(4)..)?;
            }
        })
    }

    /// The bytes of section `name`.
    pub(crate) fn section(&self, name: &str) -> Option<&'a [u8]> {
        let (first, counts) = (self.u64(40)?, self.u64(56)?);
        let [size, count, names] = [counts >> 16 & 0xFFFF, counts >> 32 & 0xFFFF, counts >> 48];
        let header = |index: u64| first.checked_add(index * size);
        let data = |header: u64| {
            let (offset, len) = (self.u64(header.checked_add(24)?)?, self.u64(header.checked_add(32)?)?);
            self.bytes.get(offset as usize..offset.checked_add(len)? as usize)
        };
        let names = data(header(names)?)?;
        let is_it = |header: &u64| {
            let rest = self.u32(*header).and_then(|at| names.get(at as usize..));
            rest.is_some_and(|rest| rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)))
        };
        (0..count).filter_map(header).find(is_it).and_then(data)
    }

    /// The file without what is not loaded: no section table, symbols or debug information.
    pub(crate) fn stripped(&self) -> Result<Vec<u8>, Trouble> {
        let mut end = 64;
        for at in self.headers()? {
            end = end.max(at + PHDR_SIZE);
            if let (Some(offset), Some(len)) = (self.u64(at + 8), self.u64(at + 32)) {
                end = end.max(offset.saturating_add(len));
            }
        }
        let mut kept = self.bytes.get(..end as usize).ok_or_else(damaged)?.to_vec();
        kept[40..48].fill(0); // e_shoff
        kept[58..64].fill(0); // e_shentsize, e_shnum, e_shstrndx
        Ok(kept)
    }

    /// Offsets of the program headers.
    fn headers(&self) -> Result<impl Iterator<Item = u64>, Trouble> {
        let (Some(first), Some(counts)) = (self.u64(32), self.u32(54)) else { return Err(damaged()) };
        let (size, count) = (u64::from(counts & 0xFFFF), u64::from(counts >> 16));
        let end = first.checked_add(size * count).ok_or_else(damaged)?;
        if size != PHDR_SIZE && count != 0 || end > self.bytes.len() as u64 {
            return Err(damaged());
        }
        Ok((0..count).map(move |i| first + i * PHDR_SIZE))
    }

    fn file_range(&self, header: u64) -> Option<&'a [u8]> {
        let (offset, len) = (self.u64(header + 8)?, self.u64(header + 32)?);
        self.bytes.get(offset as usize..offset.checked_add(len)? as usize)
    }

    fn u32(&self, at: u64) -> Option<u32> {
        let bytes = self.bytes.get(at as usize..(at as usize).checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    fn u64(&self, at: u64) -> Option<u64> {
        let bytes = self.bytes.get(at as usize..(at as usize).checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

fn damaged() -> Trouble {
    Trouble::other("damaged ELF file")
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
