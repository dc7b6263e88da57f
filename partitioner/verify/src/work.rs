//! What every part of the proof shares: the plan, its audit section, sorted views of it, and the way to report.

use crate::finding::Finding;
use cofferdam_plan::audit::{Fact, Grant, Line, Payload, fact, grant, line, payload};
use cofferdam_plan::{Domain, DomainId, IpaRegion, Pa, PaRegion, Plan, va};

/// The audit section's type, which `cofferdam-plan` does not name publicly.
pub(crate) use cofferdam_plan::AuditView;

/// Counts findings on their way to the caller.
pub(crate) struct Report<'a> {
    sink: &'a mut dyn FnMut(Finding),
    pub(crate) count: u32,
}

impl<'a> Report<'a> {
    pub(crate) fn new(sink: &'a mut dyn FnMut(Finding)) -> Self {
        Self { sink, count: 0 }
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        self.count = self.count.saturating_add(1);
        (self.sink)(finding);
    }
}

/// Words of scratch that `verify` needs for this blob; 0 where it is not a plan.
pub fn scratch_words(blob: &[u8]) -> usize {
    let Ok(plan) = Plan::read(blob) else { return 0 };
    let Ok(audit) = plan.audit() else { return 0 };
    let tables = plan.tables().map_or(0, |t| t.len() / va::PAGE as usize);
    2 * audit.grants.len() + audit.lines.len() + audit.payloads.len() + tables
}

/// The plan and sorted views of its audit section.
pub(crate) struct Work<'a, 's> {
    pub(crate) plan: Plan<'a>,
    pub(crate) audit: AuditView<'a>,
    grants_by_pa: &'s [u32],
    grants_by_ipa: &'s [u32],
    lines_by_intid: &'s [u32],
    payloads_by_pa: &'s [u32],
}

impl<'a, 's> Work<'a, 's> {
    /// Sorts into `scratch`; what is left of it, one word per table page, are the walker's marks, cleared.
    pub(crate) fn new(plan: Plan<'a>, audit: AuditView<'a>, scratch: &'s mut [u32]) -> Option<(Self, &'s mut [u32])> {
        let (grants_by_pa, rest) = scratch.split_at_mut_checked(audit.grants.len())?;
        let (grants_by_ipa, rest) = rest.split_at_mut_checked(audit.grants.len())?;
        let (lines_by_intid, rest) = rest.split_at_mut_checked(audit.lines.len())?;
        let (payloads_by_pa, marks) = rest.split_at_mut_checked(audit.payloads.len())?;
        sort(audit.grants, grants_by_pa, |g| (g.pa.base, g.pa.size));
        sort(audit.grants, grants_by_ipa, |g| (g.domain, g.ipa.base, g.ipa.size));
        sort(audit.lines, lines_by_intid, |l| (l.intid, l.domain));
        sort(audit.payloads, payloads_by_pa, |p| (p.pa.base, p.pa.size));
        marks.fill(0);
        Some((Self { plan, audit, grants_by_pa, grants_by_ipa, lines_by_intid, payloads_by_pa }, marks))
    }

    /// All grants, ascending physical address.
    pub(crate) fn grants_by_pa(&self) -> impl Iterator<Item = &'a Grant> {
        pick(self.audit.grants, self.grants_by_pa)
    }

    /// The grants of one domain, ascending IPA.
    pub(crate) fn grants_of(&self, domain: DomainId) -> impl Iterator<Item = &'a Grant> + Clone {
        let of = |i: &u32| self.audit.grants.get(*i as usize).map_or(u32::MAX, |g| g.domain);
        let from = self.grants_by_ipa.partition_point(|i| of(i) < u32::from(domain.0));
        let to = self.grants_by_ipa.partition_point(|i| of(i) <= u32::from(domain.0));
        pick(self.audit.grants, self.grants_by_ipa.get(from..to).unwrap_or(&[]))
    }

    /// All lines, ascending INTID.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &'a Line> + Clone {
        pick(self.audit.lines, self.lines_by_intid)
    }

    /// All payloads, ascending physical address.
    pub(crate) fn payloads(&self) -> impl Iterator<Item = &'a Payload> + Clone {
        pick(self.audit.payloads, self.payloads_by_pa)
    }

    /// The domains with their IDs.
    pub(crate) fn domains(&self) -> impl Iterator<Item = (DomainId, &'a Domain)> + use<'a> {
        self.plan.domains.iter().enumerate().map(|(i, d)| (DomainId(i as u16), d))
    }

    /// Facts of one kind.
    pub(crate) fn facts(&self, kind: u32) -> impl Iterator<Item = &'a Fact> + Clone + use<'a> {
        self.audit.facts.iter().filter(move |f| f.kind == kind)
    }

    /// Whether `region` lies wholly in facts of `kind`, which may lie side by side.
    pub(crate) fn is_covered(&self, region: PaRegion, kind: u32) -> bool {
        let mut at = region.base;
        while at < region.end() {
            match self.facts(kind).filter(|f| f.region.contains(at)).map(|f| f.region.end()).max() {
                Some(end) => at = end,
                None => return false,
            }
        }
        true
    }

    /// Where a range the guest sees lies, where it lies in one piece in its grants of `kind`.
    pub(crate) fn translate(&self, domain: DomainId, ipa: IpaRegion, kind: u32) -> Option<Pa> {
        let mut grants = self.grants_of(domain).filter(|g| g.kind == kind);
        let first = grants.find(|g| g.ipa.contains(ipa.base))?;
        let pa = Pa(first.pa.base.0.wrapping_add(ipa.base.0.wrapping_sub(first.ipa.base.0)));
        let (mut end, mut pa_end) = (first.ipa.end(), first.pa.end());
        while end < ipa.end() {
            let next = grants.next().filter(|g| g.ipa.base == end && g.pa.base == pa_end)?;
            (end, pa_end) = (next.ipa.end(), next.pa.end());
        }
        Some(pa)
    }

    /// Whether a range the guest sees lies wholly in its grants of `kind`, in one piece or several.
    pub(crate) fn is_granted(&self, domain: DomainId, ipa: IpaRegion, kind: u32) -> bool {
        let mut at = ipa.base;
        for grant in self.grants_of(domain).filter(|g| g.kind == kind) {
            if grant.ipa.contains(at) {
                at = grant.ipa.end();
            }
            if at >= ipa.end() {
                return true;
            }
        }
        false
    }

    /// Whether a physical range lies wholly in the RAM of one domain.
    pub(crate) fn is_ram_of(&self, domain: DomainId, pa: PaRegion) -> bool {
        let mut at = pa.base;
        for grant in self.grants_by_pa().filter(|g| g.kind == grant::RAM && g.domain == u32::from(domain.0)) {
            if grant.pa.contains(at) {
                at = grant.pa.end();
            }
            if at >= pa.end() {
                return true;
            }
        }
        false
    }

    /// Physical address of the blob's first byte.
    pub(crate) fn blob_pa(&self) -> u64 {
        self.plan.header.base.0.wrapping_add(u64::from(self.plan.header.blob_offset))
    }
}

