//! The shared UART: the domains' rings out through the multiplexer, what is typed in to one domain.
//!
//! Nothing here waits: the multiplexer's lock is tried, the UART's FIFO asked. What does not go out now is looked at again
//! at the next byte or when this CPU's EL2 timer says so, so a flood costs the CPU that makes it.
#![allow(unsafe_code)] // the system counter

use crate::arch::aarch64::percpu::PerCpu;
use crate::arch::aarch64::registers::{mrs, trap_wfi};
use crate::deadline::Duty;
use crate::dev::pl011::Pl011;
use crate::state::{self, state_of};
use cofferdam_plan::{Domain, DomainFlags, Header, HeaderFlags, NO_INTID, Plan, UartKind};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use hyp_min::vdev::chord::{self, Key};
use hyp_min::vdev::console::{INPUT, Left, Mux, OUTPUT, PER_CALL, Sources};
use hyp_min::vdev::lock::FlagLock;
use hyp_min::vdev::ring::Ring;
use hyp_min::vdev::vuart::{Effect, Vuart};
use hyp_min::vdev::{Access, Outcome};

/// Asks for room in the UART before [`say_now`] gives up.
const POLLS: u32 = 100_000;
/// Bytes taken from the UART in one interrupt.
const TAKE: u32 = 32;

static MUX: FlagLock<Mux> = FlagLock::new(Mux::new(1_000_000));
/// The hypervisor's own lines; the lock makes their producer one.
static OWN: Ring<OUTPUT> = Ring::new();
static OWN_PRODUCER: FlagLock<()> = FlagLock::new(());
/// Bytes that may come in within a fiftieth of a second: twice what 115,200 baud carry. More wait in the UART, so that
/// nobody at the other end of the wire takes the CPU that serves it away from its guest (invariant I50).
const PACE: u32 = 512;
/// Start of the fiftieth of a second that is counted, and bytes in it. Written by the CPU that takes the UART's interrupt.
static WINDOW: AtomicU64 = AtomicU64::new(0);
static COUNTED: AtomicU32 = AtomicU32::new(0);
/// Nothing follows but the last line.
static ENDING: AtomicBool = AtomicBool::new(false);
/// Receive interrupts are stopped because the reader's input ring is full, and since when it is; 0: it is not.
static STOPPED: AtomicBool = AtomicBool::new(false);
static FULL_SINCE: AtomicU64 = AtomicU64::new(0);
/// Index of the domain that gets what is typed, and whether the byte before was the escape byte. Written by the CPU that
/// takes the UART's interrupt: no guest has a say in it.
static READER: AtomicUsize = AtomicUsize::new(usize::MAX);
static ARMED: AtomicBool = AtomicBool::new(false);
/// What the console must say where the log has a UART of its own.
static SAID: Ring<OUTPUT> = Ring::new();

/// The plan's rings.
struct Rings(&'static Plan<'static>);

impl Sources for Rings {
    #[inline(always)]
    fn domain(&self, index: usize) -> Option<&Ring<OUTPUT>> {
        let domain = self.0.domains.get(index)?;
        (domain.flags & DomainFlags::CONSOLE != 0).then(|| &state_of(domain).output)
    }

    fn name(&self, index: usize) -> &[u8] {
        name(self.0, index)
    }

    fn own(&self) -> Option<&Ring<OUTPUT>> {
        Some(if log_target(self.0).is_none() { &OWN } else { &SAID })
    }

    fn count(&self) -> usize {
        self.0.domains.len()
    }
}

/// The name of domain `index` without its padding.
fn name<'a>(plan: &'a Plan<'_>, index: usize) -> &'a [u8] {
    let name = plan.domains.get(index).map_or(&[][..], |domain| &domain.name);
    name.split(|byte| *byte == 0).next().unwrap_or(&[])
}

/// The system counter.
pub(crate) fn now() -> u64 {
    mrs!("cntpct_el0")
}

