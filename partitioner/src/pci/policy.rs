//! What a guest may do with the configuration space of its functions: one rule for each dword that exists for it.
//!
//! Tables first: the header (PCI Express Base 5.0, 7.5.1), then the capabilities a guest is shown (7.5.2, 7.5.3, 7.7, 7.8.4, 7.9.4).
//! Whatever has no rule is absent: I/O and expansion ROM registers, ATS, PRI, PASID, SR-IOV, resizable registers, link and slot
//! registers (the guest's functions are on a root bus, where there are none). Who the function is and what it can do is constant,
//! from the board; what it does is read from it.

use super::capability::{EXTENDED, Kind};
use super::function::ROM;
use super::model::{BarSpec, Capability, Mode, PciFunction, Space};
use cofferdam_plan::pci::{BARS, Bar, CONFIG_SIZE, Rule, RuleKind};
use heapless::Vec;

/// More than a function has dwords of which a guest may know: conventional configuration space, error reporting, serial number.
pub const MAX_RULES: usize = 96;

/// Command: memory space, bus master, parity error response, SERR#, interrupt disable.
const MEMORY: u32 = 1 << 1;
const MASTER: u32 = 1 << 2;
const ERRORS: u32 = 1 << 6 | 1 << 8;
const INTX_DISABLE: u32 = 1 << 10;
/// Status: what is read of the function, and what of it clears by writing one. Whether there are capabilities is constant.
const STATUS: u32 = 0xFFEF_0000;
const STATUS_CLEARS: u32 = 0xF900_0000;
const HAS_CAPABILITIES: u32 = 1 << 20;
/// Header type: more than function 0.
const MULTIFUNCTION: u32 = 1 << 23;
/// Power management capabilities: version, D1 and D2. No auxiliary current, no PME.
const POWER: u32 = 0x0607_0000;
/// The hypervisor keeps the power state to itself, so it resets nothing: No_Soft_Reset.
const KEEPS_STATE: u32 = 1 << 3;
/// MSI: enable; what the layout of the rest depends on.
const MSI_ENABLE: u32 = 1 << 16;
const MSI_LAYOUT: u32 = 3 << 23;
/// MSI-X: enable and the mask of all.
const MSIX_CONTROL: u32 = 3 << 30;
/// PCI Express capabilities: version. The type is set below; no slot, no message number.
const EXPRESS_VERSION: u32 = 0x000F_0000;
/// Root complex integrated endpoint.
const INTEGRATED: u32 = 9 << 20;
/// Device Control: relaxed ordering and no snoop are the guest's. Payload and read request sizes stay, and errors are reported to
/// nobody. Status: the first four clear.
const DEVICE_CONTROL: u32 = 1 << 4 | 1 << 11;
const DEVICE_READ: u32 = 0x003F_7FFF;
const DEVICE_CLEARS: u32 = 0x000F_0000;

const fn constant(offset: u16, constant: u32) -> Rule {
    Rule { offset, kind: RuleKind::REGISTER, read: 0, constant, write: 0, clear: 0 }
}

const fn read_write(offset: u16, bits: u32) -> Rule {
    Rule { offset, kind: RuleKind::REGISTER, read: bits, constant: 0, write: bits, clear: 0 }
}

const fn read(offset: u16) -> Rule {
    Rule { offset, kind: RuleKind::REGISTER, read: !0, constant: 0, write: 0, clear: 0 }
}

/// Bytes of error reporting, without what a root port has besides.
const ERROR_REPORTING: u16 = 0x2C;

/// What the rules of a function depend on besides itself.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How it interrupts.
    pub mode: Mode,
    /// It may be a bus master.
    pub dma: bool,
    /// Its device has other functions on the guest's bus.
    pub siblings: bool,
}

/// The rules of a function, ascending.
pub fn rules(function: &PciFunction<'_>, terms: Terms) -> Vec<Rule, MAX_RULES> {
    let mut rules = Vec::new();
    // What the board gives twice or over each other is shown once; there are no more dwords than room.
    let mut add = |rule: Rule| {
        if !rules.iter().any(|other: &Rule| other.offset == rule.offset) {
            let _ = rules.push(rule);
        }
    };
    let first = shown(function, terms, false).next();
    header(function, terms, first.map_or(0, |c| c.offset), &mut add);
    for (index, capability) in shown(function, terms, false).enumerate() {
        let next = shown(function, terms, false).nth(index + 1).map_or(0, |c| c.offset);
        let head = (capability.dwords[0] & 0xFF) | u32::from(next) << 8;
        conventional(&capability, head, terms.mode, &mut add);
    }
    let mut at = None;
    for (index, capability) in shown(function, terms, true).enumerate() {
        if at.is_none() && capability.offset != EXTENDED {
            // The list starts at 0x100, whatever is there: a capability that is none leads on.
            add(constant(EXTENDED, u32::from(capability.offset) << 20));
        }
        at = Some(capability.offset);
        let next = shown(function, terms, true).nth(index + 1).map_or(0, |c| c.offset);
        add(constant(capability.offset, capability.dwords[0] & 0xF_FFFF | u32::from(next) << 20));
        error_reporting(capability.offset, &mut add);
    }
    rules.sort_unstable_by_key(|rule| rule.offset);
    rules
}

