//! Checks that bytes are a flattened device tree a trusting reader can walk (Devicetree Specification 0.4, chapter 5).
//!
//! `fdt-rs` believes header and offsets; everything it will follow is bounded here first, so that no bytes make it panic or
//! read elsewhere. Returns why not, in words.

const MAGIC: u32 = 0xD00D_FEED;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;
/// Longest node name, unit address included, that `fdt-rs` reads.
const MAX_NODE_NAME: usize = 29;
/// Deepest nesting followed.
pub(crate) const MAX_DEPTH: usize = 16;

/// The big-endian word at byte `at`.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    bytes.get(at..end)?.try_into().ok().map(u32::from_be_bytes)
}

/// Whether a reader may follow every offset in `bytes`, which must be the whole tree.
pub(crate) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let field = |i: usize| word(bytes, i * 4).map(|v| v as usize).ok_or("is shorter than its header");
    if bytes.as_ptr().align_offset(8) != 0 {
        return Err("is not 8-byte aligned");
    }
    if field(0)? != MAGIC as usize {
        return Err("has no magic");
    }
    let (total, structure, strings, reserved) = (field(1)?, field(2)?, field(3)?, field(4)?);
    let (strings_len, structure_len) = (field(8)?, field(9)?);
    if field(5)? < 17 || field(6)? > 17 {
        return Err("is of another version than 17");
    }
    if total > bytes.len() {
        return Err("is longer than its payload");
    }
    let structure_end = structure.checked_add(structure_len).ok_or("has offsets that wrap")?;
    let strings_end = strings.checked_add(strings_len).ok_or("has offsets that wrap")?;
    if structure % 4 != 0 || structure_len % 4 != 0 || structure < 40 || structure_end >= total || strings_end > total {
        return Err("has blocks outside itself");
    }
    if reserved % 8 != 0 || reserved < 40 || reserved.checked_add(16).is_none_or(|end| end > total) {
        return Err("has a reservation block outside itself");
    }
    let block = bytes.get(structure..structure_end).ok_or("has blocks outside itself")?;
    let names = bytes.get(strings..strings_end).ok_or("has blocks outside itself")?;
    walk(block, names)
}

fn walk(block: &[u8], names: &[u8]) -> Result<(), &'static str> {
    let (mut at, mut depth, mut nodes) = (0, 0usize, 0u32);
    let mut properties_allowed = false;
    loop {
        let token = word(block, at).ok_or("ends inside its structure")?;
        at += 4;
        match token {
            BEGIN_NODE => {
                if depth == 0 && nodes > 0 {
                    return Err("has two roots");
                }
                let rest = block.get(at..).ok_or("ends inside a name")?;
                let len = rest.iter().position(|b| *b == 0).ok_or("ends inside a name")?;
                if len > MAX_NODE_NAME {
                    return Err("has a node name longer than 29 bytes");
                }
                if core::str::from_utf8(rest.get(..len).unwrap_or(&[])).is_err() {
                    return Err("has a node name that is not UTF-8");
                }
                at = (at + len + 1).next_multiple_of(4);
                (depth, nodes, properties_allowed) = (depth + 1, nodes + 1, true);
                if depth > MAX_DEPTH {
                    return Err("is nested too deeply");
                }
            }
            END_NODE => {
                depth = depth.checked_sub(1).ok_or("closes a node it never opened")?;
                properties_allowed = false;
            }
            PROP => {
                let len = word(block, at).ok_or("ends inside a property")? as usize;
                let name = word(block, at + 4).ok_or("ends inside a property")? as usize;
                if !properties_allowed {
                    return Err("has a property behind a child node");
                }
                let name = names.get(name..).ok_or("has a property name outside its strings")?;
                let name_len = name.iter().position(|b| *b == 0).ok_or("has a property name without an end")?;
                if core::str::from_utf8(name.get(..name_len).unwrap_or(&[])).is_err() {
                    return Err("has a property name that is not UTF-8");
                }
                at = (at + 8).checked_add(len).ok_or("ends inside a property")?.next_multiple_of(4);
            }
            NOP => {}
            END => {
                return if depth == 0 && nodes > 0 && at == block.len() {
                    Ok(())
                } else {
                    Err("ends with nodes open or bytes left")
                };
            }
            _ => return Err("has an unknown token"),
        }
        if at > block.len() {
            return Err("ends inside its structure");
        }
    }
}
