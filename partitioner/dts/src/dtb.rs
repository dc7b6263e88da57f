//! A flattened device tree as source text, so that a board given as `.dtb` takes the same way as one given as `.dts` and
//! diagnostics can show node and property.
//!
//! The blob is read with `fdt-rs`. That crate trusts offsets and lengths, so [`scan`] has walked the whole blob before it
//! sees any of it (`docs/decisions/0005-fdt-rs-behind-a-scan.md`).
#![allow(unsafe_code)] // `fdt_rs::base::DevTree::new` is unsafe: it believes the header, which is checked here.

use crate::store::{Full, Resource};
use crate::{Arg, Diagnostic, Span, codes};
use core::fmt::{self, Write};
use fdt_rs::base::DevTree;
use fdt_rs::base::parse::ParsedTok;
use fdt_rs::prelude::FallibleIterator;

const BEGIN: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
/// Longest node name that `fdt-rs` reads, unit address included.
const MAX_NAME: usize = 29;
const MAX_DEPTH: u32 = crate::parse::MAX_DEPTH;

/// Why a blob cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlobError<'b> {
    /// It does not begin with the magic number, or is shorter than a header.
    NotABlob,
    /// Its version is older than 16 or it asks for a newer reader than 17.
    Version(u32),
    /// The file has fewer bytes than its header says.
    Short(u32),
    /// A part named in the header lies outside the blob, or is not aligned.
    BadOffset(&'static str),
    /// The structure makes no sense at this offset.
    BadStructure(u32),
    /// A node name is too long for the reader.
    LongName(&'b str),
    /// A node's or property's name is not text that could stand in a source.
    BadName(u32),
    /// Nodes nested too deep.
    Deep,
}

impl<'b> BlobError<'b> {
    /// The error as a diagnostic. A blob has no lines: `at` names the file alone.
    pub fn diagnostic(self, at: Span) -> Diagnostic<'b> {
        let new =
            |message| Diagnostic::new(codes::BLOB, at, message).help("give the board as `.dts`, or make the blob anew");
        match self {
            Self::NotABlob => new("this is not a flattened device tree"),
            Self::Version(version) => {
                new("the blob has version {0}, readable are 16 and 17").args(&[Arg::Number(version.into())])
            }
            Self::Short(size) => new("the blob ends early: its header says {0}").args(&[Arg::Bytes(size.into())]),
            Self::BadOffset(what) => {
                new("the blob's {0} lies outside of it or is not aligned").args(&[Arg::Text(what)])
            }
            Self::BadStructure(offset) => {
                new("the blob's structure is damaged at offset {0}").args(&[Arg::Hex(offset.into())])
            }
            Self::LongName(name) => {
                new("the node name `{0}` has more than {1} characters, which a blob's reader cannot take")
                    .args(&[Arg::Text(name), Arg::Number(MAX_NAME as u64)])
                    .help("decompile the blob with `dtc -I dtb -O dts` and include the text from the layout")
            }
            Self::BadName(offset) => new("a name in the blob, at offset {0}, has characters no name can have")
                .args(&[Arg::Hex(offset.into())]),
            Self::Deep => new("nodes in the blob are nested more than {0} deep").args(&[Arg::Number(MAX_DEPTH.into())]),
        }
    }
}

/// What [`decompile`] gives.
pub type Decompiled<'o, 'b> = Result<Result<&'o str, BlobError<'b>>, Full>;

/// Writes a blob as source text into `out`. Five bytes of text per byte of blob are usually enough. `blob` is best
/// aligned to 4 bytes, as every allocation is.
///
/// # Errors
/// [`Full`] where `out` is too short: lend twice as much and call again.
pub fn decompile<'o, 'b>(blob: &'b [u8], out: &'o mut [u8]) -> Decompiled<'o, 'b> {
    let parts = match scan(blob) {
        Ok(parts) => parts,
        Err(error) => return Ok(Err(error)),
    };
    let mut text = Text { out, len: 0 };
    match write(blob, &parts, &mut text) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Ok(Err(error)),
        Err(fmt::Error) => return Err(Full(Resource::Bytes)),
    }
    let Text { out, len } = text;
    let made: &'o [u8] = out;
    let made = made.get(..len).unwrap_or(&[]);
    // Only text was written, so this cannot fail.
    Ok(core::str::from_utf8(made).map_err(|_| BlobError::NotABlob))
}

