//! One SMMU as EL2 drives it: how it starts, how a stream is opened and closed, what it has to say.
//!
//! Every wait has an end, by the counter and by a number of polls. An SMMU that has once not carried out a command in its time is broken
//! for good: nobody waits for it again, streams stay as the table says, and who needed it is told no. Registers and memory are
//! reached through [`Hardware`], which a test replaces.

use super::{
    ABORT, CFGI_ALL, Command, Event, SYNC, TLBI_NSNH_ALL, cfgi_ste, decode, entry, index_mask, next, queue_bits,
    tlbi_vmid,
};
use crate::vdev::lock::{FlagLock, Held};
use cofferdam_plan::NO_INTID;
use cofferdam_plan::pci::{Function, Smmu};
use core::sync::atomic::{AtomicU8, Ordering};

// Registers (6.3).
/// SMMU_IDR0.
pub const IDR0: u32 = 0x00;
/// SMMU_IDR1.
pub const IDR1: u32 = 0x04;
/// SMMU_IDR5.
pub const IDR5: u32 = 0x14;
const CR0: u32 = 0x20;
const CR1: u32 = 0x28;
const CR2: u32 = 0x2C;
const GBPA: u32 = 0x44;
const IRQ_CTRL: u32 = 0x50;
const GERROR: u32 = 0x60;
const GERRORN: u32 = 0x64;
const GERROR_IRQ_CFG0: u32 = 0x68;
const STRTAB_BASE: u32 = 0x80;
const STRTAB_BASE_CFG: u32 = 0x88;
const CMDQ_BASE: u32 = 0x90;
const CMDQ_PROD: u32 = 0x98;
const CMDQ_CONS: u32 = 0x9C;
const EVENTQ_BASE: u32 = 0xA0;
const EVENTQ_IRQ_CFG0: u32 = 0xB0;
/// In page 1.
const EVENTQ_PROD: u32 = 0x1_00A8;
const EVENTQ_CONS: u32 = 0x1_00AC;

/// CR0: the three enables.
const SMMUEN: u32 = 1 << 0;
const EVENTQEN: u32 = 1 << 2;
const CMDQEN: u32 = 1 << 3;
/// CR0: what a device says it has translated itself goes through the stream table all the same (invariant I65).
const ATSCHK: u32 = 1 << 4;
/// CR2: broadcast TLB maintenance of the CPUs is not for it. Streams beyond the table leave no event: RECINVSID = 0.
const PTM: u32 = 1 << 2;
const GBPA_UPDATE: u32 = 1 << 31;
const GBPA_ABORT: u32 = 1 << 20;
/// IRQ_CTRL.
const GERROR_IRQEN: u32 = 1 << 0;
const EVENTQ_IRQEN: u32 = 1 << 2;
/// GERROR: it has stopped at a command; it lets nothing through any more (service failure mode).
const CMDQ_ERR: u32 = 1 << 0;
const SFM_ERR: u32 = 1 << 8;
/// Event queue: OVFLG of EVENTQ_PROD, OVACKFLG of EVENTQ_CONS.
const OVERFLOW: u32 = 1 << 31;
/// Bits of the base registers that are no hint of how to reach the tables (STRTAB_BASE.RA, CMDQ_BASE.RA, EVENTQ_BASE.WA).
const BASE_BITS: u64 = !(1 << 62);

/// Time the SMMU has for what it is told, as a part of a second: 10 ms.
const ANSWERS_PER_SECOND: u64 = 100;
/// Time another CPU has to let go of the command queue: each that has it may wait twice.
const HOLDS_PER_SECOND: u64 = 2;
/// Polls, should the counter stand still.
const POLLS: u32 = 1_000_000;

/// What it has broken by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(target_os = "none", derive(defmt::Format))]
#[repr(u8)]
pub enum Broken {
    /// It has not.
    No,
    /// It has stopped at a command that it finds illegal. This one and the next two as CMDQ_CONS.ERR (6.3.28) counts.
    IllegalCommand,
    /// It cannot read its commands.
    UnreadableCommand,
    /// A device has not answered it.
    DeviceSilent,
    /// It does not carry out commands.
    CommandsStuck,
    /// A CPU does not let go of its queue.
    QueueHeld,
    /// It lets nothing through any more.
    ServiceFailed,
}

impl Broken {
    const ALL: [Self; 7] = [
        Self::No,
        Self::IllegalCommand,
        Self::UnreadableCommand,
        Self::DeviceSilent,
        Self::CommandsStuck,
        Self::QueueHeld,
        Self::ServiceFailed,
    ];

