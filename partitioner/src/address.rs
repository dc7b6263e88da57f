//! From a `reg` entry to what the CPU sees: a physical range, or I/O ports.
//!
//! One walk through every `ranges` up to the root. It reports nothing; it says where the way ends, so that the caller can
//! name both the device and the bus.

use crate::cells::{BusAddress, Reg, is_isa, is_pci, windows};
use cofferdam_dts::Node;
use cofferdam_plan::{Pa, PaRegion};

/// Largest physical address size of the architecture without FEAT_LPA, in bits (DDI 0487, D8.1.6).
pub const PA_BITS: u32 = 48;

/// Where a `reg` entry lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Located {
    /// Physical memory space.
    Memory(PaRegion),
    /// I/O ports, from the first.
    Ports {
        /// First port.
        first: u64,
        /// How many.
        count: u64,
    },
}

/// Why a `reg` entry has no place in the CPU's address space.
#[derive(Clone, Copy, Debug)]
pub enum Lost<'a> {
    /// This bus does not pass it on.
    At(Node<'a>),
    /// It ends beyond every physical address.
    Beyond,
}

/// Finds the place of one `reg` entry of `node`.
///
/// # Errors
/// The bus that does not pass it on, or that it ends beyond [`PA_BITS`].
pub fn locate<'a>(node: Node<'a>, reg: &Reg) -> Result<Located, Lost<'a>> {
    let bus = node.parent().ok_or(Lost::At(node))?;
    let at = reg.address;
    if is_isa(bus) && at.space & 1 == 1 {
        return Ok(Located::Ports { first: at.low, count: reg.size });
    }
    // `reg` of a PCI function says which registers there are, not where (IEEE 1275 PCI, 4.1.1).
    if is_pci(bus) {
        return Err(Lost::At(bus));
    }
    from_bus(bus, at, reg.size)
}

/// Finds the place of `size` bytes from `at`, an address on `bus`.
///
/// # Errors
/// As [`locate`].
pub fn from_bus(mut bus: Node<'_>, mut at: BusAddress, size: u64) -> Result<Located, Lost<'_>> {
    while let Some(parent) = bus.parent() {
        let ranges = bus.property("ranges").ok_or(Lost::At(bus))?;
        if !ranges.is_empty() {
            at = through(bus, at, size).ok_or(Lost::At(bus))?;
        }
        bus = parent;
    }
    match PaRegion::new(Pa(at.low), size) {
        Some(region) if region.end().0 <= 1 << PA_BITS => Ok(Located::Memory(region)),
        _ => Err(Lost::Beyond),
    }
}

/// The address behind the window of `bus` that holds all of `size` bytes from `at`.
fn through(bus: Node<'_>, at: BusAddress, size: u64) -> Option<BusAddress> {
    windows(bus, "ranges").find_map(|window| {
        let same = if is_pci(bus) { 0x0300_0000 } else { u32::MAX };
        let offset = at.low.checked_sub(window.child.low)?;
        let fits = offset < window.size && size <= window.size - offset;
        let here = (at.space ^ window.child.space) & same == 0 && fits;
        here.then(|| BusAddress { space: window.parent.space, low: window.parent.low.wrapping_add(offset) })
    })
}

/// The physical ranges of `node`, those that have one.
pub fn memory<'a>(node: Node<'a>) -> impl Iterator<Item = (PaRegion, Reg)> + 'a {
    crate::cells::reg(node).filter_map(move |reg| match locate(node, &reg) {
        Ok(Located::Memory(region)) => Some((region, reg)),
        _ => None,
    })
}
