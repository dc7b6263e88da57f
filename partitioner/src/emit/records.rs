//! The blob: header and records, audit section, tables, device trees, in this order.

use super::audit::Owners;
use super::blob::Blob;
use super::el2::{self, Physical, Space};
use super::guest::Guest;
use super::pages::{Pages, PagesError, Root, TABLE};
use super::stage2::{self, Stage2, ipa_bits, joined, size_for};
use super::{images, parts};
use crate::compile::{HypImage, Images};
use crate::lent::{Full, Lent};
use crate::model::{Board, Layout};
use crate::resolve::place::Placed;
use crate::resolve::util::{bits, down, up};
use crate::resolve::{Decided, GICD_SIZE, GICR_SIZE, KICK_SGI, PAGE, Payload, Piece};
use cofferdam_plan::audit::{grant, payload};
use cofferdam_plan::limits::{INTID_WORDS, MAX_CPUS, MAX_DOMAINS, MAX_RECORDS};
use cofferdam_plan::va::GUARD;
use cofferdam_plan::{
    Cpu, CpuIndex, Domain, DomainFlags, Header, HeaderFlags, IntId, Ipa, MAGIC, Move, NO_INTID, Pa, Probe, Scrub, Spi,
    Table, UartKind, VERSION, records_checksum, tables_checksum,
};
use zerocopy::{FromZeros, IntoBytes};

/// Everything that was decided.
pub(crate) struct Input<'e, 'a, 'l> {
    pub(crate) board: &'e Board<'a>,
    pub(crate) layout: &'e Layout<'a, 'l>,
    pub(crate) decided: &'e [Decided],
    /// By domain and guest address.
    pub(crate) pieces: &'e [Piece],
    /// By domain and guest address.
    pub(crate) payloads: &'e [Payload<'a>],
    pub(crate) placed: Placed,
    pub(crate) hypervisor: &'e HypImage<'e>,
    pub(crate) owners: &'e Owners,
    /// Highest INTID anything uses.
    pub(crate) last_intid: IntId,
}

/// The finished blob.
pub(crate) struct Emitted {
    /// Its bytes.
    pub(crate) len: usize,
    /// Bytes of the whole image.
    pub(crate) image_len: u64,
}

/// Why there is no blob.
pub(crate) enum EmitError {
    /// The lent memory is too short.
    Full(Full),
    /// The hypervisor needs an area of this many bytes: place again.
    Area(u64),
    /// Header and records have this many bytes, more than the hypervisor reads.
    Records(usize),
    /// The compiler contradicts itself.
    Internal,
}

impl From<Full> for EmitError {
    fn from(full: Full) -> Self {
        Self::Full(full)
    }
}

impl From<PagesError> for EmitError {
    fn from(error: PagesError) -> Self {
        match error {
            PagesError::Full(full) => Self::Full(full),
            PagesError::Twice => Self::Internal,
        }
    }
}

/// Where record tables lie.
#[derive(Default)]
struct Records {
    cpus: Table,
    domains: Table,
    vcpus: Table,
    spis: Table,
    icfgr: Table,
    moves: Table,
    probes: Table,
    scrubs: Table,
    /// Per domain: index of its first scrub and their number.
    scrub_of: heapless::Vec<(u32, u32), MAX_DOMAINS>,
}

impl<'a> Input<'_, 'a, '_> {
    /// The console UART's interrupt, where the hypervisor needs it: some domain reads the console.
    pub(crate) fn console_intid(&self) -> Option<IntId> {
        let reads = self.decided.iter().any(|decided| decided.vuart.is_some());
        self.board.console.as_ref().and_then(|console| console.intid).filter(|_| reads)
    }

    fn pieces_of(&self, domain: usize) -> &[Piece] {
        let from = self.pieces.partition_point(|piece| (piece.domain as usize) < domain);
        let to = self.pieces.partition_point(|piece| piece.domain as usize <= domain);
        self.pieces.get(from..to).unwrap_or(&[])
    }

    /// Bits of physical address the plan needs, one of the sizes there are.
    fn pa_bits(&self) -> u32 {
        let ram = self.board.ram.iter().map(|bank| bank.value.end().0);
        let used = self.pieces.iter().map(|piece| piece.pa + piece.size);
        let gic = self.board.gic.iter().map(|gic| gic.gicd.end().0.max(gic.gicr.end().0));
        let uarts = [&self.board.console, &self.board.log].into_iter().flatten().map(|uart| uart.region.end().0);
        let top = ram.chain(used).chain(gic).chain(uarts).max().unwrap_or(0);
        size_for(bits(top).max(ipa_bits(self.pieces)))
    }

