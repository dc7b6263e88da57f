//! What kind of device a node is, as far as isolation is concerned: forbidden, of board-wide authority, harmless, or a
//! possible DMA master.
//!
//! Tables first, code second. A device that no table names counts as a DMA master (default deny); adding a line here is
//! a statement about the device's data sheet, so each table says what its lines claim.

use crate::cells::{is_live, is_pci, target};
use crate::model::Board;
use cofferdam_dts::{Node, Property, Tree};

/// Registers no domain is ever given, and what they are.
const FORBIDDEN: &[(&str, &str)] = &[
    ("arm,gic-v3", "the interrupt controller"),
    ("arm,gic-400", "the interrupt controller"),
    ("arm,cortex-a15-gic", "the interrupt controller"),
    ("arm,gic-v3-its", "the interrupt translation service"),
    ("arm,gic-v2m-frame", "an MSI frame of the interrupt controller"),
    ("arm,armv7-timer-mem", "the system counter's timer frames"),
    ("arm,coresight-etm4x", "CoreSight debug"),
    ("arm,coresight-tmc", "CoreSight debug"),
    ("arm,coresight-etb10", "CoreSight debug"),
    ("arm,coresight-tpiu", "CoreSight debug"),
    ("arm,coresight-dynamic-funnel", "CoreSight debug"),
    ("arm,coresight-dynamic-replicator", "CoreSight debug"),
    ("arm,coresight-stm", "CoreSight debug"),
    ("arm,coresight-cti", "CoreSight debug"),
    ("arm,coresight-cpu-debug", "CoreSight debug"),
    ("intel,ce4100-ioapic", "the interrupt controller"),
    ("intel,ce4100-lapic", "the interrupt controller"),
];

/// IOMMUs.
const IOMMUS: &[&str] =
    &["arm,smmu-v3", "arm,smmu-v1", "arm,smmu-v2", "arm,mmu-400", "arm,mmu-401", "arm,mmu-500", "qcom,smmu-v2"];

/// Devices without a bus master of their own: their data sheets know no descriptor, no buffer address, no DMA engine.
const HARMLESS: &[&str] = &[
    "arm,pl011",
    "arm,pl022",
    "arm,pl031",
    "arm,pl050",
    "arm,pl061",
    "arm,sbsa-gwdt",
    "arm,sbsa-uart",
    "arm,sp804",
    "arm,sp805",
    "brcm,bcm2835-aux-uart",
    "brcm,bcm2835-pl011",
    "brcm,bcm2711-gpio",
    "brcm,bcm2835-gpio",
    "cdns,i2c-r1p14",
    "cdns,ttc",
    "cdns,uart-r1p12",
    "cdns,uart-r1p8",
    "cfi-flash",
    "fsl,imx35-gpio",
    "fsl,imx6q-uart",
    "fsl,imx8mp-gpio",
    "fsl,imx8mp-uart",
    "motorola,mc146818",
    "ns16550",
    "ns16550a",
    "snps,dw-apb-gpio",
    "snps,dw-apb-uart",
    "snps,dw-wdt",
    "xlnx,versal-gpio-1.0",
    "xlnx,xuartps",
    "xlnx,zynqmp-gpio-1.0",
];

/// Devices that a domain may find in any state when it starts again: a few registers that every driver sets up before it
/// uses them, no memory of their own, and at worst an interrupt that waits, disabled.
const STARTS_ANYWHERE: &[&str] = &["arm,pl011", "arm,pl031", "arm,pl061", "arm,sp804"];

