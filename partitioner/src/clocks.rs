//! Rates of clocks that somebody else controls: what a domain must know of a clock it cannot change.
//!
//! A rate is known where the board (or the layout, which may add to it) says it: a fixed clock, a rate assigned to the very
//! input or output, or a fixed factor of a known one. Nothing is guessed.

use crate::cells::{count, target};
use cofferdam_dts::{Cell, Node, Property};
use heapless::Vec;

/// Most arguments of a clock specifier that are looked at.
const MAX_ARGUMENTS: usize = 8;
/// Longest chain of fixed factors.
const DEPTH: u32 = 8;
/// Rates from here on do not stand in a guest's tree: its phandles keep a bit for what they are.
const TOO_FAST: u64 = (1 << 31) - 1;

/// One clock as a consumer names it.
pub(crate) struct Clock<'a> {
    /// The clock's provider.
    pub(crate) provider: Node<'a>,
    /// Which of its outputs.
    pub(crate) arguments: Vec<u64, MAX_ARGUMENTS>,
    /// The reference.
    pub(crate) cell: Cell,
}

/// The clocks of a list of `node`: `clocks` or `assigned-clocks`. Ends at what cannot be read; `shape` has reported it.
pub(crate) fn list<'a>(node: Node<'a>, name: &str) -> impl Iterator<Item = Clock<'a>> + use<'a> {
    let mut cells = node.property(name).and_then(Property::cells).into_iter().flatten();
    core::iter::from_fn(move || {
        let cell = cells.next()?;
        let provider = target(node.tree(), &cell)?;
        let arguments = cells.by_ref().take(count(provider, "#clock-cells", 0)).map(|cell| cell.value).collect();
        Some(Clock { provider, arguments, cell })
    })
}

/// The rate in Hz of a clock that `consumer` uses, where it is known.
pub(crate) fn rate(consumer: Node<'_>, clock: &Clock<'_>) -> Option<u32> {
    known(consumer, clock, DEPTH).filter(|rate| *rate > 0 && *rate < TOO_FAST).map(|rate| rate as u32)
}

fn known(consumer: Node<'_>, clock: &Clock<'_>, depth: u32) -> Option<u64> {
    let provider = clock.provider;
    if let Some(rate) = assigned(consumer, clock).or_else(|| assigned(provider, clock)) {
        return Some(rate);
    }
    let number = |name| provider.property(name).and_then(Property::number);
    if !clock.arguments.is_empty() {
        return None;
    }
    if provider.is_compatible("fixed-factor-clock") {
        let parent = list(provider, "clocks").next()?;
        let rate = known(provider, &parent, depth.checked_sub(1)?)?;
        return rate.checked_mul(number("clock-mult")?)?.checked_div(number("clock-div")?);
    }
    number("clock-frequency")
}

/// The rate of a provider of one clock, whoever uses it.
pub(crate) fn own_rate(provider: Node<'_>) -> Option<u32> {
    provider.property("#clock-cells")?;
    let clock = Clock { provider, arguments: Vec::new(), cell: Cell::default() };
    rate(provider, &clock).filter(|_| count(provider, "#clock-cells", 0) == 0)
}

/// What `node` has assigned to `clock` (`assigned-clocks` and `assigned-clock-rates`, one rate for each).
fn assigned(node: Node<'_>, clock: &Clock<'_>) -> Option<u64> {
    let same = |other: &Clock<'_>| other.provider == clock.provider && other.arguments == clock.arguments;
    let position = list(node, "assigned-clocks").position(|other| same(&other))?;
    let rate = node.property("assigned-clock-rates").and_then(Property::cells)?.nth(position)?.value;
    // 0 stands for "not assigned" (Linux, clock/clock.yaml).
    (rate != 0).then_some(rate)
}