    fn words(&self) -> u32 {
        self.last_intid.0 / 32 + 1
    }

    /// Writes the whole blob into `bytes`.
    pub(crate) fn emit(&self, bytes: &mut [u8], strings: &mut [u8], images: &dyn Images) -> Result<Emitted, EmitError> {
        let blob_offset = self.hypervisor.len;
        let mut blob = Blob { bytes, at: 0 };
        let mut header = Header::new_zeroed();
        blob.append(header.as_bytes())?;
        let mut records = self.records(&mut blob)?;
        blob.align(16)?;
        let records_len = blob.at;
        if records_len > MAX_RECORDS as usize {
            return Err(EmitError::Records(records_len));
        }
        let (audit, audit_payloads) = self.audit(&mut blob)?;
        blob.align(TABLE)?;

        let tables_at = blob.at;
        let trees_len: u64 = self.payloads.iter().filter(|p| p.kind == payload::DTB).map(|p| p.mem).sum();
        let pa_bits = self.pa_bits();
        let tables_pa = self.placed.base + blob_offset + tables_at as u64;
        let rest = blob.bytes.get_mut(tables_at..).ok_or(Full(Lent::Blob))?;
        let mut pages = Pages::new(rest, tables_pa);
        let stage2 = self.stage2(&mut pages, pa_bits)?;
        let before_el2 = pages.used();
        let roots: usize = stage2.iter().map(|tables| tables.root.pages).sum();
        // The EL2 tables map themselves: try until their number is the one the addresses were computed with.
        let mut guess = 5;
        let (space, el2, used) = loop {
            let trees_at = tables_at as u64 + ((before_el2 + guess) * TABLE) as u64;
            let blob_len = trees_at + trees_len;
            let space = self.space(blob_offset + blob_len, roots as u64);
            if space.ram() > self.placed.area {
                return Err(EmitError::Area(space.ram()));
            }
            pages.truncate(before_el2);
            let el2 = self.el2(&mut pages, &space, blob_len, &stage2, pa_bits)?;
            let used = pages.used();
            if used - before_el2 == guess {
                break (space, el2, used);
            }
            guess = used - before_el2;
        };
        header.ttbr0_el2 = pages.pa_of(el2.root.page);
        header.tcr_el2 = el2.tcr;
        blob.at = tables_at + used * TABLE;
        let trees = blob_offset + blob.at as u64;
        self.trees(&mut blob, strings, images)?;
        let len = blob.at;

        records.cpus.count = 0;
        self.cpus(&mut blob, &mut records, &space)?;
        self.domains(&mut blob, &records, &space, &stage2, tables_pa)?;
        self.moves(trees, |index, record| blob.set(records.moves, index, record))?;
        self.settle_payloads(&mut blob, audit_payloads, trees)?;

        self.constants(&mut header, &space, pa_bits);
        let image_len = up((blob_offset + len as u64).max(self.placed.image_len), 16);
        (header.records_len, header.blob_len) = (records_len as u32, len as u32);
        (header.blob_offset, header.image_len) = (blob_offset as u32, image_len);
        (header.audit, header.tables) = (audit, Table { offset: tables_at as u32, count: used as u32 });
        (header.cpus, header.domains, header.vcpus) = (records.cpus, records.domains, records.vcpus);
        (header.spis, header.icfgr, header.moves) = (records.spis, records.icfgr, records.moves);
        (header.probes, header.scrubs) = (records.probes, records.scrubs);
        header.tables_crc =
            tables_checksum(blob.bytes, header.records_len, header.blob_len).ok_or(EmitError::Internal)?;
        blob.put(0, header.as_bytes())?;
        header.records_crc = records_checksum(blob.bytes, header.records_len).ok_or(EmitError::Internal)?;
        blob.put(0, header.as_bytes())?;
        Ok(Emitted { len, image_len })
    }

    fn stage2(&self, pages: &mut Pages<'_>, pa_bits: u32) -> Result<heapless::Vec<Stage2, MAX_DOMAINS>, EmitError> {
        let mut all = heapless::Vec::<Stage2, MAX_DOMAINS>::new();
        for _ in &self.layout.domains {
            all.push(Stage2::default()).map_err(|_| EmitError::Internal)?;
        }
        // Roots first, the largest first: then each is aligned to its size without a page between.
        for size in (0..=4).rev().map(|power| 1usize << power) {
            for (id, tables) in all.iter_mut().enumerate() {
                let (level, count) = stage2::shape(ipa_bits(self.pieces_of(id)));
                if count == size {
                    tables.root = pages.root(level, count)?;
                }
            }
        }
        for (id, tables) in all.iter_mut().enumerate() {
            *tables = stage2::build(pages, tables.root, self.pieces_of(id), pa_bits)?;
        }
        Ok(all)
    }

