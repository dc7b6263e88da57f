//! MSIs: what the ITS is told, and what EL2 makes of the LPIs that come of it.
//!
//! The baked commands are decoded as the ITS does (IHI 0069, 5.3); they may name nothing but the pairs of a function and an
//! interrupt of its owner. Here too: the memory that SMMU and ITS write, which is theirs alone.

use crate::command::{COMMAND, Command, PAGE_ADDRESS, VALID, baked, commands, queue};
use crate::dma;
use crate::finding::Finding;
use crate::pci::{number_of, owners};
use crate::work::{Report, Work};
use cofferdam_plan::audit::{fact, line};
use cofferdam_plan::limits::{MAX_CPUS, MAX_FUNCTIONS};
use cofferdam_plan::pci::{FIRST_LPI, Function, FunctionFlags, Its};
use cofferdam_plan::{Bdf, CpuIndex, DomainId, IntId, NO_DOMAIN, Pa, PaRegion, PciView, va};

/// LPI configuration byte: enabled, bit 1 as RES1 demands, priority 0x40: behind EL2's own, before every guest's.
const ENABLED: u8 = 0x43;
/// 51:16 of a register.
const FRAME_ADDRESS: u64 = 0x000F_FFFF_FFFF_0000;
/// Valid, Inner Write-Back allocating (61:59), Outer the same (55:53 zero), Inner Shareable (11:10): of the ITS's registers.
const ITS_MEMORY: u64 = VALID | 7 << 59 | 1 << 10;
/// The same in GICR_PROPBASER and GICR_PENDBASER, which have no Valid, and Inner at 9:7.
const GICR_MEMORY: u64 = 1 << 10 | 7 << 7;
/// PTZ of GICR_PENDBASER: the table is zero.
const ZEROED: u64 = 1 << 62;
/// Pieces of the DMA area: stream table, two queues, two tables, state; per function a table, per CPU another.
const PIECES: usize = 6 + MAX_FUNCTIONS + MAX_CPUS;

pub(crate) fn prove(work: &Work<'_, '_>, state: Option<Pa>, marks: &mut [u32], report: &mut Report<'_>) {
    let Some(pci) = work.plan.pci else { return };
    i49_registers_lead_to_the_area(work, &pci, report);
    i49_commands_map_own_interrupts_only(work, &pci, report);
    i40_lpis_are_behind_the_hypervisors(work, &pci, report);
    i70_frames_are_of_one_domain(work, &pci, report);
    i63_area_is_zero_and_nobody_elses(work, &pci, state, report);
    for region in [queue(&pci.record.its), properties(&pci.record.its)] {
        i49_baked_pages_are_of_one_use(work, region, marks, report);
    }
}

/// Bits of interrupt ID that PROPBASER counts with (4:0, less one).
fn id_bits(its: &Its) -> u32 {
    (its.properties & 0x1F) as u32 + 1
}

/// The configuration table: a byte for each LPI (IHI 0069, 5.1.1).
fn properties(its: &Its) -> PaRegion {
    let size = (1u64 << id_bits(its)).saturating_sub(u64::from(FIRST_LPI));
    PaRegion { base: Pa(its.properties & PAGE_ADDRESS), size }
}

/// A table of GITS_BASER (IHI 0069, 12.19.1): pages of 4, 16 or 64 KiB (9:8), less one (7:0).
fn table(base: u64) -> Option<PaRegion> {
    let page = match base >> 8 & 3 {
        0 => 0x1000,
        1 => 0x4000,
        2 => 0x1_0000,
        _ => return None,
    };
    let address = base & 0x0000_FFFF_FFFF_F000;
    // With 64 KiB pages bits 15:12 are address bits 51:48.
    let aligned = address.is_multiple_of(page);
    aligned.then_some(PaRegion { base: Pa(address), size: ((base & 0xFF) + 1) * page })
}

/// A pending table: a bit for each interrupt ID (IHI 0069, 5.1.2).
fn pending(its: &Its, base: u64) -> PaRegion {
    PaRegion { base: Pa(base & FRAME_ADDRESS), size: (1u64 << id_bits(its)) / 8 }
}

