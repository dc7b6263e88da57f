//! Buses: cell counts, windows, interrupt maps, PCI hosts.

use crate::address;
use crate::cells::{self, address_cells, count, is_live, is_pci, size_cells, target};
use crate::codes;
use cofferdam_dts::{Arg, Cell, Code, Diagnostic, Diagnostics, Node, Property, Span, Tree};

/// Most cells any binding uses for one address or size.
const MOST_CELLS: u64 = 4;
/// Most cells of an address outside PCI: 64 bits.
const MOST_PLAIN_CELLS: u64 = 2;

/// `#address-cells` and `#size-cells` are small numbers.
pub(super) fn cells<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    for name in ["#address-cells", "#size-cells"] {
        let Some(property) = node.property(name) else { continue };
        let most = if is_pci(node) { MOST_CELLS } else { MOST_PLAIN_CELLS };
        let one_cell = property.cells().is_some_and(|cells| cells.count() == 1);
        let number = property.number().filter(|_| one_cell);
        // Buses with addresses of their own kind (I3C, chip selects) have no `ranges` to the CPU.
        let own_kind = node.property("ranges").is_none() && node.parent().is_some();
        if number.is_none_or(|n| n > if own_kind { MOST_CELLS } else { most }) {
            let d = Diagnostic::new(
                codes::TOO_MANY_CELLS,
                property.value_span(),
                "`{1}` of {0} must be one cell, 0 to {2}",
            );
            let d = d.args(&[Arg::Node(node), Arg::Text(name), Arg::Number(most)]);
            diagnostics.push(d.help("64 bits take two cells"));
        }
    }
}

/// `ranges` and `dma-ranges`: whole entries, or empty between buses of the same cells.
pub(super) fn ranges<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let Some(parent) = node.parent() else { return };
    for name in ["ranges", "dma-ranges"] {
        let Some(property) = node.property(name) else { continue };
        let [c, p, s] = [address_cells(node), address_cells(parent), size_cells(node)];
        let args = |node| {
            [Arg::Node(node), Arg::Text(name), Arg::Number(c as u64), Arg::Number(p as u64), Arg::Number(s as u64)]
        };
        if property.is_empty() {
            if c != p || s != size_cells(parent) {
                let message = "`{1}` of {0} is empty, but addresses have {2} cells below and {3} above it";
                let d = Diagnostic::new(codes::RANGES_LENGTH, property.span(), message).args(&args(node));
                diagnostics.push(d.help("write the entries out: <child parent size>"));
            }
            continue;
        }
        let width = c.saturating_add(p).saturating_add(s);
        if property.cells().is_none_or(|cells| width == 0 || cells.count() % width != 0) {
            let message = "`{1}` of {0} is not whole entries of {2} child, {3} parent and {4} size cells";
            let d = Diagnostic::new(codes::RANGES_LENGTH, property.value_span(), message).args(&args(node));
            diagnostics.push(d.help("write <child parent size>, each in as many cells"));
        }
    }
}

/// `interrupt-map` and its mask.
pub(super) fn interrupt_map<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let Some(map) = node.property("interrupt-map") else { return };
    let key = count(node, "#address-cells", 0).saturating_add(count(node, "#interrupt-cells", 0));
    if let Some(mask) = node.property("interrupt-map-mask") {
        let len = mask.cells().map(Iterator::count);
        if len != Some(key) {
            let message = "`interrupt-map-mask` of {0} must have {1} cells: those of an address and of an interrupt";
            let d = Diagnostic::new(codes::BAD_INTERRUPT_MASK, mask.value_span(), message);
            diagnostics.push(d.args(&[Arg::Node(node), Arg::Number(key as u64)]).help("for PCI: <0x1800 0 0 7>"));
        }
    }
    ambiguous(node, map, key, diagnostics);
    let mut row = map.cells().into_iter().flatten();
    let bad = |span, message| {
        let d = Diagnostic::new(codes::BAD_INTERRUPT_MAP, span, message).args(&[Arg::Node(node)]);
        d.help("a row is: child address, child interrupt, <&controller>, its address cells, its interrupt cells")
    };
    if map.cells().is_none() || key == 0 {
        diagnostics.push(bad(map.span(), "{0} has an `interrupt-map`, but no #address-cells and #interrupt-cells"));
        return;
    }
    loop {
        let taken = row.by_ref().take(key).count();
        if taken == 0 {
            return;
        }
        let Some(cell) = row.next().filter(|_| taken == key) else {
            diagnostics.push(bad(map.value_span(), "the last row of `interrupt-map` of {0} is too short"));
            return;
        };
        let Some(controller) = target(node.tree(), &cell) else {
            diagnostics
                .push(bad(cell.span, "`interrupt-map` of {0} has no interrupt controller where one must be named"));
            return;
        };
        let width = count(controller, "#interrupt-cells", 0);
        if width == 0 {
            diagnostics.push(bad(cell.span, "`interrupt-map` of {0} names a node that is no interrupt controller"));
            return;
        }
        let rest = count(controller, "#address-cells", 0).saturating_add(width);
        if row.by_ref().take(rest).count() != rest {
            diagnostics.push(bad(map.value_span(), "the last row of `interrupt-map` of {0} is too short"));
            return;
        }
    }
}