    fn planned_cpus(&self) -> usize {
        self.layout.domains.iter().map(|domain| domain.cpus.len()).sum()
    }

    fn space(&self, end: u64, roots: u64) -> Space {
        let cpus = self.planned_cpus();
        let spare = cpus < self.board.cpus.len();
        Space::new(end, cpus, self.layout.domains.len(), roots, spare, self.board.console.is_some())
    }

    fn el2(
        &self,
        pages: &mut Pages<'_>,
        space: &Space,
        blob_len: u64,
        stage2: &[Stage2],
        pa_bits: u32,
    ) -> Result<el2::El2, EmitError> {
        let gic = self.board.gic.as_ref().ok_or(EmitError::Internal)?;
        let mut gicr = heapless::Vec::<u64, MAX_CPUS>::new();
        for cpu in self.layout.domains.iter().flat_map(|domain| &domain.cpus) {
            gicr.push(gic.gicr.base.0 + cpu.value as u64 * GICR_SIZE).map_err(|_| EmitError::Internal)?;
        }
        let page = |uart: &Option<crate::model::Uart<'a>>| uart.as_ref().map(|uart| down(uart.region.base.0, PAGE));
        let physical = Physical {
            base: self.placed.base,
            blob: self.hypervisor.len,
            blob_len,
            gicd: gic.gicd.base.0,
            gicr: &gicr,
            console: page(&self.board.console),
            log: page(&self.board.log),
        };
        let mut roots = heapless::Vec::<(Root, u64, u32), MAX_DOMAINS>::new();
        for tables in stage2 {
            let root = (tables.root, pages.pa_of(tables.root.page), tables.entries);
            roots.push(root).map_err(|_| EmitError::Internal)?;
        }
        let windows = roots.iter().map(|(root, pa, entries)| (root.page, *pa, u64::from(*entries).div_ceil(512)));
        Ok(el2::build(pages, self.hypervisor, space, &physical, windows, pa_bits)?)
    }

