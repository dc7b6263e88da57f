//! Nodes of the board in a guest's tree: their properties, as far as what they refer to is there too.

use super::fdt::Fdt;
use super::guest::{GIC, Guest, interrupt};
use crate::cells::{self, count, target};
use crate::interrupts::{self, Line, Trigger};
use crate::model::DeviceGrant;
use cofferdam_dts::{Node, NodeId, Property, ValueKind};

/// Phandles of copied nodes start here, by their place in the board's tree.
const COPIED: u32 = 0x100;

/// Properties that are written anew or mean nothing to a guest.
const DROPPED: &[&str] = &[
    "reg",
    "ranges",
    "dma-ranges",
    "clocks",
    "interrupts",
    "interrupts-extended",
    "interrupt-parent",
    "interrupt-map",
    "interrupt-map-mask",
    "phandle",
    "linux,phandle",
    "status",
    "secure-status",
    "iommus",
    "iommu-map",
    "iommu-map-mask",
    "msi-parent",
    "msi-map",
    "bootph-all",
    "cofferdam,boot-medium",
];

/// Properties whose numbers are phandles, and the list that goes with them and means nothing without.
const REFERENCES: &[(&str, &str)] = &[
    ("resets", "reset-names"),
    ("power-domains", "power-domain-names"),
    ("dmas", "dma-names"),
    ("phys", "phy-names"),
    ("mboxes", "mbox-names"),
    ("pwms", "pwm-names"),
    ("io-channels", "io-channel-names"),
    ("interconnects", "interconnect-names"),
    ("nvmem-cells", "nvmem-cell-names"),
    ("assigned-clocks", "assigned-clock-rates"),
    ("assigned-clock-parents", "assigned-clock-rates"),
    ("pinctrl-0", "pinctrl-names"),
    ("phy-handle", ""),
    ("memory-region", "memory-region-names"),
    ("gpio-ranges", ""),
    ("operating-points-v2", ""),
];

impl<'a> Guest<'_, 'a, '_> {
    /// A granted device at the root, at its guest addresses. A bus that only passes addresses on is no device: what is on it
    /// stands at the root.
    pub(super) fn device(&self, device: &DeviceGrant<'a>, fdt: &mut Fdt<'_>) {
        let node = device.node;
        let root = self.board.tree.root();
        if self.is_transparent(device) {
            self.children(node, root, fdt);
            return;
        }
        let regions = self.layout.regions.get(device.regions.clone()).unwrap_or(&[]);
        self.begin(device, fdt);
        if !regions.is_empty() {
            fdt.property("reg", |fdt| {
                for region in regions {
                    fdt.cells2(region.ipa.0);
                    fdt.cells2(region.pa.size);
                }
            });
        }
        coherence(node, root, fdt);
        self.body(node, fdt);
        fdt.end();
    }

    /// Starts a granted device's node under the name it has at the root.
    fn begin(&self, device: &DeviceGrant<'a>, fdt: &mut Fdt<'_>) {
        match self.layout.regions.get(device.regions.clone()).and_then(|regions| regions.first()) {
            Some(first) => fdt.begin(format_args!("{}@{:x}", device.node.base_name(), first.ipa.0)),
            None => fdt.begin(format_args!("{}", device.node.base_name())),
        }
    }

    /// A grant without anything for the CPU: a bus with an empty or plain `ranges`, say.
    fn is_transparent(&self, device: &DeviceGrant<'a>) -> bool {
        device.regions.is_empty() && interrupts::of(device.node).is_ok_and(|list| list.is_empty())
    }

    /// Properties, phandle and those children that are not granted on their own.
    fn body(&self, node: Node<'a>, fdt: &mut Fdt<'_>) {
        let interrupts = self.interrupts(node, fdt);
        let clocks = self.clocks(node, fdt);
        for property in node.properties() {
            let without = match property.name() {
                "interrupt-names" => !interrupts,
                "clock-names" => !clocks,
                "#address-cells" | "#size-cells" => self.bodies(node).next().is_none(),
                _ => false,
            };
            if !without && self.keeps(property) {
                self.copy(property, fdt);
            }
        }
        // dtc wants it of whoever can be named as interrupt parent; without children it says nothing else.
        if node.property("interrupt-controller").is_some() && self.bodies(node).next().is_none() {
            fdt.number("#address-cells", 0);
        }
        if node.phandle().is_some() {
            fdt.number("phandle", phandle(node));
        }
        self.children(node, node, fdt);
    }

