//! `reg`, unit addresses, and siblings that claim the same one.

use crate::address::PA_BITS;
use crate::cells::{self, address_cells, is_isa, is_pci, size_cells};
use crate::codes;
use crate::front::Sorted;
use crate::lent::{Full, Lent};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node};

/// Nodes whose `reg` is none of addresses: the CPU binding and its maps.
fn is_plain_bus(bus: Node<'_>) -> bool {
    let at_root = bus.parent().is_none();
    at_root
        || bus.is_compatible("simple-bus")
        || bus.is_compatible("cofferdam,domain")
        || bus.name() == "reserved-memory"
}

/// `reg`: whole entries, cells that are given, sizes that are not zero, ends that exist.
pub(super) fn reg<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let (Some(property), Some(bus)) = (node.property("reg"), node.parent()) else { return };
    for name in ["#address-cells", "#size-cells"].into_iter().filter(|name| bus.property(name).is_none()) {
        // One message per bus: its other children would only repeat it.
        if bus.children().find(|n| n.property("reg").is_some()) == Some(node) {
            let message = "{0} has no `{1}`, and {2} below it has a `reg`: the default is rarely what is meant";
            let d = Diagnostic::new(codes::DEFAULT_CELLS, bus.span(), message);
            let d = d.args(&[Arg::Node(bus), Arg::Text(name), Arg::Node(node)]).also(property.span(), "read with it");
            diagnostics.push(d.help("say it: {1} = <…>; in {0}"));
        }
    }
    let (a, s) = (address_cells(bus), size_cells(bus));
    let total = property.cells().map(Iterator::count);
    let width = a.saturating_add(s);
    if total.is_none_or(|n| n == 0 || width == 0 || n % width != 0) {
        let message = "`reg` of {0} is not whole entries of {1} address and {2} size cells";
        let d = Diagnostic::new(codes::REG_LENGTH, property.value_span(), message);
        let d = d.args(&[Arg::Node(node), Arg::Number(a as u64), Arg::Number(s as u64), Arg::Node(bus)]);
        diagnostics
            .push(d.also(bus.span(), "the cells are those of {3}").help("write <address size>, each in as many cells"));
        return;
    }
    for entry in cells::reg(node).filter(|_| s > 0) {
        let base = entry.address.low;
        if entry.size == 0 && !is_pci(bus) {
            let d = Diagnostic::new(codes::EMPTY_RANGE, entry.span, "`reg` of {0} has an entry of size 0");
            diagnostics.push(d.args(&[Arg::Node(node)]).help("give its size, or take the entry out"));
        }
        if base.checked_add(entry.size).is_none_or(|end| is_plain_bus(bus) && end > 1 << PA_BITS) {
            let message = "{0} bytes from {1} in {2} end beyond {3}-bit addresses";
            let d = Diagnostic::new(codes::BEYOND_ADDRESSES, entry.span, message);
            let args = [Arg::Hex(entry.size), Arg::Hex(base), Arg::Node(node), Arg::Number(PA_BITS.into())];
            diagnostics.push(d.args(&args).help("check the number of cells: a 64-bit value takes two"));
        }
    }
}

/// Unit address and `reg` agree.
pub(super) fn unit<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let Some(bus) = node.parent() else { return };
    let first = cells::reg(node).next();
    let args = [Arg::Node(node), first.map_or(Arg::None, |reg| Arg::Hex(reg.address.low))];
    let error = |message, help| Diagnostic::new(codes::UNIT_ADDRESS, node.span(), message).args(&args).help(help);
    let has_reg = node.property("reg").is_some();
    let has_ranges = node.property("ranges").is_some_and(|ranges| !ranges.is_empty());
    match node.unit_address() {
        None if has_reg && node.name() != "memory" && is_plain_bus(bus) => {
            diagnostics
                .push(error("{0} has `reg`, but no unit address", "put the address behind its name: name@address"));
        }
        Some(_) if !has_reg && !has_ranges => {
            diagnostics.push(error("{0} has a unit address, but no `reg`", "add `reg`, or take the unit address out"));
        }
        // The unit address of a bus may be that of its first window instead.
        Some(unit) if is_plain_bus(bus) && !has_ranges => {
            let expected = first.map(|reg| reg.address.low);
            let plain = !unit.starts_with("0x") && (unit == "0" || !unit.starts_with('0'));
            let lower = !unit.bytes().any(|b| b.is_ascii_uppercase());
            let value = u64::from_str_radix(unit, 16).ok();
            // Other forms (chip select, comma) belong to buses with bindings of their own.
            if expected.is_some() && !unit.contains(',') && !(plain && lower && value == expected) {
                let message = "the unit address of {0} is not its first `reg` address, {1}";
                let d = error(message, "write the address in lower-case hexadecimal, without 0x and leading zeros");
                diagnostics.push(d.also(node.property("reg").map_or(node.span(), |p| p.value_span()), "`reg` is here"));
            }
        }
        _ => {}
    }
}

/// No two enabled children with `reg` have the same unit address.
pub(super) fn siblings<'a>(
    bus: Node<'a>,
    sort: &mut [Sorted],
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<(), Full> {
    let mut len = 0;
    for child in bus.children().filter(|child| child.is_enabled()) {
        let Some(first) = cells::reg(child).next().filter(|_| child.unit_address().is_some()) else { continue };
        let space = if is_isa(bus) || is_pci(bus) { first.address.space } else { 0 };
        let entry = Sorted { first: first.address.low, last: space.into(), node: child.id().0, grant: 0 };
        *sort.get_mut(len).ok_or(Full(Lent::Sort))? = entry;
        len += 1;
    }
    let sorted = &mut sort[..len];
    sorted.sort_unstable();
    for pair in sorted.windows(2) {
        let [a, b] = [&pair[0], &pair[1]].map(|e| bus.tree().node(cofferdam_dts::NodeId(e.node)));
        // A domain's nodes say different things of one address space: a file lies in memory, maybe at its start.
        let one_thing = !bus.is_compatible("cofferdam,domain") || a.base_name() == b.base_name();
        let one_place = (pair[0].first, pair[0].last) == (pair[1].first, pair[1].last);
        if one_place && one_thing && a.unit_address() == b.unit_address() {
            let message = "{0} and {1} are enabled and have the same unit address";
            let d = Diagnostic::new(codes::DUPLICATE_UNIT_ADDRESS, b.span(), message);
            let d = d.args(&[Arg::Node(b), Arg::Node(a)]).also(a.span(), "{1} is here");
            diagnostics.push(d.help("disable one of the two: status = \"disabled\";"));
        }
    }
    Ok(())
}
