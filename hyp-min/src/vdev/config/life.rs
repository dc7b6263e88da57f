//! The life of a function: reset, compared with the plan and given to a run; taken back at its end.
//!
//! References are to PCI Express Base 5.0. It must not wait: who calls it does, between two of its steps.

use super::{
    BARS, BUS_MASTER, COMMAND, Device, FLR, ID, INTX_DISABLE, KEPT, LEFT, MEMORY_DECODE, NOTED, OFF, ON, POWER_STATE,
    RESETS_PER_SECOND, RESETTING, RESTORING, ROM,
};
use crate::vdev::Frame;
use cofferdam_plan::pci::{Bar, CONFIG_SIZE, FunctionFlags, RuleKind};
use core::sync::atomic::Ordering;

/// Times of a reset until a function that still does not answer is broken: a second in all (6.6.1).
const RESET_TIMES: u64 = 10;

/// Before a run, for each of its domain's functions: what is done, how often at most, and after which part of a second it is done again,
/// or the next begins. At once, where [`Device::prepare`] says so of all of them.
pub const STEPS: [(Step, u64, u64); 6] = [
    (Step::Rest, 1, RESETS_PER_SECOND),
    // 10 ms is what a function needs to come out of D3hot (5.9); a reset awaits no answer longer than 100 ms.
    (Step::Settle, 10, 100),
    // 2 ms, of which the bus needs one (7.5.1.3.13).
    (Step::Hold, 1, 500),
    (Step::Release, 1, RESETS_PER_SECOND),
    (Step::Reset, 1, RESETS_PER_SECOND),
    (Step::Answer, RESET_TIMES - 1, RESETS_PER_SECOND),
];

/// A step of [`STEPS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The last run may have begun a reset, which is left alone until its time is over.
    Rest,
    /// It is silent, wakes up where it sleeps, and has its last requests answered (6.6.2).
    Settle,
    /// Its bus is held in reset, where that is what resets it.
    Hold,
    /// Its bus is let go. A neighbour's own reset waits for that: nothing on the bus may be asked before (6.6.1).
    Release,
    /// Its own reset is begun.
    Reset,
    /// It, or the host bridge, says that it is not ready yet.
    Answer,
}

/// Where the expansion ROM's register would be, were it the seventh in a row.
const ROM_BAR: u32 = BARS + 6 * 4;
const CLASS: u32 = 0x08;
const SUBSYSTEM: u32 = 0x2C;
/// Of a bridge: bus numbers, the first of the dwords that [`Function::bridge`] holds (7.5.1.3).
const BUSES: u32 = 0x18;
/// Of a bridge: upper half of the prefetchable window's end.
const LIMIT_UPPER: u32 = 0x2C;
/// Of a bridge: Bridge Control, with interrupt line and pin below it; Secondary Bus Reset (7.5.1.3.13).
const BRIDGE_CONTROL: u32 = 0x3C;
const BUS_RESET: u32 = 1 << 22;
/// Device Status, in the upper half of Device Control's dword: Transactions Pending (7.5.3.5).
pub(super) const PENDING: u32 = 1 << 21;
/// PME_Status, cleared by a one.
const PME_STATUS: u32 = 1 << 15;
/// What dword 0 reads of a function that is not ready, where the root complex tells that apart: no vendor (2.3.2).
pub(super) const NOT_READY: u32 = 0xFFFF_0001;

/// A register that is not what the plan says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// Byte offset.
    pub offset: u32,
    /// What it reads.
    pub found: u32,
    /// What it should read; of a base address register, with all ones written.
    pub planned: u32,
}

