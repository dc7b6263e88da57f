//! PCI as the board describes it and as the resolver leaves it.

use cofferdam_dts::{Node, Span};
use cofferdam_plan::limits::{MAX_DOMAINS, MAX_FUNCTIONS};
use cofferdam_plan::pci::BARS;
use cofferdam_plan::{Bdf, IntId, PaRegion};
use heapless::Vec;

/// Windows of a host bridge.
pub const MAX_WINDOWS: usize = 8;

/// The host bridge, its windows, and what is on its buses.
pub struct PciHost<'a> {
    /// Its node.
    pub node: Node<'a>,
    /// Configuration space: 1 MiB per bus from the first of `buses` on.
    pub ecam: PaRegion,
    /// First and last bus.
    pub buses: (u8, u8),
    /// `ranges`.
    pub windows: Vec<Window, MAX_WINDOWS>,
    /// Every function and bridge described, by BDF.
    pub functions: Vec<PciFunction<'a>, MAX_FUNCTIONS>,
    /// The SMMU that `iommu-map` leads to.
    pub smmu: Option<SmmuNode<'a>>,
    /// The ITS that `msi-map` or `msi-parent` leads to.
    pub its: Option<ItsNode<'a>>,
}

/// Kind of address space of a window or base address register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere.
    Memory64,
}

/// One entry of a host bridge's `ranges`.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Kind.
    pub space: Space,
    /// Whether it is declared prefetchable.
    pub prefetchable: bool,
    /// First bus address.
    pub bus: u64,
    /// Where the CPU sees it.
    pub pa: PaRegion,
    /// Its entry.
    pub span: Span,
}

/// A function or bridge.
#[derive(Clone)]
pub struct PciFunction<'a> {
    /// Its node. The capabilities are read from there, see [`super::capability`].
    pub node: Node<'a>,
    /// Its label in the source, or its node's name.
    pub name: &'a str,
    /// Bus, device, function.
    pub bdf: Bdf,
    /// Index of the bridge it is behind; `None` on the root bus.
    pub above: Option<usize>,
    /// Secondary and subordinate bus of a bridge.
    pub bridge: Option<(u8, u8)>,
    /// Dword 0 of configuration space: device ID, vendor ID.
    pub id: u32,
    /// Dword 2: class code, revision.
    pub class: u32,
    /// Dword 11: subsystem ID, subsystem vendor ID.
    pub subsystem: u32,
    /// Interrupt pin, 1 to 4, 0 without.
    pub pin: u8,
    /// Its base address registers by number, the expansion ROM's last. The upper half of a 64-bit one is `None`.
    pub bars: [Option<BarSpec>; BARS],
    /// Stream ID at the SMMU, by `iommu-map`.
    pub stream: Option<u32>,
    /// DeviceID at the ITS, by `msi-map`.
    pub device_id: Option<u32>,
}

/// A base address register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarSpec {
    /// Kind.
    pub space: Space,
    /// Whether it says that it may be prefetched.
    pub prefetchable: bool,
    /// Bytes, a power of two.
    pub size: u64,
    /// Its `reg` entry.
    pub span: Span,
}

/// One capability as the board gives it: `cofferdam,capabilities`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    /// Byte offset in configuration space; 0x100 and more for extended ones.
    pub offset: u16,
    /// Its first three dwords after reset.
    pub dwords: [u32; 3],
    /// Its entry.
    pub span: Span,
}

/// An SMMUv3.
#[derive(Clone, Copy)]
pub struct SmmuNode<'a> {
    /// Its node.
    pub node: Node<'a>,
    /// Both register pages: 128 KiB.
    pub region: PaRegion,
    /// `eventq`, edge-triggered.
    pub event: Option<IntId>,
    /// `gerror`, edge-triggered.
    pub error: Option<IntId>,
    /// What it can do, where the board says.
    pub idr: Option<Idr>,
}

/// Identification registers of an SMMUv3, as read from the machine (IHI 0070, 6.3).
#[derive(Clone, Copy, Debug)]
pub struct Idr {
    /// SMMU_IDR0.
    pub idr0: u32,
    /// SMMU_IDR1.
    pub idr1: u32,
    /// SMMU_IDR5.
    pub idr5: u32,
    /// The property.
    pub span: Span,
}

/// An ITS.
#[derive(Clone, Copy)]
pub struct ItsNode<'a> {
    /// Its node.
    pub node: Node<'a>,
    /// Control and translation frame: 128 KiB.
    pub region: PaRegion,
}

impl ItsNode<'_> {
    /// First address of the translation frame, whose first page holds GITS_TRANSLATER (IHI 0069, 12.18).
    pub fn doorbell(&self) -> u64 {
        self.region.base.0 + 0x1_0000
    }
}

/// How a function interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Not at all.
    #[default]
    None,
    /// By its pin, which arrives as this SPI.
    Intx(IntId),
    /// By MSI or MSI-X, at most this many.
    Msi(u16),
}

/// What resets a function at each start of its domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reset {
    /// Nothing does.
    #[default]
    None,
    /// Its Device Control, at this byte offset.
    Function(u16),
    /// The bus it is on, by the port with this index in [`PciHost::functions`].
    Bus(usize),
}

/// A function as the plan will have it, in the order of the plan's records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settled {
    /// Index in [`PciHost::functions`].
    pub function: usize,
    /// Index of its domain.
    pub owner: Option<usize>,
    /// Device and function on its domain's virtual bus.
    pub devfn: u8,
    /// Bus address of each base address register; 0 where it stays unassigned.
    pub bars: [u64; BARS],
    /// How it interrupts.
    pub mode: Mode,
    /// It may be a bus master.
    pub dma: bool,
    /// What resets it.
    pub reset: Reset,
    /// Its device has other functions on the domain's virtual bus.
    pub siblings: bool,
    /// Of a bridge: dwords 6 to 10 of its configuration space.
    pub bridge: [u32; 5],
}

/// What PCI means to one domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Share {
    /// Index of its first function in [`Settlement::functions`].
    pub first: usize,
    /// Number of functions.
    pub count: usize,
    /// First interrupt that its messages raise.
    pub first_spi: IntId,
    /// Number of such interrupts, in a row.
    pub spi_count: u32,
}

/// What was decided about the PCI functions of a board.
#[derive(Clone, Default)]
pub struct Settlement {
    /// In the order of the plan's records: with an owner, by domain and place on its bus; bridges; the rest.
    pub functions: Vec<Settled, MAX_FUNCTIONS>,
    /// By domain.
    pub shares: Vec<Share, MAX_DOMAINS>,
}

impl Settlement {
    /// The share of a domain.
    pub fn share(&self, domain: usize) -> Share {
        self.shares.get(domain).copied().unwrap_or_default()
    }

    /// The functions of a domain.
    pub fn functions_of(&self, domain: usize) -> &[Settled] {
        let share = self.share(domain);
        self.functions.get(share.first..share.first + share.count).unwrap_or(&[])
    }
}
