//! A vCPU that hears no interrupt: everything its CPU interface can mask is masked, and running priorities are forged, with
//! either version of the interrupt controller.

use crate::probe::store32;
use unikernel::platform::{GicFrames, platform};
use unikernel::{cpu, write_sysreg};

/// Registers of a GICv2's CPU interface, where there is one.
pub fn interface() -> Option<u64> {
    match platform().gic?.frames {
        GicFrames::V2 { interface } => Some(interface.base),
        GicFrames::V3 { .. } => None,
    }
}

/// Makes this vCPU so, PSTATE included.
pub fn become_deaf() {
    cpu::mask();
    mask_interface();
    write_sysreg!("daif", 0x3C0);
    cpu::isb();
}

/// The CPU interface alone.
pub fn mask_interface() {
    let Some(interface) = interface() else {
        write_sysreg!("icc_pmr_el1", 0);
        write_sysreg!("icc_igrpen1_el1", 0);
        write_sysreg!("icc_igrpen0_el1", 0);
        write_sysreg!("icc_ap1r0_el1", 1);
        return;
    };
    // PMR, APR0 to 3 and NSAPR0 to 3, CTLR (IHI 0048, 4.1.3). A guest may be refused, and goes on.
    let _ = store32(interface + 0x04, 0);
    for register in 0..8 {
        let _ = store32(interface + 0xD0 + register * 4, 1);
    }
    let _ = store32(interface, 0);
}
