//! PCI functions, the SMMU in front of them and the interrupts they send: the records of plans that have such functions.
//!
//! [`crate::Header::pci`] leads to one [`Pci`] record, which leads to the tables; a plan without PCI has none.

use crate::{IntId, Ipa, Table};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First LPI (IHI 0069, 2.2).
pub const FIRST_LPI: u32 = 8192;
/// Bytes of one function's configuration space, and of a guest's for one devfn (PCI Express Base 5.0, 7.2.2).
pub const CONFIG_SIZE: u64 = 0x1000;
/// Bytes of a domain's configuration space window: the 256 functions of its one bus.
pub const ECAM_SIZE: u64 = 0x10_0000;
/// No function, no rule: more than there are of either.
pub const NONE: u8 = u8::MAX;
/// Base address registers of a function, the last its expansion ROM's. A bridge has two and the ROM's.
pub const BARS: usize = 7;

/// Start of the PCI records. Table offsets count from the start of the blob.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Pci {
    /// [`Function`] records: those with an owner first, by domain and devfn; then bridges, parents before children; then the
    /// rest.
    pub functions: Table,
    /// [`Rule`] records, those of one function in a row, ascending offset.
    pub rules: Table,
    /// `u8` per dword of each function's configuration space as far as it has rules: which of them, or [`NONE`].
    pub dwords: Table,
    /// [`PciDomain`] records, one per domain, index = `DomainId`.
    pub owners: Table,
    /// `u32` per LPI from [`FIRST_LPI`] on: the SPI that EL2 sets pending for it.
    pub lpis: Table,
    /// `u64` per planned CPU: its GICR_PENDBASER, 0 where it takes no LPIs.
    pub pending: Table,
    /// The SMMU.
    pub smmu: Smmu,
    /// The ITS.
    pub its: Its,
    /// EL2 virtual address of zeroed RAM for run-time state: one page per 64 functions.
    pub state_va: u64,
}

/// One SMMUv3 (IHI 0070), stage 2 only. All zero without one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Smmu {
    /// EL2 virtual address of register page 0 (64 KiB); page 1 follows. 0 without an SMMU.
    pub registers_va: u64,
    /// SMMU_STRTAB_BASE. The table lies in zeroed RAM: every stream aborts.
    pub stream_table_base: u64,
    /// EL2 virtual address of the stream table: of its one level, or of the second-level tables in a row, see
    /// [`Function::ste`].
    pub stream_table_va: u64,
    /// SMMU_CMDQ_BASE.
    pub command_base: u64,
    /// EL2 virtual address of the command queue.
    pub commands_va: u64,
    /// SMMU_EVENTQ_BASE.
    pub event_base: u64,
    /// EL2 virtual address of the event queue.
    pub events_va: u64,
    /// SMMU_STRTAB_BASE_CFG.
    pub stream_table_cfg: u32,
    /// Event queue interrupt, an SPI of EL2's, or `NO_INTID`.
    pub event_intid: IntId,
    /// Global error interrupt, an SPI of EL2's, or `NO_INTID`.
    pub error_intid: IntId,
    /// Bits of stream ID the plan uses: the machine's IDR1.SIDSIZE must be at least this.
    pub stream_bits: u32,
    /// Bits of address the machine's IDR5.OAS must offer.
    pub address_bits: u32,
    /// SMMU_CR1: cacheability and shareability of the tables and queues.
    pub cr1: u32,
}

/// One ITS (IHI 0069, 5). All zero without one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Its {
    /// EL2 virtual address of the control frame (64 KiB). 0 without an ITS. The translation frame is in no CPU's tables.
    pub control_va: u64,
    /// GITS_CBASER: the baked command queue, in the image.
    pub command_base: u64,
    /// GITS_CWRITER that makes the ITS execute all of it: byte offset behind the last command.
    pub command_end: u64,
    /// GITS_BASER of the device table.
    pub device_base: u64,
    /// GITS_BASER of the collection table.
    pub collection_base: u64,
    /// GICR_PROPBASER: the baked LPI configuration table, in the image.
    pub properties: u64,
    /// Bits of DeviceID the plan uses: GITS_TYPER.Devbits + 1 must be at least this.
    pub device_bits: u32,
    /// Bits of EventID the plan uses: GITS_TYPER.ID_bits + 1 must be at least this.
    pub event_bits: u32,
    /// Bytes of an interrupt translation table's entry the plan counts with: GITS_TYPER.ITT_entry_size + 1 at most.
    pub entry_size: u32,
    /// Zero.
    pub reserved: u32,
}

/// What PCI means to one domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PciDomain {
    /// Its configuration space, [`ECAM_SIZE`] bytes, or `NO_WINDOW`.
    pub ecam: Ipa,
    /// Its MSI frame's page, or `NO_WINDOW`.
    pub frame: Ipa,
    /// Index of its first function.
    pub first_function: u32,
    /// Number of functions.
    pub function_count: u32,
    /// First SPI that its MSIs raise.
    pub first_spi: IntId,
    /// Number of such SPIs, in a row.
    pub spi_count: u32,
    /// Index of the function at each devfn of its bus, or [`NONE`].
    pub places: [u8; 256],
}

