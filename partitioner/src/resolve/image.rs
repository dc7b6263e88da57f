//! Guest kernels: which kind a file is, where its parts go, where the guest starts.

use super::elf::{self, ElfError};
use super::util::up;
use super::{BLOCK, Decided, Payload, arm64};
use crate::codes;
use crate::lent::{Full, List};
use crate::model::{At, Domain};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics};
use cofferdam_plan::audit::payload;

/// A kernel's file and who it is for.
pub(crate) struct Kernel<'d, 'a, 'i> {
    pub(crate) id: u32,
    pub(crate) domain: &'d Domain<'a>,
    pub(crate) path: At<&'a str>,
    pub(crate) bytes: &'i [u8],
}

impl<'a> Kernel<'_, 'a, '_> {
    /// Adds the kernel's parts to `payloads` and sets the entry.
    pub(crate) fn read(
        &self,
        payloads: &mut List<'_, Payload<'a>>,
        decided: &mut Decided,
        out: &mut Diagnostics<'_, 'a>,
    ) -> Result<(), Full> {
        if self.bytes.is_empty() {
            out.push(empty(self.path));
            return Ok(());
        }
        if elf::is_elf(self.bytes) {
            self.elf(payloads, decided, out)
        } else if let Some(header) = arm64::read(self.bytes) {
            self.image(header, payloads, decided, out)
        } else {
            self.raw(payloads, decided, out)
        }
    }

    fn elf(
        &self,
        payloads: &mut List<'_, Payload<'a>>,
        decided: &mut Decided,
        out: &mut Diagnostics<'_, 'a>,
    ) -> Result<(), Full> {
        if let Some(load) = self.domain.load {
            out.push(
                Diagnostic::new(codes::LOAD_WITH_ELF, load.span, "`load` does nothing for the ELF file `{0}`")
                    .args(&[Arg::Text(self.path.value)])
                    .label("an ELF file says itself where its segments go (`p_paddr`)")
                    .also(self.path.span, "the ELF file")
                    .help("remove `load`, or link the kernel for another address"),
            );
        }
        let mut result = Ok(());
        let entry = elf::read(self.bytes, |segment| {
            let part = Payload {
                domain: self.id,
                kind: payload::KERNEL,
                ipa: segment.at,
                file: self.path.value,
                file_offset: segment.offset,
                len: segment.len,
                mem: segment.mem,
                zeroed: true,
                executable: segment.executable,
                span: self.path.span,
                offset: 0,
                pristine: 0,
            };
            result = result.and_then(|()| payloads.push(part));
        });
        result?;
        match entry {
            Ok(entry) => decided.entry = entry,
            Err(error) => out.push(self.elf_error(error)),
        }
        Ok(())
    }