/// Its frequency in Hz.
pub(crate) fn frequency() -> u64 {
    mrs!("cntfrq_el0")
}

fn uart(plan: &Plan<'_>) -> Option<Pl011> {
    let header = plan.header;
    (header.console_kind == UartKind::PL011 && header.console_va != 0).then(|| Pl011::new(header.console_va))
}

/// Who gets what is typed, unless it has ended.
fn reader<'a>(plan: &'a Plan<'_>) -> Option<&'a Domain> {
    plan.domains.get(READER.load(Ordering::Relaxed)).filter(|domain| can_read(domain))
}

/// Whether what is typed can go to `domain`.
fn can_read(domain: &Domain) -> bool {
    let reads = domain.flags & (DomainFlags::CONSOLE | DomainFlags::OUTPUT_ONLY) == DomainFlags::CONSOLE;
    reads && !state_of(domain).is_over()
}

/// Boot CPU, before anything is said.
pub(crate) fn set_up(plan: &Plan<'_>) {
    // Without EL2's timer nobody looks again for a line that is not complete.
    let injected = |domain: &Domain| domain.flags & DomainFlags::INJECTED != 0;
    let timers = plan.header.flags & HeaderFlags::GROUP0 != 0
        || plan.header.flags & HeaderFlags::GICV2 != 0 && plan.domains.iter().all(injected);
    let hold = if timers { frequency() / 50 } else { 0 };
    MUX.with(|mux| mux.set_patience(frequency() / 50, hold));
    if let Some(uart) = uart(plan) {
        let reader = plan.domains.iter().position(|domain| domain.flags & DomainFlags::INPUT != 0);
        READER.store(reader.unwrap_or(usize::MAX), Ordering::Relaxed);
        uart.set_up(INPUT, |byte| typed(plan, byte));
        uart.listen(reader.is_some());
    }
    if let Some(log) = log_uart(plan) {
        log.set_up(0, |_| ());
    }
}

/// The UART that carries the log alone, where there is one.
fn log_uart(plan: &Plan<'_>) -> Option<Pl011> {
    let header = plan.header;
    (header.console_kind == UartKind::PL011 && header.log_va != 0).then(|| Pl011::new(header.log_va))
}

/// The same, until the last line: that is for the console.
fn log_target(plan: &Plan<'_>) -> Option<Pl011> {
    log_uart(plan).filter(|_| !ENDING.load(Ordering::Relaxed))
}

/// Says `text` without anything else working: no ring, no multiplexer.
pub(crate) fn say_now(header: &Header, text: &[u8]) {
    if header.console_kind == UartKind::PL011 && header.console_va != 0 {
        let uart = Pl011::new(header.console_va);
        uart.set_up(0, |_| ());
        text.iter().all(|byte| (0..POLLS).any(|_| uart.send(*byte)));
    }
}

/// Queues a whole line of the hypervisor's own. Answers whether it fits; with `keep_room` only half of the ring is to be
/// had, so that what guests cause as often as they like never takes the place of a domain's last record.
pub(crate) fn say(line: &[u8], keep_room: bool) -> bool {
    let most = if keep_room { OUTPUT / 2 } else { OUTPUT };
    OWN_PRODUCER.with(|()| OWN.push_within(line, most)) == Some(true)
}

