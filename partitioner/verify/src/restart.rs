//! Restart: what it writes is the domain's whole RAM, what it copies is out of every domain's reach, and the tables it does
//! both through lead nowhere else.
//!
//! A restart runs beside other domains. A reload that reached one of them, or a pristine copy that a guest could change,
//! would undo everything the other modules prove.

use crate::finding::{Finding, Root};
use crate::regime;
use crate::stage2::{report_broken, tables};
use crate::walk::{Leaf, Step, Walk, root_page};
use crate::work::{Report, Work};
use cofferdam_plan::audit::{Payload, fact, grant, line};
use cofferdam_plan::{
    CpuIndex, Domain, DomainFlags, DomainId, HeaderFlags, Move, NO_INTID, NO_WINDOW, Pa, PaRegion, Policy, va,
};

/// Access flag, inner shareable, Normal Write-Back, AP[1]: as every mapping of memory at EL2 (DDI 0487, D8.3, D8.4).
const NORMAL: u64 = va::ATTR_NORMAL << 2 | 1 << 6 | 0b11 << 8 | 1 << 10;
/// AP[2].
const READ_ONLY: u64 = 1 << 7;
/// XN.
const NO_EXECUTE: u64 = 1 << 54;

/// Walks the restart roots. Returns the number of leaves.
pub(crate) fn prove(work: &Work<'_, '_>, marks: &mut [u32], report: &mut Report<'_>) -> u64 {
    let mut leaves = 0;
    i41_watchdogs_have_a_watcher(work, report);
    for (id, domain) in work.domains() {
        watchdog_registers_are_its_own(work, id, domain, report);
        policies_are_known(work, id, domain, report);
        let reloads = work.plan.reloads_of(domain).unwrap_or(&[]);
        if !domain.restarts() {
            if !reloads.is_empty() {
                report.add(Finding::BadDomain { domain: id, why: "has reloads and never restarts" });
            }
            continue;
        }
        i26_reloads_write_all_own_memory_once(work, id, reloads, report);
        i80_pristine_bytes_are_out_of_reach(work, id, reloads, report);
        i78_every_payload_comes_again(work, id, reloads, report);
        leaves += i24_restart_root_maps_nothing_else(work, id, domain, reloads, marks, report);
    }
    let listed: u64 = work.plan.domains.iter().map(|d| u64::from(d.reload_count)).sum();
    if listed != work.plan.reloads.len() as u64 {
        report.add(Finding::ReloadLists { listed, records: work.plan.reloads.len() as u64 });
    }
    leaves
}

/// Policies are among those there are, and a domain has what they need: a limit and a root where it restarts, WFI that
/// comes to EL2 where another CPU may have to fetch one of its own (I42), and none of them where not.
pub(crate) fn policies_are_known(work: &Work<'_, '_>, id: DomainId, d: &Domain, report: &mut Report<'_>) {
    let policies = [d.on_fault, d.on_reset, d.on_off];
    let mut bad = |why| report.add(Finding::BadDomain { domain: id, why });
    if policies.iter().any(|policy| *policy > Policy::REBOOT_BOARD) || d.reserved1 != [0; 3] {
        bad("has an unknown policy");
    }
    if policies.contains(&Policy::RESTART) != d.restarts() || d.restarts() != (d.restart_ttbr != 0) {
        bad("restarts without a limit or a root, or has them and never does");
    }
    // Injected delivery leaves a guest nothing that holds off the kick; there the board decides.
    let fetched = if d.flags & DomainFlags::INJECTED != 0 {
        work.plan.header.flags & HeaderFlags::TRAP_WFI != 0
    } else {
        d.restarts() && d.vcpu_count > 1 || d.watchdog_ms != 0 && d.on_fault == Policy::RESTART
    };
    if fetched != (d.flags & DomainFlags::TRAP_WFI != 0) {
        bad("may sleep where it must be fetched, or pays for a WFI that nobody needs to see");
    }
}

/// Registers of a watchdog come with the watchdog, on pages of their own, with an interrupt that is this domain's; without them
/// there is none of it.
pub(crate) fn watchdog_registers_are_its_own(work: &Work<'_, '_>, id: DomainId, d: &Domain, report: &mut Report<'_>) {
    let lines = || work.lines().filter(|l| l.kind == line::WATCHDOG && l.domain == u32::from(id.0));
    let holds = if d.watchdog_ipa == NO_WINDOW {
        d.watchdog_intid == NO_INTID && lines().count() == 0
    } else {
        d.watchdog_ms != 0
            && d.watchdog_ipa.0.is_multiple_of(va::PAGE)
            && lines().count() == 1
            && lines().all(|l| l.intid == d.watchdog_intid)
    };
    if !holds || d.reserved2 != 0 {
        report.add(Finding::BadDomain { domain: id, why: "has registers of a watchdog that contradict each other" });
    }
}

