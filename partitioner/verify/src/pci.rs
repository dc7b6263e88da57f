//! PCI functions: what they are, and who owns them.
//!
//! Their registers are `bar`'s, bridges `bridge`'s; what a guest may do to configuration space is `config`'s.

use crate::bridge::i73_a_bus_is_reset_for_its_owner;
use crate::finding::Finding;
use crate::work::{Report, Work};
use cofferdam_plan::audit::{Fact, fact, grant};
use cofferdam_plan::pci::{CONFIG_SIZE, ECAM_SIZE, Function, FunctionFlags, NONE, PciDomain};
use cofferdam_plan::{
    Bdf, DomainFlags, DomainId, IntId, Ipa, IpaRegion, NO_DOMAIN, NO_INTID, NO_WINDOW, Pa, PciView, va,
};

pub(crate) fn prove(work: &Work<'_, '_>, report: &mut Report<'_>) {
    i21_host_bridge_is_forbidden(work, report);
    let Some(pci) = work.plan.pci else { return };
    functions_are_in_order(&pci, report);
    for (i, f) in pci.functions.iter().enumerate() {
        function_is_sound(work, &pci, i, f, report);
    }
    for (domain, owner) in owners(&pci) {
        domain_sees_its_functions(work, &pci, domain, owner, report);
        i69_ram_is_no_bus_address(work, &pci, domain, owner, report);
    }
}

