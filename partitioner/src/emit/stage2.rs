//! Stage-2 tables: what a domain can reach, and nothing else.

use super::pages::{Pages, PagesError, Root, TABLE};
use crate::resolve::Piece;
use crate::resolve::util::bits;
use cofferdam_plan::audit::grant;

/// Access flag: no fault for the first access.
const AF: u64 = 1 << 10;
/// Inner Shareable.
const SH_INNER: u64 = 3 << 8;
/// S2AP: readable and writable.
const READ_WRITE: u64 = 3 << 6;
/// MemAttr: Normal, Inner and Outer Write-Back (DDI 0487, D8.5.5).
const NORMAL: u64 = 0xF << 2;
/// MemAttr: Device-nGnRE.
const DEVICE: u64 = 0x1 << 2;
/// XN: no instruction fetch at EL1 or EL0.
const EXECUTE_NEVER: u64 = 1 << 54;

/// One domain's finished tables.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stage2 {
    /// Its root.
    pub(crate) root: Root,
    /// VTCR_EL2.
    pub(crate) vtcr: u64,
    /// Root entries that can be valid.
    pub(crate) entries: u32,
    /// The root that functions of the domain reach memory by; without pages where it has none with a stream.
    pub(crate) dma: Root,
}

/// Mappings of one domain, neighbours joined, so that blocks can be as large as the whole allows.
pub(crate) fn joined(pieces: &[Piece]) -> impl Iterator<Item = Piece> {
    let mut at = 0;
    core::iter::from_fn(move || {
        let mut piece = *pieces.get(at)?;
        at += 1;
        while let Some(next) = pieces.get(at) {
            let follows = next.domain == piece.domain
                && next.kind == piece.kind
                && next.ipa == piece.ipa + piece.size
                && next.pa == piece.pa + piece.size;
            if !follows {
                break;
            }
            piece.size += next.size;
            at += 1;
        }
        Some(piece)
    })
}

/// Bits of guest address the tables of these pieces translate: 31 at least, so that a root at level 1 has two entries.
pub(crate) fn ipa_bits(pieces: &[Piece]) -> u32 {
    bits(pieces.iter().map(|piece| piece.ipa + piece.size).max().unwrap_or(0)).max(31)
}

/// Level and number of concatenated tables of a root: level 1 up to 39 bits, with up to 16 tables up to 43, level 0 above
/// (DDI 0487, D8.2.2).
pub(crate) fn shape(width: u32) -> (u32, usize) {
    match width {
        ..=39 => (1, 1),
        40..=43 => (1, 1 << (width - 39)),
        _ => (0, 1),
    }
}

/// Fills the tables below `root`, which has the [`shape`] of these pieces. They are one domain's, by guest address.
pub(crate) fn build(
    pages: &mut Pages<'_>,
    roots: Stage2,
    pieces: &[Piece],
    pa_bits: u32,
) -> Result<Stage2, PagesError> {
    let root = roots.root;
    for piece in joined(pieces) {
        let attributes = match piece.kind {
            grant::RAM => AF | SH_INNER | READ_WRITE | NORMAL,
            _ => AF | READ_WRITE | DEVICE | EXECUTE_NEVER,
        };
        pages.map(root, piece.ipa, piece.pa, piece.size, attributes)?;
    }
    let vtcr = vtcr(ipa_bits(pieces), root.level, pa_bits);
    Ok(Stage2 { vtcr, entries: pages.root_entries(root), ..roots })
}

/// Fills a domain's DMA root: its RAM, by the tables the CPU has as far as they hold nothing else, and the ITS's doorbell page at its
/// own address.
pub(crate) fn share(pages: &mut Pages<'_>, tables: &Stage2, doorbell: Option<u64>) -> Result<(), PagesError> {
    pages.share(tables.root, tables.dma, &|leaf| leaf & NORMAL == NORMAL, doorbell)?;
    match doorbell {
        Some(pa) => pages.map(tables.dma, pa, pa, TABLE as u64, AF | READ_WRITE | DEVICE | EXECUTE_NEVER),
        None => Ok(()),
    }
}

/// VTCR_EL2 (DDI 0487, D19.2.167): T0SZ, SL0, write-back inner shareable walks, 4 KiB granule, PS, RES1 bit 31.
fn vtcr(width: u32, level: u32, pa_bits: u32) -> u64 {
    let sl0 = if level == 0 { 2 } else { 1 };
    u64::from(64 - width) | sl0 << 6 | 1 << 8 | 1 << 10 | 3 << 12 | physical_size(pa_bits) << 16 | 1 << 31
}

/// Sizes of physical address space there are, in bits; the index is the value of the registers' PS fields.
const SIZES: [u32; 6] = [32, 36, 40, 42, 44, 48];

/// The smallest size there is that holds `bits`.
pub(crate) fn size_for(bits: u32) -> u32 {
    SIZES.into_iter().find(|size| *size >= bits).unwrap_or(48)
}

/// PS field for a size.
pub(crate) fn physical_size(pa_bits: u32) -> u64 {
    SIZES.iter().position(|size| *size >= pa_bits).unwrap_or(SIZES.len() - 1) as u64
}
