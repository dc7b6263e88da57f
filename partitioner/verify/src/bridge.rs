//! Bridges: what each lets through leads to what is behind it, and to nothing else.

use crate::bar::all_placed;
use crate::finding::Finding;
use crate::pci::{ecam, is_bridge};
use crate::work::{Report, Work};
use cofferdam_plan::audit::fact;
use cofferdam_plan::pci::Function;
use cofferdam_plan::{Bdf, NO_DOMAIN, Pa, PaRegion, PciView};

/// What a bridge forwards downstream (PCI Express Base 5.0, 7.5.1.3).
#[derive(Clone, Copy)]
struct Bridge {
    rid: u16,
    primary: u8,
    secondary: u8,
    subordinate: u8,
    memory: Option<PaRegion>,
    prefetchable: Option<PaRegion>,
}

impl Bridge {
    fn windows(&self) -> impl Iterator<Item = PaRegion> + use<> {
        self.memory.into_iter().chain(self.prefetchable)
    }

    /// Whether a bus is behind it.
    fn leads_to(&self, bus: u8) -> bool {
        (self.secondary..=self.subordinate).contains(&bus)
    }
}

fn bus(rid: u16) -> u8 {
    (rid >> 8) as u8
}

/// `None` where the limit is below the base: nothing passes.
fn window(base: u64, limit: u64) -> Option<PaRegion> {
    (base <= limit).then(|| PaRegion { base: Pa(base), size: limit - base + 1 })
}

fn decode(f: &Function) -> Bridge {
    let [buses, _, memory, prefetchable, upper] = f.bridge;
    let base = |word: u32| u64::from(word & 0xFFF0) << 16;
    let limit = |word: u32| u64::from(word & 0xFFF0_0000) | 0xF_FFFF;
    // EL2 writes both upper halves with the same value.
    let upper = u64::from(upper) << 32;
    Bridge {
        rid: f.rid,
        primary: buses as u8,
        secondary: (buses >> 8) as u8,
        subordinate: (buses >> 16) as u8,
        memory: window(base(memory), limit(memory)),
        prefetchable: window(base(prefetchable) | upper, limit(prefetchable) | upper),
    }
}

fn bridges<'a>(pci: &PciView<'a>) -> impl Iterator<Item = Bridge> + use<'a> {
    pci.functions.iter().filter(|f| is_bridge(f)).map(decode)
}

pub(crate) fn prove(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let Some(pci) = work.plan.pci else { return };
    for (i, f) in pci.functions.iter().filter(|f| is_bridge(f)).enumerate() {
        i72_bridge_is_sound(work, &pci, i, f, report);
    }
    for f in pci.functions {
        i72_bridges_lead_to_what_is_behind_them(work, &pci, f, report);
    }
}

