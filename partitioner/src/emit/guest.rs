//! The device tree a guest is given: its own CPUs, memory, interrupt controller, console and devices, and nothing else.
//!
//! Devices keep the board's properties as far as they mean something to the guest: what refers to a node the guest does
//! not have is left out.

use super::fdt::Fdt;
use crate::cells::{count, target};
use crate::lent::Full;
use crate::model::{Board, DeviceGrant, Domain, Layout};
use crate::resolve::{Decided, GICD_SIZE, GICR_SIZE, PAGE};
use cofferdam_dts::{Node, NodeId, Property, ValueKind};
use cofferdam_plan::IntId;

/// Phandle of the virtual interrupt controller.
const GIC: u32 = 1;
/// Phandle of the virtual console's clock.
const CLOCK: u32 = 2;
/// Phandles of copied nodes start here, by their place in the board's tree.
const COPIED: u32 = 16;
/// GIC specifier, third cell (Linux, arm,gic-v3.yaml).
const EDGE: u32 = 1;
const LEVEL: u32 = 4;

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

/// What a guest's tree is made of.
pub(crate) struct Guest<'g, 'a, 'l> {
    pub(crate) board: &'g Board<'a>,
    pub(crate) layout: &'g Layout<'a, 'l>,
    pub(crate) domain: &'g Domain<'a>,
    pub(crate) decided: &'g Decided,
}

impl<'a> Guest<'_, 'a, '_> {
    /// Writes the tree into `bytes` and returns its length. The same decisions give the same bytes.
    pub(crate) fn write(&self, bytes: &mut [u8], strings: &mut [u8]) -> Result<usize, Full> {
        let mut fdt = Fdt::new(bytes, strings);
        fdt.begin(format_args!(""));
        fdt.number("#address-cells", 2);
        fdt.number("#size-cells", 2);
        fdt.strings("compatible", &["cofferdam,domain"]);
        fdt.strings("model", &[self.domain.name]);
        fdt.number("interrupt-parent", GIC);
        self.chosen(&mut fdt);
        self.memory(&mut fdt);
        self.cpus(&mut fdt);
        fdt.begin(format_args!("psci"));
        fdt.strings("compatible", &["arm,psci-1.0", "arm,psci-0.2"]);
        fdt.strings("method", &["hvc"]);
        fdt.end();
        self.timer(&mut fdt);
        self.interrupt_controller(&mut fdt);
        self.console(&mut fdt);
        for clock in self.board.tree.nodes().filter(|node| self.has_clock(*node)) {
            fdt.begin(format_args!("{}", clock.name()));
            self.properties(clock, &mut fdt);
            fdt.number("phandle", phandle(clock));
            fdt.end();
        }
        for device in self.devices() {
            self.device(device, &mut fdt);
        }
        fdt.end();
        fdt.finish()
    }

    fn devices(&self) -> &[DeviceGrant<'a>] {
        self.layout.devices.get(self.domain.devices.clone()).unwrap_or(&[])
    }

    fn chosen(&self, fdt: &mut Fdt<'_>) {
        fdt.begin(format_args!("chosen"));
        if let Some(args) = self.domain.bootargs {
            fdt.strings("bootargs", &[args.value]);
        }
        if let Some((page, _)) = self.decided.vuart {
            fdt.property("stdout-path", |fdt| {
                // Writing to a tree never fails.
                let _ = core::fmt::write(fdt, format_args!("/serial@{page:x}\0"));
            });
        }
        if let Some((start, end)) = self.decided.initrd {
            fdt.property("linux,initrd-start", |fdt| fdt.cells2(start));
            fdt.property("linux,initrd-end", |fdt| fdt.cells2(end));
        }
        fdt.end();
    }

    fn memory(&self, fdt: &mut Fdt<'_>) {
        for memory in &self.domain.memory {
            fdt.begin(format_args!("memory@{:x}", memory.ipa.base.0));
            fdt.strings("device_type", &["memory"]);
            fdt.property("reg", |fdt| {
                fdt.cells2(memory.ipa.base.0);
                fdt.cells2(memory.ipa.size);
            });
            fdt.end();
        }
    }

    fn cpus(&self, fdt: &mut Fdt<'_>) {
        fdt.begin(format_args!("cpus"));
        fdt.number("#address-cells", 1);
        fdt.number("#size-cells", 0);
        for (vcpu, cpu) in self.domain.cpus.iter().enumerate() {
            fdt.begin(format_args!("cpu@{vcpu:x}"));
            fdt.strings("device_type", &["cpu"]);
            let node = self.board.cpus.get(cpu.value).map(|cpu| cpu.node);
            if let Some(compatible) = node.and_then(|node| node.property("compatible")) {
                fdt.property("compatible", |fdt| compatible.strings().for_each(|(text, _)| fdt.text(text)));
            }
            fdt.number("reg", vcpu as u32);
            fdt.strings("enable-method", &["psci"]);
            fdt.end();
        }
        fdt.end();
    }