/// I49: registers are those of tables in memory of the hypervisor's, large enough for what the plan maps; without an ITS they
/// are zero.
pub(crate) fn i49_registers_lead_to_the_area(work: &Work<'_, '_>, pci: &PciView<'_>, report: &mut Report<'_>) {
    let its = &pci.record.its;
    let mut expect = |holds: bool, what| {
        if !holds {
            report.add(Finding::BadIts { what });
        }
    };
    expect(its.control_va == 0 || work.facts(fact::ITS).count() == 1, "registers");
    if its.control_va == 0 {
        expect(*its == Its::default(), "fields without registers");
        expect(pci.lpis.is_empty() && pci.pending.iter().all(|base| *base == 0), "LPIs without registers");
        return;
    }
    let page = |base: u64| base & PAGE_ADDRESS != 0;
    expect(its.command_base & !(PAGE_ADDRESS | 0xFF) == ITS_MEMORY, "CBASER");
    let end = its.command_end;
    expect(end != 0 && end.is_multiple_of(COMMAND) && end < queue(its).size, "CWRITER");
    // Flat tables; type (58:56) and entry size (52:48) are the hardware's to say.
    for (base, what) in [(its.device_base, "device table"), (its.collection_base, "collection table")] {
        let known = base & !(0x0000_FFFF_FFFF_F000 | 3 << 8 | 0xFF) == ITS_MEMORY;
        expect(known && page(base) && table(base).is_some(), what);
    }
    let known = its.properties & !(PAGE_ADDRESS | 0x1F) == GICR_MEMORY;
    // 14 bits are the fewest with LPIs, 16 what a collection of this many needs at most.
    expect(known && page(its.properties) && (14..=16).contains(&id_bits(its)), "PROPBASER");
    expect((1..=20).contains(&its.device_bits), "bits of DeviceID");
    expect((1..=16).contains(&its.event_bits), "bits of EventID");
    expect((1..=16).contains(&its.entry_size) && its.reserved == 0, "entry size");
    for (i, base) in pci.pending.iter().enumerate() {
        let cpu = work.plan.cpus.get(i).map_or(NO_DOMAIN, |cpu| if cpu.vcpu == 0 { cpu.domain } else { NO_DOMAIN });
        let owner = owners(pci).find(|(id, _)| id.0 == cpu && cpu != NO_DOMAIN);
        let needed = owner.is_some_and(|(_, owner)| owner.spi_count != 0);
        let known = base & !FRAME_ADDRESS == GICR_MEMORY | ZEROED && base & FRAME_ADDRESS != 0;
        if needed != (*base != 0) || needed && !known {
            report.add(Finding::BadCpu {
                cpu: CpuIndex(i as u16),
                why: "has no pending table for the LPIs it takes, or the reverse",
            });
        }
    }
}

