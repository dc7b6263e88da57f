//! What can be asked of a node.

use super::{NONE, Node, NodeData, NodeId, Property, Tree};
use crate::Span;
use crate::store::{find, hash};
use core::fmt;

impl<'a> Node<'a> {
    fn data(self) -> &'a NodeData<'a> {
        &self.tree.data.nodes[self.id as usize]
    }

    /// Its place in the arena.
    pub fn id(self) -> NodeId {
        NodeId(self.id)
    }

    /// The tree it belongs to.
    pub fn tree(self) -> Tree<'a> {
        self.tree
    }

    /// Name with unit address; empty for the root.
    pub fn name(self) -> &'a str {
        self.data().name
    }

    /// Name up to `@`.
    pub fn base_name(self) -> &'a str {
        self.name().split('@').next().unwrap_or("")
    }

    /// What follows `@`.
    pub fn unit_address(self) -> Option<&'a str> {
        self.name().split_once('@').map(|(_, unit)| unit)
    }

    /// Where its name is first written.
    pub fn span(self) -> Span {
        self.data().span
    }

    /// Its parent; `None` for the root.
    pub fn parent(self) -> Option<Node<'a>> {
        let parent = self.data().parent;
        (parent != NONE).then_some(Node { tree: self.tree, id: parent })
    }

    /// Its children, in order.
    pub fn children(self) -> impl Iterator<Item = Node<'a>> {
        let first = Node { tree: self.tree, id: self.data().first_child };
        let first = if first.id == NONE { None } else { first.or_next() };
        core::iter::successors(first, |node| node.next_sibling())
    }

    fn or_next(self) -> Option<Node<'a>> {
        if self.is_deleted() { self.next_sibling() } else { Some(self) }
    }

    pub(super) fn next_sibling(self) -> Option<Node<'a>> {
        let mut next = self.data().next;
        while next != NONE {
            let node = Node { tree: self.tree, id: next };
            if !node.is_deleted() {
                return Some(node);
            }
            next = node.data().next;
        }
        None
    }

    /// The child with this name; without `@`, the only one with this base name.
    pub fn child(self, name: &str) -> Option<Node<'a>> {
        let nodes = self.tree.data.nodes;
        let exact = find(self.tree.data.node_index, hash(name.as_bytes(), self.id), |id| {
            let n = &nodes[id as usize];
            n.parent == self.id && n.name == name
        });
        if let Some(id) = exact.filter(|id| !nodes[*id as usize].deleted) {
            return Some(Node { tree: self.tree, id });
        }
        let mut matches = self.children().filter(|c| c.base_name() == name);
        matches.next().filter(|_| matches.next().is_none())
    }

    /// Its properties, in order.
    pub fn properties(self) -> impl Iterator<Item = Property<'a>> {
        let link = move |id: u32| (id != NONE).then_some(Property { tree: self.tree, id });
        core::iter::successors(link(self.data().first_property), move |p| link(p.data().next))
            .filter(|p| !p.data().deleted)
    }

    /// The property with this name.
    pub fn property(self, name: &str) -> Option<Property<'a>> {
        let all = self.tree.data.properties;
        let id = find(self.tree.data.property_index, hash(name.as_bytes(), self.id), |id| {
            let p = &all[id as usize];
            p.node == self.id && p.name == name
        })?;
        (!all[id as usize].deleted).then_some(Property { tree: self.tree, id })
    }

    /// Its labels, in order.
    pub fn labels(self) -> impl Iterator<Item = &'a str> {
        let labels = self.tree.data.labels;
        core::iter::successors(labels.get(self.data().first_label as usize), |l| labels.get(l.next as usize))
            .map(|l| l.name)
    }

    /// Its phandle, explicit or assigned because something refers to it.
    pub fn phandle(self) -> Option<u32> {
        let phandle = self.data().phandle;
        (phandle != 0 && phandle != u32::MAX).then_some(phandle)
    }

    /// Whether `/delete-node/` removed it.
    pub fn is_deleted(self) -> bool {
        self.data().deleted
    }

    /// Whether `status` is absent, `"okay"` or `"ok"` (Devicetree Specification 0.4, 2.3.4).
    pub fn is_enabled(self) -> bool {
        match self.property("status") {
            None => true,
            Some(status) => matches!(status.string(), Some("okay" | "ok")),
        }
    }

    /// Whether `compatible` lists this string.
    pub fn is_compatible(self, with: &str) -> bool {
        self.property("compatible").is_some_and(|p| p.strings().any(|(s, _)| s == with))
    }

    /// Its ancestors, the parent first.
    pub fn ancestors(self) -> impl Iterator<Item = Node<'a>> {
        core::iter::successors(self.parent(), |n| n.parent())
    }

    /// Its path, for messages.
    pub fn path(self) -> impl fmt::Display + 'a {
        Path(self)
    }
}

impl PartialEq for Node<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}
impl Eq for Node<'_> {}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.path())
    }
}

struct Path<'a>(Node<'a>);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.parent() {
            None => f.write_str("/"),
            Some(parent) if parent.parent().is_none() => write!(f, "/{}", self.0.name()),
            Some(parent) => write!(f, "{}/{}", Path(parent), self.0.name()),
        }
    }
}
