//! The whole compiler as one function: from a typed board and layout to a proven plan.
//!
//! Order: resolve (everything explicit) → emit (bytes) → verify (the bytes alone). Memory is lent by the caller, files come
//! through [`Images`]; the same input gives the same bytes.

use crate::codes;
use crate::emit::assemble::{EmitError, Input};
use crate::emit::audit::Owners;
use crate::emit::guest::Guest;
use crate::lent::{Full, Lent, List};
use crate::model::{Board, Layout};
use crate::pci::model::Settlement;
use crate::pci::{settle, smmu};
use crate::ports::PortBitmap;
use crate::promise;
use crate::resolve::payload::Loader;
use crate::resolve::place::Placer;
use crate::resolve::util::up;
use crate::resolve::{BLOCK, Decided, Payload, Piece, Range, lines, pinned, space};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Tree};
use cofferdam_plan::limits::{MAX_DOMAINS, MAX_RECORDS};
use cofferdam_plan::va::HYP_VA;
use cofferdam_plan::{IntId, Pa};
use cofferdam_verify::Refusal;
use zerocopy::IntoBytes;

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
    /// For names in guest device trees, 4 KiB are plenty; with overlays four times the longest of these trees.
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
    /// Bytes of RAM that no domain has.
    pub unused: u64,
    /// The I/O permission bitmap of each domain, in order. Empty on an architecture without I/O ports.
    pub ports: &'m [PortBitmap],
}

/// Compiles a merged tree: reads board and layout, then plans. Everything wrong goes to `diagnostics`.
///
/// Placement and images are looked at even where the layout has other errors, as far as they can be: all errors at once.
///
/// # Errors
/// [`Full`] names the lent slice that was too short: double it and call again, with empty diagnostics.
pub fn compile<'a, 'm>(
    tree: Tree<'a>,
    front: crate::front::Memory<'m, 'a>,
    memory: Memory<'m, 'a>,
    images: &dyn Images,
    hypervisor: &HypImage<'_>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<(Layout<'a, 'm>, Option<Compiled<'m, 'a>>), Full> {
    let (board, layout) = crate::front::read(tree, front, diagnostics)?;
    let compiled = plan(memory, &board, &layout, images, hypervisor, diagnostics)?;
    Ok((layout, compiled))
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
    if !board.arch.hypervisor_supported() {
        return Ok(Some(Compiled {
            blob: &[],
            blob_offset: 0,
            base: Pa(0),
            image_len: 0,
            payloads: &[],
            pieces: &[],
            unused: 0,
            ports: if board.arch.io_ports_supported() { PortBitmap::all(memory.blob, layout)? } else { &[] },
        }));
    }
    let Memory { blob, pieces, payloads, ranges, scratch, bytes: strings } = memory;
    let blob = blob.as_mut_bytes();
    let mut pieces = List::new(pieces, Lent::Pieces);
    let mut payloads = List::new(payloads, Lent::Payloads);
    let mut ranges = List::new(ranges, Lent::Ranges);
    let mut decided = heapless::Vec::<Decided, MAX_DOMAINS>::new();

    let mut used = lines::used(board, layout);
    let mut owners = Owners::new();
    let pci = settle::settle(board, layout, &mut used, diagnostics);
    owners.give_functions(board, pci.as_ref());
    let pci = pci.as_ref();
    for (id, domain) in layout.domains.iter().enumerate() {
        let [page, frames] = space::check(id, domain, board, layout, pci, &mut ranges, &mut pieces, diagnostics)?;
        let mut mine = Decided::default();
        if domain.console.is_some()
            && let (Some(page), Some(intid)) = (page, lines::take(&mut used, domain, diagnostics))
        {
            mine.vuart = Some((page, intid));
            owners.give(intid, id, None, false);
        }
        if domain.lifecycle.watchdog_frames
            && let (Some(page), Some(intid)) = (frames, lines::take(&mut used, domain, diagnostics))
        {
            mine.watchdog = Some((page, intid));
            owners.give(intid, id, None, false);
        }
        for device in layout.devices.get(domain.devices.clone()).unwrap_or(&[]) {
            for line in layout.interrupts.get(device.interrupts.clone()).unwrap_or(&[]) {
                owners.give(line.intid, id, Some(device.node.id()), line.edge);
            }
        }
        if decided.push(mine).is_err() {
            break;
        }
    }
    for (id, (domain, mine)) in layout.domains.iter().zip(decided.iter_mut()).enumerate() {
        let loader = Loader { id: id as u32, domain, first: payloads.len() };
        let initrd = loader.files(images, &mut payloads, mine, diagnostics)?;
        loader.place_files(images, &mut payloads, diagnostics)?;
        // The tree's length does not depend on where the RAM disk goes, only on whether there is one.
        mine.initrd = (initrd != 0).then_some((0, 0));
        let tree = match domain.dtb {
            Some(path) => loader.given_dtb(path, images, diagnostics),
            None => {
                let guest = Guest { board, layout, domain, decided: mine, id, pci };
                guest.check_overlay(diagnostics);
                Some(guest.write(blob, strings)? as u64)
            }
        };
        if let Some(len) = tree {
            loader.place_dtb(len, &mut payloads, mine, diagnostics)?;
        }
        if initrd != 0 {
            loader.place_initrd(initrd, &mut payloads, mine, diagnostics)?;
        }
    }
    payloads.sort_unstable_by_key(|part| (part.domain, part.ipa));
    pinned::check(board, layout, &mut ranges, diagnostics)?;
    if diagnostics.errors() != 0 || layout.domains.is_empty() {
        return Ok(None);
    }

    let last_intid = last_intid(board, &owners, layout, pci);
    let (fixed, devices) = (ranges.len(), pieces.len());
    let mut area = BLOCK;
    let (placed, emitted) = loop {
        ranges.truncate(fixed);
        pieces.truncate(devices);
        pinned::check(board, layout, &mut ranges, diagnostics)?;
        let placer =
            Placer { board, layout, payloads: &mut payloads, pieces: &mut pieces, ranges: &mut ranges, base: 0 };
        let Some(placed) = { placer }.run(area, diagnostics)? else { return Ok(None) };
        let input = Input {
            board,
            layout,
            decided: &decided,
            pieces: &pieces,
            payloads: &payloads,
            placed,
            hypervisor,
            owners: &owners,
            pci,
            last_intid,
        };
        match input.emit(blob, strings, images) {
            Ok(emitted) => {
                smmu::reach(board, layout, pci, input.pa_bits(), diagnostics);
                break (placed, emitted);
            }
            Err(EmitError::Area(needed)) => area = up(needed, BLOCK),
            Err(EmitError::Full(full)) => return Err(full),
            Err(EmitError::Records(len)) => {
                diagnostics.push(too_many_records(board, layout, len));
                return Ok(None);
            }
            Err(EmitError::Window(end)) => {
                diagnostics.push(in_window(board, placed.base, end));
                return Ok(None);
            }
            Err(EmitError::Internal) => {
                diagnostics.push(internal(board, "the tables"));
                return Ok(None);
            }
        }
    };
    if diagnostics.errors() != 0 {
        return Ok(None);
    }
    let blob = blob.get(..emitted.len).unwrap_or(&[]);
    if !prove(blob, scratch, board, layout, diagnostics)? {
        return Ok(None);
    }
    Ok(Some(Compiled {
        blob,
        blob_offset: hypervisor.len,
        base: Pa(placed.base),
        image_len: emitted.image_len,
        payloads: payloads.into_slice(),
        pieces: pieces.into_slice(),
        unused: placed.unused,
        ports: &[],
    }))
}