    fn elf_error(&self, error: ElfError) -> Diagnostic<'a> {
        let name = Arg::Text(self.path.value);
        let (code, message, number, help) = match error {
            ElfError::Class => {
                (codes::ELF_MACHINE, "`{0}` is a 32-bit ELF file; domains run AArch64 code", 0, "build it for aarch64")
            }
            ElfError::Endian => {
                (codes::ELF_MACHINE, "`{0}` is a big-endian ELF file", 0, "build it for little-endian aarch64")
            }
            ElfError::Machine(machine) => (
                codes::ELF_MACHINE,
                "`{0}` is an ELF file for machine number {1}, not AArch64 (183)",
                machine,
                "build it for aarch64",
            ),
            ElfError::Type(kind) => (
                codes::ELF_MACHINE,
                "`{0}` is an ELF file of type {1}; only executables at a fixed address (type 2) can be loaded",
                kind,
                "link it as a static executable that is not position-independent",
            ),
            ElfError::Damaged => (
                codes::ELF_DAMAGED,
                "`{0}` is a damaged ELF file: its headers point outside the file",
                0,
                "build or copy it again",
            ),
            ElfError::NoSegments => (
                codes::ELF_NO_SEGMENTS,
                "`{0}` is an ELF file without anything to load",
                0,
                "an object file is not an executable: link it first",
            ),
        };
        Diagnostic::new(code, self.path.span, message).args(&[name, Arg::Number(number.into())]).help(help)
    }

    fn image(
        &self,
        header: arm64::Header,
        payloads: &mut List<'_, Payload<'a>>,
        decided: &mut Decided,
        out: &mut Diagnostics<'_, 'a>,
    ) -> Result<(), Full> {
        let bad = |message, help| {
            Diagnostic::new(codes::ARM64_IMAGE, self.path.span, message)
                .args(&[Arg::Text(self.path.value), Arg::Hex(header.text_offset), Arg::Hex(header.image_size)])
                .help(help)
        };
        if header.big_endian() {
            out.push(bad("the arm64 Image `{0}` is big-endian", "build it little-endian"));
        }
        // Before Linux 3.17 image_size is 0 and text_offset 0x80000, whatever the field says.
        let text_offset = if header.image_size == 0 { 0x8_0000 } else { header.text_offset };
        if text_offset >= BLOCK || text_offset % 4096 != 0 {
            out.push(bad(
                "the arm64 Image `{0}` asks for text_offset {1}, which is no page below 2 MiB",
                "the file is damaged or not an arm64 Image",
            ));
            return Ok(());
        }
        let len = self.bytes.len() as u64;
        if header.image_size != 0 && header.image_size < len {
            out.push(bad(
                "the arm64 Image `{0}` says it needs {2} bytes of memory, less than the file has",
                "the file is damaged or has something appended",
            ));
        }
        let Some(memory) = self.domain.main_memory() else { return Ok(()) };
        let ipa = match self.domain.load {
            Some(load) => {
                if load.value.0.wrapping_sub(text_offset) % BLOCK != 0 {
                    out.push(
                        Diagnostic::new(
                            codes::ARM64_IMAGE,
                            load.span,
                            "`load` puts the arm64 Image `{0}` at {1}, which is not text_offset {2} above a 2 MiB boundary",
                        )
                        .args(&[Arg::Text(self.path.value), Arg::Hex(load.value.0), Arg::Hex(text_offset)])
                        .also(self.path.span, "the Image")
                        .help("use a 2 MiB boundary plus {2}, or remove `load`"),
                    );
                }
                load.value.0
            }
            None => up(memory.ipa.base.0, BLOCK).saturating_add(text_offset),
        };
        decided.entry = ipa;
        payloads.push(Payload { mem: header.image_size.max(len), zeroed: false, ..self.whole(ipa) })
    }

    fn raw(
        &self,
        payloads: &mut List<'_, Payload<'a>>,
        decided: &mut Decided,
        out: &mut Diagnostics<'_, 'a>,
    ) -> Result<(), Full> {
        let compressed = match self.bytes {
            [0x1F, 0x8B, ..] => Some("gzip"),
            [0x28, 0xB5, 0x2F, 0xFD, ..] => Some("zstd"),
            [0xFD, b'7', b'z', b'X', b'Z', ..] => Some("xz"),
            [0x04, 0x22, 0x4D, 0x18, ..] | [0x02, 0x21, 0x4C, 0x18, ..] => Some("lz4"),
            _ => None,
        };
        if let Some(method) = compressed {
            out.push(
                Diagnostic::new(codes::COMPRESSED, self.path.span, "`{0}` is compressed with {1}")
                    .args(&[Arg::Text(self.path.value), Arg::Text(method)])
                    .label("nothing would decompress it: the guest starts at its first byte")
                    .help("decompress it and name the result"),
            );
            return Ok(());
        }
        let Some(memory) = self.domain.main_memory() else { return Ok(()) };
        let ipa = self.domain.load.map_or(memory.ipa.base.0, |load| load.value.0);
        decided.entry = ipa;
        payloads.push(self.whole(ipa))
    }

    /// The whole file at `ipa`.
    fn whole(&self, ipa: u64) -> Payload<'a> {
        Payload {
            domain: self.id,
            kind: payload::KERNEL,
            ipa,
            file: self.path.value,
            file_offset: 0,
            len: self.bytes.len() as u64,
            mem: self.bytes.len() as u64,
            zeroed: true,
            executable: true,
            span: self.path.span,
            offset: 0,
            pristine: 0,
        }
    }
}

/// A file without a byte.
pub(crate) fn empty<'a>(path: At<&'a str>) -> Diagnostic<'a> {
    Diagnostic::new(codes::IMAGE_EMPTY, path.span, "the file `{0}` is empty")
        .args(&[Arg::Text(path.value)])
        .help("build or copy it again")
}

/// A file that is not there.
pub(crate) fn missing<'a>(path: At<&'a str>, domain: &'a str) -> Diagnostic<'a> {
    Diagnostic::new(codes::IMAGE_MISSING, path.span, "there is no file `{0}` for domain `{1}`")
        .args(&[Arg::Text(path.value), Arg::Text(domain)])
        .label("searched next to the layout, in every --guest-dir and among the examples")
        .help("put the file there, name its folder with --guest-dir, or check the layout alone with --no-images")
}
