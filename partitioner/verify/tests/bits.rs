//! Damage: every single bit of a blob is covered by a checksum; where checksums are made to hold again, every bit of every
//! table is either found or listed here as harmless; and no bytes make the verifier panic.

mod common;

use cofferdam_plan::pci::{Function, Its, Pci, PciDomain, Rule, Smmu};
use cofferdam_plan::{Plan, PlanError};
use cofferdam_verify::{Refusal, scratch_words, verify};
use common::*;

#[test]
fn every_single_bit_is_covered_by_a_checksum() {
    let mut blob = Build::two().blob();
    let plan = Plan::read(blob.bytes()).unwrap();
    let (records, tables) = (plan.header.records_len as usize, plan.header.tables.offset as usize);
    for at in 0..blob.bytes().len() {
        // Every bit of header and records; of what follows one bit of each byte, of the tables one of every seventh.
        let bits = if at < records { 0..8 } else { at as u32 % 8..at as u32 % 8 + 1 };
        if at >= tables && at % 7 != 0 {
            continue;
        }
        for bit in bits {
            blob.bytes_mut()[at] ^= 1 << bit;
            assert!(Plan::read_whole(blob.bytes()).is_err(), "byte {at:#x} bit {bit}");
            blob.bytes_mut()[at] ^= 1 << bit;
        }
    }
}

/// Descriptor bits whose flip changes nothing an attacker could use.
fn is_harmless(entry: u64, bit: u32) -> bool {
    let address = entry & 0xFFFF_FFFF_F000;
    // SH of Device memory is ignored, as long as it is not the reserved 0b01 (DDI 0487, D8.6.2).
    let device = !(0x4000_0000..0x6000_0000).contains(&address);
    // Which of its own pages the hypervisor may write or run is its linker's business (the plan does not hold the ELF's
    // segments); never both, and never one that is not its own.
    let own = (BASE..BLOB_PA).contains(&address);
    // An area may lie anywhere in memory the hypervisor keeps and uses for nothing else.
    let kept = BASE..BASE + 0x20_0000;
    let area = kept.contains(&address) && kept.contains(&(address ^ 1 << bit)) && address >= AREAS_PA && bit >= 12;
    entry & 1 == 1 && (device && bit == 9 || own && (bit == 54 || bit == 7) || area)
}

#[test]
fn every_table_bit_is_proven_or_harmless() {
    let mut blob = Build::two().blob();
    let plan = Plan::read(blob.bytes()).unwrap();
    let (from, count) = (plan.header.tables.offset as usize, plan.header.tables.count as usize);
    let mut harmless = 0;
    for page in 0..count {
        let mut zero_slots = 0;
        for slot in 0..512 {
            let at = from + page * 4096 + slot * 8;
            let entry = u64::from_le_bytes(blob.bytes()[at..at + 8].try_into().unwrap());
            // Used slots bit by bit; of the empty ones the first few and every fiftieth, each with a different bit.
            zero_slots += usize::from(entry == 0);
            if entry == 0 && zero_slots > 4 && slot % 50 != 0 && slot != 511 {
                continue;
            }
            for bit in (0..64).filter(|bit| entry != 0 || (slot + bit) % 7 == 0) {
                blob.bytes_mut()[at + bit / 8] ^= 1 << (bit % 8);
                blob.reseal();
                let (result, _) = blob.verify();
                blob.bytes_mut()[at + bit / 8] ^= 1 << (bit % 8);
                if result.is_ok() {
                    assert!(is_harmless(entry, bit as u32), "page {page} slot {slot} bit {bit}: {entry:#x}");
                    harmless += 1;
                }
            }
        }
    }
    assert!(harmless < 200, "{harmless} harmless bits are more than device, image and area pages have");
}

/// xorshift64: reproducible without a dependency.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn resealed_damage_anywhere_never_panics() {
    let sound = Build::two().blob();
    let mut state = 0x9E37_79B9_7F4A_7C15;
    let (mut refused, mut total) = (0, 0);
    for round in 0..1500 {
        let mut blob = sound.clone();
        let len = blob.bytes().len() as u64;
        for _ in 0..1 + round % 4 {
            // Half the damage goes to header and records, where it reaches furthest.
            let span = if random(&mut state).is_multiple_of(2) { 0x1800 } else { len };
            let at = (random(&mut state) % span) as usize;
            let value = match random(&mut state) % 4 {
                0 => 0xFF,
                1 => 0,
                _ => random(&mut state) as u8,
            };
            // The magic and the lengths decide whether it can be sealed again at all.
            if !(0..28).contains(&at) {
                blob.bytes_mut()[at] = value;
            }
        }
        blob.reseal();
        let (result, findings) = blob.verify();
        assert_eq!(result.is_ok(), findings.is_empty() && !matches!(result, Err(Refusal::Plan(_))));
        refused += u32::from(result.is_err());
        total += 1;
    }
    assert!(refused * 4 > total, "only {refused} of {total} refused");
}

#[test]
fn bytes_that_are_no_plan_are_refused() {
    let blob = Build::two().blob();
    let mut scratch = vec![0; 4096];
    for len in [0, 7, 8, 100, 500, 4096, blob.bytes().len() - 1] {
        assert!(matches!(verify(&blob.bytes()[..len], &mut scratch, &mut |_| ()), Err(Refusal::Plan(_))), "{len}");
    }
    assert_eq!(verify(&[], &mut scratch, &mut |_| ()), Err(Refusal::Plan(PlanError::Short)));
    assert_eq!(scratch_words(&[0; 64]), 0);
}