/// I72: bus numbers nest and are disjoint between siblings, parents stand before children; windows lie in those of the bridge
/// above, or the host's, and overlap no sibling's; no I/O passes.
pub(crate) fn i72_bridge_is_sound(
    work: &Work<'_, '_>,
    pci: &PciView<'_>,
    index: usize,
    f: &Function,
    report: &mut Report<'_>,
) {
    let mut bad = |why| report.add(Finding::BadBridge { function: Bdf(f.rid), why });
    let own = decode(f);
    let [buses, io, memory, prefetchable, upper] = f.bridge;
    if buses >> 24 != 0 || own.primary != bus(f.rid) || own.secondary <= own.primary || own.subordinate < own.secondary
    {
        bad("has bus numbers that do not ascend from its own");
    }
    // I/O base 7:4 above limit 15:12; the low bits are the hardware's, and so is the status above.
    if io & 0xF0 <= io >> 8 & 0xF0 || io & 0xFFFF_0F0F != 0 {
        bad("lets I/O pass");
    }
    // Of each window, the low four bits of base and limit say what the hardware can: as programmed, zero or 64-bit.
    let kind = |word: u32| (word & 0xF, word >> 16 & 0xF);
    if kind(memory) != (0, 0) || ![(0, 0), (1, 1)].contains(&kind(prefetchable)) {
        bad("has window registers with unknown bits");
    }
    if own.prefetchable.is_none() && upper != 0 {
        bad("has the upper half of a window it does not have");
    }
    let parents = || bridges(pci).take(index).filter(|b| b.secondary == own.primary);
    let on_root = ecam(work).is_some_and(|ecam| u32::from(own.primary) == ecam.owner);
    let above = parents().next();
    match above {
        Some(parent) => {
            if parent.subordinate < own.subordinate {
                bad("has bus numbers beyond those of the bridge above");
            }
            if own.windows().any(|w| !parent.windows().any(|p| p.contains_region(&w))) {
                bad("has a window beyond those of the bridge above");
            }
        }
        None if !on_root => bad("has no bridge above and is not on the root bus"),
        None => {
            let buses = ecam(work).map_or(0, |ecam| u64::from(ecam.owner) + (ecam.region.size >> 20));
            if u64::from(own.subordinate) >= buses {
                bad("has bus numbers beyond the host bridge's");
            }
            if own.windows().any(|w| !work.is_covered(w, fact::PCI_WINDOW)) {
                bad("has a window beyond those of the host bridge");
            }
        }
    }
    if let (Some(a), Some(b)) = (own.memory, own.prefetchable)
        && a.overlaps(&b)
    {
        bad("has two windows over each other");
    }
    for other in bridges(pci).skip(index + 1) {
        let siblings = other.primary == own.primary;
        let buses = own.secondary <= other.subordinate && other.secondary <= own.subordinate;
        let windows = own.windows().any(|w| other.windows().any(|o| o.overlaps(&w)));
        if siblings && (buses || windows) || other.secondary == own.secondary {
            bad("has buses or addresses in common with another on its bus");
        }
    }
}

/// I73: a port resets the bus right behind it for the owner of everything there: nobody else's function, none that nobody has, no
/// bridge to more.
pub(crate) fn i73_a_bus_is_reset_for_its_owner(pci: &PciView<'_>, f: &Function, report: &mut Report<'_>) {
    let port = pci.functions.get(usize::from(f.reset)).filter(|port| is_bridge(port)).map(decode);
    if f.domain == NO_DOMAIN || port.is_none_or(|port| port.secondary != bus(f.rid)) {
        return report
            .add(Finding::BadFunction { function: Bdf(f.rid), why: "is reset by what is no port to its bus" });
    }
    let shared = |other: &&Function| {
        port.is_some_and(|port| port.leads_to(bus(other.rid))) && (is_bridge(other) || other.domain != f.domain)
    };
    if pci.functions.iter().any(|other| shared(&other)) {
        report.add(Finding::BadFunction { function: Bdf(f.rid), why: "is reset with what is not its domain's" });
    }
}

/// I72: a function is on the root bus or on the bus right behind a bridge; its registers lie in the windows of every bridge
/// above it and in those of no other.
pub(crate) fn i72_bridges_lead_to_what_is_behind_them(
    work: &Work<'_, '_>,
    pci: &PciView<'_>,
    f: &Function,
    report: &mut Report<'_>,
) {
    let on_root = ecam(work).is_some_and(|ecam| u32::from(bus(f.rid)) == ecam.owner);
    if on_root == bridges(pci).any(|b| b.secondary == bus(f.rid)) {
        report.add(Finding::BadFunction { function: Bdf(f.rid), why: "is on a bus that no bridge leads to, or two" });
    }
    for b in bridges(pci).filter(|b| b.rid != f.rid || is_bridge(f)) {
        for p in all_placed(f) {
            let through = b.leads_to(bus(f.rid)) && b.rid != f.rid;
            // What must not be read ahead does not lie where bridges may (PCI Express Base 5.0, 7.5.1.3.9).
            let ahead = b.prefetchable.filter(|_| p.prefetchable || p.wide);
            let inside = b.memory.into_iter().chain(ahead).any(|w| w.contains_region(&p.region));
            let touched = b.windows().any(|w| w.overlaps(&p.region));
            if through && !inside || !through && touched {
                let why = "lies where another bridge leads, or the bridges above do not";
                report.add(Finding::BadBar { function: Bdf(f.rid), bar: p.index as u32, why });
            }
        }
    }
}
