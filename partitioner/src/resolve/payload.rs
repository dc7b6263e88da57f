//! Where kernel, initial RAM disk and device tree lie in a guest's address space.
//!
//! Defaults: the device tree in the last 2 MiB-aligned slot of the first memory region (where that is taken or does not
//! exist, in the region's last pages); the RAM disk on the first page behind the kernel (where it does not fit there,
//! at the start of the region, else behind the first other part where it does). Files of the layout say where they go.

use super::image::{Kernel, empty, missing};
use super::pinned::fixed;
use super::util::{down, up};
use super::{BLOCK, Decided, PAGE, Payload};
use crate::codes;
use crate::compile::{ImageFile, Images};
use crate::lent::{Full, List};
use crate::model::{At, Domain, Memory};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics};
use cofferdam_plan::Ipa;
use cofferdam_plan::audit::payload;

/// Largest device tree a guest can be given (Linux, Documentation/arch/arm64/booting.rst).
pub(crate) const MAX_DTB: u64 = 2 << 20;
/// Longest command line Linux reads on arm64, its NUL included (`COMMAND_LINE_SIZE`).
const COMMAND_LINE: usize = 2048;

/// One domain's payloads, in the making.
pub(crate) struct Loader<'d, 'a> {
    /// Index of the domain.
    pub(crate) id: u32,
    /// The domain.
    pub(crate) domain: &'d Domain<'a>,
    /// Index of its first payload.
    pub(crate) first: usize,
}