/// The domains with what PCI means to them.
pub(crate) fn owners<'a>(pci: &PciView<'a>) -> impl Iterator<Item = (DomainId, &'a PciDomain)> + use<'a> {
    pci.owners.iter().enumerate().map(|(i, owner)| (DomainId(i as u16), owner))
}

pub(crate) fn is_bridge(f: &Function) -> bool {
    f.flags & FunctionFlags::BRIDGE != 0
}

/// The ECAM, where there is one: `i21_host_bridge_is_forbidden` shows that there are not two.
pub(crate) fn ecam<'a>(work: &Work<'a, '_>) -> Option<&'a Fact> {
    work.facts(fact::ECAM).next()
}

/// Where the configuration space of a function lies (PCI Express Base 5.0, 7.2.2): 4 KiB each, by bus, device, function.
pub(crate) fn config_page(work: &Work<'_, '_>, rid: u16) -> Option<Pa> {
    config_page_in(ecam(work)?, rid)
}

/// The same in this ECAM.
pub(crate) fn config_page_in(ecam: &Fact, rid: u16) -> Option<Pa> {
    let offset = u64::from(rid).checked_sub(u64::from(ecam.owner) << 8)?.checked_mul(CONFIG_SIZE)?;
    (offset < ecam.region.size).then(|| Pa(ecam.region.base.0.saturating_add(offset)))
}

/// What the board calls a function at the SMMU ([`fact::STREAM`]), at the ITS ([`fact::DEVICE_ID`]), or the owner it
/// trusts ([`fact::TRUSTED_DMA`]).
pub(crate) fn number_of(work: &Work<'_, '_>, f: &Function, kind: u32) -> Option<u32> {
    let page = config_page(work, f.rid)?;
    work.facts(kind).find(|fact| fact.region.base == page).map(|fact| fact.owner)
}

/// I21: host bridge, SMMU and ITS are there at most once and out of every domain's reach; what EL2 keeps for them is RAM the
/// hypervisor keeps; windows are no memory and no registers of anybody else. Without PCI there is none of it.
pub(crate) fn i21_host_bridge_is_forbidden(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let pci = work.plan.pci.is_some();
    let mut bad = |what| report.add(Finding::BadPci { what });
    let kinds = [
        (fact::ECAM, fact::FORBIDDEN, "configuration space"),
        (fact::SMMU, fact::FORBIDDEN, "SMMU"),
        (fact::ITS, fact::FORBIDDEN, "ITS"),
        (fact::DMA_AREA, fact::HYPERVISOR, "DMA area"),
    ];
    for (kind, within, what) in kinds {
        let regions = || work.facts(kind).map(|f| f.region);
        if regions().count() > 1 || (!pci && regions().count() > 0) {
            bad(what);
        }
        if regions().any(|r| r.is_empty() || !r.is_aligned(va::PAGE) || !work.is_covered(r, within)) {
            bad(what);
        }
    }
    if pci != ecam(work).is_some() {
        bad("configuration space");
    }
    if let Some(ecam) = ecam(work) {
        let buses = ecam.region.size / ECAM_SIZE;
        let last = u64::from(ecam.owner).saturating_add(buses);
        if !ecam.region.size.is_multiple_of(ECAM_SIZE) || last > 256 {
            bad("configuration space");
        }
    }
    let sizes = [(fact::SMMU, 0x2_0000), (fact::ITS, 0x2_0000)];
    for (kind, size) in sizes {
        if work.facts(kind).any(|f| f.region.size != size || !f.region.base.0.is_multiple_of(0x1_0000)) {
            bad("SMMU or ITS");
        }
    }
    let ids = [fact::STREAM, fact::DEVICE_ID, fact::TRUSTED_DMA];
    for f in ids.into_iter().flat_map(|kind| work.facts(kind)) {
        let again = work.facts(f.kind).filter(|o| o.region.base == f.region.base).count() > 1;
        let within = work.facts(fact::ECAM).any(|ecam| ecam.region.contains_region(&f.region));
        if f.region.size != CONFIG_SIZE || !f.region.is_aligned(CONFIG_SIZE) || !within || again {
            bad("IDs of functions");
        }
    }
    for window in work.facts(fact::PCI_WINDOW) {
        let memory = work.facts(fact::RAM).chain(work.facts(fact::RESERVED));
        let others = memory.chain(work.facts(fact::FORBIDDEN)).chain(work.facts(fact::PCI_WINDOW));
        let shared = others.filter(|o| !core::ptr::eq(*o, window)).any(|o| o.region.overlaps(&window.region));
        if !pci || window.region.is_empty() || !window.region.is_aligned(va::PAGE) || shared {
            bad("window");
        }
    }
}

/// Those with an owner first, by domain and devfn; then bridges; then the rest. The domains' ranges and the functions' rules
/// follow each other without a gap.
pub(crate) fn functions_are_in_order(pci: &PciView<'_>, report: &mut Report<'_>) {
    let key = |f: &Function| match f.domain {
        NO_DOMAIN if is_bridge(f) => (1, 0, 0),
        NO_DOMAIN => (2, 0, 0),
        domain => (0, domain, f.devfn),
    };
    for pair in pci.functions.windows(2) {
        if let [a, b] = pair
            && (key(a) > key(b) || (a.domain != NO_DOMAIN && key(a) == key(b)))
        {
            report.add(Finding::BadFunction { function: Bdf(b.rid), why: "is out of order, or has another's place" });
        }
    }
    let mut next = 0;
    for (domain, owner) in owners(pci) {
        let own = pci.functions.iter().filter(|f| f.domain == domain.0).count();
        let first = if own == 0 && owner.first_function == 0 { 0 } else { next };
        if owner.first_function != first || owner.function_count as usize != own {
            report.add(Finding::BadDomain { domain, why: "has a range of PCI functions that is not its own" });
        }
        next += own as u32;
    }
    let (mut next, mut dword) = (0, 0);
    for f in pci.functions {
        let is_next = |first, count, next| first == if first == 0 && count == 0 { 0 } else { next };
        if !is_next(f.first_rule, f.rule_count, next) || !is_next(f.first_dword, f.dword_count, dword) {
            report.add(Finding::BadFunction { function: Bdf(f.rid), why: "has rules that are another's" });
        }
        next = next.saturating_add(f.rule_count);
        dword = dword.saturating_add(f.dword_count);
    }
    if next as usize != pci.rules.len() || dword as usize != pci.dwords.len() {
        report.add(Finding::BadPci { what: "number of rules" });
    }
}

/// A function has a place in the ECAM that no other has, flags that fit what it is, and a name.
pub(crate) fn function_is_sound(
    work: &Work<'_, '_>,
    pci: &PciView<'_>,
    index: usize,
    f: &Function,
    report: &mut Report<'_>,
) {
    let mut bad = |why| report.add(Finding::BadFunction { function: Bdf(f.rid), why });
    if config_page(work, f.rid).is_none() {
        bad("has no place in configuration space");
    }
    if pci.functions.iter().skip(index + 1).any(|o| o.rid == f.rid) {
        bad("is there twice");
    }
    let resets = FunctionFlags::FLR | FunctionFlags::BUS_RESET;
    let known = FunctionFlags::BRIDGE | FunctionFlags::MSI | FunctionFlags::DMA | resets;
    if f.flags & !known != 0 || f.reserved != 0 {
        bad("has unknown flags");
    }
    if matches!(f.id & 0xFFFF, 0 | 0xFFFF) {
        bad("has no vendor");
    }
    let own = f.domain != NO_DOMAIN;
    let powers = FunctionFlags::MSI | FunctionFlags::DMA;
    if !own && (f.flags & powers != 0 || f.rule_count != 0 || f.devfn != 0) {
        bad("has no owner, but rules, a place on a bus, or may send");
    }
    if is_bridge(f) && (own || f.flags & resets != 0 || f.subsystem != 0) {
        bad("is a bridge with an owner, or with what a bridge does not have");
    }
    if !is_bridge(f) && f.bridge != [0; 5] {
        bad("is no bridge, but programmed as one");
    }
    // Device Control is 8 bytes into a capability (PCI Express Base 5.0, 7.5.3.4), of which none lies in the header.
    let control = f.reset.is_multiple_of(4) && (0x48..=0xF8).contains(&f.reset);
    match f.flags & resets {
        0 if f.reset != 0 => bad("is reset, though nothing resets it"),
        FunctionFlags::FLR if !control => bad("is reset by a register it does not have"),
        FunctionFlags::BUS_RESET => i73_a_bus_is_reset_for_its_owner(pci, f, report),
        flags if flags == resets => bad("is reset twice over"),
        _ => {}
    }
    let mut bad = |why| report.add(Finding::BadFunction { function: Bdf(f.rid), why });
    let name = f.name();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,+@".contains(c);
    if name.is_empty() || !name.chars().all(plain) || f.name.iter().skip(name.len()).any(|b| *b != 0) {
        bad("has a name that is not plain");
    }
}

/// A domain with functions has a configuration space of its own, and a frame for their MSIs where one of them sends any; one
/// without has neither.
pub(crate) fn domain_sees_its_functions(
    work: &Work<'_, '_>,
    pci: &PciView<'_>,
    domain: DomainId,
    owner: &PciDomain,
    report: &mut Report<'_>,
) {
    let functions = pci.functions_of(owner).unwrap_or(&[]);
    let mut bad = |why| report.add(Finding::BadDomain { domain, why });
    // Where the board has it, of which the guest sees the first bus.
    let ecam = ecam(work).is_some_and(|ecam| owner.ecam.0 == ecam.region.base.0);
    if functions.is_empty() && owner.ecam != NO_WINDOW || !functions.is_empty() && !ecam {
        bad("has a configuration space without functions, or functions without one");
    }
    let at = |devfn: usize| pci.functions.iter().position(|f| f.domain == domain.0 && usize::from(f.devfn) == devfn);
    let is_theirs = |(devfn, place): (usize, &u8)| usize::from(*place) == at(devfn).unwrap_or(NONE.into());
    if !owner.places.iter().enumerate().all(is_theirs) {
        bad("finds another function at a place of its bus, or none");
    }
    let sends = functions.iter().any(|f| f.flags & FunctionFlags::MSI != 0);
    if !sends && (owner.frame != NO_WINDOW || owner.spi_count != 0 || ![IntId(0), NO_INTID].contains(&owner.first_spi))
    {
        bad("has interrupts for MSIs that nobody sends");
    }
    let injected = work.plan.domains.get(usize::from(domain.0)).is_some_and(|d| d.flags & DomainFlags::INJECTED != 0);
    if sends && !injected {
        bad("has functions that send MSIs, and direct delivery");
    }
}

/// I69: what a function may address as RAM is no address that the bus keeps for registers.
pub(crate) fn i69_ram_is_no_bus_address(
    work: &Work<'_, '_>,
    pci: &PciView<'_>,
    domain: DomainId,
    owner: &PciDomain,
    report: &mut Report<'_>,
) {
    let functions = pci.functions_of(owner).unwrap_or(&[]);
    if !functions.iter().any(|f| f.flags & FunctionFlags::DMA != 0) {
        return;
    }
    for g in work.grants_of(domain).filter(|g| g.kind == grant::RAM) {
        for window in work.facts(fact::PCI_WINDOW) {
            let bus = IpaRegion { base: Ipa(window.region.base.0), size: window.region.size };
            if let Some(ipa) = bus.intersection(&g.ipa) {
                report.add(Finding::RamOnBus { domain, ipa });
            }
        }
    }
}
