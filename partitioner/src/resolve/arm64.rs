//! The header of an arm64 Linux `Image` (Linux, Documentation/arch/arm64/booting.rst).

/// What the header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    /// Distance from a 2 MiB boundary.
    pub(crate) text_offset: u64,
    /// Bytes of memory from the load address the kernel needs, `.bss` included. 0 before Linux 3.17.
    pub(crate) image_size: u64,
    /// Bit 0 big-endian, bits 2:1 page size.
    pub(crate) flags: u64,
}

/// Bytes of the header.
pub(crate) const LEN: usize = 64;

impl Header {
    /// Whether the kernel is big-endian.
    pub(crate) fn big_endian(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// The header, where `bytes` has the magic number of one.
pub(crate) fn read(bytes: &[u8]) -> Option<Header> {
    let word = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    if bytes.get(56..60)? != b"ARM\x64" || bytes.len() < LEN {
        return None;
    }
    Some(Header { text_offset: word(8)?, image_size: word(16)?, flags: word(24)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_files_are_no_images() {
        assert_eq!(read(&[0; 63]), None);
        let mut file = [0; 64];
        assert_eq!(read(&file), None);
        file[56..60].copy_from_slice(b"ARM\x64");
        file[16] = 1;
        assert_eq!(read(&file), Some(Header { text_offset: 0, image_size: 1, flags: 0 }));
    }
}
