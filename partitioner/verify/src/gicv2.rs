//! What is different with a GICv2 (I47): a page that several domains have, CPUs by their interface number, and no duty of
//! EL2 on a CPU whose interrupts go to a guest.

use crate::finding::Finding;
use crate::memory::id;
use crate::work::{Report, Work};
use cofferdam_plan::audit::{fact, grant};
use cofferdam_plan::{CpuIndex, Domain, DomainFlags, DomainId, HeaderFlags, NO_INTID, NO_WINDOW, va};

/// Whether the plan is for a GICv2.
pub(crate) fn is_v2(work: &Work<'_, '_>) -> bool {
    work.plan.header.flags & HeaderFlags::GICV2 != 0
}

pub(crate) fn prove(work: &Work<'_, '_>, report: &mut Report<'_>) {
    i47_cpu_interface_is_one_page(work, report);
    i47_cpu_interfaces_have_one_cpu(work, report);
    i47_el2_has_no_duty(work, report);
}

/// I47: there is one CPU interface, forbidden but for its first page; that page, and nothing else, is granted as such, at its
/// own address and once to a domain. Without a GICv2 there is none.
pub(crate) fn i47_cpu_interface_is_one_page(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let v2 = is_v2(work);
    let page = work.facts(fact::CPU_INTERFACE).next().map(|f| f.region);
    let sound = page.is_none_or(|page| page.size == va::PAGE && work.is_covered(page, fact::FORBIDDEN));
    if work.facts(fact::CPU_INTERFACE).count() != usize::from(v2) || !sound {
        report.add(Finding::BadHeader { field: "GICv2 CPU interface" });
    }
    for g in work.audit.grants.iter().filter(|g| g.kind == grant::CPU_INTERFACE) {
        let again = work.audit.grants.iter().filter(|o| o.kind == g.kind && o.domain == g.domain).count() > 1;
        if page != Some(g.pa) || g.ipa.base.0 != g.pa.base.0 || again {
            report.add(Finding::CpuInterface { domain: id(g), pa: g.pa });
        }
    }
}

/// I47: a CPU's interface is one bit of eight, its own; without a GICv2 there is none, with one there are no redistributors.
pub(crate) fn i47_cpu_interfaces_have_one_cpu(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let (v2, cpus, h) = (is_v2(work), work.plan.cpus, work.plan.header);
    for (i, cpu) in cpus.iter().enumerate() {
        let target = cpu.gicv2_target;
        let own = target.is_power_of_two() && target <= 0x80 && cpu.gicr_va == 0;
        if (v2 && !own) || (!v2 && target != 0) {
            report.add(Finding::BadCpu { cpu: CpuIndex(i as u16), why: "has no GIC CPU interface of its own" });
        }
        if v2 && cpus.iter().skip(i + 1).any(|other| other.gicv2_target == target) {
            report.add(Finding::BadCpu { cpu: CpuIndex(i as u16), why: "shares its GIC CPU interface with another" });
        }
    }
    if v2 != (h.gicc_va != 0) || v2 != (h.gicr_ipa == NO_WINDOW) {
        report.add(Finding::BadHeader { field: "gicc_va" });
    }
}

/// I47: EL2 takes no interrupt while a guest has the CPU interface, so none is planned for it and nobody reads the console.
pub(crate) fn i47_el2_has_no_duty(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let h = work.plan.header;
    if !is_v2(work) {
        return;
    }
    if h.flags & HeaderFlags::GROUP0 != 0 || h.console_intid != NO_INTID {
        report.add(Finding::BadHeader { field: "console_intid" });
    }
    let reads = |d: &Domain| d.flags & (DomainFlags::CONSOLE | DomainFlags::OUTPUT_ONLY) == DomainFlags::CONSOLE;
    for (domain, _) in work.domains().filter(|(_, d)| reads(d)) {
        report.add(Finding::InputWithoutInterrupt { domain });
    }
}

/// I34: whether `target`, a byte of GICD_ITARGETSR, selects CPUs of `domain` and no other, one at least.
pub(crate) fn targets_own(work: &Work<'_, '_>, domain: DomainId, target: u64) -> bool {
    let of = work.plan.domains.get(usize::from(domain.0)).and_then(|d| work.plan.vcpus_of(d)).unwrap_or(&[]);
    let cpus = of.iter().filter_map(|cpu| work.plan.cpus.get(usize::from(cpu.0)));
    let own = cpus.fold(0, |mask, cpu| mask | u64::from(cpu.gicv2_target));
    target != 0 && target & !own == 0
}
