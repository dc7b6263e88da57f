//! What of the image ends where: payloads, the stub's copies, scrubbed ranges.
//!
//! The stub runs before any isolation is up, so what it writes must be proven here.

use crate::finding::Finding;
use crate::work::{Report, Work};
use cofferdam_plan::audit::{Payload, fact, grant, payload};
use cofferdam_plan::{Domain, DomainFlags, DomainId, Move, Pa, PaRegion, va};

pub(crate) fn prove(work: &Work<'_, '_>, report: &mut Report<'_>) {
    for (i, p) in work.audit.payloads.iter().enumerate() {
        i18_payload_lies_in_its_domain(work, p, report);
        i80_image_bytes_are_not_in_a_foreign_domain(work, p, report);
        payload_arrives(work, i as u32, p, report);
    }
    payloads_are_disjoint(work, report);
    for (i, m) in work.plan.moves.iter().enumerate() {
        i18_move_brings_a_payload_home(work, i as u32, m, report);
    }
    for (id, domain) in work.domains() {
        i26_scrub_clears_own_memory_only(work, id, domain, report);
        i26_scrub_at_boot_leaves_nothing(work, id, domain, report);
    }
    scrubs_belong_to_one_domain(work, report);
}

fn owner(p: &Payload) -> DomainId {
    DomainId(p.domain as u16)
}

/// The bytes of a payload where the image is found.
fn source(work: &Work<'_, '_>, p: &Payload) -> PaRegion {
    PaRegion { base: Pa(work.plan.header.base.0.saturating_add(p.offset)), size: p.len }
}

/// I18: what the guest sees of a payload is its own RAM, at the address the plan says.
pub(crate) fn i18_payload_lies_in_its_domain(work: &Work<'_, '_>, p: &Payload, report: &mut Report<'_>) {
    let domain = owner(p);
    if work.translate(domain, p.ipa, grant::RAM) != Some(p.pa.base) {
        report.add(Finding::PayloadNotInRam { domain, pa: p.pa });
    }
    let h = work.plan.header;
    if p.offset + p.len > h.image_len {
        report.add(Finding::PayloadOutsideImage { domain, offset: p.offset });
    }
    // Device trees travel in the plan (`dtb` looks where); nothing else of a guest lies in the hypervisor's part.
    let own = u64::from(h.blob_offset) + u64::from(h.blob_len);
    if p.kind != payload::DTB && p.len > 0 && p.offset < own {
        report.add(Finding::PayloadInHypervisor { domain, offset: p.offset });
    }
}

/// I80: the image's copy of a payload is not mapped by another domain.
pub(crate) fn i80_image_bytes_are_not_in_a_foreign_domain(work: &Work<'_, '_>, p: &Payload, report: &mut Report<'_>) {
    let bytes = source(work, p);
    for g in work.audit.grants.iter().filter(|g| g.domain != p.domain) {
        if let Some(pa) = g.pa.intersection(&bytes) {
            report.add(Finding::PayloadExposed { domain: owner(p), to: DomainId(g.domain as u16), pa });
        }
    }
}

/// A payload lies in the image where it is needed, or a move brings it there.
pub(crate) fn payload_arrives(work: &Work<'_, '_>, index: u32, p: &Payload, report: &mut Report<'_>) {
    let in_place = source(work, p).base == p.pa.base;
    let brought = |m: &Move| {
        m.to.0.wrapping_sub(m.offset) == p.pa.base.0.wrapping_sub(p.offset)
            && m.offset <= p.offset
            && m.offset + m.len >= p.offset + p.len
    };
    if p.len > 0 && !in_place && !work.plan.moves.iter().any(brought) {
        report.add(Finding::PayloadNeverArrives { index, domain: owner(p) });
    }
}

/// No payload lies over another, not even of its own domain.
pub(crate) fn payloads_are_disjoint(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let mut furthest: Option<&Payload> = None;
    for p in work.payloads() {
        if let Some(earlier) = furthest
            && let Some(pa) = earlier.pa.intersection(&p.pa)
        {
            report.add(Finding::PayloadsOverlap { pa, first: owner(earlier), second: owner(p) });
        }
        if furthest.is_none_or(|f| f.pa.end() < p.pa.end()) {
            furthest = Some(p);
        }
    }
}

