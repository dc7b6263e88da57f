//! The machine check: is this the machine the plan was made for? Every mismatch is named, then the boot refuses.
//!
//! More hardware than planned is fine. What the stub checks before (EL, plan, CRC instructions) it names itself.
#![allow(unsafe_code)] // ID registers

use crate::arch::aarch64::features::field;
use crate::arch::aarch64::registers::mrs;
use crate::console;
use crate::dev::gicv2::Gic;
use crate::dev::gicv3::{Distributor, Redistributor};
use crate::pci;
use cofferdam_plan::{DomainFlags, HeaderFlags, Plan};
use hyp_min::vdev::inject::LEAST;

/// Bits of a physical address by ID_AA64MMFR0_EL1.PARange (DDI 0487, D24.2.74).
const PA_BITS: [u32; 8] = [32, 36, 40, 42, 44, 48, 52, 56];

/// Holds the machine against `plan`. `failed_probe`: address the stub could not read, or all ones. Answers whether all is
/// as planned; what is not has been logged.
pub(crate) fn check(plan: &Plan<'_>, plan_offset: u64, failed_probe: u64) -> bool {
    let header = plan.header;
    let mut good = true;
    let mut refuse = |is_good: bool| {
        good &= is_good;
        !is_good
    };
    if refuse(u64::from(header.blob_offset) == plan_offset) {
        defmt::error!(
            "refused: plan made for an image of {=u32:#x} bytes, this one has {=u64:#x}",
            header.blob_offset,
            plan_offset
        );
    }
    if refuse(pci::PRESENT || plan.pci.is_none()) {
        defmt::error!("refused: the plan has PCI functions, this hypervisor is built without PCI");
    }
    if refuse(failed_probe == u64::MAX) {
        defmt::error!("refused: no RAM at {=u64:#x}", failed_probe);
    }
    let mmfr0 = mrs!("id_aa64mmfr0_el1");
    let pa_bits = PA_BITS.get(field(mmfr0, 0) as usize).copied().unwrap_or(52);
    if refuse(pa_bits >= header.pa_bits) {
        defmt::error!("refused: {=u32} physical address bits, planned {=u32}", pa_bits, header.pa_bits);
    }
    let vmid_bits = if field(mrs!("id_aa64mmfr1_el1"), 4) == 2 { 16 } else { 8 };
    if refuse(vmid_bits >= header.vmid_bits) {
        defmt::error!("refused: {=u32} VMID bits, planned {=u32}", vmid_bits, header.vmid_bits);
    }
    // TGran4: 0xF is "no". TGran4_2: 0 is "as stage 1", 1 is "no".
    if refuse(field(mmfr0, 28) != 0xF && field(mmfr0, 40) != 1) {
        defmt::error!("refused: no 4 KiB granule at both stages, ID_AA64MMFR0_EL1 {=u64:#x}", mmfr0);
    }
    let frequency = console::frequency() as u32;
    if refuse(frequency != 0 && (header.cntfrq == 0 || header.cntfrq == frequency)) {
        defmt::error!("refused: CNTFRQ_EL0 is {=u32} Hz, planned {=u32}", frequency, header.cntfrq);
    }
    // ID_AA64PFR0_EL1.GIC: whether the CPU interface has system registers.
    let registers = field(mrs!("id_aa64pfr0_el1"), 24) != 0;
    let gicv2 = Gic::of(header);
    if refuse(registers != gicv2.is_some()) {
        defmt::error!("refused: GIC system registers: {=bool}, planned {=bool}", registers, gicv2.is_none());
    }
    match gicv2 {
        Some(gic) => good & gicv2_is_planned(&gic, plan),
        None => good & interrupt_controller(plan),
    }
}

fn gicv2_is_planned(gic: &Gic, plan: &Plan<'_>) -> bool {
    let Some((distributor, interface, virtualization)) = gic.architecture() else {
        defmt::error!("refused: no GICv2 distributor and CPU interface at their addresses");
        return false;
    };
    if distributor != 2 || interface != 2 {
        defmt::error!("refused: GIC architecture {=u32}, CPU interface {=u32}, planned 2", distributor, interface);
        return false;
    }
    if !virtualization {
        defmt::error!("refused: no virtual interface control of the GICv2 at its address");
    }
    virtualization && words_suffice(&Distributor::new(plan.header.gicd_va), plan) & lists_suffice(gic.lists(), plan)
}

/// `lists`: list registers of this CPU. Where another has fewer, it says so itself (`enter.rs`).
fn lists_suffice(lists: u32, plan: &Plan<'_>) -> bool {
    let suffices = lists >= LEAST || plan.domains.iter().all(|domain| domain.flags & DomainFlags::INJECTED == 0);
    if !suffices {
        defmt::error!("refused: {=u32} list registers, injected delivery needs {=u32}", lists, LEAST);
    }
    suffices
}

fn words_suffice(distributor: &Distributor, plan: &Plan<'_>) -> bool {
    let (words, planned) = (distributor.words(), plan.header.gicd_words);
    if words < planned {
        defmt::error!("refused: {=u32} words of interrupts, planned {=u32}", words, planned);
    }
    words >= planned
}

fn interrupt_controller(plan: &Plan<'_>) -> bool {
    let header = plan.header;
    let distributor = Distributor::new(header.gicd_va);
    let Some(architecture) = distributor.architecture() else {
        defmt::error!("refused: no GICv3 distributor at its address");
        return false;
    };
    if architecture != 3 && architecture != 4 {
        defmt::error!("refused: GIC architecture {=u32}, planned 3", architecture);
        return false;
    }
    let lists = (mrs!("ich_vtr_el2") & 0xF) as u32 + 1;
    let mut good = words_suffice(&distributor, plan) & lists_suffice(lists, plan);
    if header.flags & HeaderFlags::GROUP0 != 0 && !distributor.is_single_state() {
        defmt::error!("refused: Group 0 interrupts belong to the firmware (GICD_CTLR.DS = 0)");
        good = false;
    }
    for (index, cpu) in (0u32..).zip(plan.cpus) {
        let planned = cpu.mpidr.packed();
        match Redistributor::new(cpu.gicr_va).affinity() {
            Some(affinity) if affinity == planned => {}
            Some(affinity) => {
                good = false;
                defmt::error!(
                    "refused: redistributor of CPU {=u32} has affinity {=u32:#x}, planned {=u32:#x}",
                    index,
                    affinity,
                    planned
                );
            }
            None => {
                good = false;
                defmt::error!("refused: CPU {=u32} (affinity {=u32:#x}) has no redistributor", index, planned);
            }
        }
    }
    good
}
