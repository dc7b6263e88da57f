//! Interrupts: one owner each, and every baked register word says so.

use crate::finding::Finding;
use crate::gicv2;
use crate::work::{Report, Work};
use cofferdam_plan::audit::line;
use cofferdam_plan::{Domain, DomainFlags, DomainId, HeaderFlags, IntId, Mpidr, NO_INTID};

/// PPIs a guest may have: EL1 virtual and physical timer (BSA 1.0, PPI assignments). EL2's own are 20, 25, 26 and 28.
const GUEST_PPIS: [IntId; 2] = [IntId(27), IntId(30)];
/// That of the performance counters, for a domain that has them.
const PMU_PPI: IntId = IntId(23);
/// The list registers' maintenance interrupt (the same place).
const MAINTENANCE: IntId = IntId(25);

pub(crate) fn prove(work: &Work<'_, '_>, report: &mut Report<'_>) {
    i32_i33_one_owner_per_spi(work, report);
    for (id, domain) in work.domains() {
        i32_owned_words_equal_lines(work, id, domain, report);
        i35_i38_kick_and_el2_ppis_are_nobodys(work, id, domain, report);
        i10_counters_and_their_interrupt_come_together(id, domain, report);
        i43_delivery_has_what_it_needs(work, id, domain, report);
    }
    i34_routes_stay_with_the_owner(work, report);
    i36_trigger_words_equal_lines(work, report);
    i37_distributor_type_hides_the_rest(work, report);
    i48_i50_el2_interrupts_are_its_own(work, report);
}

/// I32, I33: no SPI stands in two lines; lines are interrupts their kind can have.
pub(crate) fn i32_i33_one_owner_per_spi(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let words = work.plan.header.gicd_words;
    for (l, next) in work.lines().zip(work.lines().skip(1)) {
        let private = |kind| kind == line::PPI || kind == line::MAINTENANCE;
        if l.intid == next.intid && (!private(l.kind) || l.kind != next.kind || l.domain == next.domain) {
            report.add(Finding::LineTwice { intid: l.intid });
        }
    }
    for l in work.lines() {
        let fits = match l.kind {
            line::PPI => (16..32).contains(&l.intid.0) && l.domain != u32::MAX,
            line::MAINTENANCE => l.intid == MAINTENANCE && l.domain != u32::MAX && l.edge == 0,
            line::HYPERVISOR => l.domain == u32::MAX && (l.intid.0 < 32 || l.intid.is_spi()),
            line::VUART | line::WATCHDOG => l.intid.is_spi() && l.edge == 0,
            line::MSI => l.intid.is_spi() && l.edge == 1 && work.plan.pci.is_some(),
            _ => l.intid.is_spi(),
        };
        if !fits || l.intid.word() >= words as usize {
            report.add(Finding::BadLine { intid: l.intid });
        }
    }
}

/// I32: the domain's bits are exactly its lines, so the filter gives it nothing else.
pub(crate) fn i32_owned_words_equal_lines(work: &Work<'_, '_>, id: DomainId, d: &Domain, report: &mut Report<'_>) {
    let mut planned = [0u32; cofferdam_plan::limits::INTID_WORDS];
    // The maintenance interrupt comes on the domain's CPUs and is EL2's.
    for l in work.lines().filter(|l| l.domain == u32::from(id.0) && l.kind != line::MAINTENANCE) {
        if let Some(word) = planned.get_mut(l.intid.word()) {
            *word |= l.intid.bit();
        }
    }
    for (word, (owned, planned)) in d.owned.iter().zip(planned).enumerate() {
        // SGIs have no line: each vCPU has its own sixteen, without the kick (checked apart).
        let owned = if word == 0 { owned & !0xFFFF } else { *owned };
        if owned != planned {
            report.add(Finding::OwnedBits { domain: id, word: word as u32, is: owned, planned });
        }
    }
}

/// I35, I38, I51: the kick SGI and EL2's PPIs are in no domain's words; a domain has its own timers, perhaps its performance
/// counters, and no other PPI.
pub(crate) fn i35_i38_kick_and_el2_ppis_are_nobodys(
    work: &Work<'_, '_>,
    id: DomainId,
    d: &Domain,
    report: &mut Report<'_>,
) {
    let kick = work.plan.header.kick_sgi;
    if kick.0 < 16 && d.owns(kick) {
        report.add(Finding::KickOwned { domain: id });
    }
    for intid in (16..32).map(IntId).filter(|i| d.owns(*i) && !GUEST_PPIS.contains(i) && *i != PMU_PPI) {
        report.add(Finding::ForeignPpi { domain: id, intid });
    }
}

/// I10: the counters' interrupt without the counters would be another domain's doing; without it they are half a grant.
pub(crate) fn i10_counters_and_their_interrupt_come_together(id: DomainId, d: &Domain, report: &mut Report<'_>) {
    if (d.flags & DomainFlags::PMU != 0) != d.owns(PMU_PPI) {
        report.add(Finding::CountersAndInterrupt { domain: id });
    }
}

/// I43: a domain has injected delivery if and only if its maintenance interrupt is EL2's; vCPUs that tell each other what
/// their list registers must give back have the kick.
pub(crate) fn i43_delivery_has_what_it_needs(work: &Work<'_, '_>, id: DomainId, d: &Domain, report: &mut Report<'_>) {
    let injected = d.flags & DomainFlags::INJECTED != 0;
    let lines = work.lines().filter(|l| l.kind == line::MAINTENANCE && l.domain == u32::from(id.0)).count();
    // From a GICv2 EL2 has every interrupt of the domain's CPUs, and its kick among them.
    let able = d.vcpu_count == 1 || gicv2::is_v2(work) || work.plan.header.flags & HeaderFlags::GROUP0 != 0;
    if lines != usize::from(injected) || injected && !able {
        report.add(Finding::BadDelivery { domain: id });
    }
}

