//! The shape of the tree.
use crate::front::Sorted;
use crate::lent::Full;
use cofferdam_dts::{Diagnostics, Tree};
pub(crate) fn check<'a>(
    _tree: Tree<'a>,
    _sort: &mut [Sorted],
    _diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<(), Full> {
    Ok(())
}
