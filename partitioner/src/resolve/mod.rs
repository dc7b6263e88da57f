//! From what the layout says to what the plan holds: nothing implicit is left behind this point.
//!
//! Order: address spaces → interrupts → guest images → payload places → physical placement. Every step reports all it
//! finds; a later step runs only on what an earlier one could decide.

pub(crate) mod arm64;
pub(crate) mod elf;
pub(crate) mod files;
pub(crate) mod image;
pub(crate) mod lines;
pub(crate) mod payload;
pub(crate) mod pinned;
pub(crate) mod place;
pub(crate) mod space;
pub(crate) mod util;

use cofferdam_dts::{NodeId, Span};
use cofferdam_plan::IntId;

/// 2 MiB: a level 2 block, and the unit of the image's layout.
pub(crate) const BLOCK: u64 = 2 << 20;
/// The translation granule.
pub(crate) const PAGE: u64 = 4096;
/// 1 GiB: a level 1 block.
pub(crate) const GIB: u64 = 1 << 30;
/// SGI the hypervisor keeps for itself on every CPU.
pub(crate) const KICK_SGI: IntId = IntId(15);
/// The list registers' maintenance interrupt: PPI 9 on every Arm core (BSA 1.0, PPI assignments). The hypervisor knows no other.
pub(crate) const MAINTENANCE: IntId = IntId(25);
/// Bytes of the distributor's frame (IHI 0069, 12.8).
pub(crate) const GICD_SIZE: u64 = 0x1_0000;
/// Bytes of one redistributor: RD and SGI frame (IHI 0069, 12.10).
pub(crate) const GICR_SIZE: u64 = 0x2_0000;

/// One contiguous mapping of a domain: guest addresses to physical ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Piece {
    /// Index of the domain.
    pub domain: u32,
    /// `cofferdam_plan::audit::grant`.
    pub kind: u32,
    /// First guest address.
    pub ipa: u64,
    /// First physical address.
    pub pa: u64,
    /// Bytes.
    pub size: u64,
    /// Index of the memory region (RAM) or of the device grant.
    pub source: u32,
    /// For RAM: what carries bytes of the image here.
    pub carried: Carried,
}

/// How a piece of RAM gets its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Carried {
    /// It has none.
    #[default]
    No,
    /// It lies in the image: nothing is copied.
    InPlace,
    /// It is copied from this image offset at boot.
    Copied(u64),
}

/// Bytes that must be in a domain's RAM when it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Payload<'a> {
    /// Index of the domain.
    pub domain: u32,
    /// `cofferdam_plan::audit::payload`.
    pub kind: u32,
    /// First guest address.
    pub ipa: u64,
    /// Path of the file as the layout wrote it; empty for a generated tree.
    pub file: &'a str,
    /// First byte of the file.
    pub file_offset: u64,
    /// Bytes of the file.
    pub len: u64,
    /// Bytes in RAM; those behind `len` are zero (or the guest's own business, see `clears`).
    pub mem: u64,
    /// Whether the bytes behind `len` must be zeroed before the guest starts.
    pub zeroed: bool,
    /// Whether code may start here.
    pub executable: bool,
    /// Where the layout asked for it.
    pub span: Span,
    /// Byte offset in the image, once placed.
    pub offset: u64,
    /// Byte offset in the image of the copy that no domain reaches, where the domain may start again; 0 where it never does.
    pub pristine: u64,
}

impl Payload<'_> {
    /// Guest address behind the last byte in RAM.
    pub(crate) fn end(&self) -> u64 {
        self.ipa.saturating_add(self.mem)
    }
}

/// Scratch for sorting: a range and what it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Range {
    /// First address.
    pub base: u64,
    /// Address behind the last.
    pub end: u64,
    /// Index of the domain, or a stage's own meaning.
    pub owner: u32,
    /// A stage's own meaning.
    pub item: u32,
    /// Where it was written.
    pub span: Span,
    /// Node it comes from.
    pub node: u32,
}

impl Range {
    /// The node it comes from.
    pub(crate) fn node_id(&self) -> NodeId {
        NodeId(self.node)
    }
}

/// What was decided about one domain.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Decided {
    /// Where vCPU 0 starts.
    pub(crate) entry: u64,
    /// The device tree's guest address.
    pub(crate) dtb: u64,
    /// Bytes of the device tree.
    pub(crate) dtb_len: u64,
    /// The virtual PL011.
    pub(crate) vuart: Option<(u64, IntId)>,
    /// The two pages of its watchdog.
    pub(crate) watchdog: Option<(u64, IntId)>,
    /// The initial RAM disk: first address and the one behind its last.
    pub(crate) initrd: Option<(u64, u64)>,
}
