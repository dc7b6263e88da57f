//! ID registers: what a domain may know about its CPU.
//!
//! An allow-list by field. What is not listed reads as "not implemented": features EL2 does not switch or would have to
//! trap, everything of EL2 and EL3, and every field this list is older than. Hiding a feature does not disable it; that is
//! the trap controls' part (HCR_EL2, CPTR_EL2, MDCR_EL2, HCRX_EL2).
//!
//! References are to DDI 0487, D24.2.

use cofferdam_plan::DomainFlags;

/// An ID register: op0 = 3, op1 = 0, CRn = 0, by CRm (1 to 7) and op2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdReg {
    /// CRm.
    pub crm: u8,
    /// op2.
    pub op2: u8,
}

/// A field of four bits a guest may see.
#[derive(Clone, Copy)]
struct Field {
    /// Its lowest bit.
    shift: u8,
    /// Highest value shown: a higher one means everything this one means, and more.
    max: u8,
    /// Its values from here up are shown as 0b1111: 8 where the field is signed, so that negative means "not implemented"
    /// (D24.1.3); 0 where it is hidden and zero would mean "implemented"; 16 where it is unsigned.
    absent_from: u8,
}

const fn up_to(shift: u8, max: u8) -> Field {
    Field { shift, max, absent_from: 16 }
}

const fn signed(shift: u8, max: u8) -> Field {
    Field { shift, max, absent_from: 8 }
}

const fn absent(shift: u8) -> Field {
    Field { shift, max: 0, absent_from: 0 }
}

/// EL0 and EL1 (AArch64 only), FP, AdvSIMD, GIC system registers, DIT, CSV2, CSV3. Not: EL2, EL3, RAS, SVE, SEL2, MPAM,
/// AMU, RME.
const PFR0: &[Field] =
    &[up_to(0, 1), up_to(4, 1), signed(16, 1), signed(20, 1), up_to(24, 1), up_to(48, 1), up_to(56, 1), up_to(60, 1)];
/// BT, SSBS, CSV2_frac. Not: MTE, SME, NMI, GCS and what else needs EL2's help.
const PFR1: &[Field] = &[up_to(0, 1), up_to(4, 2), up_to(32, 1)];
/// DebugVer v8 with two breakpoints and watchpoints (all trapped, reading zero). Not: DoubleLock, PMU, SPE, trace, TRBE,
/// BRBE.
const DFR0: &[Field] = &[up_to(0, 6), up_to(12, 1), up_to(20, 1), absent(36)];
/// AES, SHA1, SHA2, CRC32, Atomic, RDM, SHA3, SM3, SM4, DP, FHM, TS, TLB, RNDR. Not: TME.
const ISAR0: &[Field] = &[
    up_to(4, 2),
    up_to(8, 1),
    up_to(12, 2),
    up_to(16, 1),
    up_to(20, 2),
    up_to(28, 1),
    up_to(32, 1),
    up_to(36, 1),
    up_to(40, 1),
    up_to(44, 1),
    up_to(48, 1),
    up_to(52, 2),
    up_to(56, 2),
    up_to(60, 1),
];
/// DPB, APA, API, JSCVT, FCMA, LRCPC, GPA, GPI, FRINTTS, SB, SPECRES, BF16, DGH, I8MM. Not: XS, LS64.
const ISAR1: &[Field] = &[
    up_to(0, 2),
    up_to(4, 5),
    up_to(8, 5),
    up_to(12, 1),
    up_to(16, 1),
    up_to(20, 2),
    up_to(24, 1),
    up_to(28, 1),
    up_to(32, 1),
    up_to(36, 1),
    up_to(40, 1),
    up_to(44, 1),
    up_to(48, 1),
    up_to(52, 1),
];
/// RPRES, GPA3, APA3, BC, PAC_frac, CLRBHB, RPRFM, CSSC. Not: WFxT, MOPS, 128-bit registers.
const ISAR2: &[Field] =
    &[up_to(4, 1), up_to(8, 1), up_to(12, 5), up_to(20, 1), up_to(24, 1), up_to(28, 1), up_to(48, 1), up_to(52, 1)];
