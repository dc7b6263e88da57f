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
use crate::log::text;
use crate::state::state_of;
use cofferdam_plan::pci::{Function, Smmu};
use cofferdam_plan::{Domain, IntId, NO_INTID, PciView};
use cortex_a::asm::barrier;
use hyp_min::vdev::lock::FlagLock;
use hyp_min::vdev::smmu::{
    ABORT, CFGI_ALL, Command, Event, SYNC, TLBI_NSNH_ALL, cfgi_ste, decode, entry, index_mask, lacks, next, queue_bits,
    tlbi_vmid,
};

// Registers (6.3).
const IDR0: u32 = 0x00;
const IDR1: u32 = 0x04;
const IDR5: u32 = 0x14;
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
/// Event queue: OVFLG of EVENTQ_PROD, OVACKFLG of EVENTQ_CONS.
const OVERFLOW: u32 = 1 << 31;
/// Bits of the base registers that are no hint of how to reach the tables (STRTAB_BASE.RA, CMDQ_BASE.RA, EVENTQ_BASE.WA).
const BASE_BITS: u64 = !(1 << 62);
/// Bytes of a stream table entry as a power of two (5.2).
const STE_LOG2: u32 = 6;
/// Reads of a status before the hardware counts as broken.
const POLLS: u32 = 1_000_000;

/// Held by who writes the stream table or the command queue.
static COMMANDS: FlagLock<()> = FlagLock::new(());
/// Turns of trying for it. One is enough on a machine; under an emulator the holder's CPU may be put aside for a while, and who gives up
/// costs its domain a function.
const TURNS: u32 = 4000;

/// Runs `work` alone; `None` where nobody lets go in all these turns.
fn alone<R>(mut work: impl FnMut() -> R) -> Option<R> {
    (0..TURNS).find_map(|_| COMMANDS.with(|()| work()))
}

fn registers(smmu: &Smmu) -> Mmio {
    Mmio::new(smmu.registers_va)
}

fn settles(mut is_settled: impl FnMut() -> bool) -> bool {
    (0..POLLS).any(|_| {
        core::hint::spin_loop();
        is_settled()
    })
}

/// Writes a register that has an acknowledgement behind it, and waits for that.
fn follows(registers: &Mmio, register: u32, value: u32, mask: u32) -> bool {
    registers.store(register, value);
    settles(|| (registers.load(register + 4) ^ value) & mask == 0)
}

fn refuse(what: &str) -> bool {
    defmt::error!("refused: the SMMU does not follow: {=str}", what);
    false
}

/// From now on no device reaches anything, whatever a loader has set up. True without an SMMU; false where it does not
/// follow, which has been logged.
pub(crate) fn abort_all(view: &PciView<'_>) -> bool {
    let smmu = &view.record.smmu;
    if smmu.registers_va == 0 {
        return true;
    }
    let registers = registers(smmu);
    if registers.probe(IDR0).is_none() {
        return refuse("nothing at its address");
    }
    let is_updated = || settles(|| registers.load(GBPA) & GBPA_UPDATE == 0);
    if !is_updated() {
        return refuse("GBPA");
    }
    registers.store(GBPA, registers.load(GBPA) | GBPA_UPDATE | GBPA_ABORT);
    if !is_updated() || registers.load(GBPA) & GBPA_ABORT == 0 {
        return refuse("GBPA.ABORT");
    }
    if !follows(&registers, CR0, 0, u32::MAX) {
        return refuse("CR0 = 0");
    }
    true
}

