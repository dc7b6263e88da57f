//! What the board says of functions and bridges, held against what can be: every described one, granted or not.

use super::capability::{self, EXTENDED, Kind};
use super::function::{self, Phys, ROM};
use super::model::{Capability, PciFunction, PciHost, Space};
use super::smmu;
use crate::cells::{self, count, is_pci, target};
use crate::codes;
use cofferdam_dts::{Arg, Code, Diagnostic, Diagnostics, Node, Property};
use cofferdam_plan::Bdf;
use cofferdam_plan::pci::{BARS, CONFIG_SIZE};

/// Properties of this product in a function's node.
const OWN: &[&str] = &[capability::PROPERTY];
/// Numbers that identify a function, with their bits (IEEE 1275 PCI, 4.1.2).
const IDS: [(&str, u32); 6] = [
    ("vendor-id", 16),
    ("device-id", 16),
    ("class-code", 24),
    ("revision-id", 8),
    ("subsystem-vendor-id", 16),
    ("subsystem-id", 16),
];
/// First two bytes of the class code of a PCI-to-PCI bridge.
const BRIDGE_CLASS: u32 = 0x0604;

/// Bus of a requester ID.
pub(super) const fn bus(bdf: Bdf) -> u8 {
    (bdf.0 >> 8) as u8
}

/// Checks the host bridge's maps and every function and bridge behind it.
pub(crate) fn board<'a>(host: &PciHost<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    map(host.node, "iommu-map", codes::IOMMU_MAP, diagnostics);
    map(host.node, "msi-map", codes::MSI_MAP, diagnostics);
    if let Some(smmu) = &host.smmu {
        smmu::words(smmu.node, diagnostics);
    }
    virtual_functions(host, diagnostics);
    for (index, function) in host.functions.iter().enumerate() {
        place(host, index, function, diagnostics);
        if is_pci(function.node) {
            bridge(host, index, function, diagnostics);
        } else if function.class >> 16 == BRIDGE_CLASS {
            let d = Diagnostic::new(
                codes::PCI_BRIDGE,
                function.node.span(),
                "{0} is a PCI bridge by its class code, and says no device_type = \"pci\"",
            );
            diagnostics.push(
                d.args(&[Arg::Node(function.node)])
                    .help("a bridge has device_type, its cells (3 and 2), `bus-range` and `ranges`"),
            );
        }
        bars(function, diagnostics);
        identity(function.node, diagnostics);
        pin(function.node, diagnostics);
        capabilities(function, diagnostics);
        for property in function.node.properties() {
            if property.name() == "dma" && property.string().is_some() {
                let message = "`{0}` is a word of domains: in {1} it has no effect";
                let d = Diagnostic::new(codes::UNKNOWN_WORD, property.span(), message);
                let d = d.args(&[Arg::Text(property.name()), Arg::Node(function.node)]);
                diagnostics.push(d.help("write it in the node of the domain that `access` gives the function to"));
            }
            let own = property.name().starts_with("cofferdam,");
            if own && !OWN.contains(&property.name()) {
                let d =
                    Diagnostic::new(codes::UNKNOWN_WORD, property.span(), "`{0}` is no word of a PCI function, {1}");
                let d = d.args(&[Arg::Text(property.name()), Arg::Node(function.node)]);
                diagnostics.push(
                    d.help("`cofferdam,capabilities` is one, and of a virtual function `cofferdam,physical-function`"),
                );
            }
        }
    }
}

/// A virtual function's node says of which physical function.
fn virtual_functions<'a>(host: &PciHost<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let is_below = |node: &Node<'a>| cells::is_function(*node) && node.ancestors().any(|above| above == host.node);
    for node in host.node.tree().nodes().filter(|node| cells::is_live(*node) && is_below(node)) {
        let Some(property) = node.property(function::PHYSICAL) else { continue };
        let mut cells = property.cells().into_iter().flatten();
        let physical = cells.next().and_then(|cell| target(node.tree(), &cell));
        if cells.next().is_some() || physical.is_none_or(|physical| host.index_of(physical).is_none()) {
            let message = "`{1}` of {0} must be one reference, to a function behind {2}";
            let d = Diagnostic::new(codes::WRONG_TYPE, property.value_span(), message);
            let d = d.args(&[Arg::Node(node), Arg::Text(function::PHYSICAL), Arg::Node(host.node)]);
            diagnostics.push(d.help("as `cargo xtask import lspci` writes it"));
        }
    }
}

