//! PCI configuration space of a domain: one bus that holds its own functions, each dword decided by a rule of the plan.
//!
//! A dword without a rule does not exist. Base addresses are the plan's: all ones written show the size, anything else is
//! forgotten. A reset that the guest starts takes its time while the function reads as absent; nobody waits for it here, and a
//! function that takes longer than any may is gone for the rest of the run. I/O decode never goes on, bus mastering only where the plan knows what confines it, whatever a rule says.
//!
//! References are to PCI Express Base 5.0.

mod life;

use super::{Access, Frame};
use cofferdam_plan::pci::{CONFIG_SIZE, Function, FunctionFlags, PciDomain, Rule, RuleKind};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

pub use life::{Mismatch, STEPS, Step};

/// Time a function has for a reset, as a part of a second: 100 ms (6.6.1, 6.6.2).
const RESETS_PER_SECOND: u64 = 10;

const ID: u32 = 0x00;
const COMMAND: u32 = 0x04;
const BARS: u32 = 0x10;
const ROM: u32 = 0x30;

/// Command register (7.5.1.1.3).
const IO_DECODE: u32 = 1 << 0;
const MEMORY_DECODE: u32 = 1 << 1;
const BUS_MASTER: u32 = 1 << 2;
const INTX_DISABLE: u32 = 1 << 10;
/// Device Control: Initiate Function Level Reset. The upper half of the dword is status, cleared by ones (7.5.3.4).
const FLR: u32 = 1 << 15;
/// Of Device Control what must fit the ports above, and is lost when the bus is reset: Max_Payload_Size, Max_Read_Request_Size (7.5.3.4).
const KEPT: u32 = 0b111 << 5 | 0b111 << 12;
/// With them: they have been noted.
const NOTED: u32 = 1;
/// Power Management Control/Status: PowerState (7.5.2.2).
const POWER_STATE: u32 = 0b11;
/// What of an address register need not be one for the guest to mean its size: all below it, of a ROM also reserved bits.
const NOT_ADDRESS: u32 = 0x7FF;

/// The function is not the guest's: it reads all ones.
const OFF: u32 = 0;
/// It answers.
const ON: u32 = 1;
/// The guest has reset it.
const RESETTING: u32 = 2;
/// A CPU brings it back after that.
const RESTORING: u32 = 3;
/// The run has ended, and nobody has silenced it yet.
const LEFT: u32 = 4;

/// What of a function is not in its registers. Zeroed RAM at boot.
#[repr(C, align(64))]
pub struct State {
    status: AtomicU32,
    /// Bit per base address register: all ones were written last.
    sizing: AtomicU32,
    /// The power state the guest has chosen.
    power: AtomicU32,
    /// What it has been given to fit its bus, [`KEPT`], once that has been [`NOTED`].
    sizes: AtomicU32,
    /// While it resets: the counter value from which it may answer.
    until: AtomicU64,
}
const _: () = assert!(size_of::<State>() == 64);

impl State {
    /// Off.
    pub const fn new() -> Self {
        Self {
            status: AtomicU32::new(OFF),
            sizing: AtomicU32::new(0),
            power: AtomicU32::new(0),
            sizes: AtomicU32::new(0),
            until: AtomicU64::new(0),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// One function: the plan's record, its rules, its state, its registers. The frame is [`CONFIG_SIZE`] bytes and accessed by aligned
/// dwords; a read that nothing answers gives all ones, a write is on its way when it returns.
pub struct Device<'a, F> {
    /// Its record.
    pub function: &'a Function,
    /// Its rules, ascending.
    pub rules: &'a [Rule],
    /// For each dword which of them decides it.
    pub dwords: &'a [u8],
    /// Its state.
    pub state: &'a State,
    /// Its configuration space.
    pub frame: F,
}

/// Which of the plan's `functions` the byte at `offset` of a domain's configuration space belongs to, and its index.
#[inline(always)]
pub fn find<'a>(functions: &'a [Function], owner: &PciDomain, offset: u32) -> Option<(&'a Function, usize)> {
    let devfn = (offset / CONFIG_SIZE as u32) as u8;
    let index = usize::from(owner.places[usize::from(devfn)]);
    Some((functions.get(index)?, index))
}

/// Whether the access is one that a configuration request can carry: within one dword (7.2.2).
#[inline]
pub const fn is_request(access: Access) -> bool {
    (access.offset & 3) + access.size as u32 <= 4
}

impl<F: Frame> Device<'_, F> {
    /// Whether it answers now. [`Device::come_back`] may change that.
    #[inline(always)]
    pub fn is_there(&self) -> bool {
        self.state.status.load(Ordering::Acquire) == ON
    }

    /// A guest's access, for which [`is_request`] holds, to a function that is there: what it reads.
    #[inline(always)]
    pub fn read(&self, access: Access) -> u64 {
        self.rule(access).map_or(0, |rule| u64::from(self.dword(rule) >> ((access.offset & 3) * 8)))
    }