/// Tables and queues as planned, then on; every stream aborts still. After [`abort_all`], before any guest. True without an SMMU; false
/// where it does not follow or is not the one planned for, which has been logged.
pub(crate) fn set_up(view: &PciView<'_>) -> bool {
    let smmu = &view.record.smmu;
    if smmu.registers_va == 0 {
        return true;
    }
    let registers = registers(smmu);
    let idr = [IDR0, IDR1, IDR5].map(|register| registers.load(register));
    let [idr0, idr1, idr5] = idr;
    if let Some(what) = lacks(smmu, idr0, idr1, idr5) {
        defmt::error!(
            "refused: the SMMU lacks {=str}: IDR0 {=u32:#x} IDR1 {=u32:#x} IDR5 {=u32:#x}",
            what,
            idr0,
            idr1,
            idr5
        );
        return false;
    }
    if !follows(&registers, IRQ_CTRL, 0, u32::MAX) {
        return refuse("IRQ_CTRL = 0");
    }
    registers.store(CR1, smmu.cr1);
    registers.store(CR2, PTM);
    registers.store(STRTAB_BASE_CFG, smmu.stream_table_cfg);
    let bases = [(STRTAB_BASE, smmu.stream_table_base), (CMDQ_BASE, smmu.command_base), (EVENTQ_BASE, smmu.event_base)];
    for (register, base) in bases {
        registers.store64(register, base);
    }
    if bases.iter().any(|(register, base)| (registers.load64(*register) ^ base) & BASE_BITS != 0) {
        return refuse("base of a table or queue");
    }
    for index in [CMDQ_PROD, CMDQ_CONS, EVENTQ_PROD, EVENTQ_CONS] {
        registers.store(index, 0);
    }
    // Its interrupts are wires, not messages.
    registers.store64(GERROR_IRQ_CFG0, 0);
    registers.store64(EVENTQ_IRQ_CFG0, 0);
    registers.store(GERRORN, registers.load(GERROR));
    for function in streams(view.functions) {
        write_entry(smmu, function, 0, ABORT);
    }
    if !follows(&registers, CR0, CMDQEN, CMDQEN) || !carry_out(smmu, [CFGI_ALL, TLBI_NSNH_ALL, SYNC].into_iter()) {
        return refuse("its command queue");
    }
    let enable = |intid, bit| if intid == NO_INTID { 0 } else { bit };
    let interrupts = enable(smmu.event_intid, EVENTQ_IRQEN) | enable(smmu.error_intid, GERROR_IRQEN);
    if !follows(&registers, IRQ_CTRL, interrupts, u32::MAX) {
        return refuse("IRQ_CTRL");
    }
    // ATSCHK is reserved where there is no ATS: IDR0 bit 10.
    let enables = CMDQEN | EVENTQEN | SMMUEN;
    let acknowledged = if idr0 & 1 << 10 == 0 { enables } else { enables | ATSCHK };
    follows(&registers, CR0, enables | ATSCHK, acknowledged) || refuse("SMMUEN")
}

fn streams(functions: &[Function]) -> impl Iterator<Item = &Function> {
    functions.iter().filter(|function| function.ste[0] & 1 != 0)
}

/// Writes doubleword `n` of a function's stream table entry: in one piece, as the SMMU reads it.
fn write_entry(smmu: &Smmu, function: &Function, n: u64, value: u64) {
    write_table(smmu, u64::from(function.ste_offset) + n * 8, value);
}

fn write_table(smmu: &Smmu, offset: u64, value: u64) {
    let place = (smmu.stream_table_va + offset) as usize as *mut u64;
    // SAFETY: inside the stream table of the plan: mapped, writable, EL2's own. The verifier proves it of every function;
    // of a stream that only an event names, `silence_unknown` checks it.
    unsafe { place.write_volatile(value) };
}

/// Doubleword 0 of the entry at byte `offset` of the table.
fn read_table(smmu: &Smmu, offset: u64) -> u64 {
    let place = (smmu.stream_table_va + offset) as usize as *const u64;
    // SAFETY: as in `write_table`.
    unsafe { place.read_volatile() }
}

/// Has the SMMU carry out `commands`, and waits. False where it does not within a bounded time, or still has not carried out
/// earlier ones. Under the lock, or while only one CPU runs.
fn carry_out(smmu: &Smmu, commands: impl Iterator<Item = Command>) -> bool {
    let (registers, bits) = (registers(smmu), queue_bits(smmu.command_base));
    let mask = index_mask(bits);
    let start = registers.load(CMDQ_PROD) & mask;
    if registers.load(CMDQ_CONS) & mask != start {
        return false;
    }
    let mut index = start;
    for (count, command) in (0u64..).zip(commands) {
        if count >= 1 << bits {
            return false;
        }
        let place = (smmu.commands_va + entry(index, bits, 4)) as usize as *mut Command;
        // SAFETY: inside the command queue of the plan, `entry` sees to that; the SMMU looks at it once CMDQ_PROD says so.
        unsafe { place.write_volatile(command) };
        index = next(index, bits);
    }
    barrier::dsb(barrier::SY);
    registers.store(CMDQ_PROD, index);
    let done = settles(|| registers.load(CMDQ_CONS) & mask == index);
    barrier::dsb(barrier::SY);
    done
}

/// The stream of `function` reaches its domain's RAM from now on, and the doorbell of its interrupts. False where the SMMU does not
/// follow: the stream aborts then. True for a function without a stream.
pub(crate) fn attach(view: &PciView<'_>, function: &Function) -> bool {
    let smmu = &view.record.smmu;
    let commands = || [cfgi_ste(function.stream), SYNC].into_iter();
    if function.ste[0] & 1 == 0 {
        return true;
    }
    // An entry that aborts is looked at no further, so the rest of it may change; then what makes it valid, in one piece (3.21.3).
    let attached = alone(|| {
        for (n, value) in (1..4).zip(&function.ste[1..]) {
            write_entry(smmu, function, n, *value);
        }
        if !carry_out(smmu, commands()) {
            return false;
        }
        write_entry(smmu, function, 0, function.ste[0]);
        let done = carry_out(smmu, commands());
        if !done {
            write_entry(smmu, function, 0, ABORT);
        }
        done
    });
    attached == Some(true)
}

