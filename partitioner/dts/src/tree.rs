//! The merged tree, read-only: handles that borrow arenas. What later stages work with.
//!
//! A handle is two words and `Copy`. Nodes and properties keep the order of their first definition, as dtc does.

mod node;
mod property;

use crate::Span;
use crate::pre::Expansion;
use crate::store::{find, hash};

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
