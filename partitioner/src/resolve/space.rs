//! Guest address spaces: what a domain sees where, before anything is placed in RAM.
//!
//! Memory, devices and the emulated windows of one domain must not touch. The virtual PL011 goes to the first free page
//! above the interrupt controller, its watchdog's registers to the first two behind that.

use super::util::{down, up};
use super::{GICD_SIZE, GICR_SIZE, PAGE, Piece, Range};
use crate::codes;
use crate::lent::{Full, List};
use crate::model::{Board, Delivery, Domain, GicFrames, Layout, Placement};
use crate::pci::model::{PciHost, Settlement, Space, Window};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node};
use cofferdam_plan::audit::grant;
use cofferdam_plan::pci::ECAM_SIZE;

/// Guest addresses the translation tables can hold: 48 bits (DDI 0487, D8.2, 4 KiB granule without FEAT_LPA2).
pub(crate) const IPA_END: u64 = 1 << 48;

/// What a [`Range`] of this stage is; the value sorts windows first at equal addresses.
const GICD: u32 = 0;
const FRAMES: u32 = 1;
/// Configuration space and MSI frame of a domain with PCI functions.
const ECAM: u32 = 2;
const MESSAGES: u32 = 3;
const MEMORY: u32 = 4;
const DEVICE: u32 = 5;
/// Base address registers of its functions.
const BARS: u32 = 6;

/// Bytes of the frames of a watchdog.
const WATCHDOG_FRAMES: u64 = 2 * PAGE;

/// Checks one domain's address space, adds its device mappings to `pieces` and returns the virtual PL011's page and the first
/// of the watchdog's, each `None` where the guest's addresses end before.
#[allow(clippy::too_many_arguments)] // each is another thing to hold against another
pub(crate) fn check<'a>(
    id: usize,
    domain: &Domain<'a>,
    board: &Board<'a>,
    layout: &Layout<'a, '_>,
    pci: Option<&Settlement>,
    ranges: &mut List<'_, Range>,
    pieces: &mut List<'_, Piece>,
    out: &mut Diagnostics<'_, 'a>,
) -> Result<[Option<u64>; 2], Full> {
    ranges.truncate(0);
    let mut gic_end = 0;
    if let Some(gic) = &board.gic {
        let node = gic.node.id().0;
        let span = gic.node.span();
        let window =
            |base: u64, size, owner| Range { base, end: base.saturating_add(size), owner, item: 0, span, node };
        match gic.frames {
            GicFrames::V3 { gicr } => {
                ranges.push(window(gic.gicd.base.0, GICD_SIZE, GICD))?;
                ranges.push(window(gicr.base.0, domain.cpus.len() as u64 * GICR_SIZE, FRAMES))?;
            }
            GicFrames::V2 { gicc, .. } => {
                ranges.push(window(gic.gicd.base.0, PAGE, GICD))?;
                ranges.push(window(gicc.base.0, interface_size(domain), FRAMES))?;
            }
        }
        gic_end = gic.end().0;
    }
    for (index, memory) in domain.memory.iter().enumerate() {
        aligned(domain, memory, out);
        let (base, end) = (memory.ipa.base.0, memory.ipa.end().0);
        if end > IPA_END {
            out.push(
                Diagnostic::new(
                    codes::IPA_WINDOW,
                    memory.span,
                    "memory of domain `{0}` at {1} ends beyond the 48 bits a guest address can have",
                )
                .args(&[Arg::Text(domain.name), Arg::Range(base, memory.ipa.size)])
                .help("give the guest a lower address; where the memory really is, the compiler decides"),
            );
            continue;
        }
        let node = memory.node.id().0;
        ranges.push(Range { base, end, owner: MEMORY, item: index as u32, span: memory.span, node })?;
    }
    for device in layout.devices.get(domain.devices.clone()).unwrap_or(&[]) {
        for index in device.regions.clone() {
            let Some(region) = layout.regions.get(index) else { continue };
            if (region.ipa.0 ^ region.pa.base.0) % PAGE != 0 {
                out.push(
                    Diagnostic::new(
                        codes::UNALIGNED,
                        device.span,
                        "{0} has its registers at {1}, but domain `{2}` would see them at {3}: another place in the page",
                    )
                    .args(&[
                        Arg::Node(device.node),
                        Arg::Hex(region.pa.base.0),
                        Arg::Text(domain.name),
                        Arg::Hex(region.ipa.0),
                    ])
                    .help("keep the low 12 bits of the address"),
                );
                continue;
            }
            let (base, end) = (down(region.ipa.0, PAGE), up(region.ipa.0.saturating_add(region.pa.size), PAGE));
            let node = device.node.id().0;
            ranges.push(Range { base, end, owner: DEVICE, item: index as u32, span: device.span, node })?;
        }
    }
    if let (Some(host), Some(settlement)) = (&board.pci, pci) {
        functions(host, settlement, id, ranges)?;
        if settlement.share(id).count != 0 {
            on_bus(host, domain, out);
        }
    }
    ranges.sort_unstable();
    overlaps(domain, board, layout, ranges, out);
    devices(id, layout, ranges, pieces)?;
    cpu_interface(id, domain, board, pieces)?;
    let free = |from: u64, size: u64| {
        let mut page = up(from, PAGE);
        for range in ranges.iter().filter(|range| range.end > from) {
            if range.base >= page + size {
                break;
            }
            page = page.max(up(range.end, PAGE));
        }
        (board.gic.is_some() && page + size <= IPA_END).then_some(page)
    };
    let vuart = free(gic_end, PAGE);
    Ok([vuart, vuart.and_then(|page| free(page + PAGE, WATCHDOG_FRAMES))])
}

