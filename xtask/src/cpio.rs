//! An initial RAM file system for Linux: the "new ASCII" cpio format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Everything is root's and of the year 1970, so the same files give the same bytes.

/// An archive under construction.
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

/// `S_IFDIR`, `S_IFREG`, `S_IFCHR` of the mode.
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const DEVICE: u32 = 0o020_000;

impl Archive {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), entries: 0 }
    }

    /// Adds a folder. What lies in it is added after it.
    pub(crate) fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER | 0o755, (0, 0), &[]);
    }

    /// Adds a file, executable.
    pub(crate) fn program(&mut self, path: &str, bytes: &[u8]) {
        self.entry(path, FILE | 0o755, (0, 0), bytes);
    }

    /// Adds a character device: Linux opens `/dev/console` for `/init` before anything is mounted.
    pub(crate) fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, DEVICE | 0o600, (major, minor), &[]);
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        self.entries += 1;
        self.bytes.extend_from_slice(b"070701");
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let name = path.len() as u32 + 1;
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name, 0];
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    /// Names and contents end on multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn an_entry_is_laid_out_as_the_format_says() {
        let mut archive = Archive::new();
        archive.program("init", b"#!x");
        let bytes = archive.finish();
        assert_eq!(&bytes[..14], b"07070100000001");
        assert_eq!(&bytes[14..22], b"000081ED", "a file, rwxr-xr-x");
        assert_eq!(&bytes[54..62], b"00000003", "its size");
        assert_eq!(&bytes[94..102], b"00000005", "its name's size, with the end");
        assert_eq!(&bytes[110..120], b"init\0\0#!x\0", "padded to 116 and 120");
        assert_eq!(&bytes[120..126], b"070701");
        assert!(bytes.len().is_multiple_of(4));
    }
}
