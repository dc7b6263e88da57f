//! Base address registers: where they lie, and that each page of them has one owner.

use crate::finding::Finding;
use crate::pci::is_bridge;
use crate::work::{Report, Work};
use cofferdam_plan::audit::{fact, grant};
use cofferdam_plan::pci::{BARS, Bar, Function};
use cofferdam_plan::{Bdf, DomainId, Ipa, IpaRegion, NO_DOMAIN, Pa, PaRegion, PciView, va};

/// Index of the expansion ROM's.
const ROM: usize = BARS - 1;

pub(crate) fn prove(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let Some(pci) = work.plan.pci else { return };
    for f in pci.functions {
        i72_registers_have_a_place(work, f, report);
    }
    i72_bar_pages_are_exclusive(&pci, report);
    i72_windows_are_granted_by_registers_only(work, &pci, report);
}

/// One base address register, decoded.
#[derive(Clone, Copy)]
pub(crate) struct Placed {
    /// Its number; of a 64-bit one, of the lower half.
    pub(crate) index: usize,
    /// Bus addresses, which are physical addresses.
    pub(crate) region: PaRegion,
    /// Whether its owner is to reach it.
    pub(crate) shown: bool,
    /// Whether the function says that it may be prefetched.
    pub(crate) prefetchable: bool,
    /// Of 64 bits.
    pub(crate) wide: bool,
}

/// Decodes register `index` (PCI Express Base 5.0, 7.5.1.2.1): `None` where there is nothing at it, or the upper half of the one
/// before.
pub(crate) fn placed(f: &Function, index: usize) -> Option<Placed> {
    let bar = f.bars.get(index)?;
    if bar.mask == 0 || is_upper(f, index) || bar.mask & 1 != 0 && index != ROM {
        return None;
    }
    let wide = index != ROM && bar.mask >> 1 & 3 == 2;
    let upper = f.bars.get(index + 1).filter(|_| wide).copied();
    let high = |pick: fn(&Bar) -> u32| upper.as_ref().map_or(0, |bar| u64::from(pick(bar)) << 32);
    let low = if index == ROM { !0x7FF } else { !0xF };
    let mask = u64::from(bar.mask & low) | if wide { high(|bar| bar.mask) } else { 0xFFFF_FFFF_0000_0000 };
    let base = u64::from(bar.value & low) | high(|bar| bar.value);
    let region = PaRegion { base: Pa(base), size: (!mask).wrapping_add(1) };
    Some(Placed { index, region, shown: bar.shown != 0, prefetchable: index != ROM && bar.mask & 8 != 0, wide })
}

/// Whether a register is the upper half of the one before.
fn is_upper(f: &Function, index: usize) -> bool {
    // Halves never overlap: from the first register on, a wide one takes the next.
    let mut at = 0;
    while at < index && at < ROM {
        let wide = f.bars.get(at).is_some_and(|bar| bar.mask & 1 == 0 && bar.mask >> 1 & 3 == 2);
        at += if wide { 2 } else { 1 };
    }
    at > index
}

/// The registers of a function that have an address.
pub(crate) fn all_placed(f: &Function) -> impl Iterator<Item = Placed> + use<'_> {
    (0..BARS).filter_map(|i| placed(f, i)).filter(|p| p.region.base.0 != 0)
}

/// The pages a register takes.
pub(crate) fn pages(p: &Placed) -> PaRegion {
    p.region.widened(va::PAGE)
}