/// The capabilities of a function that no guest is shown, because this version does not know what they do or knows no good use.
pub fn hidden(function: &PciFunction<'_>) -> impl Iterator<Item = Capability> {
    function.capabilities().filter(|capability| !is_shown(function, capability.kind(), true))
}

/// Whether a guest that is brought messages, or is not, is shown a capability.
fn is_shown(function: &PciFunction<'_>, kind: Kind, messages: bool) -> bool {
    match kind {
        Kind::Power | Kind::Express { .. } => true,
        Kind::Msi { .. } | Kind::MsiX { .. } => messages,
        // Of Virtio's, 5 reads and writes any register of any BAR by configuration accesses (Virtio 1.2, 4.1.4.9).
        Kind::Vendor { virtio, .. } => virtio != 5 || function.id & 0xFFFF != 0x1AF4,
        Kind::Aer => function.port().is_some(),
        _ => false,
    }
}

/// The capabilities a guest is shown, conventional or extended, in the order of the board.
fn shown(function: &PciFunction<'_>, terms: Terms, extended: bool) -> impl Iterator<Item = Capability> {
    let messages = matches!(terms.mode, Mode::Msi(_));
    let of_part = move |capability: &Capability| (capability.offset >= EXTENDED) == extended;
    function.capabilities().filter(of_part).filter(move |capability| is_shown(function, capability.kind(), messages))
}

fn header(function: &PciFunction<'_>, terms: Terms, first: u16, add: &mut dyn FnMut(Rule)) {
    add(constant(0x00, function.id));
    let master = if terms.dma { MASTER } else { 0 };
    // Without a line that is its owner's, its pin stays silent.
    let pin = if matches!(terms.mode, Mode::Intx(_)) { INTX_DISABLE } else { 0 };
    let command = MEMORY | master | ERRORS | pin;
    let fixed = INTX_DISABLE & !pin | if first != 0 { HAS_CAPABILITIES } else { 0 };
    add(Rule {
        read: command | STATUS,
        constant: fixed,
        write: command | STATUS_CLEARS,
        clear: STATUS_CLEARS,
        ..constant(0x04, 0)
    });
    add(constant(0x08, function.class));
    let kind = if terms.siblings { MULTIFUNCTION } else { 0 };
    add(Rule { constant: kind, ..read_write(0x0C, 0xFF) });
    for (bar, spec) in function.bars.iter().enumerate().filter(|(bar, _)| *bar != ROM) {
        let Some(spec) = spec.filter(|spec| spec.space != Space::Io) else { continue };
        let halves = if spec.space == Space::Memory64 { 2 } else { 1 };
        for half in 0..halves {
            add(Rule { kind: RuleKind::BAR, ..constant(0x10 + 4 * (bar + half) as u16, 0) });
        }
    }
    add(constant(0x2C, function.subsystem));
    add(constant(0x34, first.into()));
    let pin = if pin != 0 { u32::from(function.pin) << 8 } else { 0 };
    // The interrupt line is a note that firmware leaves for drivers: the guest's own.
    add(Rule { constant: pin, ..read_write(0x3C, 0xFF) });
}

/// One conventional capability; `head` is its ID and the way to the next.
fn conventional(capability: &Capability, head: u32, mode: Mode, add: &mut dyn FnMut(Rule)) {
    let at = capability.offset;
    let [first, second, third] = capability.dwords;
    match capability.kind() {
        Kind::Power => {
            add(constant(at, head | first & POWER));
            add(Rule { kind: RuleKind::POWER, ..constant(at + 4, KEEPS_STATE) });
        }
        Kind::Msi { wide, maskable, .. } => {
            // One message, whatever it could send.
            add(Rule { constant: head | first & MSI_LAYOUT, ..read_write(at, MSI_ENABLE) });
            add(read_write(at + 4, !3));
            let mut next = at + 8;
            if wide {
                add(read_write(next, !0));
                next += 4;
            }
            add(read_write(next, 0xFFFF));
            if maskable {
                add(read_write(next + 4, 1));
                add(Rule { read: 1, ..constant(next + 8, 0) });
            }
        }
        Kind::MsiX { .. } => {
            let entries = if let Mode::Msi(entries) = mode { u32::from(entries.max(1)) } else { 1 };
            add(Rule { constant: head | (entries - 1) << 16, ..read_write(at, MSIX_CONTROL) });
            add(constant(at + 4, second));
            add(constant(at + 8, third));
        }
        Kind::Express { .. } => {
            add(constant(at, head | first & EXPRESS_VERSION | INTEGRATED));
            add(constant(at + 4, second));
            add(Rule {
                kind: RuleKind::CONTROL,
                read: DEVICE_READ,
                write: DEVICE_CONTROL | DEVICE_CLEARS,
                clear: DEVICE_CLEARS,
                ..constant(at + 8, 0)
            });
        }
        Kind::Vendor { len, .. } => {
            add(Rule { read: 0xFF00_0000, ..constant(at, head | first & 0x00FF_0000) });
            let end = at.saturating_add(u16::from(len)).min(EXTENDED);
            (at + 4..end).step_by(4).for_each(|offset| add(read(offset)));
        }
        _ => {}
    }
}

