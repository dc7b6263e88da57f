//! What is baked for the ITS and the redistributors: commands, the LPI configuration table, and the registers that lead there.
//!
//! Each pair of a function that sends messages and an interrupt of its owner is one LPI; nothing else is mapped. Formats: IHI 0069,
//! 5.3 (commands), 5.1 (LPI tables), 12.19 (GITS registers), 12.11 (GICR registers).

use super::area::{Area, Part, Sizes, Use, sizes};
use super::assemble::Input;
use super::pages::{Pages, PagesError, TABLE};
use crate::pci::model::{Mode, Settled};
use crate::resolve::PAGE;
use cofferdam_plan::pci::{FIRST_LPI, Its};

/// Bytes of a command.
const COMMAND: usize = 32;
/// LPI configuration: enabled, priority 0x40: after EL2's own, before every guest's. Bit 1 is RES1.
const LPI: u8 = 0x40 | 3;
const VALID: u64 = 1 << 63;
/// Inner Write-Back, allocating, in GITS_BASER and GITS_CBASER; Inner Shareable. Outer as inner.
const ITS_MEMORY: u64 = VALID | 7 << 59 | 1 << 10;
/// The same in GICR_PROPBASER and GICR_PENDBASER.
const GICR_MEMORY: u64 = 7 << 7 | 1 << 10;
/// GICR_PENDBASER: the table is zero.
const ZEROED: u64 = 1 << 62;

/// Pages of the tables section that hold what is baked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Baked {
    /// First page of the commands, and their number; 0 without an ITS.
    commands: usize,
    command_pages: usize,
    /// First page of the LPI configuration table.
    properties: usize,
}

/// A writer of commands.
struct Commands<'c, 'b> {
    pages: &'c mut Pages<'b>,
    first: usize,
    len: usize,
}

impl Commands<'_, '_> {
    fn put(&mut self, words: [u64; 4]) {
        for word in words {
            self.pages.write(self.first + self.len / TABLE, self.len % TABLE, &word.to_le_bytes());
            self.len += 8;
        }
    }

    /// MAPC (5.3.8): collection → redistributor, by its number (GITS_TYPER.PTA = 0).
    fn map_collection(&mut self, collection: u64, number: u64) {
        self.put([0x09, 0, VALID | number << 16 | collection, 0]);
    }

    /// MAPD (5.3.9): DeviceID → table, for EventIDs of so many bits.
    fn map_device(&mut self, device: u64, table: u64, bits: u32) {
        self.put([0x08 | device << 32, u64::from(bits) - 1, VALID | table, 0]);
    }

    /// MAPTI (5.3.11): DeviceID, EventID → LPI, collection.
    fn map_event(&mut self, device: u64, event: u64, lpi: u64, collection: u64) {
        self.put([0x0A | device << 32, event | lpi << 32, collection, 0]);
    }

    /// INVALL (5.3.7): the redistributor reads its properties again.
    fn invalidate(&mut self, collection: u64) {
        self.put([0x0D, 0, collection, 0]);
    }

    /// SYNC (5.3.14): everything before has reached the redistributor.
    fn sync(&mut self, number: u64) {
        self.put([0x05, 0, number << 16, 0]);
    }
}

impl Input<'_, '_, '_> {
    /// Sizes of what PCI needs; all zero without.
    pub(super) fn pci_sizes(&self) -> Sizes {
        self.board.pci.as_ref().zip(self.pci).map_or_else(Sizes::default, |(host, pci)| sizes(host, pci))
    }

    /// Functions that send messages, with the CPU that takes them, the domain's first SPI and their number.
    fn senders(&self) -> impl Iterator<Item = (&Settled, u64, u32, u32)> {
        let functions = self.pci.map_or(&[][..], |pci| pci.functions.as_slice());
        functions.iter().filter(|settled| matches!(settled.mode, Mode::Msi(_))).filter_map(|settled| {
            let owner = settled.owner?;
            let share = self.pci?.share(owner);
            let cpu: usize = self.layout.domains.iter().take(owner).map(|domain| domain.cpus.len()).sum();
            Some((settled, cpu as u64, share.first_spi.0, share.spi_count))
        })
    }

    /// The SPI of each LPI.
    pub(super) fn lpis(&self) -> impl Iterator<Item = u32> {
        self.senders().flat_map(|(_, _, first, count)| first..first + count)
    }

    /// Takes the pages.
    pub(super) fn bake(&self, pages: &mut Pages<'_>) -> Result<Baked, PagesError> {
        let sizes = self.pci_sizes();
        if sizes.senders == 0 {
            return Ok(Baked::default());
        }
        let count = 4 * self.takers().count() + (sizes.senders + sizes.lpis) as usize;
        // GITS_CWRITER stays below the end of the queue: equal to GITS_CREADR it would mean that there is nothing to do.
        let command_pages = (count * COMMAND) / TABLE + 1;
        let commands = pages.take(command_pages)?;
        let properties = pages.take(((1usize << sizes.id_bits) - FIRST_LPI as usize) / TABLE)?;
        Ok(Baked { commands, command_pages, properties })
    }

    /// Fills them, now that the area has its place. Answers the record, all zero without an ITS.
    pub(super) fn its(&self, pages: &mut Pages<'_>, baked: &Baked, area: &Area, control_va: u64) -> Its {
        let (sizes, Some(host)) = (self.pci_sizes(), &self.board.pci) else { return none() };
        if sizes.senders == 0 {
            return none();
        }
        let mut out = Commands { pages, first: baked.commands, len: 0 };
        for (cpu, number) in self.takers() {
            out.map_collection(cpu as u64, number as u64);
            out.sync(number as u64);
        }
        let mut lpi = u64::from(FIRST_LPI);
        let mut table = area.part(Use::Translations).pa;
        for (settled, cpu, first, count) in self.senders() {
            let device =
                host.functions.get(settled.function).and_then(|function| function.device_id).unwrap_or(0).into();
            out.map_device(device, table, sizes.event_bits);
            table += sizes.translations();
            for event in first..first + count {
                out.map_event(device, event.into(), lpi, cpu);
                lpi += 1;
            }
        }
        for (cpu, number) in self.takers() {
            out.invalidate(cpu as u64);
            out.sync(number as u64);
        }
        let command_end = out.len as u64;
        for index in 0..sizes.lpis as usize {
            pages.write(baked.properties + index / TABLE, index % TABLE, &[LPI]);
        }
        let table = |part: Part| ITS_MEMORY | part.pa | (part.size / PAGE - 1);
        Its {
            control_va,
            command_base: ITS_MEMORY | pages.pa_of(baked.commands) | (baked.command_pages as u64 - 1),
            command_end,
            device_base: table(area.part(Use::Devices)),
            collection_base: table(area.part(Use::Collections)),
            properties: GICR_MEMORY | pages.pa_of(baked.properties) | u64::from(sizes.id_bits - 1),
            device_bits: sizes.device_bits,
            event_bits: sizes.event_bits,
            entry_size: super::area::ITS_ENTRY as u32,
            reserved: 0,
        }
    }
}

fn none() -> Its {
    zerocopy::FromZeros::new_zeroed()
}

/// GICR_PENDBASER of a CPU with this table.
pub(super) fn pending_base(part: &Part) -> u64 {
    GICR_MEMORY | ZEROED | part.pa
}
