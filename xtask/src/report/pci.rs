//! PCI in the report: functions with their places, registers, interrupts and what holds their DMA back.

use super::facts::Table;
use cofferdam_partitioner::model::{Board, Domain as Asked, Layout};
use cofferdam_partitioner::pci::capability::EXTENDED;
use cofferdam_partitioner::pci::model::Capability;
use cofferdam_partitioner::pci::policy;
use cofferdam_plan::audit::{fact, line};
use cofferdam_plan::pci::{BARS, Bar, Function, FunctionFlags};
use cofferdam_plan::{AuditView, Domain, DomainFlags, IntId, Plan};

/// What of PCI concerns one domain.
#[derive(Default)]
pub(super) struct Share {
    pub(super) says: Vec<(&'static str, String)>,
    pub(super) tables: Vec<Table>,
    pub(super) alarms: Vec<String>,
}

/// About SMMU and ITS; nothing in a plan without PCI.
pub(super) fn says(plan: &Plan<'_>) -> Vec<(&'static str, String)> {
    let Some(pci) = &plan.pci else { return vec![] };
    let owned = pci.functions.iter().filter(|f| usize::from(f.domain) < plan.domains.len()).count();
    let bridges = pci.functions.iter().filter(|f| f.flags & FunctionFlags::BRIDGE != 0).count();
    let rest = pci.functions.len() - owned - bridges;
    let smmu = match pci.record.smmu.registers_va {
        0 => "no SMMU".to_owned(),
        _ => format!("SMMUv3, {} bits of stream ID, every other stream aborts", pci.record.smmu.stream_bits),
    };
    let its = match pci.record.its.control_va {
        0 => "no ITS".to_owned(),
        _ => format!("ITS, {} LPIs", pci.lpis.len()),
    };
    let functions =
        format!("{owned} functions of domains, {bridges} bridges, {rest} functions of nobody: bus mastering off");
    vec![("PCI", format!("{functions}; {smmu}; {its}"))]
}

/// Whether functions of domain `index` send messages.
pub(super) fn sends(plan: &Plan<'_>, index: usize) -> bool {
    plan.pci.as_ref().and_then(|pci| pci.owners.get(index)).is_some_and(|owner| owner.spi_count != 0)
}

/// What of PCI this layout leaves open: nothing enforces it, or not wholly.
pub(super) fn open(plan: &Plan<'_>) -> Vec<String> {
    let owned = plan.pci.iter().flat_map(|pci| pci.functions);
    let owned = owned.filter_map(|f| Some((f, plan.domains.get(usize::from(f.domain))?)));
    let mut list = Vec::new();
    for (function, domain) in owned {
        let has = |flag| function.flags & flag != 0;
        let (name, restarts, domain) = (function.name(), domain.restarts(), domain.name());
        if is_trusted(function) {
            list.push(format!("{name} of domain {domain} reads and writes all of memory, the hypervisor's and other domains' too: nothing holds its DMA back"));
        }
        if !has(FunctionFlags::FLR) && !has(FunctionFlags::BUS_RESET) {
            let who = if restarts { "an earlier run of the domain" } else { "firmware" };
            list.push(format!("{name} of domain {domain} has no reset: what {who} has set in it stays set"));
        }
    }
    list
}

/// Whether nothing but trust in its domain is in the way of what a function does by itself.
fn is_trusted(function: &Function) -> bool {
    function.flags & FunctionFlags::DMA != 0 && function.ste[0] & 1 == 0
}

/// What the table says of the DMA of a trusted function; pages show it as an alarm.
pub(super) const ALL_OF_MEMORY: &str = "ALL OF MEMORY: trusted";

/// Capabilities of functions of a domain that its guest is not shown, since this version does not know them or lets nobody have them.
pub(super) fn hidden(board: &Board<'_>, layout: &Layout<'_, '_>, domain: &Asked<'_>) -> Vec<String> {
    let grants = layout.devices.get(domain.devices.clone()).unwrap_or(&[]);
    let functions = grants.iter().filter_map(|grant| board.pci.as_ref()?.functions.get(grant.function?));
    let mut list = Vec::new();
    for function in functions {
        let one = |capability: Capability| {
            let id = capability.dwords[0] & if capability.offset < EXTENDED { 0xFF } else { 0xFFFF };
            let kind = if capability.offset < EXTENDED { "" } else { "extended " };
            format!("{kind}{id:#04x} at {:#x}", capability.offset)
        };
        let all: Vec<_> = policy::hidden(function).map(one).collect();
        if !all.is_empty() {
            list.push(format!("{}: {}", function.name, all.join(", ")));
        }
    }
    list
}

/// The functions of domain `index`.
pub(super) fn share(plan: &Plan<'_>, audit: &AuditView<'_>, index: usize, domain: &Domain) -> Share {
    let mut share = Share::default();
    let Some((pci, owner)) = plan.pci.as_ref().and_then(|pci| Some((pci, pci.owners.get(index)?))) else {
        return share;
    };
    let functions = pci.functions_of(owner).unwrap_or(&[]);
    if functions.is_empty() {
        return share;
    }
    let injected = domain.flags & DomainFlags::INJECTED != 0;
    if owner.spi_count != 0 {
        let (first, count) = (spi(owner.first_spi), owner.spi_count);
        let text = format!(
            "SPI {first} to {}, without wires: the ITS gives an LPI, the hypervisor sets the SPI pending",
            first + count - 1
        );
        share.says.push(("PCI messages", text));
    }
    let mut list = Table {
        title: "PCI functions".into(),
        heads: vec!["place", "in the guest", "function", "reset", "interrupts", "DMA"],
        rows: vec![],
    };
    let mut bars = Table {
        title: "PCI base address registers".into(),
        heads: vec!["function", "register", "kind", "bytes", "address"],
        rows: vec![],
    };
    for function in functions {
        let place = format!("{:02x}:{}", function.rid >> 8, devfn(function.rid as u8));
        let has = |flag| function.flags & flag != 0;
        let port = pci.functions.get(usize::from(function.reset)).filter(|_| has(FunctionFlags::BUS_RESET));
        let reset = match port {
            Some(port) => format!("at each start, of its bus by {}", port.name()),
            None if has(FunctionFlags::FLR) => "at each start".to_owned(),
            None => "none".to_owned(),
        };
        let dma = if function.ste[0] & 1 != 0 {
            format!("its domain's RAM, by the SMMU (stream {:#x})", function.stream)
        } else if is_trusted(function) {
            share.alarms.push(format!(
                "{} ({place}) reads and writes all of memory: no SMMU holds it back, the layout trusts the domain (dma = \"trusted\")",
                function.name()
            ));
            ALL_OF_MEMORY.to_owned()
        } else {
            "none: never a bus master".to_owned()
        };
        let interrupts = interrupts(plan, audit, function, injected);
        let row = [place, format!("00:{}", devfn(function.devfn)), function.name().to_owned(), reset, interrupts, dma];
        list.rows.push(row.into());
        registers(function, &mut bars);
    }
    share.tables = vec![list, bars];
    share
}

fn devfn(devfn: u8) -> String {
    format!("{:02x}.{}", devfn >> 3, devfn & 7)
}

fn spi(intid: IntId) -> u32 {
    intid.0.saturating_sub(IntId::FIRST_SPI.0)
}

/// How a function interrupts, and why so.
fn interrupts(plan: &Plan<'_>, audit: &AuditView<'_>, function: &Function, injected: bool) -> String {
    if function.flags & FunctionFlags::MSI != 0 {
        return "MSI: it sends messages, and delivery is injected".to_owned();
    }
    // The function's own page of configuration space has its node's name, and so has its line.
    let ecam = audit.facts.iter().find(|f| f.kind == fact::ECAM);
    let page = ecam
        .map(|ecam| ecam.region.base.0 + (u64::from(function.rid) << 12).saturating_sub(u64::from(ecam.owner) << 20));
    let kinds = [fact::STREAM, fact::DEVICE_ID, fact::TRUSTED_DMA];
    let own = audit.facts.iter().find(|f| kinds.contains(&f.kind) && Some(f.region.base.0) == page);
    let domain = plan.domains.get(usize::from(function.domain)).map(|_| u32::from(function.domain));
    let pin = audit.lines.iter().find(|l| {
        l.kind == line::DEVICE
            && Some(l.domain) == domain
            && own.is_some_and(|own| audit.name(own.name) == audit.name(l.name))
    });
    match (pin, injected) {
        (Some(pin), false) => format!("INTx, SPI {}: no exit, delivery is direct", spi(pin.intid)),
        (Some(pin), true) => format!("INTx, SPI {}: it sends no message that could be brought", spi(pin.intid)),
        (None, _) => "none of its own".to_owned(),
    }
}

/// The base address registers of a function; 64-bit ones take two.
fn registers(function: &Function, table: &mut Table) {
    let mut upper = false;
    for (number, bar) in function.bars.iter().enumerate() {
        if core::mem::take(&mut upper) || bar.mask == 0 {
            continue;
        }
        let rom = number == BARS - 1;
        let next = function.bars.get(number + 1).copied().unwrap_or_default();
        let io = bar.mask & 1 != 0 && !rom;
        let wide = !io && !rom && bar.mask & 6 == 4;
        upper = wide;
        let (size, address) = size_and_address(*bar, wide.then_some(next), io, rom);
        let kind = match (rom, io, wide) {
            (true, ..) => "expansion ROM",
            (_, true, _) => "I/O",
            (.., true) => "64-bit memory",
            _ => "memory",
        };
        let hidden = bar.shown == 0 && (!wide || next.shown == 0);
        let place = match hidden {
            true if io => "unassigned, hidden: no I/O ports here".to_owned(),
            true => "unassigned, hidden".to_owned(),
            false => format!("{address:#x}"),
        };
        let register = if rom { 0x30 } else { 0x10 + 4 * number };
        table.rows.push(vec![
            function.name().to_owned(),
            format!("{register:#x}"),
            kind.into(),
            size.to_string(),
            place,
        ]);
    }
}

/// Bytes a register decodes, and where (PCI Local Bus 3.0, 6.2.5.1).
fn size_and_address(bar: Bar, upper: Option<Bar>, io: bool, rom: bool) -> (u64, u64) {
    let low: u32 = if rom {
        0x7FF
    } else if io {
        3
    } else {
        0xF
    };
    let (mask, value) = (u64::from(bar.mask & !low), u64::from(bar.value & !low));
    let join = |low: u64, high: u32| low | u64::from(high) << 32;
    match upper {
        Some(upper) => (join(mask, upper.mask).wrapping_neg(), join(value, upper.value)),
        // I/O registers may leave their upper half out.
        None if io => (mask.wrapping_neg() & 0xFFFF, value),
        None => (u64::from((mask as u32).wrapping_neg()), value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let bar = |mask, value| Bar { mask, value, shown: mask };
        assert_eq!(size_and_address(bar(0xFFFE_0000, 0x1040_0000), None, false, false), (0x2_0000, 0x1040_0000));
        assert_eq!(size_and_address(bar(0xFFFF_FFE1, 0), None, true, false), (0x20, 0));
        assert_eq!(size_and_address(bar(0xFFC1, 0), None, true, false), (0x40, 0));
        let wide = size_and_address(bar(0xFFFF_C00C, 0x20_000C), Some(bar(0xFFFF_FFFF, 0x80)), false, false);
        assert_eq!(wide, (0x4000, 0x80_0020_0000));
        assert_eq!(size_and_address(bar(0xFFFC_0001, 0), None, false, true), (0x4_0000, 0));
    }
}
