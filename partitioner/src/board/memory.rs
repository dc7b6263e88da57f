//! RAM, and the parts of it that somebody else owns.

use super::{carve, push};
use crate::codes;
use crate::model::{At, Carveout, MAX_BANKS, MAX_RESERVED};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property, Tree};
use cofferdam_plan::{Pa, PaRegion};
use heapless::Vec;

/// Whether `node` is a bank of RAM.
pub(crate) fn is_memory(node: Node<'_>) -> bool {
    let at_root = node.parent().is_some_and(|parent| parent.parent().is_none());
    let by_type = node.property("device_type").and_then(Property::string) == Some("memory");
    at_root && (by_type || node.base_name() == "memory")
}

/// Every `reg` entry of every enabled memory node.
pub(super) fn ram<'a>(tree: Tree<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> Vec<At<PaRegion>, MAX_BANKS> {
    let mut banks: Vec<At<PaRegion>, MAX_BANKS> = Vec::new();
    for node in tree.root().children().filter(|node| is_memory(*node) && node.is_enabled()) {
        for (region, reg) in crate::address::memory(node) {
            push(&mut banks, At { value: region, span: reg.span }, node, "banks of RAM", diagnostics);
        }
    }
    if banks.is_empty() {
        let d = Diagnostic::new(codes::MISSING, tree.root().span(), "the board has no RAM");
        diagnostics.push(d.help("describe it: memory@40000000 { device_type = \"memory\"; reg = <…>; };"));
    }
    banks
}

/// `/memreserve/`, the static nodes of `/reserved-memory`, and spin-table words.
pub(super) fn reserved<'a>(tree: Tree<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> Vec<Carveout<'a>, MAX_RESERVED> {
    const WHAT: &str = "reserved ranges";
    let mut list = Vec::new();
    for (base, size, span) in tree.reservations() {
        match PaRegion::new(Pa(*base), *size) {
            Some(region) if *size > 0 => {
                let entry = Carveout { region, node: tree.root(), span: *span };
                push(&mut list, entry, tree.root(), WHAT, diagnostics);
            }
            Some(_) => {}
            None => {
                let d = Diagnostic::new(codes::BEYOND_ADDRESSES, *span, "the reservation of {0} bytes at {1} wraps");
                diagnostics.push(d.args(&[Arg::Hex(*size), Arg::Hex(*base)]).help("base plus size must fit 64 bits"));
            }
        }
    }
    // A node without `reg` is a wish of one operating system for its own RAM; it reserves nothing on the board.
    for node in tree.by_path("/reserved-memory").into_iter().flat_map(Node::children).filter(|n| n.is_enabled()) {
        carve(&mut list, node, WHAT, diagnostics);
    }
    for cpu in tree.by_path("/cpus").into_iter().flat_map(Node::children) {
        let Some(release) = cpu.property("cpu-release-addr") else { continue };
        if let Some(region) = release.number().and_then(|word| PaRegion::new(Pa(word), 8)) {
            push(&mut list, Carveout { region, node: cpu, span: release.value_span() }, cpu, WHAT, diagnostics);
        }
    }
    list
}
