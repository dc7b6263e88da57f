//! The stage-2 tables of every domain against its grants, byte for byte, both ways.
//!
//! `memory` has shown that grants are disjoint and sound; here the tables are shown to say nothing else.

use crate::dma::DOORBELL;
use crate::finding::{Finding, Root};
use crate::regime;
use crate::walk::{Leaf, Step, Tables, Walk, root_page};
use crate::work::{Report, Work};
use cofferdam_plan::audit::{Grant, grant};
use cofferdam_plan::{Domain, DomainId, Ipa, IpaRegion, Pa, va};

/// Attributes of RAM: MemAttr Normal Write-Back, S2AP read-write, Inner Shareable, AF, executable (DDI 0487, D8.6).
const RAM: u64 = 0b1111 << 2 | 0b11 << 6 | 0b11 << 8 | 1 << 10;
/// Attributes of registers: MemAttr Device-nGnRE, S2AP read-write, AF, XN. Shareability means nothing there.
const DEVICE: u64 = 0b0001 << 2 | 0b11 << 6 | 1 << 10 | 0b10 << 53;
/// SH, ignored for Device memory.
const SHAREABILITY: u64 = 0b11 << 8;

/// Walks every domain. Returns the number of leaves.
pub(crate) fn prove(work: &Work<'_, '_>, marks: &mut [u32], report: &mut Report<'_>) -> u64 {
    i22_vmids_are_unique(work, report);
    work.domains().map(|(id, d)| i18_i19_i20_tables_equal_grants(work, id, d, marks, report)).sum()
}

/// I22: VMIDs are not zero, fit the planned width and are unique.
pub(crate) fn i22_vmids_are_unique(work: &Work<'_, '_>, report: &mut Report<'_>) {
    for (id, domain) in work.domains() {
        let vmid = (domain.vttbr >> 48) as u16;
        if vmid == 0 || (work.plan.header.vmid_bits == 8 && vmid > 0xFF) {
            report.add(Finding::BadVmid { domain: id, vmid });
        }
        for (other, _) in work.domains().skip(usize::from(id.0) + 1).filter(|(_, d)| (d.vttbr >> 48) as u16 == vmid) {
            report.add(Finding::VmidShared { vmid, first: id, second: other });
        }
    }
}

/// I18, I19, I20: walked from VTTBR_EL2 under VTCR_EL2, the domain's tables map exactly its grants: never a byte more,
/// never elsewhere, with the attributes of the grant's kind; and every granted byte is mapped. I22: CnP = 0.
/// I28: the entries revocation clears are all of the root's.
pub(crate) fn i18_i19_i20_tables_equal_grants(
    work: &Work<'_, '_>,
    domain: DomainId,
    d: &Domain,
    marks: &mut [u32],
    report: &mut Report<'_>,
) -> u64 {
    let header = work.plan.header;
    let regime = match regime::stage2(d.vtcr, header.pa_bits, header.vmid_bits) {
        Ok(regime) => regime,
        Err(why) => {
            report.add(Finding::BadRegime { root: Root::Domain(domain), why });
            return 0;
        }
    };
    let tables = tables(work);
    let pa = d.vttbr & 0x0000_FFFF_FFFF_FFFF;
    let Some(root) = root_page(&tables, &regime, pa) else {
        report.add(Finding::BadRoot { root: Root::Domain(domain), pa: Pa(pa) });
        return 0;
    };
    i28_revocation_clears_the_whole_root(&tables, root, regime.roots, domain, d, report);

    let mut expected = Expected { grants: work.grants_of(domain), current: None, root: Root::Domain(domain) };
    let mut leaves = 0;
    let mut walk = Walk { tables, regime, marks, number: u32::from(domain.0) + 1, shares: 0 };
    walk.run(root, &mut |step| match step {
        Step::Leaf(leaf) => {
            leaves += 1;
            expected.meets(&leaf, report);
        }
        other => report_broken(Root::Domain(domain), other, report),
    });
    expected.ends(report);
    leaves
}

/// I28: all valid entries of the root lie within what revocation clears.
pub(crate) fn i28_revocation_clears_the_whole_root(
    tables: &Tables<'_>,
    root: usize,
    roots: u32,
    domain: DomainId,
    d: &Domain,
    report: &mut Report<'_>,
) {
    let all = u64::from(roots) * 512;
    let rest = u64::from(d.root_entries)..all;
    let stays = rest.clone().any(|slot| tables.entry(root + (slot / 512) as usize, slot % 512) != 0);
    if u64::from(d.root_entries) > all || stays {
        report.add(Finding::RootEntries { domain, entries: d.root_entries });
    }
}

