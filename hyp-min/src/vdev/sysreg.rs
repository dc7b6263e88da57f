//! Trapped system registers: which read as what, which ignore writes, which do not exist for a guest.
//!
//! What is not in the table does not exist: PMU, SPE, trace, TRBE, AMU, MPAM, RAS records, LORegions, IMPLEMENTATION
//! DEFINED registers, and whatever the trap controls catch that this table is older than.

use super::idreg::IdReg;
use super::syndrome::SysReg;

/// What a trapped system register access means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Not implemented for the guest: an undefined instruction exception.
    Undefined,
    /// Reads give this, writes are ignored.
    Constant(u64),
    /// Reads give `idreg::filter` of the hardware's value.
    Id(IdReg),
}

const ZERO: Policy = Policy::Constant(0);
/// ICC_SRE_EL1: SRE, DFB, DIB, fixed (IHI 0069, 12.2.24).
const SRE: u64 = 7;
/// OSLSR_EL1.OSLM = 0b10: the OS lock is there, and open (DDI 0487, D24.3.21).
const OS_LOCK_OPEN: u64 = 1 << 3;

/// The policy for `reg`, read or written. References are to DDI 0487 where not said otherwise.
#[inline]
pub fn policy(reg: SysReg, read: bool) -> Policy {
    match (reg.0, read) {
        // SGI0R and ASGI1R name groups a guest has nothing in (IHI 0069, 12.2); SGI1R never comes here, see `traps.rs`.
        (0x30CB6 | 0x30CB7, false) => ZERO,
        // ICC_SRE_EL1, trapped by ICC_SRE_EL2.Enable = 0.
        (0x30CC5, _) => Policy::Constant(SRE),

        // HCR_EL2.TID3: the ID registers. All of CRm 1 to 7, reserved ones too.
        (0x30010..=0x30077, true) => match (reg.0 >> 4 & 0xF, reg.0 & 0xF) {
            (crm @ 1..=7, op2 @ 0..=7) => Policy::Id(IdReg { crm: crm as u8, op2: op2 as u8 }),
            _ => Policy::Undefined,
        },
        // HCR_EL2.TID1: REVIDR_EL1, AIDR_EL1.
        (0x30006 | 0x31007, true) => ZERO,
        // HCR_EL2.TACR: ACTLR_EL1 has to exist (D24.2.2).
        (0x30101, _) => ZERO,
        (0x20000..=0x2FFFF, _) => debug(reg.0, read),
        _ => Policy::Undefined,
    }
}

/// MDCR_EL2.TDA, TDOSA, TDRA: self-hosted debug reads as off and keeps nothing, so that kernels which clear it at boot
/// go on (D24.3).
fn debug(reg: u32, read: bool) -> Policy {
    match (reg, read) {
        // OSLAR_EL1 is write-only, OSLSR_EL1 read-only.
        (0x20104, false) => ZERO,
        (0x20114, true) => Policy::Constant(OS_LOCK_OPEN),
        // OSDTRRX, MDCCINT, MDSCR, OSDTRTX, OSECCR, OSDLR, DBGPRCR, DBGCLAIMSET, DBGCLAIMCLR.
        (0x20002 | 0x20020 | 0x20022 | 0x20032 | 0x20062 | 0x20134 | 0x20144 | 0x20786 | 0x20796, _) => ZERO,
        // MDRAR, DBGAUTHSTATUS, MDCCSR_EL0: read-only. DBGDTR_EL0, DBGDTRRX/TX_EL0: no debugger listens.
        (0x20100 | 0x207E6 | 0x23010, true) | (0x23040 | 0x23050, _) => ZERO,
        // DBGBVR, DBGBCR, DBGWVR, DBGWCR: the two of each that ID_AA64DFR0_EL1 shows.
        (0x20004..=0x20007 | 0x20014..=0x20017, _) => ZERO,
        // Trace and branch records (op1 = 1) and everything else.
        _ => Policy::Undefined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_generated_interrupts() {
        assert_eq!(policy(SysReg(0x30CB5), true), Policy::Undefined, "write-only");
        assert_eq!(policy(SysReg(0x30CB6), false), ZERO);
        assert_eq!(policy(SysReg(0x30CB7), false), ZERO);
        assert_eq!(policy(SysReg(0x30CC5), true), Policy::Constant(7));
        assert_eq!(policy(SysReg(0x30CC5), false), Policy::Constant(7));
    }

    #[test]
    fn identification_is_read_only_and_complete() {
        for crm in 1..8u32 {
            for op2 in 0..8 {
                let reg = SysReg(0x30000 | crm << 4 | op2);
                assert_eq!(policy(reg, true), Policy::Id(IdReg { crm: crm as u8, op2: op2 as u8 }));
                assert_eq!(policy(reg, false), Policy::Undefined);
            }
        }
        assert_eq!(policy(SysReg(0x30018), true), Policy::Undefined, "op2 has three bits");
    }

    #[test]
    fn a_kernel_can_switch_debug_off() {
        assert_eq!(policy(SysReg(0x20104), false), ZERO, "OSLAR");
        assert_eq!(policy(SysReg(0x20114), true), Policy::Constant(8), "OSLSR");
        assert_eq!(policy(SysReg(0x20022), false), ZERO, "MDSCR");
        assert_eq!(policy(SysReg(0x20015), false), ZERO, "DBGBCR1");
        assert_eq!(policy(SysReg(0x20025), false), Policy::Undefined, "DBGBCR2");
    }

    #[test]
    fn what_is_not_granted_does_not_exist() {
        for (name, reg) in [
            ("PMCR_EL0", 0x339C0),
            ("PMCCNTR_EL0", 0x339D0),
            ("PMEVCNTR0_EL0", 0x33E80),
            ("PMSCR_EL1", 0x30990),
            ("TRFCR_EL1", 0x30121),
            ("TRBLIMITR_EL1", 0x309B0),
            ("TRCPRGCTLR", 0x21010),
            ("BRBCR_EL1", 0x21900),
            ("AMCNTENSET0_EL0", 0x33D25),
            ("ERRSELR_EL1", 0x30531),
            ("ERXPFGCTL_EL1", 0x30545),
            ("LORSA_EL1", 0x30A40),
            ("GMID_EL1", 0x31004),
            ("S3_1_C15_C2_0", 0x31F20),
            ("S1_0_C11_C0_0", 0x10B00),
            ("MPAM1_EL1", 0x30A50),
        ] {
            assert_eq!(policy(SysReg(reg), true), Policy::Undefined, "{name}");
            assert_eq!(policy(SysReg(reg), false), Policy::Undefined, "{name}");
        }
    }
}
