//! The host bridge: configuration space, windows, what is on its buses, and the SMMU and ITS it leads to.
//!
//! Lenient: what is wrong is left out here and reported by `shape` and `check`.

use super::function::{self, Phys};
use super::model::{ItsNode, MAX_WINDOWS, PciFunction, PciHost, SmmuNode, Space, Window};
use super::smmu;
use crate::address::{self, Located};
use crate::cells::{self, is_live, is_pci, target};
use crate::codes;
use crate::interrupts::{self, Line, Trigger};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property, Tree};
use cofferdam_plan::limits::MAX_FUNCTIONS;
use cofferdam_plan::{Bdf, IntId};
use heapless::Vec;

/// The host bridges driven: those with nothing but ECAM (Linux, host-generic-pci.yaml).
const HOST: &str = "pci-host-ecam-generic";
/// Both register pages of an SMMUv3 (IHI 0070, 6.1), both frames of an ITS (IHI 0069, 12.17).
const FRAMES: u64 = 0x2_0000;

/// Whether `node` is a PCI host bridge that is there.
pub(crate) fn is_host(node: Node<'_>) -> bool {
    is_live(node) && is_pci(node) && !node.parent().is_some_and(is_pci)
}

/// Reads the board's PCI host bridge: of several, the first with functions described.
pub fn read<'a>(tree: Tree<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> Option<PciHost<'a>> {
    let mut hosts = tree.nodes().filter(|node| is_host(*node) && node.is_compatible(HOST));
    let first = hosts.next()?;
    let has_functions = |node: &Node<'a>| functions_below(*node).next().is_some();
    let node = Some(first).filter(has_functions).or_else(|| hosts.find(has_functions)).unwrap_or(first);
    let (ecam, _) = address::memory(node).next()?;
    let last = (ecam.size >> 20).clamp(1, 256) - 1;
    let buses = function::buses(node).unwrap_or((0, last as u8));
    let mut host = PciHost {
        node,
        ecam,
        buses,
        windows: windows(node, diagnostics),
        functions: Vec::new(),
        smmu: rows(node, "iommu-map").find_map(|row| driven(row.target)),
        its: rows(node, "msi-map").map(|row| row.target).chain(parent(node)).find_map(its),
    };
    collect(node, None, &mut host.functions, diagnostics);
    sort(&mut host.functions);
    let requesters: Vec<Bdf, MAX_FUNCTIONS> = (0..host.functions.len()).map(|index| host.requester(index)).collect();
    for (function, rid) in host.functions.iter_mut().zip(requesters) {
        if function.speaks_for_others() {
            continue; // The ID is that of what is behind it.
        }
        // One SMMU and one ITS are driven: what goes through another is not held back, and its messages are not told apart.
        let (driven, translates) = (host.smmu.map(|smmu| smmu.node), host.its.map(|its| its.node));
        function.stream = through(node, "iommu-map", rid).filter(|(n, _)| Some(*n) == driven).map(|(_, id)| id);
        // Without a map the requester ID is the DeviceID (Linux, pci-msi.txt).
        let plain = || parent(node).filter(|_| node.property("msi-map").is_none()).map(|n| (n, rid.0.into()));
        let found = through(node, "msi-map", rid).or_else(plain);
        function.device_id = found.filter(|(n, _)| Some(*n) == translates).map(|(_, id)| id);
    }
    Some(host)
}

/// Functions and bridges described on the bus of `node`.
pub(crate) fn functions_below<'a>(node: Node<'a>) -> impl Iterator<Item = Node<'a>> {
    // A virtual function is there only when a driver of its physical function has made it.
    let is_virtual = |child: &Node<'a>| child.property(function::PHYSICAL).is_some();
    node.children().filter(move |child| child.is_enabled() && child.property("reg").is_some() && !is_virtual(child))
}

/// Adds what is on the bus of `node`, bridges before what is behind them.
fn collect<'a>(
    node: Node<'a>,
    above: Option<usize>,
    list: &mut Vec<PciFunction<'a>, MAX_FUNCTIONS>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    for child in functions_below(node) {
        let Some(found) = function::read(child, above) else { continue };
        let index = list.len();
        if list.push(found).is_err() {
            let d =
                Diagnostic::new(codes::CAPACITY, child.span(), "{0} is one PCI function more than the {1} of a plan");
            let d = d.args(&[Arg::Node(child), Arg::Number(MAX_FUNCTIONS as u64)]);
            return diagnostics.push(d.help("disable functions nobody needs: status = \"disabled\";"));
        }
        if is_pci(child) {
            collect(child, Some(index), list, diagnostics);
        }
    }
}

/// Brings functions into the order of their BDFs, and what they say of each other with them.
fn sort(list: &mut Vec<PciFunction<'_>, MAX_FUNCTIONS>) {
    let parents: Vec<Option<Node<'_>>, MAX_FUNCTIONS> =
        list.iter().map(|f| f.above.and_then(|above| list.get(above)).map(|bridge| bridge.node)).collect();
    let mut order: Vec<(Bdf, usize), MAX_FUNCTIONS> = list.iter().enumerate().map(|(at, f)| (f.bdf, at)).collect();
    order.sort_unstable();
    let mut sorted: Vec<PciFunction<'_>, MAX_FUNCTIONS> =
        order.iter().filter_map(|(_, at)| list.get(*at).cloned()).collect();
    let nodes: Vec<Node<'_>, MAX_FUNCTIONS> = sorted.iter().map(|f| f.node).collect();
    for (function, (_, at)) in sorted.iter_mut().zip(&order) {
        let parent = parents.get(*at).copied().flatten();
        function.above = parent.and_then(|parent| nodes.iter().position(|node| *node == parent));
    }
    *list = sorted;
}

