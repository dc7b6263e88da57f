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

    /// Gives `node` and everything enabled below it to `grant`. Stops at the first that has an owner and returns it with
    /// its grant.
    pub(super) fn give<'a>(&mut self, node: Node<'a>, grant: usize) -> Result<(), (Node<'a>, usize)> {
        if let Some(owner) = self.of(node) {
            return Err((node, owner));
        }
        if let Some(slot) = self.slots.get_mut(node.id().0 as usize) {
            *slot = grant as u32 + 1;
        }
        node.children().filter(|child| child.is_enabled()).try_for_each(|child| self.give(child, grant))
    }

    /// Takes back what [`Owners::give`] has given to `grant` before it stopped.
    pub(super) fn take_back(&mut self, node: Node<'_>, grant: usize) {
        if self.of(node) == Some(grant) {
            self.slots[node.id().0 as usize] = 0;
            node.children().for_each(|child| self.take_back(child, grant));
        }
    }
}
