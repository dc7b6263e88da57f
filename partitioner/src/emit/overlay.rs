//! A layout's `overlay` node merged over a generated tree: properties replace or add, nodes of the same name merge, others
//! are added.
//!
//! What it promises the guest is not judged here: the verifier reads the merged tree as it reads a generated one.

use super::copied;
use super::fdt::Fdt;
use super::guest::{GIC, Guest};
use super::reader::{Base, Token};
use super::supplies;
use crate::clocks;
use crate::codes;
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property, ValueKind};

/// An overlay and the tree it goes over.
pub(super) struct Merge<'g, 'a, 'l, 'b> {
    pub(super) guest: &'g Guest<'g, 'a, 'l>,
    pub(super) base: Base<'b>,
    pub(super) overlay: Node<'a>,
}

impl<'a> Merge<'_, 'a, '_, '_> {
    /// Writes the merged tree.
    pub(super) fn write(&self, fdt: &mut Fdt<'_>) {
        fdt.begin(format_args!(""));
        self.node(self.base.root(), Some(self.overlay), fdt);
    }

    /// The rest of a node of the base, from `at` on, which stands behind its name. Returns where it ends.
    fn node(&self, at: usize, over: Option<Node<'a>>, fdt: &mut Fdt<'_>) -> usize {
        let first = at;
        let mut at = at;
        let mut properties = over;
        loop {
            match self.base.token(at) {
                Token::Property { name, value, next } => {
                    if over.is_none_or(|over| over.property(name).is_none()) {
                        fdt.property(name, |fdt| fdt.bytes(value));
                    }
                    at = next;
                }
                Token::Begin { name, next } => {
                    if let Some(over) = properties.take() {
                        self.properties(over, self.base.phandle(first).is_none(), fdt);
                    }
                    fdt.begin(format_args!("{name}"));
                    let same = |over: Node<'a>| over.children().find(|child| child.name() == name);
                    at = self.node(next, over.and_then(same), fdt);
                }
                Token::End { next } => {
                    if let Some(over) = properties.take() {
                        self.properties(over, self.base.phandle(first).is_none(), fdt);
                    }
                    for child in over.into_iter().flat_map(Node::children) {
                        if self.base.child(first, child.name()).is_none() {
                            self.add(child, fdt);
                        }
                    }
                    fdt.end();
                    return next;
                }
            }
        }
    }

    /// A node the base does not have.
    fn add(&self, node: Node<'a>, fdt: &mut Fdt<'_>) {
        fdt.begin(format_args!("{}", node.name()));
        self.properties(node, true, fdt);
        for child in node.children() {
            self.add(child, fdt);
        }
        fdt.end();
    }

    fn properties(&self, node: Node<'a>, numbered: bool, fdt: &mut Fdt<'_>) {
        for property in node.properties().filter(|property| property.name() != "phandle") {
            fdt.property(property.name(), |fdt| {
                fdt.values(property, |target| self.phandle(target), |target, fdt| self.path(target, fdt));
            });
        }
        // What something refers to has a number, unless the base has given it one.
        if numbered && node.phandle().is_some() {
            fdt.number("phandle", copied::phandle(node));
        }
    }

    /// Where a node of the overlay stands in the base, if it does.
    fn place(&self, node: Node<'a>) -> Option<usize> {
        if node == self.overlay {
            return Some(self.base.root());
        }
        self.base.child(self.place(node.parent()?)?, node.name())
    }

    fn phandle(&self, target: Node<'a>) -> u32 {
        self.place(target).and_then(|at| self.base.phandle(at)).unwrap_or_else(|| self.guest.number_of(target))
    }

    fn path(&self, target: Node<'a>, fdt: &mut Fdt<'_>) {
        if target == self.overlay {
            return;
        }
        match target.parent().filter(|_| self.guest.is_overlay(target)) {
            Some(parent) => {
                self.path(parent, fdt);
                fdt.bytes(b"/");
                fdt.name(format_args!("{}", target.name()));
            }
            None => self.guest.path(target, fdt),
        }
    }
}

impl<'a> Guest<'_, 'a, '_> {
    /// Reports references of the overlay to what the domain does not have.
    pub(crate) fn check_overlay(&self, out: &mut Diagnostics<'_, 'a>) {
        for property in self.overlay_nodes().flat_map(Node::properties) {
            for value in property.values() {
                match value.kind {
                    ValueKind::Path(id) => {
                        let target = self.board.tree.node(id);
                        if !self.is_overlay(target) && !self.has(target) {
                            out.push(self.unknown(property, target, value.span));
                        }
                    }
                    ValueKind::Cells { cells, .. } => {
                        for (cell, id) in cells.iter().filter_map(|cell| Some((cell, cell.target?))) {
                            let target = self.board.tree.node(id);
                            if !self.is_overlay(target) && !self.is_known(target) {
                                out.push(self.unknown(property, target, cell.span));
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn unknown(&self, property: Property<'a>, target: Node<'a>, span: cofferdam_dts::Span) -> Diagnostic<'a> {
        let message =
            "`{1}` in the overlay of domain `{0}` refers to {2}, which the domain's device tree does not have";
        let args = [Arg::Text(self.domain.name), Arg::Text(property.name()), Arg::Node(target)];
        let d = Diagnostic::new(codes::OVERLAY_REFERENCE, span, message).args(&args);
        d.also(target.span(), "{2} is here").help("grant it by `access`, or refer to a node of the overlay itself")
    }

    /// Every node of the overlay, itself first.
    pub(super) fn overlay_nodes(&self) -> impl Iterator<Item = Node<'a>> {
        let overlay = self.domain.overlay;
        // A subtree's nodes stand in a row.
        let all = self.board.tree.nodes().skip_while(move |node| Some(*node) != overlay);
        all.take_while(|node| self.is_overlay(*node))
    }

    pub(super) fn is_overlay(&self, node: Node<'a>) -> bool {
        let within = |overlay: Node<'a>| node == overlay || node.ancestors().any(|above| above == overlay);
        self.domain.overlay.is_some_and(within)
    }

    /// Whether a number can stand for this node of the board.
    fn is_known(&self, node: Node<'a>) -> bool {
        let is_gic = self.board.gic.is_some_and(|gic| gic.node == node);
        is_gic || self.has(node) || clocks::own_rate(node).is_some()
    }

    /// The number that stands for a node of the board, or of the overlay.
    fn number_of(&self, node: Node<'a>) -> u32 {
        if self.board.gic.is_some_and(|gic| gic.node == node) {
            return GIC;
        }
        match clocks::own_rate(node).filter(|_| !self.has(node) && !self.is_overlay(node)) {
            Some(rate) => supplies::fixed(rate),
            None => copied::phandle(node),
        }
    }
}
