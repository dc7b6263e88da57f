//! Checks of names in the merged tree that hold for any device tree. What properties mean is no business of this crate.

use crate::{Arg, Diagnostic, Diagnostics, Tree, codes};

/// Longest base name and property name of the Devicetree Specification 0.4 (2.2.1, 2.2.4.1).
const MAX_NAME: usize = 31;

/// All of them.
pub(crate) fn all<'a>(tree: Tree<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    for node in tree.nodes() {
        if node.name() == "__overlay__" {
            let overlay = Diagnostic::new(codes::OVERLAY, node.span(), "this is the fragment of an overlay")
                .help("write the nodes themselves, as `&label { … };`, or apply the overlay to its base first");
            diagnostics.push(overlay);
        }
        if node.base_name().len() > MAX_NAME {
            let long = Diagnostic::new(
                codes::LONG_NAME,
                node.span(),
                "the node name `{0}` has {1} characters in front of `@`",
            )
            .args(&[Arg::Text(node.name()), Arg::Number(node.base_name().len() as u64)])
            .help("the specification allows 31, and strict readers refuse the tree");
            diagnostics.push(long);
        }
        for child in node.children() {
            if let Some(property) = node.property(child.name()) {
                let alike = Diagnostic::new(
                    codes::NODE_LIKE_PROPERTY,
                    child.span(),
                    "node `{0}` has the name of a property beside it",
                )
                .args(&[Arg::Text(child.name())])
                .also(property.span(), "the property")
                .help("some readers cannot tell them apart: rename one");
                diagnostics.push(alike);
            }
        }
    }
}
