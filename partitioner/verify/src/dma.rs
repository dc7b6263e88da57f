//! DMA: what functions reach through the SMMU is the RAM of their owner, and the doorbell of their MSIs.
//!
//! Formats are those of the SMMU's manual (IHI 0070): stream table entries 5.2, registers 6.3.

use crate::finding::{Finding, Root};
use crate::pci::{number_of, owners};
use crate::regime;
use crate::stage2::{Expected, report_broken, tables};
use crate::walk::{Step, Walk, root_page};
use crate::work::{Report, Work};
use cofferdam_plan::audit::{Grant, Name, fact, grant, line};
use cofferdam_plan::pci::{Function, FunctionFlags, PciDomain, Smmu};
use cofferdam_plan::{
    Bdf, Domain, DomainId, HeaderFlags, IntId, Ipa, IpaRegion, NO_DOMAIN, NO_INTID, Pa, PaRegion, PciView, va,
};

/// Bytes of a stream table entry (IHI 0070, 5.2).
pub(crate) const STE: u64 = 64;
/// ADDR of the base registers, bits 51:6 and 51:5; all else but RA/WA (62) and LOG2SIZE is reserved (6.3.23, 6.3.25).
const ADDRESS: u64 = 0x000F_FFFF_FFFF_FFC0;
/// RA of STRTAB_BASE and CMDQ_BASE, WA of EVENTQ_BASE: allocation hints.
const HINT: u64 = 1 << 62;

/// Walks the DMA roots. Returns the number of leaves.
pub(crate) fn prove(work: &Work<'_, '_>, marks: &mut [u32], report: &mut Report<'_>) -> u64 {
    let Some(pci) = work.plan.pci else { return 0 };
    i63_smmu_starts_closed(work, &pci, report);
    i68_streams_are_unique(work, &pci, report);
    let mut leaves = 0;
    for ((domain, owner), (_, d)) in owners(&pci).zip(work.domains()) {
        let functions = pci.functions_of(owner).unwrap_or(&[]);
        for f in functions {
            i66_stage2_is_all_there_is(work, &pci.record.smmu, d, f, report);
            i29_bus_masters_are_held(work, domain, f, report);
        }
        let mut valid = functions.iter().filter(|f| has_stream(f));
        let Some(first) = valid.next() else { continue };
        if let Some(other) = valid.find(|f| f.ste != first.ste) {
            report.add(Finding::BadStream {
                function: Bdf(other.rid),
                why: "has another entry than its domain's others",
            });
        }
        let sends = functions.iter().any(|f| f.flags & FunctionFlags::MSI != 0);
        leaves += i64_dma_root_is_ram_and_doorbell(work, domain, d, owner, sends, first, marks, report);
    }
    leaves
}

/// Whether a function's stream gets an entry while its domain runs.
fn has_stream(f: &Function) -> bool {
    f.ste.first().is_some_and(|word| word & 1 != 0)
}

/// Bytes of the stream table as the hypervisor sees it: 64 for each stream.
pub(crate) fn stream_table(smmu: &Smmu) -> PaRegion {
    let entries = 1u64.checked_shl(smmu.stream_bits).unwrap_or(0);
    PaRegion { base: Pa(smmu.stream_table_base & ADDRESS), size: entries.saturating_mul(STE) }
}

/// A queue's bytes: entries of `entry` bytes, as many as LOG2SIZE (4:0) says.
fn queue(base: u64, entry: u64) -> PaRegion {
    PaRegion { base: Pa(base & (ADDRESS | 0x20)), size: entry << (base & 0x1F) }
}

/// The command queue: entries of 16 bytes (IHI 0070, 3.5.1).
pub(crate) fn commands(smmu: &Smmu) -> PaRegion {
    queue(smmu.command_base, 16)
}

/// The event queue: entries of 32 bytes.
pub(crate) fn events(smmu: &Smmu) -> PaRegion {
    queue(smmu.event_base, 32)
}

