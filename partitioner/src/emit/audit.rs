//! The audit section: board facts, grants, lines and payloads, each with the path of the node it comes from.

use super::assemble::Input;
use super::blob::Blob;
use super::parts;
use super::stage2::joined;
use crate::layout::PMU_PPI;
use crate::lent::Full;
use crate::model::{Board, Delivery, DeviceGrant, GicFrames};
use crate::pci::model::{Mode, Settlement};
use crate::resolve::{MAINTENANCE, PAGE};
use cofferdam_dts::NodeId;
use cofferdam_plan::audit::{Audit, Fact, Grant, Line, Name, Payload, fact, grant, line, payload};
use cofferdam_plan::{IntId, Ipa, IpaRegion, Pa, PaRegion, Table};
use core::fmt::{self, Display, Write};

/// Nodes whose `reg` is not device registers.
const NOT_DEVICES: &[&str] = &["domains", "memory", "reserved-memory", "cpus", "chosen", "aliases"];

/// Names written so far: only their length is known until the records are.
struct Names {
    len: u32,
}

struct Count(u32);

impl Write for Count {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len() as u32;
        Ok(())
    }
}

impl Names {
    fn of(&mut self, text: &dyn Display) -> Name {
        let mut count = Count(0);
        // Counting never fails.
        let _ = write!(count, "{text}");
        let name = Name { offset: self.len, len: count.0 };
        self.len += count.0;
        name
    }
}

/// Writes bytes of a name, or remembers that they did not fit.
struct Text<'w, 'b> {
    blob: &'w mut Blob<'b>,
    result: Result<(), Full>,
}

impl Write for Text<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.result = self.result.and_then(|()| self.blob.append(text.as_bytes()));
        Ok(())
    }
}

/// A receiver of records and their names. Called twice in the same order: first for the records, then for the names.
pub(super) type Each<'e, T> = &'e mut dyn FnMut(T, &dyn Display) -> Result<(), Full>;