/// Devices with power over the whole board, and what that power is.
const AUTHORITY: &[(&str, &str)] = &[
    ("cfi-flash", "it can hold what the board boots from"),
    ("jedec,spi-nor", "it can hold what the board boots from"),
    ("arm,sp805", "a watchdog can reset the board"),
    ("arm,sbsa-gwdt", "a watchdog can reset the board"),
    ("snps,dw-wdt", "a watchdog can reset the board"),
    ("cdns,wdt-r1p2", "a watchdog can reset the board"),
    ("arm,scmi", "it commands the system controller"),
    ("arm,scmi-shmem", "it commands the system controller"),
    ("arm,mhu", "it commands the system controller"),
    ("syscon", "it holds system control registers"),
    ("syscon-reboot", "it can reset the board"),
    ("syscon-poweroff", "it can turn the board off"),
];

/// Providers whose registers reach other devices, by the property that makes them one.
const PROVIDERS: &[(&str, &str)] = &[
    ("#clock-cells", "it drives clocks of other devices"),
    ("#reset-cells", "it can reset other devices"),
    ("#power-domain-cells", "it can turn other devices off"),
];

/// Nodes that turn the board off or reset it through a GPIO line.
const RESET_LINES: &[&str] = &["gpio-poweroff", "gpio-restart"];

fn find<T: Copy>(node: Node<'_>, table: &[(&str, T)]) -> Option<T> {
    table.iter().find(|(compatible, _)| node.is_compatible(compatible)).map(|(_, what)| *what)
}

/// What `node` is, where no domain may ever have it.
pub fn forbidden(node: Node<'_>) -> Option<&'static str> {
    if is_pci(node) && !node.parent().is_some_and(is_pci) {
        return Some("the PCI host bridge");
    }
    find(node, FORBIDDEN)
}

/// Whether `node` is an IOMMU.
pub fn is_iommu(node: Node<'_>) -> bool {
    IOMMUS.iter().any(|c| node.is_compatible(c)) || node.property("#iommu-cells").is_some()
}

/// Whether `node` is known to have no bus master.
pub fn is_harmless(node: Node<'_>) -> bool {
    HARMLESS.iter().any(|c| node.is_compatible(c)) && node.property("dmas").is_none()
}

/// Whether a driver that starts finds no trap in what another has left in the registers of `node`.
pub fn starts_anywhere(node: Node<'_>) -> bool {
    STARTS_ANYWHERE.iter().any(|c| node.is_compatible(c))
}

/// What power over the board `node` has, where it has any.
pub fn authority(board: &Board<'_>, node: Node<'_>) -> Option<&'static str> {
    node.property("reg")?;
    let by_name = match node.base_name() {
        "watchdog" => Some("a watchdog can reset the board"),
        "pinctrl" | "pinmux" => Some("it decides which device each pin belongs to"),
        _ => None,
    };
    let by_property = PROVIDERS.iter().find(|(name, _)| node.property(name).is_some()).map(|(_, what)| *what);
    find(node, AUTHORITY).or(by_name).or(by_property).or_else(|| drives_reset(board, node))
}

/// Whether a line of this GPIO controller resets the board or turns it off.
fn drives_reset(board: &Board<'_>, controller: Node<'_>) -> Option<&'static str> {
    board.resets.contains(&controller).then_some("one of its lines turns the board off or resets it")
}

/// The GPIO controllers whose lines reset the board or turn it off, once for each such line.
pub fn reset_controllers<'a>(tree: Tree<'a>) -> impl Iterator<Item = Node<'a>> {
    let lines = tree.nodes().filter(|n| is_live(*n) && RESET_LINES.iter().any(|c| n.is_compatible(c)));
    let cells = lines.filter_map(|node| node.property("gpios").and_then(Property::cells)?.next());
    cells.filter_map(move |cell| target(tree, &cell))
}

/// Whether `node` is flash that the board may boot from: marked `cofferdam,boot-medium`, or any flash where no node of the
/// board is marked.
pub fn is_boot_medium(node: Node<'_>) -> bool {
    const MARK: &str = "cofferdam,boot-medium";
    let flash = node.is_compatible("cfi-flash") || node.is_compatible("jedec,spi-nor");
    node.property(MARK).is_some() || flash && !node.tree().nodes().any(|n| n.property(MARK).is_some())
}
