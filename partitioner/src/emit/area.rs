//! The DMA area: RAM of the hypervisor's that the SMMU and the ITS read and write at run time, and the state of functions.
//!
//! It follows the areas of the domains. Each part is whole pages and as aligned as its reader wants it; the most demanding first,
//! each where there is room, so that alignment costs little.

use super::assemble::{EmitError, Input};
use crate::lent::Full;
use crate::pci::model::{Mode, PciHost, Settlement};
use crate::resolve::PAGE;
use crate::resolve::util::{bits, up};
use cofferdam_plan::limits::{MAX_CPUS, MAX_FUNCTIONS};
use cofferdam_plan::pci::FIRST_LPI;
use cofferdam_plan::{Move, Pa};
use heapless::Vec;

/// Bytes of a stream table entry (IHI 0070, 5.2).
pub(super) const STE: u64 = 64;
/// Entries of the SMMU's command and event queues, as powers of two: a page each, of 16 and 32 bytes an entry.
pub(crate) const COMMANDS_LOG2: u32 = 8;
pub(crate) const EVENTS_LOG2: u32 = 7;
/// Bits of stream ID that the smallest stream table has: a page.
pub(crate) const LEAST_STREAM_BITS: u32 = 6;
/// Bytes of an ITS table entry the plan counts with: of a device, a collection or an event.
pub(super) const ITS_ENTRY: u64 = 16;
/// Alignment of an interrupt translation table (IHI 0069, 5.3.11), and of a pending table (12.11.28).
const ITT_ALIGN: u64 = 256;
const PENDING_ALIGN: u64 = 0x1_0000;
/// Functions whose state fits a page.
const STATES: usize = 64;

/// One part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Part {
    /// Physical address.
    pub(super) pa: u64,
    /// Bytes, whole pages; 0 where it is not needed.
    pub(super) size: u64,
    align: u64,
}

/// The parts by number; behind them a pending table for each CPU that takes LPIs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(super) enum Use {
    Streams,
    Commands,
    Events,
    Devices,
    Collections,
    Translations,
    State,
}

const PARTS: usize = 7;

/// The whole of it.
pub(super) struct Area {
    /// First physical address, and the one behind the last; whole pages.
    pub(super) start: u64,
    pub(super) end: u64,
    parts: Vec<Part, { PARTS + MAX_CPUS }>,
}

/// Sizes that follow from what was decided.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes {
    /// Bits of stream ID; 0 without an SMMU.
    pub(super) stream_bits: u32,
    /// Bits of DeviceID; 0 where no function sends messages.
    pub(super) device_bits: u32,
    /// Bits of EventID.
    pub(super) event_bits: u32,
    /// Bits of interrupt ID that the redistributors count with.
    pub(super) id_bits: u32,
    /// LPIs.
    pub(super) lpis: u32,
    /// Functions that send messages.
    pub(super) senders: u32,
}

impl Sizes {
    /// Bytes of one function's interrupt translation table.
    pub(super) fn translations(&self) -> u64 {
        up(ITS_ENTRY << self.event_bits, ITT_ALIGN)
    }

    /// Bytes of a pending table: a bit for each interrupt ID (IHI 0069, 5.1.2).
    fn pending(&self) -> u64 {
        (1 << self.id_bits) / 8
    }
}

/// The sizes of a settlement.
pub(super) fn sizes(host: &PciHost<'_>, settlement: &Settlement) -> Sizes {
    let mut sizes = Sizes::default();
    let (mut streams, mut devices, mut last) = (0u64, 0u64, 0u64);
    for settled in &settlement.functions {
        let Some(function) = host.functions.get(settled.function) else { continue };
        // Streams beyond the table abort as those do that have no entry.
        let stream = function.stream.filter(|_| settled.owner.is_some());
        streams = streams.max(stream.map_or(0, |stream| u64::from(stream) + 1));
        if let (Mode::Msi(_), Some(owner)) = (settled.mode, settled.owner) {
            let share = settlement.share(owner);
            devices = devices.max(function.device_id.map_or(0, |id| u64::from(id) + 1));
            last = last.max(u64::from(share.first_spi.0 + share.spi_count));
            sizes.lpis += share.spi_count;
            sizes.senders += 1;
        }
    }
    if host.smmu.is_some() {
        sizes.stream_bits = bits(streams).max(LEAST_STREAM_BITS);
    }
    if sizes.senders != 0 {
        (sizes.device_bits, sizes.event_bits) = (bits(devices).max(1), bits(last).max(1));
        sizes.id_bits = bits(u64::from(FIRST_LPI + sizes.lpis)).max(14);
    }
    sizes
}

