//! Vectors over slices the caller lends: the compiler has no allocator and no limit of its own.

/// What ran out. The caller lends twice as much of it and compiles again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lent {
    /// [`crate::compile::Memory::blob`].
    Blob,
    /// [`crate::compile::Memory::pieces`].
    Pieces,
    /// [`crate::compile::Memory::payloads`].
    Payloads,
    /// [`crate::compile::Memory::ranges`].
    Ranges,
    /// [`crate::compile::Memory::scratch`].
    Scratch,
    /// [`crate::compile::Memory::bytes`].
    Bytes,
    /// [`crate::front::Memory::devices`].
    Devices,
    /// [`crate::front::Memory::regions`].
    Regions,
    /// [`crate::front::Memory::interrupts`].
    Interrupts,
    /// [`crate::front::Memory::ports`].
    Ports,
    /// [`crate::front::Memory::sort`].
    Sort,
    /// [`crate::front::Memory::owners`].
    Owners,
}

/// A lent slice was too short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full(pub Lent);

/// A vector in a lent slice.
pub(crate) struct List<'m, T> {
    slots: &'m mut [T],
    len: usize,
    what: Lent,
}

impl<'m, T> List<'m, T> {
    /// An empty list in `slots`.
    pub(crate) fn new(slots: &'m mut [T], what: Lent) -> Self {
        Self { slots, len: 0, what }
    }

    /// Appends.
    pub(crate) fn push(&mut self, value: T) -> Result<(), Full> {
        let slot = self.slots.get_mut(self.len).ok_or(Full(self.what))?;
        *slot = value;
        self.len += 1;
        Ok(())
    }

    /// Forgets everything behind the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The list as a slice for as long as the memory is lent.
    pub(crate) fn into_slice(self) -> &'m [T] {
        &self.slots[..self.len]
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