impl Input<'_, '_, '_> {
    fn facts(&self, each: Each<'_, Fact>) -> Result<(), Full> {
        let fact = |base, size, kind| Fact {
            region: PaRegion { base: Pa(base), size },
            kind,
            owner: 0,
            name: Name::default(),
        };
        let region = |r: PaRegion, kind| fact(r.base.0, r.size, kind);
        for bank in &self.board.ram {
            each(region(bank.value, fact::RAM), &"/memory")?;
        }
        for taken in &self.board.reserved {
            each(region(taken.region, fact::RESERVED), &taken.node.path())?;
        }
        for taken in self.board.forbidden.iter().filter(|taken| !self.is_window(taken)) {
            each(region(taken.region, fact::FORBIDDEN), &taken.node.path())?;
        }
        if let Some(gic) = &self.board.gic
            && let GicFrames::V2 { gicc, gicv, .. } = gic.frames
        {
            each(fact(gicc.base.0, PAGE, fact::CPU_INTERFACE), &gic.node.path())?;
            if self.injects() {
                each(fact(gicv.base.0, 2 * PAGE, fact::VIRTUAL_INTERFACE), &gic.node.path())?;
            }
        }
        for uart in [&self.board.console, &self.board.log].into_iter().flatten() {
            each(region(uart.region, fact::FORBIDDEN), &uart.node.path())?;
        }
        each(fact(self.placed.base, self.placed.area, fact::HYPERVISOR), &"hypervisor")?;
        self.pci_facts(each)?;
        let (from, to) = self.placed.cargo;
        if to > from {
            each(
                fact(self.placed.base + from, to - from, fact::HYPERVISOR),
                &"guest images to copy at boot or restart",
            )?;
        }
        for node in self.board.tree.nodes().filter(|node| {
            let top = node.ancestors().filter(|n| n.parent().is_some()).last().unwrap_or(*node);
            node.parent().is_some() && !NOT_DEVICES.contains(&top.base_name()) && crate::cells::is_live(*node)
        }) {
            // A grant holds for the node and everything enabled below it.
            let is_granted = |grant: &&DeviceGrant<'_>| grant.node == node || node.ancestors().any(|n| n == grant.node);
            let granted = self.layout.devices.iter().find(is_granted);
            let owner = granted.map_or(0, |device| device.domain as u32 + 1);
            for (registers, _) in crate::address::memory(node).filter(|(region, _)| !region.is_empty()) {
                each(Fact { owner, ..region(registers, fact::DEVICE) }, &node.path())?;
            }
        }
        Ok(())
    }

    fn grants(&self, each: Each<'_, Grant>) -> Result<(), Full> {
        for piece in joined(self.pieces) {
            let grant = Grant {
                ipa: IpaRegion { base: Ipa(piece.ipa), size: piece.size },
                pa: PaRegion { base: Pa(piece.pa), size: piece.size },
                domain: piece.domain,
                kind: piece.kind,
                name: Name::default(),
            };
            let domain = self.layout.domains.get(piece.domain as usize);
            let memory = domain.and_then(|domain| domain.memory.get(piece.source as usize));
            match memory {
                Some(memory) if piece.kind == grant::RAM => each(grant, &memory.node.path())?,
                _ if matches!(piece.kind, grant::CPU_INTERFACE | grant::VIRTUAL_INTERFACE) => match &self.board.gic {
                    Some(gic) => each(grant, &gic.node.path())?,
                    None => each(grant, &"")?,
                },
                _ => each(grant, &Users { input: self, piece })?,
            }
        }
        Ok(())
    }

    fn lines(&self, each: Each<'_, Line>) -> Result<(), Full> {
        let line = |intid, domain, kind, edge| Line { intid, domain, kind, edge, name: Name::default() };
        each(line(crate::resolve::KICK_SGI, u32::MAX, line::HYPERVISOR, 0), &"kick")?;
        if let (Some(console), Some(intid)) = (&self.board.console, self.console_intid()) {
            each(line(intid, u32::MAX, line::HYPERVISOR, 0), &console.node.path())?;
        }
        if let Some((host, _)) = self.pci()
            && let Some(smmu) = &host.smmu
        {
            for intid in self.smmu_intids() {
                each(line(intid, u32::MAX, line::HYPERVISOR, 1), &smmu.node.path())?;
            }
        }
        for (id, domain) in self.layout.domains.iter().enumerate() {
            let id = id as u32;
            if let Some(timer) = &self.board.timer {
                for intid in [timer.virt, timer.physical] {
                    each(line(intid, id, line::PPI, 0), &"/timer")?;
                }
            }
            if let Some(pmu) = domain.pmu {
                each(line(PMU_PPI, id, line::PPI, 0), &pmu.path())?;
            }
            if let (Delivery::Injected, Some(gic)) = (domain.delivery, &self.board.gic) {
                each(line(MAINTENANCE, id, line::MAINTENANCE, 0), &gic.node.path())?;
            }
            if let Some((_, intid)) = self.decided.get(id as usize).and_then(|d| d.vuart) {
                each(line(intid, id, line::VUART, 0), &domain.node.path())?;
            }
            if let Some((_, intid)) = self.decided.get(id as usize).and_then(|d| d.watchdog) {
                each(line(intid, id, line::WATCHDOG, 0), &domain.node.path())?;
            }
            for device in self.layout.devices.get(domain.devices.clone()).unwrap_or(&[]) {
                for found in self.layout.interrupts.get(device.interrupts.clone()).unwrap_or(&[]) {
                    if self.owners.first_user(found.intid) == Some(device.node.id()) {
                        each(line(found.intid, id, line::DEVICE, u32::from(found.edge)), &device.node.path())?;
                    }
                }
            }
            self.pci_lines(id, each)?;
        }
        Ok(())
    }

    fn audit_payloads(&self, trees: u64, each: Each<'_, Payload>) -> Result<(), Full> {
        let mut tree_at = trees;
        for payload in self.payloads {
            let mut offset = payload.offset;
            if payload.kind == payload::DTB {
                offset = tree_at;
                tree_at += payload.mem;
            }
            for part in parts::of(payload, self.pieces, offset, false) {
                let size = if payload.kind == payload::DTB { part.len } else { part.size };
                let pristine = self.pristine(payload, offset);
                let pristine = if part.len == 0 || pristine == 0 { 0 } else { pristine + (part.offset - offset) };
                let record = Payload {
                    ipa: IpaRegion { base: Ipa(part.ipa), size },
                    pa: PaRegion { base: Pa(part.pa), size },
                    offset: part.offset,
                    len: part.len,
                    pristine,
                    domain: payload.domain,
                    kind: payload.kind,
                    name: Name::default(),
                };
                each(record, &payload.file)?;
            }
        }
        Ok(())
    }

    /// Writes the section with trees believed at image offset 0 and no DMA area yet. Returns where it is, and where its tables are.
    pub(super) fn audit(&self, blob: &mut Blob<'_>) -> Result<(Table, Audit), Full> {
        blob.align(16)?;
        let at = blob.at;
        blob.append(zerocopy::IntoBytes::as_bytes(&Audit::default()))?;
        let mut names = Names { len: 0 };
        let mut audit = Audit { facts: blob.table()?, ..Audit::default() };
        self.facts(&mut |fact, name| blob.push(&mut audit.facts, &Fact { name: names.of(name), ..fact }))?;
        audit.grants = blob.table()?;
        self.grants(&mut |grant, name| blob.push(&mut audit.grants, &Grant { name: names.of(name), ..grant }))?;
        audit.lines = blob.table()?;
        self.lines(&mut |line, name| blob.push(&mut audit.lines, &Line { name: names.of(name), ..line }))?;
        audit.payloads = blob.table()?;
        self.audit_payloads(0, &mut |part, name| {
            blob.push(&mut audit.payloads, &Payload { name: names.of(name), ..part })
        })?;
        audit.names = Table { offset: blob.at as u32, count: names.len };
        let mut text = |name: &dyn Display| {
            let mut text = Text { blob, result: Ok(()) };
            // The result is in `text`.
            let _ = write!(text, "{name}");
            text.result
        };
        self.facts(&mut |_, name| text(name))?;
        self.grants(&mut |_, name| text(name))?;
        self.lines(&mut |_, name| text(name))?;
        self.audit_payloads(0, &mut |_, name| text(name))?;
        let end = blob.at;
        blob.put(at, zerocopy::IntoBytes::as_bytes(&audit))?;
        Ok((Table { offset: at as u32, count: (end - at) as u32 }, audit))
    }

    /// Writes the payload records again, now that the trees lie at image offset `trees`.
    pub(super) fn settle_payloads(&self, blob: &mut Blob<'_>, table: Table, trees: u64) -> Result<(), Full> {
        let mut index = 0;
        self.audit_payloads(trees, &mut |part, _| {
            let at = table.offset as usize + index * size_of::<Payload>() + core::mem::offset_of!(Payload, name);
            let name =
                blob.bytes.get(at..at + size_of::<Name>()).and_then(|b| zerocopy::FromBytes::read_from_bytes(b).ok());
            index += 1;
            blob.set(table, index - 1, &Payload { name: name.unwrap_or_default(), ..part })
        })
    }
}