impl Area {
    /// Lays it out from physical address `start` on.
    fn new(start: u64, wanted: &[Part]) -> Option<Self> {
        let mut parts: Vec<Part, { PARTS + MAX_CPUS }> = Vec::from_slice(wanted).ok()?;
        let mut order: Vec<usize, { PARTS + MAX_CPUS }> = (0..parts.len()).collect();
        order.sort_unstable_by_key(|index| parts.get(*index).map(|part| (!part.align, !part.size, *index)));
        let mut placed = Vec::<(u64, u64), { PARTS + MAX_CPUS }>::new();
        for index in order {
            let part = parts.get_mut(index).filter(|part| part.size != 0);
            let Some(part) = part else { continue };
            part.size = up(part.size, PAGE);
            let mut at = up(start, part.align);
            while let Some((_, end)) = placed.iter().find(|(from, to)| *from < at + part.size && at < *to) {
                at = up(*end, part.align);
            }
            part.pa = at;
            placed.push((at, at + part.size)).ok()?;
        }
        let end = placed.iter().map(|(_, end)| *end).max().unwrap_or(start);
        Some(Self { start, end, parts })
    }

    /// One of the parts.
    pub(super) fn part(&self, of: Use) -> Part {
        self.parts.get(of as usize).copied().unwrap_or_default()
    }

    /// Pending tables, in the order of the CPUs that take LPIs.
    pub(super) fn pending(&self) -> &[Part] {
        self.parts.get(PARTS..).unwrap_or(&[])
    }

    /// What must be zero before anybody reads it: all but the queues.
    pub(super) fn zeroes(&self, mut each: impl FnMut(&Move) -> Result<(), Full>) -> Result<(), Full> {
        let queues = [Use::Commands as usize, Use::Events as usize];
        let parts = self.parts.iter().enumerate().filter(|(index, part)| !queues.contains(index) && part.size != 0);
        for (_, part) in parts {
            each(&Move { offset: 0, to: Pa(part.pa), len: 0, zero: part.size })?;
        }
        Ok(())
    }
}

impl Input<'_, '_, '_> {
    /// The area, where the plan has PCI, behind the hypervisor's other `ram` bytes.
    pub(super) fn area(&self, ram: u64) -> Result<Option<Area>, EmitError> {
        let (Some(host), Some(settlement)) = (&self.board.pci, self.pci) else { return Ok(None) };
        let sizes = sizes(host, settlement);
        let part = |size, align| Part { pa: 0, size, align };
        let smmu = |size: u64, align| if sizes.stream_bits == 0 { part(0, PAGE) } else { part(size, align) };
        let its = |size: u64| part(if sizes.senders == 0 { 0 } else { size }, PAGE);
        let streams = STE << sizes.stream_bits;
        let states = settlement.functions.len().min(MAX_FUNCTIONS).div_ceil(STATES) as u64;
        let mut wanted: Vec<Part, { PARTS + MAX_CPUS }> = Vec::from_slice(&[
            smmu(streams, streams),
            smmu(PAGE, PAGE),
            smmu(PAGE, PAGE),
            its(ITS_ENTRY << sizes.device_bits),
            its(ITS_ENTRY * self.planned_cpus() as u64),
            its(sizes.translations() * u64::from(sizes.senders)),
            part(states * PAGE, PAGE),
        ])
        .map_err(|_| EmitError::Internal)?;
        for _ in self.takers() {
            wanted.push(part(sizes.pending(), PENDING_ALIGN)).map_err(|_| EmitError::Internal)?;
        }
        let start = self.placed.base + up(ram, PAGE);
        Area::new(start, &wanted).map(Some).ok_or(EmitError::Internal)
    }

    /// The CPUs that take LPIs, by index in the plan: those of vCPU 0 of domains whose functions send messages. With the board's.
    pub(super) fn takers(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut first = 0;
        self.layout.domains.iter().enumerate().filter_map(move |(id, domain)| {
            let index = first;
            first += domain.cpus.len();
            let takes = self.pci.is_some_and(|pci| pci.share(id).spi_count != 0);
            takes.then_some((index, domain.cpus.first()?.value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_parts_fill_what_alignment_leaves() {
        let part = |size, align| Part { pa: 0, size, align };
        let wanted = [part(0x8000, 0x8000), part(0x1000, PAGE), part(0, PAGE), part(0x800, 0x1_0000)];
        let area = Area::new(0x4020_3000, &wanted).expect("there is room");
        let pas: Vec<u64, 4> = area.parts.iter().map(|part| part.pa).collect();
        assert_eq!(pas, [0x4020_8000, 0x4020_3000, 0, 0x4021_0000]);
        assert_eq!((area.start, area.end), (0x4020_3000, 0x4021_1000));
    }
}
