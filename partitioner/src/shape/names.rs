//! Names: aliases and what they lead to, nodes that belong to the root, lists of names beside lists of entries.

use crate::board::follow;
use crate::cells;
use crate::codes;
use crate::interrupts;
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Tree};

/// Nodes that mean something at the root only.
const AT_ROOT: &[&str] = &["aliases", "chosen", "cpus", "domains", "reserved-memory"];

/// `/aliases` and `stdout-path` lead to nodes.
pub(super) fn aliases<'a>(tree: Tree<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    for alias in tree.by_path("/aliases").into_iter().flat_map(Node::properties) {
        if alias.name() == "phandle" {
            continue;
        }
        if !alias.name().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            let d = Diagnostic::new(codes::ALIAS_TARGET, alias.span(), "`{0}` cannot be an alias");
            diagnostics.push(d.args(&[Arg::Text(alias.name())]).help("lower-case letters, digits and '-' only"));
        }
        let missing = alias.string().is_some_and(|path| path.starts_with('/') && tree.by_path(path).is_none());
        if missing {
            let message = "the alias `{0}` leads to `{1}`, which does not exist";
            let d = Diagnostic::new(codes::ALIAS_TARGET, alias.value_span(), message);
            let d = d.args(&[Arg::Text(alias.name()), Arg::Text(alias.string().unwrap_or(""))]);
            diagnostics.push(d.help("write a reference instead of a path: {0} = &label;"));
        }
    }
    let Some(stdout) = tree.by_path("/chosen").and_then(|chosen| chosen.property("stdout-path")) else { return };
    if follow(stdout).is_none() {
        let message = "stdout-path leads to `{0}`, which is neither a node nor an alias";
        let d = Diagnostic::new(codes::ALIAS_TARGET, stdout.value_span(), message);
        let d = d.args(&[Arg::Text(stdout.string().unwrap_or("something"))]);
        diagnostics.push(d.help("write stdout-path = \"serial0:115200n8\"; with an alias serial0, or = &label;"));
    }
}

/// `/chosen` and its like stand at the root.
pub(super) fn place<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let below_root = node.ancestors().count() > 1;
    // Inside a domain only words of the layout language stand, and they are checked there.
    let in_layout = node.ancestors().any(|n| n.name() == "domains");
    if below_root && !in_layout && AT_ROOT.contains(&node.name()) {
        let d = Diagnostic::new(codes::NOT_AT_ROOT, node.span(), "{0} means something directly below the root only");
        diagnostics.push(d.args(&[Arg::Node(node)]).help("move it there"));
    }
}

/// `reg-names` and `interrupt-names` name each entry once.
pub(super) fn count<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let registers = || Some(cells::reg(node).count());
    let lines = || interrupts::of(node).ok().map(|list| list.len());
    let entries: [&dyn Fn() -> Option<usize>; 2] = [&registers, &lines];
    let pairs = [("reg-names", "reg"), ("interrupt-names", "interrupts")].into_iter().zip(entries);
    for ((name, of), entries) in pairs {
        let Some(property) = node.property(name) else { continue };
        let names = property.strings().count();
        let Some(entries) = entries().filter(|entries| *entries != names) else { continue };
        let d = Diagnostic::new(
            codes::NAMES_COUNT,
            property.value_span(),
            "`{1}` of {0} has {2} names for {3} entries of `{4}`",
        );
        let numbers = [Arg::Number(names as u64), Arg::Number(entries as u64)];
        let args = [Arg::Node(node), Arg::Text(name), numbers[0], numbers[1], Arg::Text(of)];
        diagnostics.push(d.args(&args).help("one name for each entry, in the same order"));
    }
}