/// I49: each command maps a collection to the CPU of a domain with MSIs, a function's DeviceID to a table of its own, or one of
/// its events to the next LPI: the one whose SPI has the event's number and is the owner's. Nothing else is mapped, nothing twice.
pub(crate) fn i49_commands_map_own_interrupts_only(work: &Work<'_, '_>, pci: &PciView<'_>, report: &mut Report<'_>) {
    let its = &pci.record.its;
    if its.control_va == 0 {
        return;
    }
    let mut current: Option<(&Function, u32, u32)> = None;
    let (mut lpis, mut devices) = (0u32, 0usize);
    let mut count = 0;
    for (index, command) in commands(work, its).enumerate() {
        count += 1;
        let mut bad = |why| report.add(Finding::BadCommand { index: index as u32, why });
        match command {
            Command::MapCollection { collection, target } => {
                let earlier = |c| matches!(c, Command::MapCollection { collection: o, .. } if o == collection);
                if commands(work, its).take(index.min(MAX_CPUS)).any(earlier) {
                    bad("maps a collection again");
                }
                if index >= MAX_CPUS || !takes_lpis(pci, collection) || Some(target) != target_of(work, collection) {
                    bad("maps a collection to a CPU that takes no LPIs, or another's");
                }
            }
            Command::MapDevice { device, bits, table } => {
                let own = pci.functions.iter().find(|f| number_of(work, f, fact::DEVICE_ID) == Some(device));
                let Some(f) = own.filter(|f| f.domain != NO_DOMAIN && f.flags & FunctionFlags::MSI != 0) else {
                    bad("maps a device that sends no MSIs");
                    continue;
                };
                let done = matches!(current, Some((last, ..)) if (last.domain, last.devfn) >= (f.domain, f.devfn));
                if done || devices >= MAX_FUNCTIONS {
                    bad("maps a device again or out of order");
                }
                if device.checked_shr(its.device_bits).unwrap_or(0) != 0 || bits > its.event_bits || table == 0 {
                    bad("maps more than the ITS is asked for");
                }
                devices += 1;
                current = Some((f, bits, 0));
            }
            Command::MapEvent { device, event, lpi, collection } => {
                let Some((f, bits, least)) = current else {
                    bad("maps an event of no device");
                    continue;
                };
                if number_of(work, f, fact::DEVICE_ID) != Some(device) || event < least || event >> bits.min(31) != 0 {
                    bad("maps an event of another device, again, or beyond its table");
                }
                if lpi != FIRST_LPI + lpis || pci.lpis.get(lpis as usize) != Some(&event) {
                    bad("maps to an LPI that is another's, or leads to another interrupt");
                }
                if !is_msi_of(work, DomainId(f.domain), IntId(event)) {
                    bad("leads to an interrupt that is not for MSIs of the function's owner");
                }
                if !is_first_cpu_of(work, f.domain, collection) || !takes_lpis(pci, collection) {
                    bad("goes to a CPU that is not the owner's first");
                }
                lpis = lpis.saturating_add(1);
                current = Some((f, bits, event.saturating_add(1)));
            }
            Command::Invalidate { collection } => {
                if !takes_lpis(pci, collection) {
                    bad("names a collection that is not there");
                }
            }
            Command::Sync { target } => {
                let known = |i: usize| takes_lpis(pci, i as u32) && target_of(work, i as u32) == Some(target);
                if !(0..pci.pending.len()).any(known) {
                    bad("names a CPU that takes no LPIs");
                }
            }
            Command::Other => bad("is none the plan may use"),
        }
    }
    let mut expect = |holds: bool, what| {
        if !holds {
            report.add(Finding::BadIts { what });
        }
    };
    expect(count as u64 == its.command_end / COMMAND, "commands, which are not in the plan");
    expect(
        matches!(commands(work, its).last(), Some(Command::Sync { .. })),
        "last command, which waits for the others",
    );
    expect(lpis as usize == pci.lpis.len(), "number of LPIs");
    expect(devices == pci.functions.iter().filter(|f| f.flags & FunctionFlags::MSI != 0).count(), "number of devices");
    let mapped = |collection: u32| {
        let maps = |c| matches!(c, Command::MapCollection { collection: o, .. } if o == collection);
        commands(work, its).take(MAX_CPUS).any(maps)
    };
    for i in (0..pci.pending.len() as u32).filter(|i| takes_lpis(pci, *i)) {
        expect(mapped(i), "collections, of which one is missing");
        let read_again = commands(work, its).any(|c| c == Command::Invalidate { collection: i });
        expect(read_again, "commands, of which none makes the LPIs' configuration known");
    }
}

/// Whether the CPU of that index has a pending table.
fn takes_lpis(pci: &PciView<'_>, cpu: u32) -> bool {
    pci.pending.get(cpu as usize).is_some_and(|base| *base != 0)
}

/// Whether a collection is the CPU of a domain's vCPU 0: collections are numbered as the plan's CPUs.
fn is_first_cpu_of(work: &Work<'_, '_>, domain: u16, collection: u32) -> bool {
    work.plan.cpus.get(collection as usize).is_some_and(|cpu| cpu.domain == domain && cpu.vcpu == 0)
}

