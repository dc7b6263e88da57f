//! What `lspci -vvnn -xxxx` prints, as far as it is needed: the bytes of configuration space, and the sizes of base address
//! registers, which no byte tells.

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
    /// Interrupt pin, 0 without.
    pub(super) fn pin(&self) -> u8 {
        self.byte(0x3D)
    }
    /// Whether bytes behind the header were readable.
    pub(super) fn is_whole(&self) -> bool {
        self.bytes.len() >= 256
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

/// Reads lspci's output.
///
/// # Errors
/// What is missing, and which options bring it.
pub(super) fn read(text: &str) -> Result<Vec<Function>, String> {
    let mut list: Vec<Function> = Vec::new();
    for line in text.lines() {
        if let Some(function) = heading(line) {
            list.push(function);
        }
        let Some(last) = list.last_mut() else { continue };
        if let Some(region) = line.strip_prefix('\t').and_then(region) {
            last.regions.push(region);
        } else if let Some((offset, bytes)) = dump(line)
            && offset == last.bytes.len()
        {
            last.bytes.extend(bytes);
        }
    }
    match list.iter().find(|function| function.bytes.len() < 64) {
        _ if list.is_empty() => Err("no function: this is not what `lspci -vvnn -xxxx` prints".to_owned()),
        Some(f) => {
            let at = format!("{:02x}:{:02x}.{}", f.bus, f.device, f.function);
            Err(format!("{at} has no bytes of configuration space: run lspci with -xxxx"))
        }
        None => {
            list.sort_by_key(|f| (f.bus, f.device, f.function));
            Ok(list)
        }
    }
}

/// `[0000:]00:02.0 Ethernet controller [0200]: …`
fn heading(line: &str) -> Option<Function> {
    let (place, title) = line.split_once(' ')?;
    let (rest, function) = place.rsplit_once('.')?;
    let mut parts = rest.rsplit(':');
    let (device, bus) = (parts.next()?, parts.next()?);
    // Of several PCI domains the first one's functions are the board's; the others have a host bridge of their own.
    if parts.next().is_some_and(|domain| u32::from_str_radix(domain, 16) != Ok(0)) || parts.next().is_some() {
        return None;
    }
    let number = |text: &str, most: u8| u8::from_str_radix(text, 16).ok().filter(|n| *n <= most);
    let (bus, device, function) = (number(bus, 255)?, number(device, 31)?, number(function, 7)?);
    Some(Function { bus, device, function, title: title.to_owned(), regions: Vec::new(), bytes: Vec::new() })
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

/// `10: 00 00 40 10 …`: offset and 16 bytes.
fn dump(line: &str) -> Option<(usize, Vec<u8>)> {
    let (offset, bytes) = line.split_once(": ")?;
    let offset = usize::from_str_radix(offset, 16).ok()?;
    let bytes: Option<Vec<u8>> = bytes.split(' ').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    Some((offset, bytes.filter(|bytes| bytes.len() == 16)?))
}