/// Parts of a blob, as offsets.
struct Parts {
    total: usize,
    strings: usize,
    strings_end: usize,
    reservations: usize,
}

fn word(blob: &[u8], at: usize) -> Option<u32> {
    let bytes = blob.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Walks the whole blob and makes sure of everything its reader takes for granted (Devicetree Specification 0.4, chapter 5).
fn scan(file: &[u8]) -> Result<Parts, BlobError<'_>> {
    let header = |index: usize| word(file, index * 4).ok_or(BlobError::NotABlob);
    if header(0)? != 0xd00d_feed {
        return Err(BlobError::NotABlob);
    }
    let total = header(1)?;
    let (structure, strings, reservations) = (header(2)? as usize, header(3)? as usize, header(4)? as usize);
    let (version, compatible) = (header(5)?, header(6)?);
    if version < 16 || compatible > 17 {
        return Err(BlobError::Version(version));
    }
    let strings_size = header(8)? as usize;
    // The reader takes a header of version 17.
    let Some(blob) = file.get(..total as usize).filter(|_| total >= 40) else { return Err(BlobError::Short(total)) };
    if file.as_ptr().align_offset(4) != 0 || structure % 4 != 0 || structure < 28 || structure >= blob.len() {
        return Err(BlobError::BadOffset("structure"));
    }
    let strings_end = match strings.checked_add(strings_size).filter(|end| *end <= blob.len()) {
        Some(end) => end,
        None => return Err(BlobError::BadOffset("string table")),
    };
    if reservations % 8 != 0 {
        return Err(BlobError::BadOffset("reservation list"));
    }
    let mut at = reservations;
    loop {
        let Some(entry) = blob.get(at..).and_then(|rest| rest.get(..16)) else {
            return Err(BlobError::BadOffset("reservation list"));
        };
        if entry.iter().all(|b| *b == 0) {
            break;
        }
        at += 16;
    }
    let parts = Parts { total: blob.len(), strings, strings_end, reservations };
    walk(blob, structure, &parts)?;
    Ok(parts)
}

fn walk<'b>(blob: &'b [u8], structure: usize, parts: &Parts) -> Result<(), BlobError<'b>> {
    let (mut at, mut depth, mut roots) = (structure, 0u32, 0u32);
    loop {
        let bad = BlobError::BadStructure(at as u32);
        let token = word(blob, at).ok_or(bad)?;
        at += 4;
        match token {
            BEGIN => {
                let rest = blob.get(at..).ok_or(bad)?;
                let len = rest.iter().position(|b| *b == 0).ok_or(bad)?;
                let name = rest.get(..len).ok_or(bad)?;
                roots += u32::from(depth == 0);
                let named = core::str::from_utf8(name).ok().filter(|name| is_name(name));
                match named {
                    Some(name) if name.len() > MAX_NAME => return Err(BlobError::LongName(name)),
                    Some(name) if depth > 0 && !name.is_empty() => {}
                    Some("") if depth == 0 => {}
                    _ => return Err(BlobError::BadName(at as u32)),
                }
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(BlobError::Deep);
                }
                at = (at + len + 1).next_multiple_of(4);
            }
            END_NODE => {
                depth = depth.checked_sub(1).ok_or(bad)?;
                // Nothing behind the root's end is read.
                if depth == 0 {
                    // The reader wants a word behind every token it takes.
                    return if roots == 1 && word(blob, at).is_some() { Ok(()) } else { Err(bad) };
                }
            }
            PROPERTY if depth > 0 => {
                let (len, name) = (word(blob, at).ok_or(bad)?, word(blob, at + 4).ok_or(bad)?);
                at = at + 8 + len as usize;
                if at > blob.len() {
                    return Err(bad);
                }
                at = at.next_multiple_of(4);
                if property_name(blob, parts, name as usize).is_none() {
                    return Err(BlobError::BadName((parts.strings as u32).saturating_add(name)));
                }
            }
            NOP => {}
            _ => return Err(bad),
        }
    }
}

