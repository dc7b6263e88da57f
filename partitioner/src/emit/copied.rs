//! Nodes of the board in a guest's tree: their properties, as far as what they refer to is there too.

use super::fdt::Fdt;
use super::guest::Guest;
use crate::cells::{count, target};
use crate::model::DeviceGrant;
use cofferdam_dts::{Node, NodeId, Property, ValueKind};

/// Phandles of copied nodes start here, by their place in the board's tree.
const COPIED: u32 = 16;

/// Properties that are written anew or mean nothing to a guest.
const DROPPED: &[&str] = &[
    "reg",
    "ranges",
    "dma-ranges",
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
];

/// Properties whose numbers are phandles, and the list of names that goes with them.
const REFERENCES: &[(&str, &str)] = &[
    ("clocks", "clock-names"),
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
    ("phy-handle", ""),
    ("memory-region", "memory-region-names"),
    ("gpio-ranges", ""),
    ("operating-points-v2", ""),
];

impl<'a> Guest<'_, 'a, '_> {
    /// Properties, phandle and those children that are not granted on their own.
    pub(super) fn body(&self, node: Node<'a>, fdt: &mut Fdt<'_>) {
        self.properties(node, fdt);
        if node.phandle().is_some() {
            fdt.number("phandle", phandle(node));
        }
        for child in node.children().filter(|child| child.is_enabled() && !self.is_granted(child.id())) {
            fdt.begin(format_args!("{}", child.name()));
            // Below a device, addresses are the device's own business: written as they are.
            if let Some(reg) = child.property("reg") {
                self.copy(reg, fdt);
            }
            self.body(child, fdt);
            fdt.end();
        }
    }

    fn is_granted(&self, id: NodeId) -> bool {
        self.devices().iter().any(|device| device.node.id() == id)
    }

    /// Whether the guest's tree has this node: granted, below a granted one, or a clock it needs.
    fn has(&self, node: Node<'a>) -> bool {
        self.is_granted(node.id())
            || node.ancestors().any(|parent| self.is_granted(parent.id()))
            || node.is_compatible("fixed-clock")
    }

    pub(super) fn has_clock(&self, node: Node<'a>) -> bool {
        let needs = |device: &DeviceGrant<'a>| {
            let clocks = device.node.property("clocks");
            let clocks = clocks.filter(|clocks| self.keeps(*clocks));
            clocks.and_then(Property::cells).is_some_and(|mut cells| {
                cells.any(|cell| target(self.board.tree, &cell).is_some_and(|found| found == node))
            })
        };
        node.is_compatible("fixed-clock") && self.devices().iter().any(needs)
    }

    pub(super) fn properties(&self, node: Node<'a>, fdt: &mut Fdt<'_>) {
        let has_children = node.children().any(|child| child.is_enabled() && !self.is_granted(child.id()));
        for property in node.properties() {
            let name = property.name();
            let cells = matches!(name, "#address-cells" | "#size-cells") && !has_children;
            let names = REFERENCES.iter().filter(|(_, names)| *names == name);
            let orphaned = names.clone().count() > 0
                && names.clone().all(|(list, _)| !node.property(list).is_some_and(|list| self.keeps(list)));
            let interrupt_names = name == "interrupt-names" && node.property("interrupts").is_none();
            if DROPPED.contains(&name) || cells || orphaned || interrupt_names || !self.keeps(property) {
                continue;
            }
            self.copy(property, fdt);
        }
    }

    /// Whether everything a property refers to is in the guest's tree.
    fn keeps(&self, property: Property<'a>) -> bool {
        if by_phandle(property.name()) {
            return self.references(property).is_some_and(|all| all);
        }
        property.values().iter().all(|value| match value.kind {
            ValueKind::Path(_) => false,
            ValueKind::Cells { cells, .. } => {
                cells.iter().filter_map(|cell| cell.target).all(|id| self.has(self.board.tree.node(id)))
            }
            _ => true,
        })
    }

    /// Whether the guest has every provider in a list of references with arguments; `None` where it is no such list.
    fn references(&self, property: Property<'a>) -> Option<bool> {
        let mut all = true;
        self.each_cell(property, |provider, _| all &= provider.is_none_or(|provider| self.has(provider)))?;
        Some(all)
    }

    /// Walks a list of references with arguments: each cell, with the provider where it names one. `None` where a provider
    /// does not exist.
    fn each_cell(&self, property: Property<'a>, mut each: impl FnMut(Option<Node<'a>>, u64)) -> Option<()> {
        let mut cells = property.cells()?;
        while let Some(cell) = cells.next() {
            let provider = target(self.board.tree, &cell)?;
            each(Some(provider), cell.value);
            let arguments = match property.name() {
                "clocks" | "assigned-clocks" | "assigned-clock-parents" => count(provider, "#clock-cells", 0),
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
            for value in property.values() {
                match value.kind {
                    ValueKind::String(text) => fdt.text(text),
                    ValueKind::RawString(bytes) => {
                        fdt.bytes(bytes);
                        fdt.bytes(&[0]);
                    }
                    ValueKind::Bytes(bytes) => fdt.bytes(bytes),
                    ValueKind::Path(_) => {}
                    ValueKind::Cells { bits, cells } => {
                        for cell in cells {
                            let number = cell.target.map_or(cell.value, |id| phandle(self.board.tree.node(id)).into());
                            let bytes = number.to_be_bytes();
                            fdt.bytes(bytes.get(8 - usize::from(bits / 8)..).unwrap_or(&bytes));
                        }
                    }
                }
            }
        });
    }
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
