//! The records the hypervisor reads, and the header's constants.

use super::area::Area;
use super::assemble::{EmitError, Input};
use super::blob::Blob;
use super::el2::Space;
use super::pages::TABLE;
use super::parts;
use super::pci::PciTables;
use super::stage2::{Stage2, joined};
use crate::layout::PMU_PPI;
use crate::lent::Full;
use crate::model::{Delivery, GicFrames};
use crate::resolve::{GICD_SIZE, KICK_SGI, PAGE, Piece};
use cofferdam_plan::audit::{grant, payload};
use cofferdam_plan::limits::{INTID_WORDS, MAX_DOMAINS};
use cofferdam_plan::va::GUARD;
use cofferdam_plan::{
    Cpu, CpuIndex, Domain, DomainFlags, Header, HeaderFlags, IntId, Ipa, MAGIC, Move, NO_INTID, NO_WINDOW, Pa, Probe,
    Scrub, Spi, Table, UartKind, VERSION,
};
use zerocopy::FromZeros;

/// Where record tables lie.
#[derive(Default)]
pub(super) struct Records {
    pub(super) cpus: Table,
    pub(super) domains: Table,
    pub(super) vcpus: Table,
    pub(super) spis: Table,
    pub(super) icfgr: Table,
    pub(super) moves: Table,
    pub(super) probes: Table,
    pub(super) scrubs: Table,
    pub(super) reloads: Table,
    pub(super) pci: PciTables,
    /// Per domain: index of its first scrub and their number.
    pub(super) scrub_of: heapless::Vec<(u32, u32), MAX_DOMAINS>,
    /// The same of its reloads.
    pub(super) reload_of: heapless::Vec<(u32, u32), MAX_DOMAINS>,
}

