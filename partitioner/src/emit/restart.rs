//! What a restart writes, and the tables it writes through: a domain's RAM and its pristine copy, and nothing else. And who
//! looks whether one is due.
//!
//! The pristine copy is page for page a picture of the RAM that holds files; the device tree is taken from the plan. A
//! restart writes every byte of the domain's RAM once: from there, or zero.

use super::assemble::{EmitError, Input};
use super::el2::{self, El2};
use super::pages::Pages;
use super::stage2::joined;
use crate::lent::Full;
use crate::model::Delivery;

use crate::resolve::util::{down, up};
use crate::resolve::{PAGE, Payload};
use cofferdam_plan::audit::{grant, payload};
use cofferdam_plan::limits::MAX_DOMAINS;
use cofferdam_plan::{CpuIndex, Move, Pa};

/// Guest addresses that must have their bytes again, and where these are in the image.
#[derive(Clone, Copy)]
struct Source {
    start: u64,
    end: u64,
    offset: u64,
    is_tree: bool,
}

impl<'a> Input<'_, 'a, '_> {
    fn restarts(&self, domain: usize) -> bool {
        self.layout.domains.get(domain).is_some_and(|domain| domain.lifecycle.restarts())
    }

    /// The CPU that looks after the watchdog of `domain`: that of vCPU 0 of the next domain, by the order of the layout and round
    /// its end, the domain itself the last, that cannot hold off EL2's interrupts because its own are injected; else of the next.
    pub(super) fn watcher(&self, domain: usize) -> CpuIndex {
        let domains = &self.layout.domains;
        let others = (domain + 1..domains.len()).chain(0..domain);
        let sure = |id: &usize| domains.get(*id).is_some_and(|domain| domain.delivery == Delivery::Injected);
        let chosen = others.clone().chain([domain]).find(sure).or(others.clone().next()).unwrap_or(0);
        CpuIndex(domains.iter().take(chosen).map(|domain| domain.cpus.len()).sum::<usize>() as u16)
    }

    /// How often `cpu` looks after watchdogs: four times within the shortest of them. 0 where it looks after none.
    pub(super) fn watch_ms(&self, cpu: CpuIndex) -> u32 {
        let domains = self.layout.domains.iter().enumerate().filter(|(_, domain)| domain.lifecycle.watchdog_ms != 0);
        let cared = domains.filter(|(id, _)| self.watcher(*id) == cpu);
        cared.map(|(_, domain)| domain.lifecycle.watchdog_ms / 4).min().unwrap_or(0)
    }

    /// Image offset of the copy of `payload` that no domain reaches; 0 where its domain never starts again. `tree`: where it
    /// is in the plan, if it is a device tree.
    pub(super) fn pristine(&self, payload: &Payload<'a>, tree: u64) -> u64 {
        match payload.kind {
            payload::DTB if self.restarts(payload.domain as usize) => tree,
            payload::DTB => 0,
            _ => payload.pristine,
        }
    }

    /// The sources of one domain, ascending. Trees lie from image offset `trees` on.
    fn sources(&self, domain: usize, trees: u64) -> impl Iterator<Item = Source> + Clone {
        let mut tree_at = trees;
        self.payloads.iter().filter_map(move |payload| {
            let is_tree = payload.kind == payload::DTB;
            let offset = self.pristine(payload, tree_at);
            if is_tree {
                tree_at += payload.mem;
            }
            if payload.domain as usize != domain || payload.len == 0 {
                return None;
            }
            // Files are copied by whole pages: between them the picture holds zeroes.
            let unit = if is_tree { 16 } else { PAGE };
            let (start, end) = (down(payload.ipa, unit), up(payload.ipa + payload.len, unit));
            Some(Source { start, end, offset: down(offset, unit), is_tree })
        })
    }

    /// What a restart of `domain` writes, in the order of its RAM.
    pub(super) fn reloads(
        &self,
        domain: usize,
        trees: u64,
        mut each: impl FnMut(&Move) -> Result<(), Full>,
    ) -> Result<(), Full> {
        if !self.restarts(domain) {
            return Ok(());
        }
        let sources = self.sources(domain, trees);
        for piece in joined(self.pieces_of(domain)).filter(|piece| piece.kind == grant::RAM) {
            let (mut at, end) = (piece.ipa, piece.ipa + piece.size);
            while at < end {
                // The tree may share a page with a file, where the picture has zeroes.
                let here = sources.clone().filter(|source| source.start <= at && at < source.end);
                let here = here.max_by_key(|source| source.is_tree);
                let next = sources
                    .clone()
                    .filter(|next| next.start > at && here.is_none_or(|here| next.is_tree && !here.is_tree));
                let next = next.map(|next| next.start).min().unwrap_or(end);
                let to = Pa(piece.pa + (at - piece.ipa));
                let until = here.map_or(next, |here| here.end.min(next)).min(end);
                each(&match here {
                    Some(here) => Move { offset: here.offset + (at - here.start), to, len: until - at, zero: 0 },
                    None => Move { offset: 0, to, len: 0, zero: until - at },
                })?;
                at = until;
            }
        }
        Ok(())
    }

    /// Highest physical address a restart root maps, plus one; 0 without one.
    pub(super) fn restart_reach(&self, trees: u64) -> u64 {
        let domains = (0..self.layout.domains.len()).filter(|domain| self.restarts(*domain));
        let ends = domains.flat_map(|domain| {
            let ram = self.pieces_of(domain).iter().filter(|piece| piece.kind == grant::RAM);
            let sources = self.sources(domain, trees);
            let pristine =
                sources.map(|source| self.placed.base + up(source.offset + (source.end - source.start), PAGE));
            ram.map(|piece| piece.pa + piece.size).chain(pristine)
        });
        ends.max().unwrap_or(0)
    }

    /// Builds the restart root of every domain that may start again. Answers their physical addresses, 0 for the others.
    pub(super) fn restart_roots(
        &self,
        pages: &mut Pages<'_>,
        el2: &El2,
        trees: u64,
    ) -> Result<heapless::Vec<u64, MAX_DOMAINS>, EmitError> {
        let mut roots = heapless::Vec::new();
        let base = self.placed.base;
        for domain in 0..self.layout.domains.len() {
            let mut root = 0;
            if self.restarts(domain) {
                let ram = joined(self.pieces_of(domain)).filter(|piece| piece.kind == grant::RAM);
                let ram = ram.map(|piece| (piece.pa, piece.size));
                // Neighbours in one page lie in one page of the picture.
                let mut last = 0..0;
                let pristine = self.sources(domain, trees).filter_map(|source| {
                    let start = base + down(source.offset, PAGE);
                    let end = base + up(source.offset + (source.end - source.start), PAGE);
                    let mut from = start;
                    if !source.is_tree {
                        from = if last.contains(&start) { last.end } else { start };
                        last = start..end;
                    }
                    (from < end).then(|| (from, end - from))
                });
                let built = el2::restart(pages, el2.root.level, base, ram, pristine)?;
                root = pages.pa_of(built.page);
            }
            roots.push(root).map_err(|_| EmitError::Internal)?;
        }
        Ok(roots)
    }
}
