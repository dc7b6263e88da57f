//! The last step of merging: phandles, references, what was to be omitted; then the arenas become a [`Tree`].

use crate::build::{Builder, DraftKind};
use crate::nearest::Nearest;
use crate::pre::Expansion;
use crate::store::{Full, Index, List, Resource, Storage, hash};
use crate::tree::{NONE, Tree, TreeData, Value, ValueKind};
use crate::{Arg, Code, Diagnostic, Diagnostics, NodeId, Span, codes};

/// Makes the tree.
pub(crate) fn finish<'a>(
    build: Builder<'a>,
    expansions: List<'a, Expansion>,
    storage: &mut Storage<'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<Tree<'a>, Full> {
    let phandles = Index::new(core::mem::take(&mut storage.phandle_index), Resource::Nodes);
    let mut resolver = Resolver { build, phandles, next: 1, diagnostics };
    let count = resolver.order(storage.order)?;
    let order = storage.order.get(..count).unwrap_or(&[]);
    for id in order {
        resolver.explicit(*id)?;
    }
    for id in order {
        resolver.references(*id)?;
    }
    for id in order {
        let node = resolver.build.nodes[*id as usize];
        if node.omit && !node.referenced && !node.deleted {
            resolver.build.delete(NodeId(*id), node.span);
        }
    }
    resolver.history();
    let Resolver { build, phandles, .. } = resolver;
    let Builder { nodes, node_index, properties, property_index, drafts, cells, labels, label_index, .. } = build;
    let cells: &'a [crate::Cell] = cells.into_slice();
    let slots = core::mem::take(&mut storage.values);
    let values = slots.get_mut(..drafts.len()).ok_or(Full(Resource::Values))?;
    for (value, draft) in values.iter_mut().zip(drafts.iter()) {
        let kind = match draft.kind {
            DraftKind::Text(bytes) => match core::str::from_utf8(bytes) {
                Ok(text) => ValueKind::String(text),
                Err(_) => ValueKind::RawString(bytes),
            },
            DraftKind::Cells { bits, first, count } => {
                let cells = cells.get(first as usize..(first + count) as usize).unwrap_or(&[]);
                ValueKind::Cells { bits, cells }
            }
            DraftKind::Bytes(bytes) => ValueKind::Bytes(bytes),
            DraftKind::Path(NONE) => ValueKind::String(""),
            DraftKind::Path(node) => ValueKind::Path(NodeId(node)),
        };
        *value = Value { span: draft.span, kind };
    }
    let expansions = expansions.into_slice();
    expansions.sort_unstable_by_key(|e| (e.usage.file, e.usage.start));
    let slot = core::mem::take(&mut storage.tree).first_mut().ok_or(Full(Resource::Nodes))?;
    Ok(Tree {
        data: slot.insert(TreeData {
            nodes: nodes.into_slice(),
            node_index: node_index.into_slice(),
            phandle_index: phandles.into_slice(),
            properties: properties.into_slice(),
            property_index: property_index.into_slice(),
            values,
            labels: labels.into_slice(),
            label_index: label_index.into_slice(),
            reservations: build.reservations.into_slice(),
            expansions,
        }),
    })
}

struct Resolver<'a, 'd, 's> {
    build: Builder<'a>,
    phandles: Index<'a>,
    /// The next phandle to try.
    next: u32,
    diagnostics: &'d mut Diagnostics<'s, 'a>,
}

impl<'a> Resolver<'a, '_, '_> {
    /// The living nodes, parents first.
    fn order(&self, order: &mut [u32]) -> Result<usize, Full> {
        let (mut count, mut now) = (0, 0);
        loop {
            let node = self.build.nodes[now as usize];
            if !node.deleted {
                *order.get_mut(count).ok_or(Full(Resource::Nodes))? = now;
                count += 1;
            }
            if !node.deleted && node.first_child != NONE {
                now = node.first_child;
                continue;
            }
            loop {
                let node = self.build.nodes[now as usize];
                if now == 0 {
                    return Ok(count);
                }
                if node.next != NONE {
                    now = node.next;
                    break;
                }
                now = node.parent;
            }
        }
    }