/// PARange up to 48 bits, ASIDBits, BigEnd, BigEndEL0, TGran16, TGran64, TGran4 (without 52-bit addresses), ExS. Not: the
/// stage-2 granules, FGT, ECV.
const MMFR0: &[Field] =
    &[up_to(0, 5), up_to(4, 2), up_to(8, 1), up_to(16, 1), up_to(20, 1), signed(24, 0), signed(28, 0), up_to(44, 1)];
/// HAFDBS, HPDS, PAN, SpecSEI, ETS, nTLBPA, ECBHB. Not: VMIDBits, VH, LO, XNX, TWED, HCX, AFP, TIDCP1, CMOW.
const MMFR1: &[Field] =
    &[up_to(0, 2), up_to(12, 2), up_to(20, 3), up_to(24, 1), up_to(36, 2), up_to(48, 1), up_to(60, 1)];
/// CnP, UAO, LSM, VARange, CCIDX, ST, AT, IDS, TTL, BBM, E0PD. Not: IESB, NV, FWB, EVT.
const MMFR2: &[Field] = &[
    up_to(0, 1),
    up_to(4, 1),
    up_to(8, 1),
    up_to(16, 1),
    up_to(20, 1),
    up_to(28, 1),
    up_to(32, 1),
    up_to(36, 1),
    up_to(48, 1),
    up_to(52, 2),
    up_to(60, 1),
];

/// Fields that take a grant, by grant, CRm and op2: instead of what [`fields`] says. SVE; of its details SVEver, AES, BitPerm, BF16,
/// SHA3, SM4, I8MM, F32MM, F64MM. PMUVer up to PMUv3p7. All breakpoints, watchpoints and those that match contexts.
const GRANTED: &[(u32, IdReg, &[Field])] = &[
    (DomainFlags::SVE, IdReg { crm: 4, op2: 0 }, &[up_to(32, 1)]),
    (
        DomainFlags::SVE,
        IdReg { crm: 4, op2: 4 },
        &[
            up_to(0, 1),
            up_to(4, 2),
            up_to(16, 1),
            up_to(20, 1),
            up_to(32, 1),
            up_to(40, 1),
            up_to(44, 1),
            up_to(52, 1),
            up_to(56, 1),
        ],
    ),
    (DomainFlags::PMU, IdReg { crm: 5, op2: 0 }, &[up_to(8, 7)]),
    (DomainFlags::DEBUG, IdReg { crm: 5, op2: 0 }, &[up_to(12, 15), up_to(20, 15), up_to(28, 15)]),
];

/// What may be seen of `reg`. The AArch32 registers (CRm 1 to 3) describe nothing a guest has, so they read zero, like
/// every encoding that is reserved (D24.1.3).
const fn fields(reg: IdReg) -> &'static [Field] {
    match (reg.crm, reg.op2) {
        (4, 0) => PFR0,
        (4, 1) => PFR1,
        (5, 0) => DFR0,
        (6, 0) => ISAR0,
        (6, 1) => ISAR1,
        (6, 2) => ISAR2,
        (7, 0) => MMFR0,
        (7, 1) => MMFR1,
        (7, 2) => MMFR2,
        _ => &[],
    }
}

