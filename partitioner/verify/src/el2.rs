//! The hypervisor's own tables: it reaches its image, the plan, its areas, its devices, the roots it may have to clear, and
//! nothing else.
//!
//! Every mapped byte needs a purpose that the plan names; every purpose must be mapped as it says.

use crate::dma;
use crate::finding::{Finding, Root};
use crate::gicv2;
use crate::regime::{self, Regime};
use crate::stage2::{report_broken, tables};
use crate::walk::{Leaf, Step, Tables, Walk, lookup, root_page};
use crate::work::{Report, Work};
use cofferdam_plan::audit::{fact, grant};
use cofferdam_plan::limits::{MAX_CPUS, MAX_DOMAINS};
use cofferdam_plan::{Pa, PaRegion, va};

/// Access flag, inner shareable, AP[1] (RES1 at EL2): every normal mapping has them (DDI 0487, D8.3, D8.4).
const NORMAL: u64 = va::ATTR_NORMAL << 2 | 1 << 6 | 0b11 << 8 | 1 << 10;
/// The same of Device memory; shareability means nothing there.
const DEVICE: u64 = va::ATTR_DEVICE << 2 | 1 << 6 | 1 << 10;
const SHAREABILITY: u64 = 0b11 << 8;
/// AP[2].
const READ_ONLY: u64 = 1 << 7;
/// XN.
const NO_EXECUTE: u64 = 1 << 54;

/// Why a range of EL2's addresses is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    /// The image at its linked address: any of code, constants, data.
    Image,
    /// The stub's page at its physical address.
    Stub,
    /// The plan: read-only.
    Plan,
    /// Stack and state of a CPU or a domain: data of its own.
    Area,
    /// A domain's stage-2 root: writable, so that it can be cleared.
    Root,
    /// Device registers.
    Device,
    /// What EL2 and the SMMU share, and the state of functions: data in the DMA area.
    Shared,
}

/// Configuration space of functions: pages in the middle of the ECAM.
const CONFIGURATION: &str = "configuration space";

/// A range of EL2's addresses and why it is mapped.
#[derive(Clone, Copy, Debug)]
struct Purpose {
    va: u64,
    size: u64,
    /// Where it must lead; `None` where any memory the hypervisor keeps will do.
    pa: Option<u64>,
    kind: Use,
    what: &'static str,
    /// Every page must be mapped.
    whole: bool,
}

/// Walks the EL2 tables. Returns the number of leaves.
pub(crate) fn prove(work: &Work<'_, '_>, marks: &mut [u32], report: &mut Report<'_>) -> u64 {
    let h = work.plan.header;
    let regime = match regime::el2(h.tcr_el2, h.pa_bits) {
        Ok(regime) => regime,
        Err(why) => {
            report.add(Finding::BadRegime { root: Root::El2, why });
            return 0;
        }
    };
    let tables = tables(work);
    // ASID and CnP must be zero, so the register's value is the address.
    let Some(root) = root_page(&tables, &regime, h.ttbr0_el2) else {
        report.add(Finding::BadRoot { root: Root::El2, pa: Pa(h.ttbr0_el2) });
        return 0;
    };
    let mut leaves = 0;
    let mut walk = Walk { tables, regime, marks, number: u32::MAX, shares: 0 };
    walk.run(root, &mut |step| match step {
        Step::Leaf(leaf) => {
            leaves += 1;
            i24_no_guest_memory(work, &leaf, report);
            i23_every_mapping_has_a_purpose(work, &leaf, report);
        }
        other => report_broken(Root::El2, other, report),
    });
    let el2 = El2 { tables, regime, root };
    i23_purposes_are_disjoint_and_mapped(work, &el2, report);
    i23_areas_have_memory_of_their_own(work, &el2, report);
    i23_areas_are_guarded(work, &el2, report);
    i23_stub_is_not_writable_elsewhere(work, &el2, report);
    i21_el2_devices_are_forbidden_to_domains(work, &el2, report);
    leaves
}