fn sort<T, K: Ord>(records: &[T], order: &mut [u32], key: impl Fn(&T) -> K) {
    for (i, slot) in order.iter_mut().enumerate() {
        *slot = i as u32;
    }
    order.sort_unstable_by_key(|i| records.get(*i as usize).map(&key));
}

fn pick<'a, 's, T>(records: &'a [T], order: &'s [u32]) -> impl Iterator<Item = &'a T> + Clone + use<'a, 's, T> {
    order.iter().filter_map(move |i| records.get(*i as usize))
}

/// Ranges that wrap, are empty or unaligned, kinds nobody knows, domains that are not there.
pub(crate) fn records_are_well_formed(plan: &Plan<'_>, audit: &AuditView<'_>, report: &mut Report<'_>) {
    let domains = plan.domains.len() as u32;
    let mut bad = |table, index: usize, why| report.add(Finding::BadRecord { table, index: index as u32, why });
    for (i, f) in audit.facts.iter().enumerate() {
        if !f.region.is_valid() {
            bad("facts", i, "the range wraps");
        }
        if !(fact::RAM..=fact::VIRTUAL_INTERFACE).contains(&f.kind) {
            bad("facts", i, "the kind is unknown");
        }
        let owner = match f.kind {
            fact::DEVICE => f.owner <= domains,
            fact::TRUSTED_DMA => (1..=domains).contains(&f.owner),
            fact::ECAM => f.owner < 256,
            fact::STREAM | fact::DEVICE_ID => true,
            _ => f.owner == 0,
        };
        if !owner {
            bad("facts", i, "the owner is unknown or of something that is no device");
        }
    }
    for (i, g) in audit.grants.iter().enumerate() {
        if !g.ipa.is_valid() || !g.pa.is_valid() || g.pa.is_empty() || g.ipa.size != g.pa.size {
            bad("grants", i, "the ranges wrap, are empty or differ in size");
        }
        if !g.ipa.is_aligned(va::PAGE) || !g.pa.is_aligned(va::PAGE) {
            bad("grants", i, "a range is not 4 KiB aligned");
        }
        if !(grant::RAM..=grant::VIRTUAL_INTERFACE).contains(&g.kind) || g.domain >= domains {
            bad("grants", i, "the kind or the domain is unknown");
        }
    }
    for (i, l) in audit.lines.iter().enumerate() {
        let owner = l.domain < domains || (l.domain == u32::MAX && l.kind == line::HYPERVISOR);
        if !owner || !(line::DEVICE..=line::WATCHDOG).contains(&l.kind) || l.edge > 1 {
            bad("lines", i, "the kind, the trigger or the domain is unknown");
        }
    }
    for (i, p) in audit.payloads.iter().enumerate() {
        if !p.ipa.is_valid() || !p.pa.is_valid() || p.ipa.size != p.pa.size || p.len > p.pa.size {
            bad("payloads", i, "the ranges wrap or contradict each other");
        }
        if p.offset.checked_add(p.len).is_none() {
            bad("payloads", i, "the bytes in the image wrap");
        }
        if p.pristine.checked_add(p.len).is_none() {
            bad("payloads", i, "the pristine bytes wrap");
        }
        if !(payload::KERNEL..=payload::FILE).contains(&p.kind) || p.domain >= domains {
            bad("payloads", i, "the kind or the domain is unknown");
        }
    }
    for (table, moves) in [("moves", plan.moves), ("reloads", plan.reloads)] {
        for (i, m) in moves.iter().enumerate() {
            let tail = m.to.0.checked_add(m.len).and_then(|end| end.checked_add(m.zero));
            if tail.is_none() || m.offset.checked_add(m.len).is_none() {
                bad(table, i, "a range wraps");
            }
            if (m.offset | m.to.0 | m.len | m.zero) % 16 != 0 {
                bad(table, i, "a field is not a multiple of 16");
            }
        }
    }
    for (i, s) in plan.scrubs.iter().enumerate() {
        let region = PaRegion { base: s.base, size: s.size };
        if !region.is_valid() || region.is_empty() || !region.is_aligned(va::PAGE) {
            bad("scrubs", i, "the range wraps, is empty or is not 4 KiB aligned");
        }
    }
}