fn aligned<'a>(domain: &Domain<'a>, memory: &crate::model::Memory<'a>, out: &mut Diagnostics<'_, 'a>) {
    if !memory.ipa.is_aligned(PAGE) || memory.ipa.size == 0 {
        out.push(
            Diagnostic::new(
                codes::UNALIGNED,
                memory.span,
                "memory {1} of domain `{0}` does not start and end on 4 KiB boundaries",
            )
            .args(&[Arg::Text(domain.name), Arg::Range(memory.ipa.base.0, memory.ipa.size)])
            .help("a page of 4 KiB is the least that can be protected: round address and size to 0x1000"),
        );
    }
    if let Placement::Pinned(at) = memory.placement
        && at.value.0 % PAGE != 0
    {
        out.push(
            Diagnostic::new(codes::UNALIGNED, at.span, "`host-address` {1} of domain `{0}` is not on a 4 KiB boundary")
                .args(&[Arg::Text(domain.name), Arg::Hex(at.value.0)])
                .help("round it to 0x1000"),
        );
    }
}

/// Reports every pair of neighbours that share an address.
fn overlaps<'a>(
    domain: &Domain<'a>,
    board: &Board<'a>,
    layout: &Layout<'a, '_>,
    ranges: &[Range],
    out: &mut Diagnostics<'_, 'a>,
) {
    let Some((mut far, rest)) = ranges.split_first() else { return };
    for range in rest {
        if range.base < far.end {
            // The window is the board's; what can be moved is the other one.
            let (mine, other) = if range.owner <= MESSAGES { (far, range) } else { (range, far) };
            let shares = mine.owner == DEVICE && other.owner == DEVICE && same_pages(layout, mine, other);
            // RAM at addresses of the bus has been refused as such.
            let said = mine.owner.max(other.owner) == BARS && mine.owner.min(other.owner) == MEMORY;
            if !shares && !said {
                out.push(collision(domain, board, mine, other));
            }
        }
        if range.end > far.end {
            far = range;
        }
    }
}

/// Whether two device ranges map the same pages, which one domain may have.
fn same_pages(layout: &Layout<'_, '_>, a: &Range, b: &Range) -> bool {
    let delta = |r: &Range| layout.regions.get(r.item as usize).map(|r| r.pa.base.0.wrapping_sub(r.ipa.0));
    delta(a) == delta(b)
}

fn collision<'a>(domain: &Domain<'a>, board: &Board<'a>, mine: &Range, other: &Range) -> Diagnostic<'a> {
    let node = |range: &Range| Arg::Node(board.tree.node(range.node_id()));
    let shared = Arg::Range(mine.base.max(other.base), mine.end.min(other.end) - mine.base.max(other.base));
    let args = [Arg::Text(domain.name), node(mine), node(other), shared];
    if other.owner <= MESSAGES {
        let what = match other.owner {
            GICD => "{1} of domain `{0}` covers {3}, where the guest sees its interrupt distributor",
            FRAMES => "{1} of domain `{0}` covers {3}, where the guest sees its redistributors or its CPU interface",
            ECAM => "{1} of domain `{0}` covers {3}, where the guest sees the configuration space of its functions",
            _ => "{1} of domain `{0}` covers {3}, where the guest sees the frame its functions send messages to",
        };
        let (also, help) = if other.owner <= FRAMES {
            let also = "the virtual interrupt controller is at the board's addresses";
            (also, "move it away from the interrupt controller")
        } else {
            ("what emulates it is at the board's addresses", "move it away from there")
        };
        return Diagnostic::new(codes::IPA_WINDOW, mine.span, what).args(&args).also(other.span, also).help(help);
    }
    Diagnostic::new(codes::IPA_OVERLAP, mine.span, "{1} and {2} of domain `{0}` both lie at guest address {3}")
        .args(&args)
        .also(other.span, "the other one")
        .help("move one of them")
}