/// I71, I72: a base address register is a power of two of memory in the windows, at a multiple of its size, with its kind bits;
/// the guest sees all of it or nothing. I/O ports and expansion ROMs have no address; without an owner there is none.
pub(crate) fn i72_registers_have_a_place(work: &Work<'_, '_>, f: &Function, report: &mut Report<'_>) {
    for (i, bar) in f.bars.iter().enumerate() {
        let mut bad = |why| report.add(Finding::BadBar { function: Bdf(f.rid), bar: i as u32, why });
        let upper = is_upper(f, i);
        if upper && i == ROM || i > 1 && i < ROM && is_bridge(f) && *bar != Bar::default() {
            bad("is not there");
        } else if bar.mask == 0 && !upper && (bar.value != 0 || bar.shown != 0) {
            bad("is not there, but has an address");
        } else if !upper && bar.mask & 1 != 0 && i != ROM {
            if bar.value != 0 || bar.shown != 0 || bar.mask & 2 != 0 || bar.mask & !3 == 0 {
                bad("is of I/O ports, which nobody gets");
            }
        } else if i == ROM {
            let low = bar.mask & 0x7FE;
            if bar.value != 0 || bar.shown != 0 || (bar.mask != 0 && (bar.mask & !0x7FF == 0 || low != 0)) {
                bad("is an expansion ROM's, which nobody gets");
            }
        } else if bar.shown != 0 && bar.shown != bar.mask {
            bad("shows another size than it has");
        }
        if upper && bar.value & !bar.mask != 0 {
            bad("is not aligned to its size");
        }
    }
    for p in (0..ROM).filter_map(|i| placed(f, i)) {
        let mut bad = |why| report.add(Finding::BadBar { function: Bdf(f.rid), bar: p.index as u32, why });
        let Some(bar) = f.bars.get(p.index) else { continue };
        let upper = f.bars.get(p.index + 1).filter(|_| p.wide);
        let fits = p.region.size <= if p.wide { 1 << 63 } else { 1 << 31 };
        if !p.region.size.is_power_of_two() || p.region.size < 16 || !fits || matches!(bar.mask >> 1 & 3, 1 | 3) {
            bad("has a mask that is no size");
            continue;
        }
        if upper.is_some_and(|upper| upper.shown != if p.shown { upper.mask } else { 0 }) {
            bad("is shown by half");
        }
        if p.region.base.0 == 0 {
            if bar.value != 0 || p.shown {
                bad("has no address and is shown");
            } else if f.domain != NO_DOMAIN || is_bridge(f) {
                // It would answer at address 0 as soon as memory decoding is on.
                bad("has no address, but its function decodes memory");
            }
            continue;
        }
        let owned = f.domain != NO_DOMAIN;
        if !owned && !is_bridge(f) || owned != p.shown {
            bad("has an address and nobody who may reach it, or the reverse");
        }
        if bar.value & 0xF != bar.mask & 0xF {
            bad("has other kind bits than the function");
        }
        if !p.region.is_valid() || !p.region.base.0.is_multiple_of(p.region.size) {
            bad("is not aligned to its size");
        } else if !work.is_covered(p.region, fact::PCI_WINDOW) {
            bad("lies outside the windows of the host bridge");
        }
        if owned && !is_granted(work, DomainId(f.domain), pages(&p)) {
            bad("is not granted to the owner at its own address");
        }
    }
}

fn is_granted(work: &Work<'_, '_>, domain: DomainId, pages: PaRegion) -> bool {
    let ipa = IpaRegion { base: Ipa(pages.base.0), size: pages.size };
    work.translate(domain, ipa, grant::DEVICE) == Some(pages.base)
}

/// I72: no page holds two base address registers, of whichever functions, bridges included.
pub(crate) fn i72_bar_pages_are_exclusive(pci: &PciView<'_>, report: &mut Report<'_>) {
    for (i, f) in pci.functions.iter().enumerate() {
        for p in all_placed(f) {
            let own = all_placed(f).filter(|o| o.index > p.index).any(|o| pages(&o).overlaps(&pages(&p)));
            let later = pci.functions.iter().skip(i + 1).flat_map(all_placed);
            if own || later.into_iter().any(|o| pages(&o).overlaps(&pages(&p))) {
                let why = "shares a page with another";
                report.add(Finding::BadBar { function: Bdf(f.rid), bar: p.index as u32, why });
            }
        }
    }
}

/// I72: in the windows nothing is granted but pages of base address registers, to the owner of their function, at their own
/// address.
pub(crate) fn i72_windows_are_granted_by_registers_only(
    work: &Work<'_, '_>,
    pci: &PciView<'_>,
    report: &mut Report<'_>,
) {
    let touches = |pa: &PaRegion| work.facts(fact::PCI_WINDOW).any(|w| w.region.overlaps(pa));
    for g in work.audit.grants.iter().filter(|g| touches(&g.pa)) {
        let own = || pci.functions.iter().filter(|f| u32::from(f.domain) == g.domain).flat_map(all_placed);
        let mut at = g.pa.base;
        while at < g.pa.end() {
            let end = own().map(|p| pages(&p)).filter(|pages| pages.contains(at)).map(|pages| pages.end()).max();
            match end {
                Some(end) if g.kind == grant::DEVICE && g.ipa.base.0 == g.pa.base.0 => at = end,
                _ => {
                    report.add(Finding::WindowGranted { domain: crate::memory::id(g), pa: g.pa });
                    break;
                }
            }
        }
    }
}
