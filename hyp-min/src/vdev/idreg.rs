//! ID registers: what a domain may know about its CPU.

/// An ID register: op0 = 3, op1 = 0, CRn = 0, by CRm (1 to 7) and op2 (DDI 0487, D23.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdReg {
    /// CRm.
    pub crm: u8,
    /// op2.
    pub op2: u8,
}

/// What a guest reads where the hardware says `raw`. Fields not listed read as "not implemented".
pub fn filter(reg: IdReg, raw: u64) -> u64 {
    let _ = (reg, raw);
    0
}
