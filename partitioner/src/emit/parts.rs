//! What of each payload lies where: in place, copied, or only zeroed. One walk for the moves, the scrubs and the audit.

use crate::resolve::util::{down, up};
use crate::resolve::{Carried, PAGE, Payload, Piece};
use cofferdam_plan::audit::{grant, payload};
use cofferdam_plan::{Move, Pa};

/// One stretch of a payload in one stretch of RAM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) ipa: u64,
    pub(crate) pa: u64,
    /// Bytes in RAM.
    pub(crate) size: u64,
    /// Byte offset in the image.
    pub(crate) offset: u64,
    /// Bytes from the image.
    pub(crate) len: u64,
    /// What the boot stub must do.
    pub(crate) copy: Option<Move>,
}

/// The mapping of `domain`'s RAM that holds `ipa`.
fn holding(pieces: &[Piece], domain: u32, ipa: u64) -> Option<&Piece> {
    pieces.iter().find(|p| p.kind == grant::RAM && p.domain == domain && ipa >= p.ipa && ipa - p.ipa < p.size)
}

/// Bytes of a payload that must have their value when the guest starts.
pub(crate) fn extent(part: &Payload<'_>) -> u64 {
    if part.zeroed { part.mem } else { part.len }
}

/// Walks the parts of one payload. `offset` is its place in the image; `to_page_end` zeroes the rest of a copied tree's
/// last page.
pub(crate) fn of<'p>(
    payload: &Payload<'p>,
    pieces: &'p [Piece],
    offset: u64,
    to_page_end: bool,
) -> impl Iterator<Item = Part> + use<'p> {
    let total = extent(payload);
    let (domain, first, len) = (payload.domain, payload.ipa, payload.len);
    let is_tree = payload.kind == payload::DTB;
    let mut done = 0;
    core::iter::from_fn(move || {
        if done >= total {
            return None;
        }
        let mut ipa = first + done;
        let piece = holding(pieces, domain, ipa)?;
        let room = piece.size - (ipa - piece.ipa);
        let mut size = room.min(total - done);
        let bytes = len.saturating_sub(done).min(size);
        let offset = if bytes == 0 { 0 } else { offset + done };
        done += size;
        // Where the image lies there is its zero already; elsewhere the boot stub writes it, 16 bytes at a time. A page
        // without bytes of a file has nothing that rounding could hit.
        let in_place = piece.carried == Carried::InPlace && !is_tree;
        if bytes == 0 && !in_place {
            size = up(ipa + size, 16) - down(ipa, 16);
            ipa = down(ipa, 16);
        }
        let pa = piece.pa + (ipa - piece.ipa);
        let tail = if is_tree && to_page_end { up(pa + size, PAGE) - pa } else { up(size, 16) };
        let copied = Move { offset, to: Pa(pa), len: up(bytes, 16), zero: tail - up(bytes, 16) };
        Some(Part { ipa, pa, size, offset, len: bytes, copy: (!in_place).then_some(copied) })
    })
}

/// The first page range at or above `from` and below `end` that holds bytes of a payload of `domain`.
pub(crate) fn next(payloads: &[Payload<'_>], domain: u32, from: u64, end: u64) -> Option<(u64, u64)> {
    payloads
        .iter()
        .filter(|p| p.domain == domain && extent(p) != 0)
        .map(|p| (down(p.ipa, PAGE), up(p.ipa + extent(p), PAGE)))
        .filter(|(start, stop)| *stop > from && *start < end)
        .min()
}
