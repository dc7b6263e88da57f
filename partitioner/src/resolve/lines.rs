//! Interrupts: which SPIs the board uses, which are left for virtual consoles, who owns what.

use crate::codes;
use crate::model::{Board, Layout};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property};
use cofferdam_plan::IntId;
use cofferdam_plan::limits::INTID_WORDS;

/// A set of INTIDs, word by word as in the distributor.
#[derive(Clone, Copy, Default)]
pub(crate) struct IntSet(pub(crate) [u32; INTID_WORDS]);

impl IntSet {
    /// Adds one.
    pub(crate) fn insert(&mut self, intid: IntId) {
        if let Some(word) = self.0.get_mut(intid.word()) {
            *word |= intid.bit();
        }
    }

    /// Whether it is in.
    pub(crate) fn contains(&self, intid: IntId) -> bool {
        self.0.get(intid.word()).is_some_and(|word| word & intid.bit() != 0)
    }
}

/// Every SPI any node of the board may use, enabled or not.
///
/// Deliberately generous: a number wrongly counted as used costs nothing, one wrongly counted as free would put two
/// interrupts on one line.
pub(crate) fn used(board: &Board<'_>, layout: &Layout<'_, '_>) -> IntSet {
    let mut set = IntSet::default();
    for node in board.tree.nodes() {
        for property in node.properties() {
            match property.name() {
                "interrupts" => triples(&mut set, property),
                "interrupts-extended" | "interrupt-map" => references(&mut set, board, property),
                _ => {}
            }
        }
    }
    let devices = layout.interrupts.iter().map(|line| line.intid);
    let uarts = [&board.console, &board.log].into_iter().flatten().filter_map(|uart| uart.intid);
    devices.chain(uarts).for_each(|intid| set.insert(intid));
    set
}

/// `<type number flags>` again and again: type 0 is an SPI (Linux, arm,gic-v3.yaml).
fn triples(set: &mut IntSet, property: Property<'_>) {
    let Some(mut cells) = property.cells() else { return };
    while let (Some(kind), Some(number), Some(_)) = (cells.next(), cells.next(), cells.next()) {
        spi(set, kind.value, number.value);
    }
}

/// Specifiers behind a reference to the interrupt controller, whose own address cells come first.
fn references(set: &mut IntSet, board: &Board<'_>, property: Property<'_>) {
    let (Some(gic), Some(cells)) = (&board.gic, property.cells()) else { return };
    let address = if property.name() == "interrupt-map" { address_cells(gic.node) } else { 0 };
    let mut rest = cells;
    while let Some(cell) = rest.next() {
        let is_gic =
            cell.target == Some(gic.node.id()) || gic.node.phandle().is_some_and(|p| u64::from(p) == cell.value);
        if is_gic {
            let mut specifier = rest.clone().skip(address);
            if let (Some(kind), Some(number)) = (specifier.next(), specifier.next()) {
                spi(set, kind.value, number.value);
            }
        }
    }
}

fn address_cells(node: Node<'_>) -> usize {
    node.property("#address-cells").and_then(Property::number).unwrap_or(0).min(4) as usize
}

fn spi(set: &mut IntSet, kind: u64, number: u64) {
    if kind == 0
        && let Some(intid) = u32::try_from(number).ok().and_then(IntId::spi)
    {
        set.insert(intid);
    }
}

/// Takes the lowest SPI nobody uses.
pub(crate) fn take<'a>(
    used: &mut IntSet,
    domain: &crate::model::Domain<'a>,
    out: &mut Diagnostics<'_, 'a>,
) -> Option<IntId> {
    let free = (IntId::FIRST_SPI.0..=IntId::LAST_SPI.0).map(IntId).find(|intid| !used.contains(*intid));
    match free {
        Some(intid) => used.insert(intid),
        None => out.push(
            Diagnostic::new(
                codes::NO_FREE_SPI,
                domain.console.unwrap_or(domain.node.span()),
                "no interrupt is left for the console or the watchdog of domain `{0}`: the board uses all 988",
            )
            .args(&[Arg::Text(domain.name)])
            .help("remove it from a domain that can do without"),
        ),
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let mut set = IntSet::default();
        set.insert(IntId(33));
        set.insert(IntId(64));
        assert!(set.contains(IntId(33)) && !set.contains(IntId(32)));
    }
}