/// Advanced error reporting, without its head: statuses are the guest's to clear, masks and severities stay.
fn error_reporting(at: u16, add: &mut dyn FnMut(Rule)) {
    for offset in (4..ERROR_REPORTING).step_by(4) {
        let is_status = matches!(offset, 0x04 | 0x10);
        let (write, clear) = if is_status { (!0, !0) } else { (0, 0) };
        add(Rule { write, clear, ..read(at.saturating_add(offset)) });
    }
}

/// The first capability that leaves no room for another one, or reaches beyond its part of configuration space (both are that one
/// then), or is PCI Express for the second time. Only of those a guest may be shown.
pub(super) fn crowded(function: &PciFunction<'_>) -> Option<(Capability, Capability)> {
    let all = || {
        let terms = Terms { mode: Mode::Msi(1), dma: true, siblings: false };
        shown(function, terms, false).chain(shown(function, terms, true))
    };
    all().enumerate().find_map(|(index, one)| {
        let start = u32::from(one.offset);
        let limit = if one.offset < EXTENDED { u32::from(EXTENDED) } else { CONFIG_SIZE as u32 };
        if start + extent(&one) > limit {
            return Some((one, one));
        }
        let is_express = |c: &Capability| matches!(c.kind(), Kind::Express { .. });
        let meets = |other: &Capability| {
            let theirs = u32::from(other.offset);
            // Two in one place have been refused as such.
            let overlap = start != theirs && start < theirs + extent(other) && theirs < start + extent(&one);
            overlap || is_express(&one) && is_express(other)
        };
        all().take(index).find(meets).map(|other| (one, other))
    })
}

/// Bytes of a capability for which there are rules.
fn extent(capability: &Capability) -> u32 {
    match capability.kind() {
        Kind::Power => 8,
        Kind::Msi { wide, maskable, .. } => 12 + 4 * u32::from(wide) + 8 * u32::from(maskable),
        Kind::Vendor { len, .. } => u32::from(len).max(4).next_multiple_of(4),
        Kind::Aer => ERROR_REPORTING.into(),
        _ => 12,
    }
}

/// The base address registers of a function as its record has them, placed at `places`. `is_seen`: its owner reaches them; else they
/// are a bridge's own, or nobody's.
pub fn bars(function: &PciFunction<'_>, places: &[u64; BARS], is_seen: bool) -> [Bar; BARS] {
    let mut bars = [Bar::default(); BARS];
    for (index, (spec, place)) in function.bars.iter().zip(places).enumerate() {
        let Some(spec) = spec else { continue };
        let (mask, kind) = mask(spec, index);
        let value = if *place == 0 { 0 } else { *place | kind };
        let halves = if spec.space == Space::Memory64 && index != ROM { 2 } else { 1 };
        for half in 0..halves {
            let part = |value: u64| (value >> (32 * half)) as u32;
            if let Some(bar) = bars.get_mut(index + half) {
                let shown = if is_seen && *place != 0 { part(mask) } else { 0 };
                *bar = Bar { mask: part(mask), value: part(value), shown };
            }
        }
    }
    bars
}

/// What a register reads after all ones, 64 bits of it, and its kind bits (PCI Express Base 5.0, 7.5.1.2.1 and 7.5.1.2.4).
fn mask(spec: &BarSpec, index: usize) -> (u64, u64) {
    let size = !spec.size.wrapping_sub(1);
    let kind = match spec.space {
        // A ROM's is of 2 KiB at least, and has its enable bit.
        _ if index == ROM => return (size & !0x7FF | 1, 0),
        Space::Io => 1,
        Space::Memory32 => u64::from(spec.prefetchable) << 3,
        Space::Memory64 => 4 | u64::from(spec.prefetchable) << 3,
    };
    (size | kind, kind)
}
