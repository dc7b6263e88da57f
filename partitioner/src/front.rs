//! From the merged tree to a typed board and layout, in the caller's memory.
//!
//! Order: shape of the tree → board → layout. Each reports all it finds and leaves out what it cannot use, so that the
//! next one can go on.

use crate::lent::Full;
use crate::model::{Board, DeviceGrant, DeviceInterrupt, DeviceRegion, Layout, PortGrant};
use crate::{board, codes, layout, shape};
use cofferdam_dts::{Code, Diagnostics, Tree};

/// Memory lent for reading one layout. What is too short is named by [`Full`].
pub struct Memory<'m, 'a> {
    /// One per granted device.
    pub devices: &'m mut [DeviceGrant<'a>],
    /// One per register range of a granted device.
    pub regions: &'m mut [DeviceRegion],
    /// One per interrupt of a granted device.
    pub interrupts: &'m mut [DeviceInterrupt],
    /// One per port range.
    pub ports: &'m mut [PortGrant],
    /// For sorting: one per `reg` entry of the tree and per node.
    pub sort: &'m mut [Sorted],
    /// One per node of the tree, deleted ones included.
    pub owners: &'m mut [u32],
}

/// An entry of [`Memory::sort`]: a range and what it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Sorted {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) node: u32,
    pub(crate) grant: u32,
}

/// What the source's own errors bring about: where something could not be read, it is missing or too short afterwards.
const ABSENCES: &[Code] = &[
    codes::MISSING,
    codes::WRONG_TYPE,
    codes::REG_LENGTH,
    codes::RANGES_LENGTH,
    codes::DEFAULT_CELLS,
    codes::UNIT_ADDRESS,
    codes::UNTRANSLATABLE,
    codes::SHORT_LIST,
    codes::NAMES_COUNT,
    codes::ALIAS_TARGET,
    codes::RAM_OUTSIDE,
    codes::HOST_ADDRESS_COUNT,
    codes::CPU_COUNT,
    codes::ENABLE_METHOD,
    codes::NO_PSCI,
    codes::BAD_SPECIFIER,
    codes::NOT_A_CONTROLLER,
    codes::BAD_INTERRUPT_MAP,
    codes::BAD_INTERRUPT_MASK,
    codes::PCI_BRIDGE,
    codes::NOT_A_DEVICE,
    codes::NO_CONSOLE,
    codes::UNKNOWN_ARCHITECTURE,
];

/// Reads board and layout. After errors in the source it goes on with what could be understood. Everything wrong goes to `diagnostics`.
///
/// # Errors
/// [`Full`] names the lent slice that was too short: double it and call again, with empty diagnostics.
pub fn read<'a, 'm>(
    tree: Tree<'a>,
    memory: Memory<'m, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<(Board<'a>, Layout<'a, 'm>), Full> {
    if diagnostics.errors() > 0 {
        diagnostics.mute(ABSENCES);
    }
    shape::check(tree, memory.sort, diagnostics)?;
    let board = board::read(tree, diagnostics);
    let layout = layout::read(&board, memory, diagnostics)?;
    Ok((board, layout))
}
