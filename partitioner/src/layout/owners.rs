//! Which grant each node of the board belongs to: one slot per node, so that every question takes one step.

use crate::lent::{Full, Lent};
use cofferdam_dts::{Node, Tree};

/// Owner of every node of one tree.
pub(super) struct Owners<'m> {
    /// Index of the grant plus one; 0 for nobody.
    slots: &'m mut [u32],
}

impl<'m> Owners<'m> {
    /// Nobody owns anything.
    pub(super) fn new(tree: Tree<'_>, slots: &'m mut [u32]) -> Result<Self, Full> {
        let needed = tree.nodes().map(|node| node.id().0 as usize + 1).max().unwrap_or(0);
        let slots = slots.get_mut(..needed).ok_or(Full(Lent::Owners))?;
        slots.fill(0);
        Ok(Self { slots })
    }

    /// Index of the grant `node` belongs to.
    pub(super) fn of(&self, node: Node<'_>) -> Option<usize> {
        self.slots.get(node.id().0 as usize).and_then(|slot| (*slot as usize).checked_sub(1))
    }

    /// Gives one node to `grant`, unless it has an owner.
    ///
    /// # Errors
    /// The grant that owns it.
    pub(super) fn give(&mut self, node: Node<'_>, grant: usize) -> Result<(), usize> {
        if let Some(owner) = self.of(node) {
            return Err(owner);
        }
        if let Some(slot) = self.slots.get_mut(node.id().0 as usize) {
            *slot = grant as u32 + 1;
        }
        Ok(())
    }

    /// Takes `node` and everything below it back from grants from `first` on.
    pub(super) fn take_back(&mut self, node: Node<'_>, first: usize) {
        if self.of(node).is_some_and(|owner| owner >= first) {
            self.slots[node.id().0 as usize] = 0;
            node.children().for_each(|child| self.take_back(child, first));
        }
    }
}