/// The highest INTID anything uses: it decides how many words of registers there must be.
fn last_intid(board: &Board<'_>, owners: &Owners, layout: &Layout<'_, '_>, pci: Option<&Settlement>) -> IntId {
    let owned = (IntId::FIRST_SPI.0..=IntId::LAST_SPI.0).rev().map(IntId).find(|intid| owners.of(*intid).is_some());
    let console = board.console.as_ref().and_then(|console| console.intid).filter(|_| layout.input.is_some());
    let smmu = pci.and(board.pci.as_ref()).and_then(|host| host.smmu);
    let faults = smmu.into_iter().flat_map(|smmu| [smmu.event, smmu.error]).flatten();
    owned.into_iter().chain(console).chain(faults).max().unwrap_or(IntId(31))
}

/// Has the finished blob proven. A refusal is a mistake of the compiler, unless it concerns what an overlay says.
fn prove<'a>(
    blob: &[u8],
    scratch: &mut [u32],
    board: &Board<'a>,
    layout: &Layout<'a, '_>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<bool, Full> {
    let (mut first, mut promised) = (None, false);
    let result = cofferdam_verify::verify(blob, scratch, &mut |finding| match promise::of(layout, &finding) {
        Some(diagnostic) => {
            diagnostics.push(diagnostic);
            promised = true;
        }
        None => first = first.or(Some(finding)),
    });
    match result {
        Ok(_) => Ok(true),
        Err(Refusal::Scratch(_)) => Err(Full(Lent::Scratch)),
        Err(Refusal::Plan(_)) => {
            diagnostics.push(internal(board, "the plan's own format"));
            Ok(false)
        }
        Err(Refusal::Findings(_)) if promised && first.is_none() => Ok(false),
        Err(Refusal::Findings(_)) => {
            diagnostics.push(internal(board, first.map_or("?", |finding| finding.invariant())));
            Ok(false)
        }
    }
}

fn internal<'a>(board: &Board<'a>, what: &'static str) -> Diagnostic<'a> {
    Diagnostic::new(
        codes::INTERNAL,
        board.tree.root().span(),
        "this is a mistake of the compiler, not of the layout: what it made breaks {0}",
    )
    .args(&[Arg::Text(what)])
    .help("please report it with the layout; no image is made")
}

fn in_window<'a>(board: &Board<'a>, base: u64, end: u64) -> Diagnostic<'a> {
    let bank = board.ram.iter().find(|bank| bank.value.contains(Pa(base)));
    let span = bank.map_or(board.tree.root().span(), |bank| bank.span);
    let message = "the image would lie at {0}, among the addresses the hypervisor uses for itself, {1}";
    Diagnostic::new(codes::IMAGE_IN_WINDOW, span, message)
        .args(&[Arg::Hex(base), Arg::Range(HYP_VA, end - HYP_VA)])
        .label("the image goes to the first 2 MiB boundary at least 2 MiB above the start of this RAM")
        .help("reserve that place (`/memreserve/ {0} 0x200000;`): the image then goes behind it")
}

fn too_many_records<'a>(board: &Board<'a>, layout: &Layout<'a, '_>, len: usize) -> Diagnostic<'a> {
    let span = layout.node.unwrap_or(board.tree.root()).span();
    Diagnostic::new(codes::CAPACITY, span, "the plan's records have {0}, the hypervisor reads {1}")
        .args(&[Arg::Bytes(len as u64), Arg::Bytes(MAX_RECORDS.into())])
        .help("use fewer memory regions")
}
