//! ESR_EL2 decoded, and the exceptions EL2 makes up for EL1 (DDI 0487, D24.2.40 and D1.3.4).
//!
//! Nothing is guessed: an abort whose syndrome does not describe the access is never emulated, and no guest memory is
//! read to find out.

/// Exception classes (ESR_ELx.EC) that EL2 gets from a guest.
pub mod ec {
    /// WFI, WFE, WFIT, WFET.
    pub const WFX: u8 = 0x01;
    /// SVE, SIMD, floating point (CPTR_EL2).
    pub const FP: u8 = 0x07;
    /// HVC from AArch64.
    pub const HVC: u8 = 0x16;
    /// SMC from AArch64.
    pub const SMC: u8 = 0x17;
    /// MSR, MRS, SYS from AArch64.
    pub const SYSREG: u8 = 0x18;
    /// Instruction abort from EL1 or EL0.
    pub const INSTRUCTION_ABORT: u8 = 0x20;
    /// Data abort from EL1 or EL0.
    pub const DATA_ABORT: u8 = 0x24;
}

/// ESR_ELx.IL: the instruction was 32 bits long.
const IL: u64 = 1 << 25;
const ISV: u64 = 1 << 24;
const FNV: u64 = 1 << 10;
const CM: u64 = 1 << 8;
const S1PTW: u64 = 1 << 7;
const WNR: u64 = 1 << 6;
/// Fault status: synchronous external abort, not on a table walk.
const EXTERNAL: u64 = 0x10;

/// Exception class, ESR bits 31:26.
#[inline]
pub const fn class(esr: u64) -> u8 {
    ((esr >> 26) & 0x3F) as u8
}

/// Immediate of an HVC or SMC.
#[inline]
pub const fn immediate(esr: u64) -> u16 {
    esr as u16
}

/// Bytes from a trapped instruction to the next one.
#[inline]
pub const fn instruction_bytes(esr: u64) -> u64 {
    if esr & IL != 0 { 4 } else { 2 }
}

/// A data abort that can be emulated: one general-purpose register, syndrome valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataAccess {
    /// Bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// The register, 0 to 31; 31 is the zero register.
    pub register: u8,
    /// A store.
    pub write: bool,
    /// Load: sign-extend.
    pub sign: bool,
    /// Load: the register is X (64 bits), not W.
    pub wide: bool,
}

/// The access of a data abort (class 0x24), `None` where the syndrome does not describe it (ISV = 0: pairs, write-back,
/// atomics, SIMD, cache maintenance), or where it is a stage-1 table walk.
#[inline]
pub const fn data_access(esr: u64) -> Option<DataAccess> {
    if esr & (ISV | S1PTW | CM) != ISV {
        return None;
    }
    Some(DataAccess {
        size: 1 << ((esr >> 22) & 3),
        register: ((esr >> 16) & 31) as u8,
        write: esr & WNR != 0,
        sign: esr & (1 << 21) != 0,
        wide: esr & (1 << 15) != 0,
    })
}

/// Whether the abort is a stage-2 translation fault: nothing is mapped there, so an emulated frame may be meant. Every
/// other status (permission, external, alignment, …) is never emulated.
#[inline]
pub const fn is_translation_fault(esr: u64) -> bool {
    matches!(esr & 0x3F, 0x04..=0x07 | 0x2B)
}

/// Whether HPFAR_EL2 holds the faulting IPA: address size, translation and access flag faults, or a stage-2 fault on a
/// stage-1 walk (DDI 0487, D24.2.58). UNKNOWN otherwise.
#[inline]
pub const fn hpfar_valid(esr: u64) -> bool {
    matches!(esr & 0x3F, 0x00..=0x0B | 0x29 | 0x2B) || (esr & S1PTW != 0 && matches!(esr & 0x3F, 0x0C..=0x0F))
}

/// The faulting IPA, where [`hpfar_valid`]: the page from HPFAR_EL2.FIPA, the byte in it from FAR_EL2. For a stage-1 walk
/// the low 12 bits mean nothing.
#[inline]
pub const fn ipa(hpfar: u64, far: u64) -> u64 {
    (hpfar & 0x0000_FFFF_FFFF_FFF0) << 8 | far & 0xFFF
}

