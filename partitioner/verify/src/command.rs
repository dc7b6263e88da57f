//! The baked commands of the ITS, decoded as the ITS does (IHI 0069, 5.3).

use crate::work::Work;
use cofferdam_plan::pci::Its;
use cofferdam_plan::{Pa, PaRegion, va};

/// Bytes of a command.
pub(crate) const COMMAND: u64 = 32;
/// 51:12 of a register.
pub(crate) const PAGE_ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// Bit 63 of registers and commands.
pub(crate) const VALID: u64 = 1 << 63;

/// The command queue: CBASER's PA and its size in pages, less one (7:0).
pub(crate) fn queue(its: &Its) -> PaRegion {
    let pages = if its.command_base == 0 { 0 } else { (its.command_base & 0xFF) + 1 };
    PaRegion { base: Pa(its.command_base & PAGE_ADDRESS), size: pages * va::PAGE }
}

/// Bytes of the blob at a physical address.
pub(crate) fn baked<'a>(work: &Work<'a, '_>, region: PaRegion) -> Option<&'a [u8]> {
    let from = usize::try_from(region.base.0.checked_sub(work.blob_pa())?).ok()?;
    let to = from.checked_add(usize::try_from(region.size).ok()?)?;
    work.plan.bytes.get(from..to)
}

/// A decoded command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// Collection → redistributor.
    MapCollection { collection: u32, target: u64 },
    /// DeviceID → translation table of that many bits of EventID.
    MapDevice { device: u32, bits: u32, table: u64 },
    /// DeviceID, EventID → LPI, collection.
    MapEvent { device: u32, event: u32, lpi: u32, collection: u32 },
    /// Reload of a collection's properties.
    Invalidate { collection: u32 },
    /// Wait for a redistributor.
    Sync { target: u64 },
    /// Anything else, or bits set that the command does not have.
    Other,
}

/// One command (IHI 0069, 5.3). Reserved bits count as unknown.
fn decode(words: [u64; 4]) -> Command {
    let [first, second, third, fourth] = words;
    let (number, device) = (first as u8, (first >> 32) as u32);
    let collection = third as u32 & 0xFFFF;
    let target = third & 0x7_FFFF_FFFF_0000;
    let none = first >> 8 == 0;
    let only_target = none && second == 0 && third & !0x7_FFFF_FFFF_0000 == 0;
    let known = fourth == 0 && first >> 8 & 0xFF_FFFF == 0;
    match number {
        0x05 if known && only_target => Command::Sync { target },
        0x08 if known && second & !0x1F == 0 && third >> 63 == 1 && third & !(VALID | 0x000F_FFFF_FFFF_FF00) == 0 => {
            Command::MapDevice { device, bits: second as u32 + 1, table: third & 0x000F_FFFF_FFFF_FF00 }
        }
        0x09 if known && none && second == 0 && third >> 51 == 1 << 12 => Command::MapCollection { collection, target },
        0x0A if known && third >> 16 == 0 => {
            Command::MapEvent { device, event: second as u32, lpi: (second >> 32) as u32, collection }
        }
        0x0D if known && none && second == 0 && third >> 16 == 0 => Command::Invalidate { collection },
        _ => Command::Other,
    }
}

/// The commands the ITS executes.
pub(crate) fn commands<'a>(work: &Work<'a, '_>, its: &Its) -> impl Iterator<Item = Command> + Clone + use<'a> {
    let all = queue(its);
    let bytes = baked(work, PaRegion { base: all.base, size: its.command_end.min(all.size) }).unwrap_or(&[]);
    bytes.chunks_exact(COMMAND as usize).map(|command| {
        let word =
            |i: usize| command.get(i * 8..i * 8 + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        decode([word(0), word(1), word(2), word(3)])
    })
}
