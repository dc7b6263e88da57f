//! One function or bridge from its node (IEEE 1275 PCI bus binding): place, identity, base address registers.

use super::model::{BarSpec, PciFunction, Space};
use crate::cells::{self, Reg, is_pci};
use cofferdam_dts::{Node, Property};
use cofferdam_plan::Bdf;
use cofferdam_plan::pci::BARS;

/// Configuration space offset of the first base address register.
pub(super) const FIRST_BAR: u32 = 0x10;
/// Property of a virtual function's node: a reference to the physical function it belongs to.
pub const PHYSICAL: &str = "cofferdam,physical-function";
/// Number of the expansion ROM's base address register in [`PciFunction::bars`].
pub const ROM: usize = BARS - 1;
/// Registers of a function before the ROM's, and those of a bridge.
const FUNCTION_BARS: usize = 6;
const BRIDGE_BARS: usize = 2;

/// Fields of the first cell of a PCI address (IEEE 1275 PCI, 2.2.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Phys(pub(super) u32);

impl Phys {
    /// Kind of address space; `None` for configuration space.
    pub(super) fn space(self) -> Option<Space> {
        match self.0 >> 24 & 3 {
            1 => Some(Space::Io),
            2 => Some(Space::Memory32),
            3 => Some(Space::Memory64),
            _ => None,
        }
    }
    pub(super) fn prefetchable(self) -> bool {
        self.0 & 1 << 30 != 0
    }
    pub(super) fn bdf(self) -> Bdf {
        Bdf((self.0 >> 8) as u16)
    }
    /// Register number: an offset in configuration space.
    pub(super) fn register(self) -> u32 {
        self.0 & 0xFF
    }
}

/// Number of the base address register at configuration space offset `register`.
pub(super) fn bar_number(register: u32, bridge: bool) -> Option<usize> {
    let (count, rom) = if bridge { (BRIDGE_BARS, 0x38) } else { (FUNCTION_BARS, 0x30) };
    if register == rom {
        return Some(ROM);
    }
    let number = register.checked_sub(FIRST_BAR).filter(|offset| offset % 4 == 0)? as usize / 4;
    (number < count).then_some(number)
}

/// The base address register a `reg` entry describes, with its number.
pub(super) fn bar(reg: &Reg, bridge: bool) -> Option<(usize, BarSpec)> {
    let phys = Phys(reg.address.space);
    let number = bar_number(phys.register(), bridge)?;
    let space = phys.space()?;
    Some((number, BarSpec { space, prefetchable: phys.prefetchable(), size: reg.size, span: reg.span }))
}

/// A number of at most `bits` bits; 0 where there is none.
fn number(node: Node<'_>, name: &str, bits: u32) -> u32 {
    let value = node.property(name).and_then(Property::number).filter(|value| value >> bits == 0);
    value.unwrap_or(0) as u32
}

/// Buses of a bridge.
pub(super) fn buses(node: Node<'_>) -> Option<(u8, u8)> {
    let mut cells = node.property("bus-range")?.cells()?;
    let (first, last) = (cells.next()?.value, cells.next()?.value);
    Some((u8::try_from(first).ok()?, u8::try_from(last).ok()?))
}

/// Reads the node of a function or bridge. What is not said, or cannot be, is 0 or `None`: `check` reports it.
pub(super) fn read(node: Node<'_>, above: Option<usize>) -> Option<PciFunction<'_>> {
    let mut regs = cells::reg(node);
    let bdf = Phys(regs.next()?.address.space).bdf();
    let is_bridge = is_pci(node);
    let mut bars = [None; BARS];
    for (number, spec) in regs.filter_map(|reg| bar(&reg, is_bridge)) {
        if let Some(slot) = bars.get_mut(number)
            && slot.is_none()
        {
            *slot = Some(spec);
        }
    }
    Some(PciFunction {
        node,
        name: node.labels().next().unwrap_or(node.name()),
        bdf,
        above,
        bridge: buses(node).filter(|_| is_bridge),
        id: number(node, "device-id", 16) << 16 | number(node, "vendor-id", 16),
        class: number(node, "class-code", 24) << 8 | number(node, "revision-id", 8),
        subsystem: number(node, "subsystem-id", 16) << 16 | number(node, "subsystem-vendor-id", 16),
        pin: node.property("interrupts").and_then(Property::number).filter(|pin| *pin <= 4).unwrap_or(0) as u8,
        bars,
        stream: None,
        device_id: None,
    })
}