fn property_name<'b>(blob: &'b [u8], parts: &Parts, offset: usize) -> Option<&'b str> {
    let strings = blob.get(parts.strings..parts.strings_end)?.get(offset..)?;
    let len = strings.iter().position(|b| *b == 0)?;
    core::str::from_utf8(strings.get(..len)?).ok().filter(|name| !name.is_empty() && is_name(name))
}

/// Whether it would be read back as one name.
fn is_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b",._+*#?@-".contains(&b))
}

/// Text in a lent buffer.
struct Text<'o> {
    out: &'o mut [u8],
    len: usize,
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
    fn tabs(&mut self, depth: usize) -> fmt::Result {
        (0..depth).try_for_each(|_| self.write_char('\t'))
    }
}

fn write<'b>(blob: &'b [u8], parts: &Parts, text: &mut Text<'_>) -> Result<Result<(), BlobError<'b>>, fmt::Error> {
    text.write_str("/dts-v1/;\n")?;
    let mut at = parts.reservations;
    while let (Some(base), Some(size)) = (pair(blob, at), pair(blob, at + 8)) {
        if base == 0 && size == 0 {
            break;
        }
        writeln!(text, "/memreserve/ {base:#x} {size:#x};")?;
        at += 16;
    }
    let bytes = blob.get(..parts.total).unwrap_or(blob);
    // SAFETY: `scan` has checked header, alignment, offsets and every token of these bytes up to the root's end, behind
    // which nothing is read here.
    let Ok(tree) = (unsafe { DevTree::new(bytes) }) else { return Ok(Err(BlobError::NotABlob)) };
    let mut tokens = tree.parse_iter();
    let mut depth = 0usize;
    loop {
        let offset = tokens.offset as u32;
        match tokens.next() {
            Ok(Some(ParsedTok::BeginNode(node))) => {
                text.tabs(depth)?;
                let name = core::str::from_utf8(node.name).unwrap_or("");
                writeln!(text, "{} {{", if depth == 0 { "/" } else { name })?;
                depth += 1;
            }
            Ok(Some(ParsedTok::EndNode)) => {
                depth = depth.saturating_sub(1);
                text.tabs(depth)?;
                text.write_str("};\n")?;
                if depth == 0 {
                    return Ok(Ok(()));
                }
            }
            Ok(Some(ParsedTok::Prop(property))) => {
                let name = property_name(blob, parts, property.name_offset).unwrap_or("");
                text.tabs(depth)?;
                text.write_str(name)?;
                value(text, name, property.prop_buf)?;
                text.write_str(";\n")?;
            }
            Ok(Some(ParsedTok::Nop)) => {}
            Ok(None) | Err(_) => return Ok(Err(BlobError::BadStructure(offset))),
        }
    }
}

fn pair(blob: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(word(blob, at)?) << 32 | u64::from(word(blob, at + 4)?))
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

/// A value with its ` = `. Blobs do not say what a value is; the guess is the one every decompiler makes.
fn value(text: &mut Text<'_>, name: &str, value: &[u8]) -> fmt::Result {
    if value.is_empty() {
        return Ok(());
    }
    text.write_str(" = ")?;
    if is_text(value) && !(is_cells(name) && value.len().is_multiple_of(4)) {
        let strings = value.strip_suffix(&[0]).unwrap_or(value);
        for (index, string) in strings.split(|b| *b == 0).enumerate() {
            text.write_str(if index == 0 { "\"" } else { ", \"" })?;
            for byte in string {
                if matches!(byte, b'"' | b'\\') {
                    text.write_char('\\')?;
                }
                text.write_char(char::from(*byte))?;
            }
            text.write_char('"')?;
        }
        return Ok(());
    }
    let (open, close, width) = if value.len().is_multiple_of(4) { ('<', '>', 4) } else { ('[', ']', 1) };
    text.write_char(open)?;
    for (index, bytes) in value.chunks_exact(width).enumerate() {
        if index > 0 {
            text.write_char(' ')?;
        }
        match <[u8; 4]>::try_from(bytes) {
            Ok(cell) => write!(text, "{:#x}", u32::from_be_bytes(cell))?,
            Err(_) => bytes.iter().try_for_each(|byte| write!(text, "{byte:02x}"))?,
        }
    }
    text.write_char(close)
}
