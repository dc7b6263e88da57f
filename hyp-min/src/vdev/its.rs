//! The ITS's language (IHI 0069, 5): what a machine's GITS_TYPER must offer a plan, what the plan's own commands expect, and how it is
//! started. Every wait has an end.
//!
//! Pure: where the registers are is `dev/its.rs`'s.

use super::Frame;
use cofferdam_plan::pci::Its;

const GITS_CTLR: u32 = 0x0000;
/// GITS_TYPER.
pub const GITS_TYPER: u32 = 0x0008;
const GITS_CBASER: u32 = 0x0080;
const GITS_CWRITER: u32 = 0x0088;
/// GITS_CREADR.
pub const GITS_CREADR: u32 = 0x0090;
const GITS_BASER: u32 = 0x0100;

const CTLR_ENABLED: u64 = 1 << 0;
const CTLR_QUIESCENT: u64 = 1 << 31;
/// Time it has for what it is told, as a part of a second: 100 ms.
const ANSWERS_PER_SECOND: u64 = 10;
/// Polls, should the counter stand still.
const POLLS: u32 = 1_000_000;

/// GITS_BASER<n>.Type: device table, collection table.
pub const DEVICES: u64 = 1;
/// See [`DEVICES`].
pub const COLLECTIONS: u64 = 4;
/// Bits of GITS_BASER<n> that the machine decides: type and entry size.
pub const BASER_READ_ONLY: u64 = 7 << 56 | 0x1F << 48;

/// What a plan needs of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(target_os = "none", derive(defmt::Format))]
pub enum Lack {
    /// Physical LPIs.
    PhysicalLpis,
    /// Commands that name redistributors by number.
    RedistributorsByNumber,
    /// Bits of DeviceID.
    BitsOfDeviceId,
    /// Bits of EventID.
    BitsOfEventId,
    /// Entries of translation tables as small as the plan counts with.
    EntriesThatSmall,
}

/// What the plan needs and a machine with this GITS_TYPER has not got.
pub fn lacks(its: &Its, typer: u64) -> Option<Lack> {
    let field = |at: u32, bits: u32| (typer >> at & ((1 << bits) - 1)) as u32;
    let needs = [
        (field(0, 1) != 0, Lack::PhysicalLpis),
        // The commands name redistributors by number.
        (field(19, 1) == 0, Lack::RedistributorsByNumber),
        (field(13, 5) + 1 >= its.device_bits, Lack::BitsOfDeviceId),
        (field(8, 5) + 1 >= its.event_bits, Lack::BitsOfEventId),
        (field(4, 4) < its.entry_size, Lack::EntriesThatSmall),
    ];
    needs.iter().find(|(met, _)| !met).map(|(_, what)| *what)
}

/// Bytes that a GITS_BASER<n> gives its table.
const fn table_bytes(baser: u64) -> u64 {
    let page = [0x1000, 0x4000, 0x1_0000, 0x1_0000][(baser >> 8 & 3) as usize];
    ((baser & 0xFF) + 1) * page
}

/// Whether a machine that reads `found` after `planned` was written to a GITS_BASER<n> has taken it, and its entries are small
/// enough for a table of 2^`bits`. Of a table of two levels the first says nothing about that.
pub const fn is_taken(planned: u64, found: u64, bits: u32) -> bool {
    let entry = (found >> 48 & 0x1F) + 1;
    let fits = planned >> 62 & 1 != 0 || bits < 32 && entry << bits <= table_bytes(planned);
    (planned ^ found) & !BASER_READ_ONLY == 0 && fits
}

/// Of a command that maps a collection (MAPC, 5.3): the collection, and the number of the redistributor.
pub const fn collection(command: [u64; 4]) -> Option<(u16, u64)> {
    let [first, _, third, _] = command;
    if first & 0xFF != 0x09 || third >> 63 == 0 {
        return None;
    }
    Some((third as u16, third >> 16 & 0x7_FFFF_FFFF))
}

/// Why an ITS is not started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(target_os = "none", derive(defmt::Format))]
pub enum Refusal {
    /// GITS_CTLR.Quiescent does not become 1.
    Quiescent,
    /// It does not keep a GITS_BASER, or its entries are too large.
    Baser,
    /// It has not got the tables that the plan has.
    BaserType,
    /// It does not keep GITS_CBASER.
    Cbaser,
    /// It has not carried out a command: the one at GITS_CREADR, or it has not got there in time.
    Commands,
}