/// The paths of all devices whose registers a mapping reaches, with spaces between.
struct Users<'u, 'e, 'a, 'l> {
    input: &'u Input<'e, 'a, 'l>,
    piece: crate::resolve::Piece,
}

impl Display for Users<'_, '_, '_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (input, piece) = (self.input, &self.piece);
        let pages = PaRegion { base: Pa(piece.pa), size: piece.size };
        let domain = input.layout.domains.get(piece.domain as usize);
        let devices = domain.and_then(|domain| input.layout.devices.get(domain.devices.clone())).unwrap_or(&[]);
        let mut gap = "";
        for device in devices {
            let regions = input.layout.regions.get(device.regions.clone()).unwrap_or(&[]);
            let by_function = || device.function.is_some_and(|function| input.has_bar_in(function, &pages));
            if regions.iter().any(|region| region.pa.overlaps(&pages)) || by_function() {
                write!(f, "{gap}{}", device.node.path())?;
                gap = " ";
            }
        }
        Ok(())
    }
}

/// Owners of SPIs.
pub(crate) struct Owners {
    /// Index of the domain plus one, 0 for nobody.
    domain: [u16; 1024],
    /// The device whose interrupt it is: node plus one, 0 for a virtual console.
    device: [u32; 1024],
    edge: crate::resolve::lines::IntSet,
}

impl Owners {
    /// Nobody owns anything.
    pub(crate) fn new() -> Self {
        Self { domain: [0; 1024], device: [0; 1024], edge: Default::default() }
    }

    /// Gives an SPI to a domain; the first device to ask names it.
    pub(crate) fn give(&mut self, intid: IntId, domain: usize, device: Option<NodeId>, edge: bool) {
        let index = intid.0 as usize;
        if let (Some(owner @ 0), Some(name)) = (self.domain.get_mut(index), self.device.get_mut(index)) {
            *owner = domain as u16 + 1;
            *name = device.map_or(0, |id| id.0 + 1);
            if edge {
                self.edge.insert(intid);
            }
        }
    }

    /// Gives pins and messages of PCI functions to their owners; the SMMU's interrupts are the hypervisor's, by edges.
    pub(crate) fn give_functions(&mut self, board: &Board<'_>, pci: Option<&Settlement>) {
        let (Some(host), Some(settlement)) = (&board.pci, pci) else { return };
        for settled in &settlement.functions {
            if let (Mode::Intx(intid), Some(owner)) = (settled.mode, settled.owner) {
                self.give(intid, owner, host.functions.get(settled.function).map(|function| function.node.id()), false);
            }
        }
        for (id, share) in settlement.shares.iter().enumerate() {
            for intid in share.first_spi.0..share.first_spi.0 + share.spi_count {
                self.give(IntId(intid), id, None, true);
            }
        }
        let smmu = host.smmu.into_iter().flat_map(|smmu| [smmu.event, smmu.error]).flatten();
        smmu.for_each(|intid| self.edge.insert(intid));
    }

    /// The owner.
    pub(crate) fn of(&self, intid: IntId) -> Option<usize> {
        self.domain.get(intid.0 as usize).and_then(|domain| usize::from(*domain).checked_sub(1))
    }

    /// The first device that uses it.
    pub(crate) fn first_user(&self, intid: IntId) -> Option<NodeId> {
        self.device.get(intid.0 as usize).and_then(|device| device.checked_sub(1)).map(NodeId)
    }

    /// Whether it is edge-triggered.
    pub(crate) fn is_edge(&self, intid: IntId) -> bool {
        self.edge.contains(intid)
    }
}
