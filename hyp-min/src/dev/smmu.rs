//! The SMMUv3 (IHI 0070): everything aborts from the first moment on, a function's stream reaches its domain's RAM while the
//! domain runs, and what it does beyond comes here as an event.
//!
//! The stream table in memory is what counts: it is changed first. A machine that does not carry out commands in time costs the
//! domain whose stream it is, which then never starts again.
#![allow(unsafe_code)] // stream table and queues

use super::gicv3::Distributor;
use super::mmio::Mmio;
use crate::arch::aarch64::park;
use crate::arch::aarch64::percpu::PerCpu;
use crate::console;
use crate::log::text;
use crate::state::state_of;
use cofferdam_plan::pci::{Function, Smmu};
use cofferdam_plan::{Domain, IntId, NO_INTID, PciView};
use cortex_a::asm::barrier;
use hyp_min::vdev::smmu::unit::{Broken, Hardware, IDR0, IDR1, IDR5, State, Step, Unit, streams};
use hyp_min::vdev::smmu::{Command, Event, lacks};

static STATE: State = State::new();

/// The SMMU of a plan that has one.
struct Machine<'a>(&'a Smmu);

impl Machine<'_> {
    fn registers(&self) -> Mmio {
        Mmio::new(self.0.registers_va)
    }
}

impl Hardware for Machine<'_> {
    #[inline(always)]
    fn load(&self, register: u32) -> u32 {
        self.registers().load(register)
    }
    #[inline(always)]
    fn store(&self, register: u32, value: u32) {
        self.registers().store(register, value);
    }
    #[inline(always)]
    fn load64(&self, register: u32) -> u64 {
        self.registers().load64(register)
    }
    #[inline(always)]
    fn store64(&self, register: u32, value: u64) {
        self.registers().store64(register, value);
    }
    #[inline(always)]
    fn set_command(&self, offset: u64, command: Command) {
        let place = (self.0.commands_va + offset) as usize as *mut Command;
        // SAFETY: inside the command queue of the plan, as its indices are; the SMMU looks at it once CMDQ_PROD says so.
        unsafe { place.write_volatile(command) };
    }
    #[inline(always)]
    fn event(&self, offset: u64) -> [u64; 4] {
        let place = (self.0.events_va + offset) as usize as *const [u64; 4];
        // SAFETY: inside the event queue of the plan, as its indices are; the SMMU has written this one.
        unsafe { place.read_volatile() }
    }
    #[inline(always)]
    fn word(&self, offset: u64) -> u64 {
        let place = (self.0.stream_table_va + offset) as usize as *const u64;
        // SAFETY: as in `set_word`.
        unsafe { place.read_volatile() }
    }
    #[inline(always)]
    fn set_word(&self, offset: u64, value: u64) {
        let place = (self.0.stream_table_va + offset) as usize as *mut u64;
        // SAFETY: inside the stream table of the plan: mapped, writable, EL2's own. The verifier proves it of every function;
        // of a stream that only an event names, `Unit::close` checks it.
        unsafe { place.write_volatile(value) };
    }
    #[inline(always)]
    fn fence(&self) {
        barrier::dsb(barrier::SY);
    }
    fn clock(&self) -> (u64, u64) {
        (console::now(), console::frequency())
    }
}

fn unit<'a>(view: &'a PciView<'_>) -> Unit<'a, Machine<'a>> {
    let plan = &view.record.smmu;
    Unit { plan, hardware: Machine(plan), state: &STATE }
}

/// What has broken the SMMU.
pub(crate) fn broken(view: &PciView<'_>) -> Broken {
    unit(view).broken()
}

fn accept(result: Result<(), Step>) -> bool {
    result.inspect_err(|what| defmt::error!("refused: the SMMU does not follow: {}", what)).is_ok()
}

/// From now on no device reaches anything, whatever a loader has set up. True without an SMMU; false where it does not
/// follow, which has been logged.
pub(crate) fn abort_all(view: &PciView<'_>) -> bool {
    let unit = unit(view);
    if unit.plan.registers_va == 0 {
        return true;
    }
    if unit.hardware.registers().probe(IDR0).is_none() {
        defmt::error!("refused: the SMMU does not follow: nothing at its address");
        return false;
    }
    accept(unit.abort_all())
}