    /// Appends every record table. CPUs, domains and moves are placeholders until addresses are known.
    fn records(&self, blob: &mut Blob<'_>) -> Result<Records, EmitError> {
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
            let first = self.layout.domains.get(domain).and_then(|d| d.cpus.first());
            let cpu = first.and_then(|cpu| self.board.cpus.get(cpu.value)).ok_or(EmitError::Internal)?;
            blob.push(&mut records.spis, &Spi { router: cpu.mpidr.0, intid, reserved: 0 })?;
        }
        records.icfgr = blob.table()?;
        for first in (IntId::FIRST_SPI.0..self.words() * 32).step_by(16) {
            let bits =
                (0..16).filter(|n| self.owners.is_edge(IntId(first + n))).fold(0u32, |word, n| word | 2 << (2 * n));
            blob.push(&mut records.icfgr, &bits)?;
        }
        records.moves = blob.table()?;
        let mut moves = records.moves;
        self.moves(0, |_, record| blob.push(&mut moves, record))?;
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
        Ok(records)
    }

    /// The pages of a mapping that hold no payload.
    fn scrub(&self, piece: &Piece, mut each: impl FnMut(&Scrub) -> Result<(), Full>) -> Result<(), Full> {
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

    fn moves(&self, trees: u64, mut each: impl FnMut(usize, &Move) -> Result<(), Full>) -> Result<(), Full> {
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
        Ok(())
    }

    /// Writes every domain's device tree, in the order of the payloads.
    fn trees(&self, blob: &mut Blob<'_>, strings: &mut [u8], images: &dyn Images) -> Result<(), EmitError> {
        for part in self.payloads.iter().filter(|part| part.kind == payload::DTB) {
            let end = blob.at + part.mem as usize;
            let room = blob.bytes.get_mut(blob.at..end).ok_or(Full(Lent::Blob))?;
            room.fill(0);
            if part.file.is_empty() {
                let domain = self.layout.domains.get(part.domain as usize).ok_or(EmitError::Internal)?;
                let decided = self.decided.get(part.domain as usize).ok_or(EmitError::Internal)?;
                Guest { board: self.board, layout: self.layout, domain, decided }.write(room, strings)?;
            } else {
                let bytes = images::bytes(images, part.file).ok_or(EmitError::Internal)?;
                room.get_mut(..part.len as usize)
                    .zip(bytes.get(..part.len as usize))
                    .ok_or(EmitError::Internal)
                    .map(|(to, from)| to.copy_from_slice(from))?;
            }
            blob.at = end;
        }
        Ok(())
    }

    fn cpus(&self, blob: &mut Blob<'_>, records: &mut Records, space: &Space) -> Result<(), EmitError> {
        let mut index = 0;
        for (id, domain) in self.layout.domains.iter().enumerate() {
            for (vcpu, cpu) in domain.cpus.iter().enumerate() {
                let board = self.board.cpus.get(cpu.value).ok_or(EmitError::Internal)?;
                let record = Cpu {
                    mpidr: board.mpidr,
                    gicr_va: space.gicr(index),
                    area_va: space.cpu(index),
                    domain: id as u16,
                    vcpu: vcpu as u16,
                    reserved: 0,
                };
                blob.set(records.cpus, index as usize, &record)?;
                index += 1;
            }
        }
        records.cpus.count = index as u32;
        Ok(())
    }

    fn domains(
        &self,
        blob: &mut Blob<'_>,
        records: &Records,
        space: &Space,
        stage2: &[Stage2],
        tables_pa: u64,
    ) -> Result<(), EmitError> {
        let mut first_vcpu = 0;
        let mut input = DomainFlags::INPUT;
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
                record.flags |= DomainFlags::CONSOLE | core::mem::take(&mut input);
            }
            if domain.scrub_at_boot {
                record.flags |= DomainFlags::SCRUB_AT_BOOT;
            }
            (record.first_vcpu, record.vcpu_count) = (first_vcpu, domain.cpus.len() as u32);
            first_vcpu += domain.cpus.len() as u32;
            (record.first_scrub, record.scrub_count) = records.scrub_of.get(id).copied().unwrap_or_default();
            record.owned = self.owned(id);
            blob.set(records.domains, id, &record)?;
        }
        Ok(())
    }

    /// SGIs but the hypervisor's, the two timers, and the SPIs given to this domain.
    fn owned(&self, domain: usize) -> [u32; INTID_WORDS] {
        let mut set = crate::resolve::lines::IntSet::default();
        (0..KICK_SGI.0).for_each(|sgi| set.insert(IntId(sgi)));
        if let Some(timer) = &self.board.timer {
            set.insert(timer.virt);
            set.insert(timer.physical);
        }
        let spis = (IntId::FIRST_SPI.0..=self.last_intid.0).map(IntId);
        spis.filter(|intid| self.owners.of(*intid) == Some(domain)).for_each(|intid| set.insert(intid));
        set.0
    }

    /// Fields of the header that do not depend on where things lie in the blob.
    fn constants(&self, header: &mut Header, space: &Space, pa_bits: u32) {
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
            (header.gicd_ipa, header.gicr_ipa) = (Ipa(gic.gicd.base.0), Ipa(gic.gicr.base.0));
        }
        header.gicd_words = self.words();
        // GICD_TYPER as guests read it (IHI 0069, 12.9.38): ITLinesNumber, IDbits 10 (field 9), No1N; one security state,
        // no LPIs, no message-based and no extended SPIs; CPUNumber is 0 where affinity routing is always on.
        header.gicd_typer = (self.words() - 1) | 9 << 19 | 1 << 25;
        header.kick_sgi = KICK_SGI;
        let reader = self.decided.iter().position(|decided| decided.vuart.is_some()).unwrap_or(0);
        let before: usize = self.layout.domains.iter().take(reader).map(|domain| domain.cpus.len()).sum();
        header.housekeeping_cpu = CpuIndex(before as u16);
        header.pa_bits = pa_bits;
        header.vmid_bits = 8;
        header.cntfrq = self.board.timer.as_ref().and_then(|timer| timer.frequency).unwrap_or(0);
        header.spare_area_va = space.spare_top();
        header.build_id = self.hypervisor.build_id;
        let kicks = self.layout.domains.iter().any(|domain| domain.cpus.len() > 1);
        if kicks || header.console_intid != NO_INTID {
            header.flags |= HeaderFlags::GROUP0;
        }
        if self.layout.verify_at_boot {
            header.flags |= HeaderFlags::VERIFY_AT_BOOT;
        }
    }
}

const _: () = assert!(GUARD == PAGE && GICD_SIZE % PAGE == 0);
