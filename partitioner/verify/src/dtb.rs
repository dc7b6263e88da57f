//! Re-reads every generated guest device tree: it must not promise a guest what the plan does not give it.
//!
//! Read with `fdt-rs`, which shares nothing with our writer, after `shape` has bounded every offset. A tree the user brings
//! is the guest's own business: stage 2 and the filters hold whatever it says.
#![allow(unsafe_code)] // fdt-rs offers no safe constructor

use crate::finding::Finding;
use crate::gicv2;
use crate::memory::windows;
use crate::shape::{self, MAX_DEPTH, word};
use crate::work::{Report, Work};
use cofferdam_plan::audit::{Payload, fact, grant, payload};
use cofferdam_plan::{Domain, DomainId, IntId, Ipa, IpaRegion, Pa, PaRegion};
use fdt_rs::base::DevTree;
use fdt_rs::base::parse::ParsedTok;
use fdt_rs::prelude::FallibleIterator;

pub(crate) fn prove(work: &Work<'_, '_>, report: &mut Report<'_>) {
    for p in work.audit.payloads.iter().filter(|p| p.kind == payload::DTB && p.name.len == 0) {
        let domain = DomainId(p.domain as u16);
        let Some(d) = work.plan.domains.get(p.domain as usize) else { continue };
        match generated_bytes(work, p) {
            None => report.add(Finding::DtbNotInPlan { domain, offset: p.offset }),
            Some(bytes) => {
                if let Err(why) = dtb_promises_only_what_is_granted(work, domain, d, bytes, report) {
                    report.add(Finding::DtbUnreadable { domain, why });
                }
            }
        }
    }
}

/// A generated tree lies in the blob, behind the records.
fn generated_bytes<'a>(work: &Work<'a, '_>, p: &Payload) -> Option<&'a [u8]> {
    let h = work.plan.header;
    let from = p.offset.checked_sub(u64::from(h.blob_offset))?;
    let to = from.checked_add(p.len)?;
    if from < u64::from(h.records_len) || to > u64::from(h.blob_len) {
        return None;
    }
    work.plan.bytes.get(from as usize..to as usize)
}

/// One open node.
#[derive(Clone, Copy, Default)]
struct Open<'t> {
    name: &'t str,
    reg: Option<&'t [u8]>,
    ranges: Option<&'t [u8]>,
    interrupts: Option<&'t [u8]>,
    extended: Option<&'t [u8]>,
    /// Version, of an interrupt controller this is.
    gic: Option<u32>,
    is_cpu: bool,
    is_pci: bool,
    interrupt_map: Option<&'t [u8]>,
    /// First interrupt and number of them, of a frame for MSIs.
    messages: (Option<u32>, Option<u32>),
    phandle: u32,
    /// `#address-cells` where the node says it: of an interrupt controller there are none else.
    said_cells: usize,
    /// Of this node or inherited.
    interrupt_parent: u32,
    address_cells: usize,
    size_cells: usize,
}

/// What is collected over the whole tree.
struct Reader<'w, 'a, 's, 'r, 'sink> {
    work: &'w Work<'a, 's>,
    domain: DomainId,
    d: &'w Domain,
    gic: u32,
    /// `#address-cells` of the interrupt controller.
    gic_cells: usize,
    cpus: u32,
    report: &'r mut Report<'sink>,
}

/// I18, I32 (as the guest is told): memory and registers lie in what the domain was granted or sees emulated, interrupts
/// are its own, and it has as many CPUs as vCPUs.
pub(crate) fn dtb_promises_only_what_is_granted(
    work: &Work<'_, '_>,
    domain: DomainId,
    d: &Domain,
    bytes: &[u8],
    report: &mut Report<'_>,
) -> Result<(), &'static str> {
    shape::check(bytes)?;
    let total = word(bytes, 4).map_or(0, |v| v as usize);
    let bytes = bytes.get(..total).ok_or("is longer than its payload")?;
    // SAFETY: `new` asks for a buffer that holds a whole, well-formed tree; `shape::check` has just bounded every offset,
    // name and property in it, and its alignment.
    let tree = unsafe { DevTree::new(bytes) }.map_err(|_| "is refused by the reader")?;
    let mut reader = Reader { work, domain, d, gic: 0, gic_cells: 0, cpus: 0, report };
    let version = if gicv2::is_v2(work) { 2 } else { 3 };
    // The controller's phandle first: nodes before it may refer to it.
    let (mut gic, mut gic_cells) = (0, 0);
    each_node(&tree, &mut |path| {
        if let Some(node) = path.last().filter(|n| n.gic == Some(version)) {
            (gic, gic_cells) = (node.phandle, node.said_cells);
        }
        Ok(())
    })?;
    if gic == 0 {
        return Err("names no interrupt controller of the plan's version with a phandle");
    }
    (reader.gic, reader.gic_cells) = (gic, gic_cells);
    each_node(&tree, &mut |path| reader.node(path))?;
    if reader.cpus != d.vcpu_count {
        let (found, planned) = (reader.cpus, d.vcpu_count);
        report.add(Finding::DtbCpus { domain, found, planned });
    }
    Ok(())
}

