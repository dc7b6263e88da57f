//! What of its CPUs a word of the layout grants a domain (SVE, performance counters, self-hosted debug): the trap bits that
//! open it, its state as after reset, and whether the CPU has it at all. Section numbers: DDI 0487.
#![allow(unsafe_code)] // system registers

use super::features::{Features, field};
use super::registers::{barrier, mrs, msr};
use cofferdam_plan::DomainFlags;
use cortex_a::registers::MDCR_EL2;
use tock_registers::fields::FieldValue;

/// CPTR_EL2.TZ with E2H = 0 (D24.2.32).
const CPTR_TZ: u64 = 1 << 8;

/// Whether this CPU has all that `flags` of its domain grant; what it has not has been logged. The compiler knows CPUs by
/// name only.
pub(super) fn is_there(flags: u32, index: u16) -> bool {
    let f = Features::read();
    let lacks = |flag, has: bool| flags & flag != 0 && !has;
    let (sve, pmu) = (lacks(DomainFlags::SVE, f.sve), lacks(DomainFlags::PMU, f.pmu));
    if sve {
        defmt::error!("refused: CPU {=u16} has no SVE, planned with it", index);
    }
    if pmu {
        defmt::error!("refused: CPU {=u16} has no performance counters, planned with them", index);
    }
    !sve && !pmu
}

/// CPTR_EL2 of a domain with `flags`, from one that grants nothing. SVE's state is as after reset then.
pub(super) fn scalable(flags: u32, f: &Features, cptr: u64) {
    let granted = flags & DomainFlags::SVE != 0 && f.sve;
    msr!("cptr_el2", if granted { cptr & !CPTR_TZ } else { cptr });
    if granted {
        barrier();
        msr!("S3_4_C1_C2_0", 0xF); // ZCR_EL2.LEN: as long as there is
        barrier();
        super::clear_scalable();
    }
}

/// The part of MDCR_EL2 that traps debug and performance registers of a domain with `flags`.
///
/// A grant of debug leaves the OS lock, its double lock and power control (TDOSA), the debug ROM (TDRA) and, where that can be told
/// apart, the channel to an external debugger (TDCC) trapped: with the OS lock open and out of reach, MDSCR_EL1.HDE and the
/// rest of EDSCR's image are read-only (D24.3.20).
pub(super) fn traps(flags: u32, f: &Features) -> FieldValue<u64, MDCR_EL2::Register> {
    let mut mdcr = MDCR_EL2::TDOSA::SET + MDCR_EL2::TDRA::SET;
    mdcr += if flags & DomainFlags::DEBUG == 0 { MDCR_EL2::TDA::SET } else { MDCR_EL2::TDCC.val(f.fine_traps.into()) };
    if f.pmu && flags & DomainFlags::PMU == 0 {
        mdcr += MDCR_EL2::TPM::SET + MDCR_EL2::TPMCR::SET;
    }
    mdcr
}

/// Counters, breakpoints and watchpoints as after reset: nothing counts, nothing overflows, nothing is watched. MDCR_EL2 is
/// written.
pub(super) fn reset(flags: u32, f: &Features) {
    if flags & DomainFlags::PMU != 0 && f.pmu {
        barrier();
        msr!("pmcr_el0", 0b110); // P and C: all counters to 0; E = 0
        for counter in 0..mrs!("pmcr_el0") >> 11 & 0x1F {
            msr!("pmselr_el0", counter);
            barrier();
            msr!("pmxevtyper_el0", 0);
        }
        msr!("pmselr_el0", 0);
        msr!("pmccfiltr_el0", 0);
    }
    if flags & DomainFlags::DEBUG != 0 {
        let dfr0 = mrs!("id_aa64dfr0_el1");
        super::clear_breakpoints(field(dfr0, 12) + 1);
        super::clear_watchpoints(field(dfr0, 20) + 1);
        msr!("osdlr_el1", 0);
        msr!("oslar_el1", 0);
    }
}