impl<F: Frame> Device<'_, F> {
    /// Brings it back after a reset that has had its time, for the first who asks, unless it needs longer still.
    ///
    /// # Errors
    /// It does not answer now. With a mismatch, once, where it has had all the time that any function may need: it is off for the rest
    /// of the run.
    #[inline(always)]
    pub fn come_back(&self, clock: fn() -> (u64, u64)) -> Result<(), Option<Mismatch>> {
        // First, so that the time is that of this reset: none can begin meanwhile.
        if !self.change(RESETTING, RESTORING) {
            return Err(None);
        }
        let (now, frequency) = clock();
        if self.is_in_reset(now) {
            self.change(RESTORING, RESETTING);
            return Err(None);
        }
        let (found, planned) = (self.get(ID), self.function.id);
        if found != planned {
            let spent = now.saturating_sub(self.state.until.load(Ordering::Relaxed));
            let late = spent >= frequency / RESETS_PER_SECOND * (RESET_TIMES - 1);
            let changed = self.change(RESTORING, if late { OFF } else { RESETTING });
            return Err((late && changed).then_some(Mismatch { offset: ID, found, planned }));
        }
        self.write_base_addresses();
        self.power_up();
        if self.change(RESTORING, ON) { Ok(()) } else { Err(None) }
    }

    #[inline(never)]
    pub(super) fn write_base_addresses(&self) {
        for (offset, bar) in self.base_addresses() {
            self.set(offset, bar.value);
        }
    }

    /// The rest of a state after reset. INTx is for who may turn it off: nobody else's line is held.
    fn power_up(&self) {
        self.state.sizing.store(0, Ordering::Relaxed);
        self.state.power.store(0, Ordering::Relaxed);
        let intx = self.rules.iter().any(|rule| u32::from(rule.offset) == COMMAND && rule.write & INTX_DISABLE != 0);
        self.set(COMMAND, if intx { 0 } else { INTX_DISABLE });
    }

    pub(super) fn base_addresses(&self) -> impl Iterator<Item = (u32, &Bar)> {
        let bars = (BARS..).step_by(4).zip(&self.function.bars);
        bars.map(|(at, bar)| (if at == ROM_BAR { ROM } else { at }, bar)).filter(|(_, bar)| bar.mask != 0)
    }

    /// No memory, no I/O, no bus mastering, no INTx. It has happened, and what the function wrote before has left, when this returns.
    /// Answers whether anything has answered.
    pub fn silence(&self) -> bool {
        self.set(COMMAND, INTX_DISABLE);
        self.get(COMMAND) != u32::MAX
    }

    /// Does a step of [`STEPS`]; `port` is the bridge by whose bus it is reset, where that is so. Answers whether it needs the step's time.
    pub fn prepare(&self, step: Step, port: Option<&F>, now: u64) -> bool {
        let hold = |held| port.is_some_and(|port| hold(port, held));
        match step {
            Step::Rest => self.is_in_reset(now),
            Step::Settle => {
                self.silence();
                self.is_planned() && {
                    self.note_sizes();
                    self.wakes() || self.has(FunctionFlags::FLR) && self.get(self.control()) & PENDING != 0
                }
            }
            Step::Hold => hold(true),
            Step::Release => hold(false),
            Step::Reset => self.has(FunctionFlags::FLR) && self.is_planned() && self.start_reset(),
            Step::Answer => matches!(self.get(ID), u32::MAX | NOT_READY),
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.function.flags & flag != 0
    }

    /// Whether the last reset that a guest has begun has not had its time.
    fn is_in_reset(&self, now: u64) -> bool {
        now < self.state.until.load(Ordering::Relaxed)
    }

    /// Whether what answers says that it is the one meant: the plan's registers are another's nowhere.
    pub fn is_planned(&self) -> bool {
        self.get(ID) == self.function.id
    }

    /// Wakes it. Answers whether it has slept.
    fn wakes(&self) -> bool {
        let Some(power) = self.rules.iter().find(|rule| rule.kind == RuleKind::POWER) else { return false };
        let offset = power.offset.into();
        let old = self.get(offset);
        let sleeps = old & POWER_STATE != 0;
        if sleeps {
            self.set(offset, old & !(POWER_STATE | PME_STATUS));
        }
        sleeps
    }

    /// Once, before anything has reset it; whatever resets it, for its neighbours' reset may be the bus'.
    fn note_sizes(&self) {
        if self.state.sizes.load(Ordering::Relaxed) == 0 {
            self.device_control(|_, value| self.state.sizes.store(value & KEPT | NOTED, Ordering::Relaxed));
        }
    }

    /// Device Control, by its offset and what it reads; Device Status as zeroes, which clear nothing.
    fn device_control(&self, work: impl FnOnce(u32, u32)) {
        if let Some(rule) = self.rules.iter().find(|rule| rule.kind == RuleKind::CONTROL) {
            work(rule.offset.into(), self.get(rule.offset.into()) & 0xFFFF);
        }
    }

    fn control(&self) -> u32 {
        u32::from(self.function.reset) & (CONFIG_SIZE as u32 - 4)
    }

    pub(super) fn start_reset(&self) -> bool {
        let offset = self.control();
        self.set(offset, self.get(offset) & 0xFFFF | FLR);
        true
    }

    /// Compares it with the plan and writes its base addresses. Nothing is decoded meanwhile.
    ///
    /// # Errors
    /// The first register that is not as planned.
    pub fn place(&self) -> Result<(), Mismatch> {
        let compare = |offset, planned| {
            let found = self.get(offset);
            if found == planned { Ok(()) } else { Err(Mismatch { offset, found, planned }) }
        };
        compare(ID, self.function.id)?;
        let kept = self.state.sizes.load(Ordering::Relaxed);
        if kept != 0 {
            self.device_control(|offset, value| self.set(offset, value & !(KEPT | FLR) | kept & KEPT));
        }
        compare(CLASS, self.function.class)?;
        let bridge = self.has(FunctionFlags::BRIDGE);
        if !bridge {
            compare(SUBSYSTEM, self.function.subsystem)?;
        }
        // A bridge has its ROM elsewhere, and none of it is planned.
        for (offset, bar) in self.base_addresses().filter(|(offset, _)| !bridge || *offset < BUSES) {
            self.set(offset, u32::MAX);
            let sized = compare(offset, bar.mask);
            self.set(offset, bar.value);
            sized?;
        }
        Ok(())
    }

    /// Programs a bridge, closed still.
    pub fn lead(&self) {
        for (offset, value) in (BUSES..).step_by(4).zip(self.function.bridge) {
            self.set(offset, value);
        }
        // The window's halves lie within the same 4 GiB.
        self.set(LIMIT_UPPER, self.function.bridge[4]);
        hold(&self.frame, false);
    }

    /// Opens a bridge.
    pub fn open(&self) {
        self.set(COMMAND, MEMORY_DECODE | BUS_MASTER | INTX_DISABLE);
    }

    /// It is the guest's now, as after reset. Only while it is off.
    pub fn begin(&self) {
        if !self.has(FunctionFlags::FLR) {
            self.forget();
        }
        self.power_up();
        self.state.status.store(ON, Ordering::Release);
    }

    /// What a guest can have written, where no reset has undone it: MSIs are off again.
    fn forget(&self) {
        for rule in self.rules.iter().filter(|rule| rule.write & !rule.clear != 0) {
            let offset = rule.offset.into();
            self.set(offset, self.get(offset) & !(rule.write | rule.clear));
        }
    }

    /// It is the guest's no longer. It is not asked: whoever ends a run may be another domain's CPU, which must neither wait for it nor
    /// answer for what a host bridge makes of its silence. [`Device::rest`] does that, on a CPU of its domain.
    ///
    /// One that the guest is resetting rests already: the next run waits for the reset's end.
    pub fn end(&self, now: u64) {
        let before = self.state.status.swap(LEFT, Ordering::SeqCst);
        if matches!(before, RESETTING | RESTORING) && self.is_in_reset(now) {
            self.change(LEFT, OFF);
        }
    }

    /// Silences it, once after each [`Device::end`]. Twice: once the first has happened, every CPU sees that it is off, and who has
    /// written the command register before it saw that is overruled by the second. One that does not answer is not waited for again.
    pub fn rest(&self) {
        if self.change(LEFT, OFF) && self.silence() {
            self.silence();
        }
    }
}

/// Holds what is behind a bridge in reset, or lets it go. Nothing else of Bridge Control is ever on.
fn hold<F: Frame>(bridge: &F, held: bool) -> bool {
    bridge.write(BRIDGE_CONTROL, 4, if held { BUS_RESET.into() } else { 0 });
    true
}
