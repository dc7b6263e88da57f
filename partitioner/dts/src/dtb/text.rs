//! Source text in a lent buffer, and the guess what a value is.

use core::fmt::{self, Write};

/// Text in a lent buffer.
pub(super) struct Text<'o> {
    pub(super) out: &'o mut [u8],
    pub(super) len: usize,
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.out.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

impl Text<'_> {
    /// Indents by `depth`.
    pub(super) fn tabs(&mut self, depth: usize) -> fmt::Result {
        (0..depth).try_for_each(|_| self.write_char('\t'))
    }

    /// A value with its ` = `. Blobs do not say what a value is; the guess is the one every decompiler makes.
    pub(super) fn value(&mut self, name: &str, value: &[u8]) -> fmt::Result {
        if value.is_empty() {
            return Ok(());
        }
        self.write_str(" = ")?;
        if is_text(value) && !(is_cells(name) && value.len().is_multiple_of(4)) {
            let strings = value.strip_suffix(&[0]).unwrap_or(value);
            for (index, string) in strings.split(|b| *b == 0).enumerate() {
                self.write_str(if index == 0 { "\"" } else { ", \"" })?;
                for byte in string {
                    if matches!(byte, b'"' | b'\\') {
                        self.write_char('\\')?;
                    }
                    self.write_char(char::from(*byte))?;
                }
                self.write_char('"')?;
            }
            return Ok(());
        }
        let (open, close, width) = if value.len().is_multiple_of(4) { ('<', '>', 4) } else { ('[', ']', 1) };
        self.write_char(open)?;
        for (index, bytes) in value.chunks_exact(width).enumerate() {
            if index > 0 {
                self.write_char(' ')?;
            }
            match <[u8; 4]>::try_from(bytes) {
                Ok(cell) => write!(self, "{:#x}", u32::from_be_bytes(cell))?,
                Err(_) => bytes.iter().try_for_each(|byte| write!(self, "{byte:02x}"))?,
            }
        }
        self.write_char(close)
    }
}

/// Properties whose value is never text, even where its bytes could be read as letters.
fn is_cells(name: &str) -> bool {
    name.starts_with('#')
        || name.ends_with("-cells")
        || name.ends_with("-map")
        || name.ends_with("-parent")
        || name.ends_with("-frequency")
        || matches!(name, "reg" | "ranges" | "dma-ranges" | "interrupts" | "interrupts-extended" | "bus-range")
        || matches!(name, "phandle" | "linux,phandle" | "clocks" | "iommus" | "linux,initrd-start" | "linux,initrd-end")
}

/// Whether bytes look like NUL-terminated strings: printable, none of them empty.
fn is_text(value: &[u8]) -> bool {
    let Some((0, strings)) = value.split_last() else { return false };
    strings.split(|b| *b == 0).all(|s| !s.is_empty() && s.iter().all(|b| (0x20..0x7f).contains(b)))
}
