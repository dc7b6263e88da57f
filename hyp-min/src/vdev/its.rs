//! The ITS's language (IHI 0069, 5): what a machine's GITS_TYPER must offer a plan, and what the plan's own commands expect.
//!
//! Pure: registers are `dev/its.rs`'s.

use cofferdam_plan::pci::Its;

/// GITS_BASER<n>.Type: device table, collection table.
pub const DEVICES: u64 = 1;
/// See [`DEVICES`].
pub const COLLECTIONS: u64 = 4;
/// Bits of GITS_BASER<n> that the machine decides: type and entry size.
pub const BASER_READ_ONLY: u64 = 7 << 56 | 0x1F << 48;

/// What the plan needs and a machine with this GITS_TYPER has not got.
pub fn lacks(its: &Its, typer: u64) -> Option<&'static str> {
    let field = |at: u32, bits: u32| (typer >> at & ((1 << bits) - 1)) as u32;
    let needs = [
        (field(0, 1) != 0, "physical LPIs"),
        // The commands name redistributors by number.
        (field(19, 1) == 0, "redistributors by number"),
        (field(13, 5) + 1 >= its.device_bits, "bits of DeviceID"),
        (field(8, 5) + 1 >= its.event_bits, "bits of EventID"),
        (field(4, 4) < its.entry_size, "translation table entries that small"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    /// QEMU 10.0, `virt`.
    const QEMU: u64 = 0x1F_0001_EFB1;

    fn plan() -> Its {
        Its { device_bits: 16, event_bits: 10, entry_size: 12, ..Its::new_zeroed() }
    }

    #[test]
    fn each_thing_that_is_not_there_is_named() {
        assert_eq!(lacks(&plan(), QEMU), None);
        assert_eq!(lacks(&plan(), QEMU & !1), Some("physical LPIs"));
        assert_eq!(lacks(&plan(), QEMU | 1 << 19), Some("redistributors by number"));
        assert_eq!(lacks(&Its { device_bits: 17, ..plan() }, QEMU), Some("bits of DeviceID"));
        assert_eq!(lacks(&Its { event_bits: 17, ..plan() }, QEMU), Some("bits of EventID"));
        assert_eq!(lacks(&Its { entry_size: 11, ..plan() }, QEMU), Some("translation table entries that small"));
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

    #[test]
    fn a_collection_names_its_redistributor() {
        assert_eq!(collection([0x09, 0, 1 << 63 | 3 << 16 | 2, 0]), Some((2, 3)));
        assert_eq!(collection([0x09, 0, 3 << 16 | 2, 0]), None);
        assert_eq!(collection([0x08, 0, 1 << 63, 0]), None);
        assert_eq!(collection([0x09, 0, 1 << 63 | 0x0007_FFFF_FFFF_FFFF, 0]), Some((0xFFFF, 0x7_FFFF_FFFF)));
    }
}
