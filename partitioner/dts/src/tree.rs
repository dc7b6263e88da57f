//! The merged tree, read-only: handles that borrow arenas. What later stages work with.
//!
//! A handle is two words and `Copy`. Nodes and properties keep the order of their first definition, as dtc does.

use crate::Span;
use crate::pre::Expansion;
use crate::store::{find, hash};
use core::fmt;

/// "No index" in the arenas' links.
pub(crate) const NONE: u32 = u32::MAX;

/// A node's place in the arena. Stable for the life of the tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u32);

/// Arena entry of a node.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeData<'a> {
    pub(crate) name: &'a str,
    pub(crate) span: Span,
    pub(crate) parent: u32,
    pub(crate) first_child: u32,
    pub(crate) last_child: u32,
    pub(crate) next: u32,
    pub(crate) first_property: u32,
    pub(crate) last_property: u32,
    pub(crate) first_label: u32,
    pub(crate) last_label: u32,
    pub(crate) phandle: u32,
    /// Serial number of the body it was last defined in.
    pub(crate) body: u32,
    pub(crate) depth: u32,
    pub(crate) deleted: bool,
    pub(crate) deleted_at: Span,
    pub(crate) referenced: bool,
    /// `/omit-if-no-ref/`
    pub(crate) omit: bool,
}

/// Arena entry of a property.
#[derive(Clone, Copy, Debug, Default)]
pub struct PropertyData<'a> {
    pub(crate) name: &'a str,
    pub(crate) name_span: Span,
    pub(crate) value_span: Span,
    pub(crate) node: u32,
    pub(crate) first_value: u32,
    pub(crate) value_count: u32,
    pub(crate) next: u32,
    /// The definition this one replaced.
    pub(crate) replaced: u32,
    /// Serial number of the body it was last defined in.
    pub(crate) body: u32,
    pub(crate) deleted: bool,
    /// An error was reported in its value.
    pub(crate) faulty: bool,
    /// In the tree: neither replaced nor deleted.
    pub(crate) live: bool,
}

/// One comma-separated part of a property's value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Value<'a> {
    /// Where it is written.
    pub span: Span,
    /// What it is.
    pub kind: ValueKind<'a>,
}

/// Kinds of [`Value`].
#[derive(Clone, Copy, Debug)]
pub enum ValueKind<'a> {
    /// A string, escapes resolved, without its terminating NUL.
    String(&'a str),
    /// A string with bytes that are not UTF-8.
    RawString(&'a [u8]),
    /// `<…>`: cells of `bits` bits each (8, 16, 32 or 64; 32 unless `/bits/` says otherwise).
    Cells {
        /// Bits per cell.
        bits: u8,
        /// The cells.
        cells: &'a [Cell],
    },
    /// `[…]`.
    Bytes(&'a [u8]),
    /// `&label` or `&{/path}` outside `<…>`: the path of the node.
    Path(NodeId),
}

impl Default for ValueKind<'_> {
    fn default() -> Self {
        Self::Bytes(&[])
    }
}

/// One number between `<` and `>`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    /// Its value; for a reference the phandle of its target, or all ones where that does not exist (an error was given).
    pub value: u64,
    /// Where it is written.
    pub span: Span,
    /// The node it refers to, where it was written as a reference.
    pub target: Option<NodeId>,
}

/// A label and the node it names.
#[derive(Clone, Copy, Debug, Default)]
pub struct LabelData<'a> {
    pub(crate) name: &'a str,
    /// Its node; [`NONE`] for a label of a property or value, which nothing can refer to.
    pub(crate) node: u32,
    pub(crate) span: Span,
    /// The node's next label.
    pub(crate) next: u32,
    /// Its node was deleted.
    pub(crate) dead: bool,
}

/// What a [`Tree`] points to.
#[derive(Debug)]
pub struct TreeData<'a> {
    pub(crate) nodes: &'a [NodeData<'a>],
    pub(crate) node_index: &'a [u32],
    pub(crate) phandle_index: &'a [u32],
    pub(crate) properties: &'a [PropertyData<'a>],
    pub(crate) property_index: &'a [u32],
    pub(crate) values: &'a [Value<'a>],
    pub(crate) labels: &'a [LabelData<'a>],
    pub(crate) label_index: &'a [u32],
    pub(crate) reservations: &'a [(u64, u64, Span)],
    /// Sorted by place of use.
    pub(crate) expansions: &'a [Expansion],
}

/// A merged tree. The default one is a placeholder without even a root.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    pub(crate) data: &'a TreeData<'a>,
}

impl Default for Tree<'_> {
    fn default() -> Self {
        static NOTHING: TreeData<'static> = TreeData {
            nodes: &[],
            node_index: &[],
            phandle_index: &[],
            properties: &[],
            property_index: &[],
            values: &[],
            labels: &[],
            label_index: &[],
            reservations: &[],
            expansions: &[],
        };
        Self { data: &NOTHING }
    }
}

/// A node of a [`Tree`]. The default one is a placeholder for lent slices and must not be asked anything.
#[derive(Clone, Copy, Default)]
pub struct Node<'a> {
    tree: Tree<'a>,
    id: u32,
}

/// A property of a [`Node`].
#[derive(Clone, Copy)]
pub struct Property<'a> {
    tree: Tree<'a>,
    id: u32,
}