/// I18: the stub copies payload bytes only, into the RAM of the domain they belong to, over nothing else that matters.
pub(crate) fn i18_move_brings_a_payload_home(work: &Work<'_, '_>, index: u32, m: &Move, report: &mut Report<'_>) {
    let h = work.plan.header;
    let to = PaRegion { base: m.to, size: m.len + m.zero };
    if m.offset + m.len > h.image_len {
        report.add(Finding::MoveOutsideImage { index });
    }
    // Zeroes for what SMMU and ITS find in their memory; that it is apart from everything else, `msi` shows.
    if m.len == 0 && work.facts(fact::DMA_AREA).any(|f| f.region.contains_region(&to)) {
        return;
    }
    if work.facts(fact::HYPERVISOR).any(|f| f.region.overlaps(&to)) {
        report.add(Finding::MoveOverHypervisor { index, to });
    }
    // The payload it starts to bring or to extend with zeroes decides whose move it is.
    let homed = |p: &&Payload| m.to.0.wrapping_sub(m.offset) == p.pa.base.0.wrapping_sub(p.offset) && m.len > 0;
    let zeroes = |p: &&Payload| m.len == 0 && p.pa.contains_region(&to);
    let Some(first) = work.payloads().filter(|p| p.pa.overlaps(&to)).find(|p| homed(p) || zeroes(p)) else {
        return report.add(Finding::MoveWithoutPayload { index });
    };
    let domain = owner(first);
    if !work.is_ram_of(domain, to) {
        report.add(Finding::MoveOutsideDomain { index, domain, to });
    }
    let copied = PaRegion { base: m.to, size: m.len };
    for p in work.payloads() {
        // Bytes of a payload may be written by the move that brings them; its zero tail by zeroes.
        let bytes = PaRegion { base: p.pa.base, size: p.len };
        let brought = homed(&p) && owner(p) == domain && copied.contains_region(&bytes);
        let tail = !bytes.overlaps(&to) && owner(p) == domain;
        if p.pa.overlaps(&to) && !brought && !tail {
            report.add(Finding::MoveOverPayload { index, pa: p.pa });
        }
        // The image's bytes of other payloads must still be there when it is their turn.
        if source(work, p).overlaps(&to) && !(homed(&p) && m.to.0 == h.base.0.wrapping_add(m.offset)) {
            report.add(Finding::MoveOverPayload { index, pa: source(work, p) });
        }
    }
    // Nothing but payload is copied, up to the padding of a move to 16 bytes.
    let mut at = m.offset;
    let end = m.offset + m.len;
    while at < end {
        let next = work.payloads().filter(|p| owner(p) == domain && p.offset <= at);
        match next.map(|p| (p.offset + p.len).saturating_add(15) & !15).max() {
            Some(stop) if stop > at => at = stop,
            _ => return report.add(Finding::MoveCopiesMore { index, offset: at }),
        }
    }
}

/// I26: a domain's scrub ranges are its own RAM and hold nothing of the image.
pub(crate) fn i26_scrub_clears_own_memory_only(work: &Work<'_, '_>, id: DomainId, d: &Domain, report: &mut Report<'_>) {
    for scrub in work.plan.scrubs_of(d).unwrap_or(&[]) {
        let pa = PaRegion { base: scrub.base, size: scrub.size };
        if !work.is_ram_of(id, pa) {
            report.add(Finding::ScrubOutsideDomain { domain: id, pa });
        }
        if work.payloads().any(|p| p.pa.overlaps(&pa)) {
            report.add(Finding::ScrubOverPayload { domain: id, pa });
        }
    }
}

/// I26: with `scrub = "boot"` every page of the domain's RAM is cleared, a payload, or part of the image.
pub(crate) fn i26_scrub_at_boot_leaves_nothing(work: &Work<'_, '_>, id: DomainId, d: &Domain, report: &mut Report<'_>) {
    if d.flags & DomainFlags::SCRUB_AT_BOOT == 0 {
        return;
    }
    let h = work.plan.header;
    let image = PaRegion { base: h.base, size: h.image_len };
    let scrubs = work.plan.scrubs_of(d).unwrap_or(&[]);
    for g in work.grants_of(id).filter(|g| g.kind == grant::RAM) {
        let mut at = g.pa.base;
        while at < g.pa.end() {
            let scrubbed = scrubs.iter().map(|s| PaRegion { base: s.base, size: s.size });
            let loaded = work.payloads().filter(|p| owner(p) == id).map(|p| p.pa.widened(va::PAGE));
            let known = scrubbed.chain(loaded).chain([image]).filter(|r| r.contains(at));
            match known.map(|r| r.end()).max() {
                Some(end) => at = end,
                None => {
                    report.add(Finding::NotScrubbed { domain: id, at });
                    break;
                }
            }
        }
    }
}

/// No scrub record stands in two domains' lists, or in none.
pub(crate) fn scrubs_belong_to_one_domain(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let listed: u64 = work.plan.domains.iter().map(|d| u64::from(d.scrub_count)).sum();
    if listed != work.plan.scrubs.len() as u64 {
        report.add(Finding::ScrubLists { listed, records: work.plan.scrubs.len() as u64 });
    }
}