impl Input<'_, '_, '_> {
    /// Appends every record table. CPUs, domains and moves are placeholders until addresses are known.
    pub(super) fn records(&self, blob: &mut Blob<'_>) -> Result<Records, EmitError> {
        let mut records = Records { cpus: blob.table()?, ..Records::default() };
        for _ in 0..self.planned_cpus() {
            blob.push(&mut records.cpus, &Cpu::new_zeroed())?;
        }
        records.domains = blob.table()?;
        for _ in &self.layout.domains {
            blob.push(&mut records.domains, &Domain::new_zeroed())?;
        }
        records.vcpus = blob.table()?;
        for index in 0..self.planned_cpus() {
            blob.push(&mut records.vcpus, &CpuIndex(index as u16))?;
        }
        records.spis = blob.table()?;
        for intid in (IntId::FIRST_SPI.0..=self.last_intid.0).map(IntId) {
            let Some(domain) = self.owners.of(intid) else { continue };
            let first = self.layout.domains.get(domain).and_then(|d| d.cpus.first()).ok_or(EmitError::Internal)?;
            let cpu = self.board.cpus.get(first.value).ok_or(EmitError::Internal)?;
            let router = if self.is_gicv2() { u64::from(target(first.value)) } else { cpu.mpidr.0 };
            blob.push(&mut records.spis, &Spi { router, intid, reserved: 0 })?;
        }
        records.icfgr = blob.table()?;
        for first in (IntId::FIRST_SPI.0..self.words() * 32).step_by(16) {
            let bits =
                (0..16).filter(|n| self.owners.is_edge(IntId(first + n))).fold(0u32, |word, n| word | 2 << (2 * n));
            blob.push(&mut records.icfgr, &bits)?;
        }
        records.moves = blob.table()?;
        let mut moves = records.moves;
        // How many there are does not depend on where the area lies.
        let area = self.area(0)?;
        self.moves(0, area.as_ref(), |_, record| blob.push(&mut moves, record))?;
        records.moves = moves;
        records.probes = blob.table()?;
        let ram = || joined(self.pieces).filter(|piece| piece.kind == grant::RAM);
        for piece in ram() {
            let end = piece.pa + piece.size;
            if !ram().any(|next| next.pa == end) {
                blob.push(&mut records.probes, &Probe { at: Pa(end - 8) })?;
            }
        }
        blob.push(&mut records.probes, &Probe { at: Pa(self.placed.base + self.placed.area - 8) })?;
        records.scrubs = blob.table()?;
        for id in 0..self.layout.domains.len() {
            let before = records.scrubs.count;
            for piece in joined(self.pieces_of(id)).filter(|piece| piece.kind == grant::RAM) {
                self.scrub(&piece, |record| blob.push(&mut records.scrubs, record))?;
            }
            let list = (before, records.scrubs.count - before);
            records.scrub_of.push(list).map_err(|_| EmitError::Internal)?;
        }
        records.reloads = blob.table()?;
        for id in 0..self.layout.domains.len() {
            let before = records.reloads.count;
            self.reloads(id, 0, |record| blob.push(&mut records.reloads, record))?;
            let list = (before, records.reloads.count - before);
            records.reload_of.push(list).map_err(|_| EmitError::Internal)?;
        }
        records.pci = self.pci_tables(blob)?;
        Ok(records)
    }

    /// The pages of a mapping that hold no payload.
    pub(super) fn scrub(&self, piece: &Piece, mut each: impl FnMut(&Scrub) -> Result<(), Full>) -> Result<(), Full> {
        let (mut at, end) = (piece.ipa, piece.ipa + piece.size);
        while at < end {
            let (start, next) = parts::next(self.payloads, piece.domain, at, end).unwrap_or((end, end));
            if start > at {
                each(&Scrub { base: Pa(piece.pa + (at - piece.ipa)), size: start - at })?;
            }
            at = at.max(next);
        }
        Ok(())
    }

    /// What the boot stub copies and zeroes: payloads, with trees from image offset `trees` on, then the DMA area.
    pub(super) fn moves(
        &self,
        trees: u64,
        area: Option<&Area>,
        mut each: impl FnMut(usize, &Move) -> Result<(), Full>,
    ) -> Result<(), Full> {
        let mut tree_at = trees;
        let mut index = 0;
        for payload in self.payloads {
            let is_tree = payload.kind == payload::DTB;
            let offset = if is_tree { tree_at } else { payload.offset };
            if is_tree {
                tree_at += payload.mem;
            }
            let scrubbed = self.layout.domains.get(payload.domain as usize).is_some_and(|d| d.scrub_at_boot);
            for record in parts::of(payload, self.pieces, offset, scrubbed).filter_map(|part| part.copy) {
                each(index, &record)?;
                index += 1;
            }
        }
        area.map_or(Ok(()), |area| {
            area.zeroes(|record| {
                index += 1;
                each(index - 1, record)
            })
        })
    }

    pub(super) fn cpus(&self, blob: &mut Blob<'_>, records: &mut Records, space: &Space) -> Result<(), EmitError> {
        let mut index = 0;
        for (id, domain) in self.layout.domains.iter().enumerate() {
            for (vcpu, cpu) in domain.cpus.iter().enumerate() {
                let board = self.board.cpus.get(cpu.value).ok_or(EmitError::Internal)?;
                let gicv2 = self.is_gicv2();
                let record = Cpu {
                    mpidr: board.mpidr,
                    gicr_va: if gicv2 { 0 } else { space.gic_frame(index) },
                    area_va: space.cpu(index),
                    domain: id as u16,
                    vcpu: vcpu as u16,
                    gicv2_target: if gicv2 { target(cpu.value) } else { 0 },
                    watch_ms: self.watch_ms(CpuIndex(index as u16)),
                    reserved: 0,
                };
                blob.set(records.cpus, index as usize, &record)?;
                index += 1;
            }
        }
        records.cpus.count = index as u32;
        Ok(())
    }

    pub(super) fn domains(
        &self,
        blob: &mut Blob<'_>,
        records: &Records,
        space: &Space,
        stage2: &[Stage2],
        tables_pa: u64,
        restart: &[u64],
    ) -> Result<(), EmitError> {
        let mut first_vcpu = 0;
        for (id, domain) in self.layout.domains.iter().enumerate() {
            let (Some(decided), Some(tables)) = (self.decided.get(id), stage2.get(id)) else { continue };
            let mut record = Domain::new_zeroed();
            let name = domain.name.as_bytes();
            record.name.get_mut(..name.len()).ok_or(EmitError::Internal)?.copy_from_slice(name);
            let vmid = id as u64 + 1;
            record.vttbr = vmid << 48 | (tables_pa + (tables.root.page * TABLE) as u64);
            record.vtcr = tables.vtcr;
            (record.entry, record.dtb) = (Ipa(decided.entry), Ipa(decided.dtb));
            record.root_va = space.root(tables.root.page);
            record.area_va = space.domain(id as u64);
            record.root_entries = tables.entries;
            record.vuart_intid = NO_INTID;
            if let Some((page, intid)) = decided.vuart {
                (record.vuart_ipa, record.vuart_intid) = (Ipa(page), intid);
                let reads = self.layout.input == Some(id);
                record.flags |= DomainFlags::CONSOLE | if reads { DomainFlags::INPUT } else { 0 };
                if domain.output_only {
                    record.flags |= DomainFlags::OUTPUT_ONLY;
                }
            }
            (record.watchdog_ipa, record.watchdog_intid) =
                decided.watchdog.map_or((NO_WINDOW, NO_INTID), |(page, intid)| (Ipa(page), intid));
            if domain.scrub_at_boot {
                record.flags |= DomainFlags::SCRUB_AT_BOOT;
            }
            record.flags |= domain.features;
            if domain.delivery == Delivery::Injected {
                record.flags |= DomainFlags::INJECTED;
            }
            (record.first_vcpu, record.vcpu_count) = (first_vcpu, domain.cpus.len() as u32);
            first_vcpu += domain.cpus.len() as u32;
            (record.first_scrub, record.scrub_count) = records.scrub_of.get(id).copied().unwrap_or_default();
            (record.first_reload, record.reload_count) = records.reload_of.get(id).copied().unwrap_or_default();
            let lifecycle = &domain.lifecycle;
            record.restart_ttbr = restart.get(id).copied().unwrap_or(0);
            record.restart_limit = lifecycle.restart_limit;
            (record.on_fault, record.on_reset, record.on_off) =
                (lifecycle.on_fault, lifecycle.on_reset, lifecycle.on_off);
            // Its CPUs may be asleep when one of them starts it again, and have made themselves deaf to the kick before.
            let trap_wfi = match domain.delivery {
                Delivery::Direct => lifecycle.fetches(domain.cpus.len()),
                Delivery::Injected => self.board.gic.is_some_and(|gic| gic.trap_wfi),
            };
            if trap_wfi {
                record.flags |= DomainFlags::TRAP_WFI;
            }
            if lifecycle.watchdog_ms != 0 {
                (record.watchdog_ms, record.watcher) = (lifecycle.watchdog_ms, self.watcher(id));
            }
            record.gicd_typer = self.gicd_typer(domain.cpus.len() as u32);
            record.owned = self.owned(id);
            blob.set(records.domains, id, &record)?;
        }
        Ok(())
    }

    /// SGIs but the hypervisor's, the two timers, the performance counters' where granted, and the SPIs given to this domain.
    pub(super) fn owned(&self, domain: usize) -> [u32; INTID_WORDS] {
        let mut set = crate::resolve::lines::IntSet::default();
        (0..KICK_SGI.0).for_each(|sgi| set.insert(IntId(sgi)));
        if let Some(timer) = &self.board.timer {
            set.insert(timer.virt);
            set.insert(timer.physical);
        }
        if self.layout.domains.get(domain).is_some_and(|domain| domain.pmu.is_some()) {
            set.insert(PMU_PPI);
        }
        let spis = (IntId::FIRST_SPI.0..=self.last_intid.0).map(IntId);
        spis.filter(|intid| self.owners.of(*intid) == Some(domain)).for_each(|intid| set.insert(intid));
        set.0
    }

    /// GICD_TYPER as a guest with `vcpus` reads it. GICv3 (IHI 0069, 12.9.38): ITLinesNumber, IDbits 10 (field 9), No1N; one
    /// security state, no LPIs, no message-based and no extended SPIs; CPUNumber is 0 where affinity routing is always on.
    /// GICv2 (IHI 0048, 4.3.2): ITLinesNumber, CPUNumber.
    fn gicd_typer(&self, vcpus: u32) -> u32 {
        let rest = if self.is_gicv2() { (vcpus - 1) << 5 } else { 9 << 19 | 1 << 25 };
        (self.words() - 1) | rest
    }

    fn is_gicv2(&self) -> bool {
        self.board.gic.is_some_and(|gic| gic.is_v2())
    }

    /// Whether a domain has injected delivery.
    pub(super) fn injects(&self) -> bool {
        self.layout.domains.iter().any(|domain| domain.delivery == Delivery::Injected)
    }

    /// Fields of the header that do not depend on where things lie in the blob.
    pub(super) fn constants(&self, header: &mut Header, space: &Space, pa_bits: u32) {
        (header.magic, header.version) = (MAGIC, VERSION);
        header.base = Pa(self.placed.base);
        let console = self.board.console.as_ref();
        if let Some(console) = console {
            let offset = console.region.base.0 % PAGE;
            (header.console_pa, header.console_pa_again) = (console.region.base, console.region.base);
            header.console_va = space.console() + offset;
            header.console_kind = console.kind;
        } else {
            header.console_kind = UartKind::NONE;
        }
        if let Some(log) = &self.board.log {
            header.log_va = space.log() + log.region.base.0 % PAGE;
        }
        header.console_intid = self.console_intid().unwrap_or(NO_INTID);
        header.gicd_va = space.gicd();
        if let Some(gic) = &self.board.gic {
            header.gicd_ipa = Ipa(gic.gicd.base.0);
            match gic.frames {
                GicFrames::V3 { gicr } => header.gicr_ipa = Ipa(gicr.base.0),
                GicFrames::V2 { .. } => {
                    header.gicr_ipa = NO_WINDOW;
                    header.gicc_va = space.gic_frame(0);
                    header.flags |= HeaderFlags::GICV2;
                }
            }
            if gic.trap_wfi && self.injects() {
                header.flags |= HeaderFlags::TRAP_WFI;
            }
        }
        header.gicd_words = self.words();
        header.kick_sgi = KICK_SGI;
        header.console_escape = self.layout.console_escape;
        // Who reads first pays for the console's interrupt, for the others too.
        let reader = self.layout.input.unwrap_or(0);
        let before: usize = self.layout.domains.iter().take(reader).map(|domain| domain.cpus.len()).sum();
        header.housekeeping_cpu = CpuIndex(before as u16);
        header.pa_bits = pa_bits;
        header.vmid_bits = 8;
        header.cntfrq = self.board.timer.as_ref().and_then(|timer| timer.frequency).unwrap_or(0);
        header.spare_area_va = space.spare_top();
        header.build_id = self.hypervisor.build_id;
        let kicks = self.layout.domains.iter().any(|domain| domain.cpus.len() > 1);
        let watchdogs = self.layout.domains.iter().any(|domain| domain.lifecycle.watchdog_ms != 0);
        // A GICv2 has one group for all: what EL2 has where, follows from each domain's delivery.
        let faults = self.smmu_intids().next().is_some();
        if !self.is_gicv2() && (kicks || watchdogs || faults || header.console_intid != NO_INTID) {
            header.flags |= HeaderFlags::GROUP0;
        }
        if self.layout.verify_at_boot {
            header.flags |= HeaderFlags::VERIFY_AT_BOOT;
        }
    }
}

/// GICv2: what selects CPU interface `index` in GICD_ITARGETSR and GICD_SGIR. The board has no more than eight.
fn target(index: usize) -> u32 {
    1 << (index & 7)
}

const _: () = assert!(GUARD == PAGE && GICD_SIZE.is_multiple_of(PAGE));
