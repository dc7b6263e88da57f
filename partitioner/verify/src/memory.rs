//! Grants against facts and against each other, before any table is looked at.
//!
//! `stage2` then proves that the tables say exactly what the grants say; together that is isolation.

use crate::finding::Finding;
use crate::gicv2;
use crate::header::kind_name;
use crate::regime;
use crate::work::{Report, Work};
use cofferdam_plan::audit::{Grant, fact, grant};
use cofferdam_plan::pci::{ECAM_SIZE, PciDomain};
use cofferdam_plan::{Domain, DomainFlags, DomainId, Ipa, IpaRegion, NO_WINDOW, va};

/// Bytes of the emulated distributor.
const GICD_SIZE: u64 = 0x1_0000;
/// The same of a GICv2.
const GICD2_SIZE: u64 = 0x1000;
/// Bytes of one vCPU's emulated redistributor: RD and SGI frame.
const GICR_SIZE: u64 = 0x2_0000;
/// The two frames of a watchdog (BSA 1.0, Generic Watchdog), a page each.
const WATCHDOG_SIZE: u64 = 0x2000;

pub(crate) fn prove(work: &Work<'_, '_>, report: &mut Report<'_>) {
    i18_no_memory_in_two_grants(work, report);
    for grant in work.audit.grants {
        i20_grant_is_of_its_kind(work, grant, report);
        i18_i21_nothing_forbidden_is_granted(work, grant, report);
    }
    i31_no_page_with_two_owners(work, report);
    for (id, domain) in work.domains() {
        ipa_ranges_are_disjoint(work, id, domain, report);
        i21_emulated_windows_are_unmapped(work, id, domain, report);
    }
}

/// I18: no byte of memory or registers is granted twice, to two domains or twice to one.
pub(crate) fn i18_no_memory_in_two_grants(work: &Work<'_, '_>, report: &mut Report<'_>) {
    // Ascending by base: a grant overlaps an earlier one only if it overlaps the one that reaches furthest.
    let mut furthest: Option<&Grant> = None;
    // What may be in several grants is held apart, and forbidden to every other kind.
    for g in work.grants_by_pa().filter(|g| !gicv2::KINDS.contains(&g.kind)) {
        if let Some(earlier) = furthest
            && let Some(pa) = earlier.pa.intersection(&g.pa)
        {
            report.add(Finding::GrantsShareMemory { pa, first: id(earlier), second: id(g) });
        }
        if furthest.is_none_or(|f| f.pa.end() < g.pa.end()) {
            furthest = Some(g);
        }
    }
}

/// I20: RAM grants are RAM, device grants are not; so no byte can have both types.
pub(crate) fn i20_grant_is_of_its_kind(work: &Work<'_, '_>, g: &Grant, report: &mut Report<'_>) {
    if g.kind == grant::RAM && !work.is_covered(g.pa, fact::RAM) {
        report.add(Finding::RamOutsideBoard { domain: id(g), pa: g.pa });
    }
    if g.kind != grant::RAM {
        for ram in work.facts(fact::RAM) {
            if let Some(pa) = ram.region.intersection(&g.pa) {
                report.add(Finding::GrantOverlaps { domain: id(g), pa, what: kind_name(fact::RAM) });
            }
        }
    }
}

/// I18, I21: no grant touches the hypervisor's memory, reserved memory, or registers no domain may reach.
pub(crate) fn i18_i21_nothing_forbidden_is_granted(work: &Work<'_, '_>, g: &Grant, report: &mut Report<'_>) {
    // The pages of forbidden registers that are granted: `gicv2` holds them apart.
    let kinds = [fact::HYPERVISOR, fact::RESERVED, fact::FORBIDDEN];
    for kind in kinds.into_iter().take(if gicv2::KINDS.contains(&g.kind) { 2 } else { 3 }) {
        for f in work.facts(kind) {
            if let Some(pa) = f.region.widened(va::PAGE).intersection(&g.pa) {
                report.add(Finding::GrantOverlaps { domain: id(g), pa, what: kind_name(kind) });
            }
        }
    }
    // RAM that lies over a device's registers would give them away under another name.
    if g.kind == grant::RAM {
        for f in work.facts(fact::DEVICE) {
            if let Some(pa) = f.region.intersection(&g.pa) {
                report.add(Finding::GrantOverlaps { domain: id(g), pa, what: kind_name(fact::DEVICE) });
            }
        }
    }
}

