//! The hypervisor as it was linked, instruction by instruction: no FP/SIMD register is touched but where a guest's are
//! cleared (invariant I17), and nothing can reach a panic (invariant I03).
//!
//! Knows the groups of the A64 encoding (DDI 0487, C4.1), no single instructions but the two that move FPCR and FPSR.

use super::tally::Tally;
use crate::hyp::Hypervisor;
use crate::trouble::Trouble;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, elf};

/// Goes into every guest.
const ENTERS: &str = "enter_guest";
/// The places that may, and how many instructions do, so that a scan that sees nothing fails: V0 to V31, FPCR and FPSR before
/// a guest is entered; Z0 to Z31, P0 to P15 and FFR before one that has SVE.
const CLEARS: [(&str, usize); 2] = [(ENTERS, 32 + 2), ("clear_scalable", 32 + 16 + 1)];
/// Parts of the names of what a panic goes through.
const PANICS: &[&str] = &["panicking", "rust_begin_unwind", "unwrap_failed", "expect_failed", "slice_index_fail"];

/// Both scans, of the hypervisor with PCI and of the one without.
pub(crate) fn run(tally: &mut Tally) -> Result<(), Trouble> {
    for (pci, which) in [(false, "without PCI"), (true, "with PCI")] {
        let hypervisor = Hypervisor::build(pci)?;
        let file = ElfFile64::<object::Endianness>::parse(hypervisor.elf.as_slice())
            .map_err(|error| Trouble::other(format!("hyp-min cannot be read: {error}")))?;
        tally.check(format_args!("scan: EL2 {which} leaves FP/SIMD alone"), fp_free(&file));
        tally.check(format_args!("scan: EL2 {which} cannot panic"), panic_free(&file));
    }
    Ok(())
}

fn panic_free(file: &ElfFile64<'_>) -> Result<(), String> {
    let names: Vec<_> = file.symbols().flat_map(|symbol| symbol.name()).collect();
    if !names.contains(&ENTERS) {
        return Err("the symbols are missing".into());
    }
    let found: Vec<_> = names.into_iter().filter(|name| PANICS.iter().any(|panic| name.contains(panic))).collect();
    if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
}

fn fp_free(file: &ElfFile64<'_>) -> Result<(), String> {
    // Names by address, and by mapping symbols ($x, $d) what is code (ELF for the Arm 64-bit architecture, 5.7).
    let mut names: Vec<(u64, &str)> = Vec::new();
    let mut kinds: Vec<(u64, bool)> = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.section_index().is_some()) {
        match symbol.name() {
            Ok(name) if name.starts_with("$x") => kinds.push((symbol.address(), true)),
            Ok(name) if name.starts_with("$d") => kinds.push((symbol.address(), false)),
            Ok(name) if !name.is_empty() => names.push((symbol.address(), name)),
            _ => {}
        }
    }
    names.sort_unstable();
    kinds.sort_unstable();
    let (mut scanned, mut cleared, mut found) = (0, [0; CLEARS.len()], Vec::new());
    for section in file.sections().filter(is_code) {
        let data = section.data().map_err(|error| error.to_string())?;
        for (index, word) in (0u64..).zip(data.chunks_exact(4)) {
            let at = section.address() + index * 4;
            if !last(&kinds, at).ok_or("no mapping symbol: what is code is not known")? {
                continue;
            }
            scanned += 1;
            let word = word.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
            if !is_fp(word) {
                continue;
            }
            let name = last(&names, at).unwrap_or("?");
            match CLEARS.iter().position(|(clears, _)| *clears == name) {
                Some(place) => cleared[place] += 1,
                None => found.push(format!("{at:#x}: {word:08x} in {name}")),
            }
        }
    }
    for ((name, all), cleared) in CLEARS.iter().zip(cleared).filter(|((_, all), cleared)| all != cleared) {
        found.push(format!("{cleared} of {all} found in {name}, of {scanned} instructions"));
    }
    if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
}

fn is_code<'a>(section: &impl ObjectSection<'a>) -> bool {
    matches!(section.flags(), SectionFlags::Elf { sh_flags } if sh_flags & u64::from(elf::SHF_EXECINSTR) != 0)
}

/// What the last entry at or below `at` says.
fn last<T: Copy>(sorted: &[(u64, T)], at: u64) -> Option<T> {
    let behind = sorted.partition_point(|(address, _)| *address <= at);
    Some(sorted.get(behind.checked_sub(1)?)?.1)
}

/// Whether an A64 instruction uses FP, SIMD, SVE or SME registers (DDI 0487, C4.1).
fn is_fp(word: u32) -> bool {
    let op0 = word >> 25 & 0xF;
    let data_processing = op0 & 0b0111 == 0b0111;
    let load_or_store_of_v = op0 & 0b0101 == 0b0100 && word & 1 << 26 != 0;
    let scalable = op0 == 0b0010 || op0 == 0 && word >> 31 == 1;
    // MSR and MRS of FPCR and FPSR: op0 3, op1 3, CRn 4, CRm 4, op2 0 and 1.
    let control = word & 0xFFDF_FFC0 == 0xD51B_4400;
    data_processing || load_or_store_of_v || scalable || control
}

#[cfg(test)]
mod tests {
    use super::{is_fp, last};

    #[test]
    fn groups() {
        let fp = [
            (0x6F00_E400, "movi v0.2d, #0"),
            (0x9E67_0000, "fmov d0, x0"),
            (0x1E62_2820, "fadd d0, d1, d2"),
            (0x3DC0_0000, "ldr q0, [x0]"),
            (0x6D00_27E8, "stp d8, d9, [sp]"),
            (0x5C00_0000, "ldr d0, ."),
            (0x4C40_7000, "ld1 {v0.16b}, [x0]"),
            (0x2518_E3E0, "ptrue p0.b"),
            (0xD51B_441F, "msr fpcr, xzr"),
            (0xD53B_4420, "mrs x0, fpsr"),
        ];
        let others = [
            (0xF940_0000, "ldr x0, [x0]"),
            (0xA9BF_7BFD, "stp x29, x30, [sp, #-16]!"),
            (0x5800_0000, "ldr x0, ."),
            (0xC8E0_FC00, "casal x0, x0, [x0]"),
            (0x8B01_0000, "add x0, x0, x1"),
            (0x9AC3_5C42, "crc32cx w2, w2, x3"),
            (0xD503_201F, "nop"),
            (0xD65F_03C0, "ret"),
            (0xD51B_E040, "msr cntfrq_el0-like, x0"),
            (0, "udf #0"),
        ];
        assert!(fp.iter().all(|(word, name)| is_fp(*word) || panic!("{name}")));
        assert!(others.iter().all(|(word, name)| !is_fp(*word) || panic!("{name}")));
    }

    #[test]
    fn the_last_at_or_below() {
        let sorted = [(4, 'a'), (8, 'b')];
        assert_eq!([3, 4, 7, 8, 99].map(|at| last(&sorted, at)), [None, Some('a'), Some('a'), Some('b'), Some('b')]);
    }
}
