//! Configuration space: what a guest may read and write of its functions, bit by bit.
//!
//! The rules are held against a table of registers written from the PCI Express Base Specification 5.0, chapter 7, for the
//! capabilities the guest finds when it follows the list from 0x34 and from 0x100. A bit no register of the table has is
//! hidden: neither read nor written.

use crate::finding::Finding;
use crate::pci::is_bridge;
use crate::work::{Report, Work};
use cofferdam_plan::Bdf;
use cofferdam_plan::pci::{BARS, CONFIG_SIZE, Function, FunctionFlags, NONE, Rule, RuleKind};

/// Where the first capability may lie, and the first extended one does.
const FIRST: u16 = 0x40;
const EXTENDED: u16 = 0x100;
/// As many as there is room for: 4 bytes each.
const MOST: usize = 48;

/// What a guest may do with one dword.
#[derive(Clone, Copy)]
struct Allowed {
    kind: u16,
    /// Bits it may write; those that clear by one are in `clear` instead.
    write: u32,
    /// Bits that writing one clears, which it may write too.
    clear: u32,
    /// Bits that must not come from the hardware: they say what there is.
    fixed: u32,
}

/// Read-only, with nothing that must be constant.
const READ: Allowed = Allowed { kind: RuleKind::REGISTER, write: 0, clear: 0, fixed: 0 };

pub(crate) fn prove(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let Some(pci) = work.plan.pci else { return };
    for f in pci.functions.iter().filter(|f| !is_bridge(f)) {
        let space = Space { f, rules: pci.rules_of(f).unwrap_or(&[]) };
        i71_rules_are_a_table(&space, report);
        i71_dwords_have_their_rules(&space, pci.dwords_of(f).unwrap_or(&[]), report);
        i71_identity_is_constant(&space, report);
        i71_capabilities_are_those_a_guest_may_have(&space, report);
        for rule in space.rules {
            i71_bits_are_permitted(&space, rule, report);
        }
    }
}

/// A function and what a guest sees of it.
struct Space<'a> {
    f: &'a Function,
    rules: &'a [Rule],
}

/// One capability the guest finds.
#[derive(Clone, Copy)]
struct Capability {
    at: u16,
    id: u16,
    /// Its first dword, of which all that matters is constant.
    head: u32,
    /// The next one, 0 at the end.
    next: u16,
}