    /// Takes the phandle a node gives itself.
    fn explicit(&mut self, id: u32) -> Result<(), Full> {
        let mut found: Option<(u32, Span)> = None;
        for name in ["phandle", "linux,phandle"] {
            let Some(property) = self.build.find_property(NodeId(id), name) else { continue };
            let property = self.build.properties[property as usize];
            if property.deleted || property.faulty {
                continue;
            }
            let drafts = self.build.drafts.get(property.first_value as usize..).unwrap_or(&[]);
            let one = (property.value_count == 1).then(|| drafts.first()).flatten();
            let cell = match one.map(|d| d.kind) {
                Some(DraftKind::Cells { bits: 32, first, count: 1 }) => self.build.cells.get(first as usize).copied(),
                _ => None,
            };
            let Some(cell) = cell else {
                let wrong = Diagnostic::new(codes::PHANDLE, property.value_span, "`{0}` must be one cell");
                self.diagnostics.push(wrong.args(&[Arg::Text(name)]));
                continue;
            };
            if let Some(reference) = cell.target {
                let text = self.build.references[reference.0 as usize].text;
                // A reference to itself asks for a phandle, as in dtc.
                if self.build.target(text) != Some(NodeId(id)) {
                    let message = "`{0}` is the phandle of another node";
                    let wrong = Diagnostic::new(codes::PHANDLE, cell.span, message);
                    self.diagnostics.push(wrong.args(&[Arg::Text(name)]).help("drop it: phandles are given by need"));
                }
                continue;
            }
            let value = cell.value as u32;
            if value == 0 || value == u32::MAX {
                let wrong = Diagnostic::new(codes::PHANDLE, cell.span, "a phandle cannot be {0}")
                    .args(&[Arg::Hex(cell.value)])
                    .help("drop it: phandles are given by need");
                self.diagnostics.push(wrong);
                continue;
            }
            match found {
                Some((first, at)) if first != value => {
                    let wrong = Diagnostic::new(codes::PHANDLE, cell.span, "`linux,phandle` differs from `phandle`")
                        .also(at, "the phandle");
                    self.diagnostics.push(wrong);
                }
                Some(_) => {}
                None => found = Some((value, cell.span)),
            }
        }
        let Some((value, at)) = found else { return Ok(()) };
        if let Some(other) = self.by_phandle(value) {
            let other = self.build.nodes[other as usize];
            let twice = Diagnostic::new(codes::PHANDLE, at, "phandle {0} belongs to `{1}` already")
                .args(&[Arg::Hex(u64::from(value)), Arg::Text(other.name)])
                .also(other.span, "the other node")
                .help("drop one of them: phandles are given by need");
            self.diagnostics.push(twice);
            return Ok(());
        }
        self.give(id, value)
    }

    fn by_phandle(&self, value: u32) -> Option<u32> {
        let nodes = &self.build.nodes;
        self.phandles.find(hash(&[], value), |id| nodes[id as usize].phandle == value)
    }

    fn give(&mut self, id: u32, value: u32) -> Result<(), Full> {
        self.build.nodes[id as usize].phandle = value;
        self.phandles.insert(hash(&[], value), id)
    }

    /// Resolves what a node's properties refer to.
    fn references(&mut self, id: u32) -> Result<(), Full> {
        let mut at = self.build.nodes[id as usize].first_property;
        while at != NONE {
            let property = self.build.properties[at as usize];
            if !property.deleted {
                self.build.properties[at as usize].live = true;
                let range = property.first_value..property.first_value + property.value_count;
                let mut good = true;
                for draft in range {
                    good &= self.draft(draft)?;
                }
                self.build.properties[at as usize].faulty |= !good;
            }
            at = property.next;
        }
        Ok(())
    }

    fn draft(&mut self, draft: u32) -> Result<bool, Full> {
        match self.build.drafts[draft as usize].kind {
            DraftKind::Path(reference) => {
                let target = self.resolve(reference);
                let node = target.map_or(NONE, |t| t.0);
                self.build.drafts[draft as usize].kind = DraftKind::Path(node);
                Ok(target.is_some())
            }
            DraftKind::Cells { first, count, .. } => {
                let mut good = true;
                for cell in first..first + count {
                    let Some(reference) = self.build.cells[cell as usize].target else { continue };
                    let target = self.resolve(reference.0);
                    good &= target.is_some();
                    if let Some(node) = target {
                        if self.build.nodes[node.0 as usize].phandle == 0 {
                            while self.by_phandle(self.next).is_some() {
                                self.next += 1;
                            }
                            self.give(node.0, self.next)?;
                        }
                        self.build.cells[cell as usize].value = u64::from(self.build.nodes[node.0 as usize].phandle);
                    }
                    self.build.cells[cell as usize].target = target;
                }
                Ok(good)
            }
            DraftKind::Text(_) | DraftKind::Bytes(_) => Ok(true),
        }
    }

    fn resolve(&mut self, reference: u32) -> Option<NodeId> {
        let pending = self.build.references[reference as usize];
        let target = self.build.target(pending.text);
        match target {
            Some(node) => self.build.nodes[node.0 as usize].referenced = true,
            None => self.diagnostics.push(unknown(&self.build, codes::REFERENCE, pending.text, pending.span)),
        }
        target
    }

