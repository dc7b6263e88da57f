//! Memory the caller lends, and the small containers that live in it.
//!
//! Why lent: no allocator, and no limit that is not the caller's. A slice that turns out too short is named by [`Full`];
//! the caller doubles it ([`Capacities::grow`]) and runs again. [`lend_storage!`](crate::lend_storage) makes the slices.

use crate::Span;
use crate::build::{Draft, Pending};
use crate::pre::{Expansion, Macro, Slot};
use crate::source::Source;
use crate::tree::{Cell, LabelData, NONE, NodeData, PropertyData, TreeData, Value};

/// What ran out. The caller lends twice as much of it and runs again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full(pub Resource);

/// Kinds of lent memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource {
    /// Source files.
    Files,
    /// Macros.
    Macros,
    /// Parameters of function-like macros.
    Params,
    /// Tokens of one macro expansion.
    Tokens,
    /// Macro uses.
    Expansions,
    /// Nodes, deleted ones included.
    Nodes,
    /// Properties, replaced ones included.
    Properties,
    /// Comma-separated parts of values.
    Values,
    /// Cells.
    Cells,
    /// Bytes of strings with escapes, of bytestrings and of names out of macros.
    Bytes,
    /// Labels.
    Labels,
    /// `/memreserve/` entries.
    Reservations,
    /// References to nodes.
    References,
}

macro_rules! capacities {
    ($($(#[$doc:meta])* $field:ident: $resource:ident = $start:literal,)*) => {
        /// How much of each [`Resource`] is lent.
        #[derive(Clone, Debug)]
        pub struct Capacities {
            $($(#[$doc])* pub $field: usize,)*
        }

        impl Default for Capacities {
            /// Enough for most boards.
            fn default() -> Self {
                Self { $($field: $start,)* }
            }
        }

        impl Capacities {
            /// Doubles everything, for what ran out is seldom alone, and each time the source is read again from its start.
            pub fn grow(&mut self, full: Full) {
                $(self.$field = self.$field.saturating_mul(2);)*
                let slot = match full.0 { $(Resource::$resource => &mut self.$field,)* };
                *slot = (*slot).max(16);
            }
        }
    };
}

capacities! {
    /// See [`Resource::Files`].
    files: Files = 64,
    /// See [`Resource::Macros`].
    macros: Macros = 1024,
    /// See [`Resource::Params`].
    params: Params = 256,
    /// See [`Resource::Tokens`].
    tokens: Tokens = 1024,
    /// See [`Resource::Expansions`].
    expansions: Expansions = 4096,
    /// See [`Resource::Nodes`].
    nodes: Nodes = 2048,
    /// See [`Resource::Properties`].
    properties: Properties = 8192,
    /// See [`Resource::Values`].
    values: Values = 16384,
    /// See [`Resource::Cells`].
    cells: Cells = 65536,
    /// See [`Resource::Bytes`].
    bytes: Bytes = 65536,
    /// See [`Resource::Labels`].
    labels: Labels = 2048,
    /// See [`Resource::Reservations`].
    reservations: Reservations = 16,
    /// See [`Resource::References`].
    references: References = 1024,
}

/// The lent slices. Made by [`lend_storage!`](crate::lend_storage); fields of one [`Resource`] are sized together.
#[allow(missing_docs)]
pub struct Storage<'a> {
    pub files: &'a mut [Source<'a>],
    pub macros: &'a mut [Macro<'a>],
    pub macro_index: &'a mut [u32],
    pub params: &'a mut [&'a str],
    pub tokens: &'a mut [Slot<'a>],
    pub expansions: &'a mut [Expansion],
    pub nodes: &'a mut [NodeData<'a>],
    pub node_index: &'a mut [u32],
    pub phandle_index: &'a mut [u32],
    pub order: &'a mut [u32],
    pub properties: &'a mut [PropertyData<'a>],
    pub property_index: &'a mut [u32],
    pub drafts: &'a mut [Draft<'a>],
    pub values: &'a mut [Value<'a>],
    pub cells: &'a mut [Cell],
    pub bytes: &'a mut [u8],
    pub labels: &'a mut [LabelData<'a>],
    pub label_index: &'a mut [u32],
    pub reservations: &'a mut [(u64, u64, Span)],
    pub references: &'a mut [Pending<'a>],
    pub tree: &'a mut [Option<TreeData<'a>>],
}