/// Bus, and functions that cannot be beside each other.
fn place<'a>(host: &PciHost<'a>, index: usize, function: &PciFunction<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let node = function.node;
    let reg = node.property("reg").map_or(node.span(), Property::value_span);
    let above = function.above.and_then(|above| host.functions.get(above));
    let expected = above.map_or(Some(host.buses.0), |bridge| bridge.bridge.map(|(first, _)| first));
    if let Some(expected) = expected.filter(|expected| *expected != bus(function.bdf)) {
        let d = Diagnostic::new(codes::PCI_BUS, reg, "`reg` of {0} says bus {1}, but it is on bus {2}");
        let d = d.args(&[Arg::Node(node), Arg::Number(bus(function.bdf).into()), Arg::Number(expected.into())]);
        let d = d.also(above.map_or(host.node, |bridge| bridge.node).span(), "the bus is this one's");
        diagnostics
            .push(d.help("the bus number is bits 23 to 16 of the first cell: the first of the bridge's `bus-range`"));
    }
    let same = |other: &&PciFunction<'a>| other.bdf == function.bdf && other.node.unit_address() != node.unit_address();
    if let Some(twin) = host.functions.iter().take(index).find(same) {
        let d = Diagnostic::new(codes::BDF_TWICE, node.span(), "{0} and {1} are one function: {2}");
        let d = d.args(&[Arg::Node(node), Arg::Node(twin.node), Arg::Function(function.bdf.0)]);
        diagnostics.push(d.also(twin.node.span(), "{1} is here").help("take one of the two out"));
    }
    let zero = Bdf(function.bdf.0 & !7);
    if function.bdf != zero && host.functions.iter().all(|other| other.bdf != zero) {
        let message = "{0} is function {1} of a device without function 0: no such function answers";
        let d = Diagnostic::new(codes::NO_FUNCTION_ZERO, node.span(), message);
        let d = d.args(&[Arg::Node(node), Arg::Number((function.bdf.0 & 7).into())]);
        diagnostics.push(
            d.help("describe function 0 too; whoever looks for functions looks there first (PCI 3.0, 3.2.2.3.4)"),
        );
    }
}

/// A bridge behind the host bridge: shape and bus numbers.
fn bridge<'a>(host: &PciHost<'a>, index: usize, function: &PciFunction<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let node = function.node;
    let shape = [("#address-cells", 3), ("#size-cells", 2)];
    if let Some((name, cells)) = shape.iter().find(|(name, cells)| count(node, name, 0) != *cells) {
        let span = node.property(name).map_or(node.span(), Property::value_span);
        let d = Diagnostic::new(codes::PCI_BRIDGE, span, "the PCI bridge {0} must have {1} = <{2}>");
        let d = d.args(&[Arg::Node(node), Arg::Text(name), Arg::Number(*cells as u64)]);
        diagnostics.push(d.help("PCI addresses take three cells, sizes two (IEEE 1275)"));
    }
    if node.property("ranges").is_none() {
        let d =
            Diagnostic::new(codes::PCI_BRIDGE, node.span(), "the PCI bridge {0} has no `ranges`: it passes nothing on");
        diagnostics
            .push(d.args(&[Arg::Node(node)]).help("write ranges; where its windows lie is the compiler's decision"));
    }
    let Some((first, last)) = function.bridge.filter(|(first, last)| first <= last) else {
        let span = node.property("bus-range").map_or(node.span(), Property::value_span);
        let message = "the PCI bridge {0} needs `bus-range`: first and last bus behind it, 0 to 255";
        let d = Diagnostic::new(codes::BUS_RANGE, span, message).args(&[Arg::Node(node)]);
        diagnostics.push(d.help("for one bus: bus-range = <1 1>;"));
        return;
    };
    let span = node.property("bus-range").map_or(node.span(), Property::value_span);
    let above = function.above.and_then(|above| host.functions.get(above));
    let outer = above.map_or(Some(host.buses), |bridge| bridge.bridge);
    let args = [Arg::Node(node), Arg::Number(first.into()), Arg::Number(last.into())];
    if let Some((low, high)) = outer.filter(|(low, high)| first <= *low || last > *high) {
        let parent = above.map_or(host.node, |bridge| bridge.node);
        let d = Diagnostic::new(
            codes::BUS_NUMBERS,
            span,
            "the buses {1} to {2} behind {0} must lie among the {3} to {4} of {5}, behind its first",
        );
        let args = [args[0], args[1], args[2], Arg::Number(low.into()), Arg::Number(high.into()), Arg::Node(parent)];
        diagnostics.push(
            d.args(&args).also(parent.span(), "{5} is here").help("number the buses from the host bridge downwards"),
        );
    }
    let meets = |other: &&PciFunction<'a>| {
        other.above == function.above && other.bridge.is_some_and(|(a, b)| first <= b && a <= last)
    };
    if let Some(other) = host.functions.iter().take(index).find(meets) {
        let d = Diagnostic::new(codes::BUS_NUMBERS, span, "the buses {1} to {2} behind {0} overlap those of {3}");
        let d = d.args(&[args[0], args[1], args[2], Arg::Node(other.node)]).also(other.node.span(), "{3} is here");
        diagnostics.push(d.help("bridges on one bus have buses of their own"));
    }
}

