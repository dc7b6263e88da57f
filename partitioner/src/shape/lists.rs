//! Lists of references and arguments: clocks, resets, GPIOs and the like.

use crate::cells::target;
use crate::codes;
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property};

/// Properties of that form, and the property of the provider that gives the number of arguments.
const LISTS: &[(&str, &str)] = &[
    ("clocks", "#clock-cells"),
    ("dmas", "#dma-cells"),
    ("gpios", "#gpio-cells"),
    ("iommus", "#iommu-cells"),
    ("mboxes", "#mbox-cells"),
    ("phys", "#phy-cells"),
    ("power-domains", "#power-domain-cells"),
    ("pwms", "#pwm-cells"),
    ("resets", "#reset-cells"),
];

/// Every list of `node` has all arguments its providers ask for.
pub(super) fn check<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    for property in node.properties() {
        let name = property.name();
        let known = LISTS.iter().find(|(list, _)| *list == name).map(|(_, cells)| *cells);
        let Some(width) = known.or_else(|| name.ends_with("-gpios").then_some("#gpio-cells")) else { continue };
        let mut cells = property.cells().into_iter().flatten();
        while let Some(cell) = cells.next() {
            // 0 and all ones stand for "none here".
            let Some(provider) = target(node.tree(), &cell) else { continue };
            let Some(asked) = provider.property(width).and_then(Property::number) else {
                let message = "`{1}` of {0} names {2}, which has no `{3}`";
                let d = Diagnostic::new(codes::SHORT_LIST, cell.span, message);
                let args = [Arg::Node(node), Arg::Text(name), Arg::Node(provider), Arg::Text(width)];
                diagnostics
                    .push(d.args(&args).also(provider.span(), "{2} is here").help("name a provider, or give it {3}"));
                return;
            };
            let given = cells.by_ref().take(asked as usize).count() as u64;
            if given < asked {
                let message = "`{1}` of {0} ends early: {2} takes {3} arguments, {4} follow";
                let d = Diagnostic::new(codes::SHORT_LIST, cell.span, message);
                let numbers = [Arg::Number(asked), Arg::Number(given)];
                let args = [Arg::Node(node), Arg::Text(name), Arg::Node(provider), numbers[0], numbers[1]];
                diagnostics.push(d.args(&args).also(provider.span(), "{2} is here").help("add what is missing"));
            }
        }
    }
}
