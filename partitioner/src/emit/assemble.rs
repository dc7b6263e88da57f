//! The blob: header and records, audit section, device trees, tables, in this order: what needs no page of its own is together.

use super::audit::Owners;
use super::blob::Blob;
use super::el2::{self, Counts, Physical, Space};
use super::guest::Guest;
use super::images;
use super::pages::{Pages, PagesError, Root, TABLE};
use super::stage2::{self, Stage2, ipa_bits, size_for};
use crate::compile::{HypImage, Images};
use crate::lent::{Full, Lent};
use crate::model::{Board, GicFrames, Layout};
use crate::pci::model::Settlement;
use crate::resolve::place::Placed;
use crate::resolve::util::{bits, down, up};
use crate::resolve::{Decided, GICR_SIZE, PAGE, Payload, Piece};
use cofferdam_plan::audit::payload;
use cofferdam_plan::limits::{MAX_CPUS, MAX_DOMAINS, MAX_RECORDS};
use cofferdam_plan::{Header, IntId, Table, records_checksum, tables_checksum};
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
    /// Where some domain has PCI functions.
    pub(crate) pci: Option<&'e Settlement>,
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
    /// The image's address is one of EL2's own, which end here.
    Window(u64),
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
            PagesError::Window(end) => Self::Window(end),
            PagesError::Twice => Self::Internal,
        }
    }
}

impl<'a> Input<'_, 'a, '_> {
    /// The console UART's interrupt, where the hypervisor needs it: some domain reads the console.
    pub(crate) fn console_intid(&self) -> Option<IntId> {
        self.board.console.as_ref().and_then(|console| console.intid).filter(|_| self.layout.input.is_some())
    }

    /// The SMMU's interrupts, where the hypervisor drives one.
    pub(crate) fn smmu_intids(&self) -> impl Iterator<Item = IntId> {
        let smmu = self.pci.and(self.board.pci.as_ref()).and_then(|host| host.smmu);
        smmu.into_iter().flat_map(|smmu| [smmu.event, smmu.error]).flatten()
    }

    pub(super) fn pieces_of(&self, domain: usize) -> &[Piece] {
        let from = self.pieces.partition_point(|piece| (piece.domain as usize) < domain);
        let to = self.pieces.partition_point(|piece| piece.domain as usize <= domain);
        self.pieces.get(from..to).unwrap_or(&[])
    }

    /// Bits of physical address the plan needs, one of the sizes there are.
    pub(crate) fn pa_bits(&self) -> u32 {
        let ram = self.board.ram.iter().map(|bank| bank.value.end().0);
        let used = self.pieces.iter().map(|piece| piece.pa + piece.size);
        let gic = self.board.gic.iter().map(|gic| gic.end().0);
        let uarts = [&self.board.console, &self.board.log].into_iter().flatten().map(|uart| uart.region.end().0);
        let top = ram.chain(used).chain(gic).chain(uarts).chain([self.pci_reach()]).max().unwrap_or(0);
        size_for(bits(top).max(ipa_bits(self.pieces)))
    }

    pub(super) fn words(&self) -> u32 {
        self.last_intid.0 / 32 + 1
    }

