//! Checks of the merged tree that hold for any device tree.

use crate::{Diagnostics, Tree};

/// All of them. `scratch` has room for an index per node.
pub(crate) fn all<'a>(tree: Tree<'a>, scratch: &mut [u32], diagnostics: &mut Diagnostics<'_, 'a>) {
    let _ = (tree, scratch, diagnostics);
}