impl<'a> Loader<'_, 'a> {
    /// Reads kernel and RAM disk. The RAM disk has no place yet.
    ///
    /// Returns the RAM disk's length, 0 where there is none.
    pub(crate) fn files(
        &self,
        images: &dyn Images,
        payloads: &mut List<'_, Payload<'a>>,
        decided: &mut Decided,
        out: &mut Diagnostics<'_, 'a>,
    ) -> Result<u64, Full> {
        let domain = self.domain;
        if let Some(args) = domain.bootargs
            && args.value.len() >= COMMAND_LINE
        {
            out.push(
                Diagnostic::new(codes::BOOTARGS_LONG, args.span, "`bootargs` of domain `{0}` are {1} bytes long")
                    .args(&[Arg::Text(domain.name), Arg::Number(args.value.len() as u64)])
                    .label("Linux cuts them off after 2047")
                    .help("shorten them"),
            );
        }
        decided.entry = domain.main_memory().map_or(0, |memory| memory.ipa.base.0);
        if let Some(path) = domain.kernel {
            match images.open(path.value) {
                ImageFile::Bytes(bytes) => {
                    let kernel = Kernel { id: self.id, domain, path, bytes };
                    kernel.read(payloads, decided, out)?;
                    self.kernel_places(payloads, out);
                    self.entry(payloads, decided, path, out);
                }
                ImageFile::Missing => out.push(missing(path, domain.name)),
                ImageFile::Skipped => {}
            }
        }
        let Some(path) = domain.initrd else { return Ok(0) };
        match images.open(path.value) {
            ImageFile::Bytes([]) => out.push(empty(path)),
            ImageFile::Bytes(bytes) => return Ok(bytes.len() as u64),
            ImageFile::Missing => out.push(missing(path, domain.name)),
            ImageFile::Skipped => {}
        }
        Ok(0)
    }

    /// The memory region that holds all of a range.
    fn region(&self, base: u64, end: u64) -> Option<&Memory<'a>> {
        self.domain.memory.iter().find(|m| base >= m.ipa.base.0 && end <= m.ipa.end().0 && base <= end)
    }

    fn mine<'l>(&self, payloads: &'l List<'_, Payload<'a>>) -> &'l [Payload<'a>] {
        payloads.get(self.first..).unwrap_or(&[])
    }

    fn kernel_places(&self, payloads: &mut List<'_, Payload<'a>>, out: &mut Diagnostics<'_, 'a>) {
        let Some(mine) = payloads.get_mut(self.first..) else { return };
        mine.sort_unstable_by_key(|part| part.ipa);
        let name = Arg::Text(self.domain.name);
        for part in mine.iter() {
            let args = [name, Arg::Text(part.file), Arg::Range(part.ipa, part.mem)];
            if self.region(part.ipa, part.end()).is_some() {
                continue;
            }
            let start = self.domain.memory.iter().find(|m| m.ipa.contains(Ipa(part.ipa)));
            let Some(memory) = start else {
                let wrong = self.domain.load.map_or(part.span, |load| load.span);
                let mut diagnostic = Diagnostic::new(
                    codes::PAYLOAD_PLACE,
                    wrong,
                    "`{1}` loads at {2}, where domain `{0}` has no memory",
                )
                .args(&args)
                .help("give the domain memory there, or link the kernel for an address it has");
                if let Some(memory) = self.domain.memory.first() {
                    diagnostic = diagnostic.also(memory.span, "its memory");
                }
                out.push(diagnostic);
                continue;
            };
            out.push(
                Diagnostic::new(
                    codes::IMAGE_TOO_LARGE,
                    part.span,
                    "`{1}` needs {2}, more than the memory of domain `{0}` has",
                )
                .args(&args)
                .label("the file's data and the zeroes behind it")
                .also(memory.span, "this region is too small")
                .help("make the region larger"),
            );
        }
        for part in mine.iter() {
            self.copied(part, out);
        }
        for pair in mine.windows(2) {
            let [a, b] = pair else { continue };
            if b.ipa < a.end() {
                out.push(
                    Diagnostic::new(codes::PAYLOAD_PLACE, b.span, "two segments of `{1}` overlap: {2} and {3}")
                        .args(&[name, Arg::Text(b.file), Arg::Range(a.ipa, a.mem), Arg::Range(b.ipa, b.mem)])
                        .help("link them apart"),
                );
            }
        }
    }

    /// A payload of memory fixed elsewhere is copied by the boot stub, 16 bytes at a time.
    fn copied(&self, part: &Payload<'a>, out: &mut Diagnostics<'_, 'a>) {
        let memory = self.region(part.ipa, part.end()).filter(|memory| fixed(memory).is_some());
        if let Some(memory) = memory.filter(|_| !part.ipa.is_multiple_of(16)) {
            out.push(
                Diagnostic::new(
                    codes::PAYLOAD_PLACE,
                    part.span,
                    "{1} of domain `{0}` must be copied to {2}, which is not a multiple of 16",
                )
                .args(&[Arg::Text(self.domain.name), Arg::Text(part.file), Arg::Hex(part.ipa)])
                .also(memory.span, "this memory is fixed, so nothing can start where the image has it")
                .help("align it to 16 bytes, or let the compiler place the memory"),
            );
        }
    }

    fn entry(
        &self,
        payloads: &List<'_, Payload<'a>>,
        decided: &mut Decided,
        path: At<&'a str>,
        out: &mut Diagnostics<'_, 'a>,
    ) {
        let mine = self.mine(payloads);
        if mine.is_empty() {
            return;
        }
        let span = self.domain.entry.map_or(path.span, |entry| entry.span);
        decided.entry = self.domain.entry.map_or(decided.entry, |entry| entry.value.0);
        let inside =
            mine.iter().any(|part| part.executable && decided.entry >= part.ipa && decided.entry - part.ipa < part.len);
        if !inside || !decided.entry.is_multiple_of(4) {
            let args = [Arg::Text(self.domain.name), Arg::Text(path.value), Arg::Hex(decided.entry)];
            let mut diagnostic = Diagnostic::new(
                codes::ENTRY,
                span,
                "domain `{0}` would start at {2}, which is no instruction of `{1}`",
            )
            .args(&args)
            .help("the entry must be a multiple of 4 inside an executable part of the file");
            if self.domain.entry.is_some() {
                diagnostic = diagnostic.also(path.span, "the kernel");
            }
            out.push(diagnostic);
        }
    }

    /// Length of the device tree the layout brings, where it is one.
    pub(crate) fn given_dtb(
        &self,
        path: At<&'a str>,
        images: &dyn Images,
        out: &mut Diagnostics<'_, 'a>,
    ) -> Option<u64> {
        let bytes = match images.open(path.value) {
            ImageFile::Bytes(bytes) => bytes,
            ImageFile::Missing => {
                out.push(missing(path, self.domain.name));
                return None;
            }
            ImageFile::Skipped => return None,
        };
        if bytes.is_empty() {
            out.push(empty(path));
            return None;
        }
        let word = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
        let total = word(4).map_or(0, u64::from);
        if word(0) != Some(0xD00D_FEED) || total < 40 || total > bytes.len() as u64 {
            out.push(
                Diagnostic::new(codes::DTB_DAMAGED, path.span, "`{0}` is no flattened device tree")
                    .args(&[Arg::Text(path.value)])
                    .help(
                        "`dtb` wants what dtc makes; leave it out and the compiler makes a tree that fits the domain",
                    ),
            );
            return None;
        }
        Some(total)
    }

    /// Decides where the device tree of `len` bytes goes and adds it to `payloads`.
    pub(crate) fn place_dtb(
        &self,
        len: u64,
        payloads: &mut List<'_, Payload<'a>>,
        decided: &mut Decided,
        out: &mut Diagnostics<'_, 'a>,
    ) -> Result<(), Full> {
        let Some(memory) = self.domain.main_memory() else { return Ok(()) };
        let size = up(len, 16);
        let span = self.domain.dtb_load.map(|at| at.span).or(self.domain.dtb.map(|at| at.span)).unwrap_or(memory.span);
        let args = [Arg::Text(self.domain.name), Arg::None, Arg::Bytes(len)];
        if len > MAX_DTB {
            out.push(
                Diagnostic::new(codes::DTB_PLACE, span, "the device tree of domain `{0}` has {2}, more than 2 MiB")
                    .args(&args)
                    .help("guests map no more than 2 MiB of it: make it smaller"),
            );
            return Ok(());
        }
        let at = match self.domain.dtb_load {
            Some(load) => {
                let at = load.value.0;
                if !at.is_multiple_of(16) {
                    let args = [args[0], Arg::Hex(at)];
                    out.push(
                        Diagnostic::new(
                            codes::DTB_PLACE,
                            load.span,
                            "`dtb-load` {1} of domain `{0}` is not a multiple of 16",
                        )
                        .args(&args)
                        .help("guests want 8 at least, the boot stub copies 16 bytes at a time"),
                    );
                    return Ok(());
                }
                at
            }
            None => self.default_dtb(memory, size, payloads),
        };
        let part = Payload {
            domain: self.id,
            kind: payload::DTB,
            ipa: at,
            file: self.domain.dtb.map_or("", |path| path.value),
            len,
            mem: size,
            span,
            ..Payload::default()
        };
        self.fits(
            &part,
            codes::DTB_PLACE,
            "the device tree of domain `{0}` would lie at {2}, outside its memory",
            payloads,
            out,
        );
        decided.dtb = at;
        decided.dtb_len = len;
        payloads.push(part)
    }

    fn default_dtb(&self, memory: &Memory<'a>, size: u64, payloads: &List<'_, Payload<'a>>) -> u64 {
        let (base, end) = (memory.ipa.base.0, memory.ipa.end().0);
        let free = |at: u64| self.mine(payloads).iter().all(|p| at >= p.end() || at.saturating_add(size) <= p.ipa);
        let slot = down(end.saturating_sub(1), BLOCK);
        if slot >= base && end - slot >= size && free(slot) {
            return slot;
        }
        down(end.saturating_sub(size), PAGE).max(base)
    }

    /// Decides where the RAM disk of `len` bytes goes and adds it.
    pub(crate) fn place_initrd(
        &self,
        len: u64,
        payloads: &mut List<'_, Payload<'a>>,
        decided: &mut Decided,
        out: &mut Diagnostics<'_, 'a>,
    ) -> Result<(), Full> {
        let (Some(path), Some(memory)) = (self.domain.initrd, self.domain.main_memory()) else { return Ok(()) };
        let free = |at: u64| {
            let end = at.saturating_add(len);
            self.region(at, end).is_some() && self.mine(payloads).iter().all(|p| at >= p.end() || end <= p.ipa)
        };
        let kernel = self.mine(payloads).iter().filter(|p| p.kind == payload::KERNEL).map(Payload::end).max();
        let behind = up(kernel.unwrap_or(memory.ipa.base.0), PAGE);
        let others = self.mine(payloads).iter().map(|p| up(p.end(), PAGE)).filter(|at| free(*at)).min();
        let at = match self.domain.initrd_load {
            Some(load) => load.value.0,
            None if free(behind) => behind,
            None if free(memory.ipa.base.0) => memory.ipa.base.0,
            None => others.unwrap_or(behind),
        };
        let span = self.domain.initrd_load.map_or(path.span, |load| load.span);
        let part = Payload {
            domain: self.id,
            kind: payload::INITRD,
            ipa: at,
            file: path.value,
            len,
            mem: len,
            zeroed: true,
            span,
            ..Payload::default()
        };
        self.fits(
            &part,
            codes::INITRD_PLACE,
            "`{1}` of domain `{0}` would lie at {2}, outside its memory",
            payloads,
            out,
        );
        decided.initrd = Some((at, at.saturating_add(len)));
        payloads.push(part)
    }

    /// Whether a part lies in one memory region and on no other part; reports where it does not.
    pub(super) fn fits(
        &self,
        part: &Payload<'a>,
        code: cofferdam_dts::Code,
        outside: &'static str,
        payloads: &List<'_, Payload<'a>>,
        out: &mut Diagnostics<'_, 'a>,
    ) {
        let args = [Arg::Text(self.domain.name), Arg::Text(part.file), Arg::Range(part.ipa, part.mem)];
        self.copied(part, out);
        if self.region(part.ipa, part.end()).is_none() {
            let mut diagnostic = Diagnostic::new(code, part.span, outside)
                .args(&args)
                .help("give it an address in the domain's memory, or make that larger");
            if let Some(memory) = self.domain.memory.first().filter(|memory| memory.span != part.span) {
                diagnostic = diagnostic.also(memory.span, "its memory");
            }
            out.push(diagnostic);
            return;
        }
        // One that lies outside itself has been reported.
        let lies = |p: &&Payload<'a>| self.region(p.ipa, p.end()).is_some();
        let other = self.mine(payloads).iter().filter(lies).find(|p| part.ipa < p.end() && p.ipa < part.end());
        if let Some(other) = other {
            let text = |p: &Payload<'a>| Arg::Text(kind(p));
            let mut diagnostic = Diagnostic::new(
                codes::PAYLOAD_PLACE,
                part.span,
                "the {1} of domain `{0}` at {2} and its {3} at {4} overlap",
            )
            .args(&[args[0], text(part), args[2], text(other), Arg::Range(other.ipa, other.mem)])
            .help("make the memory larger, or put them apart: by `dtb-load`, `initrd-load`, or the `reg` of a file");
            if other.span != part.span {
                diagnostic = diagnostic.also(other.span, "the other one");
            }
            out.push(diagnostic);
        }
    }
}

fn kind(part: &Payload<'_>) -> &'static str {
    match part.kind {
        payload::KERNEL => "kernel",
        payload::INITRD => "RAM disk",
        payload::FILE => "file",
        _ => "device tree",
    }
}