/// Every table page belongs to a walk: what no root reaches has no business in the plan.
pub(crate) fn every_table_is_used(work: &Work<'_, '_>, marks: &[u32], report: &mut Report<'_>) {
    let from = tables(work).pa;
    for (page, _) in marks.iter().enumerate().filter(|(_, mark)| **mark == 0) {
        report.add(Finding::TableUnused { pa: Pa(from.saturating_add(page as u64 * va::PAGE)) });
    }
}

/// The plan's tables.
pub(crate) fn tables<'a>(work: &Work<'a, '_>) -> Tables<'a> {
    let bytes = work.plan.tables().unwrap_or(&[]);
    Tables { bytes, pa: work.blob_pa().wrapping_add(u64::from(work.plan.header.tables.offset)) }
}

/// Turns what a walk refused into a finding.
pub(crate) fn report_broken(root: Root, step: Step, report: &mut Report<'_>) {
    match step {
        Step::Broken { at, level, entry, why } => report.add(Finding::BadDescriptor { root, at, level, entry, why }),
        Step::Shared { at, pa } => report.add(Finding::TableShared { root, at, pa }),
        Step::Leaf(_) => {}
    }
}

/// The grants of one domain, consumed in step with its leaves; both ascend by IPA.
pub(crate) struct Expected<'a, I: Iterator<Item = &'a Grant>> {
    pub(crate) grants: I,
    /// The grant not yet mapped wholly, and how far it is.
    pub(crate) current: Option<(&'a Grant, u64)>,
    pub(crate) root: Root,
}

impl<'a, I: Iterator<Item = &'a Grant>> Expected<'a, I> {
    fn current(&mut self) -> Option<(&'a Grant, u64)> {
        if self.current.is_none() {
            self.current = self.grants.next().map(|g| (g, 0));
        }
        self.current
    }

    pub(crate) fn meets(&mut self, leaf: &Leaf, report: &mut Report<'_>) {
        let root = self.root;
        let (mut at, end) = (leaf.at, leaf.at + leaf.size);
        while at < end {
            let pa = Pa(leaf.pa.0 + (at - leaf.at));
            let Some((g, done)) = self.current() else {
                return report.add(Finding::LeafNotGranted { root, ipa: range(at, end), pa });
            };
            let from = g.ipa.base.0.saturating_add(done);
            if at < from {
                let stop = end.min(from);
                report.add(Finding::LeafNotGranted { root, ipa: range(at, stop), pa });
                at = stop;
                continue;
            }
            if at > from {
                let stop = at.min(g.ipa.end().0);
                report.add(Finding::GrantNotMapped { root, ipa: range(from, stop) });
                self.advance(g, stop - g.ipa.base.0);
                continue;
            }
            let granted = Pa(g.pa.base.0.saturating_add(done));
            let stop = end.min(g.ipa.end().0);
            if pa != granted {
                report.add(Finding::LeafWrongTarget { root, ipa: Ipa(at), is: pa, granted });
            }
            let as_granted = match g.kind {
                grant::RAM => leaf.attributes == RAM,
                // A function may write it; whether it may read it too says nothing about anything (S2AP = 0b10, 0b11).
                DOORBELL => (leaf.attributes | 1 << 6) & !SHAREABILITY == DEVICE,
                _ => leaf.attributes & !SHAREABILITY == DEVICE && leaf.attributes & SHAREABILITY != 1 << 8,
            };
            if !as_granted {
                report.add(Finding::LeafWrongAttributes { root, ipa: Ipa(at), entry: leaf.entry });
            }
            self.advance(g, stop - g.ipa.base.0);
            at = stop;
        }
    }

    fn advance(&mut self, g: &'a Grant, done: u64) {
        self.current = (done < g.ipa.size).then_some((g, done));
    }

    pub(crate) fn ends(mut self, report: &mut Report<'_>) {
        while let Some((g, done)) = self.current() {
            let from = g.ipa.base.0.saturating_add(done);
            report.add(Finding::GrantNotMapped { root: self.root, ipa: range(from, g.ipa.end().0) });
            self.current = None;
        }
    }
}

const fn range(from: u64, to: u64) -> IpaRegion {
    IpaRegion { base: Ipa(from), size: to.saturating_sub(from) }
}
