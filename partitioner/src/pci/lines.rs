//! Interrupts of PCI functions: the line a pin ends on, the interrupts that messages raise, and which of the two it is.

use super::capability::Kind;
use super::model::{Mode, PciFunction, PciHost};
use crate::cells::{MAX_ENTRY, count, span_of, target};
use crate::interrupts::{self, Line, Trigger};
use crate::model::{Board, Domain};
use crate::resolve::MAINTENANCE;
use crate::resolve::lines::IntSet;
use cofferdam_dts::{Cell, Span};
use cofferdam_plan::{Bdf, IntId};

/// The interrupt that the pin of a function ends on: a level, as every pin is. `None` without a pin, or where it leads to none.
pub fn pin(board: &Board<'_>, host: &PciHost<'_>, index: usize) -> Option<IntId> {
    match route(board, host, index)? {
        (Line::Shared(intid, Trigger::Level), _) => Some(intid),
        _ => None,
    }
}

/// Follows the pin of a function through the bridges above it, each of which turns it by the device number (PCI-to-PCI Bridge 1.2,
/// 9.1): what the host bridge sees, with the pin from 0 on.
pub(super) fn at_host(host: &PciHost<'_>, index: usize) -> Option<(Bdf, u32)> {
    let function = host.functions.get(index).filter(|function| function.pin != 0)?;
    let (mut bdf, mut pin) = (function.bdf, u32::from(function.pin) - 1);
    for bridge in host.bridges_above(index) {
        pin = (pin + u32::from(bdf.0 >> 3 & 0x1F)) % 4;
        bdf = host.functions.get(bridge)?.bdf;
    }
    Some((bdf, pin))
}

/// What the row of `interrupt-map` says that the pin of a function comes to, and the row's place.
pub(crate) fn route(board: &Board<'_>, host: &PciHost<'_>, index: usize) -> Option<(Line, Span)> {
    let (bdf, pin) = at_host(host, index)?;
    let node = host.node;
    let mask: heapless::Vec<u64, 4> = match node.property("interrupt-map-mask").and_then(|mask| mask.cells()) {
        Some(cells) => cells.take(4).map(|cell| cell.value).collect(),
        None => heapless::Vec::from_slice(&[u64::from(u32::MAX); 4]).ok()?,
    };
    let asked = [u64::from(bdf.0) << 8, 0, 0, u64::from(pin) + 1];
    let mut row = heapless::Vec::<Cell, { 2 * MAX_ENTRY }>::new();
    let mut cells = node.property("interrupt-map")?.cells()?;
    loop {
        row.clear();
        let child: heapless::Vec<Cell, 4> = cells.by_ref().take(4).collect();
        let reference = cells.next()?;
        let parent = target(node.tree(), &reference)?;
        let before = count(parent, "#address-cells", 0);
        row.extend(cells.by_ref().skip(before).take(count(parent, "#interrupt-cells", 0)));
        let hit = child.iter().zip(&mask).zip(asked).all(|((cell, mask), asked)| cell.value & mask == asked & mask);
        if hit {
            board.gic.filter(|gic| gic.node == parent)?;
            return Some((interrupts::gic(&row), span_of(&row)));
        }
    }
}

/// What keeps a function from sending messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Silence {
    /// It has neither MSI nor MSI-X.
    None,
    /// Beside a GICv2 nobody brings them.
    Controller,
    /// Beside a GICv3 without the maintenance interrupt neither.
    Maintenance,
    /// `msi-map` has no row for it that leads to an ITS.
    Map,
    /// There is an SMMU, and `iommu-map` has no row for it.
    Stream,
    /// It could, but its domain says `delivery = "direct"`.
    Direct,
}

/// What keeps a function from sending messages, the first of what is to be mended.
pub(super) fn silence(board: &Board<'_>, host: &PciHost<'_>, function: &PciFunction<'_>) -> Silence {
    if function.vectors().is_none() {
        Silence::None
    } else if board.gic.is_none_or(|gic| gic.is_v2()) {
        Silence::Controller
    } else if board.gic.is_some_and(|gic| gic.maintenance != Some(MAINTENANCE)) {
        Silence::Maintenance
    } else if host.its.is_none() || function.device_id.is_none() {
        Silence::Map
    } else if host.smmu.is_some() && function.stream.is_none() {
        Silence::Stream
    } else {
        Silence::Direct
    }
}

/// Whether messages of a function can be told from others' and brought to a guest: it sends any, they carry a DeviceID, there is a
/// GICv3 with an ITS, EL2 can inject what arrives, and an SMMU on the way knows its stream.
pub fn can_send(board: &Board<'_>, host: &PciHost<'_>, function: &PciFunction<'_>) -> bool {
    silence(board, host, function) == Silence::Direct
}

/// How a function of `domain` interrupts, where messages are brought by EL2 (`injected`) or not at all.
pub fn mode(board: &Board<'_>, host: &PciHost<'_>, domain: &Domain<'_>, index: usize, injected: bool) -> Mode {
    let Some(function) = host.functions.get(index) else { return Mode::None };
    if injected && can_send(board, host, function) {
        return Mode::Msi(messages(function, domain.cpus.len()));
    }
    pin(board, host, index).map_or(Mode::None, Mode::Intx)
}

/// Messages a function is given: as many as it can send, but no more than two for each CPU and two besides. Drivers want one queue
/// for each CPU and something for the rest.
pub fn messages(function: &PciFunction<'_>, cpus: usize) -> u16 {
    let wanted = (2 * cpus + 2) as u16;
    // Of MSIs without a table the number would have to be a power of two, and so would the first interrupt's.
    let table = function.find(|kind| if let Kind::MsiX { vectors, .. } = kind { Some(vectors) } else { None });
    table.map_or(1, |entries| entries.min(wanted))
}

/// Takes the lowest `len` interrupts in a row that nobody uses: they have no wire.
pub(crate) fn take(used: &mut IntSet, len: u32) -> Option<IntId> {
    let last = IntId::LAST_SPI.0.checked_sub(len)? + 1;
    let is_free = |first: &u32| (*first..*first + len).all(|intid| !used.contains(IntId(intid)));
    let first = (IntId::FIRST_SPI.0..=last).find(is_free)?;
    (first..first + len).for_each(|intid| used.insert(IntId(intid)));
    Some(IntId(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_free_interrupts() {
        let mut used = IntSet::default();
        used.insert(IntId(34));
        assert_eq!(take(&mut used, 3), Some(IntId(35)));
        assert_eq!(take(&mut used, 2), Some(IntId(32)));
        assert_eq!(take(&mut used, 1), Some(IntId(38)));
        assert_eq!(take(&mut used, 982), None);
        assert_eq!(take(&mut used, 981), Some(IntId(39)));
        assert_eq!(take(&mut used, 1), None);
    }
}
