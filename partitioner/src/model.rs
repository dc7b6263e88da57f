//! The typed board and layout: what the tree says, checked for shape, before anything is placed.
//!
//! `board` and `layout` fill these, `resolve` reads them and decides the rest. Every value that can be wrong keeps the
//! place it was written at.

use crate::arch::Arch;
use crate::pci::model::PciHost;
use cofferdam_dts::{Node, Span, Tree};
use cofferdam_plan::limits::{MAX_CPUS, MAX_DOMAINS, MAX_VCPUS};
use cofferdam_plan::{IntId, Ipa, IpaRegion, Mpidr, Pa, PaRegion};
use heapless::Vec;

/// RAM banks of one board.
pub const MAX_BANKS: usize = 16;
/// Reserved ranges of one board.
pub const MAX_RESERVED: usize = 128;
/// Register ranges no domain may reach.
pub const MAX_FORBIDDEN: usize = 64;
/// Lines that reset a board or turn it off.
pub const MAX_RESETS: usize = 16;
/// Memory regions of one domain.
pub const MAX_MEMORY: usize = 16;
/// `file@…` nodes of one domain.
pub const MAX_FILES: usize = 16;

/// A value and where it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub span: Span,
}

/// What the board is, from its standard nodes.
pub struct Board<'a> {
    /// Architecture, decided by the root interrupt controller's `compatible`.
    pub arch: &'static dyn Arch,
    /// The merged tree.
    pub tree: Tree<'a>,
    /// CPUs in the order of `/cpus`.
    pub cpus: Vec<BoardCpu<'a>, MAX_CPUS>,
    /// RAM.
    pub ram: Vec<At<PaRegion>, MAX_BANKS>,
    /// `/memreserve/`, `/reserved-memory`, spin-table words and other carve-outs.
    pub reserved: Vec<Carveout<'a>, MAX_RESERVED>,
    /// Registers nobody may be given: interrupt controller, ITS, SMMU, ECAM.
    pub forbidden: Vec<Carveout<'a>, MAX_FORBIDDEN>,
    /// GPIO controllers with a line that resets the board or turns it off.
    pub resets: Vec<Node<'a>, MAX_RESETS>,
    /// The PCI host bridge and what is described on its buses.
    pub pci: Option<PciHost<'a>>,
    /// The interrupt controller. `None` after an error, or on an architecture without a GIC.
    pub gic: Option<Gic<'a>>,
    /// The shared console, from `/chosen/stdout-path`.
    pub console: Option<Uart<'a>>,
    /// The log's own UART, from `/domains { log = <&…>; }`.
    pub log: Option<Uart<'a>>,
    /// PSCI conduit of the firmware; `None` where the board has none.
    pub psci: Option<Conduit>,
    /// The architected timer.
    pub timer: Option<Timer>,
}

/// A CPU node.
#[derive(Clone, Copy)]
pub struct BoardCpu<'a> {
    /// Its node.
    pub node: Node<'a>,
    /// Its affinity.
    pub mpidr: Mpidr,
}

/// A range somebody else owns.
#[derive(Clone, Copy)]
pub struct Carveout<'a> {
    /// The range.
    pub region: PaRegion,
    /// The node that says so; the root for `/memreserve/`.
    pub node: Node<'a>,
    /// Where.
    pub span: Span,
}

/// The interrupt controller.
#[derive(Clone, Copy)]
pub struct Gic<'a> {
    /// Its node.
    pub node: Node<'a>,
    /// Distributor: 64 KiB, of a GICv2 4 KiB.
    pub gicd: PaRegion,
    /// What differs between the versions.
    pub frames: GicFrames,
    /// Maintenance interrupt, if the board says.
    pub maintenance: Option<IntId>,
    /// WFI of domains with injected delivery comes to the hypervisor, because the board says so.
    pub trap_wfi: bool,
}

/// The registers beside the distributor.
#[derive(Clone, Copy)]
pub enum GicFrames {
    /// GICv3.
    V3 {
        /// First redistributor region: 128 KiB per CPU, in the order of `/cpus`.
        gicr: PaRegion,
    },
    /// GICv2. CPU interface n belongs to the n-th CPU of `/cpus`.
    V2 {
        /// CPU interface: two pages at least, of which the second holds GICC_DIR.
        gicc: PaRegion,
        /// Virtual interface control.
        gich: PaRegion,
        /// Virtual CPU interface, laid out as `gicc`.
        gicv: PaRegion,
    },
}

impl Gic<'_> {
    /// Whether it is a GICv2.
    pub fn is_v2(&self) -> bool {
        matches!(self.frames, GicFrames::V2 { .. })
    }

    /// First address behind all of its registers.
    pub fn end(&self) -> Pa {
        let frames = match self.frames {
            GicFrames::V3 { gicr } => [gicr; 3],
            GicFrames::V2 { gicc, gich, gicv } => [gicc, gich, gicv],
        };
        frames.iter().fold(self.gicd.end(), |end, frame| end.max(frame.end()))
    }
}

