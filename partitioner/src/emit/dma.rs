//! The SMMU: its registers' values, and the stream table entries of functions while their domain runs.
//!
//! Formats: IHI 0070, 5.2 (stream table entry), 6.3 (registers).

use super::area::{Area, COMMANDS_LOG2, EVENTS_LOG2, STE, Use};
use super::assemble::Input;
use super::pages::TABLE;
use super::pci::Views;
use super::stage2::Stage2;
use cofferdam_plan::NO_INTID;
use cofferdam_plan::pci::Smmu;
use zerocopy::FromZeros;

/// Read or write allocation hint of the base registers.
const ALLOCATE: u64 = 1 << 62;
/// SMMU_CR1 (6.3.10): tables and queues Inner Shareable, Write-Back.
const CR1: u32 = 3 << 10 | 1 << 8 | 1 << 6 | 3 << 4 | 1 << 2 | 1;
/// Doubleword 0: valid, stage 2 alone.
const STAGE_2: u64 = 1 | 0b110 << 1;
/// Doubleword 1: shareability as the device says (SHCFG).
const INCOMING: u64 = 1 << 44;
/// Doubleword 2: fields of VTCR_EL2 (T0SZ to PS) in its order, AArch64 tables, no access flag faults, faults are recorded. S2S = 0:
/// nothing stalls.
const GEOMETRY: u64 = 0x7_FFFF;
const RECORD: u64 = 1 << 51 | 1 << 53 | 1 << 58;

/// The entry of a stream of the domain with this VTTBR_EL2 and VTCR_EL2, whose DMA root is at `root`.
pub(super) fn entry(vmid: u64, vtcr: u64, root: u64) -> [u64; 4] {
    [STAGE_2, INCOMING, vmid | (vtcr & GEOMETRY) << 32 | RECORD, root]
}

/// Byte offset of a stream's entry in a table of one level.
pub(super) fn offset(stream: u32) -> u32 {
    stream * STE as u32
}

impl Input<'_, '_, '_> {
    /// Whether functions of a domain reach memory through the SMMU.
    pub(super) fn has_stream(&self, domain: usize) -> bool {
        let functions = self.pci.map_or(&[][..], |pci| pci.functions_of(domain));
        let host = self.board.pci.as_ref();
        functions.iter().any(|settled| {
            host.and_then(|host| host.functions.get(settled.function)).is_some_and(|function| function.stream.is_some())
        })
    }

    /// The ITS's doorbell page, where functions of the domain send messages through the SMMU.
    pub(super) fn doorbell(&self, domain: usize) -> Option<u64> {
        let sends = self.pci.is_some_and(|pci| pci.share(domain).spi_count != 0);
        self.board.pci.as_ref()?.its.filter(|_| sends).map(|its| its.doorbell())
    }

    /// The record, all zero without an SMMU.
    pub(super) fn smmu(&self, area: &Area, views: &Views, pa_bits: u32) -> Smmu {
        let Some(node) = self.board.pci.as_ref().and_then(|host| host.smmu) else { return Smmu::new_zeroed() };
        let bits = self.pci_sizes().stream_bits;
        Smmu {
            registers_va: views.registers,
            stream_table_base: ALLOCATE | area.part(Use::Streams).pa,
            stream_table_va: views.streams,
            command_base: ALLOCATE | area.part(Use::Commands).pa | u64::from(COMMANDS_LOG2),
            commands_va: views.commands,
            event_base: ALLOCATE | area.part(Use::Events).pa | u64::from(EVENTS_LOG2),
            events_va: views.events,
            stream_table_cfg: bits,
            event_intid: node.event.unwrap_or(NO_INTID),
            error_intid: node.error.unwrap_or(NO_INTID),
            stream_bits: bits,
            address_bits: pa_bits,
            cr1: CR1,
        }
    }

    /// The entry of the streams of `domain`, where it has any.
    pub(super) fn ste(&self, domain: usize, tables: &Stage2, tables_pa: u64) -> [u64; 4] {
        entry(domain as u64 + 1, tables.vtcr, tables_pa + (tables.dma.page * TABLE) as u64)
    }
}

const _: () = assert!(CR1 == 0xD75);