/// Rows of an `interrupt-map` that mean the same child once masked: only the first would ever be found.
fn ambiguous<'a>(node: Node<'a>, map: Property<'a>, key: usize, diagnostics: &mut Diagnostics<'_, 'a>) {
    let Some(mask) = node.property("interrupt-map-mask").and_then(Property::cells) else { return };
    if mask.clone().count() != key {
        return;
    }
    let mut seen: heapless::Vec<(heapless::Vec<u64, 8>, Span), 64> = heapless::Vec::new();
    let mut row = map.cells().into_iter().flatten();
    loop {
        let first: heapless::Vec<Cell, 8> = row.by_ref().take(key.min(8)).collect();
        let (Some(start), Some(controller)) = (first.first(), row.next().and_then(|c| target(node.tree(), &c))) else {
            return;
        };
        let masked: heapless::Vec<u64, 8> = first.iter().zip(mask.clone()).map(|(c, m)| c.value & m.value).collect();
        if let Some((_, span)) = seen.iter().find(|(other, _)| *other == masked) {
            let message = "two rows of the `interrupt-map` of {0} are the same child behind its mask";
            let d = Diagnostic::new(codes::BAD_INTERRUPT_MASK, start.span, message).args(&[Arg::Node(node)]);
            diagnostics
                .push(d.also(*span, "this row is found first").help("widen the mask, or take one of the two out"));
            return;
        }
        // More rows than fit are not compared: the check is a service, nothing relies on it.
        let _ = seen.push((masked, start.span));
        let rest = count(controller, "#address-cells", 0).saturating_add(count(controller, "#interrupt-cells", 0));
        row.by_ref().take(rest).for_each(drop);
    }
}

/// PCI functions described below a bridge: the first `reg` entry is configuration space and names device and function.
pub(super) fn function<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    if !node.parent().is_some_and(is_pci) {
        return;
    }
    let (Some(unit), Some(reg)) = (node.unit_address(), cells::reg(node).next()) else { return };
    let (device, function) = unit.split_once(',').unwrap_or((unit, "0"));
    let number = |text: &str, most: u32| u32::from_str_radix(text, 16).ok().filter(|n| *n <= most);
    let named = number(device, 31).zip(number(function, 7));
    let described = (reg.address.space >> 11 & 31, reg.address.space >> 8 & 7);
    // Space code and register number are zero, and so are address and size (IEEE 1275 PCI, 2.2.1.1 and 4.1.1).
    let plain = reg.address.space & 0x0300_00FF == 0 && reg.address.low == 0 && reg.size == 0;
    if !plain || named != Some(described) {
        let message = "the first `reg` entry of {0} must be its place in configuration space, as its name says";
        let d = Diagnostic::new(codes::PCI_FUNCTION, reg.span, message).args(&[Arg::Node(node)]);
        let help = "for device d, function f: name@d,f with reg = <(d << 11 | f << 8) 0 0 0 0>";
        diagnostics.push(d.also(node.span(), "{0} is here").help(help));
    }
}

/// What a host bridge whose cells are wrong brings about: of every function behind it, `reg` is read at the wrong places.
const MISREAD: &[Code] = &[
    codes::REG_LENGTH,
    codes::RANGES_LENGTH,
    codes::UNIT_ADDRESS,
    codes::DUPLICATE_UNIT_ADDRESS,
    codes::UNTRANSLATABLE,
    codes::BAD_INTERRUPT_MAP,
    codes::BAD_INTERRUPT_MASK,
    codes::PCI_BRIDGE,
    codes::PCI_FUNCTION,
    codes::PCI_BUS,
    codes::BDF_TWICE,
    codes::NO_FUNCTION_ZERO,
    codes::DEVICE_SPLIT,
    codes::BUS_NUMBERS,
    codes::BAR_SHAPE,
    codes::BAR_TWICE,
    codes::BAR_WIDTH,
    codes::CAPABILITIES,
    codes::NO_IOMMU,
    codes::STREAM_TWICE,
    codes::DEVICE_ID_TWICE,
    codes::NOT_A_DEVICE,
];

