//! A flattened device tree as source text, so that a board given as `.dtb` takes the same way as one given as `.dts` and
//! diagnostics can show node and property.
//!
//! The blob is read with `fdt-rs`. That crate trusts offsets and lengths, so `scan` has walked the whole blob before it
//! sees any of it (`docs/decisions/0005-fdt-rs-behind-a-scan.md`).
#![allow(unsafe_code)] // `fdt_rs::base::DevTree::new` is unsafe: it believes the header, which is checked here.

mod scan;
mod text;

use crate::store::{Full, Resource};
use crate::{Arg, Diagnostic, Span, codes};
use core::fmt::{self, Write};
use fdt_rs::base::DevTree;
use fdt_rs::base::parse::ParsedTok;
use fdt_rs::prelude::FallibleIterator;
use scan::{Parts, pair, property_name, scan};
use text::Text;

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
    let mut names = [""; MAX_DEPTH as usize + 1];
    loop {
        let offset = tokens.offset as u32;
        match tokens.next() {
            Ok(Some(ParsedTok::BeginNode(node))) => {
                text.tabs(depth)?;
                let name = core::str::from_utf8(node.name).unwrap_or("");
                if let Some(slot) = names.get_mut(depth) {
                    *slot = name;
                }
                for label in parts.labels(blob, names.get(1..=depth).unwrap_or(&[])) {
                    write!(text, "{label}: ")?;
                }
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
                text.value(name, property.prop_buf)?;
                text.write_str(";\n")?;
            }
            Ok(Some(ParsedTok::Nop)) => {}
            Ok(None) | Err(_) => return Ok(Err(BlobError::BadStructure(offset))),
        }
    }
}
