//! Places base address registers in the windows of the host bridge, and what bridges must let through.
//!
//! Only what is somebody's gets a place, and bridges' own registers, because a bridge decodes memory. Each starts at a multiple of
//! its size, on pages no other has. Below 4 GiB as long as that goes; only what does not fit there goes to the windows above, so
//! that guest address spaces stay small. The largest first, then by function and register: the same board gives the same places.

use super::function::ROM;
use super::model::{BarSpec, PciHost, Space};
use crate::resolve::PAGE;
use crate::resolve::util::up;
use cofferdam_plan::limits::MAX_FUNCTIONS;
use cofferdam_plan::pci::BARS;
use heapless::Vec;

/// Granularity of a bridge's windows (PCI Express Base 5.0, 7.5.1.3.8).
const BRIDGE_UNIT: u64 = 1 << 20;
const FOUR_GIB: u64 = 1 << 32;
/// Registers and, of each bridge, two windows.
const ITEMS: usize = MAX_FUNCTIONS * BARS;

/// Where everything is.
pub struct Places {
    /// Bus addresses by function and register; 0: none.
    pub bars: Vec<[u64; BARS], MAX_FUNCTIONS>,
    /// Dwords 6 to 10 of bridges, by function.
    pub bridges: Vec<[u32; 5], MAX_FUNCTIONS>,
}

/// A register for which there is no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom {
    /// Index of the function or, where what is behind it does not fit, of the bridge.
    pub function: usize,
    /// The register; `None` for a bridge's window.
    pub bar: Option<usize>,
    /// Bytes.
    pub size: u64,
}

/// Something that takes addresses on a bus.
#[derive(Clone, Copy, Debug)]
struct Item {
    function: usize,
    /// The register; `None` for the window of a bridge.
    bar: Option<usize>,
    /// The bridge it is behind.
    above: Option<usize>,
    /// Above 4 GiB: of a bridge, its prefetchable window.
    high: bool,
    prefetchable: bool,
    size: u64,
    align: u64,
    /// From the start of the window it is in, then the address.
    at: u64,
}

/// Places the registers of functions for which `is_owned` holds.
///
/// # Errors
/// The first that does not fit.
pub fn place(host: &PciHost<'_>, is_owned: &dyn Fn(usize) -> bool) -> Result<Places, NoRoom> {
    try_place(host, is_owned, false).or_else(|_| try_place(host, is_owned, true))
}

fn try_place(host: &PciHost<'_>, is_owned: &dyn Fn(usize) -> bool, use_high: bool) -> Result<Places, NoRoom> {
    let mut items = Vec::<Item, ITEMS>::new();
    for (index, function) in host.functions.iter().enumerate() {
        if !is_owned(index) && function.bridge.is_none() {
            continue;
        }
        for (bar, spec) in function.bars.iter().enumerate().filter(|(bar, _)| *bar != ROM) {
            let Some(spec) = spec.filter(is_memory) else { continue };
            // A bridge on the way passes 64-bit addresses on by its prefetchable window alone.
            let may = spec.space == Space::Memory64 && (function.above.is_none() || spec.prefetchable);
            let size = spec.size.max(PAGE);
            let item = Item {
                function: index,
                bar: Some(bar),
                above: function.above,
                high: use_high && may,
                prefetchable: spec.prefetchable,
                size,
                align: size,
                at: 0,
            };
            items.push(item).map_err(|_| NoRoom { function: index, bar: Some(bar), size })?;
        }
    }
    let depth = |index: usize| host.bridges_above(index).count();
    let deepest = (0..host.functions.len()).map(depth).max().unwrap_or(0);
    // From the inside out: how large each bridge's windows are.
    for level in (0..=deepest).rev() {
        for (index, function) in host.functions.iter().enumerate() {
            if function.bridge.is_none() || depth(index) != level {
                continue;
            }
            for high in [false, true] {
                let Some((size, align)) = pack(&mut items, Some(index), high) else { continue };
                let size = up(size, BRIDGE_UNIT);
                // Both ends of a prefetchable window have one upper half: it lies across no 4 GiB line.
                let align = if high { align.max(size.next_power_of_two()) } else { align }.max(BRIDGE_UNIT);
                let no_room = NoRoom { function: index, bar: None, size };
                if align > FOUR_GIB {
                    return Err(no_room);
                }
                let above = function.above;
                let window = Item { function: index, bar: None, above, high, prefetchable: high, size, align, at: 0 };
                items.push(window).map_err(|_| no_room)?;
            }
        }
    }
    on_root_bus(host, &mut items)?;
    // From the outside in: addresses.
    for level in 0..deepest {
        for index in (0..host.functions.len()).filter(|index| depth(*index) == level) {
            for high in [false, true] {
                let window = items.iter().find(|i| i.bar.is_none() && i.function == index && i.high == high).copied();
                let inside = items.iter_mut().filter(|i| i.above == Some(index) && i.high == high);
                inside.for_each(|item| item.at += window.map_or(0, |window| window.at));
            }
        }
    }
    Ok(places(host, &items))
}