#[test]
fn damaged_trees_never_panic() {
    let sound = Build::two().blob();
    let plan = Plan::read(sound.bytes()).unwrap();
    let from = plan.header.tables.offset as usize + plan.header.tables.count as usize * 4096;
    let mut blob = sound.clone();
    for at in from..sound.bytes().len() {
        for value in [0, 3, 0xFF] {
            let was = blob.bytes()[at];
            blob.bytes_mut()[at] = value;
            blob.reseal();
            let _ = blob.verify();
            blob.bytes_mut()[at] = was;
        }
    }
}

/// Bits of the PCI records whose flip changes nothing that one domain could do to another: what the start of a domain compares
/// with the function (IDs, sizes of registers that have no place), what only takes from the owner, hints, names, and addresses on
/// the owner's own bus.
fn is_harmless_in_pci(what: &str, index: usize, byte: usize, bit: usize, was_set: bool) -> bool {
    use core::mem::offset_of;
    let within = |from: usize, len: usize| (from..from + len).contains(&byte);
    match what {
        // RA and WA; more bits of IDs than there are asked for of the machine.
        "record" => {
            let smmu = offset_of!(Pci, smmu);
            let hints =
                [offset_of!(Smmu, stream_table_base), offset_of!(Smmu, command_base), offset_of!(Smmu, event_base)];
            let its = offset_of!(Pci, its);
            hints.iter().any(|at| byte == smmu + at + 7 && bit == 6)
                || within(its + offset_of!(Its, device_bits), 1)
                || within(its + offset_of!(Its, event_bits), 1)
        }
        "functions" => {
            let bars = offset_of!(Function, bars);
            let (register, field) = ((byte.wrapping_sub(bars)) / 12, (byte.wrapping_sub(bars)) % 12);
            let bridge = index == 3;
            let unplaced = field < 4 && (register == 2 && index == 0 || register == 6 || index == 4);
            let in_its_page = index == 2 && register == 0 && field == 5 && bit < 4;
            let of_bridge = bridge && register < 2 && field < 8;
            // MEV and SHCFG of the entry that stands alone, AFFD and PTW.
            let entry = offset_of!(Function, ste);
            let own_entry = index == 2
                && (byte == entry + 10 && bit == 3
                    || byte == entry + 13 && (bit == 4 || bit == 5)
                    || byte == entry + 22 && (bit == 5 || bit == 6));
            within(bars, 84) && (unplaced || in_its_page || of_bridge)
                || own_entry
                || within(offset_of!(Function, name), 16)
                // Compared with the function; the rules show its own.
                || within(offset_of!(Function, class), 8)
                || index >= 3 && within(offset_of!(Function, id), 4)
                || index == 4 && within(offset_of!(Function, stream), 1)
                // What stays closed.
                || bridge && (within(offset_of!(Function, bridge) + 4, 2) || within(offset_of!(Function, bridge) + 12, 4))
        }
        // What is read, from hardware or as a constant, of a register that is permitted; what is written or cleared less.
        "rules" => {
            // That of a base address register nobody is shown, at the next such register.
            let unseen = index == 5 && byte == 0 && bit == 2;
            within(4, 8) || within(12, 8) && was_set || unseen
        }
        _ => false,
    }
}

#[test]
fn every_bit_of_pci_records_is_proven_or_harmless() {
    let mut blob = Build::pci().blob();
    let header = Plan::read(blob.bytes()).unwrap().header.pci;
    let record = *Plan::read(blob.bytes()).unwrap().pci.unwrap().record;
    let tables = [
        ("record", header, size_of::<Pci>()),
        ("functions", record.functions, size_of::<Function>()),
        ("rules", record.rules, size_of::<Rule>()),
        ("dwords", record.dwords, 1),
        ("owners", record.owners, size_of::<PciDomain>()),
        ("lpis", record.lpis, 4),
        ("pending", record.pending, 8),
    ];
    for (what, table, size) in tables {
        for (index, byte) in (0..table.count as usize).flat_map(|i| (0..size).map(move |byte| (i, byte))) {
            let at = table.offset as usize + index * size + byte;
            for bit in 0..8 {
                let was_set = blob.bytes()[at] & 1 << bit != 0;
                blob.bytes_mut()[at] ^= 1 << bit;
                blob.reseal();
                let proven = blob.verify().0.is_ok();
                blob.bytes_mut()[at] ^= 1 << bit;
                assert!(
                    !proven || is_harmless_in_pci(what, index, byte, bit, was_set),
                    "{what} {index} byte {byte} bit {bit}"
                );
            }
        }
    }
}

#[test]
fn every_baked_bit_is_proven() {
    let mut blob = Build::pci().blob();
    let plan = Plan::read(blob.bytes()).unwrap();
    let its = plan.pci.unwrap().record.its;
    let at = |register: u64| ((register & 0x000F_FFFF_FFFF_F000) - BLOB_PA) as usize;
    for (from, len) in [(at(its.command_base), its.command_end as usize), (at(its.properties), 64)] {
        for (byte, bit) in (from..from + len).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
            blob.bytes_mut()[byte] ^= 1 << bit;
            blob.reseal();
            let proven = blob.verify().0.is_ok();
            blob.bytes_mut()[byte] ^= 1 << bit;
            // A device's translation table may lie anywhere in the DMA area where nothing else is, and be for fewer events, or more.
            let (command, field) = ((byte - from) / 32, (byte - from) % 32);
            let is_table = len != 64 && [1, 4].contains(&command) && (field == 8 || (16..20).contains(&field));
            assert!(!proven || is_table, "byte {byte:#x} bit {bit}");
        }
    }
}
