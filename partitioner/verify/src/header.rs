//! The header's constants: what the machine is asked for, and where image and plan lie.

use crate::finding::Finding;
use crate::work::{Report, Work};
use cofferdam_plan::audit::fact;
use cofferdam_plan::{DomainFlags, HeaderFlags, Pa, PaRegion, UartKind, va};

pub(crate) fn prove(work: &Work<'_, '_>, report: &mut Report<'_>) {
    i74_header_is_consistent(work, report);
    facts_are_disjoint(work, report);
}

/// I74: fields within the values the hypervisor was written for, lengths that fit each other.
pub(crate) fn i74_header_is_consistent(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let h = work.plan.header;
    let mut expect = |holds: bool, field| {
        if !holds {
            report.add(Finding::BadHeader { field });
        }
    };
    expect(matches!(h.pa_bits, 32 | 36 | 40 | 42 | 44 | 48), "pa_bits");
    expect(matches!(h.vmid_bits, 8 | 16), "vmid_bits");
    expect(h.base.0.is_multiple_of(va::PAGE) && h.base.0 != 0, "base");
    expect(h.blob_offset != 0 && u64::from(h.blob_offset) % va::PAGE == 0, "blob_offset");
    let own = u64::from(h.blob_offset) + u64::from(h.blob_len);
    expect(h.image_len.is_multiple_of(16) && own <= h.image_len, "image_len");
    expect(h.base.0.checked_add(h.image_len).is_some(), "image_len");
    let known = HeaderFlags::VERIFY_AT_BOOT | HeaderFlags::GROUP0 | HeaderFlags::GICV2 | HeaderFlags::TRAP_WFI;
    let injects = work.domains().any(|(_, d)| d.flags & DomainFlags::INJECTED != 0);
    expect(h.flags & !known == 0 && (injects || h.flags & HeaderFlags::TRAP_WFI == 0), "flags");
    // A control character that no line of text needs, or none.
    let escape = h.console_escape;
    expect(escape < 0x20 && ![0x08, 0x09, 0x0A, 0x0D, 0x1B].contains(&escape), "console_escape");
    expect(h.reserved0 == 0 && (h.pci == cofferdam_plan::Table::default() || work.plan.pci.is_some()), "reserved");
    expect((1..=32).contains(&h.gicd_words), "gicd_words");
    expect(h.console_pa == h.console_pa_again, "console_pa_again");
    let console = h.console_kind == UartKind::PL011;
    expect(console || h.console_kind == UartKind::NONE, "console_kind");
    expect(console == (h.console_va != 0) && console == (h.console_pa.0 != 0), "console_va");
    let in_page = |address: u64| address % va::PAGE;
    expect(in_page(h.console_va) == in_page(h.console_pa.0), "console_va");
    expect(console || h.log_va == 0, "log_va");
    // Image and plan are RAM, and the facts say that the hypervisor keeps them.
    let kept = PaRegion { base: h.base, size: own };
    expect(kept.is_valid() && work.is_covered(kept, fact::HYPERVISOR), "base");
}

/// What the facts say must not contradict itself: the hypervisor's memory is RAM, and neither reserved nor registers.
pub(crate) fn facts_are_disjoint(work: &Work<'_, '_>, report: &mut Report<'_>) {
    for own in work.facts(fact::HYPERVISOR) {
        if !work.is_covered(own.region, fact::RAM) {
            report.add(Finding::HypervisorOutsideRam { pa: own.region });
        }
        for other in work.facts(fact::RESERVED).chain(work.facts(fact::FORBIDDEN)).chain(work.facts(fact::DEVICE)) {
            if let Some(pa) = own.region.intersection(&other.region) {
                report.add(Finding::HypervisorOverlaps { pa, what: kind_name(other.kind) });
            }
        }
    }
    for probe in work.plan.probes {
        let word = PaRegion { base: probe.at, size: 8 };
        let forbidden = work.facts(fact::RESERVED).chain(work.facts(fact::FORBIDDEN));
        let hit = forbidden.filter(|f| f.region.overlaps(&word)).count() > 0;
        if probe.at.0 % 8 != 0 || !word.is_valid() || !work.is_covered(word, fact::RAM) || hit {
            report.add(Finding::ProbeOutsideRam { at: probe.at });
        }
    }
    if work.plan.header.base == Pa(0) {
        report.add(Finding::BadHeader { field: "base" });
    }
}

/// A fact's kind in words.
pub(crate) fn kind_name(kind: u32) -> &'static str {
    match kind {
        fact::RAM => "RAM",
        fact::RESERVED => "reserved memory",
        fact::FORBIDDEN => "registers no domain may reach",
        fact::HYPERVISOR => "the hypervisor's memory",
        _ => "a device's registers",
    }
}