    /// The same where it writes `written`. `clock` gives the counter and its frequency.
    #[inline(always)]
    pub fn write(&self, access: Access, written: u64, clock: fn() -> (u64, u64)) {
        let shift = (access.offset & 3) * 8;
        let lanes = (u32::MAX >> (32 - 8 * u32::from(access.size.clamp(1, 4)))) << shift;
        if let Some(rule) = self.rule(access) {
            self.apply(rule, (written as u32) << shift, lanes, clock);
        }
    }

    /// The rule for the dword that is accessed.
    #[inline(always)]
    fn rule(&self, access: Access) -> Option<&Rule> {
        let dword = access.offset as usize % CONFIG_SIZE as usize / 4;
        self.rules.get(usize::from(*self.dwords.get(dword)?))
    }

    #[inline(always)]
    fn get(&self, offset: u32) -> u32 {
        self.frame.read(offset, 4) as u32
    }

    fn set(&self, offset: u32, value: u32) {
        self.frame.write(offset, 4, u64::from(value));
    }

    #[inline(always)]
    fn dword(&self, rule: &Rule) -> u32 {
        if rule.kind == RuleKind::BAR {
            return self.base_address(rule).0;
        }
        let mut value = if rule.read == 0 { 0 } else { self.get(rule.offset.into()) & rule.read };
        if rule.kind == RuleKind::POWER {
            value = value & !POWER_STATE | self.state.power.load(Ordering::Relaxed);
        }
        value | rule.constant
    }

    /// Writes those bits of `value` that lie in `lanes` and that the rule grants.
    #[inline(always)]
    fn apply(&self, rule: &Rule, value: u32, lanes: u32, clock: fn() -> (u64, u64)) {
        let mut mask = rule.write & lanes;
        match rule.kind {
            RuleKind::BAR => return self.size(rule, value, lanes),
            RuleKind::CONTROL => {
                if value & lanes & FLR != 0 && self.function.flags & FunctionFlags::FLR != 0 {
                    let lasts = || {
                        let (now, frequency) = clock();
                        let until = now.saturating_add(frequency / RESETS_PER_SECOND);
                        self.state.until.store(until, Ordering::Relaxed);
                    };
                    lasts();
                    if self.change(ON, RESETTING) {
                        // It is silent before its reset (6.6.2), and every CPU knows of that before it begins.
                        self.silence();
                        self.start_reset();
                        lasts();
                    }
                    return;
                }
                mask &= !FLR;
            }
            RuleKind::POWER => {
                if lanes & POWER_STATE != 0 {
                    self.state.power.store(value & POWER_STATE, Ordering::Relaxed);
                }
                mask &= !POWER_STATE;
            }
            _ => {}
        }
        let is_command = u32::from(rule.offset) == COMMAND;
        let forbidden = IO_DECODE | if self.function.flags & FunctionFlags::DMA == 0 { BUS_MASTER } else { 0 };
        if is_command {
            mask &= !forbidden;
        }
        if mask == 0 {
            return;
        }
        let offset = rule.offset.into();
        let old = self.get(offset);
        // Where nothing answers, because another vCPU has it reset, every register is all ones, and what is written back must not be
        // made of those. These two have bits that are always zero; an address of a message may be all ones.
        let never_ones = is_command || rule.kind == RuleKind::CONTROL;
        if old == u32::MAX && (never_ones || self.get(ID) != self.function.id) {
            return;
        }
        let mut new = old & !(mask | rule.clear) | value & mask;
        if is_command {
            new &= !forbidden;
        }
        // A reset that the guest has brought about by the function's own registers may have taken the addresses.
        if is_command && new & !old & MEMORY_DECODE != 0 {
            self.write_base_addresses();
        }
        self.set(offset, new);
        // The domain's run may have been ended meanwhile from another CPU, which turns bus mastering off, or a reset begun, which
        // does the same: the last of the two sees the other. A write has happened when a read behind it is answered (DDI 0487, B2.7.2:
        // Device-nGnRE may be acknowledged on its way).
        if is_command {
            self.get(COMMAND);
            fence(Ordering::SeqCst);
            if self.state.status.load(Ordering::SeqCst) != ON {
                self.silence();
            }
        }
    }

    /// What a base address register reads, and its bit in `sizing`.
    fn base_address(&self, rule: &Rule) -> (u32, u32, u32) {
        let offset = u32::from(rule.offset);
        let index = if offset == ROM { self.function.bars.len() as u32 - 1 } else { offset.wrapping_sub(BARS) / 4 };
        let Some(bar) = self.function.bars.get(index as usize) else { return (0, 0, 0) };
        let bit = 1 << (index & 7);
        let sized = bar.shown == 0 || self.state.sizing.load(Ordering::Relaxed) & bit != 0;
        (if sized { bar.shown } else { bar.value }, bar.shown, bit)
    }

    fn size(&self, rule: &Rule, value: u32, lanes: u32) {
        let (now, shown, bit) = self.base_address(rule);
        let wanted = now & !lanes | value & lanes;
        if wanted | !shown | NOT_ADDRESS == u32::MAX {
            self.state.sizing.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.state.sizing.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    fn change(&self, from: u32, to: u32) -> bool {
        self.state.status.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod races;
#[cfg(test)]
mod tests;