    pub(super) fn planned_cpus(&self) -> usize {
        self.layout.domains.iter().map(|domain| domain.cpus.len()).sum()
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
        let (audit, sections) = self.audit(&mut blob)?;
        blob.align(16)?;
        let trees = blob_offset + blob.at as u64;
        self.trees(&mut blob, strings, images)?;
        blob.align(TABLE)?;
        // The first root is the largest and must be aligned to its size, in RAM: the image starts at a 2 MiB boundary.
        let widest = (0..self.layout.domains.len()).map(|id| stage2::shape(ipa_bits(self.pieces_of(id))).1).max();
        while !(blob_offset as usize + blob.at).is_multiple_of(widest.unwrap_or(1) * TABLE) {
            blob.at += 1;
            blob.align(TABLE)?;
        }

        let tables_at = blob.at;
        let pa_bits = self.pa_bits();
        let tables_pa = self.placed.base + blob_offset + tables_at as u64;
        let rest = blob.bytes.get_mut(tables_at..).ok_or(Full(Lent::Blob))?;
        let mut pages = Pages::new(rest, tables_pa);
        let stage2 = self.stage2(&mut pages, pa_bits)?;
        let baked = self.bake(&mut pages)?;
        let before_el2 = pages.used();
        // Behind them all in their row; DMA roots of the same size stand between, and are not mapped.
        let roots = stage2.iter().map(|tables| tables.root.page + tables.root.pages).max().unwrap_or(0);
        // The EL2 tables map themselves: try until their number is the one the addresses were computed with.
        let mut guess = 5;
        let (space, area, views, el2, restart, used) = loop {
            let blob_len = (tables_at + (before_el2 + guess) * TABLE) as u64;
            let space = self.space(blob_offset + blob_len, roots as u64);
            let area = self.area(space.ram())?;
            let ram = area.as_ref().map_or(space.ram(), |area| area.end - self.placed.base);
            if ram > self.placed.area {
                return Err(EmitError::Area(ram));
            }
            let (views, maps) = match &area {
                Some(area) => self.views(&space, area)?,
                None => Default::default(),
            };
            pages.truncate(before_el2);
            let reach = self.restart_reach(trees);
            let el2 = self.el2(&mut pages, &space, blob_len, &stage2, pa_bits, reach, &maps)?;
            let restart = self.restart_roots(&mut pages, &el2, trees)?;
            let used = pages.used();
            if used - before_el2 == guess {
                break (space, area, views, el2, restart, used);
            }
            guess = used - before_el2;
        };
        header.ttbr0_el2 = pages.pa_of(el2.root.page);
        header.tcr_el2 = el2.tcr;
        let its = self.bake_its(&mut pages, &baked, area.as_ref(), &views);
        let len = tables_at + used * TABLE;

        records.cpus.count = 0;
        self.cpus(&mut blob, &mut records, &space)?;
        self.domains(&mut blob, &records, &space, &stage2, tables_pa, &restart)?;
        self.moves(trees, area.as_ref(), |index, record| blob.set(records.moves, index, record))?;
        if let Some(area) = &area {
            self.pci_records(&mut blob, &records, &views, area, &stage2, &its, tables_pa, pa_bits)?;
            self.settle_area(&mut blob, sections.facts, area)?;
        }
        let mut reload = 0;
        for domain in 0..self.layout.domains.len() {
            self.reloads(domain, trees, |record| {
                reload += 1;
                blob.set(records.reloads, reload - 1, record)
            })?;
        }
        self.settle_payloads(&mut blob, sections.payloads, trees)?;

        self.constants(&mut header, &space, pa_bits);
        let image_len = up((blob_offset + len as u64).max(self.placed.image_len), 16);
        (header.records_len, header.blob_len) = (records_len as u32, len as u32);
        (header.blob_offset, header.image_len) = (blob_offset as u32, image_len);
        (header.audit, header.tables) = (audit, Table { offset: tables_at as u32, count: used as u32 });
        (header.cpus, header.domains, header.vcpus) = (records.cpus, records.domains, records.vcpus);
        (header.spis, header.icfgr, header.moves) = (records.spis, records.icfgr, records.moves);
        (header.probes, header.scrubs, header.reloads) = (records.probes, records.scrubs, records.reloads);
        header.pci = records.pci.record;
        header.tables_crc =
            tables_checksum(blob.bytes, header.records_len, header.blob_len).ok_or(EmitError::Internal)?;
        blob.put(0, header.as_bytes())?;
        header.records_crc = records_checksum(blob.bytes, header.records_len).ok_or(EmitError::Internal)?;
        blob.put(0, header.as_bytes())?;
        Ok(Emitted { len, image_len })
    }

