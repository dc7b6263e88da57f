//! What a guest's devices are supplied with by others: clocks it cannot change become fixed ones, and so do regulators.

use super::copied::phandle;
use super::fdt::Fdt;
use super::guest::Guest;
use crate::cells::is_live;
use crate::clocks;
use cofferdam_dts::Node;

/// The virtual console's clock, in Hz: what QEMU's PL011 has too. Nothing depends on it, its baud rate is not a line's.
pub(super) const CONSOLE: u32 = 24_000_000;
/// A fixed clock's phandle is its rate, marked by this bit.
const CLOCK: u32 = 1 << 31;
/// What a fixed regulator says of itself.
const REGULATOR: &[&str] =
    &["compatible", "regulator-name", "regulator-min-microvolt", "regulator-max-microvolt", "regulator-always-on"];

/// The phandle of the fixed clock of this rate.
pub(super) fn fixed(rate: u32) -> u32 {
    CLOCK | rate
}

impl<'a> Guest<'_, 'a, '_> {
    /// `clocks` of one node: granted providers as they are, others by their rate. Returns whether there are any.
    pub(super) fn clocks(&self, node: Node<'a>, fdt: &mut Fdt<'_>) -> bool {
        let mut list = clocks::list(node, "clocks").peekable();
        let known = |clock: &clocks::Clock<'a>| self.has(clock.provider) || clocks::rate(node, clock).is_some();
        if list.peek().is_none() || !clocks::list(node, "clocks").all(|clock| known(&clock)) {
            return false;
        }
        fdt.property("clocks", |fdt| {
            for clock in list {
                match clocks::rate(node, &clock).filter(|_| !self.has(clock.provider)) {
                    Some(rate) => fdt.cell(fixed(rate)),
                    None => {
                        fdt.cell(phandle(clock.provider));
                        clock.arguments.iter().for_each(|argument| fdt.cell(*argument as u32));
                    }
                }
            }
        });
        true
    }

    /// Every fixed clock and regulator the tree refers to, each once.
    pub(super) fn supplies(&self, fdt: &mut Fdt<'_>) {
        let mut last = 0;
        while let Some(rate) = self.next_rate(last) {
            fdt.begin(format_args!("clock-{rate}"));
            fdt.strings("compatible", &["fixed-clock"]);
            fdt.number("#clock-cells", 0);
            fdt.number("clock-frequency", rate);
            fdt.number("phandle", fixed(rate));
            fdt.end();
            last = rate;
        }
        let regulators = self.board.tree.nodes().filter(|node| node.is_compatible("regulator-fixed") && is_live(*node));
        for regulator in regulators.filter(|regulator| self.supplies_something(*regulator)) {
            fdt.begin(format_args!("regulator-{}", regulator.id().0));
            for property in REGULATOR.iter().filter_map(|name| regulator.property(name)) {
                fdt.property(property.name(), |fdt| fdt.values(property, phandle, |_, _| ()));
            }
            fdt.number("phandle", phandle(regulator));
            fdt.end();
        }
    }

    /// The nodes of board and overlay that are in the guest's tree.
    fn present(&self) -> impl Iterator<Item = Node<'a>> {
        let board = self.board.tree.nodes().filter(|node| !node.is_compatible("regulator-fixed") && self.has(*node));
        board.chain(self.overlay_nodes())
    }

    /// The lowest rate above `last` of a fixed clock that is referred to.
    fn next_rate(&self, last: u32) -> Option<u32> {
        let console = self.decided.vuart.map(|_| CONSOLE);
        let others = self.present().flat_map(|node| {
            let foreign = clocks::list(node, "clocks")
                .filter(|clock| !self.has(clock.provider) && !self.is_overlay(clock.provider));
            foreign.filter_map(move |clock| clocks::rate(node, &clock))
        });
        console.into_iter().chain(others).filter(|rate| *rate > last).min()
    }

    fn supplies_something(&self, regulator: Node<'a>) -> bool {
        let is_it = |cell: cofferdam_dts::Cell| crate::cells::target(self.board.tree, &cell) == Some(regulator);
        self.present()
            .flat_map(Node::properties)
            .filter(|property| property.name().ends_with("-supply"))
            .any(|property| property.cells().is_some_and(|mut cells| cells.any(is_it)))
    }
}