impl Space<'_> {
    fn rule(&self, offset: u16) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.offset == offset)
    }

    /// What the guest reads of `bits` at `offset`; `None` where some of them come from the hardware.
    fn constant(&self, offset: u16, bits: u32) -> Option<u32> {
        match self.rule(offset) {
            None => Some(0),
            Some(rule) if rule.read & bits & !rule.constant == 0 => Some(rule.constant & bits),
            Some(_) => None,
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.f.flags & flag != 0
    }

    /// The conventional capabilities (7.5.1.1.11), as far as constants lead.
    fn conventional(&self) -> impl Iterator<Item = Capability> + '_ {
        let mut at = self.constant(0x34, 0xFF).map_or(0, |v| v as u16);
        core::iter::from_fn(move || {
            let here = self.capability(at & !3)?;
            at = here.next;
            Some(here)
        })
        .take(MOST)
    }

    /// The capability at `at`; nothing where there cannot be one.
    fn capability(&self, at: u16) -> Option<Capability> {
        if !(FIRST..EXTENDED).contains(&at) {
            return None;
        }
        let head = self.rule(at).map_or(0, |rule| rule.constant);
        Some(Capability { at, id: head as u16 & 0xFF, head, next: (head >> 8) as u16 & 0xFC })
    }

    /// The extended capabilities (7.6.3).
    fn extended(&self) -> impl Iterator<Item = Capability> + '_ {
        let mut at = EXTENDED;
        core::iter::from_fn(move || {
            if !(EXTENDED..CONFIG_SIZE as u16).contains(&at) {
                return None;
            }
            let head = self.rule(at)?.constant;
            let here = Capability { at, id: head as u16, head, next: (head >> 20) as u16 & 0xFFC };
            at = here.next;
            Some(here)
        })
        .take(MOST)
    }

    /// What a guest may do with the dword at `offset`: by the header, or by the capability it belongs to.
    fn allowed(&self, offset: u16) -> Option<Allowed> {
        if offset < FIRST {
            return self.header(offset);
        }
        if offset >= EXTENDED {
            return self.extended().find_map(|c| extended_register(&c, offset.checked_sub(c.at)?));
        }
        self.conventional().find_map(|c| self.register(&c, offset.checked_sub(c.at)?))
    }

    /// Type 0 header (7.5.1).
    fn header(&self, offset: u16) -> Option<Allowed> {
        let bar = Allowed { kind: RuleKind::BAR, ..READ };
        Some(match offset {
            // Command: memory space, bus master, parity and SERR# reporting, interrupt disable. Never I/O space (0).
            0x04 => {
                let master = if self.has(FunctionFlags::DMA) { 1 << 2 } else { 0 };
                let pin = if self.has(FunctionFlags::MSI) { 0 } else { 1 << 10 };
                // Status: 24 and 27 to 31 clear by writing one. Its bit 4 says that there are capabilities.
                Allowed {
                    write: 1 << 1 | master | 1 << 6 | 1 << 8 | pin,
                    clear: 0xF900_0000,
                    fixed: 1 | 1 << 20,
                    ..READ
                }
            }
            // Cache line size means nothing on PCI Express. BIST (31:24) could take the function away.
            0x0C => Allowed { write: 0xFF, fixed: 0xFFFF_0000, ..READ },
            0x10..=0x24 | 0x30 => bar,
            0x34 => Allowed { fixed: 0xFF, ..READ },
            // The interrupt line is a note of the guest's; a function in MSI mode has no pin.
            0x3C => Allowed { write: 0xFF, fixed: if self.has(FunctionFlags::MSI) { 0xFF00 } else { 0 }, ..READ },
            0x00 | 0x08 | 0x2C => READ,
            _ => return None,
        })
    }

    /// The register at byte `offset` of a conventional capability.
    fn register(&self, c: &Capability, offset: u16) -> Option<Allowed> {
        let msi = self.has(FunctionFlags::MSI);
        let head = Allowed { fixed: 0xFFFF, ..READ };
        let in_msi_mode = |write| if msi { write } else { 0 };
        Some(match (c.id, offset) {
            // Power management (7.5.2): of the control register PME status clears; the state is kept by the hypervisor.
            (0x01, 0) => head,
            (0x01, 4) => Allowed { kind: RuleKind::POWER, write: 0, clear: 0x8000, fixed: 3 },
            // MSI (7.7.1): enable; where it writes, what it writes, and the mask. It sends as many messages as the plan says.
            (0x05, 0) => Allowed { write: in_msi_mode(1 << 16), fixed: 0x01FE_FFFF, ..READ },
            (0x05, _) if msi => return msi_register(c.head, offset),
            // MSI-X (7.7.2): enable and mask of all; the number of messages is what the plan has room for.
            (0x11, 0) => Allowed { write: in_msi_mode(1 << 31 | 1 << 30), fixed: 0x07FF_FFFF, ..READ },
            (0x11, 4 | 8) => READ,
            // PCI Express (7.5.3).
            (0x10, 0) => head,
            (0x10, 4) => READ,
            // Device Control: relaxed ordering, no snoop. Payload and request sizes stay as the hypervisor leaves them, reset is
            // its own, and errors are reported to nobody. Status: the first four clear.
            (0x10, 8) => Allowed { kind: RuleKind::CONTROL, write: 1 << 4 | 1 << 11, clear: 0x000F_0000, ..READ },
            // Link and slot are shared with others on the port; nothing of the second set is the guest's.
            (0x10, 0x0C | 0x10 | 0x24 | 0x28 | 0x2C | 0x30) => READ,
            // Vendor-specific (7.9.4): as long as it says, in its third byte. Never written: that of virtio, type 5, would reach any
            // register of any BAR by configuration accesses (Virtio 1.2, 4.1.4.9).
            (0x09, 0) => Allowed { fixed: 0xFF_FFFF, ..READ },
            (0x09, _) if u32::from(offset) < c.head >> 16 & 0xFF => READ,
            _ => return None,
        })
    }
}