/// How EL2 sees its memory.
struct El2<'a> {
    tables: Tables<'a>,
    regime: Regime,
    root: usize,
}

impl El2<'_> {
    fn leaf(&self, va: u64) -> Option<Leaf> {
        lookup(&self.tables, &self.regime, self.root, va)
    }

    fn pa(&self, va: u64) -> Option<u64> {
        self.leaf(va).map(|leaf| leaf.pa.0 + (va - leaf.at))
    }
}

/// I16, I24: no mapping of EL2 leads to a domain's memory or devices.
fn i24_no_guest_memory(work: &Work<'_, '_>, leaf: &Leaf, report: &mut Report<'_>) {
    let mapped = PaRegion { base: leaf.pa, size: leaf.size };
    // A CPU interface is banked: EL2 uses its own while no guest runs there.
    for g in work.audit.grants.iter().filter(|g| g.kind != grant::CPU_INTERFACE) {
        if let Some(pa) = g.pa.intersection(&mapped) {
            let domain = crate::memory::id(g);
            report.add(Finding::El2MapsGuest { va: leaf.at, pa, domain, device: g.kind == grant::DEVICE });
        }
    }
}

/// I23: every mapped byte serves a purpose and has its attributes: nothing is writable and executable, the plan and the
/// stage-2 tables are read-only but for the revocation windows, devices are never executable.
fn i23_every_mapping_has_a_purpose(work: &Work<'_, '_>, leaf: &Leaf, report: &mut Report<'_>) {
    let (mut at, end) = (leaf.at, leaf.at + leaf.size);
    while at < end {
        let pa = leaf.pa.0 + (at - leaf.at);
        let Some(p) = purposes(work).find(|p| p.size > 0 && p.va <= at && at - p.va < p.size) else {
            // Up to the next purpose, so that one stray block is one finding.
            let next = purposes(work).map(|p| p.va).filter(|va| *va > at).min().unwrap_or(end);
            report.add(Finding::El2Stray { va: at, pa: Pa(pa) });
            at = next.min(end);
            continue;
        };
        let stop = end.min(p.va.saturating_add(p.size));
        let wanted = p.pa.map(|base| base.wrapping_add(at - p.va));
        let chunk = PaRegion { base: Pa(pa), size: stop - at };
        let memory = match p.kind {
            Use::Device => true,
            Use::Shared => work.is_covered(chunk, fact::DMA_AREA),
            _ => work.is_covered(chunk, fact::HYPERVISOR),
        };
        if wanted.is_some_and(|wanted| wanted != pa) || !memory {
            report.add(Finding::El2WrongTarget { va: at, pa: Pa(pa), what: p.what });
        }
        if !attributes_hold(p.kind, leaf.attributes) {
            report.add(Finding::El2WrongAttributes { va: at, entry: leaf.entry, what: p.what });
        }
        at = stop;
    }
}

fn attributes_hold(kind: Use, attributes: u64) -> bool {
    match kind {
        Use::Image => [NORMAL | READ_ONLY, NORMAL | READ_ONLY | NO_EXECUTE, NORMAL | NO_EXECUTE].contains(&attributes),
        Use::Stub => attributes == NORMAL | READ_ONLY,
        Use::Plan => attributes == NORMAL | READ_ONLY | NO_EXECUTE,
        Use::Area | Use::Root | Use::Shared => attributes == NORMAL | NO_EXECUTE,
        Use::Device => attributes & !SHAREABILITY == DEVICE | NO_EXECUTE && attributes & SHAREABILITY != 1 << 8,
    }
}