/// Bits of [`Function::flags`].
pub struct FunctionFlags;
impl FunctionFlags {
    /// A bridge: the hypervisor's own, programmed at boot.
    pub const BRIDGE: u32 = 1 << 0;
    /// Has function-level reset: bit 15 of Device Control at [`Function::reset`] (PCI Express Base 5.0, 6.6.2).
    pub const FLR: u32 = 1 << 1;
    /// Sends MSIs; else, if anything, INTx.
    pub const MSI: u32 = 1 << 2;
    /// May be a bus master.
    pub const DMA: u32 = 1 << 3;
    /// Reset by a reset of the bus it is on: [`Function::reset`] is the index of the port that leads there. Everything behind that
    /// port is its domain's.
    pub const BUS_RESET: u32 = 1 << 4;
}

/// One PCI function of the board.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Function {
    /// EL2 virtual address of its configuration space.
    pub config_va: u64,
    /// Its stream table entry while its domain runs, the first four doublewords; the others are zero. Bit 0 (V) is clear where
    /// it has no stream.
    pub ste: [u64; 4],
    /// Byte offset of its stream table entry from [`Smmu::stream_table_va`].
    pub ste_offset: u32,
    /// Stream ID: what the SMMU's events name.
    pub stream: u32,
    /// Configuration dword 0: device ID, vendor ID.
    pub id: u32,
    /// Dword 2: class code, revision.
    pub class: u32,
    /// Dword 11: subsystem ID, subsystem vendor ID. Not of a bridge.
    pub subsystem: u32,
    /// See [`FunctionFlags`].
    pub flags: u32,
    /// Index of its first rule.
    pub first_rule: u32,
    /// Number of rules, less than [`NONE`].
    pub rule_count: u32,
    /// Index of its first entry in [`Pci::dwords`].
    pub first_dword: u32,
    /// Number of such entries: up to its last rule.
    pub dword_count: u32,
    /// The registers at 0x10 to 0x24 and the expansion ROM's.
    pub bars: [Bar; BARS],
    /// Of a bridge: dwords 6 to 10 (bus numbers, I/O and memory windows, upper halves) as programmed.
    pub bridge: [u32; 5],
    /// Bus, device, function.
    pub rid: u16,
    /// Index of its domain, `NO_DOMAIN` for nobody.
    pub domain: u16,
    /// Device (7:3) and function (2:0) on its domain's virtual bus.
    pub devfn: u8,
    /// Zero.
    pub reserved: u8,
    /// What resets it, by [`Function::flags`]: byte offset of Device Control in configuration space, or index of a port.
    pub reset: u16,
    /// Its label in the board, or its node's name, in UTF-8, zero padded.
    pub name: [u8; 16],
}

/// One base address register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bar {
    /// What it reads after all ones have been written: size and kind. 0 where there is none.
    pub mask: u32,
    /// What the hypervisor writes, with its kind bits, and the guest reads. 0 where it stays unassigned, an I/O BAR always.
    pub value: u32,
    /// What the guest's sizing reads: `mask`, or 0 where the BAR is hidden from it.
    pub shown: u32,
}

/// Kinds of [`Rule`].
pub struct RuleKind;
impl RuleKind {
    /// The masks say it all.
    pub const REGISTER: u16 = 0;
    /// A base address register: [`Function::bars`] at (offset − 0x10) / 4, the expansion ROM's (0x30) last.
    pub const BAR: u16 = 1;
    /// Device Control and Status: as a register, and bit 15 resets the function where that has [`FunctionFlags::FLR`].
    pub const CONTROL: u16 = 2;
    /// Power management control and status: the power state (1:0) is kept, not written.
    pub const POWER: u16 = 3;
}

/// What a guest may do with one dword of configuration space. Read: `hardware & read | constant`. Write, in the lanes of the
/// access: `hardware & !write & !clear | written & write`. A dword without a rule reads 0 and ignores writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rule {
    /// Byte offset, a multiple of 4.
    pub offset: u16,
    /// See [`RuleKind`].
    pub kind: u16,
    /// Bits read from the hardware.
    pub read: u32,
    /// Bits that read as one.
    pub constant: u32,
    /// Bits written to the hardware.
    pub write: u32,
    /// Bits that writing one clears: never written back. Those the guest may clear are in `write` too.
    pub clear: u32,
}

impl Function {
    /// Its name, empty where the bytes are not UTF-8.
    pub fn name(&self) -> &str {
        let len = self.name.iter().position(|b| *b == 0).unwrap_or(self.name.len());
        core::str::from_utf8(self.name.get(..len).unwrap_or(&[])).unwrap_or("")
    }
}