impl<'a> Tree<'a> {
    /// The root node.
    pub fn root(self) -> Node<'a> {
        Node { tree: self, id: 0 }
    }

    /// The node with this ID.
    pub fn node(self, id: NodeId) -> Node<'a> {
        Node { tree: self, id: id.0 }
    }

    /// All nodes that were not deleted, depth first, the root first.
    pub fn nodes(self) -> impl Iterator<Item = Node<'a>> {
        core::iter::successors(Some(self.root()), |node| {
            let mut node = *node;
            if let Some(child) = node.children().next() {
                return Some(child);
            }
            loop {
                if let Some(next) = node.next_sibling() {
                    return Some(next);
                }
                node = node.parent()?;
            }
        })
    }

    /// The node at an absolute path. A component without `@` matches the only child with that base name.
    pub fn by_path(self, path: &str) -> Option<Node<'a>> {
        let mut node = self.root();
        for part in path.strip_prefix('/')?.split('/').filter(|part| !part.is_empty()) {
            node = node.child(part)?;
        }
        Some(node)
    }

    /// The node with this label.
    pub fn by_label(self, label: &str) -> Option<Node<'a>> {
        let labels = self.data.labels;
        let found = find(self.data.label_index, hash(label.as_bytes(), 0), |id| {
            let l = &labels[id as usize];
            l.name == label && !l.dead
        })?;
        let id = labels[found as usize].node;
        (id != NONE).then_some(Node { tree: self, id })
    }

    /// The node with this phandle.
    pub fn by_phandle(self, phandle: u32) -> Option<Node<'a>> {
        let nodes = self.data.nodes;
        let id = find(self.data.phandle_index, hash(&[], phandle), |id| {
            let n = &nodes[id as usize];
            n.phandle == phandle && !n.deleted
        })?;
        Some(Node { tree: self, id })
    }

    /// All labels of nodes with their nodes, in the order they were written.
    pub fn labels(self) -> impl Iterator<Item = (&'a str, Node<'a>)> {
        let live = self.data.labels.iter().filter(|l| !l.dead && l.node != NONE);
        live.map(move |l| (l.name, Node { tree: self, id: l.node }))
    }

    /// Where the body of the first macro used within `span` is written, if one is: for a second label that shows what
    /// stands behind the name.
    pub fn expansion(self, span: Span) -> Option<Span> {
        let all = self.data.expansions;
        let from = all.partition_point(|e| (e.usage.file, e.usage.start) < (span.file, span.start));
        let first = all.get(from)?;
        (first.usage.file == span.file && first.usage.end <= span.end).then_some(first.body)
    }

    /// `/memreserve/` entries: address, size, place.
    pub fn reservations(self) -> &'a [(u64, u64, Span)] {
        self.data.reservations
    }
}

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

    fn next_sibling(self) -> Option<Node<'a>> {
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

impl<'a> Property<'a> {
    fn data(self) -> &'a PropertyData<'a> {
        &self.tree.data.properties[self.id as usize]
    }

    /// Its name.
    pub fn name(self) -> &'a str {
        self.data().name
    }

    /// Where its name is written, in the definition that holds.
    pub fn span(self) -> Span {
        self.data().name_span
    }

    /// Where its value is written; the name's place where it has none.
    pub fn value_span(self) -> Span {
        self.data().value_span
    }

    /// The node it belongs to.
    pub fn node(self) -> Node<'a> {
        Node { tree: self.tree, id: self.data().node }
    }

    /// The definition this one replaced.
    pub fn replaced(self) -> Option<Property<'a>> {
        let id = self.data().replaced;
        (id != NONE).then_some(Property { tree: self.tree, id })
    }

    /// Its comma-separated parts.
    pub fn values(self) -> &'a [Value<'a>] {
        let data = self.data();
        let from = data.first_value as usize;
        self.tree.data.values.get(from..from + data.value_count as usize).unwrap_or(&[])
    }

    /// Whether an error in its value was reported already: what is missing from it should not be complained about again.
    pub fn is_faulty(self) -> bool {
        self.data().faulty
    }

    /// Whether it has no value.
    pub fn is_empty(self) -> bool {
        self.values().is_empty()
    }

    /// Its 32-bit cells in order, across all `<…>` groups; `None` where any part is something else.
    pub fn cells(self) -> Option<impl Iterator<Item = Cell> + Clone + 'a> {
        let all = self.values();
        all.iter().all(|v| matches!(v.kind, ValueKind::Cells { bits: 32, .. })).then(|| {
            all.iter().flat_map(|v| match v.kind {
                ValueKind::Cells { cells, .. } => cells.iter().copied(),
                _ => [].iter().copied(),
            })
        })
    }

    /// Its value as one number: one 32-bit cell, or two (high first), or one 64-bit cell.
    pub fn number(self) -> Option<u64> {
        if let [Value { kind: ValueKind::Cells { bits: 64, cells: [cell] }, .. }] = self.values() {
            return Some(cell.value);
        }
        let mut cells = self.cells()?;
        match (cells.next(), cells.next(), cells.next()) {
            (Some(a), None, _) => Some(a.value),
            (Some(a), Some(b), None) => Some(a.value << 32 | b.value),
            _ => None,
        }
    }

    /// Its value as one string.
    pub fn string(self) -> Option<&'a str> {
        match self.values() {
            [Value { kind: ValueKind::String(s), .. }] => Some(s),
            _ => None,
        }
    }

    /// Its strings with their places; other parts are skipped.
    pub fn strings(self) -> impl Iterator<Item = (&'a str, Span)> {
        self.values().iter().filter_map(|v| match v.kind {
            ValueKind::String(s) => Some((s, v.span)),
            _ => None,
        })
    }
}
