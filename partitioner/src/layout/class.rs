//! The class rules for granted devices: DMA without IOMMU, authority over the board, suppliers that are somebody else's.

use super::access::{Lists, references};
use crate::cells::{self, count, target};
use crate::clocks;
use crate::codes;
use crate::devices;
use crate::model::{Board, DeviceGrant, Domain};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property};

/// Properties that name suppliers: reference and arguments, and what gives the number of arguments. Clocks are apart: what
/// counts is whether their rate is known.
const SUPPLIERS: &[(&str, &str)] = &[
    ("resets", "#reset-cells"),
    ("power-domains", "#power-domain-cells"),
    ("phys", "#phy-cells"),
    ("gpios", "#gpio-cells"),
    ("mboxes", "#mbox-cells"),
    ("pwms", "#pwm-cells"),
    ("dmas", "#dma-cells"),
];

/// Suppliers that have no registers and nothing to decide.
const FIXED: &[&str] = &["regulator-fixed"];

/// Checks one node of a grant against the class rules. Returns whether looking at it further makes sense.
pub(super) fn check<'a>(
    board: &Board<'a>,
    domain: &Domain<'a>,
    grant: &DeviceGrant<'a>,
    node: Node<'a>,
    lists: &Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> bool {
    let args = [Arg::Text(domain.name), Arg::Node(node)];
    // What is asked for by itself has been refused already; this came with its bus.
    if let Some(what) = devices::forbidden(node) {
        let message = "domain `{0}` asks for a bus with {1} on it, which is part of {2}: no domain may have it";
        let d = Diagnostic::new(codes::FORBIDDEN_DEVICE, grant.span, message).also(node.span(), "{1} is here");
        diagnostics.push(d.args(&[args[0], args[1], Arg::Text(what)]).help("grant the bus's devices one by one"));
        return false;
    }
    let named = |n: Node<'a>| n == node || node.ancestors().any(|above| above == n);
    let granted = references(domain.node.property("board-authority")).any(|(_, n)| named(n));
    if let Some(why) = devices::authority(board, node) {
        let args = [args[0], args[1], Arg::Text(why)];
        if devices::is_boot_medium(node) {
            let message = "domain `{0}` asks for {1}, which the board boots from: who writes it owns the board";
            let d = Diagnostic::new(codes::BOOT_MEDIUM, grant.span, message).args(&args);
            diagnostics.push(d.also(node.span(), "{1} is here").help("use another flash bank, or a RAM disk"));
            return false;
        } else if !granted {
            let message = "domain `{0}` asks for {1}, which has power over the whole board: {2}";
            let d = Diagnostic::new(codes::BOARD_AUTHORITY, grant.span, message).args(&args);
            let d = d.also(node.span(), "{1} is here");
            diagnostics.push(d.help("if this domain is to have that power, say so: board-authority = <&…>;"));
        }
    }
    if masters(board, node) && domain.trusted_dma.is_none() {
        let message =
            "domain `{0}` asks for {1}, which may read and write memory by itself, and no IOMMU holds it back";
        let d = Diagnostic::new(codes::NO_IOMMU, grant.span, message).args(&args);
        let place = node.property("compatible").map_or(node.span(), Property::value_span);
        let d = d.also(place, "this is not on the list of devices known to have no DMA");
        diagnostics.push(d.help(
            "leave it out; or, if this domain may reach all of memory: dma = \"trusted\"; and direct-map; memory",
        ));
    }
    suppliers(domain, grant, node, lists, diagnostics);
    true
}

/// Whether a device may master the bus. A node on a bus of its own (I2C, SPI) does not; one with registers the CPU reaches may.
pub(super) fn masters(board: &Board<'_>, node: Node<'_>) -> bool {
    let mapped = cells::reg(node).any(|reg| crate::address::locate(node, &reg).is_ok());
    mapped && !devices::is_harmless(node) && devices::authority(board, node).is_none()
}

/// Every supplier of a device is fixed or belongs to the same domain; every clock of somebody else has a known rate.
fn suppliers<'a>(
    domain: &Domain<'a>,
    grant: &DeviceGrant<'a>,
    node: Node<'a>,
    lists: &Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    let is_mine = |supplier| lists.owners.of(supplier).map(|grant| lists.devices[grant].domain) == Some(grant.domain);
    for clock in clocks::list(node, "clocks") {
        if is_mine(clock.provider) || clocks::rate(node, &clock).is_some() {
            continue;
        }
        let message = "domain `{0}` asks for {1}, which has a clock of {2}: the domain does not have that, and the rate is not known";
        let d = Diagnostic::new(codes::SUPPLIER, grant.span, message).also(clock.cell.span, "needed here");
        let args = [Arg::Text(domain.name), Arg::Node(node), Arg::Node(clock.provider)];
        diagnostics.push(d.args(&args).help(
            "grant {2} too, or say which rate firmware leaves it at: `assigned-clocks` and `assigned-clock-rates` in {1}",
        ));
    }
    for property in node.properties() {
        let name = property.name();
        let width = SUPPLIERS.iter().find(|(n, _)| *n == name).map(|(_, cells)| Some(*cells));
        let by_ending = || name.ends_with("-gpios").then_some(Some("#gpio-cells"));
        let plain = || (name.ends_with("-supply") || is_pinctrl(name)).then_some(None);
        let Some(width) = width.or_else(by_ending).or_else(plain) else { continue };
        let mut cells = property.cells().into_iter().flatten();
        while let Some(cell) = cells.next() {
            let Some(supplier) = target(node.tree(), &cell) else { continue };
            let arguments = width.map_or(0, |w| count(supplier, w, 0));
            cells.by_ref().take(arguments).for_each(drop);
            let fixed = FIXED.iter().any(|c| supplier.is_compatible(c));
            if fixed || is_mine(supplier) {
                continue;
            }
            let message = "domain `{0}` asks for {1}, whose `{2}` come from {3}, which it does not have";
            let d = Diagnostic::new(codes::SUPPLIER, grant.span, message).also(cell.span, "needed here");
            let args = [Arg::Text(domain.name), Arg::Node(node), Arg::Text(name), Arg::Node(supplier)];
            diagnostics.push(d.args(&args).help(
                "grant {3} too; where firmware has set it up for good, take the property out of the layout's board: /delete-property/ {2};",
            ));
        }
    }
}

/// `pinctrl-0` and so on.
fn is_pinctrl(name: &str) -> bool {
    name.strip_prefix("pinctrl-").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Warns of entries of `board-authority` that do nothing.
pub(super) fn needless<'a>(board: &Board<'a>, domain: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    for (cell, node) in references(domain.property("board-authority")) {
        let asked = references(domain.property("access")).any(|(_, n)| n == node || node.ancestors().any(|a| a == n));
        let message = match (asked, devices::authority(board, node)) {
            (false, _) => "`board-authority` of domain `{0}` names {1}, which is not in its `access`",
            (true, None) if node.children().all(|child| devices::authority(board, child).is_none()) => {
                "`board-authority` of domain `{0}` names {1}, which has no power over the board"
            }
            (true, _) => continue,
        };
        let d = Diagnostic::new(codes::NEEDLESS_AUTHORITY, cell.span, message);
        diagnostics.push(d.args(&[Arg::Text(domain.name()), Arg::Node(node)]).help("take it out"));
    }
}
