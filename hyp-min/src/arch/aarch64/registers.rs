//! The EL2 register image: every implemented EL2 register gets its value here before the first ERET (invariant I01).
//!
//! Registers of optional features are touched only where an ID register says they exist. Section numbers: DDI 0487. Those
//! that must be right before the MMU goes on are written by boot.S.
#![allow(unsafe_code)] // system registers

use super::features::Features;
use super::granted;
use super::percpu::PerCpu;
use cofferdam_plan::{Domain, DomainFlags, IntId};
use core::sync::atomic::Ordering;
use cortex_a::registers::{CNTHCTL_EL2, HCR_EL2, ICC_SRE_EL2, MDCR_EL2};
use tock_registers::interfaces::{ReadWriteable, Writeable};

/// `mrs` by name.
macro_rules! mrs {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading this register changes nothing, and it exists where this code runs.
        unsafe { core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack, preserves_flags)) };
        value
    }};
}
/// `msr` by name.
macro_rules! msr {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the register exists where this code runs; its effect on the guest is the caller's reasoning, its effect
        // on EL2's own execution is none (SCTLR, TTBR0, VBAR, TCR and MAIR are written by assembly only).
        unsafe { core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
    }};
}
pub(crate) use {mrs, msr};

/// RES1 bits of SCTLR_EL2 with E2H = 0 (D24.2.175).
const SCTLR_RES1: u64 = 0x30C5_0830;
/// MMU and caches off.
pub(super) const SCTLR_OFF: u64 = SCTLR_RES1;
/// M, C, SA, I, WXN.
pub(super) const SCTLR_ON: u64 = SCTLR_RES1 | 1 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 19;
/// HCR_EL2 until a guest is entered: RW only, so that E2H, TGE, NV are 0.
pub(super) const HCR_BOOT: u64 = 1 << 31;
/// SCTLR_EL1 at reset: LSMAOE, nTLSMD, SPAN, EIS, TSCXT, EOS (D24.2.174).
pub(super) const SCTLR_EL1_RESET: u64 = 0x30D0_0800;
/// CPTR_EL2 with E2H = 0: RES1 bits, which include TZ and TSM, then TTA and TAM. FP is the guest's, SVE where granted (D24.2.32).
const CPTR: u64 = 0x33FF | 1 << 20 | 1 << 30;
/// Non-secure EL1 physical timer.
const PHYSICAL_TIMER: IntId = IntId(30);

/// Writes them all, for the vCPU of `cpu`, which is this one. With a GICv2 the CPU interface has no system registers.
pub(crate) fn write_all(cpu: &PerCpu) {
    let (f, domain, gicv2) = (Features::read(), cpu.domain(), cpu.gicv2.is_some());
    traps(domain, &f, gicv2);
    identity(domain, cpu.vcpu);
    timers(domain, &f);
    msr!("cntvoff_el2", cpu.state.time_offset.load(Ordering::Relaxed));
    if !gicv2 {
        cpu_interface_hypervisor(cpu.is_injected());
    }
    optional(&f);
    msr!("actlr_el2", 0);
    msr!("afsr0_el2", 0);
    msr!("afsr1_el2", 0);
    msr!("hacr_el2", 0);
    barrier();
}

/// `isb`.
pub(crate) fn barrier() {
    cortex_a::asm::barrier::isb(cortex_a::asm::barrier::SY);
}

