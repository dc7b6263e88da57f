//! Trapped system registers: which read as what, which ignore writes, which do not exist for a guest.

use super::idreg::IdReg;
use super::syndrome::SysReg;

/// What a trapped system register access means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Not implemented for the guest: an undefined instruction exception.
    Undefined,
    /// Reads give this, writes are ignored.
    Constant(u64),
    /// Reads give `idreg::filter` of the hardware's value; a write is undefined.
    Id(IdReg),
    /// `ICC_SGI1R_EL1`: a write goes to `sgi::Targets::expand`, a read is undefined.
    Sgi1,
}

/// The policy for `reg`, read or written.
#[inline]
pub fn policy(reg: SysReg, read: bool) -> Policy {
    let _ = (reg, read);
    Policy::Undefined
}