/// The same with `text`, at most 24 bytes, and a number. Formats by itself: core's machinery is as large as a driver.
pub(crate) fn say_number(text: &[u8], number: u32, keep_room: bool) -> bool {
    let mut line = [0; 40];
    // From the end: that is how digits come.
    let mut free = line.as_mut_slice();
    let mut put = |byte| {
        if let Some((last, before)) = core::mem::take(&mut free).split_last_mut() {
            *last = byte;
            free = before;
        }
    };
    put(b'\n');
    let mut rest = number;
    loop {
        put(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    text.iter().rev().for_each(|byte| put(*byte));
    let start = free.len();
    line.get(start..).is_some_and(|line| say(line, keep_room))
}

/// Sends what can be sent now.
pub(crate) fn flush(plan: &'static Plan<'static>) {
    let cpu = PerCpu::current();
    let own = cpu.map_or(usize::MAX, |cpu| usize::from(cpu.id.0));
    let (left, staged) = MUX.ask(|mux| (Some(send(plan, mux)), mux.is_staged_for(own))).unwrap_or((None, true));
    wake_writers(plan);
    // Others' bytes are their CPUs' duty: nobody's output makes this one look again (invariant I75).
    let Some(cpu) = cpu else { return };
    if !staged && OWN.is_empty() && SAID.is_empty() && cpu.state.output.is_empty() {
        return look_again(cpu, u64::MAX);
    }
    let again = match left {
        Some(Left::Until(at)) => at,
        Some(Left::Room | Left::More) => soon(),
        Some(Left::Nothing) if MUX.take_asked() => soon(),
        Some(Left::Nothing) => u64::MAX,
        // Another CPU does it. It may belong to a guest that has silenced its FIQs: look again from here.
        None => soon(),
    };
    look_again(cpu, again);
}

/// Sends what both UARTs take now, within the bound of one call each.
#[inline(never)]
fn send(plan: &'static Plan<'static>, mux: &mut Mux) -> Left {
    let uart = uart(plan);
    let left = mux.drain(&Rings(plan), now(), &mut |byte| uart.is_none_or(|uart| uart.send(byte)));
    match log_target(plan) {
        Some(log) if !OWN.pour(PER_CALL, |byte| log.send(byte)) => Left::Room,
        _ => left,
    }
}

/// Has this CPU look for its output at counter value `at`, `u64::MAX` for never. While a guest has a GICv2's CPU interface
/// EL2's timer does not come: then the guest's WFI does.
fn look_again(cpu: &PerCpu, at: u64) {
    cpu.deadlines.set(Duty::Output, at);
    if cpu.gicv2.is_some() && !cpu.is_injected() {
        trap_wfi(at != u64::MAX || cpu.domain().flags & DomainFlags::TRAP_WFI != 0);
    }
}

/// Tells guests that have found their transmit FIFO full that it has room: their rings are half empty again.
fn wake_writers(plan: &Plan<'_>) {
    for domain in plan.domains.iter().filter(|domain| domain.flags & DomainFlags::CONSOLE != 0) {
        let state = state_of(domain);
        let due = state.output_was_full.load(Ordering::Relaxed) && state.output.len() <= OUTPUT / 2;
        if due && state.output_was_full.swap(false, Ordering::SeqCst) {
            state.vuart.ask(|vuart| refresh(plan, domain, vuart));
        }
    }
}

/// This CPU's EL2 timer has come: what of it is the console's.
pub(crate) fn timer(cpu: &'static PerCpu, now: u64) {
    // The CPU that takes the UART's interrupt has stopped it, and only that one has this duty.
    if cpu.deadlines.take(Duty::Input, now) {
        if STOPPED.load(Ordering::Relaxed) && is_patient(now) {
            cpu.deadlines.set(Duty::Input, now.saturating_add(frequency() / 50));
        } else {
            STOPPED.store(false, Ordering::SeqCst);
            uart(cpu.plan()).inspect(|uart| uart.listen(true));
        }
    }
    if cpu.deadlines.take(Duty::Output, now) {
        flush(cpu.plan());
    }
}

/// What the virtual UART wants done. Under its lock.
#[inline]
fn apply(plan: &Plan<'_>, domain: &Domain, effect: Effect) {
    if let Some(byte) = effect.send {
        state_of(domain).output.push(byte);
    }
    if effect.lost {
        state_of(domain).output.count_loss(1);
    }
    if let (Some(high), true) = (effect.line, domain.vuart_intid != NO_INTID && domain.vuart_intid.is_spi()) {
        crate::dev::gicv3::Distributor::new(plan.header.gicd_va).set_line(domain.vuart_intid, high);
    }
}

#[inline(never)]
fn refresh(plan: &Plan<'_>, domain: &Domain, vuart: &mut Vuart) {
    let state = state_of(domain);
    let effect = vuart.refresh(!state.output.is_full(), &state.input);
    apply(plan, domain, effect);
}

/// One guest access to its virtual UART. `None` where another CPU keeps the registers: one that drains, which may belong
/// to another domain. Nothing has happened then, and the guest is to try again.
#[inline(never)]
pub(crate) fn access(cpu: &PerCpu, access: Access) -> Option<Outcome> {
    let (plan, domain, state) = (cpu.plan(), cpu.domain(), cpu.state);
    let (outcome, changed) = state.vuart.with(|vuart| {
        let room = !state.output.is_full();
        if !room {
            state.output_was_full.store(true, Ordering::SeqCst);
        }
        let (outcome, effect) = vuart.access(access, room, &state.input);
        apply(plan, domain, effect);
        // After a full ring has been seen too: whoever drains may have looked for it just before.
        (outcome, effect.send.or((!room).then_some(b'\n')))
    })?;
    if state.vuart.take_asked() {
        state.vuart.ask(|vuart| refresh(plan, domain, vuart));
    }
    if let Some(byte) = changed {
        sent(cpu, byte);
    }
    if STOPPED.load(Ordering::Relaxed) && usize::from(cpu.id.0) == READER.load(Ordering::Relaxed) {
        resume(plan, domain);
    }
    Some(outcome)
}

/// A guest has written `byte`. The multiplexer is asked for whole lines and every 64 bytes; what is shorter waits a
/// millisecond for more, so that a guest that prints byte by byte does not pay for all of it with each.
fn sent(cpu: &PerCpu, byte: u8) {
    let plan = cpu.plan();
    let timer = plan.header.flags & HeaderFlags::GROUP0 != 0 || cpu.gicv2.is_some() && cpu.is_injected();
    let can_wait = timer && byte != b'\n';
    if !can_wait || cpu.state.output.len().is_multiple_of(PER_CALL) {
        flush(plan);
    } else if !cpu.deadlines.has(Duty::Output) {
        look_again(cpu, soon());
    }
}

/// A millisecond from now.
fn soon() -> u64 {
    now().saturating_add(frequency() / 1000)
}

/// Lets receive interrupts through again once the input ring of `domain`, which reads, has room.
fn resume(plan: &Plan<'_>, domain: &Domain) {
    if STOPPED.load(Ordering::Relaxed)
        && !state_of(domain).input.is_full()
        && STOPPED.swap(false, Ordering::SeqCst)
        && let Some(uart) = uart(plan)
    {
        uart.listen(true);
    }
}

/// Whether what has been typed may wait for its reader: for half a second, so that nobody who does not read keeps the
/// chord from being seen.
fn is_patient(now: u64) -> bool {
    now.wrapping_sub(FULL_SINCE.load(Ordering::Relaxed)) < frequency() / 2
}

/// A byte from the wire: for the reader (dropped where it has no room), or part of the chord that chooses another.
fn typed(plan: &Plan<'_>, byte: u8) {
    let mut armed = ARMED.load(Ordering::Relaxed);
    let key = chord::key(plan.header.console_escape, &mut armed, byte);
    ARMED.store(armed, Ordering::Relaxed);
    let can = |index: &usize| plan.domains.get(*index).is_some_and(can_read);
    let to = match key {
        Key::Nothing => return,
        Key::Byte(byte) => {
            reader(plan).inspect(|domain| _ = state_of(domain).input.push(byte));
            return;
        }
        Key::Next => chord::next(READER.load(Ordering::Relaxed), plan.domains.len(), |index| can(&index)),
        Key::Domain(index) => Some(index).filter(can),
    };
    READER.store(to.unwrap_or(usize::MAX), Ordering::Relaxed);
    let name = to.map_or(&b"nobody"[..], |index| name(plan, index));
    let mut line = [0; 64];
    let (text, mut len) = (b"[hyp] input goes to ".iter().chain(name).chain(b"\n"), 0);
    for (place, byte) in line.iter_mut().zip(text) {
        *place = *byte;
        len += 1;
    }
    let line = line.get(..len).unwrap_or(&[]);
    if log_target(plan).is_some() {
        SAID.push_within(line, OUTPUT);
    } else {
        say(line, true);
    }
}

/// The UART's interrupt: a bounded number of bytes to the domain that has the input.
pub(crate) fn receive(cpu: &'static PerCpu) {
    let plan = cpu.plan();
    let Some(uart) = uart(plan) else { return };
    let now = now();
    if now.wrapping_sub(WINDOW.load(Ordering::Relaxed)) > frequency() / 50 {
        WINDOW.store(now, Ordering::Relaxed);
        COUNTED.store(0, Ordering::Relaxed);
    }
    for _ in 0..TAKE {
        if COUNTED.load(Ordering::Relaxed) >= PACE {
            uart.listen(false);
            cpu.deadlines.set(Duty::Input, now.saturating_add(frequency() / 50));
            break;
        }
        match reader(plan).filter(|domain| state_of(domain).input.is_full()) {
            None => FULL_SINCE.store(0, Ordering::Relaxed),
            Some(domain) => {
                if FULL_SINCE.load(Ordering::Relaxed) == 0 {
                    FULL_SINCE.store(now.max(1), Ordering::Relaxed);
                }
                if is_patient(now) {
                    uart.listen(false);
                    STOPPED.store(true, Ordering::SeqCst);
                    cpu.deadlines.set(Duty::Input, now.saturating_add(frequency() / 50));
                    resume(plan, domain);
                    break;
                }
            }
        }
        // An interrupt without a byte counts as one.
        COUNTED.store(COUNTED.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let Some(byte) = uart.receive() else { break };
        let before = READER.load(Ordering::Relaxed);
        typed(plan, byte);
        if READER.load(Ordering::Relaxed) != before {
            tell(plan, plan.domains.get(before));
        }
    }
    tell(plan, reader(plan));
    if !OWN.is_empty() || !SAID.is_empty() {
        flush(plan);
    }
}

/// Has the virtual UART of `domain` look at its input.
fn tell(plan: &Plan<'_>, domain: Option<&Domain>) {
    if let Some(domain) = domain.filter(|domain| domain.flags & DomainFlags::CONSOLE != 0) {
        state_of(domain).vuart.ask(|vuart| refresh(plan, domain, vuart));
    }
}

/// The console of a domain that starts again: an open line ends, what was typed to the last run is gone, the virtual UART is
/// as after reset. False where another CPU keeps its registers.
pub(crate) fn start_anew(plan: &Plan<'_>, domain: &Domain, state: &state::DomainState) -> bool {
    let done = state.vuart.with(|vuart| {
        vuart.reset(&state.input);
        state.input.pour(INPUT, |_| true);
        if state.output.is_line_open() {
            state.output.push(b'\n');
        }
    });
    if done.is_some() && reader(plan).is_some_and(|reader| core::ptr::eq(reader, domain)) {
        resume(plan, domain);
    }
    done.is_some()
}

/// Everything out, as far as the UART takes it within two seconds. Nothing else runs any more.
pub(crate) fn drain(plan: &'static Plan<'static>) {
    let end = now().saturating_add(frequency() * 2);
    while now() < end {
        let left = MUX.with(|mux| {
            mux.release();
            send(plan, mux)
        });
        let busy = [uart(plan), log_uart(plan)].iter().flatten().any(Pl011::is_busy);
        if left == Some(Left::Nothing) && !busy {
            break;
        }
        cortex_a::asm::barrier::isb(cortex_a::asm::barrier::SY);
        core::hint::spin_loop();
    }
}

/// The last line before the power goes.
pub(crate) fn say_end() {
    crate::log::tell_losses(false);
    ENDING.store(true, Ordering::Relaxed);
    say_number(b"[hyp] end parked=", state::parked(), false);
}
