//! Domains: names, entry state, console.

use crate::finding::Finding;
use crate::work::{Report, Work};
use cofferdam_plan::audit::{grant, line, payload};
use cofferdam_plan::limits::MAX_NAME;
use cofferdam_plan::{Domain, DomainFlags, DomainId, IpaRegion, NO_INTID, va};

pub(crate) fn prove(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let mut input = None;
    for (id, domain) in work.domains() {
        i56_name_cannot_forge_a_prefix(work, id, domain, report);
        domain_starts_in_its_own_memory(work, id, domain, report);
        i54_console_is_its_own(work, id, domain, report);
        if domain.flags & DomainFlags::INPUT != 0
            && let Some(first) = input.replace(id)
        {
            report.add(Finding::InputTwice { first, second: id });
        }
    }
}

/// I56: a name is plain, so `[name] ` cannot be made to look like another domain's; names are unique.
pub(crate) fn i56_name_cannot_forge_a_prefix(work: &Work<'_, '_>, id: DomainId, d: &Domain, report: &mut Report<'_>) {
    let name = d.name();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,+@".contains(c);
    let padded = d.name.iter().skip(name.len()).all(|b| *b == 0);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) || !padded {
        report.add(Finding::BadName { domain: id });
    }
    for (other, _) in work.domains().skip(usize::from(id.0) + 1).filter(|(_, o)| o.name == d.name) {
        report.add(Finding::NameTwice { first: id, second: other });
    }
}

/// Entry and device tree lie in the domain's own RAM; flags are known.
pub(crate) fn domain_starts_in_its_own_memory(work: &Work<'_, '_>, id: DomainId, d: &Domain, report: &mut Report<'_>) {
    let instruction = IpaRegion { base: d.entry, size: 4 };
    if !d.entry.0.is_multiple_of(4) || !instruction.is_valid() || !work.is_granted(id, instruction, grant::RAM) {
        report.add(Finding::EntryOutsideRam { domain: id, entry: d.entry });
    }
    let tree = |p: &cofferdam_plan::audit::Payload| p.domain == u32::from(id.0) && p.kind == payload::DTB;
    if d.dtb.0 != 0 && !work.payloads().any(|p| tree(p) && p.ipa.base == d.dtb) {
        report.add(Finding::DtbNotThere { domain: id, ipa: d.dtb });
    }
    let known = DomainFlags::CONSOLE
        | DomainFlags::INPUT
        | DomainFlags::OUTPUT_ONLY
        | DomainFlags::SCRUB_AT_BOOT
        | DomainFlags::INJECTED
        | DomainFlags::TRAP_WFI
        | DomainFlags::SVE
        | DomainFlags::PMU
        | DomainFlags::DEBUG;
    if d.flags & !known != 0 {
        report.add(Finding::BadDomain { domain: id, why: "has unknown flags" });
    }
}

/// I54: a console has a page and an interrupt of its own; without one there is neither.
pub(crate) fn i54_console_is_its_own(work: &Work<'_, '_>, id: DomainId, d: &Domain, report: &mut Report<'_>) {
    let lines = || work.lines().filter(|l| l.kind == line::VUART && l.domain == u32::from(id.0));
    let (input, output_only) = (d.flags & DomainFlags::INPUT != 0, d.flags & DomainFlags::OUTPUT_ONLY != 0);
    let holds = if d.flags & DomainFlags::CONSOLE != 0 {
        !(input && output_only)
            && d.vuart_ipa.0.is_multiple_of(va::PAGE)
            && lines().count() == 1
            && lines().all(|l| l.intid == d.vuart_intid)
    } else {
        d.vuart_intid == NO_INTID && lines().count() == 0 && !input && !output_only
    };
    if !holds {
        report.add(Finding::BadConsole { domain: id });
    }
}