/// The layout depends on whether addresses have 64 bits (23) and messages masks (24).
fn msi_register(head: u32, offset: u16) -> Option<Allowed> {
    let wide = if head & 1 << 23 != 0 { 4 } else { 0 };
    let masks = head & 1 << 24 != 0;
    let write = match offset {
        4 => !3,
        8 if wide != 0 => !0,
        _ if offset == 8 + wide => 0xFFFF,
        _ if offset == 12 + wide && masks => !0,
        _ if offset == 16 + wide && masks => 0,
        _ => return None,
    };
    Some(Allowed { write, ..READ })
}

/// The register at byte `offset` of an extended capability: its own errors, its serial number, or nothing but a link.
fn extended_register(c: &Capability, offset: u16) -> Option<Allowed> {
    let head = Allowed { fixed: !0, ..READ };
    Some(match (c.id, offset) {
        (0x0000 | 0x0001 | 0x0003, 0) => head,
        // Advanced error reporting (7.8.4): statuses clear; masks, severities and checking stay.
        (0x0001, 0x04 | 0x10) => Allowed { clear: !0, ..READ },
        (0x0001, 0x08 | 0x0C | 0x14..=0x28 | 0x38..=0x44) => READ,
        (0x0003, 4 | 8) => READ,
        _ => return None,
    })
}

/// I71: rules ascend, each names an aligned dword of configuration space once, of a kind there is.
fn i71_rules_are_a_table(space: &Space<'_>, report: &mut Report<'_>) {
    for pair in space.rules.windows(2) {
        if let [a, b] = pair
            && a.offset >= b.offset
        {
            report.add(Finding::BadRule {
                function: Bdf(space.f.rid),
                offset: b.offset,
                why: "is out of order or there twice",
            });
        }
    }
    for rule in space.rules {
        if rule.offset % 4 != 0 || u64::from(rule.offset) >= CONFIG_SIZE || rule.kind > RuleKind::POWER {
            let why = "is of no dword, or of a kind nobody knows";
            report.add(Finding::BadRule { function: Bdf(space.f.rid), offset: rule.offset, why });
        }
    }
}

/// I71: of each dword the index names the one rule for it, or none where there is none, as far as there are rules.
fn i71_dwords_have_their_rules(space: &Space<'_>, dwords: &[u8], report: &mut Report<'_>) {
    let last = space.rules.iter().map(|rule| rule.offset / 4 + 1).max().unwrap_or(0);
    let of = |dword: usize| space.rules.iter().position(|rule| usize::from(rule.offset / 4) == dword);
    let is_wrong = |(dword, index): (usize, &u8)| usize::from(*index) != of(dword).unwrap_or(NONE.into());
    let found = dwords.iter().enumerate().position(is_wrong);
    if let Some(dword) = found.or((dwords.len() != usize::from(last)).then_some(dwords.len())) {
        let why = "has a rule that is another dword's";
        report.add(Finding::BadRule { function: Bdf(space.f.rid), offset: (dword * 4) as u16, why });
    }
    if space.rules.len() >= usize::from(NONE) {
        let why = "is one of more rules than can be told apart";
        report.add(Finding::BadRule { function: Bdf(space.f.rid), offset: last, why });
    }
}

/// I71: a guest finds a function of the planned identity, with a Type 0 header.
fn i71_identity_is_constant(space: &Space<'_>, report: &mut Report<'_>) {
    if space.f.rule_count == 0 {
        return;
    }
    let mut bad = |offset, why| report.add(Finding::BadRule { function: Bdf(space.f.rid), offset, why });
    // What is read of the hardware was compared with the plan when the domain started.
    let says =
        |rule: &Rule, planned| rule.read == !0 && rule.constant == 0 || rule.read == 0 && rule.constant == planned;
    for (offset, planned) in [(0, space.f.id), (0x08, space.f.class), (0x2C, space.f.subsystem)] {
        if !space.rule(offset).is_some_and(|rule| says(rule, planned)) {
            bad(offset, "hides or changes who the function is");
        }
    }
    for (i, _) in space.f.bars.iter().enumerate().filter(|(_, bar)| bar.shown != 0) {
        let offset = if i == BARS - 1 { 0x30 } else { 0x10 + 4 * i as u16 };
        if space.rule(offset).is_none_or(|rule| rule.kind != RuleKind::BAR) {
            bad(offset, "hides a base address register that the guest is to see");
        }
    }
    if space.constant(0x0C, 0x7F_0000) != Some(0) {
        bad(0x0C, "shows another header than a function's");
    }
    let Some(first) = space.constant(0x34, 0xFF) else {
        return bad(0x34, "takes the list of capabilities from the hardware");
    };
    let listed = space.constant(0x04, 1 << 20);
    if first % 4 != 0 || (first != 0) != (listed == Some(1 << 20)) {
        bad(0x34, "does not lead to the capabilities");
    }
}