/// HCR, CPTR, HSTR, MDCR: what comes to EL2.
fn traps(domain: &Domain, f: &Features, gicv2: bool) {
    // Physical IRQs go to EL1 (IMO 0) unless they are injected, FIQ and SError come here. FB and BSU stay 0: vCPUs do not
    // migrate. TSW stays 0: set/way operations are the guest's, and SWIO makes cleaning ones of those that would only invalidate (docs/decisions/0020).
    // Straight from a GICv2 every interrupt is the guest's, which may make FIQs of them.
    let mut hcr = HCR_EL2::VM::SET
        + HCR_EL2::SWIO::SET
        + HCR_EL2::PTW::SET
        + HCR_EL2::AMO::SET
        + HCR_EL2::TID1::SET
        + HCR_EL2::TID3::SET
        + HCR_EL2::TSC::SET
        + HCR_EL2::TIDCP::SET
        + HCR_EL2::TACR::SET
        + HCR_EL2::RW::SET;
    if !gicv2 || domain.flags & DomainFlags::INJECTED != 0 {
        hcr += HCR_EL2::FMO::SET;
    }
    if domain.flags & DomainFlags::TRAP_WFI != 0 {
        hcr += HCR_EL2::TWI::SET;
    }
    if domain.flags & DomainFlags::INJECTED != 0 {
        hcr += HCR_EL2::IMO::SET;
    }
    if f.limited_ordering {
        hcr += HCR_EL2::TLOR::SET;
    }
    if f.ras {
        hcr += HCR_EL2::TERR::SET + HCR_EL2::TEA::SET;
    }
    if f.pointer_auth {
        hcr += HCR_EL2::APK::SET + HCR_EL2::API::SET;
    }
    if f.mte {
        hcr += HCR_EL2::TID5::SET;
    }
    HCR_EL2.write(hcr);
    granted::scalable(domain.flags, f, CPTR);
    msr!("hstr_el2", 1 << 15); // AArch32 EL0: implementation defined CP15 c15

    // TDE stays 0: BRK is the guest's own. HLP, MTPME and HPMFZ stay 0: no counter is EL2's, none counts other threads.
    let mut mdcr = granted::traps(domain.flags, f);
    if f.pmu {
        mdcr += MDCR_EL2::HPMN.val(mrs!("pmcr_el0") >> 11 & 0x1F);
        msr!("pmcntenclr_el0", 0xFFFF_FFFF);
        msr!("pmintenclr_el1", 0xFFFF_FFFF);
        msr!("pmovsclr_el0", 0xFFFF_FFFF);
        msr!("pmuserenr_el0", 0);
    }
    if f.pmu_el2_prohibit {
        mdcr += MDCR_EL2::HPMD::SET;
    }
    if f.pmu_cycle_prohibit {
        mdcr += MDCR_EL2::HCCD::SET;
    }
    if f.profiling {
        mdcr += MDCR_EL2::TPMS::SET;
    }
    if f.trace_filter {
        mdcr += MDCR_EL2::TTRF::SET;
    }
    MDCR_EL2.write(mdcr);
    granted::reset(domain.flags, f);
}

/// Has WFI of this CPU's guest come to EL2, or not.
pub(crate) fn trap_wfi(on: bool) {
    HCR_EL2.modify(if on { HCR_EL2::TWI::SET } else { HCR_EL2::TWI::CLEAR });
}

/// Who the guest thinks it is, and its memory.
fn identity(domain: &Domain, vcpu: usize) {
    msr!("vpidr_el2", mrs!("midr_el1"));
    msr!("vmpidr_el2", 1 << 31 | vcpu as u64);
    msr!("vtcr_el2", domain.vtcr);
    msr!("vttbr_el2", domain.vttbr);
}

/// The domain's time starts now: its virtual counter is 0. The CPU that starts vCPU 0 says so, just before it does.
pub(crate) fn start_time(cpu: &PerCpu) {
    barrier();
    let now = mrs!("cntpct_el0");
    cpu.state.time_offset.store(now, Ordering::Relaxed);
    msr!("cntvoff_el2", now);
}

/// Timers: physical time is the board's (CNTPOFF_EL2 = 0) for every domain; the physical timer only where its PPI is
/// granted; EL2's own is `own`'s business.
fn timers(domain: &Domain, f: &Features) {
    let mut access = CNTHCTL_EL2::EL1PCTEN::SET;
    if domain.owns(PHYSICAL_TIMER) {
        access += CNTHCTL_EL2::EL1PCEN::SET;
    }
    CNTHCTL_EL2.write(access);
    if f.vhe {
        msr!("S3_4_C14_C3_1", 0); // CNTHV_CTL_EL2
        msr!("S3_4_C13_C0_1", 0); // CONTEXTIDR_EL2
    }
    if f.counter_offset {
        msr!("S3_4_C14_C0_6", 0); // CNTPOFF_EL2
    }
}

/// The hypervisor's control of the CPU interface: nothing virtual pending, list registers only in use where interrupts are
/// injected (IHI 0069, 12.4).
fn cpu_interface_hypervisor(injected: bool) {
    // Enable = 0: EL1's ICC_SRE_EL1 traps, where it is not RAO.
    ICC_SRE_EL2.write(ICC_SRE_EL2::SRE::SET + ICC_SRE_EL2::DFB::SET + ICC_SRE_EL2::DIB::SET);
    barrier();
    msr!("icc_sre_el1", 7);
    msr!("ich_hcr_el2", u64::from(injected)); // En
    msr!("ich_vmcr_el2", 0);
    let vtr = mrs!("ich_vtr_el2");
    super::clear_list_registers((vtr & 0xF) + 1);
    msr!("ich_ap0r0_el2", 0);
    msr!("ich_ap1r0_el2", 0);
    let preemption_bits = (vtr >> 26 & 7) + 1;
    if preemption_bits >= 6 {
        msr!("ich_ap0r1_el2", 0);
        msr!("ich_ap1r1_el2", 0);
    }
    if preemption_bits >= 7 {
        msr!("ich_ap0r2_el2", 0);
        msr!("ich_ap1r2_el2", 0);
        msr!("ich_ap0r3_el2", 0);
        msr!("ich_ap1r3_el2", 0);
    }
}