/// `ranges` of a host bridge. What the CPU cannot see is left out.
fn windows<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> Vec<Window, MAX_WINDOWS> {
    let mut list = Vec::new();
    for entry in cells::windows(node, "ranges") {
        let phys = Phys(entry.child.space);
        let place = node.parent().and_then(|bus| address::from_bus(bus, entry.parent, entry.size).ok());
        let (Some(space), Some(Located::Memory(pa))) = (phys.space(), place) else { continue };
        let prefetchable = phys.prefetchable();
        let window = Window { space, prefetchable, bus: entry.child.low, pa, span: entry.span };
        if list.push(window).is_err() {
            let d = Diagnostic::new(codes::CAPACITY, entry.span, "{0} has more than {1} windows");
            diagnostics.push(d.args(&[Arg::Node(node), Arg::Number(MAX_WINDOWS as u64)]));
        }
    }
    list
}

/// One row of `iommu-map` or `msi-map`: requester IDs from `first`, as IDs of `target` from `base`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) first: u32,
    pub(crate) len: u32,
    pub(crate) target: Node<'a>,
    pub(crate) base: u32,
}

/// The rows of a map: four cells each (Linux, pci-iommu.txt and pci-msi.txt).
pub(crate) fn rows<'a>(node: Node<'a>, name: &str) -> impl Iterator<Item = Row<'a>> {
    node.property(name).into_iter().flat_map(|map| cells::groups(map, 4)).filter_map(move |row| {
        let [first, reference, base, len] = row.as_slice() else { return None };
        let cell = |value: u64| u32::try_from(value).ok();
        let target = target(node.tree(), reference)?;
        Some(Row { first: cell(first.value)?, len: cell(len.value)?, target, base: cell(base.value)? })
    })
}

/// The controller and ID that requester `rid` has behind the map `name`, masked as `<name>-mask` says.
pub(crate) fn through<'a>(node: Node<'a>, name: &str, rid: Bdf) -> Option<(Node<'a>, u32)> {
    let mask = if name == "iommu-map" { "iommu-map-mask" } else { "msi-map-mask" };
    let mask = node.property(mask).and_then(Property::number).unwrap_or(0xFFFF);
    let rid = u32::from(rid.0) & mask as u32;
    rows(node, name).find_map(|row| {
        let offset = rid.checked_sub(row.first).filter(|offset| *offset < row.len)?;
        Some((row.target, row.base.checked_add(offset)?))
    })
}

/// `msi-parent` of the host bridge.
pub(crate) fn parent(node: Node<'_>) -> Option<Node<'_>> {
    let cell = node.property("msi-parent")?.cells()?.next()?;
    target(node.tree(), &cell)
}

/// The SMMU `node`, where it is one and all there.
fn driven(node: Node<'_>) -> Option<SmmuNode<'_>> {
    let (region, _) = address::memory(node).next().filter(|_| node.is_compatible("arm,smmu-v3"))?;
    let specifiers = interrupts::of(node).unwrap_or_default();
    let names = node.property("interrupt-names");
    let line = |name: &str| -> Option<IntId> {
        let at = names?.strings().position(|(text, _)| text == name)?;
        match interrupts::gic(&specifiers.get(at)?.cells) {
            Line::Shared(intid, Trigger::Edge) => Some(intid),
            _ => None,
        }
    };
    let whole = region.size >= FRAMES && is_live(node);
    whole.then(|| SmmuNode { node, region, event: line("eventq"), error: line("gerror"), idr: smmu::idr(node) })
}

fn its(node: Node<'_>) -> Option<ItsNode<'_>> {
    let (region, _) = address::memory(node).next().filter(|_| node.is_compatible("arm,gic-v3-its"))?;
    (region.size >= FRAMES && is_live(node)).then_some(ItsNode { node, region })
}

impl PciHost<'_> {
    /// The requester ID under which what a function does arrives at the SMMU and the ITS: its own, or that of the topmost bridge to
    /// conventional PCI above it (PCI Express to PCI/PCI-X Bridge 1.0, 2.3: of device 0 on the bus behind it; without PCI Express
    /// above, its own). A bridge from conventional PCI to PCI Express (type 8) uses its own, and is not told apart: of what is behind one
    /// the ID is wrong, and the SMMU lets nothing of it through.
    pub fn requester(&self, index: usize) -> Bdf {
        let of = |index: usize| self.functions.get(index);
        let bridges = self.bridges_above(index).filter_map(of).filter(|bridge| bridge.speaks_for_others());
        let own = of(index).map_or(Bdf(0), |function| function.bdf);
        bridges.last().map_or(own, |bridge| match (bridge.port(), bridge.bridge) {
            (Some(_), Some((secondary, _))) => Bdf(u16::from(secondary) << 8),
            _ => bridge.bdf,
        })
    }

    /// Index of the function with this node.
    pub fn index_of(&self, node: Node<'_>) -> Option<usize> {
        self.functions.iter().position(|function| function.node == node)
    }

    /// Indices of the bridges above the function at `index`, nearest first.
    pub fn bridges_above(&self, index: usize) -> impl Iterator<Item = usize> {
        let above = |index: usize| self.functions.get(index).and_then(|function| function.above);
        // A bridge is above what is in its node: the tree's depth ends the walk.
        core::iter::successors(above(index), move |bridge| above(*bridge))
    }

    /// Whether an I/O window leads to the bus. On an architecture without I/O ports no guest is given one.
    pub fn io_window(&self) -> Option<&Window> {
        self.windows.iter().find(|window| window.space == Space::Io)
    }
}