    /// Children that are part of their parent's grant.
    fn bodies(&self, node: Node<'a>) -> impl Iterator<Item = Node<'a>> {
        node.children().filter(|child| child.is_enabled() && self.granted(child.id()).is_none())
    }

    /// Children of `node` that are part of its grant. In the guest's tree they stand below `under`.
    fn children(&self, node: Node<'a>, under: Node<'a>, fdt: &mut Fdt<'_>) {
        for child in self.bodies(node) {
            if passes_on(child) {
                self.children(child, under, fdt);
                continue;
            }
            fdt.begin(format_args!("{}", child.name()));
            // Below a device, addresses are the device's own business: written as they are.
            if let Some(reg) = child.property("reg") {
                self.copy(reg, fdt);
            }
            coherence(child, under, fdt);
            self.body(child, fdt);
            fdt.end();
        }
    }

    fn granted(&self, id: NodeId) -> Option<&DeviceGrant<'a>> {
        self.devices().iter().find(|device| device.function.is_none() && device.node.id() == id)
    }

    /// Whether the guest's tree has this node: granted, part of a grant, or a fixed regulator.
    pub(super) fn has(&self, node: Node<'a>) -> bool {
        match self.granted(node.id()) {
            Some(device) => !self.is_transparent(device),
            None => {
                let within = |parent: Node<'a>| self.granted(parent.id()).is_some();
                let part = node.ancestors().any(within) && cells::is_live(node) && !passes_on(node);
                part || node.is_compatible("regulator-fixed") && cells::is_live(node)
            }
        }
    }

    /// Writes the path a granted node, or part of one, has in the guest's tree.
    pub(super) fn path(&self, node: Node<'a>, fdt: &mut Fdt<'_>) {
        match (self.granted(node.id()), node.parent()) {
            (Some(device), _) if self.is_transparent(device) => {}
            (Some(device), _) => {
                let first = self.layout.regions.get(device.regions.clone()).and_then(|regions| regions.first());
                fdt.bytes(b"/");
                match first {
                    Some(first) => fdt.name(format_args!("{}@{:x}", node.base_name(), first.ipa.0)),
                    None => fdt.name(format_args!("{}", node.base_name())),
                }
            }
            (None, Some(parent)) if passes_on(node) => self.path(parent, fdt),
            (None, Some(parent)) => {
                self.path(parent, fdt);
                fdt.bytes(b"/");
                fdt.name(format_args!("{}", node.name()));
            }
            (None, None) => {}
        }
    }

    /// The interrupts of one node; returns whether it has any.
    fn interrupts(&self, node: Node<'a>, fdt: &mut Fdt<'_>) -> bool {
        // What cannot be read has been reported by the layout's reader.
        let list = interrupts::of(node).unwrap_or_default();
        let is_gic = |controller: Node<'a>| self.board.gic.is_some_and(|gic| gic.node == controller);
        let direct = list.iter().all(|one| is_gic(one.controller));
        if list.is_empty() || !list.iter().all(|one| is_gic(one.controller) || self.has(one.controller)) {
            return false;
        }
        fdt.property(if direct { "interrupts" } else { "interrupts-extended" }, |fdt| {
            for one in &list {
                if !is_gic(one.controller) {
                    fdt.cell(phandle(one.controller));
                    one.cells.iter().for_each(|cell| fdt.cell(cell.value as u32));
                } else if let Line::Shared(intid, trigger) = interrupts::gic(&one.cells) {
                    if !direct {
                        fdt.cell(GIC);
                    }
                    interrupt(fdt, intid, trigger == Trigger::Edge);
                }
            }
        });
        true
    }

