//! What `lspci -vvnn -xxxx` prints, as far as it is needed: the bytes of configuration space, and the sizes of base address
//! registers, which no byte tells.

use std::collections::BTreeMap;

/// One base address register as the text shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Region {
    /// Byte offset of the register.
    pub(super) register: u32,
    /// Space code of IEEE 1275: 1 I/O, 2 memory, 3 64-bit memory.
    pub(super) space: u32,
    pub(super) prefetchable: bool,
    /// Bytes, where lspci says so.
    pub(super) size: Option<u64>,
}

/// One function or bridge.
#[derive(Debug)]
pub(super) struct Function {
    /// `00:02.0` in parts.
    pub(super) bus: u8,
    pub(super) device: u8,
    pub(super) function: u8,
    /// What lspci calls it: class, vendor, device.
    pub(super) title: String,
    pub(super) regions: Vec<Region>,
    /// Configuration space: 64, 256 or 4096 bytes.
    pub(super) bytes: Vec<u8>,
}

impl Function {
    /// The dword at `offset`; 0 behind the end.
    pub(super) fn dword(&self, offset: usize) -> u32 {
        self.bytes.get(offset..offset + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
    }
    fn byte(&self, offset: usize) -> u8 {
        self.bytes.get(offset).copied().unwrap_or(0)
    }
    /// Secondary and subordinate bus of a bridge: header type 1 (PCI-to-PCI Bridge Architecture 1.2, 3.2).
    pub(super) fn buses(&self) -> Option<(u8, u8)> {
        (self.byte(0xE) & 0x7F == 1).then(|| (self.byte(0x19), self.byte(0x1A)))
    }
    /// Bus, device and function as one number.
    pub(super) fn rid(&self) -> u16 {
        u16::from(self.bus) << 8 | u16::from(self.device) << 3 | u16::from(self.function)
    }
    /// The virtual functions that there are of it: VF Enable, NumVFs, First VF Offset and VF Stride (PCI Express Base 5.0, 9.3.3).
    pub(super) fn virtual_functions(&self) -> Vec<u16> {
        let sr_iov = self.capabilities().into_iter().find(|at| *at >= 0x100 && self.dword(*at) & 0xFFFF == 0x0010);
        let Some(at) = sr_iov.filter(|at| self.dword(at + 0x08) & 1 != 0) else { return Vec::new() };
        let [count, place] = [0x10, 0x14].map(|offset| self.dword(at + offset));
        let rid = |n: u16| self.rid().wrapping_add(place as u16).wrapping_add(((place >> 16) as u16).wrapping_mul(n));
        // No more than there are numbers of functions.
        (0..count as u16).map(rid).collect()
    }
    /// Whether its IDs are those of every virtual function (9.3.4.1.1); of others nothing answers so.
    pub(super) fn has_no_id(&self) -> bool {
        self.dword(0) == u32::MAX
    }
    /// `00:02.0`
    pub(super) fn place(&self) -> String {
        format!("{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
    /// Interrupt pin, 0 without.
    pub(super) fn pin(&self) -> u8 {
        self.byte(0x3D)
    }
    /// Whether bytes behind the header were readable.
    pub(super) fn is_whole(&self) -> bool {
        self.bytes.len() >= 256
    }

    /// Whether it has extended configuration space, as a function with the PCI Express capability does (PCI Express Base 5.0, 7.2.2),
    /// and nothing of that was read.
    pub(super) fn lacks_extended(&self) -> bool {
        let is_express = |at: &usize| *at < 0x100 && self.dword(*at) & 0xFF == 0x10;
        self.bytes.len() == 256 && self.capabilities().iter().any(is_express)
    }

    /// Offsets of the capabilities in the order of their lists, the extended ones last. A list that comes back to itself ends there.
    pub(super) fn capabilities(&self) -> Vec<usize> {
        let mut found = Vec::new();
        let mut at = usize::from(self.byte(0x34) & !3);
        while (0x40..0x100).contains(&at) && self.dword(4) & 1 << 20 != 0 && self.is_whole() && !found.contains(&at) {
            found.push(at);
            at = usize::from(self.byte(at + 1) & !3);
        }
        let mut at = 0x100;
        while at >= 0x100 && !matches!(self.dword(at), 0 | u32::MAX) && !found.contains(&at) {
            found.push(at);
            at = (self.dword(at) >> 20) as usize & !3;
        }
        found
    }
}

/// What a file of lspci's output holds.
#[derive(Debug)]
pub(super) struct Dump {
    /// Of the PCI domain asked for, by place; at least one.
    pub(super) functions: Vec<Function>,
    /// How many functions of which other PCI domains there are.
    pub(super) left_out: BTreeMap<u32, usize>,
}

/// Reads what lspci says of the functions of one PCI domain: a host bridge of its own, with its own buses from 0 on.
///
/// # Errors
/// What is missing, and which options bring it.
pub(super) fn read(text: &str, domain: u32) -> Result<Dump, String> {
    let mut functions: Vec<Function> = Vec::new();
    let mut left_out = BTreeMap::new();
    // Whether the lines are of the last function.
    let mut is_ours = false;
    // Some editors and shells put a byte order mark in front.
    for line in text.trim_start_matches('\u{feff}').lines() {
        if let Some((of, function)) = heading(line) {
            is_ours = of == domain;
            if !is_ours {
                *left_out.entry(of).or_default() += 1;
            } else if functions.iter().any(|known| known.rid() == function.rid()) {
                return Err(format!("{} is there twice: one run of lspci makes one file", function.place()));
            } else {
                functions.push(function);
            }
        }
        let Some(last) = functions.last_mut().filter(|_| is_ours) else { continue };
        if let Some(region) = line.strip_prefix('\t').and_then(region) {
            last.regions.push(region);
        } else if let Some((offset, row)) = row(line) {
            let (place, whole) = (last.place(), last.bytes.len());
            let row = row.ok_or_else(|| format!("{place}: the row {offset:#04x} is cut off, or is not 16 bytes"))?;
            if offset != whole {
                return Err(format!("{place}: the row {offset:#04x} stands where the row {whole:#04x} should"));
            }
            last.bytes.extend(row);
        }
    }
    if functions.is_empty() {
        return Err(match left_out.is_empty() {
            true => "no function: this is not what `lspci -vvnn -xxxx` prints".to_owned(),
            false => format!("no function of PCI domain {domain:04x}, but {}: choose with --domain", others(&left_out)),
        });
    }
    for function in &functions {
        let place = function.place();
        match function.bytes.len() {
            0 => return Err(format!("{place} has no bytes of configuration space: run lspci with -xxxx")),
            // 128 of a CardBus bridge.
            64 | 128 | 256 | 4096 => {}
            len => {
                return Err(format!("{place}: its configuration space ends after {len:#x} bytes: the file is cut off"));
            }
        }
    }
    functions.sort_by_key(Function::rid);
    Ok(Dump { functions, left_out })
}

/// `2 functions of PCI domain 0001, 1 of 10000`
pub(super) fn others(left_out: &BTreeMap<u32, usize>) -> String {
    let mut parts = Vec::new();
    for (domain, count) in left_out {
        parts.push(match parts.len() {
            0 => format!("{count} function{} of PCI domain {domain:04x}", if *count == 1 { "" } else { "s" }),
            _ => format!("{count} of {domain:04x}"),
        });
    }
    parts.join(", ")
}

/// `[0000:]00:02.0 Ethernet controller [0200]: …`: PCI domain, 0 where it is not told, and the function.
fn heading(line: &str) -> Option<(u32, Function)> {
    let (place, title) = line.split_once(' ')?;
    let (rest, function) = place.rsplit_once('.')?;
    let mut parts = rest.rsplit(':');
    let (device, bus) = (parts.next()?, parts.next()?);
    let domain = parts.next().map_or(Ok(0), |domain| u32::from_str_radix(domain, 16)).ok()?;
    if parts.next().is_some() {
        return None;
    }
    let number = |text: &str, most: u8| u8::from_str_radix(text, 16).ok().filter(|n| *n <= most);
    let (bus, device, function) = (number(bus, 255)?, number(device, 31)?, number(function, 7)?);
    Some((domain, Function { bus, device, function, title: title.to_owned(), regions: Vec::new(), bytes: Vec::new() }))
}

/// `Region 0: Memory at 10400000 (32-bit, non-prefetchable) [disabled] [size=128K]`, `Expansion ROM at …`.
fn region(line: &str) -> Option<Region> {
    let size = line.split_once("[size=").and_then(|(_, rest)| size(rest.split_once(']')?.0));
    if line.starts_with("Expansion ROM at") {
        return Some(Region { register: 0x30, space: 2, prefetchable: false, size });
    }
    let (number, rest) = line.strip_prefix("Region ")?.split_once(": ")?;
    let register = 0x10 + 4 * number.parse::<u32>().ok().filter(|number| *number < 6)?;
    let space = match rest {
        _ if rest.starts_with("I/O ports at") => 1,
        _ if rest.contains("(64-bit") => 3,
        _ if rest.starts_with("Memory at") => 2,
        _ => return None,
    };
    let prefetchable = rest.contains(" prefetchable)");
    Some(Region { register, space, prefetchable, size })
}

/// `128K`
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// `10: 00 00 40 10 …`: offset and 16 bytes; `None` for the bytes where they are not that.
fn row(line: &str) -> Option<(usize, Option<[u8; 16]>)> {
    let (offset, bytes) = line.split_once(':')?;
    let is_row = (2..=3).contains(&offset.len()) && (bytes.is_empty() || bytes.starts_with(' '));
    let offset = usize::from_str_radix(offset, 16).ok().filter(|_| is_row)?;
    let byte = |text: &str| u8::from_str_radix(text, 16).ok().filter(|_| text.len() == 2);
    let bytes: Option<Vec<u8>> = bytes.split_whitespace().map(byte).collect();
    Some((offset, bytes.and_then(|bytes| bytes.try_into().ok())))
}