    /// Only the two timers a guest has, by name: the list without names starts with the secure one.
    fn timer(&self, fdt: &mut Fdt<'_>) {
        let Some(timer) = &self.board.timer else { return };
        fdt.begin(format_args!("timer"));
        fdt.strings("compatible", &["arm,armv8-timer"]);
        fdt.property("interrupts", |fdt| {
            for intid in [timer.physical, timer.virt] {
                interrupt(fdt, intid, LEVEL);
            }
        });
        fdt.strings("interrupt-names", &["phys", "virt"]);
        fdt.flag("always-on");
        fdt.end();
    }

    fn interrupt_controller(&self, fdt: &mut Fdt<'_>) {
        let Some(gic) = &self.board.gic else { return };
        fdt.begin(format_args!("interrupt-controller@{:x}", gic.gicd.base.0));
        fdt.strings("compatible", &["arm,gic-v3"]);
        fdt.number("#address-cells", 0);
        fdt.number("#interrupt-cells", 3);
        fdt.flag("interrupt-controller");
        fdt.property("reg", |fdt| {
            fdt.cells2(gic.gicd.base.0);
            fdt.cells2(GICD_SIZE);
            fdt.cells2(gic.gicr.base.0);
            fdt.cells2(GICR_SIZE * self.domain.cpus.len() as u64);
        });
        fdt.number("phandle", GIC);
        fdt.end();
    }

    fn console(&self, fdt: &mut Fdt<'_>) {
        let Some((page, intid)) = self.decided.vuart else { return };
        fdt.begin(format_args!("console-clock"));
        fdt.strings("compatible", &["fixed-clock"]);
        fdt.number("#clock-cells", 0);
        fdt.number("clock-frequency", 24_000_000);
        fdt.number("phandle", CLOCK);
        fdt.end();
        fdt.begin(format_args!("serial@{page:x}"));
        fdt.strings("compatible", &["arm,pl011", "arm,primecell"]);
        fdt.property("reg", |fdt| {
            fdt.cells2(page);
            fdt.cells2(PAGE);
        });
        fdt.property("interrupts", |fdt| interrupt(fdt, intid, LEVEL));
        fdt.property("clocks", |fdt| {
            fdt.cell(CLOCK);
            fdt.cell(CLOCK);
        });
        fdt.strings("clock-names", &["uartclk", "apb_pclk"]);
        fdt.end();
    }

    fn device(&self, device: &DeviceGrant<'a>, fdt: &mut Fdt<'_>) {
        let node = device.node;
        let regions = self.layout.regions.get(device.regions.clone()).unwrap_or(&[]);
        let lines = self.layout.interrupts.get(device.interrupts.clone()).unwrap_or(&[]);
        // A bus that only passes addresses on is no device: its children stand at the root, at their own addresses.
        if regions.is_empty() && lines.is_empty() {
            return;
        }
        match regions.first() {
            Some(first) => fdt.begin(format_args!("{}@{:x}", node.base_name(), first.ipa.0)),
            None => fdt.begin(format_args!("{}", node.base_name())),
        }
        if !regions.is_empty() {
            fdt.property("reg", |fdt| {
                for region in regions {
                    fdt.cells2(region.ipa.0);
                    fdt.cells2(region.pa.size);
                }
            });
        }
        if !lines.is_empty() {
            fdt.property("interrupts", |fdt| {
                for line in lines {
                    interrupt(fdt, line.intid, if line.edge { EDGE } else { LEVEL });
                }
            });
        }
        self.body(node, fdt);
        fdt.end();
    }

    /// Properties, phandle and those children that are not granted on their own.
    fn body(&self, node: Node<'a>, fdt: &mut Fdt<'_>) {
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

    fn has_clock(&self, node: Node<'a>) -> bool {
        let needs = |device: &DeviceGrant<'a>| {
            let clocks = device.node.property("clocks");
            let clocks = clocks.filter(|clocks| self.keeps(*clocks));
            clocks.and_then(Property::cells).is_some_and(|mut cells| {
                cells.any(|cell| target(self.board.tree, &cell).is_some_and(|found| found == node))
            })
        };
        node.is_compatible("fixed-clock") && self.devices().iter().any(needs)
    }

    fn properties(&self, node: Node<'a>, fdt: &mut Fdt<'_>) {
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

fn phandle(node: Node<'_>) -> u32 {
    COPIED + node.id().0
}

fn interrupt(fdt: &mut Fdt<'_>, intid: IntId, flags: u32) {
    let (kind, number) = if intid.is_spi() { (0, intid.0 - 32) } else { (1, intid.0.saturating_sub(16)) };
    fdt.cell(kind);
    fdt.cell(number);
    fdt.cell(flags);
}