/// What a store writes: the register's value cut to the size of the access.
#[inline]
pub const fn truncate(access: DataAccess, value: u64) -> u64 {
    value & mask(access.size)
}

/// What a load of `access` puts into the register, from the value read.
#[inline]
pub const fn extend(access: DataAccess, value: u64) -> u64 {
    let value = value & mask(access.size);
    let sign_bit = 1 << (access.size as u32 * 8 - 1);
    let value = if access.sign { (value ^ sign_bit).wrapping_sub(sign_bit) } else { value };
    if access.wide { value } else { value & 0xFFFF_FFFF }
}

/// All bytes of an access of `size`.
const fn mask(size: u8) -> u64 {
    match size {
        1 => 0xFF,
        2 => 0xFFFF,
        4 => 0xFFFF_FFFF,
        _ => u64::MAX,
    }
}

/// PSTATE behind an instruction that EL2 has carried out instead of the CPU, from its SPSR_EL2: BTYPE is clear (DDI 0487,
/// D8.4), SS too, so that a guest that steps takes its step now and not one instruction later (D2.12.3), and T32 code in an
/// IT block is one instruction further (F1.2.1, ITAdvance).
#[inline(always)]
pub const fn stepped(spsr: u64) -> u64 {
    if spsr & (AARCH32 | BTYPE | SS) == 0 {
        return spsr;
    }
    if spsr & AARCH32 == 0 { spsr & !(BTYPE | SS) } else { it_advance(spsr & !SS) }
}
const AARCH32: u64 = 1 << 4;
const BTYPE: u64 = 3 << 10;
const SS: u64 = 1 << 21;

/// IT[7:2] is in SPSR bits 15:10, IT[1:0] in bits 26:25.
const fn it_advance(spsr: u64) -> u64 {
    let it = (spsr >> 10 & 0x3F) << 2 | spsr >> 25 & 3;
    let it = if it & 7 == 0 { 0 } else { it & 0xE0 | (it << 1 & 0x1F) };
    spsr & !(0x3F << 10 | 3 << 25) | (it >> 2) << 10 | (it & 3) << 25
}

/// A trapped MSR, MRS or SYS instruction (class 0x18).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SysAccess {
    /// op0, op1, CRn, CRm, op2.
    pub reg: SysReg,
    /// The register, 0 to 31; 31 is the zero register.
    pub register: u8,
    /// MRS.
    pub read: bool,
}

/// A system register's encoding: op0 19:16, op1 15:12, CRn 11:8, CRm 7:4, op2 3:0, one hex digit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SysReg(pub u32);

/// Decodes class 0x18.
#[inline]
pub const fn sys_access(esr: u64) -> SysAccess {
    let iss = esr as u32;
    let (op0, op1, op2) = ((iss >> 20) & 3, (iss >> 14) & 7, (iss >> 17) & 7);
    let (crn, crm) = ((iss >> 10) & 15, (iss >> 1) & 15);
    SysAccess {
        reg: SysReg(op0 << 16 | op1 << 12 | crn << 8 | crm << 4 | op2),
        register: ((iss >> 5) & 31) as u8,
        read: iss & 1 != 0,
    }
}

/// An exception to be taken at EL1. ELR_EL1 is the preferred return address of the trap, SPSR_EL1 its SPSR_EL2, FAR_EL1
/// (aborts only) its FAR_EL2; the PC becomes VBAR_EL1 + `vector`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Injection {
    /// ESR_EL1.
    pub esr: u64,
    /// Added to VBAR_EL1.
    pub vector: u64,
    /// The new PSTATE, for SPSR_EL2.
    pub spsr: u64,
}

/// The synchronous external abort for the data or instruction abort `esr`, taken with `spsr` under `sctlr` (SCTLR_EL1).
///
/// Any other class gives a data abort: the caller uses it for what a guest must not do through memory.
pub const fn external_abort(esr: u64, spsr: u64, sctlr: u64) -> Injection {
    let data = class(esr) != ec::INSTRUCTION_ABORT;
    let class = if data { ec::DATA_ABORT } else { ec::INSTRUCTION_ABORT } as u64 | from_el1(spsr) as u64;
    // FnV goes along: where EL2 does not know the address, EL1 is not told one. WnR and CM describe the access.
    let kept = if data { esr & (IL | FNV | CM | WNR) } else { esr & FNV | IL };
    inject(class << 26 | kept | EXTERNAL, spsr, sctlr)
}