    pub(super) fn stage2(
        &self,
        pages: &mut Pages<'_>,
        pa_bits: u32,
    ) -> Result<heapless::Vec<Stage2, MAX_DOMAINS>, EmitError> {
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
                if count == size && self.has_stream(id) {
                    tables.dma = pages.root(level, count)?;
                }
            }
        }
        for (id, tables) in all.iter_mut().enumerate() {
            *tables = stage2::build(pages, *tables, self.pieces_of(id), pa_bits)?;
        }
        for (id, tables) in all.iter().enumerate().filter(|(_, tables)| tables.dma.pages != 0) {
            stage2::share(pages, tables, self.doorbell(id))?;
        }
        Ok(all)
    }

    pub(super) fn space(&self, end: u64, roots: u64) -> Space {
        let cpus = self.planned_cpus();
        let spare = cpus < self.board.cpus.len();
        let gicv2 = self.board.gic.is_some_and(|gic| gic.is_v2());
        let frames = gicv2.then_some(if self.injects() { 3 } else { 2 });
        let counts = Counts { cpus, domains: self.layout.domains.len(), root_pages: roots };
        Space::new(end, &counts, spare, frames, self.board.console.is_some())
    }

    #[allow(clippy::too_many_arguments)] // each is another thing it maps
    pub(super) fn el2(
        &self,
        pages: &mut Pages<'_>,
        space: &Space,
        blob_len: u64,
        stage2: &[Stage2],
        pa_bits: u32,
        restart_reach: u64,
        pci: &[el2::Map],
    ) -> Result<el2::El2, EmitError> {
        let gic = self.board.gic.as_ref().ok_or(EmitError::Internal)?;
        let mut frames = heapless::Vec::<u64, MAX_CPUS>::new();
        match gic.frames {
            GicFrames::V3 { gicr } => {
                for cpu in self.layout.domains.iter().flat_map(|domain| &domain.cpus) {
                    frames.push(gicr.base.0 + cpu.value as u64 * GICR_SIZE).map_err(|_| EmitError::Internal)?;
                }
            }
            GicFrames::V2 { gicc, gich, .. } => {
                let all = [gicc.base.0, gich.base.0, gicc.base.0 + PAGE];
                let used = all.get(..if self.injects() { 3 } else { 2 }).unwrap_or(&[]);
                frames.extend_from_slice(used).map_err(|_| EmitError::Internal)?;
            }
        }
        let page = |uart: &Option<crate::model::Uart<'a>>| uart.as_ref().map(|uart| down(uart.region.base.0, PAGE));
        let physical = Physical {
            base: self.placed.base,
            blob: self.hypervisor.len,
            blob_len,
            gicd: gic.gicd.base.0,
            frames: &frames,
            console: page(&self.board.console),
            log: page(&self.board.log),
            restart_reach,
            pci,
        };
        let mut roots = heapless::Vec::<(Root, u64, u32), MAX_DOMAINS>::new();
        for tables in stage2 {
            let root = (tables.root, pages.pa_of(tables.root.page), tables.entries);
            roots.push(root).map_err(|_| EmitError::Internal)?;
        }
        let windows = roots.iter().map(|(root, pa, entries)| (root.page, *pa, u64::from(*entries).div_ceil(512)));
        Ok(el2::build(pages, self.hypervisor, space, &physical, windows, pa_bits)?)
    }

    /// Writes every domain's device tree, in the order of the payloads.
    pub(super) fn trees(&self, blob: &mut Blob<'_>, strings: &mut [u8], images: &dyn Images) -> Result<(), EmitError> {
        for part in self.payloads.iter().filter(|part| part.kind == payload::DTB) {
            let end = blob.at + part.mem as usize;
            let room = blob.bytes.get_mut(blob.at..end).ok_or(Full(Lent::Blob))?;
            room.fill(0);
            if part.file.is_empty() {
                let domain = self.layout.domains.get(part.domain as usize).ok_or(EmitError::Internal)?;
                let decided = self.decided.get(part.domain as usize).ok_or(EmitError::Internal)?;
                let id = part.domain as usize;
                let (board, layout, pci) = (self.board, self.layout, self.pci);
                Guest { board, layout, domain, decided, id, pci }.write(room, strings)?;
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
}