/// The entries of `reg` behind the first: one base address register each.
fn bars<'a>(function: &PciFunction<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let node = function.node;
    let is_bridge = is_pci(node);
    let mut taken = [None; BARS];
    for reg in cells::reg(node).skip(1) {
        let phys = Phys(reg.address.space);
        let args = [Arg::Node(node), Arg::Hex(phys.register().into()), Arg::Bytes(reg.size)];
        let mut error = |code: Code, message, help| {
            diagnostics.push(Diagnostic::new(code, reg.span, message).args(&args).help(help));
        };
        let number = function::bar_number(phys.register(), is_bridge).filter(|_| phys.bdf() == function.bdf);
        let (Some(number), Some(space)) = (number, phys.space()) else {
            let message = "an entry of `reg` of {0} is no base address register of it (register {1})";
            let help = if is_bridge {
                "first cell: space (1 I/O, 2 memory, 3 64-bit memory) << 24 | bus << 16 | device << 11 | function << 8 | 0x10, 0x14 or 0x38"
            } else {
                "first cell: space (1 I/O, 2 memory, 3 64-bit memory) << 24 | bus << 16 | device << 11 | function << 8 | 0x10 to 0x24, or 0x30"
            };
            error(codes::BAR_SHAPE, message, help);
            continue;
        };
        let rom = number == ROM;
        let (least, most) = match space {
            _ if rom => (0x800, 1 << 24),
            Space::Io => (4, 1 << 16),
            Space::Memory32 => (16, 1 << 31),
            Space::Memory64 => (16, 1 << 63),
        };
        if rom && space != Space::Memory32 {
            error(codes::BAR_SHAPE, "the expansion ROM of {0} must be 32-bit memory", "write 0x02… in the first cell");
        } else if reg.address.low != 0 {
            let message = "the base address register {1} of {0} is given an address: the compiler places it";
            error(codes::BAR_SHAPE, message, "the second and third cell of the entry are 0 (IEEE 1275 PCI, 4.1.1)");
        } else if !reg.size.is_power_of_two() || reg.size < least || reg.size > most {
            let message =
                "the base address register {1} of {0} cannot have {2}: sizes are powers of two (PCI 3.0, 6.2.5.1)";
            error(codes::BAR_SHAPE, message, "memory has at least 16 bytes, I/O 4 bytes, an expansion ROM 2 KiB");
        }
        let wide = space == Space::Memory64;
        if wide && (rom || number + 1 >= if is_bridge { 2 } else { ROM }) {
            let message = "the 64-bit base address register {1} of {0} has no register for its upper half";
            error(codes::BAR_WIDTH, message, "a 64-bit one takes two registers, so it starts before the last");
        }
        for slot in number..=number + usize::from(wide && !rom) {
            let Some(slot) = taken.get_mut(slot) else { continue };
            if let Some(before) = *slot {
                let d =
                    Diagnostic::new(codes::BAR_TWICE, reg.span, "two entries of `reg` of {0} take the register {1}");
                let d = d.args(&args).also(before, "the other one");
                diagnostics.push(d.help("a 64-bit base address register takes the next register too"));
                break;
            }
            *slot = Some(reg.span);
        }
    }
}

/// Numbers that identify the function, where they are given.
fn identity<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    for (name, bits) in IDS {
        let Some(property) = node.property(name) else { continue };
        let value = property.number().filter(|value| value >> bits == 0);
        if value.is_none_or(|value| name == "vendor-id" && matches!(value, 0 | 0xFFFF)) {
            let d =
                Diagnostic::new(codes::PCI_IDS, property.value_span(), "`{1}` of {0} must be one number of {2} bits");
            let d = d.args(&[Arg::Node(node), Arg::Text(name), Arg::Number(bits.into())]);
            diagnostics
                .push(d.help("as in configuration space; vendor 0xffff is what reads where nothing is, 0 is nobody's"));
        }
    }
}

/// `interrupts`: the interrupt pin.
fn pin<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let Some(property) = node.property("interrupts") else { return };
    let one = property.cells().is_some_and(|cells| cells.count() == 1);
    if !one || property.number().is_none_or(|pin| !(1..=4).contains(&pin)) {
        let message = "`interrupts` of {0} must be its interrupt pin: 1 (INTA) to 4 (INTD)";
        let d = Diagnostic::new(codes::BAD_SPECIFIER, property.value_span(), message).args(&[Arg::Node(node)]);
        diagnostics.push(d.help("which line that is, `interrupt-map` of the host bridge says"));
    }
}