/// RDbase of a CPU: its processor number from bit 16 on (GITS_TYPER.PTA = 0), which is the place of its redistributor in the
/// board's row. That it is, the hypervisor asks the redistributor at boot.
fn target_of(work: &Work<'_, '_>, cpu: u32) -> Option<u64> {
    let pa = crate::el2::redistributor(work, cpu as usize)?;
    let row = work.facts(fact::FORBIDDEN).find(|f| f.region.contains(pa))?;
    let place = pa.0.checked_sub(row.region.base.0)?;
    place.is_multiple_of(0x2_0000).then_some((place / 0x2_0000) << 16)
}

fn is_msi_of(work: &Work<'_, '_>, domain: DomainId, intid: IntId) -> bool {
    let own = |l: &cofferdam_plan::audit::Line| l.intid == intid && l.domain == u32::from(domain.0);
    work.lines().any(|l| own(l) && l.kind == line::MSI)
}

/// I40: LPIs that are mapped are enabled, at the priority between EL2's own and every guest's; the others are disabled.
pub(crate) fn i40_lpis_are_behind_the_hypervisors(work: &Work<'_, '_>, pci: &PciView<'_>, report: &mut Report<'_>) {
    let its = &pci.record.its;
    if its.control_va == 0 {
        return;
    }
    let bytes = baked(work, properties(its)).unwrap_or(&[]);
    if bytes.len() < pci.lpis.len() || bytes.is_empty() {
        report.add(Finding::BadIts { what: "PROPBASER" });
    }
    for (i, byte) in bytes.iter().enumerate() {
        let planned = if i < pci.lpis.len() { ENABLED } else { 0 };
        if *byte != planned {
            report.add(Finding::BadLpi { lpi: IntId(FIRST_LPI.saturating_add(i as u32)), is: *byte, planned });
        }
    }
}

/// I32, I70: the interrupts of a domain's frame are its own, for MSIs, edge-triggered, in one row; and it has no others for MSIs.
pub(crate) fn i70_frames_are_of_one_domain(work: &Work<'_, '_>, pci: &PciView<'_>, report: &mut Report<'_>) {
    for (domain, owner) in owners(pci) {
        let own = || work.lines().filter(move |l| l.kind == line::MSI && l.domain == u32::from(domain.0));
        let end = u64::from(owner.first_spi.0) + u64::from(owner.spi_count);
        let inside = |l: &cofferdam_plan::audit::Line| l.intid >= owner.first_spi && u64::from(l.intid.0) < end;
        if own().count() as u64 != u64::from(owner.spi_count) || !own().all(|l| inside(l) && l.edge == 1) {
            report.add(Finding::BadFrame { domain });
        }
        let sends = |f: &&Function| f.flags & FunctionFlags::MSI != 0;
        for f in pci.functions_of(owner).unwrap_or(&[]).iter().filter(sends) {
            if number_of(work, f, fact::DEVICE_ID).is_none() || owner.spi_count == 0 {
                report.add(Finding::BadFunction { function: Bdf(f.rid), why: "sends MSIs that no ITS translates" });
            }
        }
    }
    if work.lines().any(|l| l.kind == line::MSI && usize::try_from(l.domain).is_ok_and(|d| d >= pci.owners.len())) {
        report.add(Finding::BadIts { what: "lines" });
    }
}

