//! Which optional features this CPU has, from its ID registers (DDI 0487, D24.2). Decides nothing.
#![allow(unsafe_code)] // system registers

use super::registers::mrs;

/// What register image and machine check need to know.
pub(crate) struct Features {
    pub(crate) ras: bool,
    pub(crate) sve: bool,
    pub(crate) pointer_auth: bool,
    pub(crate) mte: bool,
    pub(crate) limited_ordering: bool,
    pub(crate) vhe: bool,
    pub(crate) nested_2: bool,
    pub(crate) counter_offset: bool,
    pub(crate) hcrx: bool,
    pub(crate) fine_traps: bool,
    pub(crate) fine_traps_2: bool,
    pub(crate) activity_monitors: bool,
    pub(crate) mpam: bool,
    pub(crate) pmu: bool,
    pub(crate) pmu_el2_prohibit: bool,
    pub(crate) pmu_cycle_prohibit: bool,
    pub(crate) profiling: bool,
    pub(crate) trace_filter: bool,
    pub(crate) trace_buffer: bool,
    pub(crate) branch_records: bool,
}

/// The four-bit field of an ID register that starts at `lsb`.
pub(crate) const fn field(register: u64, lsb: u32) -> u64 {
    register >> lsb & 0xF
}

impl Features {
    /// Of this CPU.
    pub(crate) fn read() -> Self {
        let pfr0 = mrs!("id_aa64pfr0_el1");
        let pfr1 = mrs!("S3_0_C0_C4_1");
        let dfr0 = mrs!("id_aa64dfr0_el1");
        let isar1 = mrs!("S3_0_C0_C6_1");
        let isar2 = mrs!("S3_0_C0_C6_2");
        let mmfr0 = mrs!("id_aa64mmfr0_el1");
        let mmfr1 = mrs!("id_aa64mmfr1_el1");
        // APA, API, GPA, GPI of ISAR1; GPA3, APA3 of ISAR2.
        let auth = isar1 & 0xFF00_0FF0 | isar2 & 0xFF00;
        let pmu = match field(dfr0, 8) {
            0xF => 0,
            version => version,
        };
        Self {
            ras: field(pfr0, 28) != 0,
            sve: field(pfr0, 32) != 0,
            pointer_auth: auth != 0,
            mte: field(pfr1, 8) != 0,
            limited_ordering: field(mmfr1, 16) != 0,
            vhe: field(mmfr1, 8) != 0,
            nested_2: field(mrs!("id_aa64mmfr2_el1"), 24) >= 2,
            counter_offset: field(mmfr0, 60) >= 2,
            hcrx: field(mmfr1, 40) != 0,
            fine_traps: field(mmfr0, 56) != 0,
            fine_traps_2: field(mmfr0, 56) >= 2,
            activity_monitors: field(pfr0, 44) != 0,
            mpam: field(pfr0, 40) != 0 || field(pfr1, 16) != 0,
            pmu: pmu != 0,
            pmu_el2_prohibit: pmu >= 4,
            pmu_cycle_prohibit: pmu >= 6,
            profiling: field(dfr0, 32) != 0,
            trace_filter: field(dfr0, 40) != 0,
            trace_buffer: field(dfr0, 44) != 0,
            branch_records: field(dfr0, 52) != 0,
        }
    }
}