/// I65, I71: the lists of capabilities end, and hold none but those the table has: no ATS, PRI, PASID, virtual functions,
/// access control or movable registers. MSI and MSI-X are there only where MSIs are planned for.
fn i71_capabilities_are_those_a_guest_may_have(space: &Space<'_>, report: &mut Report<'_>) {
    let mut bad = |offset, why| report.add(Finding::BadRule { function: Bdf(space.f.rid), offset, why });
    let msi = space.has(FunctionFlags::MSI);
    let mut express = None;
    for (i, c) in space.conventional().enumerate() {
        if !matches!(c.id, 0x01 | 0x05 | 0x09 | 0x10 | 0x11) {
            bad(c.at, "is a capability no guest may have");
        }
        if matches!(c.id, 0x05 | 0x11) && !msi {
            bad(c.at, "offers MSIs, which the function does not send");
        }
        if space.constant(c.at, 0xFFFF).is_none() || c.next != 0 && !(FIRST..EXTENDED).contains(&c.next) {
            bad(c.at, "links to what is no capability");
        }
        let mut earlier = space.conventional().take(i);
        if earlier.any(|o| o.at == c.at) {
            return bad(c.at, "closes the list of capabilities to a ring");
        }
        if c.id == 0x10 && express.replace(c.at).is_some() {
            bad(c.at, "is PCI Express for the second time");
        }
    }
    if space.has(FunctionFlags::FLR) && express.map(|at| at + 8) != Some(space.f.reset) {
        bad(space.f.reset, "is no Device Control register, but resets the function");
    }
    for (i, c) in space.extended().enumerate() {
        if !matches!(c.id, 0x0000 | 0x0001 | 0x0003) {
            bad(c.at, "is a capability no guest may have");
        }
        if space.constant(c.at, !0).is_none() || c.next != 0 && (c.next < EXTENDED || space.rule(c.next).is_none()) {
            bad(c.at, "links to what is no capability");
        }
        let mut earlier = space.extended().take(i);
        if earlier.any(|o| o.at == c.at) {
            return bad(c.at, "closes the list of capabilities to a ring");
        }
    }
}

/// I71: what a rule reads and writes, a register of the table has; what says which registers there are is constant; bits that
/// clear by writing one are never written back.
fn i71_bits_are_permitted(space: &Space<'_>, rule: &Rule, report: &mut Report<'_>) {
    let mut bad = |why| report.add(Finding::BadRule { function: Bdf(space.f.rid), offset: rule.offset, why });
    let Some(allowed) = space.allowed(rule.offset) else {
        if rule.read | rule.constant | rule.write | rule.clear != 0 || rule.kind != RuleKind::REGISTER {
            bad("shows what is no register of the header or of a capability");
        }
        return;
    };
    if rule.kind != allowed.kind {
        bad("is of the wrong kind");
    }
    if allowed.kind == RuleKind::BAR {
        if rule.read | rule.constant | rule.write | rule.clear != 0 {
            bad("is a base address register and has masks of its own");
        }
        return;
    }
    if rule.write & !(allowed.write | allowed.clear) != 0 {
        bad("writes bits that no guest may");
    }
    if rule.clear & !allowed.clear != 0 || rule.write & allowed.clear & !rule.clear != 0 {
        bad("clears bits that are no status, or keeps those that are");
    }
    if rule.write != 0 && allowed.clear & !rule.clear != 0 {
        bad("would write status bits back and clear them");
    }
    if rule.read & allowed.fixed & !rule.constant != 0 {
        bad("leaves to the hardware what the plan must know");
    }
}
