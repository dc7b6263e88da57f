//! Decodes VTCR_EL2 and TCR_EL2 as the hardware would (DDI 0487, D8.2): input size, start level, concatenated tables.
//!
//! Only what the plan uses is accepted: 4 KiB granule, cacheable inner-shareable walks, no hardware flag updates, no
//! software-visible extras. Written from the manual, not from the compiler's table writer.

/// A translation regime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Regime {
    /// Bits of an input address.
    pub(crate) ia_bits: u32,
    /// Bits of an output address.
    pub(crate) oa_bits: u32,
    /// Level of the root, 0 to 2.
    pub(crate) start: u32,
    /// Tables of 4 KiB side by side that form the root, 1 to 16.
    pub(crate) roots: u32,
}

/// Bits below a level's index: what one entry of it maps, as a power of two.
pub(crate) const fn shift(level: u32) -> u32 {
    12 + 9 * (3 - level)
}

/// PS and PARange encodings to address bits (DDI 0487, D8.1.1).
const fn ps_bits(ps: u64) -> Option<u32> {
    Some(match ps {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        5 => 48,
        _ => return None,
    })
}

/// IRGN0 = ORGN0 = Write-Back Write-Allocate, SH0 = Inner Shareable, TG0 = 4 KiB: bits 15:8.
const WALKS: u64 = 0x35 << 8;
const WALKS_MASK: u64 = 0xFF << 8;

/// VTCR_EL2 (DDI 0487, D19.2.146).
pub(crate) fn stage2(vtcr: u64, pa_bits: u32, vmid_bits: u32) -> Result<Regime, &'static str> {
    // T0SZ, SL0, walk attributes, PS, VS and the RES1 bit 31; HA, HD, HWU, NSW, NSA, DS, SL2 stay zero.
    if vtcr & !0x800F_FFFF != 0 {
        return Err("sets a bit that must be zero");
    }
    if vtcr & 1 << 31 == 0 {
        return Err("leaves bit 31 (RES1) zero");
    }
    if vtcr & WALKS_MASK != WALKS {
        return Err("does not ask for a 4 KiB granule with cacheable, inner-shareable walks");
    }
    let oa_bits = ps_bits(vtcr >> 16 & 7).ok_or("asks for an unknown physical address size")?;
    if oa_bits != pa_bits {
        return Err("asks for another physical address size than the header");
    }
    if (vtcr >> 19 & 1 == 1) != (vmid_bits == 16) {
        return Err("asks for another VMID size than the header");
    }
    let ia_bits = 64 - (vtcr as u32 & 0x3F);
    // Start level by SL0, and the input sizes it allows: concatenation adds up to 4 bits (DDI 0487, D8.2.9).
    let (start, smallest, largest) = match vtcr >> 6 & 3 {
        0 => (2, 25, 34),
        1 => (1, 31, 43),
        2 => (0, 40, 48),
        _ => return Err("asks for a start level that a 4 KiB granule does not have"),
    };
    if ia_bits < smallest || ia_bits > largest {
        return Err("combines T0SZ and SL0 in a way the walker faults on");
    }
    if ia_bits > pa_bits {
        return Err("asks for more input bits than there are physical address bits");
    }
    // Level 0 exists from 44 physical address bits on (DDI 0487, D8.2.9).
    if start == 0 && pa_bits < 44 {
        return Err("starts at level 0 with fewer than 44 physical address bits");
    }
    let root_bits = shift(start) + 9;
    let roots = if ia_bits > root_bits { 1 << (ia_bits - root_bits) } else { 1 };
    Ok(Regime { ia_bits, oa_bits, start, roots })
}

/// TCR_EL2 with E2H = 0 (DDI 0487, D19.2.139).
pub(crate) fn el2(tcr: u64, pa_bits: u32) -> Result<Regime, &'static str> {
    // T0SZ, walk attributes, PS and the RES1 bits 23 and 31; TBI, HA, HD, HPD, HWU, TBID, TCMA, DS stay zero.
    if tcr & !0x8087_FF3F != 0 {
        return Err("sets a bit that must be zero");
    }
    if tcr & 0x8080_0000 != 0x8080_0000 {
        return Err("leaves bit 23 or 31 (RES1) zero");
    }
    if tcr & WALKS_MASK != WALKS {
        return Err("does not ask for a 4 KiB granule with cacheable, inner-shareable walks");
    }
    let oa_bits = ps_bits(tcr >> 16 & 7).ok_or("asks for an unknown physical address size")?;
    if oa_bits != pa_bits {
        return Err("asks for another physical address size than the header");
    }
    // The start level follows from the input size (DDI 0487, D8.2.8).
    let ia_bits = 64 - (tcr as u32 & 0x3F);
    let start = match ia_bits {
        40..=48 => 0,
        31..=39 => 1,
        25..=30 => 2,
        _ => return Err("asks for an input size that does not exist"),
    };
    Ok(Regime { ia_bits, oa_bits, start, roots: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 1 << 31 | WALKS;

    fn vtcr(ia: u64, sl0: u64, ps: u64) -> u64 {
        BASE | ps << 16 | sl0 << 6 | (64 - ia)
    }

    #[test]
    fn start_levels_and_concatenation() {
        assert_eq!(stage2(vtcr(40, 1, 2), 40, 8), Ok(Regime { ia_bits: 40, oa_bits: 40, start: 1, roots: 2 }));
        assert_eq!(stage2(vtcr(39, 1, 2), 40, 8).map(|r| r.roots), Ok(1));
        assert_eq!(stage2(vtcr(34, 0, 1), 36, 8), Ok(Regime { ia_bits: 34, oa_bits: 36, start: 2, roots: 16 }));
        assert_eq!(stage2(vtcr(44, 2, 4), 44, 8), Ok(Regime { ia_bits: 44, oa_bits: 44, start: 0, roots: 1 }));
        assert_eq!(stage2(vtcr(42, 1, 4), 44, 8).map(|r| r.roots), Ok(8));
    }

    #[test]
    fn what_the_walker_faults_on_is_refused() {
        assert!(stage2(vtcr(44, 1, 4), 44, 8).is_err());
        assert!(stage2(vtcr(40, 2, 2), 40, 8).is_err(), "level 0 below 44 bits");
        assert!(stage2(vtcr(24, 0, 2), 40, 8).is_err());
        assert!(stage2(vtcr(40, 3, 2), 40, 8).is_err());
        assert!(stage2(vtcr(42, 1, 2), 40, 8).is_err(), "more input than output bits");
        assert!(stage2(vtcr(40, 1, 2), 40, 16).is_err(), "VS");
        for bit in (20..31).chain(32..64) {
            assert!(stage2(vtcr(40, 1, 2) | 1 << bit, 40, 8).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn el2_start_level_follows_from_size() {
        let tcr = |ia: u64| 0x8080_0000 | WALKS | 2 << 16 | (64 - ia);
        assert_eq!(el2(tcr(39), 40).map(|r| r.start), Ok(1));
        assert_eq!(el2(tcr(32), 40).map(|r| r.start), Ok(1));
        assert_eq!(el2(tcr(48), 40).map(|r| r.start), Ok(0));
        assert_eq!(el2(tcr(30), 40).map(|r| r.start), Ok(2));
        assert!(el2(tcr(49), 40).is_err());
        assert!(el2(tcr(39) | 1 << 20, 40).is_err(), "TBI");
    }
}