/// A UART the hypervisor drives.
#[derive(Clone, Copy)]
pub struct Uart<'a> {
    /// Its node.
    pub node: Node<'a>,
    /// See `cofferdam_plan::UartKind`.
    pub kind: u32,
    /// Its registers.
    pub region: PaRegion,
    /// Its interrupt.
    pub intid: Option<IntId>,
}

/// How firmware is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// `smc`.
    Smc,
    /// `hvc`: an EL2 that boots there has nobody to call.
    Hvc,
}

/// PPIs of `arm,armv8-timer`.
#[derive(Clone, Copy, Debug)]
pub struct Timer {
    /// EL1 physical (non-secure).
    pub physical: IntId,
    /// EL1 virtual.
    pub virt: IntId,
    /// EL2 physical.
    pub hypervisor: IntId,
    /// `clock-frequency`, where given.
    pub frequency: Option<u32>,
}

/// What the layout asks for.
pub struct Layout<'a, 's> {
    /// The `/domains` node.
    pub node: Option<Node<'a>>,
    /// The domains in order.
    pub domains: Vec<Domain<'a>, MAX_DOMAINS>,
    /// Every device granted, grouped by domain.
    pub devices: &'s [DeviceGrant<'a>],
    /// Register ranges of granted devices; [`DeviceGrant::regions`] points here.
    pub regions: &'s [DeviceRegion],
    /// Interrupts of granted devices; [`DeviceGrant::interrupts`] points here.
    pub interrupts: &'s [DeviceInterrupt],
    /// Port ranges granted, on architectures that have them.
    pub ports: &'s [PortGrant],
    /// `verify-at-boot;`
    pub verify_at_boot: bool,
    /// Index of the domain that console input goes to after boot, where one has a console.
    pub input: Option<usize>,
    /// Byte that begins the chord for another reader; 0: none.
    pub console_escape: u8,
}

/// One domain as its node says.
pub struct Domain<'a> {
    /// Node name.
    pub name: &'a str,
    /// The node.
    pub node: Node<'a>,
    /// `cpus`: indices into [`Board::cpus`], vCPU order.
    pub cpus: Vec<At<usize>, MAX_VCPUS>,
    /// `memory@…` nodes, one entry per `reg` entry, in order.
    pub memory: Vec<Memory<'a>, MAX_MEMORY>,
    /// `file@…` nodes, in order.
    pub files: Vec<File<'a>, MAX_FILES>,
    /// `kernel`.
    pub kernel: Option<At<&'a str>>,
    /// `initrd`.
    pub initrd: Option<At<&'a str>>,
    /// `dtb`: replaces the generated tree.
    pub dtb: Option<At<&'a str>>,
    /// `bootargs`.
    pub bootargs: Option<At<&'a str>>,
    /// `rng-seed`: bytes for `/chosen`.
    pub rng_seed: Option<&'a [u8]>,
    /// `kaslr-seed`: 8 bytes for `/chosen`.
    pub kaslr_seed: Option<&'a [u8]>,
    /// `overlay { … }`: merged over the generated tree.
    pub overlay: Option<Node<'a>>,
    /// `load`: where a raw kernel or Image goes.
    pub load: Option<At<Ipa>>,
    /// `entry`.
    pub entry: Option<At<Ipa>>,
    /// `dtb-load`.
    pub dtb_load: Option<At<Ipa>>,
    /// `initrd-load`.
    pub initrd_load: Option<At<Ipa>>,
    /// `console;` or `console = "output";`
    pub console: Option<Span>,
    /// `console = "output";`: nothing that is typed goes to it.
    pub output_only: bool,
    /// `sve;`, `pmu;`, `debug;`: bits of `cofferdam_plan::DomainFlags`.
    pub features: u32,
    /// With `pmu;`: the board's node of its CPUs' performance counters.
    pub pmu: Option<Node<'a>>,
    /// `scrub = "boot"` instead of `"restart"`.
    pub scrub_at_boot: bool,
    /// What becomes of it when it ends.
    pub lifecycle: Lifecycle,
    /// `delivery`, where the layout decides it.
    pub asked: Option<At<Delivery>>,
    /// How its interrupts reach it.
    pub delivery: Delivery,
    /// `dma = "trusted"`: its devices without an IOMMU may master the bus, which holds nothing back.
    pub trusted_dma: Option<Span>,
    /// Its part of [`Layout::devices`].
    pub devices: core::ops::Range<usize>,
    /// Its part of [`Layout::ports`].
    pub ports: core::ops::Range<usize>,
}