/// I41: who looks after a watchdog is a CPU of another domain, or its own where it has nothing to hold off EL2's interrupts with, does so at least twice within its time, gets EL2's
/// interrupts, and no more often than that asks for.
pub(crate) fn i41_watchdogs_have_a_watcher(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let watched = || work.domains().filter(|(_, d)| d.watchdog_ms != 0);
    for (id, d) in work.domains() {
        let mut bad = |why| report.add(Finding::BadDomain { domain: id, why });
        let watcher = work.plan.cpus.get(usize::from(d.watcher.0));
        if d.watchdog_ms == 0 {
            if d.watcher != CpuIndex(0) {
                bad("has a watcher and no watchdog");
            }
        } else if watcher.is_none_or(|cpu| {
            let own = cpu.domain == id.0 && d.flags & DomainFlags::INJECTED == 0;
            own || cpu.watch_ms == 0 || cpu.watch_ms > d.watchdog_ms / 2
        }) {
            bad("has a watchdog that nobody sure looks after in time");
        } else if !crate::gicv2::is_v2(work) && work.plan.header.flags & HeaderFlags::GROUP0 == 0 {
            bad("has a watchdog, but EL2 has no interrupts");
        }
    }
    for (i, cpu) in work.plan.cpus.iter().enumerate() {
        let index = CpuIndex(i as u16);
        let shortest = watched().filter(|(_, d)| d.watcher == index).map(|(_, d)| d.watchdog_ms).min();
        if cpu.watch_ms != shortest.map_or(0, |ms| ms / 4) {
            report.add(Finding::BadCpu { cpu: index, why: "looks after watchdogs at another rate than they need" });
        }
    }
}

/// I26: the reloads, in order, write every byte of the domain's RAM once and no other.
pub(crate) fn i26_reloads_write_all_own_memory_once(
    work: &Work<'_, '_>,
    id: DomainId,
    reloads: &[Move],
    report: &mut Report<'_>,
) {
    let mut rest = reloads.iter();
    for g in work.grants_of(id).filter(|g| g.kind == grant::RAM) {
        let mut at = g.pa.base;
        while at < g.pa.end() {
            let Some(m) = rest.next() else {
                return report.add(Finding::NotReloaded { domain: id, at });
            };
            let written = m.len.saturating_add(m.zero);
            if m.to != at || written == 0 || written > g.pa.end().0 - at.0 {
                return report.add(Finding::NotReloaded { domain: id, at });
            }
            at = Pa(at.0 + written);
        }
    }
    if let Some(m) = rest.next() {
        report.add(Finding::ReloadOutsideDomain { domain: id, to: m.to });
    }
}

/// The bytes a reload copies, where the image is planned for.
fn source(work: &Work<'_, '_>, m: &Move) -> PaRegion {
    PaRegion { base: Pa(work.plan.header.base.0.saturating_add(m.offset)), size: m.len }
}

/// I80: what is copied lies in the image, in memory the hypervisor keeps, and in no grant.
pub(crate) fn i80_pristine_bytes_are_out_of_reach(
    work: &Work<'_, '_>,
    id: DomainId,
    reloads: &[Move],
    report: &mut Report<'_>,
) {
    for m in reloads.iter().filter(|m| m.len > 0) {
        let pages = source(work, m).widened(va::PAGE);
        if m.offset.saturating_add(m.len) > work.plan.header.image_len || !work.is_covered(pages, fact::HYPERVISOR) {
            report.add(Finding::PristineNotKept { domain: id, pa: pages });
        }
        for g in work.audit.grants {
            if let Some(pa) = g.pa.intersection(&pages) {
                report.add(Finding::PayloadExposed { domain: id, to: crate::memory::id(g), pa });
            }
        }
    }
}