/// Adds what a domain's functions bring with them: configuration space, MSI frame, base address registers at their own addresses.
fn functions(host: &PciHost<'_>, settlement: &Settlement, id: usize, ranges: &mut List<'_, Range>) -> Result<(), Full> {
    let share = settlement.share(id);
    let range = |node: Node<'_>, base: u64, size, owner, item| {
        let (span, node) = (node.span(), node.id().0);
        Range { base, end: base.saturating_add(size), owner, item, span, node }
    };
    if share.count != 0 {
        ranges.push(range(host.node, host.ecam.base.0, ECAM_SIZE, ECAM, 0))?;
    }
    if let Some(its) = host.its.filter(|_| share.spi_count != 0) {
        ranges.push(range(its.node, its.doorbell(), PAGE, MESSAGES, 0))?;
    }
    for settled in settlement.functions_of(id) {
        let Some(function) = host.functions.get(settled.function) else { continue };
        for (spec, place) in function.bars.iter().zip(settled.bars).filter(|(_, place)| *place != 0) {
            let Some(spec) = spec else { continue };
            ranges.push(range(function.node, place, up(spec.size, PAGE), BARS, settled.function as u32))?;
        }
    }
    Ok(())
}

/// Refuses RAM at guest addresses that are a window of the bus (invariant I69): what a function writes there goes to another's
/// registers, if anywhere, and never to RAM.
fn on_bus<'a>(host: &PciHost<'a>, domain: &Domain<'a>, out: &mut Diagnostics<'_, 'a>) {
    for memory in &domain.memory {
        let (base, end) = (memory.ipa.base.0, memory.ipa.end().0);
        let windows = host.windows.iter().filter(|window| window.space != Space::Io);
        let touched = |window: &&Window| window.bus < end && base < window.bus.saturating_add(window.pa.size);
        if let Some(window) = windows.clone().find(touched) {
            let message =
                "memory {1} of domain `{0}` has addresses of the bus of {2}, {3}: its PCI functions could not reach it";
            let bus = Arg::Range(window.bus, window.pa.size);
            let args = [Arg::Text(domain.name), Arg::Range(base, memory.ipa.size), Arg::Node(host.node), bus];
            let d = Diagnostic::new(codes::IPA_WINDOW, memory.span, message).args(&args);
            out.push(d.also(window.span, "this window").help("give the guest its memory at another address"));
        }
    }
}

/// Bytes a guest has of a GICv2's CPU interface: with injected delivery the second page too, whose GICC_DIR is virtual.
pub(crate) fn interface_size(domain: &Domain<'_>) -> u64 {
    if domain.delivery == Delivery::Injected { 2 * PAGE } else { PAGE }
}

/// With direct delivery from a GICv2 a guest has the first page of the CPU interface, where each CPU finds its own; with
/// injected delivery the virtual one in its place. The physical GICC_DIR stays unmapped.
fn cpu_interface(id: usize, domain: &Domain<'_>, board: &Board<'_>, pieces: &mut List<'_, Piece>) -> Result<(), Full> {
    let Some(GicFrames::V2 { gicc, gicv, .. }) = board.gic.as_ref().map(|gic| gic.frames) else { return Ok(()) };
    let (kind, frame) = match domain.delivery {
        Delivery::Direct => (grant::CPU_INTERFACE, gicc),
        Delivery::Injected => (grant::VIRTUAL_INTERFACE, gicv),
    };
    let (ipa, pa, size) = (gicc.base.0, frame.base.0, interface_size(domain));
    pieces.push(Piece { domain: id as u32, kind, ipa, pa, size, ..Piece::default() })
}

/// One mapping per run of device pages with one distance between guest and physical address.
fn devices(id: usize, layout: &Layout<'_, '_>, ranges: &[Range], pieces: &mut List<'_, Piece>) -> Result<(), Full> {
    for range in ranges.iter().filter(|range| matches!(range.owner, DEVICE | BARS)) {
        let pa = match layout.regions.get(range.item as usize) {
            _ if range.owner == BARS => range.base,
            Some(region) => down(region.pa.base.0, PAGE),
            None => continue,
        };
        let (domain, kind) = (id as u32, grant::DEVICE);
        match pieces.last_mut() {
            Some(last)
                if last.domain == domain
                    && last.kind == kind
                    && range.base < last.ipa + last.size
                    && last.pa.wrapping_sub(last.ipa) == pa.wrapping_sub(range.base) =>
            {
                last.size = last.size.max(range.end - last.ipa);
            }
            _ => pieces.push(Piece {
                domain,
                kind,
                ipa: range.base,
                pa,
                size: range.end - range.base,
                source: range.node,
                ..Piece::default()
            })?,
        }
    }
    Ok(())
}
