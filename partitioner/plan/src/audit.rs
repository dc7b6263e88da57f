//! The audit section: what the verifier and the auditor need to prove a plan and the hypervisor never reads.
//!
//! It states grants and board facts in bytes, not in tables, so that the tables can be held against it.

use crate::{IntId, IpaRegion, PaRegion, Table};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Start of the audit section. Table offsets count from the start of the blob.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Audit {
    /// [`Fact`] records about the board.
    pub facts: Table,
    /// [`Grant`] records: every byte a domain may reach.
    pub grants: Table,
    /// [`Line`] records: every interrupt with an owner.
    pub lines: Table,
    /// [`Payload`] records: what of the image lies where.
    pub payloads: Table,
    /// Bytes of UTF-8 names; [`Name`] points into them.
    pub names: Table,
}

/// A name: offset into the names table and length in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Name {
    /// Byte offset in the names table.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

/// What a [`Fact`]'s region is.
pub mod fact {
    /// A bank of RAM.
    pub const RAM: u32 = 1;
    /// RAM or address space that nobody may use (`/memreserve/`, `/reserved-memory`, carve-outs).
    pub const RESERVED: u32 = 2;
    /// Registers no domain may reach: distributor, redistributors, ITS, SMMU, ECAM, the hypervisor's UARTs.
    pub const FORBIDDEN: u32 = 3;
    /// RAM the hypervisor keeps: image, plan, tables, stacks, domain areas.
    pub const HYPERVISOR: u32 = 4;
    /// Registers of a device, so that no page is granted twice.
    pub const DEVICE: u32 = 5;
    /// First page of a GICv2's CPU interface: banked, so each CPU finds its own there. [`super::grant::CPU_INTERFACE`].
    pub const CPU_INTERFACE: u32 = 6;
    // The rest only in plans with PCI. What is registers is [`FORBIDDEN`] too.
    /// Configuration space of the host bridge, 1 MiB per bus. `owner`: its first bus.
    pub const ECAM: u32 = 7;
    /// A memory window of the host bridge, where bus addresses are physical addresses.
    pub const PCI_WINDOW: u32 = 8;
    /// Both register pages of the SMMU, 128 KiB.
    pub const SMMU: u32 = 9;
    /// Control and translation frame of the ITS, 128 KiB.
    pub const ITS: u32 = 10;
    /// RAM the hypervisor keeps ([`HYPERVISOR`] too) for what SMMU and ITS write: stream table, queues, their tables, pending
    /// tables, and for the run-time state of functions.
    pub const DMA_AREA: u32 = 11;
    /// Configuration space of one function, 4 KiB of the ECAM. `owner`: the stream ID its accesses reach the SMMU with.
    pub const STREAM: u32 = 12;
    /// The same. `owner`: the DeviceID its MSIs reach the ITS with.
    pub const DEVICE_ID: u32 = 13;
    /// The same. `owner`: index of its domain plus one. The layout trusts this function with all RAM (`dma = "trusted"`): no
    /// SMMU holds it.
    pub const TRUSTED_DMA: u32 = 14;
    /// A GICv2's virtual CPU interface, both pages, banked as well, where interrupts are injected.
    /// [`super::grant::VIRTUAL_INTERFACE`].
    pub const VIRTUAL_INTERFACE: u32 = 15;
}

/// A fact about the board or about what the hypervisor keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fact {
    /// Where.
    pub region: PaRegion,
    /// See [`fact`].
    pub kind: u32,
    /// Of a device: index of the domain that was granted it, plus one; 0 for nobody. Of what the kind says another number
    /// for, that. 0 for every other kind.
    pub owner: u32,
    /// Path of the node it comes from.
    pub name: Name,
}

/// What a [`Grant`] gives.
pub mod grant {
    /// RAM: Normal Write-Back, readable, writable, executable.
    pub const RAM: u32 = 1;
    /// Device registers: Device-nGnRE, readable, writable, never executable.
    pub const DEVICE: u32 = 2;
    /// The first page of a GICv2's CPU interface: as registers of a device, but any number of domains may have it.
    pub const CPU_INTERFACE: u32 = 3;
    /// Both pages of a GICv2's virtual CPU interface, for a domain with injected delivery.
    pub const VIRTUAL_INTERFACE: u32 = 4;
}

/// A range one domain may reach. `ipa.size == pa.size`, both 4 KiB aligned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Grant {
    /// Where the guest sees it.
    pub ipa: IpaRegion,
    /// Where it is.
    pub pa: PaRegion,
    /// Index of the domain.
    pub domain: u32,
    /// See [`grant`].
    pub kind: u32,
    /// Path of the node it comes from; where devices share pages, the paths of all, with spaces between.
    pub name: Name,
}

/// Who an interrupt [`Line`] belongs to, beside a domain.
pub mod line {
    /// A device's interrupt, passed through.
    pub const DEVICE: u32 = 1;
    /// The domain's virtual PL011: no wire, raised by the hypervisor.
    pub const VUART: u32 = 2;
    /// The hypervisor's own.
    pub const HYPERVISOR: u32 = 3;
    /// A PPI each vCPU of the domain has for itself.
    pub const PPI: u32 = 4;
    /// The maintenance interrupt of the list registers on the CPUs of a domain with injected delivery: EL2's.
    pub const MAINTENANCE: u32 = 5;
    /// What MSIs of the domain's functions raise: no wire, set pending by the hypervisor, edge-triggered.
    pub const MSI: u32 = 6;
    /// The first signal of the domain's watchdog: no wire, raised by the hypervisor.
    pub const WATCHDOG: u32 = 7;
}

/// One interrupt and its owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Line {
    /// The interrupt.
    pub intid: IntId,
    /// Index of the domain, `u32::MAX` for the hypervisor.
    pub domain: u32,
    /// See [`line`].
    pub kind: u32,
    /// 1 edge-triggered, 0 level-sensitive.
    pub edge: u32,
    /// Path of the node it comes from.
    pub name: Name,
}

/// What a [`Payload`] is.
pub mod payload {
    /// The guest's kernel, one record per loaded segment.
    pub const KERNEL: u32 = 1;
    /// Its initial RAM disk.
    pub const INITRD: u32 = 2;
    /// Its device tree, generated or given.
    pub const DTB: u32 = 3;
    /// Another file in its RAM.
    pub const FILE: u32 = 4;
}

/// Bytes of the image that end up in a domain's RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Payload {
    /// Where the guest sees them.
    pub ipa: IpaRegion,
    /// Their place in RAM once the guest runs.
    pub pa: PaRegion,
    /// Byte offset in the image.
    pub offset: u64,
    /// Bytes in the image; the rest of `pa.size` is zero.
    pub len: u64,
    /// Byte offset in the image of the copy that no domain reaches, where the domain may restart; 0 where it never does.
    pub pristine: u64,
    /// Index of the domain.
    pub domain: u32,
    /// See [`payload`].
    pub kind: u32,
    /// The file's path as the layout wrote it; empty for a generated tree.
    pub name: Name,
}