    /// Whether a property means something to the guest, and everything it refers to is in the guest's tree.
    fn keeps(&self, property: Property<'a>) -> bool {
        let name = property.name();
        if DROPPED.contains(&name) {
            return false;
        }
        let mut lists = REFERENCES.iter().filter(|(_, names)| *names == name).peekable();
        if lists.peek().is_some() {
            return lists.any(|(list, _)| property.node().property(list).is_some_and(|list| self.keeps(list)));
        }
        if by_phandle(name) {
            let mut all = true;
            let read = self.each_cell(property, |node, _| all &= node.is_none_or(|node| self.has(node)));
            return read.is_some() && all;
        }
        property.values().iter().all(|value| match value.kind {
            ValueKind::Path(_) => false,
            ValueKind::Cells { cells, .. } => {
                cells.iter().filter_map(|cell| cell.target).all(|id| self.has(self.board.tree.node(id)))
            }
            _ => true,
        })
    }

    /// Walks a list of references with arguments: each cell, with the provider where it names one. `None` where a provider
    /// does not exist.
    fn each_cell(&self, property: Property<'a>, mut each: impl FnMut(Option<Node<'a>>, u64)) -> Option<()> {
        let mut cells = property.cells()?;
        while let Some(cell) = cells.next() {
            let provider = target(self.board.tree, &cell)?;
            each(Some(provider), cell.value);
            let arguments = match property.name() {
                "assigned-clocks" | "assigned-clock-parents" => count(provider, "#clock-cells", 0),
                "resets" => count(provider, "#reset-cells", 0),
                "power-domains" => count(provider, "#power-domain-cells", 0),
                "dmas" => count(provider, "#dma-cells", 0),
                "phys" => count(provider, "#phy-cells", 0),
                "mboxes" => count(provider, "#mbox-cells", 0),
                "pwms" => count(provider, "#pwm-cells", 0),
                "io-channels" => count(provider, "#io-channel-cells", 0),
                "interconnects" => count(provider, "#interconnect-cells", 0),
                "gpio-ranges" => 3,
                name if name.ends_with("gpios") => count(provider, "#gpio-cells", 0),
                _ => 0,
            };
            cells.by_ref().take(arguments).for_each(|argument| each(None, argument.value));
        }
        Some(())
    }

    /// A property as it is, references turned to the guest's phandles.
    fn copy(&self, property: Property<'a>, fdt: &mut Fdt<'_>) {
        fdt.property(property.name(), |fdt| {
            if by_phandle(property.name()) {
                // Kept only where every provider was found, so the walk does not end early.
                let _ = self.each_cell(property, |provider, number| fdt.cell(provider.map_or(number as u32, phandle)));
                return;
            }
            fdt.values(property, |node| phandle(node), |_, _| ());
        });
    }
}

/// Says of a node without a word of its own whether it is coherent with the caches, where a bus says so that the guest's tree does not have:
/// one between it and `under`, below which it stands there.
fn coherence(node: Node<'_>, under: Node<'_>, fdt: &mut Fdt<'_>) {
    let between = || node.ancestors().take_while(|above| *above != under);
    if cells::says_coherent(node).is_none()
        && let Some(coherent) = between().find_map(cells::says_coherent)
    {
        fdt.flag(if coherent { "dma-coherent" } else { "dma-noncoherent" });
    }
}

/// A bus below a granted one that only passes addresses on, and is left out like a granted one.
fn passes_on(node: Node<'_>) -> bool {
    node.property("ranges").is_some() && node.property("reg").is_none()
}

/// Whether a property of this name is a list of references, whatever its numbers look like.
fn by_phandle(name: &str) -> bool {
    REFERENCES.iter().any(|(list, _)| *list == name)
        || name.ends_with("-supply")
        || name.ends_with("-gpios")
        || name == "gpios"
        || (name.starts_with("pinctrl-") && name != "pinctrl-names")
}

/// A copied node's phandle in the guest's tree.
pub(super) fn phandle(node: Node<'_>) -> u32 {
    COPIED + node.id().0
}