/// I23: no two purposes share an address, and what the hypervisor will use is mapped.
fn i23_purposes_are_disjoint_and_mapped(work: &Work<'_, '_>, el2: &El2<'_>, report: &mut Report<'_>) {
    for (i, p) in purposes(work).enumerate().filter(|(_, p)| p.size > 0) {
        let Some(end) = p.va.checked_add(p.size) else {
            report.add(Finding::El2Unmapped { va: p.va, what: p.what });
            continue;
        };
        if purposes(work).skip(i + 1).any(|o| o.size > 0 && o.va < end && p.va < o.va.saturating_add(o.size)) {
            report.add(Finding::El2PurposesOverlap { va: p.va, what: p.what });
        }
        let pages = if p.whole { p.size.div_ceil(va::PAGE) } else { 0 };
        if let Some(page) = (0..pages).find(|page| el2.leaf(p.va + page * va::PAGE).is_none()) {
            report.add(Finding::El2Unmapped { va: p.va + page * va::PAGE, what: p.what });
        }
    }
}

/// I23: areas lie behind image and plan, each in memory no other area has.
fn i23_areas_have_memory_of_their_own(work: &Work<'_, '_>, el2: &El2<'_>, report: &mut Report<'_>) {
    const PAGES: usize =
        (MAX_CPUS + 1) * (va::CPU_AREA / va::PAGE) as usize + MAX_DOMAINS * (va::DOMAIN_AREA / va::PAGE) as usize;
    let h = work.plan.header;
    let own = PaRegion { base: h.base, size: u64::from(h.blob_offset) + u64::from(h.blob_len) };
    let mut seen = [(0, 0); PAGES];
    let mut count = 0;
    for p in purposes(work).filter(|p| p.kind == Use::Area && p.size > 0) {
        for page in 0..p.size / va::PAGE {
            let va = p.va.wrapping_add(page * va::PAGE);
            let (Some(pa), Some(slot)) = (el2.pa(va), seen.get_mut(count)) else { continue };
            *slot = (pa, va);
            count += 1;
            if own.contains(Pa(pa)) || work.facts(fact::DMA_AREA).any(|f| f.region.contains(Pa(pa))) {
                report.add(Finding::El2WrongTarget { va, pa: Pa(pa), what: p.what });
            }
        }
    }
    let seen = seen.get_mut(..count).unwrap_or(&mut []);
    seen.sort_unstable();
    for pair in seen.windows(2) {
        if let [(a, va), (b, _)] = pair
            && a == b
        {
            report.add(Finding::El2AreaShared { va: *va, pa: Pa(*a) });
        }
    }
}

/// I23: the page below each area is unmapped: a stack that overflows faults.
fn i23_areas_are_guarded(work: &Work<'_, '_>, el2: &El2<'_>, report: &mut Report<'_>) {
    for p in purposes(work).filter(|p| p.kind == Use::Area && p.size > 0) {
        let guard = p.va.wrapping_sub(va::GUARD);
        if p.va % va::PAGE != 0 || el2.leaf(guard).is_some() {
            report.add(Finding::El2NoGuard { va: p.va, what: p.what });
        }
    }
}

/// I23: what is executable at the stub's own address is not writable at the linked one.
fn i23_stub_is_not_writable_elsewhere(work: &Work<'_, '_>, el2: &El2<'_>, report: &mut Report<'_>) {
    let stub = work.plan.header.base.0;
    let alias = el2.leaf(va::HYP_VA);
    if el2.leaf(stub).is_some() && alias.is_some_and(|leaf| leaf.attributes & READ_ONLY == 0) {
        report.add(Finding::El2WrongAttributes {
            va: va::HYP_VA,
            entry: alias.map_or(0, |l| l.entry),
            what: "boot stub",
        });
    }
}