/// I31: page → owner. A granted page holds registers of devices of that domain and of nobody else, at least one; and every
/// register of a domain's device lies in its grants.
pub(crate) fn i31_no_page_with_two_owners(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let devices = || work.facts(fact::DEVICE).filter(|f| !f.region.is_empty());
    for g in work.audit.grants.iter().filter(|g| g.kind == grant::DEVICE) {
        for device in devices().filter(|d| d.owner != g.domain + 1) {
            if let Some(pa) = device.region.widened(va::PAGE).intersection(&g.pa) {
                report.add(Finding::PageWithTwoOwners { pa, domain: id(g) });
            }
        }
        let mut at = g.pa.base;
        while at < g.pa.end() {
            let own = devices().filter(|d| d.owner == g.domain + 1).map(|d| d.region.widened(va::PAGE));
            match own.filter(|pages| pages.contains(at)).map(|pages| pages.end()).max() {
                Some(end) => at = end,
                None => {
                    report.add(Finding::PageWithoutDevice { at, domain: id(g) });
                    break;
                }
            }
        }
    }
    for device in devices().filter(|d| d.owner != 0) {
        let own = |g: &&Grant| g.kind == grant::DEVICE && g.domain + 1 == device.owner;
        let mut at = device.region.base;
        for g in work.grants_by_pa().filter(own) {
            if g.pa.contains(at) {
                at = g.pa.end();
            }
        }
        if at < device.region.end() {
            report.add(Finding::DeviceNotGranted { pa: device.region, domain: DomainId(device.owner as u16 - 1) });
        }
    }
}

/// A domain's grants do not overlap in what the guest sees, and lie within its input addresses.
pub(crate) fn ipa_ranges_are_disjoint(work: &Work<'_, '_>, domain: DomainId, d: &Domain, report: &mut Report<'_>) {
    let mut end = Ipa(0);
    for g in work.grants_of(domain) {
        if g.ipa.base < end {
            report.add(Finding::GrantsShareIpa { domain, ipa: g.ipa });
        }
        end = end.max(g.ipa.end());
    }
    let header = work.plan.header;
    if let Ok(regime) = regime::stage2(d.vtcr, header.pa_bits, header.vmid_bits)
        && end.0 > 1 << regime.ia_bits
    {
        report.add(Finding::IpaTooLarge { domain, bits: regime.ia_bits });
    }
}

/// I21: what the hypervisor emulates for this domain is not mapped: the accesses must trap.
pub(crate) fn i21_emulated_windows_are_unmapped(
    work: &Work<'_, '_>,
    domain: DomainId,
    d: &Domain,
    report: &mut Report<'_>,
) {
    let all = windows(work, domain, d);
    for (i, (window, what)) in all.iter().enumerate() {
        let twice = all.iter().skip(i + 1).any(|(other, _)| other.overlaps(window));
        if !window.is_valid() || twice {
            report.add(Finding::EmulatedWindow { domain, ipa: *window, what });
        }
        for g in work.grants_of(domain) {
            if let Some(ipa) = g.ipa.intersection(window) {
                report.add(Finding::EmulatedWindow { domain, ipa, what });
            }
        }
    }
}

/// The ranges a domain sees emulated. The second is empty with a GICv2, the third without a console, the fourth where the
/// watchdog has no registers, the last two without PCI functions and without MSIs.
pub(crate) fn windows(work: &Work<'_, '_>, domain: DomainId, d: &Domain) -> [(IpaRegion, &'static str); 6] {
    let h = work.plan.header;
    let v2 = gicv2::is_v2(work);
    let watchdog = if d.watchdog_ipa != NO_WINDOW { WATCHDOG_SIZE } else { 0 };
    let owner = work.plan.pci.and_then(|pci| pci.owners.get(usize::from(domain.0)));
    let pci = |pick: fn(&PciDomain) -> Ipa, size| match owner.map(pick) {
        Some(base) if base != NO_WINDOW => IpaRegion { base, size },
        _ => IpaRegion::default(),
    };
    let vuart = if d.flags & DomainFlags::CONSOLE != 0 { va::PAGE } else { 0 };
    [
        (IpaRegion { base: h.gicd_ipa, size: if v2 { GICD2_SIZE } else { GICD_SIZE } }, "distributor"),
        (
            IpaRegion { base: h.gicr_ipa, size: if v2 { 0 } else { GICR_SIZE * u64::from(d.vcpu_count) } },
            "redistributors",
        ),
        (IpaRegion { base: d.vuart_ipa, size: vuart }, "virtual PL011"),
        (IpaRegion { base: d.watchdog_ipa, size: watchdog }, "watchdog"),
        (pci(|owner| owner.ecam, ECAM_SIZE), "configuration space"),
        (pci(|owner| owner.frame, va::PAGE), "MSI frame"),
    ]
}

/// The domain a grant belongs to; `work` has checked that it exists.
pub(crate) fn id(g: &Grant) -> DomainId {
    DomainId(g.domain as u16)
}