/// I34: every owned SPI, and no other, has a route; it leads to one of the owner's CPUs and to no other (IRM = 0).
pub(crate) fn i34_routes_stay_with_the_owner(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let spis = work.plan.spis;
    for pair in spis.windows(2) {
        if let [a, b] = pair
            && a.intid >= b.intid
        {
            report.add(Finding::RoutesUnordered { intid: b.intid });
        }
    }
    let is_guest_spi = |kind| matches!(kind, line::DEVICE | line::VUART | line::WATCHDOG | line::MSI);
    let mut routes = spis.iter().peekable();
    for l in work.lines().filter(|l| is_guest_spi(l.kind)) {
        while let Some(extra) = routes.next_if(|s| s.intid < l.intid) {
            report.add(Finding::RouteWithoutOwner { intid: extra.intid });
        }
        let Some(spi) = routes.next_if(|s| s.intid == l.intid) else {
            report.add(Finding::NoRoute { intid: l.intid });
            continue;
        };
        let domain = DomainId(l.domain as u16);
        let v2 = gicv2::is_v2(work);
        let own =
            if v2 { gicv2::targets_own(work, domain, spi.router) } else { routes_to_own(work, domain, spi.router) };
        if !own || spi.reserved != 0 {
            report.add(Finding::ForeignRoute { intid: l.intid, router: spi.router });
        }
    }
    for extra in routes {
        report.add(Finding::RouteWithoutOwner { intid: extra.intid });
    }
}

/// I34: whether `router` leads to one CPU of `domain`. IRM (bit 31) and every other bit that is not affinity must be zero
/// (IHI 0069, 12.9.22).
fn routes_to_own(work: &Work<'_, '_>, domain: DomainId, router: u64) -> bool {
    let affinity = Mpidr::from_raw(router);
    let own = work.plan.domains.get(usize::from(domain.0)).and_then(|d| work.plan.vcpus_of(d)).unwrap_or(&[]);
    let to_own = own.iter().any(|cpu| work.plan.cpus.get(usize::from(cpu.0)).is_some_and(|c| c.mpidr == affinity));
    affinity.0 == router && to_own
}

/// I36: GICD_ICFGR holds each line's trigger and nothing else, so nobody ever has to write it.
pub(crate) fn i36_trigger_words_equal_lines(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let icfgr = work.plan.icfgr;
    if icfgr.len() as u64 != 2 * u64::from(work.plan.header.gicd_words.saturating_sub(1)) {
        report.add(Finding::TriggerWords { is: icfgr.len() as u32 });
        return;
    }
    let mut lines = work.lines().filter(|l| l.intid.is_spi()).peekable();
    for (i, word) in icfgr.iter().enumerate() {
        let first = 32 + 16 * i as u32;
        let mut planned = 0;
        while let Some(l) = lines.next_if(|l| l.intid.0 < first + 16) {
            planned |= (l.edge * 2) << (2 * (l.intid.0 - first));
        }
        if *word != planned {
            report.add(Finding::Triggers { first: IntId(first), is: *word, planned });
        }
    }
}

/// I37: guests see the planned number of interrupts, and neither LPIs, message-based nor extended SPIs; of a GICv2, as many
/// CPU interfaces as they have vCPUs.
pub(crate) fn i37_distributor_type_hides_the_rest(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let lines = work.plan.header.gicd_words.saturating_sub(1);
    for (domain, d) in work.domains() {
        // GICD_TYPER: ITLinesNumber 4:0, ESPI 8, MBIS 16, LPIS 17, DVIS 18 (IHI 0069, 12.9.38); of a GICv2 CPUNumber 7:5
        // and nothing above (IHI 0048, 4.3.2).
        let typer = d.gicd_typer;
        let holds = if gicv2::is_v2(work) {
            typer == lines | d.vcpu_count.saturating_sub(1) << 5
        } else {
            typer & 0x1F == lines && typer & 0x7_0100 == 0
        };
        if !holds {
            report.add(Finding::BadDomain { domain, why: "reads a GICD_TYPER that is not its own" });
        }
    }
}

/// I48, I50: EL2's interrupts are an SGI and SPIs that no domain has, and the plan says that it needs Group 0 for them (on a
/// GICv2, `gicv2` says what they need).
pub(crate) fn i48_i50_el2_interrupts_are_its_own(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let h = work.plan.header;
    if h.kick_sgi.0 > 15 {
        report.add(Finding::BadHeader { field: "kick_sgi" });
    }
    if h.console_intid == NO_INTID {
        return;
    }
    let own = work.lines().any(|l| l.intid == h.console_intid && l.kind == line::HYPERVISOR);
    let able = gicv2::is_v2(work) || h.flags & HeaderFlags::GROUP0 != 0;
    if !h.console_intid.is_spi() || !own || !able {
        report.add(Finding::BadHeader { field: "console_intid" });
    }
    // Who reads first pays for it, and the readers after it owe it nothing else.
    let taker = work.plan.cpus.get(usize::from(h.housekeeping_cpu.0)).map(|cpu| DomainId(cpu.domain));
    let reader = work.domains().find(|(_, d)| d.flags & DomainFlags::INPUT != 0).map(|(id, _)| id);
    if reader.is_some() && reader != taker {
        report.add(Finding::BadHeader { field: "housekeeping_cpu" });
    }
    for (id, _) in work.domains().filter(|(_, d)| d.owns(h.console_intid)) {
        report.add(Finding::ConsoleInterruptOwned { domain: id });
    }
}
