//! ESR_EL2 decoded, and the exceptions EL2 makes up for EL1 (DDI 0487, D24.2.40 and D1.3).

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

/// Exception class, ESR bits 31:26.
#[inline]
pub const fn class(esr: u64) -> u8 {
    ((esr >> 26) & 0x3F) as u8
}

/// The access of a data abort (class 0x24), `None` where the syndrome does not describe it (ISV = 0), or where it is a
/// stage-1 table walk.
#[inline]
pub const fn data_access(esr: u64) -> Option<DataAccess> {
    let _ = esr;
    None
}

/// Whether HPFAR_EL2 holds the faulting IPA: translation, access flag and address size faults, or a stage-1 walk.
#[inline]
pub const fn hpfar_valid(esr: u64) -> bool {
    let _ = esr;
    false
}

/// What a load of `access` puts into the register, from the value read.
#[inline]
pub const fn extend(access: DataAccess, value: u64) -> u64 {
    let _ = access;
    value
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
    let _ = esr;
    SysAccess { reg: SysReg(0), register: 31, read: true }
}

/// An exception to be taken at EL1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Injection {
    /// ESR_EL1.
    pub esr: u64,
    /// Added to VBAR_EL1.
    pub vector: u64,
    /// The new PSTATE, for SPSR_EL2.
    pub spsr: u64,
}

/// The synchronous external abort for the data or instruction abort `esr`, taken with `spsr`.
pub const fn external_abort(esr: u64, spsr: u64) -> Injection {
    let _ = esr;
    Injection { esr: 0, vector: 0, spsr }
}

/// An undefined instruction exception, class 0, for a trap with `esr`, taken with `spsr`.
pub const fn undefined(esr: u64, spsr: u64) -> Injection {
    let _ = esr;
    Injection { esr: 0, vector: 0, spsr }
}
