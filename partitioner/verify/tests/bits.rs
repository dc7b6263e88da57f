//! Damage: every single bit of a blob is covered by a checksum; where checksums are made to hold again, every bit of every
//! table is either found or listed here as harmless; and no bytes make the verifier panic.

mod common;

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