/// Tables as planned, then the plan's commands: all of them have been carried out when it answers. `clock` gives a counter and its
/// frequency.
///
/// # Errors
/// What it does not do.
pub fn start<F: Frame>(its: &Its, registers: &F, clock: impl Fn() -> (u64, u64)) -> Result<(), Refusal> {
    // Reads a register until it says `expected`, or time is up: what it says then.
    let settles = |register, size, expected: u64, mask: u64| {
        let (start, frequency) = clock();
        for _ in 0..POLLS {
            let late = clock().0.wrapping_sub(start) >= frequency / ANSWERS_PER_SECOND;
            if late || registers.read(register, size) & mask == expected {
                break;
            }
        }
        registers.read(register, size)
    };
    registers.write(GITS_CTLR, 4, registers.read(GITS_CTLR, 4) & !CTLR_ENABLED);
    if settles(GITS_CTLR, 4, CTLR_QUIESCENT, CTLR_QUIESCENT) & CTLR_QUIESCENT == 0 {
        return Err(Refusal::Quiescent);
    }
    let mut tables = 0;
    for register in (GITS_BASER..GITS_BASER + 64).step_by(8) {
        let (planned, bits) = match registers.read(register, 8) >> 56 & 7 {
            0 => continue,
            DEVICES => (its.device_base, its.device_bits),
            COLLECTIONS => (its.collection_base, 0),
            _ => (0, 0),
        };
        registers.write(register, 8, planned);
        if !is_taken(planned, registers.read(register, 8), bits) {
            return Err(Refusal::Baser);
        }
        tables += u32::from(planned != 0);
    }
    if tables != u32::from(its.device_base != 0) + u32::from(its.collection_base != 0) {
        return Err(Refusal::BaserType);
    }
    registers.write(GITS_CBASER, 8, its.command_base);
    registers.write(GITS_CWRITER, 8, 0);
    if registers.read(GITS_CBASER, 8) != its.command_base {
        return Err(Refusal::Cbaser);
    }
    registers.write(GITS_CTLR, 4, CTLR_ENABLED);
    registers.write(GITS_CWRITER, 8, its.command_end);
    let end = settles(GITS_CREADR, 8, its.command_end, u64::MAX); // bit 0: Stalled
    if end == its.command_end { Ok(()) } else { Err(Refusal::Commands) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::{Cell, RefCell};
    use zerocopy::FromZeros;

    /// QEMU 10.0, `virt`.
    const QEMU: u64 = 0x1F_0001_EFB1;

    fn plan() -> Its {
        Its { device_bits: 16, event_bits: 10, entry_size: 12, ..Its::new_zeroed() }
    }

    #[test]
    fn each_thing_that_is_not_there_is_named() {
        assert_eq!(lacks(&plan(), QEMU), None);
        assert_eq!(lacks(&plan(), QEMU & !1), Some(Lack::PhysicalLpis));
        assert_eq!(lacks(&plan(), QEMU | 1 << 19), Some(Lack::RedistributorsByNumber));
        assert_eq!(lacks(&Its { device_bits: 17, ..plan() }, QEMU), Some(Lack::BitsOfDeviceId));
        assert_eq!(lacks(&Its { event_bits: 17, ..plan() }, QEMU), Some(Lack::BitsOfEventId));
        assert_eq!(lacks(&Its { entry_size: 11, ..plan() }, QEMU), Some(Lack::EntriesThatSmall));
    }

    #[test]
    fn a_table_must_be_taken_as_planned_and_hold_its_entries() {
        let planned = 1 << 63 | 0x4500_0000 | 1 << 10 | 1; // two pages of 4 KiB
        let found = planned | DEVICES << 56 | 7 << 48;
        assert!(is_taken(planned, found, 10));
        assert!(!is_taken(planned, found, 11));
        assert!(!is_taken(planned, found ^ 1 << 10, 10), "attributes");
        assert!(!is_taken(planned, found ^ 0x1000, 10), "address");
        assert!(is_taken(planned | 1 << 62, found | 1 << 62, 16));
        assert!(!is_taken(planned, found, 32) && !is_taken(planned, found, u32::MAX));
    }

    /// An ITS with a device and a collection table that does what it is told, but for one register, or from one command on.
    struct Fake {
        registers: RefCell<[u64; 64]>,
        deaf: u32,
        /// Byte of the queue where it stops, and whether it says so.
        stop: Option<(u64, bool)>,
        reads: Cell<u64>,
    }

    impl Fake {
        fn new(deaf: u32, stop: Option<(u64, bool)>) -> Self {
            let mut registers = [0; 64];
            registers[0x100 / 8] = DEVICES << 56 | 7 << 48;
            registers[0x108 / 8] = COLLECTIONS << 56 | 7 << 48;
            registers[0] = CTLR_QUIESCENT;
            Self { registers: RefCell::new(registers), deaf, stop, reads: Cell::new(0) }
        }
    }

    impl Frame for Fake {
        fn read(&self, offset: u32, _: u8) -> u64 {
            self.reads.set(self.reads.get() + 1);
            self.registers.borrow()[offset as usize / 8]
        }
        fn write(&self, offset: u32, _: u8, value: u64) {
            let registers = &mut *self.registers.borrow_mut();
            let place = &mut registers[offset as usize / 8];
            match offset {
                GITS_CTLR if self.deaf == GITS_CTLR => *place = 0,
                GITS_CTLR => *place = value | if value & 1 == 0 { CTLR_QUIESCENT } else { 0 },
                _ if offset == self.deaf => {}
                GITS_BASER.. => *place = *place & BASER_READ_ONLY | value & !BASER_READ_ONLY,
                _ => *place = value,
            }
            if offset == GITS_CWRITER {
                let (end, stalled) = self.stop.filter(|(at, _)| *at < value).unwrap_or((value, false));
                registers[GITS_CREADR as usize / 8] = end | u64::from(stalled);
            }
        }
    }

    fn started(fake: &Fake, tick: u64) -> Result<(), Refusal> {
        let its = Its {
            command_base: 1 << 63 | 0x4600_0000,
            command_end: 9 * 32,
            device_base: 1 << 63 | 0x4500_0000 | 1 << 10 | 1,
            collection_base: 1 << 63 | 0x4600_0000,
            device_bits: 10,
            ..Its::new_zeroed()
        };
        let now = Cell::new(u64::MAX - 3);
        start(&its, fake, || (now.replace(now.get().wrapping_add(tick)), 1_000_000))
    }

    #[test]
    fn it_starts_or_is_refused_by_name_in_bounded_time() {
        let cases = [
            (u32::MAX, None, Ok(())),
            (GITS_CTLR, None, Err(Refusal::Quiescent)),
            (GITS_BASER, None, Err(Refusal::Baser)),
            (GITS_BASER + 8, None, Err(Refusal::Baser)),
            (GITS_CBASER, None, Err(Refusal::Cbaser)),
            // Stalled: at a device, at an interrupt, at the last one.
            (u32::MAX, Some((32, true)), Err(Refusal::Commands)),
            (u32::MAX, Some((64, true)), Err(Refusal::Commands)),
            (u32::MAX, Some((8 * 32, true)), Err(Refusal::Commands)),
            // Silent.
            (u32::MAX, Some((0, false)), Err(Refusal::Commands)),
            (u32::MAX, Some((64, false)), Err(Refusal::Commands)),
        ];
        for (deaf, stop, expected) in cases {
            let fake = Fake::new(deaf, stop);
            assert_eq!(started(&fake, 1), expected);
            assert!(fake.reads.get() < 110_000, "{} reads", fake.reads.get());
            let fake = Fake::new(deaf, stop);
            assert_eq!(started(&fake, 0), expected, "the counter stands still");
        }
        let fake = Fake::new(u32::MAX, None);
        fake.registers.borrow_mut()[0x108 / 8] = 0;
        assert_eq!(started(&fake, 1), Err(Refusal::BaserType));
    }

    #[test]
    fn a_collection_names_its_redistributor() {
        assert_eq!(collection([0x09, 0, 1 << 63 | 3 << 16 | 2, 0]), Some((2, 3)));
        assert_eq!(collection([0x09, 0, 3 << 16 | 2, 0]), None);
        assert_eq!(collection([0x08, 0, 1 << 63, 0]), None);
        assert_eq!(collection([0x09, 0, 1 << 63 | 0x0007_FFFF_FFFF_FFFF, 0]), Some((0xFFFF, 0x7_FFFF_FFFF)));
    }
}