/// I63: SMMU registers say what they may; table and queues are whole pages; its interrupts are the hypervisor's. That its
/// memory is zero, so that every stream aborts, and nobody else's, `msi` shows together with the ITS's.
pub(crate) fn i63_smmu_starts_closed(work: &Work<'_, '_>, pci: &PciView<'_>, report: &mut Report<'_>) {
    let smmu = &pci.record.smmu;
    let mut expect = |holds: bool, what| {
        if !holds {
            report.add(Finding::BadSmmu { what });
        }
    };
    expect((smmu.registers_va != 0) == (work.facts(fact::SMMU).count() == 1), "registers");
    if smmu.registers_va == 0 {
        expect(*smmu == Smmu::default(), "fields without registers");
        return;
    }
    // One level (FMT 17:16 = 0), as many entries as there are streams; all else of STRTAB_BASE_CFG is zero.
    expect(smmu.stream_table_cfg == smmu.stream_bits, "STRTAB_BASE_CFG");
    // From a page on, up to what 20 bits of stream ID take.
    expect((6..=20).contains(&smmu.stream_bits), "number of streams");
    let table = stream_table(smmu);
    let aligned = |r: PaRegion| r.size != 0 && r.base.0.is_multiple_of(r.size) && r.is_aligned(va::PAGE);
    expect(smmu.stream_table_base & !(ADDRESS | HINT) == 0 && aligned(table), "STRTAB_BASE");
    // 5.1.2, 5.1.3: aligned to their size, 2^19 entries at most.
    let fits = |base: u64, r| base & !(ADDRESS | 0x20 | 0x1F | HINT) == 0 && base & 0x1F <= 19 && aligned(r);
    expect(fits(smmu.command_base, commands(smmu)), "CMDQ_BASE");
    expect(fits(smmu.event_base, events(smmu)), "EVENTQ_BASE");
    // SMMU_CR1 (6.3.10): Write-Back inner shareable for table and queues.
    expect(smmu.cr1 == 0xD75, "CR1");
    expect(smmu.address_bits == work.plan.header.pa_bits, "output size");
    for intid in [smmu.event_intid, smmu.error_intid].into_iter().filter(|i| *i != NO_INTID) {
        let own = work.lines().any(|l| l.intid == intid && l.kind == line::HYPERVISOR && l.edge == 1);
        expect(intid.is_spi() && own && work.plan.header.flags & HeaderFlags::GROUP0 != 0, "interrupts");
    }
    let shared = smmu.event_intid == smmu.error_intid && smmu.event_intid != NO_INTID;
    let console = work.plan.header.console_intid;
    let taken = |intid: IntId| intid != NO_INTID && intid == console;
    expect(!shared && !taken(smmu.event_intid) && !taken(smmu.error_intid), "interrupts");
}

/// I68: a stream has one function, the one the board says; its entry is its own, inside the table.
pub(crate) fn i68_streams_are_unique(work: &Work<'_, '_>, pci: &PciView<'_>, report: &mut Report<'_>) {
    let smmu = &pci.record.smmu;
    for (i, f) in pci.functions.iter().enumerate() {
        let mut bad = |why| report.add(Finding::BadStream { function: Bdf(f.rid), why });
        let stream = number_of(work, f, fact::STREAM);
        if !has_stream(f) {
            if f.ste != [0; 4] || f.ste_offset != 0 || f.stream != 0 && Some(f.stream) != stream {
                bad("has no stream, but an entry");
            }
            continue;
        }
        if smmu.registers_va == 0 || f.domain == NO_DOMAIN {
            bad("has a stream without SMMU or owner");
        }
        if stream != Some(f.stream) {
            bad("has another stream than the board says");
        }
        if f.stream.checked_shr(smmu.stream_bits).unwrap_or(0) != 0 {
            bad("has a stream beyond the table");
        }
        if u64::from(f.ste_offset) != u64::from(f.stream) * STE {
            bad("has an entry that is another stream's");
        }
        let again = |o: &Function| o.stream == f.stream && number_of(work, o, fact::STREAM).is_some();
        if pci.functions.iter().enumerate().any(|(j, o)| j != i && again(o)) {
            bad("shares its stream with another");
        }
    }
    // Aliases: whatever the plan makes of them, the board gives no ID to two functions.
    for kind in [fact::STREAM, fact::DEVICE_ID] {
        for (i, a) in work.facts(kind).enumerate() {
            if work.facts(kind).skip(i + 1).any(|b| b.owner == a.owner) {
                report.add(Finding::BadPci { what: "IDs of functions" });
            }
        }
    }
}

/// I22, I65, I66: a stream's entry is stage 2 under the VMID and the geometry of the owner's own, faults terminate and are
/// recorded, and there is nothing else in it: no stage 1, no ATS, no stall.
pub(crate) fn i66_stage2_is_all_there_is(
    work: &Work<'_, '_>,
    smmu: &Smmu,
    d: &Domain,
    f: &Function,
    report: &mut Report<'_>,
) {
    if !has_stream(f) || smmu.registers_va == 0 {
        return;
    }
    let mut bad = |why| report.add(Finding::BadStream { function: Bdf(f.rid), why });
    let [first, second, third, fourth] = f.ste;
    // V, Config = 0b110 (3:1).
    if first != 1 | 0b110 << 1 {
        bad("is translated by anything but stage 2");
    }
    // Of the rest SHCFG (45:44 of this word) is the bus's own, MEV (19) merges events.
    if second & !(0b11 << 44 | 1 << 19) != 0 {
        bad("overrides attributes, or may use ATS");
    }
    if third as u16 != (d.vttbr >> 48) as u16 {
        bad("has another VMID than its domain");
    }
    // T0SZ, SL0, IR0, OR0, SH0, TG, PS as bits 18:0 of VTCR_EL2, in the same order, from bit 32 on; then AA64.
    if third >> 32 & 0x7_FFFF != d.vtcr & 0x7_FFFF || third >> 51 & 1 != 1 {
        bad("translates by another geometry than its domain");
    }
    // AFFD (53) and PTW (54) restrict; S2R (58) records; ENDI (52), HD, HA (56:55) and S2S (57), which stalls, are zero.
    if third >> 52 & !(1 << 1 | 1 << 2) != 1 << 6 || third >> 16 & 0xFFFF != 0 {
        bad("stalls, hides its faults, or updates tables");
    }
    if fourth & !0x000F_FFFF_FFFF_F000 != 0 || fourth & 0x000F_FFFF_FFFF_FFFF == d.vttbr & 0x0000_FFFF_FFFF_FFFE {
        bad("walks the CPU's own root, or sets unknown bits");
    }
    if work.plan.header.vmid_bits == 8 && third & 0xFF00 != 0 {
        bad("has a VMID too large");
    }
}