/// `cofferdam,capabilities`.
fn capabilities<'a>(function: &PciFunction<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let node = function.node;
    let Some(property) = node.property(capability::PROPERTY) else { return };
    let error = |span, message, args: &[Arg<'a>]| {
        let d = Diagnostic::new(codes::CAPABILITIES, span, message).args(args);
        d.help("<offset dword0 dword1 dword2> for each, as `cargo xtask import lspci` writes them")
    };
    let whole = |cells: usize| cells > 0 && cells.is_multiple_of(capability::CELLS);
    if !property.cells().is_some_and(|cells| whole(cells.count())) {
        let message = "`{1}` of {0} is not four cells for each capability";
        diagnostics.push(error(property.value_span(), message, &[Arg::Node(node), Arg::Text(capability::PROPERTY)]));
        return;
    }
    for (index, cells) in cells::groups(property, capability::CELLS).enumerate() {
        let Some(offset) = cells.first() else { continue };
        let args = [Arg::Node(node), Arg::Hex(offset.value)];
        // Behind the standard header, and with its dwords in the same part of configuration space (PCIe 5.0, 7.5.1 and 7.6).
        let end = if offset.value < EXTENDED.into() { EXTENDED.into() } else { CONFIG_SIZE };
        if offset.value < 0x40 || offset.value % 4 != 0 || offset.value.saturating_add(4) > end {
            diagnostics.push(error(offset.span, "{0} cannot have a capability at {1}", &args));
        }
        let earlier = |c: &Capability| u64::from(c.offset) == offset.value;
        if let Some(twin) = function.capabilities().take(index).find(earlier) {
            let d = error(offset.span, "{0} has two capabilities at {1}", &args);
            diagnostics.push(d.also(twin.span, "the other one"));
        }
    }
    for capability in function.capabilities() {
        let Kind::MsiX { vectors, table, pending } = capability.kind() else { continue };
        let table_end = u64::from(table.1) + u64::from(vectors) * 16;
        let pending_end = u64::from(pending.1) + u64::from(vectors).div_ceil(64) * 8;
        for (bar, end) in [(table.0, table_end), (pending.0, pending_end)] {
            let spec = function.bars.get(usize::from(bar)).copied().flatten();
            if spec.is_none_or(|spec| spec.space == Space::Io || spec.size < end) {
                let message =
                    "the MSI-X capability of {0} puts its table at base address register {1}, which does not hold it";
                diagnostics.push(error(capability.span, message, &[Arg::Node(node), Arg::Number(bar.into())]));
                break;
            }
        }
    }
}

/// `iommu-map` or `msi-map`: rows of four cells, to controllers of one cell, that do not meet.
fn map<'a>(host: Node<'a>, name: &'static str, code: Code, diagnostics: &mut Diagnostics<'_, 'a>) {
    let Some(property) = host.property(name) else { return };
    let args = [Arg::Node(host), Arg::Text(name)];
    let error = |span, message| {
        Diagnostic::new(code, span, message)
            .args(&args)
            .help("a row is: first requester ID, <&controller>, its first ID, how many")
    };
    if !property.cells().is_some_and(|cells| cells.count().is_multiple_of(4)) {
        diagnostics.push(error(property.value_span(), "`{1}` of {0} is not rows of four cells"));
        return;
    }
    let mut seen: heapless::Vec<(u64, u64, cofferdam_dts::Span), 64> = heapless::Vec::new();
    for row in cells::groups(property, 4) {
        let [first, reference, base, len] = row.as_slice() else { continue };
        let span = cells::span_of(&row);
        let (low, high) = (first.value, first.value.saturating_add(len.value));
        // A GICv2's MSI frame may say nothing of its cells.
        let takes_one = |node| match code {
            codes::IOMMU_MAP => count(node, "#iommu-cells", 0) == 1,
            _ => node.property("msi-controller").is_some() && count(node, "#msi-cells", 1) <= 1,
        };
        if !target(host.tree(), reference).is_some_and(takes_one) {
            diagnostics.push(error(reference.span, "a row of `{1}` of {0} leads to no controller that takes one cell"));
        } else if len.value == 0 || high > 0x1_0000 || base.value.saturating_add(len.value) > 1 << 32 {
            diagnostics.push(error(
                span,
                "a row of `{1}` of {0} goes beyond requester IDs (16 bits) or IDs (32 bits), or is empty",
            ));
        } else if let Some((_, _, other)) = seen.iter().find(|(a, b, _)| low < *b && *a < high) {
            diagnostics.push(
                error(span, "two rows of `{1}` of {0} are for the same requester IDs").also(*other, "the other one"),
            );
        }
        // More rows than fit are not compared: the first that matches is taken, always.
        let _ = seen.push((low, high, span));
    }
}