/// I21: the registers EL2 uses are on the list of what no domain may reach, in one piece, and no two are the same.
fn i21_el2_devices_are_forbidden_to_domains(work: &Work<'_, '_>, el2: &El2<'_>, report: &mut Report<'_>) {
    for (i, p) in purposes(work).enumerate().filter(|(_, p)| p.kind == Use::Device && p.size > 0) {
        let Some(pa) = el2.pa(p.va) else { continue };
        let registers = PaRegion { base: Pa(pa), size: p.size };
        if !registers.is_valid() || !work.is_covered(registers, fact::FORBIDDEN) {
            report.add(Finding::El2DeviceGrantable { pa: registers, what: p.what });
        }
        // Pages that are not mapped at all are another finding.
        let in_one_piece = (0..p.size / va::PAGE).map(|page| page * va::PAGE).all(|offset| {
            p.va.checked_add(offset).and_then(|va| el2.pa(va)).is_none_or(|at| at == pa.wrapping_add(offset))
        });
        // A single page starts a device; redistributors lie side by side from the start of their region. The CPU interface's
        // second page is where it has to be by the first.
        let starts = p.what == CONFIGURATION
            || work.facts(fact::FORBIDDEN).any(|f| {
                let offset = pa.wrapping_sub(f.region.base.0 & !(va::PAGE - 1));
                offset == 0 || (p.size > va::PAGE && f.region.contains(Pa(pa)) && offset % p.size == 0)
            });
        let second = gicv2::second_page(work).is_some_and(|page| page == pa && p.pa == Some(page));
        if !in_one_piece || !starts && !second {
            report.add(Finding::El2WrongTarget { va: p.va, pa: Pa(pa), what: p.what });
        }
        let again = purposes(work)
            .skip(i + 1)
            .filter(|o| o.kind == Use::Device && o.size > 0)
            .any(|o| el2.pa(o.va).is_some_and(|other| registers.overlaps(&PaRegion { base: Pa(other), size: o.size })));
        if again {
            report.add(Finding::El2DeviceTwice { pa: registers, what: p.what });
        }
    }
}

/// Where a range of EL2's addresses leads, where it does so in one piece.
fn place(work: &Work<'_, '_>, va: u64, size: u64) -> Option<Pa> {
    let h = work.plan.header;
    let regime = regime::el2(h.tcr_el2, h.pa_bits).ok()?;
    let tables = tables(work);
    let el2 = El2 { tables, regime, root: root_page(&tables, &regime, h.ttbr0_el2)? };
    let first = el2.pa(va)?;
    let follows =
        |page: u64| va.checked_add(page * va::PAGE).and_then(|va| el2.pa(va)) == first.checked_add(page * va::PAGE);
    (0..size.div_ceil(va::PAGE)).all(follows).then_some(Pa(first))
}

/// The redistributor of a CPU.
pub(crate) fn redistributor(work: &Work<'_, '_>, cpu: usize) -> Option<Pa> {
    place(work, work.plan.cpus.get(cpu)?.gicr_va, va::PAGE)
}

/// The run-time state of functions.
pub(crate) fn state_of_functions(work: &Work<'_, '_>) -> Option<Pa> {
    let pci = work.plan.pci?;
    place(work, pci.record.state_va, pci.functions.len().div_ceil(64) as u64 * va::PAGE)
}

/// What PCI functions, their SMMU and their ITS are to EL2.
fn of_pci<'a>(work: &Work<'a, '_>) -> impl Iterator<Item = Purpose> + use<'a> {
    let base = |kind| work.facts(kind).next().map(|f| f.region.base.0);
    let (smmu, its, ecam) = (base(fact::SMMU), base(fact::ITS), work.facts(fact::ECAM).next());
    let p = |va, size, pa, kind, what| Purpose { va, size, pa, kind, what, whole: true };
    let used = |va: u64, size: u64| if va == 0 { 0 } else { size };
    work.plan.pci.into_iter().flat_map(move |pci| {
        let r = pci.record;
        let shared = |va: u64, region: PaRegion, what| {
            p(va, used(r.smmu.registers_va, region.size), Some(region.base.0), Use::Shared, what)
        };
        let fixed = [
            p(r.smmu.registers_va, used(r.smmu.registers_va, 0x2_0000), smmu, Use::Device, "SMMU"),
            p(r.its.control_va, used(r.its.control_va, 0x1_0000), its, Use::Device, "ITS"),
            shared(r.smmu.stream_table_va, dma::stream_table(&r.smmu), "stream table"),
            shared(r.smmu.commands_va, dma::commands(&r.smmu), "SMMU command queue"),
            shared(r.smmu.events_va, dma::events(&r.smmu), "SMMU event queue"),
            p(r.state_va, pci.functions.len().div_ceil(64) as u64 * va::PAGE, None, Use::Shared, "state of functions"),
        ];
        let functions = pci.functions.iter().map(move |f| {
            // A function outside the ECAM is another finding; nothing is mapped at the last page of all.
            let pa = ecam.and_then(|ecam| crate::pci::config_page_in(ecam, f.rid)).map_or(!(va::PAGE - 1), |pa| pa.0);
            p(f.config_va, va::PAGE, Some(pa), Use::Device, CONFIGURATION)
        });
        fixed.into_iter().chain(functions)
    })
}

