//! What is different with a GICv2 (I47): pages that several domains have, CPUs by their interface number, and no duty of
//! EL2 on a CPU whose interrupts go to a guest.

use crate::finding::Finding;
use crate::work::{Report, Work};
use cofferdam_plan::audit::{fact, grant};
use cofferdam_plan::{Cpu, CpuIndex, Domain, DomainFlags, DomainId, HeaderFlags, NO_INTID, NO_WINDOW, PaRegion, va};

/// What a domain has of a GICv2: its CPUs' interfaces, physical or virtual ones.
pub(crate) const KINDS: [u32; 2] = [grant::CPU_INTERFACE, grant::VIRTUAL_INTERFACE];

/// Whether the plan is for a GICv2.
pub(crate) fn is_v2(work: &Work<'_, '_>) -> bool {
    work.plan.header.flags & HeaderFlags::GICV2 != 0
}

/// Whether it is, and EL2 takes the interrupts of a domain.
pub(crate) fn injects(work: &Work<'_, '_>) -> bool {
    is_v2(work) && work.domains().any(|(_, d)| is_injected(d))
}

/// Where the CPU interface's second page is (GICC_DIR).
pub(crate) fn second_page(work: &Work<'_, '_>) -> Option<u64> {
    work.facts(fact::CPU_INTERFACE).next().map(|f| f.region.base.0.wrapping_add(va::PAGE))
}

fn is_injected(d: &Domain) -> bool {
    d.flags & DomainFlags::INJECTED != 0
}

pub(crate) fn prove(work: &Work<'_, '_>, report: &mut Report<'_>) {
    i47_a_domain_has_the_interface_of_its_delivery(work, report);
    i47_cpu_interfaces_have_one_cpu(work, report);
    i47_el2_has_no_duty(work, report);
}

/// I47: there is one CPU interface, forbidden but for its first page, and where a domain has injected delivery a virtual one of
/// two pages apart from it. Every domain has one of them at the physical one's address, once: the virtual one if and only if its
/// delivery is injected. Without a GICv2 there is none.
pub(crate) fn i47_a_domain_has_the_interface_of_its_delivery(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let v2 = is_v2(work);
    let page = work.facts(fact::CPU_INTERFACE).next().map(|f| f.region);
    let sound = page.is_none_or(|page| page.size == va::PAGE && work.is_covered(page, fact::FORBIDDEN));
    if work.facts(fact::CPU_INTERFACE).count() != usize::from(v2) || !sound {
        report.add(Finding::BadHeader { field: "GICv2 CPU interface" });
    }
    let virtual_page = work.facts(fact::VIRTUAL_INTERFACE).next().map(|f| f.region);
    let whole = page.map(|page| PaRegion { size: 2 * va::PAGE, ..page });
    let sound = virtual_page.is_none_or(|pages| {
        let apart = whole.is_some_and(|whole| !whole.overlaps(&pages));
        pages.size == 2 * va::PAGE && apart && work.is_covered(pages, fact::FORBIDDEN)
    });
    if work.facts(fact::VIRTUAL_INTERFACE).count() != usize::from(injects(work)) || !sound {
        report.add(Finding::BadHeader { field: "GICv2 virtual CPU interface" });
    }
    for (domain, d) in work.domains() {
        let (kind, is) = if is_injected(d) { (KINDS[1], virtual_page) } else { (KINDS[0], page) };
        let mut count = 0;
        for g in work.grants_of(domain).filter(|g| KINDS.contains(&g.kind)) {
            count += 1;
            let at = page.map(|page| page.base.0);
            if g.kind != kind || is != Some(g.pa) || at != Some(g.ipa.base.0) || count > 1 {
                report.add(Finding::CpuInterface { domain, pa: g.pa });
            }
        }
        if count == 0 && v2 {
            report.add(Finding::NoCpuInterface { domain });
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

/// I47: EL2 takes no interrupt while a guest has the CPU interface: the console's is planned for a CPU of a domain with injected
/// delivery, so is who looks after watchdogs, and without it nobody reads the console. Group 0 is not EL2's.
pub(crate) fn i47_el2_has_no_duty(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let h = work.plan.header;
    if !is_v2(work) {
        return;
    }
    let able = |cpu: Option<&Cpu>| {
        let domain = cpu.and_then(|cpu| work.plan.domains.get(usize::from(cpu.domain)));
        domain.is_some_and(is_injected)
    };
    let taker = work.plan.cpus.get(usize::from(h.housekeeping_cpu.0));
    let takes = h.console_intid != NO_INTID;
    if h.flags & HeaderFlags::GROUP0 != 0 || takes && !able(taker) {
        report.add(Finding::BadHeader { field: "console_intid" });
    }
    for (i, _) in work.plan.cpus.iter().enumerate().filter(|(_, cpu)| cpu.watch_ms != 0 && !able(Some(cpu))) {
        let why = "looks after a watchdog, but all its interrupts go to its domain";
        report.add(Finding::BadCpu { cpu: CpuIndex(i as u16), why });
    }
    let reads = |d: &Domain| d.flags & (DomainFlags::CONSOLE | DomainFlags::OUTPUT_ONLY) == DomainFlags::CONSOLE;
    for (domain, _) in work.domains().filter(|(_, d)| !takes && reads(d)) {
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
