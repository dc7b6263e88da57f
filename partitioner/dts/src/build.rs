//! The tree while it grows: definitions are merged as they are read, in the arenas that later become the [`Tree`](crate::Tree).
//!
//! A node or property keeps its arena slot, and with it its position, from its first definition on; what a later definition
//! replaces moves to a slot of its own. dtc keeps positions the same way, over deletions too.

use crate::store::{Full, Index, List, Resource, Storage, hash};
use crate::tree::{Cell, LabelData, NONE, NodeData, PropertyData};
use crate::{Arg, Diagnostic, NodeId, Span, codes};

/// One part of a value before references are resolved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draft<'a> {
    pub(crate) span: Span,
    pub(crate) kind: DraftKind<'a>,
}

/// Kinds of [`Draft`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum DraftKind<'a> {
    /// A string, with or without valid UTF-8.
    Text(&'a [u8]),
    /// A range of the cells. One that is a reference has the index of its reference for a target.
    Cells {
        bits: u8,
        first: u32,
        count: u32,
    },
    Bytes(&'a [u8]),
    /// The index of a reference.
    Path(u32),
}

impl Default for DraftKind<'_> {
    fn default() -> Self {
        Self::Bytes(&[])
    }
}

/// A reference to a node: `label`, `/path` or `label/path`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pending<'a> {
    pub(crate) text: &'a str,
    pub(crate) span: Span,
}

/// The arenas of a growing tree.
pub(crate) struct Builder<'a> {
    pub(crate) nodes: List<'a, NodeData<'a>>,
    pub(crate) node_index: Index<'a>,
    pub(crate) properties: List<'a, PropertyData<'a>>,
    pub(crate) property_index: Index<'a>,
    pub(crate) drafts: List<'a, Draft<'a>>,
    pub(crate) cells: List<'a, Cell>,
    pub(crate) labels: List<'a, LabelData<'a>>,
    pub(crate) label_index: Index<'a>,
    pub(crate) reservations: List<'a, (u64, u64, Span)>,
    pub(crate) references: List<'a, Pending<'a>>,
}

impl<'a> Builder<'a> {
    /// An empty root.
    pub(crate) fn new(storage: &mut Storage<'a>) -> Result<Self, Full> {
        use core::mem::take;
        let mut new = Self {
            nodes: List::new(take(&mut storage.nodes), Resource::Nodes),
            node_index: Index::new(take(&mut storage.node_index), Resource::Nodes),
            properties: List::new(take(&mut storage.properties), Resource::Properties),
            property_index: Index::new(take(&mut storage.property_index), Resource::Properties),
            drafts: List::new(take(&mut storage.drafts), Resource::Values),
            cells: List::new(take(&mut storage.cells), Resource::Cells),
            labels: List::new(take(&mut storage.labels), Resource::Labels),
            label_index: Index::new(take(&mut storage.label_index), Resource::Labels),
            reservations: List::new(take(&mut storage.reservations), Resource::Reservations),
            references: List::new(take(&mut storage.references), Resource::References),
        };
        new.nodes.push(NodeData { parent: NONE, ..EMPTY })?;
        Ok(new)
    }