/// The streams of `functions`, all of `domain`, abort, without events; when it answers, nothing of theirs is under way any more. False
/// where the SMMU does not say so in time: its table says abort, but the domain's memory must not change hands.
pub(crate) fn detach(view: &PciView<'_>, functions: &[Function], domain: &Domain) -> bool {
    let smmu = &view.record.smmu;
    if streams(functions).next().is_none() {
        return true;
    }
    for function in streams(functions) {
        write_entry(smmu, function, 0, ABORT);
    }
    let forgets = || streams(functions).map(|function| cfgi_ste(function.stream));
    // A CPU that holds the lock may be about to make one of them valid: what counts is written under it.
    let detached = alone(|| {
        for function in streams(functions) {
            write_entry(smmu, function, 0, ABORT);
        }
        carry_out(smmu, forgets().chain([tlbi_vmid(domain.vttbr >> 48), SYNC]))
    });
    detached == Some(true)
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
    let smmu = &view.record.smmu;
    let registers = registers(smmu);
    let error = registers.load(GERROR);
    if error != registers.load(GERRORN) {
        defmt::warn!("SMMU: GERROR {=u32:#x}, GERRORN {=u32:#x}", error, registers.load(GERRORN));
        registers.store(GERRORN, error);
    }
    let bits = queue_bits(smmu.event_base);
    let mut at = registers.load(EVENTQ_CONS) & index_mask(bits);
    for _ in 0..1u32 << bits {
        let end = registers.load(EVENTQ_PROD);
        if end & index_mask(bits) == at {
            break;
        }
        barrier::dsb(barrier::SY);
        let place = (smmu.events_va + entry(at, bits, 5)) as usize as *const [u64; 4];
        // SAFETY: inside the event queue of the plan, `entry` sees to that; the SMMU has written this one.
        let record = unsafe { place.read_volatile() };
        at = next(at, bits);
        registers.store(EVENTQ_CONS, at | end & OVERFLOW);
        silence(cpu, view, &decode(record));
    }
    let end = registers.load(EVENTQ_PROD);
    registers.store(EVENTQ_CONS, at | end & OVERFLOW);
    if end & index_mask(bits) != at {
        Distributor::new(cpu.plan().header.gicd_va).set_line(smmu.event_intid, true);
    }
}

/// The first fault of a stream is its last: it aborts without events from now on (invariant I67).
fn silence(cpu: &'static PerCpu, view: &PciView<'_>, event: &Event) {
    let smmu = &view.record.smmu;
    let mut known = streams(view.functions).filter(|function| function.stream == event.stream);
    let owned = known.next().and_then(|function| {
        let domain = cpu.plan().domains.get(usize::from(function.domain))?;
        Some((function, domain))
    });
    let Some((function, domain)) = owned else { return silence_unknown(cpu, smmu, event) };
    if read_table(smmu, function.ste_offset.into()) == ABORT {
        return;
    }
    let status = state_of(domain).status();
    if !detach(view, core::slice::from_ref(function), domain) {
        // It may go on filling the queue; nobody is to be kept from running by it.
        cpu.distributor.disable(smmu.event_intid);
        defmt::error!("the SMMU does not follow: its events are ignored from now on");
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

/// A device that the board does not describe, or that nobody has. Its entry, where the table has one level, makes it silent too.
fn silence_unknown(cpu: &'static PerCpu, smmu: &Smmu, event: &Event) {
    let (config, offset) = (smmu.stream_table_cfg, u64::from(event.stream) << STE_LOG2);
    // LOG2SIZE, and FMT: two levels are not searched.
    if config >> 16 & 3 == 0 && u64::from(event.stream) >> (config & 0x3F) == 0 {
        if read_table(smmu, offset) == ABORT {
            return;
        }
        write_table(smmu, offset, ABORT);
        COMMANDS.with(|()| carry_out(smmu, [cfgi_ste(event.stream), SYNC].into_iter()));
    }
    if cpu.log.permit().is_some() {
        defmt::warn!(
            "device {=u32:#x} of nobody: {=str} {=u64:#x}, {=str}",
            event.stream,
            event.did,
            event.address,
            event.why
        );
    }
}