/// Registers of optional features, to "nothing granted".
fn optional(f: &Features) {
    if f.nested_2 {
        msr!("S3_4_C2_C2_0", 0); // VNCR_EL2
    }
    if f.hcrx {
        msr!("S3_4_C1_C2_2", 0); // HCRX_EL2
    }
    if f.fine_traps {
        // Zero lets through what has a positive trap bit (other controls stop those that matter) and traps every "n" bit.
        msr!("S3_4_C1_C1_4", 0); // HFGRTR_EL2
        msr!("S3_4_C1_C1_5", 0); // HFGWTR_EL2
        msr!("S3_4_C1_C1_6", 0); // HFGITR_EL2
        msr!("S3_4_C3_C1_4", 0); // HDFGRTR_EL2
        msr!("S3_4_C3_C1_5", 0); // HDFGWTR_EL2
        if f.activity_monitors {
            msr!("S3_4_C3_C1_6", 0); // HAFGRTR_EL2
        }
    }
    if f.fine_traps_2 {
        msr!("S3_4_C3_C1_0", 0); // HDFGRTR2_EL2
        msr!("S3_4_C3_C1_1", 0); // HDFGWTR2_EL2
        msr!("S3_4_C3_C1_2", 0); // HFGRTR2_EL2
        msr!("S3_4_C3_C1_3", 0); // HFGWTR2_EL2
        msr!("S3_4_C3_C1_7", 0); // HFGITR2_EL2
    }
    if f.ras {
        msr!("S3_4_C5_C2_3", 0); // VSESR_EL2
        msr!("S3_4_C12_C1_1", 0); // VDISR_EL2
        msr!("S3_0_C12_C1_1", 0); // DISR_EL1
    }
    if f.profiling && mrs!("S3_0_C9_C10_7") & 1 << 4 == 0 {
        // PMBIDR_EL1.P = 0: the buffer is ours to switch off.
        msr!("S3_0_C9_C10_0", 0); // PMBLIMITR_EL1
        msr!("S3_4_C9_C9_0", 0); // PMSCR_EL2
        msr!("S3_0_C9_C9_0", 0); // PMSCR_EL1
    }
    if f.trace_buffer && mrs!("S3_0_C9_C11_7") & 1 << 4 == 0 {
        msr!("S3_0_C9_C11_0", 0); // TRBLIMITR_EL1, unless TRBIDR_EL1.P
    }
    if f.trace_filter {
        msr!("S3_4_C1_C2_1", 0); // TRFCR_EL2
        msr!("S3_0_C1_C2_1", 0); // TRFCR_EL1
    }
    if f.branch_records {
        msr!("S2_4_C9_C0_0", 0); // BRBCR_EL2
        msr!("S2_1_C9_C0_0", 0); // BRBCR_EL1
    }
    if f.mpam {
        let id = mrs!("S3_0_C10_C4_4"); // MPAMIDR_EL1: HAS_HCR is bit 17, HAS_TIDR bit 58
        msr!("S3_4_C10_C5_0", 1 << 48 | 1 << 49 | id & 1 << 58); // MPAM2_EL2: TRAPMPAM0EL1, TRAPMPAM1EL1, TIDR
        msr!("S3_0_C10_C5_0", 0); // MPAM1_EL1
        msr!("S3_0_C10_C5_1", 0); // MPAM0_EL1
        if id & 1 << 17 != 0 {
            msr!("S3_4_C10_C4_0", 1 << 31); // MPAMHCR_EL2: TRAP_MPAMIDR_EL1
        }
    }
    if f.pointer_auth {
        msr!("S3_0_C2_C1_0", 0); // APIAKeyLo_EL1
        msr!("S3_0_C2_C1_1", 0);
        msr!("S3_0_C2_C1_2", 0); // APIBKeyLo_EL1
        msr!("S3_0_C2_C1_3", 0);
        msr!("S3_0_C2_C2_0", 0); // APDAKeyLo_EL1
        msr!("S3_0_C2_C2_1", 0);
        msr!("S3_0_C2_C2_2", 0); // APDBKeyLo_EL1
        msr!("S3_0_C2_C2_3", 0);
        msr!("S3_0_C2_C3_0", 0); // APGAKeyLo_EL1
        msr!("S3_0_C2_C3_1", 0);
    }
}

/// The vectors of EL2, this CPU's own pointer, its own timer stopped.
pub(crate) fn own(cpu: &PerCpu) {
    let injected = cpu.is_injected() && cpu.gicv2.is_none();
    let table = if injected { &raw const super::vectors_injected } else { &raw const super::vectors };
    // SAFETY: both are tables of vectors.S, 2 KiB aligned and mapped executable.
    unsafe { core::arch::asm!("msr vbar_el2, {}", "isb", in(reg) table, options(nostack, preserves_flags)) };
    msr!("tpidr_el2", core::ptr::from_ref(cpu) as u64);
    // Here and not in `timers`: a vCPU that starts again must not forget what this CPU still has to send.
    msr!("cnthp_ctl_el2", 0);
}