/// I63: every piece of memory that SMMU and ITS read or write, and the functions' state, lies in the DMA area, apart from every
/// other; the queues aside it is zero when they are told of it: streams abort, nothing is mapped, nothing pends.
pub(crate) fn i63_area_is_zero_and_nobody_elses(
    work: &Work<'_, '_>,
    pci: &PciView<'_>,
    state: Option<Pa>,
    report: &mut Report<'_>,
) {
    let (smmu, its) = (&pci.record.smmu, &pci.record.its);
    let mut pieces = [(PaRegion::default(), "", false); PIECES];
    let mut slots = pieces.iter_mut();
    let mut put = |region: PaRegion, what, zero| {
        if let Some(slot) = slots.next() {
            *slot = (region, what, zero);
        }
    };
    let pages = pci.functions.len().div_ceil(64) as u64;
    put(PaRegion { base: state.unwrap_or(Pa(0)), size: pages * va::PAGE }, "state of functions", true);
    if smmu.registers_va != 0 {
        put(dma::stream_table(smmu), "stream table", true);
        put(dma::commands(smmu), "SMMU command queue", false);
        put(dma::events(smmu), "SMMU event queue", false);
    }
    if its.control_va != 0 {
        put(table(its.device_base).unwrap_or_default(), "device table", true);
        put(table(its.collection_base).unwrap_or_default(), "collection table", true);
        for base in pci.pending.iter().filter(|base| **base != 0) {
            put(pending(its, *base), "pending table", true);
        }
        let entry = u64::from(its.entry_size.min(16));
        for command in commands(work, its) {
            if let Command::MapDevice { bits, table, .. } = command {
                put(PaRegion { base: Pa(table), size: entry << bits.min(32) }, "interrupt translation table", true);
            }
        }
    }
    let area = work.facts(fact::DMA_AREA).next().map(|f| f.region).unwrap_or_default();
    let pieces = pieces.iter().take_while(|(_, what, _)| !what.is_empty());
    for (i, (region, what, zero)) in pieces.clone().enumerate() {
        let mut bad = |why| report.add(Finding::BadPiece { what, pa: *region, why });
        if region.is_empty() || !region.is_valid() || !area.contains_region(region) {
            bad("is not in the DMA area");
        }
        if *zero && !is_zeroed(work, *region) {
            bad("is not zero when it is used");
        }
        if pieces.clone().skip(i + 1).any(|(other, ..)| other.overlaps(region)) {
            bad("is something else too");
        }
    }
    i63_area_is_apart(work, area, report);
}

/// Whether the boot stub clears all of a range.
fn is_zeroed(work: &Work<'_, '_>, region: PaRegion) -> bool {
    let mut at = region.base;
    while at < region.end() {
        let clears = |m: &&cofferdam_plan::Move| m.len == 0 && m.to <= at && at.0 - m.to.0 < m.zero;
        match work.plan.moves.iter().find(clears) {
            Some(m) => at = Pa(m.to.0.saturating_add(m.zero)),
            None => return false,
        }
    }
    true
}

/// I63: the DMA area is neither image nor plan, nor bytes that are still to be copied.
fn i63_area_is_apart(work: &Work<'_, '_>, area: PaRegion, report: &mut Report<'_>) {
    let h = work.plan.header;
    let own = PaRegion { base: h.base, size: u64::from(h.blob_offset) + u64::from(h.blob_len) };
    let at = |offset: u64, len| PaRegion { base: Pa(h.base.0.saturating_add(offset)), size: len };
    // 0: there is no second copy.
    let again = |p: &cofferdam_plan::audit::Payload| at(p.pristine, if p.pristine == 0 { 0 } else { p.len });
    let copied = work.payloads().flat_map(|p| [at(p.offset, p.len), again(p)]);
    if own.overlaps(&area) || copied.into_iter().any(|r| r.overlaps(&area)) {
        report.add(Finding::BadPiece { what: "DMA area", pa: area, why: "lies over the image" });
    }
}

/// I49: what the ITS and the redistributors read lies in the plan, read-only for everyone, in pages that are nothing else.
fn i49_baked_pages_are_of_one_use(work: &Work<'_, '_>, region: PaRegion, marks: &mut [u32], report: &mut Report<'_>) {
    let tables = crate::stage2::tables(work);
    let pages = region.widened(va::PAGE);
    for i in 0..(pages.size / va::PAGE).min(512) {
        let pa = pages.base.0.saturating_add(i * va::PAGE);
        match tables.page(pa).and_then(|page| marks.get_mut(page)) {
            Some(mark) if *mark == 0 => *mark = BAKED,
            _ => report.add(Finding::BadPiece {
                what: "page of commands or LPIs",
                pa: region,
                why: "is something else too",
            }),
        }
    }
}

/// Marks pages of the tables section that are no translation tables.
const BAKED: u32 = u32::MAX / 2;