/// Declares, in the caller's scope, the memory of a [`Storage`] as `vec!`s of the lengths of a [`Capacities`], and the
/// storage itself under the name given: `lend_storage!(storage, capacities);`.
#[macro_export]
macro_rules! lend_storage {
    ($storage:ident, $capacities:expr) => {
        let capacities: &$crate::Capacities = &$capacities;
        $crate::lend_storage!(@vec files, capacities.files);
        $crate::lend_storage!(@vec macros, capacities.macros);
        $crate::lend_storage!(@vec macro_index, capacities.macros * 4);
        $crate::lend_storage!(@vec params, capacities.params);
        $crate::lend_storage!(@vec tokens, capacities.tokens);
        $crate::lend_storage!(@vec expansions, capacities.expansions);
        $crate::lend_storage!(@vec nodes, capacities.nodes);
        $crate::lend_storage!(@vec node_index, capacities.nodes * 4);
        $crate::lend_storage!(@vec phandle_index, capacities.nodes * 4);
        $crate::lend_storage!(@vec order, capacities.nodes);
        $crate::lend_storage!(@vec properties, capacities.properties);
        $crate::lend_storage!(@vec property_index, capacities.properties * 4);
        $crate::lend_storage!(@vec drafts, capacities.values);
        $crate::lend_storage!(@vec values, capacities.values);
        $crate::lend_storage!(@vec cells, capacities.cells);
        $crate::lend_storage!(@vec bytes, capacities.bytes);
        $crate::lend_storage!(@vec labels, capacities.labels);
        $crate::lend_storage!(@vec label_index, capacities.labels * 4);
        $crate::lend_storage!(@vec reservations, capacities.reservations);
        $crate::lend_storage!(@vec references, capacities.references);
        let mut tree = [::core::option::Option::None];
        let $storage = $crate::Storage {
            files: &mut files,
            macros: &mut macros,
            macro_index: &mut macro_index,
            params: &mut params,
            tokens: &mut tokens,
            expansions: &mut expansions,
            nodes: &mut nodes,
            node_index: &mut node_index,
            phandle_index: &mut phandle_index,
            order: &mut order,
            properties: &mut properties,
            property_index: &mut property_index,
            drafts: &mut drafts,
            values: &mut values,
            cells: &mut cells,
            bytes: &mut bytes,
            labels: &mut labels,
            label_index: &mut label_index,
            reservations: &mut reservations,
            references: &mut references,
            tree: &mut tree,
        };
    };
    (@vec $name:ident, $len:expr) => {
        let mut $name = ::std::vec![::core::default::Default::default(); $len];
    };
}

/// A vector in a lent slice.
pub(crate) struct List<'a, T> {
    slots: &'a mut [T],
    len: usize,
    what: Resource,
}

impl<'a, T> List<'a, T> {
    pub(crate) fn new(slots: &'a mut [T], what: Resource) -> Self {
        Self { slots, len: 0, what }
    }

    /// Appends and gives the index.
    pub(crate) fn push(&mut self, value: T) -> Result<u32, Full> {
        let slot = self.slots.get_mut(self.len).ok_or(Full(self.what))?;
        *slot = value;
        self.len += 1;
        Ok(self.len as u32 - 1)
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) fn into_slice(self) -> &'a mut [T] {
        &mut self.slots[..self.len]
    }
}

impl<T> core::ops::Deref for List<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.slots[..self.len]
    }
}

impl<T> core::ops::DerefMut for List<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.slots[..self.len]
    }
}

/// FNV-1a over a name, with a number mixed in: the key of an [`Index`].
pub(crate) fn hash(name: &[u8], with: u32) -> u64 {
    let seed = 0xcbf2_9ce4_8422_2325 ^ u64::from(with).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = name.iter().fold(seed, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    hash ^ hash >> 29
}

/// Looks in an index for an entry that `matches`.
pub(crate) fn find(slots: &[u32], hash: u64, matches: impl Fn(u32) -> bool) -> Option<u32> {
    let mut at = (hash % slots.len().max(1) as u64) as usize;
    for _ in 0..slots.len() {
        match slots[at] {
            NONE => return None,
            id if matches(id) => return Some(id),
            _ => at = if at + 1 == slots.len() { 0 } else { at + 1 },
        }
    }
    None
}

/// A hash index in a lent slice: positions of entries that live elsewhere.
pub(crate) struct Index<'a> {
    slots: &'a mut [u32],
    len: usize,
    what: Resource,
}

impl<'a> Index<'a> {
    pub(crate) fn new(slots: &'a mut [u32], what: Resource) -> Self {
        slots.fill(NONE);
        Self { slots, len: 0, what }
    }

    pub(crate) fn find(&self, hash: u64, matches: impl Fn(u32) -> bool) -> Option<u32> {
        find(self.slots, hash, matches)
    }

    /// Adds an entry; at most half of the slots are used, so that a search always ends soon.
    pub(crate) fn insert(&mut self, hash: u64, id: u32) -> Result<(), Full> {
        if (self.len + 1) * 2 > self.slots.len() {
            return Err(Full(self.what));
        }
        let mut at = (hash % self.slots.len() as u64) as usize;
        while self.slots[at] != NONE {
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        self.slots[at] = id;
        self.len += 1;
        Ok(())
    }

    pub(crate) fn into_slice(self) -> &'a [u32] {
        self.slots
    }
}

/// Bytes handed out for good, one run at a time.
pub(crate) struct Bytes<'a> {
    rest: &'a mut [u8],
    open: usize,
}

impl<'a> Bytes<'a> {
    pub(crate) fn new(slots: &'a mut [u8]) -> Self {
        Self { rest: slots, open: 0 }
    }

    /// Appends to the run that is being made.
    pub(crate) fn push(&mut self, byte: u8) -> Result<(), Full> {
        *self.rest.get_mut(self.open).ok_or(Full(Resource::Bytes))? = byte;
        self.open += 1;
        Ok(())
    }

    /// Ends the run and hands it out.
    pub(crate) fn finish(&mut self) -> &'a [u8] {
        let (run, rest) = core::mem::take(&mut self.rest).split_at_mut(self.open);
        self.rest = rest;
        self.open = 0;
        run
    }
}