fn is_memory(spec: &BarSpec) -> bool {
    spec.space != Space::Io && spec.size.is_power_of_two()
}

/// The order in which things are placed: the most demanding first.
fn order(item: &Item) -> (u64, u64, usize, usize) {
    (!item.align, !item.size, item.function, item.bar.unwrap_or(BARS))
}

/// Puts what is on the bus behind `bridge` one behind the other, from 0 on. Answers size and alignment; `None` where nothing is.
fn pack(items: &mut Vec<Item, ITEMS>, bridge: Option<usize>, high: bool) -> Option<(u64, u64)> {
    items.sort_unstable_by_key(order);
    let (mut end, mut align) = (0, 0);
    for item in items.iter_mut().filter(|item| item.above == bridge && item.high == high) {
        item.at = up(end, item.align);
        end = item.at.saturating_add(item.size);
        align = align.max(item.align);
    }
    (end != 0).then_some((end, align))
}

/// Places what is on the root bus in the host's windows.
fn on_root_bus(host: &PciHost<'_>, items: &mut Vec<Item, ITEMS>) -> Result<(), NoRoom> {
    items.sort_unstable_by_key(order);
    let mut next: Vec<u64, { super::model::MAX_WINDOWS }> = host.windows.iter().map(|w| w.bus.max(PAGE)).collect();
    for item in items.iter_mut().filter(|item| item.above.is_none()) {
        let found = host.windows.iter().zip(next.iter_mut()).find_map(|(window, next)| {
            // Guests are given bus addresses as guest addresses, which are physical ones.
            let fits = window.space != Space::Io
                && window.bus == window.pa.base.0
                && (item.prefetchable || !window.prefetchable)
                && (item.high || window.bus < FOUR_GIB);
            let end = window.bus.saturating_add(window.pa.size);
            let (from, limit) = if item.high { (FOUR_GIB, end) } else { (0, end.min(FOUR_GIB)) };
            let at = up((*next).max(from), item.align);
            let room = fits && at.checked_add(item.size).is_some_and(|end| end <= limit);
            room.then(|| {
                *next = at + item.size;
                at
            })
        });
        item.at = found.ok_or(NoRoom { function: item.function, bar: item.bar, size: item.size })?;
    }
    Ok(())
}

fn places(host: &PciHost<'_>, items: &[Item]) -> Places {
    let mut places = Places { bars: Vec::new(), bridges: Vec::new() };
    for (index, function) in host.functions.iter().enumerate() {
        let mut bars = [0; BARS];
        for item in items.iter().filter(|item| item.function == index) {
            if let Some(slot) = item.bar.and_then(|bar| bars.get_mut(bar)) {
                *slot = item.at;
            }
        }
        let window = |high| {
            let window = items.iter().find(|i| i.bar.is_none() && i.function == index && i.high == high);
            window.map(|window| (window.at, window.at + window.size - 1))
        };
        let bridge = function.bridge.map_or([0; 5], |(secondary, last)| {
            let primary = (function.bdf.0 >> 8) as u8;
            registers([primary, secondary, last], window(false), window(true))
        });
        // There is one for each function, and room for so many.
        let _ = places.bars.push(bars);
        let _ = places.bridges.push(bridge);
    }
    places
}

/// Dwords 6 to 10 of a bridge (PCI Express Base 5.0, 7.5.1.3): buses; I/O closed; memory; prefetchable; the upper half of that. A
/// window is first and last byte; a closed one starts above its end.
fn registers(buses: [u8; 3], memory: Option<(u64, u64)>, prefetchable: Option<(u64, u64)>) -> [u32; 5] {
    let window = |window: Option<(u64, u64)>| match window {
        Some((first, last)) => (last as u32 & 0xFFF0_0000) | (first as u32 >> 16 & 0xFFF0),
        None => 0x0000_FFF0,
    };
    let [primary, secondary, last] = buses.map(u32::from);
    let upper = prefetchable.map_or(0, |(first, _)| (first >> 32) as u32);
    [primary | secondary << 8 | last << 16, 0x0000_00F0, window(memory), window(prefetchable), upper]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridge_registers() {
        let closed = registers([0, 1, 3], None, None);
        assert_eq!(closed, [0x0003_0100, 0xF0, 0xFFF0, 0xFFF0, 0]);
        let open = registers([0, 1, 1], Some((0x1020_0000, 0x103F_FFFF)), Some((0x80_4000_0000, 0x80_400F_FFFF)));
        assert_eq!(open[2..], [0x1030_1020, 0x4000_4000, 0x80]);
    }
}