impl<'a> Domain<'a> {
    /// Where what has no place of its own goes: the first memory its device tree describes.
    pub fn main_memory(&self) -> Option<&Memory<'a>> {
        self.memory.iter().find(|memory| !memory.hidden).or(self.memory.first())
    }
}

/// What becomes of a domain that ends. Policies: `cofferdam_plan::Policy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lifecycle {
    /// `on-fault`.
    pub on_fault: u8,
    /// `on-reset`.
    pub on_reset: u8,
    /// `on-off`.
    pub on_off: u8,
    /// `restart-limit`, 0 where nothing makes it restart.
    pub restart_limit: u32,
    /// `watchdog-ms`, 0 without one.
    pub watchdog_ms: u32,
    /// `watchdog = "arm,sbsa-gwdt"`: the domain has its watchdog as registers, not by calls alone.
    pub watchdog_frames: bool,
}

impl Lifecycle {
    /// Whether the domain may start again.
    pub const fn restarts(&self) -> bool {
        self.restart_limit != 0
    }

    /// Whether one of `cpus` CPUs may have to be fetched by another, whatever the guest has done to it.
    pub const fn fetches(&self, cpus: usize) -> bool {
        self.restarts() && cpus > 1 || self.watchdog_ms != 0 && self.on_fault == cofferdam_plan::Policy::RESTART
    }
}

/// How interrupts reach a domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// Straight to EL1.
    Direct,
    /// Through EL2 and its list registers.
    Injected,
}

/// One `reg` entry of a `memory@…` node.
#[derive(Clone, Copy)]
pub struct Memory<'a> {
    /// The node.
    pub node: Node<'a>,
    /// What the guest sees.
    pub ipa: IpaRegion,
    /// Where it goes.
    pub placement: Placement,
    /// `hidden;`: the generated device tree does not describe it.
    pub hidden: bool,
    /// The `reg` entry.
    pub span: Span,
}

/// A `file@…` node: a file that lies in the domain's RAM when it starts.
#[derive(Clone, Copy)]
pub struct File<'a> {
    /// Its path.
    pub path: At<&'a str>,
    /// Where it goes, and the room it is given.
    pub room: At<IpaRegion>,
}

/// How a memory region is placed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// By the compiler.
    Auto,
    /// `host-address`.
    Pinned(At<Pa>),
    /// `direct-map;`: IPA = PA.
    Direct(Span),
}

/// A device passed through, with what is reached through it only. A bus comes as one grant for each device the CPU reaches,
/// and one for itself, empty where it has neither registers nor interrupts.
#[derive(Clone, Default)]
pub struct DeviceGrant<'a> {
    /// Index of its domain.
    pub domain: usize,
    /// Its node in the board.
    pub node: Node<'a>,
    /// The `access` cell that asked for it (or for its bus).
    pub span: Span,
    /// Its part of [`Layout::regions`].
    pub regions: core::ops::Range<usize>,
    /// Its part of [`Layout::interrupts`].
    pub interrupts: core::ops::Range<usize>,
    /// Of a PCI function: its index in [`PciHost::functions`]. It has neither regions nor interrupts here: where its
    /// registers lie and which interrupts it has is the compiler's decision.
    pub function: Option<usize>,
}

impl Layout<'_, '_> {
    /// The PCI functions of a domain: their indices in [`PciHost::functions`] in the order of `access`, with the cell that
    /// asked for each.
    pub fn functions(&self, domain: &Domain<'_>) -> impl Iterator<Item = At<usize>> {
        let devices = self.devices.get(domain.devices.clone()).unwrap_or(&[]);
        devices.iter().filter_map(|grant| Some(At { value: grant.function?, span: grant.span }))
    }

    /// Whether any domain has PCI functions: the plan has PCI records then, and needs a hypervisor with PCI.
    pub fn has_functions(&self) -> bool {
        self.domains.iter().any(|domain| self.functions(domain).next().is_some())
    }
}

/// One register range of a granted device, as the board's `reg` gives it (not widened to pages).
#[derive(Clone, Copy, Default)]
pub struct DeviceRegion {
    /// Where the registers are.
    pub pa: PaRegion,
    /// Where the guest sees them: the same address unless `reg-ipa` says otherwise.
    pub ipa: Ipa,
    /// The `reg` entry.
    pub span: Span,
}

/// One interrupt of a granted device.
#[derive(Clone, Copy, Default)]
pub struct DeviceInterrupt {
    /// The interrupt, an SPI.
    pub intid: IntId,
    /// Edge-triggered.
    pub edge: bool,
    /// The specifier.
    pub span: Span,
}

/// A range of I/O ports granted.
#[derive(Clone, Copy, Default)]
pub struct PortGrant {
    /// Index of its domain.
    pub domain: usize,
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
    /// Where it was asked for.
    pub span: Span,
}
