//! The shape of the tree: what every enabled node must satisfy before anything is read out of it.
//!
//! Readers elsewhere are lenient and leave out what does not fit; this is where it is reported, once. Disabled nodes are
//! not looked at: a board may carry descriptions of what is not there. It must not know domains.

mod address;
mod buses;
mod lists;
mod names;

use crate::front::Sorted;
use crate::lent::Full;
use cofferdam_dts::{Diagnostics, Node, Tree};

/// Checks every enabled node of `tree`.
///
/// # Errors
/// `sort` is shorter than the longest list of siblings.
pub(crate) fn check<'a>(
    tree: Tree<'a>,
    sort: &mut [Sorted],
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<(), Full> {
    names::aliases(tree, diagnostics);
    buses::hosts(tree, diagnostics);
    node(tree.root(), sort, diagnostics)
}

fn node<'a>(at: Node<'a>, sort: &mut [Sorted], diagnostics: &mut Diagnostics<'_, 'a>) -> Result<(), Full> {
    buses::cells(at, diagnostics);
    buses::ranges(at, diagnostics);
    buses::interrupt_map(at, diagnostics);
    buses::function(at, diagnostics);
    address::reg(at, diagnostics);
    address::unit(at, diagnostics);
    lists::check(at, diagnostics);
    names::place(at, diagnostics);
    names::count(at, diagnostics);
    address::siblings(at, sort, diagnostics)?;
    // An overlay is a part of another tree: its cells and neighbours are there.
    let is_overlay = |child: &Node<'a>| child.name() == "overlay" && at.is_compatible("cofferdam,domain");
    at.children()
        .filter(|child| child.is_enabled() && !is_overlay(child))
        .try_for_each(|child| node(child, sort, diagnostics))
}