/// Calls `visit` with each node and its ancestors, the root first, once all its properties are known.
fn each_node<'t>(
    tree: &DevTree<'t>,
    visit: &mut dyn FnMut(&[Open<'t>]) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    let mut stack = [Open::default(); MAX_DEPTH];
    let mut depth = 0;
    let mut seen_properties = false;
    let mut tokens = tree.parse_iter();
    while let Some(token) = tokens.next().map_err(|_| "is refused by the reader")? {
        match token {
            ParsedTok::BeginNode(node) => {
                if seen_properties {
                    visit(stack.get(..depth).unwrap_or(&[]))?;
                }
                let parent = depth.checked_sub(1).and_then(|i| stack.get(i));
                let interrupt_parent = parent.map_or(0, |p| p.interrupt_parent);
                let name = core::str::from_utf8(node.name).map_err(|_| "has a node name that is not UTF-8")?;
                // Defaults of the specification, 2.3.5.
                let open = Open { name, interrupt_parent, address_cells: 2, size_cells: 1, ..Open::default() };
                *stack.get_mut(depth).ok_or("is nested too deeply")? = open;
                depth += 1;
                seen_properties = true;
            }
            ParsedTok::EndNode => {
                if seen_properties {
                    visit(stack.get(..depth).unwrap_or(&[]))?;
                }
                seen_properties = false;
                depth = depth.checked_sub(1).ok_or("closes a node it never opened")?;
            }
            ParsedTok::Prop(prop) => {
                let name = string_at(tree.buf(), tree.off_dt_strings().saturating_add(prop.name_offset));
                let node =
                    depth.checked_sub(1).and_then(|i| stack.get_mut(i)).ok_or("has a property outside a node")?;
                property(node, name, prop.prop_buf);
            }
            ParsedTok::Nop => {}
        }
    }
    Ok(())
}

fn property<'t>(node: &mut Open<'t>, name: &str, value: &'t [u8]) {
    let number = word(value, 0).unwrap_or(0);
    match name {
        "reg" => node.reg = Some(value),
        "ranges" => node.ranges = Some(value),
        "interrupts" => node.interrupts = Some(value),
        "interrupts-extended" => node.extended = Some(value),
        "compatible" => {
            node.gic = value.split(|b| *b == 0).find_map(|name| match name {
                b"arm,gic-v3" => Some(3),
                b"arm,gic-400" | b"arm,cortex-a15-gic" => Some(2),
                _ => None,
            });
        }
        "device_type" => (node.is_cpu, node.is_pci) = (value == b"cpu\0", value == b"pci\0"),
        "interrupt-map" => node.interrupt_map = Some(value),
        "arm,msi-base-spi" => node.messages.0 = Some(number),
        "arm,msi-num-spis" => node.messages.1 = Some(number),
        "phandle" => node.phandle = number,
        "interrupt-parent" => node.interrupt_parent = number,
        "#address-cells" => (node.address_cells, node.said_cells) = (number as usize, number as usize),
        "#size-cells" => node.size_cells = number as usize,
        _ => {}
    }
}

fn string_at(bytes: &[u8], at: usize) -> &str {
    let rest = bytes.get(at..).unwrap_or(&[]);
    let len = rest.iter().position(|b| *b == 0).unwrap_or(0);
    core::str::from_utf8(rest.get(..len).unwrap_or(&[])).unwrap_or("")
}