/// I29: who may be a bus master is held by the SMMU, or trusted by the layout with RAM it finds where it looks for it.
pub(crate) fn i29_bus_masters_are_held(work: &Work<'_, '_>, domain: DomainId, f: &Function, report: &mut Report<'_>) {
    if f.flags & FunctionFlags::DMA == 0 {
        if has_stream(f) {
            report.add(Finding::BadStream { function: Bdf(f.rid), why: "has an entry and may not use it" });
        }
        return;
    }
    let trusted = number_of(work, f, fact::TRUSTED_DMA);
    let holds = match trusted {
        None => has_stream(f),
        Some(owner) => {
            let direct = |g: &Grant| g.kind != grant::RAM || g.ipa.base.0 == g.pa.base.0;
            !has_stream(f) && owner == u32::from(domain.0) + 1 && work.grants_of(domain).all(direct)
        }
    };
    if !holds {
        report.add(Finding::BadStream { function: Bdf(f.rid), why: "may write memory and nothing holds or trusts it" });
    }
}

/// The doorbell: the page of GITS_TRANSLATER, first of the ITS's second frame (IHI 0069, 12.18).
pub(crate) fn doorbell(work: &Work<'_, '_>) -> Option<Pa> {
    work.facts(fact::ITS).next().map(|its| Pa(its.region.base.0.saturating_add(0x1_0000)))
}

/// I64: walked as the SMMU does, the domain's functions reach its RAM, where the CPU sees it, all of it; where one of them
/// sends MSIs, the ITS's doorbell at its own address; and nothing else. Their root is not the CPU's, and tables below it are
/// the CPU's of that domain or nobody's.
#[allow(clippy::too_many_arguments)] // each is another thing to hold against another
pub(crate) fn i64_dma_root_is_ram_and_doorbell(
    work: &Work<'_, '_>,
    domain: DomainId,
    d: &Domain,
    owner: &PciDomain,
    sends: bool,
    f: &Function,
    marks: &mut [u32],
    report: &mut Report<'_>,
) -> u64 {
    let header = work.plan.header;
    // Said where the CPU's root is proven; the entry has the same geometry.
    let Ok(regime) = regime::stage2(d.vtcr, header.pa_bits, header.vmid_bits) else { return 0 };
    let tables = tables(work);
    let whose = Root::Dma(domain);
    let pa = f.ste.last().map_or(0, |word| word & 0x000F_FFFF_FFFF_FFF0);
    let Some(root) = root_page(&tables, &regime, pa) else {
        report.add(Finding::BadRoot { root: whose, pa: Pa(pa) });
        return 0;
    };
    let bell = doorbell(work).filter(|_| sends).unwrap_or(Pa(0));
    let bell = Grant {
        ipa: IpaRegion { base: Ipa(bell.0), size: va::PAGE },
        pa: PaRegion { base: bell, size: va::PAGE },
        domain: u32::from(domain.0),
        kind: DOORBELL,
        name: Name::default(),
    };
    if sends && owner.frame != bell.ipa.base {
        report.add(Finding::BadDomain { domain, why: "sees its MSI frame elsewhere than its functions the doorbell" });
    }
    let ram = || work.grants_of(domain).filter(|g| g.kind == grant::RAM);
    let before = ram().filter(|g| g.ipa.base < bell.ipa.base);
    let behind = ram().filter(|g| g.ipa.base >= bell.ipa.base);
    let grants = before.chain(Some(&bell).filter(|_| sends)).chain(behind);
    let mut expected = Expected { grants, current: None, root: whose };
    let mut leaves = 0;
    let shares = u32::from(domain.0) + 1;
    let mut walk = Walk { tables, regime, marks, number: DMA_WALK | shares, shares };
    walk.run(root, &mut |step| match step {
        Step::Leaf(leaf) => {
            leaves += 1;
            expected.meets(&leaf, report);
        }
        other => report_broken(whose, other, report),
    });
    expected.ends(report);
    leaves
}

/// Kind of the one page that a function reaches and no CPU.
pub(crate) const DOORBELL: u32 = u32::MAX;
/// Numbers of walks by the SMMU have this bit; what a CPU's walk has entered too, has [`crate::walk::AGAIN`].
const DMA_WALK: u32 = 1 << 30;
