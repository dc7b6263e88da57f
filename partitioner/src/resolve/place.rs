//! Physical placement: the image at its planned address, payload blocks right behind the hypervisor, the rest where free.
//!
//! The image is an exact picture of RAM, so a block that carries a kernel or RAM disk is mapped where the image puts it and
//! nothing is copied. Payloads of memory fixed elsewhere are carried at the end of the image, page by page, and copied. What
//! lies in place of a domain that may start again is carried there once more, out of every domain's reach.

use super::pinned::fixed;
use super::util::{congruent, down, up};
use super::{BLOCK, Carried, GIB, PAGE, Payload, Piece, Range};
use crate::codes;
use crate::lent::{Full, List};
use crate::model::{Board, Carveout, Domain, Layout, Memory};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics};
use cofferdam_plan::audit::{grant, payload};

/// Where everything is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    /// Physical address of the image.
    pub(crate) base: u64,
    /// Bytes of the hypervisor's area from `base`, whole blocks.
    pub(crate) area: u64,
    /// Bytes of the image that payloads need; 0 where there are none behind the hypervisor.
    pub(crate) image_len: u64,
    /// Image bytes copied to fixed memory at boot, or by a restart: first and behind the last offset.
    pub(crate) cargo: (u64, u64),
    /// Bytes of RAM no domain has.
    pub(crate) unused: u64,
}

/// The placer's state. `ranges` holds the fixed regions sorted by address, then what else is in use, then free ranges.
pub(crate) struct Placer<'p, 'm, 'a, 'l> {
    pub(crate) board: &'p Board<'a>,
    pub(crate) layout: &'p Layout<'a, 'l>,
    pub(crate) payloads: &'p mut [Payload<'a>],
    pub(crate) pieces: &'p mut List<'m, Piece>,
    pub(crate) ranges: &'p mut List<'m, Range>,
    /// Physical address of the image, once decided.
    pub(crate) base: u64,
}

/// A place for `area` bytes of hypervisor: the first 2 MiB boundary at least 2 MiB above the start of RAM that has room.
///
/// The first 2 MiB are the boot loader's (QEMU keeps its device tree there). `None` where no such place is.
pub(crate) fn base(board: &Board<'_>, area: u64) -> Option<u64> {
    let bank = board.ram.iter().map(|bank| bank.value).min_by_key(|bank| bank.base)?;
    let mut at = up(bank.base.0.saturating_add(BLOCK), BLOCK);
    loop {
        let end = at.checked_add(area)?;
        if end > bank.end().0 {
            return None;
        }
        let taken = board.reserved.iter().find(|r| r.region.base.0 < end && at < r.region.end().0);
        match taken {
            Some(taken) => at = up(taken.region.end().0, BLOCK),
            None => return Some(at),
        }
    }
}

