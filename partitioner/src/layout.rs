//! What the layout asks for: `/domains` and the domain nodes below it.
//!
//! The vocabulary is strict: a word the language does not know is an error, a word of a later version too. Checks that
//! need no placement and no guest image stand here; the others in `resolve`.

mod access;
mod class;
mod console;
mod delivery;
mod domain;
mod features;
mod files;
mod functions;
mod interrupts;
mod isolation;
mod lifecycle;
mod memory;
mod owners;
mod pages;
mod ports;
mod words;

pub(crate) use features::PMU_PPI;

use crate::codes;
use crate::front;
use crate::lent::{Full, Lent, List};
use crate::model::{Board, Layout};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property};
use cofferdam_plan::limits::MAX_DOMAINS;
use heapless::Vec;

/// `compatible` of `/domains`.
const SCHEMA: &str = "cofferdam,domains-v1";

/// Reads the layout of `board`'s tree.
///
/// # Errors
/// The lent slice that was too short.
pub fn read<'a, 'm>(
    board: &Board<'a>,
    memory: front::Memory<'m, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<Layout<'a, 'm>, Full> {
    let mut lists = access::Lists {
        devices: List::new(memory.devices, Lent::Devices),
        regions: List::new(memory.regions, Lent::Regions),
        interrupts: List::new(memory.interrupts, Lent::Interrupts),
        ports: List::new(memory.ports, Lent::Ports),
        owners: owners::Owners::new(board.tree, memory.owners)?,
    };
    let mut domains = Vec::new();
    let node = top(board, diagnostics);
    for node in node.into_iter().flat_map(Node::children).filter(|node| node.is_enabled()) {
        let mut domain = domain::read(board, node, diagnostics);
        domain.devices = access::request(board, domains.len(), node, &mut lists, diagnostics)?;
        if domains.push(domain).is_err() {
            let d =
                Diagnostic::new(codes::CAPACITY, node.span(), "{0} is one domain more than the {1} a plan can hold");
            let d = d.args(&[Arg::Node(node), Arg::Number(MAX_DOMAINS as u64)]);
            diagnostics.push(d.help("a board with so many CPUs needs a plan with larger limits"));
            break;
        }
    }
    // Who owns what is known now; only then can a device be held against the owners of its suppliers and lines.
    for (index, domain) in domains.iter_mut().enumerate() {
        let first = lists.ports.len();
        ports::requested(board, index, domain.node, &mut lists.ports, diagnostics)?;
        functions::io_bars(board, index, domain.node, &lists, diagnostics);
        access::describe(board, domain, &mut lists, diagnostics)?;
        domain.ports = first..lists.ports.len();
    }
    for domain in &domains {
        let granted = lists.devices.get(domain.devices.clone()).unwrap_or(&[]);
        lifecycle::devices_keep_their_state(domain, granted, diagnostics);
    }
    domain::check_cpus(board, &domains, diagnostics);
    interrupts::check_owners(board, &domains, &lists, diagnostics);
    functions::check(board, &domains, &lists, diagnostics);
    isolation::check(board, &domains, &lists, diagnostics);
    isolation::trust(board, &domains, &lists, diagnostics);
    pages::check(board, &domains, &lists, memory.sort, diagnostics)?;
    ports::check_owners(&domains, &lists.ports, memory.sort, diagnostics)?;
    let input = console::input(board, node, &domains, diagnostics);
    delivery::decide(board, &mut domains, &lists.devices, input, diagnostics);
    lifecycle::watchdogs_have_a_watcher(&domains, diagnostics);
    Ok(Layout {
        node,
        domains,
        devices: lists.devices.into_slice(),
        regions: lists.regions.into_slice(),
        interrupts: lists.interrupts.into_slice(),
        ports: lists.ports.into_slice(),
        input,
        console_escape: console::escape(node, input, diagnostics),
        verify_at_boot: node.is_some_and(|node| node.property("verify-at-boot").is_some()),
    })
}

/// `/domains`, where it is one of this version.
fn top<'a>(board: &Board<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> Option<Node<'a>> {
    let root = board.tree.root();
    let Some(node) = root.child("domains") else {
        let message = "there is no /domains node: this is a board, not a layout";
        let help = "include the board in a layout: / { domains { compatible = \"cofferdam,domains-v1\"; … }; };";
        diagnostics.push(Diagnostic::new(codes::MISSING, root.span(), message).help(help));
        return None;
    };
    let known = schema(node, SCHEMA, diagnostics);
    words::check(node, words::DOMAINS, diagnostics);
    if let Some(log) = node.property("log").filter(|log| log.cells().is_none_or(|cells| cells.count() != 1)) {
        words::wrong_type(log, "one reference, as in <&uart1>", diagnostics);
    }
    if known && node.children().next().is_none() {
        let d = Diagnostic::new(codes::MISSING, node.span(), "{0} has no domain");
        diagnostics.push(d.args(&[Arg::Node(node)]).help("add one: each child node is a domain"));
    }
    known.then_some(node)
}

/// Whether `node` has exactly this `compatible`.
fn schema<'a>(node: Node<'a>, expected: &'static str, diagnostics: &mut Diagnostics<'_, 'a>) -> bool {
    let args = [Arg::Node(node), Arg::Text(expected)];
    match node.property("compatible") {
        None => {
            let d = Diagnostic::new(codes::MISSING, node.span(), "{0} has no `compatible`").args(&args);
            diagnostics.push(d.help("add compatible = \"{1}\";"));
            // What it should be is clear from its place.
            true
        }
        Some(property) if property.string() == Some(expected) => true,
        Some(property) => {
            let span = Property::value_span(property);
            let d = Diagnostic::new(codes::UNKNOWN_SCHEMA, span, "{0} is not `{1}`, the only kind this version knows");
            diagnostics.push(d.args(&args).help("write compatible = \"{1}\";"));
            false
        }
    }
}