    /// References in properties that were replaced or deleted: followed where they still lead somewhere, silently.
    fn history(&mut self) {
        for at in 0..self.build.properties.len() {
            let property = self.build.properties[at];
            if property.live {
                continue;
            }
            for draft in property.first_value..property.first_value + property.value_count {
                match self.build.drafts[draft as usize].kind {
                    DraftKind::Path(reference) => {
                        let text = self.build.references[reference as usize].text;
                        let node = self.build.target(text).map_or(NONE, |t| t.0);
                        self.build.drafts[draft as usize].kind = DraftKind::Path(node);
                    }
                    DraftKind::Cells { first, count, .. } => {
                        for cell in first..first + count {
                            let Some(reference) = self.build.cells[cell as usize].target else { continue };
                            let target = self.build.target(self.build.references[reference.0 as usize].text);
                            let phandle = target.map_or(0, |t| self.build.nodes[t.0 as usize].phandle);
                            let cell = &mut self.build.cells[cell as usize];
                            cell.target = target;
                            cell.value = u64::from(if phandle == 0 { u32::MAX } else { phandle });
                        }
                    }
                    DraftKind::Text(_) | DraftKind::Bytes(_) => {}
                }
            }
        }
    }
}

/// The message about a reference that leads nowhere, with what may have been meant.
pub(crate) fn unknown<'a>(build: &Builder<'a>, code: Code, text: &'a str, at: Span) -> Diagnostic<'a> {
    let (start, path) = text.split_once('/').unwrap_or((text, ""));
    let label = build.find_label(start);
    if !start.is_empty() && label.is_none_or(|l| l.node == NONE) {
        if let Some(on) = label {
            return Diagnostic::new(code, at, "label `{0}` names a property or value, not a node")
                .args(&[Arg::Text(start)])
                .also(on.span, "the label");
        }
        let unknown = Diagnostic::new(code, at, "no node has the label `{0}`");
        if let Some(dead) = build.labels.iter().find(|l| l.dead && l.name == start) {
            let node = build.node(NodeId(dead.node));
            return unknown
                .args(&[Arg::Text(start), Arg::Text(node.name)])
                .also(dead.span, "it was given to `{1}`")
                .also(node.deleted_at, "which is deleted here")
                .help("keep the node, or drop what refers to it");
        }
        let mut nearest = Nearest::new(start);
        for label in build.labels.iter().filter(|l| !l.dead && l.node != NONE) {
            nearest.offer(label.name, label.span);
        }
        return match nearest.found() {
            Some((name, span)) => unknown
                .args(&[Arg::Text(start), Arg::Text(name)])
                .also(span, "`{1}` is here")
                .help("did you mean `&{1}`?"),
            None => {
                unknown.args(&[Arg::Text(start)]).help("give the node a label in front of its name: `{0}: node { … }`")
            }
        };
    }
    let mut node = label.map_or(NodeId(0), |l| NodeId(l.node));
    for part in path.split('/').filter(|p| !p.is_empty()) {
        match build.find_child(node, part) {
            Some(child) if !build.node(child).deleted => node = child,
            Some(child) => {
                return Diagnostic::new(code, at, "`{0}` leads to `{1}`, which is deleted")
                    .args(&[Arg::Text(text), Arg::Text(part)])
                    .also(build.node(child).deleted_at, "deleted here");
            }
            None => {
                let parent = build.node(node);
                let unknown = Diagnostic::new(code, at, "there is no node `{0}`: `{2}` has no child `{1}`");
                let name = if parent.name.is_empty() { "/" } else { parent.name };
                let mut nearest = Nearest::new(part);
                let mut same = None;
                let mut next = parent.first_child;
                while let Some(child) = build.nodes.get(next as usize) {
                    if !child.deleted {
                        nearest.offer(child.name, child.span);
                        if child.name.split('@').next() == Some(part) {
                            same = same.or(Some((child.name, child.span)));
                        }
                    }
                    next = child.next;
                }
                let args = [Arg::Text(text), Arg::Text(part), Arg::Text(name)];
                return match same.or(nearest.found()) {
                    Some((best, span)) => unknown
                        .args(&[args[0], args[1], args[2], Arg::Text(best)])
                        .also(span, "`{3}` is here")
                        .help("did you mean `{3}`? Names in a reference are whole, with the unit address"),
                    None => unknown.args(&args),
                };
            }
        }
    }
    Diagnostic::new(code, at, "`{0}` leads nowhere").args(&[Arg::Text(text)])
}
