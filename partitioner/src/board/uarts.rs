//! The hypervisor's own UARTs: the shared console (`/chosen/stdout-path`) and the log's (`/domains { log = <&…>; }`).

use crate::address;
use crate::arch::Arch;
use crate::cells::target;
use crate::codes;
use crate::interrupts::{self, Line};
use crate::model::Uart;
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property, Span, Tree, ValueKind};
use cofferdam_plan::UartKind;

/// UARTs there is a driver for.
const DRIVERS: &[(&str, u32)] = &[("arm,pl011", UartKind::PL011)];

/// Console and log.
pub(super) fn read<'a>(
    tree: Tree<'a>,
    arch: &'static dyn Arch,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> (Option<Uart<'a>>, Option<Uart<'a>>) {
    let console = stdout(tree).and_then(uart);
    let log = log(tree, arch, diagnostics);
    if let (Some(console), Some((log, span))) = (&console, &log)
        && console.node == log.node
    {
        let message = "the log is given {0}, which already is the shared console";
        let d = Diagnostic::new(codes::LOG_ON_CONSOLE, *span, message).args(&[Arg::Node(console.node)]);
        diagnostics.push(d.help("leave `log` out: without it the log travels on the console, in lines of its own"));
        return (Some(*console), None);
    }
    (console, log.map(|(log, _)| log))
}

/// The node `/chosen/stdout-path` leads to: a path, an alias or a reference, options behind `:` left away.
pub(crate) fn stdout(tree: Tree<'_>) -> Option<Node<'_>> {
    follow(tree.by_path("/chosen")?.property("stdout-path")?)
}

/// The node a property leads to that holds a path, an alias or a reference.
pub(crate) fn follow(property: Property<'_>) -> Option<Node<'_>> {
    let tree = property.node().tree();
    if let Some(ValueKind::Path(id)) = property.values().first().map(|v| v.kind) {
        return Some(tree.node(id));
    }
    let text = property.string()?.split(':').next().unwrap_or("");
    if text.starts_with('/') {
        return tree.by_path(text);
    }
    let alias = tree.by_path("/aliases")?.property(text)?;
    match alias.values().first().map(|v| v.kind)? {
        ValueKind::Path(id) => Some(tree.node(id)),
        ValueKind::String(path) => tree.by_path(path),
        _ => None,
    }
}

/// `node` as a UART, where there is a driver for it and it has registers in memory.
fn uart(node: Node<'_>) -> Option<Uart<'_>> {
    let kind = DRIVERS.iter().find(|(compatible, _)| node.is_compatible(compatible)).map(|(_, kind)| *kind)?;
    let (region, _) = address::memory(node).next()?;
    let first = interrupts::of(node).ok().and_then(|list| list.first().cloned());
    let intid = first.and_then(|spec| match interrupts::gic(&spec.cells) {
        Line::Shared(intid, _) => Some(intid),
        _ => None,
    });
    Some(Uart { node, kind, region, intid })
}

fn log<'a>(tree: Tree<'a>, arch: &'static dyn Arch, diagnostics: &mut Diagnostics<'_, 'a>) -> Option<(Uart<'a>, Span)> {
    let property = tree.by_path("/domains")?.property("log")?;
    let mut cells = property.cells()?;
    // Shape is checked with the other properties of `/domains`.
    let (Some(cell), None) = (cells.next(), cells.next()) else { return None };
    let node = target(tree, &cell)?;
    let found = uart(node).filter(|_| node.is_enabled() && arch.hypervisor_supported());
    if found.is_none() {
        let message = "the log is given {0}, which is no enabled UART the hypervisor has a driver for";
        let d = Diagnostic::new(codes::NO_CONSOLE, cell.span, message).args(&[Arg::Node(node)]);
        diagnostics.push(d.help("name an \"arm,pl011\", or leave `log` out"));
    }
    found.map(|uart| (uart, cell.span))
}