/// I78: each byte of a payload is brought from its pristine copy to where it was, and nothing else is copied but the padding of
/// pages and of 16 bytes.
pub(crate) fn i78_every_payload_comes_again(
    work: &Work<'_, '_>,
    id: DomainId,
    reloads: &[Move],
    report: &mut Report<'_>,
) {
    let own = |p: &&Payload| p.domain == u32::from(id.0) && p.len > 0;
    let homed = |m: &Move, p: &Payload| m.to.0.wrapping_sub(m.offset) == p.pa.base.0.wrapping_sub(p.pristine);
    for p in work.payloads().filter(own) {
        let end = Pa(p.pa.base.0 + p.len);
        let mut at = p.pa.base;
        while at < end {
            let covers = |m: &&Move| homed(m, p) && m.to <= at && at.0 - m.to.0 < m.len;
            match reloads.iter().find(covers) {
                Some(m) => at = Pa(m.to.0.saturating_add(m.len)),
                None => {
                    report.add(Finding::PayloadNotReloaded { domain: id, pa: p.pa });
                    break;
                }
            }
        }
    }
    for m in reloads.iter().filter(|m| m.len > 0) {
        let to = PaRegion { base: m.to, size: m.len };
        let mut at = to.base;
        while at < to.end() {
            let known = work.payloads().filter(own).filter(|p| homed(m, p));
            let pages = known.map(|p| PaRegion { base: p.pa.base, size: p.len }.widened(va::PAGE));
            match pages.filter(|pages| pages.contains(at)).map(|pages| pages.end()).max() {
                Some(end) => at = end,
                None => {
                    report.add(Finding::ReloadCopiesMore { domain: id, offset: m.offset + (at.0 - m.to.0) });
                    break;
                }
            }
        }
    }
}

/// I24: the restart root maps the stub's page, the domain's RAM and its pristine copy at their physical addresses, with no
/// more rights than a reload needs; all of them, and not a byte more.
pub(crate) fn i24_restart_root_maps_nothing_else(
    work: &Work<'_, '_>,
    id: DomainId,
    d: &Domain,
    reloads: &[Move],
    marks: &mut [u32],
    report: &mut Report<'_>,
) -> u64 {
    let h = work.plan.header;
    // Said where EL2's own root is proven.
    let Ok(regime) = regime::el2(h.tcr_el2, h.pa_bits) else { return 0 };
    let tables = tables(work);
    let root = Root::Restart(id);
    let Some(page) = root_page(&tables, &regime, d.restart_ttbr) else {
        report.add(Finding::BadRoot { root, pa: Pa(d.restart_ttbr) });
        return 0;
    };
    let stub = PaRegion { base: h.base, size: va::PAGE };
    let mut leaves = 0;
    let mut mapped = 0u64;
    let mut walk = Walk { tables, regime, marks, number: u32::MAX - 1 - u32::from(id.0), shares: 0 };
    walk.run(page, &mut |step| match step {
        Step::Leaf(leaf) => {
            leaves += 1;
            mapped = mapped.saturating_add(leaf.size);
            let pa = PaRegion { base: leaf.pa, size: leaf.size };
            if leaf.at != leaf.pa.0 || !has_purpose(work, id, &leaf, stub, reloads) {
                report.add(Finding::RestartMapsMore { domain: id, va: leaf.at, pa });
            }
        }
        other => report_broken(root, other, report),
    });
    // Nothing is mapped twice at its own address, so what is missing shows in the sum.
    let ram: u64 = work.grants_of(id).filter(|g| g.kind == grant::RAM).map(|g| g.pa.size).sum();
    let needed = ram + pristine_pages(work, reloads) * va::PAGE + va::PAGE;
    if mapped < needed {
        report.add(Finding::RestartMapsLess { domain: id, mapped, needed });
    }
    leaves
}

fn has_purpose(work: &Work<'_, '_>, id: DomainId, leaf: &Leaf, stub: PaRegion, reloads: &[Move]) -> bool {
    let pa = PaRegion { base: leaf.pa, size: leaf.size };
    if pa == stub {
        return leaf.attributes == NORMAL | READ_ONLY;
    }
    if leaf.attributes == NORMAL | NO_EXECUTE {
        return work.is_ram_of(id, pa);
    }
    leaf.attributes == NORMAL | READ_ONLY | NO_EXECUTE
        && (0..pa.size / va::PAGE).all(|page| {
            let page = PaRegion { base: Pa(pa.base.0 + page * va::PAGE), size: va::PAGE };
            reloads.iter().any(|m| source(work, m).overlaps(&page))
        })
}

/// Pages that hold bytes of the pristine copy, each counted once.
fn pristine_pages(work: &Work<'_, '_>, reloads: &[Move]) -> u64 {
    let pages = |m: &Move| source(work, m).widened(va::PAGE);
    let copies = reloads.iter().filter(|m| m.len > 0);
    copies
        .enumerate()
        .map(|(i, m)| {
            let (own, mut at, mut count) = (pages(m), pages(m).base, 0);
            while at < own.end() {
                let page = PaRegion { base: at, size: va::PAGE };
                let before = reloads.iter().filter(|m| m.len > 0).take(i).any(|o| pages(o).overlaps(&page));
                count += u64::from(!before);
                at = Pa(at.0.saturating_add(va::PAGE));
            }
            count
        })
        .sum()
}