    pub(crate) fn node(&self, id: NodeId) -> NodeData<'a> {
        self.nodes.get(id.0 as usize).copied().unwrap_or(EMPTY)
    }

    /// The child of this exact name, deleted ones included.
    pub(crate) fn find_child(&self, parent: NodeId, name: &str) -> Option<NodeId> {
        let nodes = &self.nodes;
        let id = self.node_index.find(hash(name.as_bytes(), parent.0), |id| {
            nodes[id as usize].parent == parent.0 && nodes[id as usize].name == name
        })?;
        Some(NodeId(id))
    }

    /// Opens a child for definition in `body`; makes it if there is none. A complaint comes back where this body has it already.
    pub(crate) fn child(
        &mut self,
        parent: NodeId,
        name: &'a str,
        span: Span,
        body: u32,
    ) -> Result<(NodeId, Option<Diagnostic<'a>>), Full> {
        if let Some(id) = self.find_child(parent, name) {
            let node = &mut self.nodes[id.0 as usize];
            let twice = (!node.deleted && node.body == body).then(|| {
                Diagnostic::new(codes::DUPLICATE_NODE, span, "node `{0}` is defined twice in one body")
                    .args(&[Arg::Text(name)])
                    .also(node.span, "the first one")
                    .help("give it another unit address, or merge the two")
            });
            if node.deleted {
                (node.deleted, node.span, node.omit) = (false, span, false);
            }
            node.body = body;
            return Ok((id, twice));
        }
        let depth = self.node(parent).depth + 1;
        let id = self.nodes.push(NodeData { name, span, parent: parent.0, body, depth, ..EMPTY })?;
        self.node_index.insert(hash(name.as_bytes(), parent.0), id)?;
        let last = core::mem::replace(&mut self.nodes[parent.0 as usize].last_child, id);
        match self.nodes.get_mut(last as usize) {
            Some(last) => last.next = id,
            None => self.nodes[parent.0 as usize].first_child = id,
        }
        Ok((NodeId(id), None))
    }

    /// The property of this name, deleted ones included.
    pub(crate) fn find_property(&self, node: NodeId, name: &str) -> Option<u32> {
        let all = &self.properties;
        self.property_index
            .find(hash(name.as_bytes(), node.0), |id| all[id as usize].node == node.0 && all[id as usize].name == name)
    }

    /// Defines a property. A complaint comes back where this body has it already.
    pub(crate) fn property(&mut self, new: PropertyData<'a>) -> Result<Option<Diagnostic<'a>>, Full> {
        let new = PropertyData { next: NONE, replaced: NONE, deleted: false, ..new };
        if let Some(id) = self.find_property(NodeId(new.node), new.name) {
            let old = self.properties[id as usize];
            if old.deleted {
                self.properties[id as usize] = PropertyData { next: old.next, replaced: old.replaced, ..new };
                return Ok(None);
            }
            let history = self.properties.push(PropertyData { next: NONE, ..old })?;
            self.properties[id as usize] = PropertyData { next: old.next, replaced: history, ..new };
            return Ok((old.body == new.body).then(|| {
                Diagnostic::new(codes::DUPLICATE_PROPERTY, new.name_span, "property `{0}` is given twice in one body")
                    .args(&[Arg::Text(new.name)])
                    .also(old.name_span, "the first one")
                    .help("keep one of them")
            }));
        }
        let id = self.properties.push(new)?;
        self.property_index.insert(hash(new.name.as_bytes(), new.node), id)?;
        let node = &mut self.nodes[new.node as usize];
        let last = core::mem::replace(&mut node.last_property, id);
        match self.properties.get_mut(last as usize) {
            Some(last) => last.next = id,
            None => node.first_property = id,
        }
        Ok(None)
    }

    /// Deletes a node with all that is in it.
    pub(crate) fn delete(&mut self, id: NodeId, at: Span) {
        // Depth is bounded by the parser, so the way down and up through links needs no stack.
        let mut now = id.0;
        loop {
            self.delete_one(now, at);
            let node = self.nodes[now as usize];
            if node.first_child != NONE {
                now = node.first_child;
                continue;
            }
            loop {
                if now == id.0 {
                    return;
                }
                let node = self.nodes[now as usize];
                if node.next != NONE {
                    now = node.next;
                    break;
                }
                now = node.parent;
            }
        }
    }

    fn delete_one(&mut self, id: u32, at: Span) {
        let node = &mut self.nodes[id as usize];
        if !node.deleted {
            (node.deleted, node.deleted_at) = (true, at);
        }
        let mut label = core::mem::replace(&mut node.first_label, NONE);
        node.last_label = NONE;
        while let Some(l) = self.labels.get_mut(label as usize) {
            l.dead = true;
            label = l.next;
        }
        let mut property = self.nodes[id as usize].first_property;
        while let Some(p) = self.properties.get_mut(property as usize) {
            p.deleted = true;
            property = p.next;
        }
    }

    /// The living label of this name.
    pub(crate) fn find_label(&self, name: &str) -> Option<LabelData<'a>> {
        let labels = &self.labels;
        let id = self
            .label_index
            .find(hash(name.as_bytes(), 0), |id| labels[id as usize].name == name && !labels[id as usize].dead)?;
        self.labels.get(id as usize).copied()
    }

    /// Gives a label to a node, or with `None` to a property or value. A complaint comes back where it is taken.
    pub(crate) fn label(
        &mut self,
        name: &'a str,
        span: Span,
        node: Option<NodeId>,
    ) -> Result<Option<Diagnostic<'a>>, Full> {
        let node = node.map_or(NONE, |n| n.0);
        if let Some(old) = self.find_label(name) {
            if old.node == node && (node != NONE || old.span == span) {
                return Ok(None);
            }
            let twice = Diagnostic::new(codes::DUPLICATE_LABEL, span, "label `{0}` is given twice")
                .args(&[Arg::Text(name)])
                .also(old.span, "the first one")
                .help("labels are unique in the whole tree: choose another name");
            return Ok(Some(twice));
        }
        let id = self.labels.push(LabelData { name, node, span, next: NONE, dead: false })?;
        self.label_index.insert(hash(name.as_bytes(), 0), id)?;
        if let Some(node) = self.nodes.get_mut(node as usize) {
            let last = core::mem::replace(&mut node.last_label, id);
            match self.labels.get_mut(last as usize) {
                Some(last) => last.next = id,
                None => node.first_label = id,
            }
        }
        Ok(None)
    }

    /// The node a reference means: `label`, `/path` or `label/path`. Names must be exact, as in dtc.
    pub(crate) fn target(&self, reference: &str) -> Option<NodeId> {
        let (start, path) = match reference.split_once('/') {
            Some((label, path)) => (label, path),
            None => (reference, ""),
        };
        let mut node = match start {
            "" if !reference.is_empty() => NodeId(0),
            label => {
                let node = self.find_label(label)?.node;
                (node != NONE).then_some(NodeId(node))?
            }
        };
        for part in path.split('/').filter(|p| !p.is_empty()) {
            node = self.find_child(node, part)?;
            if self.node(node).deleted {
                return None;
            }
        }
        Some(node)
    }
}

/// A node without anything.
const EMPTY: NodeData<'static> = NodeData {
    name: "",
    span: Span { file: crate::FileId(0), start: 0, end: 0 },
    parent: NONE,
    first_child: NONE,
    last_child: NONE,
    next: NONE,
    first_property: NONE,
    last_property: NONE,
    first_label: NONE,
    last_label: NONE,
    phandle: 0,
    body: 0,
    depth: 0,
    deleted: false,
    deleted_at: Span { file: crate::FileId(0), start: 0, end: 0 },
    referenced: false,
    omit: false,
};