/// An undefined instruction exception (class 0) for a trap with `esr`, taken with `spsr` under `sctlr` (SCTLR_EL1).
pub const fn undefined(esr: u64, spsr: u64, sctlr: u64) -> Injection {
    inject(esr & IL, spsr, sctlr)
}

/// Whether the exception came from EL1 (AArch64, SP_EL0 or SP_EL1).
pub const fn from_el1(spsr: u64) -> bool {
    spsr & 0x1C == 4
}

const fn inject(esr: u64, spsr: u64, sctlr: u64) -> Injection {
    let vector = match spsr & 0x1F {
        0b00100 => 0x000,       // EL1t
        0b00101 => 0x200,       // EL1h
        m if m < 0x10 => 0x400, // EL0, AArch64
        _ => 0x600,             // EL0, AArch32
    };
    Injection { esr, vector, spsr: entry_pstate(spsr, sctlr) }
}

/// PSTATE on entry to EL1 (DDI 0487, D1.3.4): EL1h, D, A, I, F masked; flags, DIT and PAN as they were, PAN set unless
/// SCTLR_EL1.SPAN, SSBS from SCTLR_EL1.DSSBS; SS, IL, UAO and BTYPE clear. MTE and NMI are not shown to guests, so TCO and
/// ALLINT stay clear.
const fn entry_pstate(spsr: u64, sctlr: u64) -> u64 {
    const EL1H_DAIF: u64 = 0x3C5;
    const KEPT: u64 = 0xF << 28 | DIT | PAN;
    const DIT: u64 = 1 << 24;
    const PAN: u64 = 1 << 22;
    const SSBS: u64 = 1 << 12;
    let pan = if sctlr & 1 << 23 == 0 { PAN } else { 0 };
    let ssbs = if sctlr & 1 << 44 != 0 { SSBS } else { 0 };
    spsr & KEPT | EL1H_DAIF | pan | ssbs
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn abort(iss: u64) -> u64 {
        (ec::DATA_ABORT as u64) << 26 | IL | iss
    }

    #[test]
    fn a_signed_byte_load_is_decoded() {
        // LDRSB X3: SAS 0, SSE 1, SRT 3, SF 1, translation fault level 3.
        let access = data_access(abort(ISV | 1 << 21 | 3 << 16 | 1 << 15 | 7)).unwrap();
        assert_eq!(access, DataAccess { size: 1, register: 3, write: false, sign: true, wide: true });
        assert_eq!(extend(access, 0x1180), 0xFFFF_FFFF_FFFF_FF80);
        assert_eq!(extend(DataAccess { wide: false, ..access }, 0x80), 0xFFFF_FF80);
        assert_eq!(extend(DataAccess { sign: false, ..access }, 0x1180), 0x80);
        let word = DataAccess { size: 4, ..access };
        assert_eq!(extend(word, 0x8000_0000), 0xFFFF_FFFF_8000_0000);
        let double = DataAccess { size: 8, ..access };
        assert_eq!(extend(double, 1 << 63), 1 << 63);
        assert_eq!(extend(DataAccess { wide: false, ..double }, u64::MAX), 0xFFFF_FFFF);
    }

    #[test]
    fn stores_are_cut_to_their_size() {
        for (sas, expected) in [(0, 0x88), (1, 0x7788), (2, 0x5566_7788), (3, 0x1122_3344_5566_7788)] {
            let access = data_access(abort(ISV | sas << 22 | 31 << 16 | WNR | 6)).unwrap();
            assert!(access.write && access.register == 31);
            assert_eq!(truncate(access, 0x1122_3344_5566_7788), expected);
        }
    }

    #[test]
    fn nothing_is_guessed() {
        assert_eq!(data_access(abort(7)), None, "ISV = 0");
        assert_eq!(data_access(abort(ISV | S1PTW | 7)), None, "table walk");
        assert_eq!(data_access(abort(ISV | CM | 7)), None, "cache maintenance");
    }

    #[test]
    fn hpfar_is_trusted_only_where_the_manual_says() {
        for status in 0..0x40 {
            let valid = matches!(status, 0..=0xB | 0x29 | 0x2B);
            assert_eq!(hpfar_valid(abort(status)), valid, "{status:#x}");
            let walk = valid || matches!(status, 0xC..=0xF);
            assert_eq!(hpfar_valid(abort(status | S1PTW)), walk, "{status:#x} on a walk");
            assert_eq!(is_translation_fault(abort(status)), matches!(status, 4..=7 | 0x2B));
        }
        assert_eq!(ipa(0x0000_0000_0080_0000, 0xFFFF_0000_0000_0104), 0x8000_0104);
    }

    #[test]
    fn system_register_trap() {
        // MSR ICC_SGI1R_EL1 (S3_0_C12_C11_5), X7.
        let esr = (ec::SYSREG as u64) << 26 | IL | 3 << 20 | 5 << 17 | 12 << 10 | 7 << 5 | 11 << 1;
        assert_eq!(sys_access(esr), SysAccess { reg: SysReg(0x30CB5), register: 7, read: false });
        assert!(sys_access(esr | 1).read);
        let all = sys_access(u64::MAX);
        assert_eq!(all, SysAccess { reg: SysReg(0x37FF7), register: 31, read: true });
    }

    #[test]
    fn aborts_name_the_level_they_came_from() {
        let esr = abort(ISV | WNR | 6);
        let same = external_abort(esr, 0x8000_0005, 1 << 23);
        assert_eq!(same.esr, 0x25 << 26 | IL | WNR | 0x10);
        assert_eq!((same.vector, same.spsr), (0x200, 0x8000_03C5));
        let lower = external_abort(esr & !IL, 0, 0);
        assert_eq!(lower.esr, 0x24 << 26 | WNR | 0x10);
        assert_eq!((lower.vector, lower.spsr), (0x400, 0x40_03C5), "PAN is set without SPAN");
        assert_eq!(external_abort(esr, 4, 0).vector, 0);
        assert_eq!(external_abort(esr, 0x10, 0).vector, 0x600);
        let fetch = external_abort((ec::INSTRUCTION_ABORT as u64) << 26 | 7, 5, 0);
        assert_eq!(fetch.esr, 0x21 << 26 | IL | 0x10);
        assert_eq!(external_abort(abort(FNV | EXTERNAL), 5, 0).esr & FNV, FNV);
    }

    #[test]
    fn stepping_over_an_instruction() {
        assert_eq!(stepped(0x8000_0005), 0x8000_0005);
        assert_eq!(stepped(0x8000_0C05), 0x8000_0005, "BTYPE");
        assert_eq!(stepped(0x8020_0005), 0x8000_0005, "SS: the step is taken");
        assert_eq!(stepped(0x20_0030), 0x30, "SS in T32");
        assert_eq!(stepped(0x30), 0x30, "T32 outside an IT block");
        // IT holds condition and mask; each step shifts the mask into the condition's lowest bit.
        let spsr = |it: u64| 0x30 | (it >> 2) << 10 | (it & 3) << 25;
        assert_eq!(stepped(spsr(0b0000_0111)), spsr(0b0000_1110));
        assert_eq!(stepped(spsr(0b1010_1100)), spsr(0b1011_1000));
        assert_eq!(stepped(spsr(0b1010_1000)), spsr(0), "the last of the block");
    }

    #[test]
    fn undefined_has_class_zero_and_keeps_the_length() {
        let trap = undefined((ec::SYSREG as u64) << 26 | IL | 0x1234, 5, 1 << 44);
        assert_eq!(trap.esr, IL);
        assert_eq!(trap.spsr & 1 << 12, 1 << 12, "DSSBS");
        assert_eq!(undefined(0, 0x30, 0).esr, 0, "T32");
    }

    #[test]
    fn entry_clears_what_must_not_leak_into_the_handler() {
        let spsr = undefined(IL, 0xFFFF_FFFF, 1 << 23).spsr;
        assert_eq!(spsr, 0xF000_0000 | 1 << 24 | 1 << 22 | 0x3C5);
    }
}