/// A number of `cells` cells at cell index `at`; more than two cells are not addresses a CPU can use.
fn number(value: &[u8], at: usize, cells: usize) -> Option<u64> {
    match cells {
        0 => Some(0),
        1 => word(value, at.checked_mul(4)?).map(u64::from),
        2 => {
            let high = word(value, at.checked_mul(4)?)?;
            let low = word(value, at.checked_add(1)?.checked_mul(4)?)?;
            Some(u64::from(high) << 32 | u64::from(low))
        }
        _ => None,
    }
}

impl Reader<'_, '_, '_, '_, '_> {
    fn node(&mut self, path: &[Open<'_>]) -> Result<(), &'static str> {
        let Some((node, ancestors)) = path.split_last() else { return Ok(()) };
        let parent = ancestors.last().map_or("", |p| p.name);
        if parent == "cpus" && ancestors.len() == 2 {
            return self.cpu(node, ancestors);
        }
        // Memory is described at the root or below /reserved-memory; what else has a `reg` is registers.
        let is_memory = ancestors.len() == 1 && node.name.split('@').next() == Some("memory");
        let is_reserved = ancestors.len() == 2 && parent == "reserved-memory";
        if let (Some(reg), Some(bus)) = (node.reg, ancestors.last()) {
            let entry = bus.address_cells.checked_add(bus.size_cells).filter(|n| *n > 0 && *n <= 4);
            let entry = entry.ok_or("has a bus whose addresses are not one or two cells")?;
            if reg.len() % (entry * 4) != 0 {
                return Err("has a reg that is not whole entries");
            }
            // A bus without ranges has addresses of its own (SPI, I2C, CPUs), which the CPU cannot reach.
            let reachable = ancestors.iter().skip(1).all(|bus| bus.ranges.is_some());
            for i in (0..reg.len() / 4).step_by(entry).filter(|_| reachable) {
                let address = number(reg, i, bus.address_cells).ok_or("has an address of more than two cells")?;
                let size =
                    number(reg, i + bus.address_cells, bus.size_cells).ok_or("has a size of more than two cells")?;
                let base = to_root(ancestors, address, size).ok_or("has an address its ranges do not translate")?;
                let ipa = IpaRegion::new(Ipa(base), size).ok_or("has a range that wraps")?;
                let holds = if is_memory || is_reserved {
                    self.work.is_granted(self.domain, ipa, grant::RAM)
                } else {
                    let emulated = windows(self.work, self.domain, self.d).iter().any(|(w, _)| w.contains_region(&ipa));
                    let granted = |kind| self.work.is_granted(self.domain, ipa, kind);
                    size > 0 && (emulated || granted(grant::DEVICE) || gicv2::KINDS.into_iter().any(granted))
                };
                if !holds {
                    self.report.add(Finding::DtbRegion { domain: self.domain, ipa });
                }
            }
        }
        if node.is_pci {
            self.host_bridge(node, ancestors)?;
        }
        self.messages(node);
        self.interrupts(node)
    }

    /// `ranges` and `interrupt-map` of a host bridge (IEEE 1275 PCI bus binding, 2.2.1; Devicetree Specification 0.4, 2.4.3): memory in
    /// the board's windows, at its own address, and interrupts of the domain's.
    fn host_bridge(&mut self, node: &Open<'_>, ancestors: &[Open<'_>]) -> Result<(), &'static str> {
        let above = ancestors.last().map_or(0, |bus| bus.address_cells);
        let ranges = node.ranges.unwrap_or(&[]);
        let entry =
            above.checked_add(5).filter(|n| *n <= 7).ok_or("has a bus whose addresses are not one or two cells")?;
        if node.address_cells != 3 || node.size_cells != 2 || !ranges.len().is_multiple_of(entry * 4) {
            return Err("has a host bridge whose ranges are not whole entries");
        }
        for i in (0..ranges.len() / 4).step_by(entry) {
            let space = word(ranges, i * 4).unwrap_or(0) >> 24 & 3;
            let bus = number(ranges, i + 1, 2).ok_or("has a range that wraps")?;
            let size = number(ranges, i + 3 + above, 2).ok_or("has a range that wraps")?;
            let address = number(ranges, i + 3, above).ok_or("has an address of more than two cells")?;
            let base = to_root(ancestors, address, size).ok_or("has an address its ranges do not translate")?;
            let window = PaRegion::new(Pa(base), size).ok_or("has a range that wraps")?;
            if space < 2 || bus != base || size == 0 || !self.work.is_covered(window, fact::PCI_WINDOW) {
                self.report.add(Finding::DtbRegion { domain: self.domain, ipa: IpaRegion { base: Ipa(base), size } });
            }
        }
        // Unit address and pin, then the parent's phandle, unit address and specifier.
        let map = node.interrupt_map.unwrap_or(&[]);
        let entry =
            self.gic_cells.checked_add(8).filter(|n| *n <= 10).ok_or("has an interrupt controller of unknown cells")?;
        if !map.len().is_multiple_of(entry * 4) {
            return Err("has an interrupt-map that is not whole entries");
        }
        for row in map.chunks_exact(entry * 4) {
            if word(row, 16) != Some(self.gic) {
                return Err("has an interrupt-map that leads to another controller");
            }
            self.interrupt(row.get((entry - 3) * 4..).unwrap_or(&[]));
        }
        Ok(())
    }

    /// The interrupts that a frame says MSIs raise are the domain's, those for MSIs.
    fn messages(&mut self, node: &Open<'_>) {
        let owner = self.work.plan.pci.and_then(|pci| pci.owners.get(usize::from(self.domain.0)));
        let planned = owner.filter(|o| o.spi_count != 0).map(|o| (Some(o.first_spi.0), Some(o.spi_count)));
        if node.messages != (None, None) && Some(node.messages) != planned {
            let intid = IntId(node.messages.0.unwrap_or(0));
            self.report.add(Finding::DtbInterrupt { domain: self.domain, intid });
        }
    }

    fn cpu(&mut self, node: &Open<'_>, ancestors: &[Open<'_>]) -> Result<(), &'static str> {
        if !node.is_cpu {
            return Ok(());
        }
        let cells = ancestors.last().map_or(1, |cpus| cpus.address_cells);
        let affinity = node.reg.and_then(|reg| number(reg, 0, cells)).ok_or("has a CPU without reg")?;
        // vCPU n has Aff0 = n.
        if affinity != u64::from(self.cpus) {
            self.report.add(Finding::DtbCpu { domain: self.domain, affinity });
        }
        self.cpus += 1;
        Ok(())
    }

    fn interrupts(&mut self, node: &Open<'_>) -> Result<(), &'static str> {
        if let Some(list) = node.interrupts.filter(|_| node.interrupt_parent == self.gic && node.extended.is_none()) {
            if list.len() % 12 != 0 {
                return Err("has interrupts that are not three cells each");
            }
            for specifier in list.chunks_exact(12) {
                self.interrupt(specifier);
            }
        }
        // After a parent we do not know, the list's cells cannot be counted any further.
        let mut rest = node.extended.unwrap_or(&[]);
        while word(rest, 0) == Some(self.gic) {
            self.interrupt(rest.get(4..16).ok_or("has interrupts that are not three cells each")?);
            rest = rest.get(16..).unwrap_or(&[]);
        }
        Ok(())
    }

    fn interrupt(&mut self, specifier: &[u8]) {
        let (kind, number) = (word(specifier, 0), word(specifier, 4).unwrap_or(u32::MAX));
        let intid = match kind {
            Some(0) => IntId::spi(number),
            Some(1) => IntId::ppi(number),
            _ => None,
        };
        if !intid.is_some_and(|i| self.d.owns(i)) {
            self.report.add(Finding::DtbInterrupt { domain: self.domain, intid: intid.unwrap_or(IntId(number)) });
        }
    }
}

/// The address the CPU uses for `address` on the bus of the last of `buses`; the first is the root.
fn to_root(buses: &[Open<'_>], address: u64, size: u64) -> Option<u64> {
    let mut at = address;
    for (i, bus) in buses.iter().enumerate().skip(1).rev() {
        let ranges = bus.ranges?;
        if ranges.is_empty() {
            continue;
        }
        let parent_cells = buses.get(i - 1)?.address_cells;
        let entry = bus.address_cells.checked_add(parent_cells)?.checked_add(bus.size_cells)?;
        if entry == 0 || entry > 6 {
            return None;
        }
        at = (0..ranges.len() / 4).step_by(entry).find_map(|cell| {
            let child = number(ranges, cell, bus.address_cells)?;
            let parent = number(ranges, cell + bus.address_cells, parent_cells)?;
            let len = number(ranges, cell + bus.address_cells + parent_cells, bus.size_cells)?;
            let offset = at.checked_sub(child)?;
            (offset.checked_add(size)? <= len).then(|| parent.checked_add(offset))?
        })?;
    }
    Some(at)
}
