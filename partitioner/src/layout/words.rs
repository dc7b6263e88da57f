//! The vocabulary: which words a node of the layout may hold, of which type, and which are for a later version.

use crate::cells::target;
use crate::codes;
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property};

/// The type of a property's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// No value.
    Flag,
    /// One string.
    Text,
    /// One number: one or two cells.
    Number,
    /// 32-bit cells.
    Cells,
    /// References to nodes.
    References,
    /// Checked elsewhere.
    Any,
}

use Kind::{Any, Cells, Flag, Number, References, Text};

/// Words of every node.
const COMMON: &[(&str, Kind)] =
    &[("#address-cells", Number), ("#size-cells", Number), ("phandle", Number), ("status", Text)];

/// Words of `/domains`.
pub(super) const DOMAINS: &[(&str, Kind)] = &[
    ("compatible", Any),
    ("console-escape", Number),
    ("input", References),
    ("log", References),
    ("verify-at-boot", Flag),
];

/// Words of a domain.
pub(super) const DOMAIN: &[(&str, Kind)] = &[
    ("compatible", Any),
    ("cpus", References),
    ("kernel", Text),
    ("initrd", Text),
    ("dtb", Text),
    ("bootargs", Text),
    ("rng-seed", Any),
    ("kaslr-seed", Any),
    ("access", References),
    ("reg-ipa", Cells),
    ("board-authority", References),
    ("io-ports", Cells),
    ("io-bars", Cells),
    ("console", Any),
    ("load", Number),
    ("entry", Number),
    ("dtb-load", Number),
    ("initrd-load", Number),
    ("scrub", Text),
    ("delivery", Text),
    ("dma", Text),
    ("on-fault", Text),
    ("on-reset", Text),
    ("on-off", Text),
    ("restart-limit", Number),
    ("watchdog", Text),
    ("watchdog-ms", Number),
    ("sve", Flag),
    ("pmu", Flag),
    ("debug", Flag),
];

/// Nodes a domain may have, by the name before the `@`.
pub(super) const CHILDREN: &[(&str, Kind)] = &[("memory", Any), ("file", Any), ("overlay", Any)];

/// Words of a `memory@…` node.
pub(super) const MEMORY: &[(&str, Kind)] =
    &[("device_type", Text), ("reg", Cells), ("host-address", Cells), ("direct-map", Flag), ("hidden", Flag)];

/// Words of a `file@…` node.
pub(super) const FILE: &[(&str, Kind)] = &[("file", Text), ("reg", Cells)];

/// Words of the finished language that this version does not know yet, in any node of the layout.
const LATER: &[&str] =
    &["channels", "color", "errata", "flow", "isolated", "no-map", "shared-memory", "signature", "sme", "smc-allow"];

/// Checks every property of `node` against its vocabulary and types.
pub(super) fn check<'a>(node: Node<'a>, words: &'static [(&'static str, Kind)], diagnostics: &mut Diagnostics<'_, 'a>) {
    for property in node.properties() {
        let name = property.name();
        match words.iter().chain(COMMON).find(|(word, _)| *word == name) {
            Some((_, kind)) => check_type(property, *kind, diagnostics),
            None if LATER.contains(&name) => {
                let d = Diagnostic::new(codes::NOT_SUPPORTED_YET, property.span(), "`{0}` is not supported yet");
                let d = d.args(&[Arg::Text(name)]);
                diagnostics.push(d.help("leave it out; this version would not do what it asks for"));
            }
            None => unknown(node, property.span(), name, words, diagnostics),
        }
    }
}

/// Reports a word that is not in the vocabulary.
pub(super) fn unknown<'a>(
    node: Node<'a>,
    span: cofferdam_dts::Span,
    name: &'a str,
    words: &'static [(&'static str, Kind)],
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    let d = Diagnostic::new(codes::UNKNOWN_WORD, span, "`{0}` is no word of the layout language in {1}");
    let near = words.iter().map(|(word, _)| *word).min_by_key(|word| distance(name, word));
    let near = near.filter(|word| distance(name, word) <= 2.max(name.len() / 3));
    let help = if near.is_some() { "did you mean `{2}`?" } else { "docs/layout.md lists the words" };
    let args = [Arg::Text(name), Arg::Node(node), near.map_or(Arg::None, Arg::Text)];
    diagnostics.push(d.args(&args).help(help));
}

/// Reports a value of the wrong type.
pub(super) fn wrong_type<'a>(property: Property<'a>, expected: &'static str, diagnostics: &mut Diagnostics<'_, 'a>) {
    let d = Diagnostic::new(codes::WRONG_TYPE, property.value_span(), "`{0}` of {1} must be {2}");
    let args = [Arg::Text(property.name()), Arg::Node(property.node()), Arg::Text(expected)];
    let help = "docs/layout.md says what `{0}` takes";
    diagnostics.push(d.args(&args).label("this is not {2}").help(help));
}

fn check_type<'a>(property: Property<'a>, kind: Kind, diagnostics: &mut Diagnostics<'_, 'a>) {
    let expected = match kind {
        Any => return,
        Flag if !property.is_empty() => "without a value",
        Text if property.string().is_none_or(str::is_empty) => "one string",
        Number if property.number().is_none() => "one number",
        Cells if property.cells().is_none_or(|mut cells| cells.next().is_none()) => "a list of 32-bit cells",
        References if !are_references(property) => "a list of references, as in <&name>",
        _ => return,
    };
    wrong_type(property, expected, diagnostics);
}

/// Whether every cell of a property leads to a node. A reference that was not resolved has been reported already.
fn are_references(property: Property<'_>) -> bool {
    let tree = property.node().tree();
    let unresolved = |value: u64| value == 0 || value == u64::from(u32::MAX);
    property.cells().is_some_and(|mut cells| cells.all(|cell| unresolved(cell.value) || target(tree, &cell).is_some()))
}

/// Edits (insert, delete, replace) between two words, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 32;
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() >= LONGEST || b.len() >= LONGEST {
        return usize::MAX;
    }
    let mut row: [usize; LONGEST] = core::array::from_fn(|i| i);
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn edits() {
        assert_eq!(distance("cpus", "cpus"), 0);
        assert_eq!(distance("cpu", "cpus"), 1);
        assert_eq!(distance("kernal", "kernel"), 1);
        assert_eq!(distance("acess", "access"), 1);
        assert_eq!(distance("", "load"), 4);
    }
}