    /// Of CMDQ_CONS.ERR.
    const fn by_command(reason: u32) -> Self {
        match reason {
            1 => Self::IllegalCommand,
            2 => Self::UnreadableCommand,
            3 => Self::DeviceSilent,
            _ => Self::CommandsStuck,
        }
    }
}

/// Where one does not follow at its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(target_os = "none", derive(defmt::Format))]
pub enum Step {
    /// GBPA is never ready.
    Gbpa,
    /// GBPA.ABORT does not go on.
    GbpaAbort,
    /// CR0 does not become 0.
    Cr0,
    /// Nor does IRQ_CTRL.
    IrqCtrl,
    /// It does not keep the base of a table or queue.
    Bases,
    /// CR0.CMDQEN does not go on.
    CommandsOn,
    /// It does not carry out its first commands: see [`Unit::broken`].
    Commands,
    /// Its interrupts do not go on.
    IrqCtrlOn,
    /// CR0.SMMUEN does not go on.
    SmmuOn,
}

/// Registers of an SMMU and the memory it shares with EL2: offsets are those of the manual, or from the start of the plan's area.
pub trait Hardware {
    /// Reads a register of 32 bits.
    fn load(&self, register: u32) -> u32;
    /// Writes a register of 32 bits.
    fn store(&self, register: u32, value: u32);
    /// Reads a register of 64 bits.
    fn load64(&self, register: u32) -> u64;
    /// Writes a register of 64 bits.
    fn store64(&self, register: u32, value: u64);
    /// Writes the command at byte `offset` of the queue.
    fn set_command(&self, offset: u64, command: Command);
    /// Reads the event at byte `offset` of the queue.
    fn event(&self, offset: u64) -> [u64; 4];
    /// Reads the doubleword at byte `offset` of the stream table.
    fn word(&self, offset: u64) -> u64;
    /// Writes it, in one piece.
    fn set_word(&self, offset: u64, value: u64);
    /// Has all accesses before happen before those behind.
    fn fence(&self);
    /// The counter, and its frequency in Hz.
    fn clock(&self) -> (u64, u64);
}

/// What all CPUs share of it. All zeroes is unbroken.
pub struct State {
    /// Held by who writes the stream table or the command queue.
    commands: FlagLock<()>,
    /// A [`Broken`].
    broken: AtomicU8,
}

impl State {
    /// Unbroken.
    pub const fn new() -> Self {
        Self { commands: FlagLock::new(()), broken: AtomicU8::new(0) }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// The plan's SMMU.
pub struct Unit<'a, H> {
    /// Its record.
    pub plan: &'a Smmu,
    /// Itself.
    pub hardware: H,
    /// What of it is not in its registers.
    pub state: &'a State,
}

/// Those functions of a plan that have a stream.
pub fn streams(functions: &[Function]) -> impl Iterator<Item = &Function> {
    functions.iter().filter(|function| function.ste[0] & 1 != 0)
}

impl<H: Hardware> Unit<'_, H> {
    /// What it has broken by.
    pub fn broken(&self) -> Broken {
        let index = usize::from(self.state.broken.load(Ordering::Relaxed));
        Broken::ALL.get(index).copied().unwrap_or(Broken::CommandsStuck)
    }

    fn is_broken(&self) -> bool {
        self.state.broken.load(Ordering::Relaxed) != Broken::No as u8
    }

