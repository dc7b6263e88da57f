//! What can be asked of a property and its value.

use super::{Cell, NONE, Node, Property, PropertyData, Value, ValueKind};
use crate::Span;

impl<'a> Property<'a> {
    pub(super) fn data(self) -> &'a PropertyData<'a> {
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
