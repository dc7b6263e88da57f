//! Walks a blob and makes sure of everything its reader takes for granted; also what that reader has no words for: names
//! of properties, and labels out of `__symbols__`.
//!
//! It decides nothing about the text that is made of the blob.

use super::{BlobError, MAX_DEPTH, MAX_NAME};

const BEGIN: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;

/// Parts of a blob, as offsets.
pub(super) struct Parts {
    pub(super) total: usize,
    strings: usize,
    strings_end: usize,
    pub(super) reservations: usize,
    /// Where the properties of `/__symbols__` begin, which `dtc -@` writes: name = path, one for each label.
    symbols: Option<usize>,
}

/// Labels of one node that are written: as many as the parser takes in a row.
const MAX_LABELS: usize = 8;

impl Parts {
    /// Labels that `__symbols__` gives the node whose path is `names`. An entry that is no label, or whose value is no
    /// path, labels nothing.
    pub(super) fn labels<'b>(&self, blob: &'b [u8], names: &[&str]) -> impl Iterator<Item = &'b str> {
        let mut at = self.symbols;
        let properties = core::iter::from_fn(move || {
            loop {
                let token = word(blob, at?)?;
                let start = at? + 4;
                match token {
                    PROPERTY => {
                        let (len, name) = (word(blob, start)? as usize, word(blob, start + 4)? as usize);
                        let value = blob.get(start + 8..start + 8 + len)?;
                        at = Some((start + 8 + len).next_multiple_of(4));
                        return Some((property_name(blob, self, name)?, value));
                    }
                    NOP => at = Some(start),
                    _ => return None,
                }
            }
        });
        let mine = move |(label, value): (&'b str, &[u8])| {
            let path = core::str::from_utf8(value.strip_suffix(&[0])?).ok()?;
            (crate::parse::is_label(label) && leads(path, names)).then_some(label)
        };
        properties.filter_map(mine).take(MAX_LABELS)
    }
}

/// Whether a path names exactly these nodes, from below the root. From its end: paths begin alike.
fn leads(path: &str, names: &[&str]) -> bool {
    if names.is_empty() {
        return path == "/";
    }
    let mut parts = path.rsplit('/');
    names.iter().rev().all(|name| parts.next() == Some(name)) && parts.next() == Some("") && parts.next().is_none()
}

fn word(blob: &[u8], at: usize) -> Option<u32> {
    let bytes = blob.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Walks the whole blob and makes sure of everything its reader takes for granted (Devicetree Specification 0.4, chapter 5).
pub(super) fn scan(file: &[u8]) -> Result<Parts, BlobError<'_>> {
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
    let mut parts = Parts { total: blob.len(), strings, strings_end, reservations, symbols: None };
    parts.symbols = walk(blob, structure, &parts)?;
    Ok(parts)
}

/// Every token up to the root's end. Returns where the properties of `/__symbols__` begin.
fn walk<'b>(blob: &'b [u8], structure: usize, parts: &Parts) -> Result<Option<usize>, BlobError<'b>> {
    let (mut at, mut depth, mut roots) = (structure, 0u32, 0u32);
    let mut symbols = None;
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
                if depth == 2 && named == Some("__symbols__") {
                    symbols = Some(at);
                }
            }
            END_NODE => {
                depth = depth.checked_sub(1).ok_or(bad)?;
                // Nothing behind the root's end is read.
                if depth == 0 {
                    // The reader wants a word behind every token it takes.
                    return if roots == 1 && word(blob, at).is_some() { Ok(symbols) } else { Err(bad) };
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

pub(super) fn property_name<'b>(blob: &'b [u8], parts: &Parts, offset: usize) -> Option<&'b str> {
    let strings = blob.get(parts.strings..parts.strings_end)?.get(offset..)?;
    let len = strings.iter().position(|b| *b == 0)?;
    core::str::from_utf8(strings.get(..len)?).ok().filter(|name| !name.is_empty() && is_name(name))
}

/// Whether it would be read back as one name.
fn is_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b",._+*#?@-".contains(&b))
}

/// Two words at `at` as one number.
pub(super) fn pair(blob: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(word(blob, at)?) << 32 | u64::from(word(blob, at + 4)?))
}