/// Tables and queues as planned, then on; every stream aborts still. After [`abort_all`], before any guest. True without an SMMU; false
/// where it does not follow or is not the one planned for, which has been logged.
pub(crate) fn set_up(view: &PciView<'_>) -> bool {
    let unit = unit(view);
    if unit.plan.registers_va == 0 {
        return true;
    }
    let [idr0, idr1, idr5] = [IDR0, IDR1, IDR5].map(|register| unit.hardware.load(register));
    if let Some(what) = lacks(unit.plan, idr0, idr1, idr5) {
        defmt::error!(
            "refused: the SMMU lacks {}: IDR0 {=u32:#x} IDR1 {=u32:#x} IDR5 {=u32:#x}",
            what,
            idr0,
            idr1,
            idr5
        );
        return false;
    }
    accept(unit.set_up(view.functions).inspect_err(|_| defmt::error!("SMMU: broken: {}", unit.broken())))
}

/// The stream of `function` reaches its domain's RAM from now on, and the doorbell of its interrupts. False where the SMMU does not
/// follow: the stream aborts then. True for a function without a stream.
#[inline(never)]
pub(crate) fn attach(view: &PciView<'_>, function: &Function) -> bool {
    unit(view).attach(function)
}

/// The streams of `functions`, all of `domain`, abort, without events; when it answers, nothing of theirs is under way any more. False
/// where the SMMU does not say so in time: its table says abort, but the domain's memory must not change hands.
#[inline(never)]
pub(crate) fn detach(view: &PciView<'_>, functions: &[Function], domain: &Domain) -> bool {
    unit(view).detach(functions, domain.vttbr >> 48)
}

/// EL2's SPIs of the SMMU, each [`NO_INTID`] where there is none.
pub(crate) fn interrupts(view: Option<&PciView<'_>>) -> [IntId; 2] {
    view.map(|view| &view.record.smmu)
        .filter(|smmu| smmu.registers_va != 0)
        .map_or([NO_INTID; 2], |smmu| [smmu.event_intid, smmu.error_intid])
}

/// One of those has come: errors are logged, each event's stream is silenced and its domain ends as its policy for faults says.
/// On the housekeeping CPU alone, at most once through the queue.
#[inline(never)]
pub(crate) fn serve(cpu: &'static PerCpu, view: &PciView<'_>) {
    let unit = unit(view);
    let errors = unit.errors();
    if errors != 0 && cpu.log.permit().is_some() {
        defmt::warn!("SMMU: GERROR {=u32:#x}", errors);
    }
    let is_more = unit.events(|event| silence(cpu, view, event));
    // One that is ignored is off in the distributor.
    if is_more && let Some(intid) = event_line(unit.plan) {
        Distributor::new(cpu.plan().header.gicd_va).set_line(intid, true);
    }
}

fn event_line(smmu: &Smmu) -> Option<IntId> {
    Some(smmu.event_intid).filter(|intid| *intid != NO_INTID)
}

/// A stream that cannot be silenced may go on filling the queue; nobody is to be kept from running by it.
fn ignore(cpu: &'static PerCpu, smmu: &Smmu) {
    if let Some(intid) = event_line(smmu) {
        cpu.distributor.disable(intid);
    }
}

/// The first fault of a stream is its last: it aborts without events from now on (invariant I67).
fn silence(cpu: &'static PerCpu, view: &PciView<'_>, event: &Event) {
    let unit = unit(view);
    let mut known = streams(view.functions).filter(|function| function.stream == event.stream);
    let owned = known.next().and_then(|function| {
        let domain = cpu.plan().domains.get(usize::from(function.domain))?;
        Some((function, domain))
    });
    let Some((function, domain)) = owned else { return silence_unknown(cpu, view, event) };
    if unit.is_closed(function) {
        return;
    }
    let status = state_of(domain).status();
    if !detach(view, core::slice::from_ref(function), domain) {
        ignore(cpu, unit.plan);
        defmt::error!("the SMMU does not follow ({}): its events are ignored from now on", unit.broken());
    }
    cpu.log.last_words(true);
    defmt::error!(
        "domain {=str}, {=str} ({=u8:02x}:{=u8:02x}.{=u8}): {=str} {=u64:#x}, {=str}",
        text(&domain.name),
        text(&function.name),
        (function.rid >> 8) as u8,
        (function.rid >> 3) as u8 & 0x1F,
        function.rid as u8 & 7,
        event.did,
        event.address,
        event.why
    );
    park::ended_by_device(cpu, usize::from(function.domain), domain, status);
    cpu.log.last_words(false);
}

/// A device that the board does not describe, or that nobody has. It is silent from now on too.
fn silence_unknown(cpu: &'static PerCpu, view: &PciView<'_>, event: &Event) {
    let unit = unit(view);
    let closed = unit.close(event.stream);
    if unit.broken() != Broken::No {
        ignore(cpu, unit.plan);
    }
    if closed && cpu.log.permit().is_some() {
        defmt::warn!(
            "device {=u32:#x} of nobody: {=str} {=u64:#x}, {=str}",
            event.stream,
            event.did,
            event.address,
            event.why
        );
    }
}
