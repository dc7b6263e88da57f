//! The `memory@…` nodes of a domain.

use super::words;
use crate::cells::{self, address_cells, size_cells};
use crate::codes;
use crate::model::{At, MAX_MEMORY, Memory, Placement};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property, Span};
use cofferdam_plan::{Ipa, IpaRegion, Pa};
use heapless::Vec;

/// Every `reg` entry of every memory node of `domain`.
pub(super) fn read<'a>(domain: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> Vec<Memory<'a>, MAX_MEMORY> {
    let mut list = Vec::new();
    let mut found = false;
    for node in domain.children().filter(|node| node.base_name() == "memory" && node.is_enabled()) {
        found = true;
        one(domain, node, &mut list, diagnostics);
    }
    if !found {
        let d = Diagnostic::new(codes::MISSING, domain.span(), "domain `{0}` has no memory")
            .args(&[Arg::Text(domain.name())]);
        diagnostics
            .push(d.help("add memory@40000000 { device_type = \"memory\"; reg = <0x0 0x40000000 0x0 0x01000000>; };"));
    }
    // A tree of its own may describe whatever it likes.
    if let Some(first) = list.first().filter(|_| domain.property("dtb").is_none())
        && list.iter().all(|memory| memory.hidden)
    {
        let at = first.node.property("hidden").map_or(first.span, Property::span);
        let message = "the device tree of domain `{0}` would describe no memory: all it has is `hidden`";
        let d = Diagnostic::new(codes::ALL_HIDDEN, at, message).args(&[Arg::Text(domain.name())]);
        diagnostics.push(d.help("take `hidden` from what the guest is to use as RAM, or add memory without it"));
    }
    list
}

fn one<'a>(
    domain: Node<'a>,
    node: Node<'a>,
    list: &mut Vec<Memory<'a>, MAX_MEMORY>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    words::check(node, words::MEMORY, diagnostics);
    let device_type = node.property("device_type");
    match device_type.and_then(Property::string) {
        Some("memory") => {}
        Some(_) => device_type.into_iter().for_each(|p| words::wrong_type(p, "`memory`", diagnostics)),
        None => missing(node, "device_type", diagnostics),
    }
    if node.property("reg").is_none() {
        return missing(node, "reg", diagnostics);
    }
    let pins = node.property("host-address");
    let direct = node.property("direct-map");
    if let (Some(pins), Some(direct)) = (pins, direct) {
        let message = "{0} has both `host-address` and `direct-map`: where is it to be?";
        let d = Diagnostic::new(codes::TWO_PLACEMENTS, pins.span(), message).args(&[Arg::Node(node)]);
        let d = d.also(direct.span(), "this places it at its own address");
        diagnostics.push(d.help("keep one: direct-map; is host-address with the addresses of `reg`"));
    }
    let entries = cells::reg(node).count();
    let width = address_cells(domain);
    let pinned = |n: usize| cells::groups(pins?, width).nth(n);
    let cells_given = pins.and_then(Property::cells).map_or(0, Iterator::count);
    if let Some(pins) = pins.filter(|p| p.cells().is_some() && cells_given != entries * width) {
        let message = "`host-address` of {0} has {1} cells; {2} `reg` entries need {3}";
        let d = Diagnostic::new(codes::HOST_ADDRESS_COUNT, pins.value_span(), message);
        let numbers = [cells_given, entries, entries * width].map(|n| Arg::Number(n as u64));
        let d = d.args(&[Arg::Node(node), numbers[0], numbers[1], numbers[2]]);
        diagnostics.push(d.help("give one physical address per `reg` entry, in #address-cells cells each"));
        return;
    }
    for (n, reg) in cells::reg(node).enumerate() {
        if size_cells(domain) == 0 {
            let message = "{0} has no size: sizes have no cells in domain `{1}`";
            let d = Diagnostic::new(codes::EMPTY_RANGE, reg.span, message);
            return diagnostics
                .push(d.args(&[Arg::Node(node), Arg::Text(domain.name())]).help("#size-cells = <2>; in the domain"));
        }
        // Wrapping and empty entries have been reported by `shape`.
        let Some(ipa) = IpaRegion::new(Ipa(reg.address.low), reg.size).filter(|r| !r.is_empty()) else { continue };
        let placement = match (pinned(n), direct) {
            (Some(cells), _) => {
                Placement::Pinned(At { value: Pa(cells::number(&cells)), span: cells::span_of(&cells) })
            }
            (None, Some(direct)) => Placement::Direct(Property::span(direct)),
            (None, None) => Placement::Auto,
        };
        let hidden = node.property("hidden").is_some();
        if list.push(Memory { node, ipa, placement, hidden, span: reg.span }).is_err() {
            too_many(domain, reg.span, diagnostics);
            return;
        }
    }
}

fn too_many<'a>(domain: Node<'a>, span: Span, diagnostics: &mut Diagnostics<'_, 'a>) {
    let message = "domain `{0}` has more memory entries than the {1} a domain can have";
    let d = Diagnostic::new(codes::TOO_MANY_BANKS, span, message);
    let args = [Arg::Text(domain.name()), Arg::Number(MAX_MEMORY as u64)];
    diagnostics.push(d.args(&args).help("join neighbouring entries"));
}

fn missing<'a>(node: Node<'a>, what: &'static str, diagnostics: &mut Diagnostics<'_, 'a>) {
    let d = Diagnostic::new(codes::MISSING, node.span(), "{0} has no `{1}`");
    let d = d.args(&[Arg::Node(node), Arg::Text(what)]);
    diagnostics.push(d.help("a memory node has device_type = \"memory\"; and reg = <address size>;"));
}