/// PCI host bridges: cells, windows, buses, domain numbers.
pub(super) fn hosts<'a>(tree: Tree<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let is_host = |node: &Node<'a>| is_live(*node) && is_pci(*node) && !node.parent().is_some_and(is_pci);
    for (index, node) in tree.nodes().filter(is_host).enumerate() {
        let shape = [("#address-cells", 3), ("#size-cells", 2)];
        let wrong = shape.iter().find(|(name, cells)| count(node, name, 0) != *cells);
        if let Some((name, cells)) = wrong {
            let span = node.property(name).map_or(node.span(), Property::value_span);
            let d = Diagnostic::new(codes::PCI_BRIDGE, span, "the PCI host bridge {0} must have {1} = <{2}>");
            let d = d.args(&[Arg::Node(node), Arg::Text(name), Arg::Number(*cells as u64)]);
            diagnostics.push(d.help("PCI addresses take three cells, sizes two (IEEE 1275)"));
            diagnostics.mute(MISREAD);
        } else if node.property("ranges").is_none() {
            let d = Diagnostic::new(
                codes::PCI_BRIDGE,
                node.span(),
                "the PCI host bridge {0} has no `ranges`: no window to its bus",
            );
            diagnostics.push(d.args(&[Arg::Node(node)]).help("describe its windows, or disable it"));
        }
        buses(node, diagnostics);
        // With other cells than a PCI bus has, there are no windows to be read.
        for entry in cells::windows(node, "ranges").filter(|_| wrong.is_none()) {
            let place = node.parent().map(|bus| address::from_bus(bus, entry.parent, entry.size));
            if let Some(Err(address::Lost::Beyond)) = place {
                let message = "a window of {0}, {1} bytes from {2}, ends beyond {3}-bit physical addresses";
                let d = Diagnostic::new(codes::BEYOND_ADDRESSES, entry.span, message);
                let [size, base] = [Arg::Hex(entry.size), Arg::Hex(entry.parent.low)];
                let d = d.args(&[Arg::Node(node), size, base, Arg::Number(address::PA_BITS.into())]);
                diagnostics.push(d.help("an entry is: three cells on the bus, the CPU's address, two cells of size"));
            }
        }
        let others = || tree.nodes().filter(is_host).take(index);
        let is_ecam = |node: Node<'a>| node.is_compatible("pci-host-ecam-generic");
        let met = address::memory(node).find_map(|(region, reg)| {
            let meets = |n: &Node<'a>| {
                (is_ecam(node) || is_ecam(*n)) && address::memory(*n).any(|(other, _)| other.overlaps(&region))
            };
            others().find(meets).map(|twin| (region, reg.span, twin))
        });
        if let Some((region, span, twin)) = met {
            let message = "the configuration space of {0}, {2}, overlaps that of {1}: one place would be two functions";
            let args = [Arg::Node(node), Arg::Node(twin), Arg::Range(region.base.0, region.size)];
            let d =
                Diagnostic::new(codes::PCI_DOMAIN_TWICE, span, message).args(&args).also(twin.span(), "{1} is here");
            diagnostics.push(d.help("check `reg` of both; disable the one that is not there"));
        }
        let number = |n: Node<'a>| n.property("linux,pci-domain").and_then(Property::number);
        let Some(mine) = number(node) else { continue };
        if let Some(twin) = others().find(|n| number(*n) == Some(mine)) {
            let span = node.property("linux,pci-domain").map_or(node.span(), Property::value_span);
            let d = Diagnostic::new(codes::PCI_DOMAIN_TWICE, span, "{0} and {1} both are PCI domain {2}");
            let d = d.args(&[Arg::Node(node), Arg::Node(twin), Arg::Number(mine)]).also(twin.span(), "{1} is here");
            diagnostics.push(d.help("give each host bridge a number of its own"));
        }
    }
}

/// `bus-range`, and configuration space large enough for it: 1 MiB a bus with ECAM (PCIe 5.0, 7.2.2).
fn buses<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let Some(range) = node.property("bus-range") else { return };
    let mut cells = range.cells().into_iter().flatten().map(|cell| cell.value);
    let (Some(low), Some(high), None) = (cells.next(), cells.next(), cells.next()) else {
        let d = Diagnostic::new(
            codes::BUS_RANGE,
            range.value_span(),
            "`bus-range` of {0} must be two cells: first and last bus",
        );
        diagnostics.push(d.args(&[Arg::Node(node)]).help("for all buses: <0 0xff>"));
        return;
    };
    let args = [Arg::Node(node), Arg::Number(low), Arg::Number(high)];
    if low > high || high > 255 {
        let d = Diagnostic::new(
            codes::BUS_RANGE,
            range.value_span(),
            "`bus-range` of {0} goes from {1} to {2}: buses are 0 to 255",
        );
        diagnostics.push(d.args(&args).help("for all buses: <0 0xff>"));
        return;
    }
    let needed = (high - low + 1) << 20;
    let Some(reg) = cells::reg(node).next().filter(|reg| reg.size < needed) else { return };
    if node.is_compatible("pci-host-ecam-generic") {
        let message = "{0} has buses {1} to {2}, which need {3} of configuration space; it has {4}";
        let d = Diagnostic::new(codes::BUS_RANGE, reg.span, message);
        let d = d.args(&[args[0], args[1], args[2], Arg::Bytes(needed), Arg::Bytes(reg.size)]);
        diagnostics.push(d.also(range.value_span(), "the buses").help("1 MiB for each bus"));
    }
}
