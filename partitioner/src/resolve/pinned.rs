//! Memory whose place the layout fixes (`host-address`, `direct-map`): is it there, and is it free?

use super::util::down;
use super::{BLOCK, PAGE, Range};
use crate::codes;
use crate::lent::{Full, List};
use crate::model::{Board, Layout, Memory, Placement};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Span};
use cofferdam_plan::{Pa, PaRegion};

/// Where a memory region is fixed to, and the place that says so.
pub(crate) fn fixed(memory: &Memory<'_>) -> Option<(u64, Span)> {
    match memory.placement {
        Placement::Auto => None,
        Placement::Pinned(at) => Some((at.value.0, at.span)),
        Placement::Direct(_) => Some((memory.ipa.base.0, memory.span)),
    }
}

/// Checks the board's banks and every fixed region, and leaves the fixed regions in `ranges`, sorted by address.
pub(crate) fn check<'a>(
    board: &Board<'a>,
    layout: &Layout<'a, '_>,
    ranges: &mut List<'_, Range>,
    out: &mut Diagnostics<'_, 'a>,
) -> Result<(), Full> {
    banks(board, out);
    ranges.truncate(0);
    for (id, domain) in layout.domains.iter().enumerate() {
        for (index, memory) in domain.memory.iter().enumerate() {
            blocks(domain.name, memory, out);
            let Some((base, span)) = fixed(memory) else { continue };
            let Some(region) = PaRegion::new(Pa(base), memory.ipa.size) else {
                out.push(outside(domain.name, base, memory.ipa.size, span));
                continue;
            };
            in_ram(board, domain.name, &region, span, out);
            if let Some(taken) = board.reserved.iter().find(|r| r.region.overlaps(&region)) {
                out.push(
                    Diagnostic::new(codes::RAM_RESERVED, span, "RAM {1} of domain `{0}` is reserved by {2} at {3}")
                        .args(&[
                            Arg::Text(domain.name),
                            Arg::Range(base, region.size),
                            Arg::Node(taken.node),
                            Arg::Range(taken.region.base.0, taken.region.size),
                        ])
                        .also(taken.span, "the reservation")
                        .help("firmware or a device uses it: put the memory elsewhere"),
                );
            }
            let (owner, item) = (id as u32, index as u32);
            ranges.push(Range { base, end: region.end().0, owner, item, span, node: memory.node.id().0 })?;
        }
    }
    ranges.sort_unstable();
    let Some((mut far, rest)) = ranges.split_first() else { return Ok(()) };
    for range in rest {
        if range.base < far.end {
            out.push(overlap(board, layout, far, range));
        }
        if range.end > far.end {
            far = range;
        }
    }
    Ok(())
}

fn overlap<'a>(board: &Board<'a>, layout: &Layout<'a, '_>, a: &Range, b: &Range) -> Diagnostic<'a> {
    // The later one in the layout is the one to mend.
    let (a, b) = if (a.owner, a.item) < (b.owner, b.item) { (b, a) } else { (a, b) };
    let name = |r: &Range| Arg::Text(layout.domains.get(r.owner as usize).map_or("", |d| d.name));
    let base = a.base.max(b.base);
    let shared = Arg::Range(base, a.end.min(b.end) - base);
    let _ = board;
    let message = if a.owner == b.owner {
        "two memory regions of domain `{0}` are the same RAM at {2}"
    } else {
        "domains `{0}` and `{1}` both have the RAM at {2}"
    };
    Diagnostic::new(codes::RAM_OVERLAP, a.span, message)
        .args(&[name(a), name(b), shared])
        .also(b.span, "the other one")
        .help("move one of them, or leave `host-address` out and let the compiler place it")
}

fn banks<'a>(board: &Board<'a>, out: &mut Diagnostics<'_, 'a>) {
    for (index, bank) in board.ram.iter().enumerate() {
        let other = board.ram.iter().take(index).find(|other| other.value.overlaps(&bank.value));
        if let Some(other) = other {
            out.push(
                Diagnostic::new(codes::BANK_OVERLAP, bank.span, "the board's RAM banks {0} and {1} overlap")
                    .args(&[
                        Arg::Range(other.value.base.0, other.value.size),
                        Arg::Range(bank.value.base.0, bank.value.size),
                    ])
                    .also(other.span, "the other bank")
                    .help("mend the board file: each byte of RAM belongs to one bank"),
            );
        }
    }
}

fn outside<'a>(domain: &'a str, base: u64, size: u64, span: Span) -> Diagnostic<'a> {
    Diagnostic::new(codes::RAM_OUTSIDE, span, "memory of domain `{0}` at {1} is not RAM")
        .args(&[Arg::Text(domain), Arg::Range(base, size)])
        .help("put it into one of the board's banks, or leave `host-address` out and let the compiler place it")
}

/// Follows the region from bank to bank; the first address without RAM is shown with the hole it starts.
fn in_ram<'a>(board: &Board<'a>, domain: &'a str, region: &PaRegion, span: Span, out: &mut Diagnostics<'_, 'a>) {
    let mut at = region.base;
    while at < region.end() {
        match board.ram.iter().find(|bank| bank.value.contains(at)) {
            Some(bank) => at = bank.value.end(),
            None => break,
        }
    }
    if at >= region.end() {
        return;
    }
    let next = board.ram.iter().map(|bank| bank.value.base).filter(|base| *base > at).min();
    let end = next.map_or(region.end(), |next| next.min(region.end()));
    let mut diagnostic = if at == region.base && end == region.end() {
        outside(domain, region.base.0, region.size, span)
    } else {
        Diagnostic::new(codes::RAM_OUTSIDE, span, "memory of domain `{0}` at {1} has a hole: there is no RAM at {2}")
            .args(&[Arg::Text(domain), Arg::Range(region.base.0, region.size), Arg::Range(at.0, end.0 - at.0)])
            .help("split it around the hole, or leave `host-address` out and let the compiler place it")
    };
    if let Some(bank) = board.ram.first() {
        diagnostic = diagnostic.also(bank.span, "the board's RAM");
    }
    out.push(diagnostic);
}

/// Warns about a region that cannot be mapped in blocks, with what that costs.
fn blocks<'a>(domain: &'a str, memory: &Memory<'a>, out: &mut Diagnostics<'_, 'a>) {
    let (base, size) = (memory.ipa.base.0, memory.ipa.size);
    if size < BLOCK || base % PAGE != 0 || size % PAGE != 0 {
        return;
    }
    let apart = fixed(memory).is_some_and(|(pa, _)| pa.wrapping_sub(base) % BLOCK != 0);
    let tables = if apart {
        size.div_ceil(BLOCK)
    } else {
        let end = memory.ipa.end().0;
        u64::from(base % BLOCK != 0) + u64::from(!end.is_multiple_of(BLOCK) && down(end, BLOCK) >= base)
    };
    if tables == 0 {
        return;
    }
    let message = if apart {
        "memory {1} of domain `{0}` and its `host-address` differ below 2 MiB: it is mapped page by page, in {2} more tables"
    } else {
        "memory {1} of domain `{0}` does not start and end on 2 MiB boundaries: its ends need {2} more tables"
    };
    out.push(
        Diagnostic::new(codes::SMALL_PAGES, memory.span, message)
            .args(&[Arg::Text(domain), Arg::Range(base, size), Arg::Number(tables)])
            .help("a multiple of 0x200000 is mapped in blocks, which are faster and cost no table"),
    );
}
