//! Reading cells: the cell counts of a bus, the entries of `reg` and `ranges`, references.
//!
//! Lenient on purpose: what does not fit is left out here and reported, with its place, by `shape`.

use cofferdam_dts::{Cell, Node, Property, Span, Tree};
use heapless::Vec;

/// Most cells of one entry this reader takes: an `interrupt-map` row of PCI on a bus with 64-bit addresses has ten.
pub const MAX_ENTRY: usize = 16;

/// An address on a bus: its low 64 bits, and the cell before them where the bus has one (PCI and ISA: the space).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BusAddress {
    /// The space cell; 0 on other buses.
    pub space: u32,
    /// The address.
    pub low: u64,
}

/// One entry of `reg`.
#[derive(Clone, Copy, Debug)]
pub struct Reg {
    /// Where, on the parent's bus.
    pub address: BusAddress,
    /// Bytes; 0 on buses without sizes.
    pub size: u64,
    /// The entry.
    pub span: Span,
}

/// One entry of `ranges`.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Where children see it.
    pub child: BusAddress,
    /// Where the parent bus sees it.
    pub parent: BusAddress,
    /// Bytes.
    pub size: u64,
    /// The entry.
    pub span: Span,
}

/// `#address-cells` of `bus`, 2 where it does not say (Devicetree Specification 0.4, 2.3.5).
pub fn address_cells(bus: Node<'_>) -> usize {
    count(bus, "#address-cells", 2)
}

/// `#size-cells` of `bus`, 1 where it does not say.
pub fn size_cells(bus: Node<'_>) -> usize {
    count(bus, "#size-cells", 1)
}

/// A `#…-cells` property, `default` where there is none or it is no number.
pub fn count(node: Node<'_>, name: &str, default: usize) -> usize {
    let number = node.property(name).and_then(Property::number);
    // Anything larger than an entry can be is equally wrong, and must not overflow sums.
    number.map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX).min(MAX_ENTRY + 1))
}

/// Whether children of `bus` are ISA devices: two address cells, of which the first is the space.
pub fn is_isa(bus: Node<'_>) -> bool {
    let by_type = bus.property("device_type").and_then(Property::string) == Some("isa");
    by_type || bus.is_compatible("isa") || bus.base_name() == "isa"
}

/// Whether children of `bus` are PCI functions.
pub fn is_pci(bus: Node<'_>) -> bool {
    matches!(bus.property("device_type").and_then(Property::string), Some("pci" | "pciex"))
}

/// Whether `node` is a PCI function or a bridge behind a host bridge.
pub fn is_function(node: Node<'_>) -> bool {
    node.parent().is_some_and(is_pci)
}

/// Whole groups of `len` cells of `property`, in order.
pub fn groups<'a>(property: Property<'a>, len: usize) -> impl Iterator<Item = Vec<Cell, MAX_ENTRY>> + 'a {
    let mut cells = property.cells();
    core::iter::from_fn(move || {
        if len == 0 || len > MAX_ENTRY {
            return None;
        }
        let group: Vec<Cell, MAX_ENTRY> = cells.as_mut()?.by_ref().take(len).collect();
        (group.len() == len).then_some(group)
    })
}

/// The place of a group of cells.
pub fn span_of(cells: &[Cell]) -> Span {
    match cells {
        [] => Span::default(),
        [first, .., last] => first.span.to(last.span),
        [only] => only.span,
    }
}

/// An address of `bus` from its cells.
fn address(bus: Node<'_>, cells: &[Cell]) -> BusAddress {
    match cells {
        [] => BusAddress::default(),
        [low] => BusAddress { space: 0, low: low.value },
        [space, low] if is_isa(bus) => BusAddress { space: space.value as u32, low: low.value },
        [high, low] => BusAddress { space: 0, low: high.value << 32 | low.value },
        [space, high, low, ..] => BusAddress { space: space.value as u32, low: high.value << 32 | low.value },
    }
}

/// One or two cells as a number.
pub fn number(cells: &[Cell]) -> u64 {
    cells.iter().fold(0, |n, cell| n << 32 | cell.value)
}

/// The entries of `node`'s `reg`.
pub fn reg<'a>(node: Node<'a>) -> impl Iterator<Item = Reg> + 'a {
    let bus = node.parent();
    let (a, s) = bus.map_or((0, 0), |bus| (address_cells(bus), size_cells(bus)));
    let entries = node.property("reg").map(|p| groups(p, a.saturating_add(s)));
    entries.into_iter().flatten().filter_map(move |cells| {
        let (at, size) = cells.split_at_checked(a)?;
        Some(Reg { address: address(bus?, at), size: number(size), span: span_of(&cells) })
    })
}

/// The entries of `bus`'s `ranges` (or `dma-ranges`, by `name`).
pub fn windows<'a>(bus: Node<'a>, name: &str) -> impl Iterator<Item = Window> + 'a {
    let parent = bus.parent();
    let (c, s) = (address_cells(bus), size_cells(bus));
    let p = parent.map_or(0, address_cells);
    let entries = bus.property(name).map(|prop| groups(prop, c.saturating_add(p).saturating_add(s)));
    entries.into_iter().flatten().filter_map(move |cells| {
        let (child, rest) = cells.split_at_checked(c)?;
        let (up, size) = rest.split_at_checked(p)?;
        let (child, up) = (address(bus, child), address(parent?, up));
        Some(Window { child, parent: up, size: number(size), span: span_of(&cells) })
    })
}

/// The node a cell refers to: by reference, or by the number of a phandle.
pub fn target<'a>(tree: Tree<'a>, cell: &Cell) -> Option<Node<'a>> {
    match cell.target {
        Some(id) => Some(tree.node(id)).filter(|node| !node.is_deleted()),
        None => u32::try_from(cell.value).ok().and_then(|phandle| tree.by_phandle(phandle)),
    }
}

/// What `node` itself says of being coherent with the caches.
pub fn says_coherent(node: Node<'_>) -> Option<bool> {
    let has = |name| node.property(name).is_some();
    (has("dma-coherent") || has("dma-noncoherent")).then(|| !has("dma-noncoherent"))
}

/// Whether what `node` does is coherent with the caches: the nearest word on the way to the root; without any it is not.
pub fn is_coherent(node: Node<'_>) -> bool {
    core::iter::once(node).chain(node.ancestors()).find_map(says_coherent).unwrap_or(false)
}

/// Whether a node is part of the board, and it and everything above it is enabled.
pub fn is_live(node: Node<'_>) -> bool {
    let layout = |above: Node<'_>| above.name() == "domains" && above.ancestors().count() == 1;
    node.is_enabled() && node.ancestors().all(|above| above.is_enabled() && !layout(above))
}