    /// The first reason stays.
    fn give_up(&self, why: Broken) {
        _ = self.state.broken.compare_exchange(Broken::No as u8, why as u8, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether a wait that began at `start` and may last a second's `part`-th goes on.
    #[inline(never)]
    fn goes_on(&self, start: u64, part: u64) -> bool {
        let (now, frequency) = self.hardware.clock();
        core::hint::spin_loop();
        now.wrapping_sub(start) < frequency / part
    }

    /// Waits until those bits of a register that are in `mask` are as in `value`.
    #[inline(never)]
    fn settles(&self, register: u32, value: u32, mask: u32) -> bool {
        let is_settled = || (self.hardware.load(register) ^ value) & mask == 0;
        let start = self.hardware.clock().0;
        for _ in 0..POLLS {
            if is_settled() {
                return true;
            }
            if !self.goes_on(start, ANSWERS_PER_SECOND) {
                break;
            }
        }
        // An emulator may have put this CPU aside for all that time.
        is_settled()
    }

    /// Writes a register that has an acknowledgement behind it, and waits for that.
    fn follows(&self, register: u32, value: u32, mask: u32) -> bool {
        self.hardware.store(register, value);
        self.settles(register + 4, value, mask)
    }

    /// From now on no device reaches anything.
    ///
    /// # Errors
    /// What it does not follow in.
    pub fn abort_all(&self) -> Result<(), Step> {
        if !self.settles(GBPA, 0, GBPA_UPDATE) {
            return Err(Step::Gbpa);
        }
        self.hardware.store(GBPA, self.hardware.load(GBPA) | GBPA_UPDATE | GBPA_ABORT);
        if !self.settles(GBPA, GBPA_ABORT, GBPA_UPDATE | GBPA_ABORT) {
            return Err(Step::GbpaAbort);
        }
        if self.follows(CR0, 0, u32::MAX) { Ok(()) } else { Err(Step::Cr0) }
    }

    /// Tables and queues as planned, then on; every stream aborts still. After [`Unit::abort_all`]; while only one CPU runs.
    ///
    /// # Errors
    /// What it does not follow in.
    pub fn set_up(&self, functions: &[Function]) -> Result<(), Step> {
        let (hardware, plan) = (&self.hardware, self.plan);
        if !self.follows(IRQ_CTRL, 0, u32::MAX) {
            return Err(Step::IrqCtrl);
        }
        hardware.store(CR1, plan.cr1);
        hardware.store(CR2, PTM);
        hardware.store(STRTAB_BASE_CFG, plan.stream_table_cfg);
        let bases =
            [(STRTAB_BASE, plan.stream_table_base), (CMDQ_BASE, plan.command_base), (EVENTQ_BASE, plan.event_base)];
        for (register, base) in bases {
            hardware.store64(register, base);
        }
        if bases.iter().any(|(register, base)| (hardware.load64(*register) ^ base) & BASE_BITS != 0) {
            return Err(Step::Bases);
        }
        for index in [CMDQ_PROD, CMDQ_CONS, EVENTQ_PROD, EVENTQ_CONS] {
            hardware.store(index, 0);
        }
        // Its interrupts are wires, not messages.
        hardware.store64(GERROR_IRQ_CFG0, 0);
        hardware.store64(EVENTQ_IRQ_CFG0, 0);
        hardware.store(GERRORN, hardware.load(GERROR));
        self.abort(functions);
        if !self.follows(CR0, CMDQEN, CMDQEN) {
            return Err(Step::CommandsOn);
        }
        if !self.carry_out(&[CFGI_ALL, TLBI_NSNH_ALL, SYNC]) {
            return Err(Step::Commands);
        }
        let enable = |intid, bit| if intid == NO_INTID { 0 } else { bit };
        let interrupts = enable(plan.event_intid, EVENTQ_IRQEN) | enable(plan.error_intid, GERROR_IRQEN);
        if !self.follows(IRQ_CTRL, interrupts, u32::MAX) {
            return Err(Step::IrqCtrlOn);
        }
        // ATSCHK is reserved where there is no ATS: IDR0 bit 10.
        let enables = CMDQEN | EVENTQEN | SMMUEN;
        let acknowledged = if hardware.load(IDR0) & 1 << 10 == 0 { enables } else { enables | ATSCHK };
        if self.follows(CR0, enables | ATSCHK, acknowledged) { Ok(()) } else { Err(Step::SmmuOn) }
    }

    /// Writes doubleword `n` of a function's stream table entry: in one piece, as the SMMU reads it.
    fn set_entry(&self, function: &Function, n: u64, value: u64) {
        self.hardware.set_word(u64::from(function.ste_offset) + n * 8, value);
    }

    #[inline(never)]
    fn abort(&self, functions: &[Function]) {
        streams(functions).for_each(|function| self.set_entry(function, 0, ABORT));
    }

    /// Has it carry out `commands`, fewer than its queue holds, and waits. False where it does not, now or ever before. Under the
    /// lock, or while only one CPU runs.
    #[inline(never)]
    fn carry_out(&self, commands: &[Command]) -> bool {
        if self.is_broken() {
            return false;
        }
        let (hardware, bits) = (&self.hardware, queue_bits(self.plan.command_base));
        let mask = index_mask(bits);
        let mut index = hardware.load(CMDQ_PROD) & mask;
        for command in commands {
            hardware.set_command(entry(index, bits, 4), *command);
            index = next(index, bits);
        }
        hardware.fence();
        hardware.store(CMDQ_PROD, index);
        let done = self.settles(CMDQ_CONS, index, mask);
        hardware.fence();
        if !done {
            let stopped = (hardware.load(GERROR) ^ hardware.load(GERRORN)) & CMDQ_ERR != 0;
            let reason = if stopped { hardware.load(CMDQ_CONS) >> 24 & 0x7F } else { 0 };
            self.give_up(Broken::by_command(reason));
        }
        done
    }

    /// Has it look at the entry of a stream anew.
    fn forgets(&self, stream: u32) -> bool {
        self.carry_out(&[cfgi_ste(stream), SYNC])
    }

    /// Keeps other CPUs off table and queue. `None` where it is broken, or one of them does not let go.
    #[inline(never)]
    fn alone(&self) -> Option<Held<'_, ()>> {
        let start = self.hardware.clock().0;
        let held = self.state.commands.hold(|| !self.is_broken() && self.goes_on(start, HOLDS_PER_SECOND));
        if held.is_none() {
            self.give_up(Broken::QueueHeld);
        }
        held
    }

    /// The stream of `function` reaches what its entry says from now on. False where the SMMU does not follow: the stream aborts
    /// then. True for a function without a stream.
    pub fn attach(&self, function: &Function) -> bool {
        if function.ste[0] & 1 == 0 {
            return true;
        }
        let Some(_held) = self.alone() else { return false };
        // An entry that aborts is looked at no further, so the rest of it may change; then what makes it valid, in one piece
        // (3.21.3).
        for (n, value) in (1..4).zip(&function.ste[1..]) {
            self.set_entry(function, n, *value);
        }
        if !self.forgets(function.stream) {
            return false;
        }
        self.set_entry(function, 0, function.ste[0]);
        let done = self.forgets(function.stream);
        if !done {
            self.set_entry(function, 0, ABORT);
        }
        done
    }

    /// The streams of `functions`, all under `vmid`, abort, without events; when it answers, nothing of theirs is under way any more.
    /// False where the SMMU does not say so in time: its table says abort, but the domain's memory must not change hands.
    pub fn detach(&self, functions: &[Function], vmid: u64) -> bool {
        if streams(functions).next().is_none() {
            return true;
        }
        self.abort(functions);
        let Some(_held) = self.alone() else { return false };
        // A CPU that had the lock may have made one of them valid: what counts is written under it.
        self.abort(functions);
        streams(functions).all(|function| self.forgets(function.stream)) && self.carry_out(&[tlbi_vmid(vmid), SYNC])
    }

    /// Has a stream abort that no function of the plan has. False where it does already, or has no entry in the table.
    pub fn close(&self, stream: u32) -> bool {
        let offset = u64::from(stream) << super::STE_LOG2;
        let is_open = u64::from(stream) >> self.plan.stream_bits == 0 && self.hardware.word(offset) != ABORT;
        if is_open {
            self.hardware.set_word(offset, ABORT);
            _ = self.alone().map(|_held| self.forgets(stream));
        }
        is_open
    }

    /// Whether the stream of `function` aborts.
    pub fn is_closed(&self, function: &Function) -> bool {
        self.hardware.word(function.ste_offset.into()) == ABORT
    }

    /// GERROR's bits that are new. It stays where it has stopped.
    pub fn errors(&self) -> u32 {
        let error = self.hardware.load(GERROR);
        let active = error ^ self.hardware.load(GERRORN);
        let fatal = active & (CMDQ_ERR | SFM_ERR);
        let known = if self.is_broken() { fatal } else { 0 };
        if fatal != 0 {
            self.give_up(if fatal & SFM_ERR != 0 { Broken::ServiceFailed } else { Broken::CommandsStuck });
        }
        self.hardware.store(GERRORN, error ^ fatal);
        active & !known
    }

    /// Tells each event, at most once through the queue. Whether there are more.
    pub fn events(&self, mut tell: impl FnMut(&Event)) -> bool {
        let (hardware, bits) = (&self.hardware, queue_bits(self.plan.event_base));
        let mut at = hardware.load(EVENTQ_CONS) & index_mask(bits);
        let mut end = hardware.load(EVENTQ_PROD);
        for _ in 0..1u64 << bits {
            if end & index_mask(bits) == at {
                break;
            }
            hardware.fence();
            let record = hardware.event(entry(at, bits, 5));
            at = next(at, bits);
            hardware.store(EVENTQ_CONS, at | end & OVERFLOW);
            tell(&decode(record));
            end = hardware.load(EVENTQ_PROD);
        }
        hardware.store(EVENTQ_CONS, at | end & OVERFLOW);
        end & index_mask(bits) != at
    }
}

#[cfg(test)]
mod tests;