/// What a guest of a domain with these `flags` reads where the hardware says `raw`. Fields not listed read as "not
/// implemented".
pub fn filter(reg: IdReg, raw: u64, flags: u32) -> u64 {
    let with_grant = GRANTED.iter().filter(|(grant, of, _)| flags & grant != 0 && *of == reg).flat_map(|entry| entry.2);
    let mut shown = 0;
    for field in fields(reg).iter().chain(with_grant) {
        let value = raw >> field.shift & 0xF;
        let value = if value >= u64::from(field.absent_from) { 0xF } else { value.min(u64::from(field.max)) };
        shown = shown & !(0xF << field.shift) | value << field.shift;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(reg: IdReg, raw: u64) -> u64 {
        super::filter(reg, raw, 0)
    }

    fn id(crm: u8, op2: u8) -> IdReg {
        IdReg { crm, op2 }
    }

    #[test]
    fn cortex_a57_keeps_what_it_has() {
        assert_eq!(filter(id(4, 0), 0x0000_0000_0100_2222), 0x0100_0011, "EL2, EL3 and AArch32 are not the guest's");
        assert_eq!(filter(id(5, 0), 0x0000_0000_1030_5106), 0x00F0_0010_1006, "no double lock, no PMU");
        assert_eq!(filter(id(6, 0), 0x0000_0000_0001_1120), 0x0001_1120);
        assert_eq!(filter(id(7, 0), 0x0000_0000_0000_1124), 0x0000_0124);
    }

    #[test]
    fn signed_fields_stay_absent() {
        let no_fp = filter(id(4, 0), 0x00FF_0000);
        assert_eq!(no_fp, 0x00FF_0000);
        assert_eq!(filter(id(7, 0), 0xFF << 24), 0xFF << 24, "no 4 KiB, no 64 KiB granule");
        assert_eq!(filter(id(7, 0), 0x1 << 28), 0, "4 KiB without 52 bits");
    }

    #[test]
    fn a_cpu_with_everything_shows_the_list_only() {
        let mut everything = 0;
        for shift in (0..64).step_by(4) {
            everything |= 7u64 << shift;
        }
        for crm in 0..16 {
            for op2 in 0..8 {
                let shown = filter(id(crm, op2), everything);
                assert_eq!(shown != 0, !fields(id(crm, op2)).is_empty());
                assert_eq!(filter(id(crm, op2), shown), shown, "filtering twice changes nothing");
                let double_lock = if (crm, op2) == (5, 0) { 0xF << 36 } else { 0 };
                assert!((0..64).step_by(4).all(|s| (shown & !double_lock) >> s & 0xF <= 7));
            }
        }
        let pfr0 = filter(id(4, 0), everything);
        for (name, shift) in [("EL2", 8), ("EL3", 12), ("RAS", 28), ("SVE", 32), ("MPAM", 40), ("AMU", 44), ("RME", 52)]
        {
            assert_eq!(pfr0 >> shift & 0xF, 0, "{name}");
        }
        let pfr1 = filter(id(4, 1), everything);
        assert_eq!((pfr1 >> 8 & 0xF, pfr1 >> 24 & 0xF), (0, 0), "MTE, SME");
        let dfr0 = filter(id(5, 0), everything);
        for (name, shift) in [("trace", 4), ("PMU", 8), ("SPE", 32), ("filter", 40), ("TRBE", 44), ("BRBE", 52)] {
            assert_eq!(dfr0 >> shift & 0xF, 0, "{name}");
        }
        assert_eq!(filter(id(6, 1), everything) >> 60, 0, "LS64");
        assert_eq!(filter(id(6, 2), everything) >> 16 & 0xF, 0, "MOPS");
    }

    #[test]
    fn grants_show_their_fields_and_no_others() {
        let (sve, pmu, debug) = (DomainFlags::SVE, DomainFlags::PMU, DomainFlags::DEBUG);
        // Cortex-A57: PMUv3, six breakpoints, four watchpoints, two of the breakpoints match contexts.
        let a57 = 0x0000_0000_1030_5106;
        assert_eq!(super::filter(id(5, 0), a57, pmu), 0x00F0_0010_1106);
        assert_eq!(super::filter(id(5, 0), a57, debug), 0x00F0_1030_5006);
        assert_eq!(super::filter(id(5, 0), a57, sve), filter(id(5, 0), a57));
        assert_eq!(super::filter(id(5, 0), 0x906, pmu) >> 8 & 0xF, 7, "a later PMU");
        assert_eq!(super::filter(id(4, 0), 1 << 32 | 2 << 8, sve), 1 << 32);
        let everything = u64::MAX / 15 * 7;
        for crm in 0..8 {
            for op2 in 0..8 {
                let more = super::filter(id(crm, op2), everything, sve | pmu | debug);
                let list = GRANTED.iter().filter(|entry| entry.1 == id(crm, op2)).flat_map(|entry| entry.2);
                let granted: u64 = list.map(|field| 0xFu64 << field.shift).sum();
                assert_eq!((more ^ filter(id(crm, op2), everything)) & !granted, 0, "CRm {crm}, op2 {op2}");
            }
        }
        assert_eq!(filter(id(4, 4), everything), 0, "no SVE, no details");
    }

    #[test]
    fn fields_of_a_register_do_not_overlap() {
        for crm in 0..8 {
            for op2 in 0..8 {
                let list = fields(id(crm, op2));
                for pair in list.windows(2) {
                    assert!(pair[0].shift + 4 <= pair[1].shift, "CRm {crm}, op2 {op2}");
                }
                assert!(list.iter().all(|f| f.shift % 4 == 0 && f.shift <= 60 && f.max < 8));
            }
        }
    }
}