impl<'a> Placer<'_, '_, 'a, '_> {
    /// Places everything. `None` after an error.
    pub(crate) fn run(&mut self, area: u64, out: &mut Diagnostics<'_, 'a>) -> Result<Option<Placed>, Full> {
        let errors = out.errors();
        let Some(base) = base(self.board, area) else {
            out.push(self.no_room(area));
            return Ok(None);
        };
        self.base = base;
        let fixed_count = self.ranges.len();
        for range in self.ranges.iter() {
            if range.base < base + area && base < range.end {
                out.push(self.on_hypervisor(range, base, area));
            }
        }
        if out.errors() != errors {
            return Ok(None);
        }
        let Some(mut placed) = self.image(base, area, fixed_count, out)? else { return Ok(None) };
        let first_free = self.free()?;
        for (id, domain) in self.layout.domains.iter().enumerate() {
            for (index, memory) in domain.memory.iter().enumerate() {
                self.rest(id, domain, index, memory, first_free, out)?;
            }
        }
        self.pieces.sort_unstable_by_key(|piece| (piece.domain, piece.ipa));
        self.whole_trees(out);
        placed.unused = self.ranges.get(first_free..).unwrap_or(&[]).iter().map(|free| free.end - free.base).sum();
        Ok((out.errors() == errors).then_some(placed))
    }

    /// Puts payload blocks behind the hypervisor, then the cargo.
    fn image(
        &mut self,
        base: u64,
        area: u64,
        fixed_count: usize,
        out: &mut Diagnostics<'_, 'a>,
    ) -> Result<Option<Placed>, Full> {
        let mut at = base + area;
        let first = self.pieces.len();
        for copied in [false, true] {
            for (id, domain) in self.layout.domains.iter().enumerate() {
                for (index, memory) in domain.memory.iter().enumerate() {
                    if fixed(memory).is_some() != copied {
                        continue;
                    }
                    let unit = if copied { PAGE } else { BLOCK };
                    let mut from = memory.ipa.base.0;
                    while let Some((start, end)) = self.run_of(id as u32, memory, from, unit) {
                        from = end;
                        let size = end - start;
                        let whole = up(start, BLOCK).saturating_add(BLOCK) <= end;
                        let wanted = if whole { congruent(at, start, BLOCK) } else { up(at, PAGE) };
                        let Some(place) =
                            self.behind_fixed(wanted, start, size, if whole { BLOCK } else { PAGE }, fixed_count)
                        else {
                            out.push(self.no_room(at - base + size));
                            return Ok(None);
                        };
                        at = place + size;
                        let (pa, carried) = match fixed(memory) {
                            Some((pa, _)) => (pa + (start - memory.ipa.base.0), Carried::Copied(place - base)),
                            None => (place, Carried::InPlace),
                        };
                        let (domain, kind) = (id as u32, grant::RAM);
                        self.pieces.push(Piece {
                            domain,
                            kind,
                            ipa: start,
                            pa,
                            size,
                            source: index as u32,
                            carried,
                        })?;
                    }
                }
            }
        }
        let mut placed = Placed { base, area, image_len: 0, cargo: (0, 0), unused: 0 };
        let runs = self.pieces.get(first..).unwrap_or(&[]);
        let offset_of = |piece: &Piece| match piece.carried {
            Carried::InPlace => piece.pa - base,
            Carried::Copied(offset) => offset,
            Carried::No => 0,
        };
        for part in self.payloads.iter_mut().filter(|part| part.kind != payload::DTB) {
            let restarts = self.layout.domains.get(part.domain as usize).is_some_and(|d| d.lifecycle.restarts());
            let end = part.ipa + if part.zeroed { part.mem } else { part.len };
            let mine = |run: &&Piece| run.domain == part.domain && part.ipa < run.ipa + run.size && run.ipa < end;
            for run in runs.iter().filter(mine) {
                if part.len != 0 && part.ipa >= run.ipa {
                    part.offset = offset_of(run) + (part.ipa - run.ipa);
                    // Nobody reaches what is copied at boot: it is as good at every restart.
                    if restarts && matches!(run.carried, Carried::Copied(_)) {
                        part.pristine = part.offset;
                    }
                }
                // Zeroes of a payload that lie in the image must be part of it.
                let last = end.min(run.ipa + run.size) - run.ipa;
                placed.image_len = placed.image_len.max(offset_of(run) + last);
            }
        }
        for run in runs.iter().filter(|run| matches!(run.carried, Carried::Copied(_))) {
            let offset = offset_of(run);
            if placed.cargo.1 == 0 {
                placed.cargo.0 = offset;
            }
            placed.cargo.1 = offset + run.size;
            placed.image_len = placed.image_len.max(placed.cargo.1);
        }
        if !self.pristine(&mut placed, &mut at, fixed_count, out) {
            return Ok(None);
        }
        // What the image covers is in use, whatever lies between its parts.
        let used = Range { base, end: at.max(base + area), ..Range::default() };
        self.ranges.push(used)?;
        Ok(Some(placed))
    }

    /// Puts a second copy of what lies in place of domains that may start again behind everything else. False after an error.
    fn pristine(
        &mut self,
        placed: &mut Placed,
        at: &mut u64,
        fixed_count: usize,
        out: &mut Diagnostics<'_, 'a>,
    ) -> bool {
        for (id, domain) in self.layout.domains.iter().enumerate().filter(|(_, d)| d.lifecycle.restarts()) {
            for memory in domain.memory.iter().filter(|memory| fixed(memory).is_none()) {
                let mut from = memory.ipa.base.0;
                while let Some((start, end)) = self.run_of(id as u32, memory, from, PAGE) {
                    from = end;
                    let size = end - start;
                    let Some(place) = self.behind_fixed(up(*at, PAGE), start, size, PAGE, fixed_count) else {
                        out.push(self.no_room(*at - placed.base + size));
                        return false;
                    };
                    *at = place + size;
                    let offset = place - placed.base;
                    let held = |part: &&mut Payload<'_>| {
                        part.domain == id as u32
                            && part.kind != payload::DTB
                            && part.len != 0
                            && part.ipa >= start
                            && part.ipa < end
                    };
                    for part in self.payloads.iter_mut().filter(held) {
                        part.pristine = offset + (part.ipa - start);
                    }
                    if placed.cargo.1 == 0 {
                        placed.cargo.0 = offset;
                    }
                    placed.cargo.1 = offset + size;
                    placed.image_len = placed.image_len.max(placed.cargo.1);
                }
            }
        }
        true
    }

    /// The first run of `unit`-sized blocks of `memory` at or above `from` that hold bytes of a file.
    fn run_of(&self, domain: u32, memory: &Memory<'_>, from: u64, unit: u64) -> Option<(u64, u64)> {
        let (base, end) = (memory.ipa.base.0, memory.ipa.end().0);
        let clip =
            |part: &Payload<'_>| (down(part.ipa, unit).max(base), up(part.ipa.saturating_add(part.len), unit).min(end));
        let mut run: Option<(u64, u64)> = None;
        for part in self.payloads.iter() {
            let mine = part.domain == domain && part.kind != payload::DTB && part.len != 0;
            if !mine || part.ipa < base || part.ipa >= end {
                continue;
            }
            let (start, stop) = clip(part);
            // Payloads are sorted by address, so a run can only grow at its end.
            match &mut run {
                _ if stop <= from => {}
                None => run = Some((start.max(from), stop)),
                Some(run) if start <= run.1 => run.1 = run.1.max(stop),
                Some(_) => break,
            }
        }
        run
    }

    /// The first place at or above `from`, like `like` modulo `align`, that is RAM of the image's bank, not reserved, and in
    /// no fixed region. A reservation ends the search: the image may not lie across one.
    fn behind_fixed(&self, from: u64, like: u64, size: u64, align: u64, fixed_count: usize) -> Option<u64> {
        let mut at = from;
        loop {
            let end = at.checked_add(size)?;
            let taken = self.ranges.iter().take(fixed_count).find(|range| range.base < end && at < range.end);
            match taken {
                Some(taken) if align == PAGE => at = up(taken.end, PAGE),
                Some(taken) => at = congruent(taken.end, like, align),
                None => {
                    let bank = self.board.ram.iter().find(|b| b.value.base.0 <= from && end <= b.value.end().0)?;
                    let image = self.base..end.min(bank.value.end().0);
                    let across = |r: &Carveout<'_>| r.region.base.0 < image.end && image.start < r.region.end().0;
                    return (!self.board.reserved.iter().any(across)).then_some(at);
                }
            }
        }
    }

    /// Appends the free ranges of RAM, by address, and returns the index of the first.
    fn free(&mut self) -> Result<usize, Full> {
        for reserved in &self.board.reserved {
            let region = reserved.region.widened(PAGE);
            self.ranges.push(Range { base: region.base.0, end: region.end().0, ..Range::default() })?;
        }
        self.ranges.sort_unstable();
        let busy = self.ranges.len();
        for index in 0..self.board.ram.len() {
            let Some(bank) = self.board.ram.get(index).map(|bank| bank.value) else { break };
            let mut at = up(bank.base.0, PAGE);
            let end = down(bank.end().0, PAGE);
            for taken in 0..busy {
                let Some(range) = self.ranges.get(taken).copied() else { break };
                if range.end <= at || range.base >= end {
                    continue;
                }
                if range.base > at {
                    self.ranges.push(Range { base: at, end: down(range.base, PAGE), ..Range::default() })?;
                }
                at = at.max(up(range.end, PAGE));
            }
            if at < end {
                self.ranges.push(Range { base: at, end, ..Range::default() })?;
            }
        }
        Ok(busy)
    }

    /// Places what of a memory region the image does not carry.
    fn rest(
        &mut self,
        id: usize,
        domain: &Domain<'a>,
        index: usize,
        memory: &Memory<'a>,
        first_free: usize,
        out: &mut Diagnostics<'_, 'a>,
    ) -> Result<(), Full> {
        let end = memory.ipa.end().0;
        let mut at = memory.ipa.base.0;
        let mut missing = 0;
        while at < end {
            let carried = self
                .pieces
                .iter()
                .filter(|p| p.kind == grant::RAM && p.domain == id as u32 && p.carried != Carried::No)
                .filter(|p| p.ipa >= at && p.ipa < end)
                .map(|p| (p.ipa, p.ipa + p.size))
                .min();
            let (gap_end, next) = carried.unwrap_or((end, end));
            let mut left = gap_end - at;
            let mut piece =
                Piece { domain: id as u32, kind: grant::RAM, ipa: at, source: index as u32, ..Piece::default() };
            if let (Some((pa, _)), true) = (fixed(memory), left != 0) {
                piece.pa = pa + (at - memory.ipa.base.0);
                piece.size = left;
                self.pieces.push(piece)?;
                left = 0;
            }
            while left != 0 {
                let Some((pa, size)) = self.take(piece.ipa, left, first_free)? else { break };
                self.pieces.push(Piece { pa, size, ..piece })?;
                piece.ipa += size;
                left -= size;
            }
            missing += left;
            at = next;
        }
        if missing != 0 {
            out.push(
                Diagnostic::new(
                    codes::OUT_OF_RAM,
                    memory.span,
                    "{1} of RAM are missing for memory {2} of domain `{0}`",
                )
                .args(&[Arg::Text(domain.name), Arg::Bytes(missing), Arg::Range(memory.ipa.base.0, memory.ipa.size)])
                .label("no free RAM is left for it")
                .help("make this or another domain's memory smaller"),
            );
        }
        Ok(())
    }

    /// Takes RAM for up to `size` bytes at guest address `ipa`: all in one place where possible, with the largest blocks
    /// that are; else as much as the best free range has.
    fn take(&mut self, ipa: u64, size: u64, first_free: usize) -> Result<Option<(u64, u64)>, Full> {
        let has = |unit: u64| up(ipa, unit).saturating_add(unit) <= ipa + size;
        for unit in [GIB, BLOCK, PAGE] {
            if unit != PAGE && !has(unit) {
                continue;
            }
            let free = self.ranges.get(first_free..).unwrap_or(&[]);
            let room = |range: &Range| range.end.saturating_sub(congruent(range.base, ipa, unit));
            let fits = free.iter().position(|range| room(range) >= size);
            let best = (0..free.len()).max_by_key(|index| (room(&free[*index]), usize::MAX - index));
            let partial = best.filter(|index| unit != GIB && room(&free[*index]) >= unit);
            let Some(index) = fits.or(partial) else { continue };
            let range = free[index];
            let pa = congruent(range.base, ipa, unit);
            let taken = if fits.is_some() { size } else { down(ipa + (range.end - pa), unit) - ipa };
            if taken == 0 {
                continue;
            }
            let after = Range { base: pa + taken, ..range };
            if let Some(slot) = self.ranges.get_mut(first_free + index) {
                slot.end = pa;
            }
            if after.base < after.end {
                self.ranges.push(after)?;
            }
            return Ok(Some((pa, taken)));
        }
        Ok(None)
    }

    /// A device tree lies in one piece of RAM: it is proven where it is read, as a whole.
    fn whole_trees(&self, out: &mut Diagnostics<'_, 'a>) {
        for tree in self.payloads.iter().filter(|part| part.kind == payload::DTB) {
            let ram = |piece: &&Piece| piece.domain == tree.domain && piece.kind == grant::RAM;
            let piece = self.pieces.iter().filter(ram).find(|p| (p.ipa..p.ipa + p.size).contains(&tree.ipa));
            let Some(end) = piece.map(|p| p.ipa + p.size).filter(|end| *end < tree.end()) else { continue };
            let name = self.layout.domains.get(tree.domain as usize).map_or("", |domain| domain.name);
            let message = "the device tree of domain `{0}`, {1}, would lie across {2}, where one piece of its RAM ends";
            out.push(
                Diagnostic::new(codes::DTB_SCATTERED, tree.span, message)
                    .args(&[Arg::Text(name), Arg::Range(tree.ipa, tree.mem), Arg::Hex(end)])
                    .help("give `dtb-load` an address in a 2 MiB block without kernel and RAM disk, or make the memory larger"),
            );
        }
    }

    fn no_room(&self, needed: u64) -> Diagnostic<'a> {
        let span = self.board.ram.first().map_or(self.board.tree.root().span(), |bank| bank.span);
        Diagnostic::new(
            codes::NO_ROOM_FOR_IMAGE,
            span,
            "the image needs {0} in one piece, starting 2 MiB above the start of RAM, and there is no such room",
        )
        .args(&[Arg::Bytes(needed)])
        .label("hypervisor and guest images lie here, without a reservation or the end of the bank between")
        .help("use smaller guest images, or pin the memory of a domain elsewhere with `host-address`")
    }

    fn on_hypervisor(&self, range: &Range, base: u64, area: u64) -> Diagnostic<'a> {
        let name = self.layout.domains.get(range.owner as usize).map_or("", |domain| domain.name);
        Diagnostic::new(codes::RAM_HYPERVISOR, range.span, "RAM {1} of domain `{0}` is where the hypervisor lies: {2}")
            .args(&[Arg::Text(name), Arg::Range(range.base, range.end - range.base), Arg::Range(base, area)])
            .help("move it, or leave `host-address` out and let the compiler place it")
    }
}