/// Everything the plan gives EL2 an address for.
fn purposes<'a>(work: &Work<'a, '_>) -> impl Iterator<Item = Purpose> + use<'a> {
    let plan = work.plan;
    let h = plan.header;
    let (base, blob) = (h.base.0, work.blob_pa());
    let p = |va, size, pa, kind, what, whole| Purpose { va, size, pa, kind, what, whole };
    // A UART may start inside its page.
    let page = |address: u64| address & !(va::PAGE - 1);
    let used = |va: u64, size: u64| if va == 0 { 0 } else { size };
    let device = move |va: u64, size: u64, pa, what| p(va, used(va, size), pa, Use::Device, what, true);
    let v2 = gicv2::is_v2(work);
    let gich = if h.gicc_va == 0 { 0 } else { h.gicc_va.wrapping_add(va::PAGE) };
    let gicc = work.facts(fact::CPU_INTERFACE).next().map(|f| f.region.base.0);
    let dir = if gicv2::injects(work) { h.gicc_va.wrapping_add(2 * va::PAGE) } else { 0 };
    let offset = u64::from(h.blob_offset);
    let len = u64::from(h.blob_len).next_multiple_of(va::PAGE);
    let records = u64::from(h.records_len).next_multiple_of(va::PAGE);
    let rest = len.saturating_sub(records);
    // The stack top of the spare area is its end.
    let spare = h.spare_area_va.saturating_sub(va::CPU_AREA);
    let fixed = [
        p(va::HYP_VA, offset, Some(base), Use::Image, "image", false),
        p(base, va::PAGE, Some(base), Use::Stub, "boot stub", true),
        p(va::HYP_VA + offset, records, Some(blob), Use::Plan, "plan records", true),
        p(va::HYP_VA + offset + records, rest, Some(blob.wrapping_add(records)), Use::Plan, "plan", false),
        p(spare, used(h.spare_area_va, va::CPU_AREA), None, Use::Area, "spare CPU area", true),
        device(h.gicd_va, if v2 { va::PAGE } else { 0x1_0000 }, Some(h.gicd_ipa.0), "distributor"),
        device(h.gicc_va, va::PAGE, gicc, "CPU interface"),
        device(gich, va::PAGE, None, "virtual interface control"),
        device(dir, va::PAGE, gicv2::second_page(work), "second page of the CPU interface"),
        device(page(h.console_va), va::PAGE, Some(page(h.console_pa.0)), "console UART"),
        device(page(h.log_va), va::PAGE, None, "log UART"),
    ];
    let cpus = plan.cpus.iter().flat_map(move |cpu| {
        [
            p(cpu.area_va, va::CPU_AREA, None, Use::Area, "CPU area", true),
            p(cpu.gicr_va, if v2 { 0 } else { 0x2_0000 }, None, Use::Device, "redistributor", true),
        ]
    });
    let domains = plan.domains.iter().flat_map(move |d| {
        let root = d.vttbr & 0x0000_FFFF_FFFF_F000;
        let len = (u64::from(d.root_entries) * 8).next_multiple_of(va::PAGE);
        [
            p(d.area_va, va::DOMAIN_AREA, None, Use::Area, "domain area", true),
            p(d.root_va, len, Some(root), Use::Root, "revocation window", true),
        ]
    });
    fixed.into_iter().chain(cpus).chain(domains).chain(of_pci(work))
}
