//! Two CPUs at one function, or a CPU and the function itself: each interleaving that matters, step by step; and the steps of its life.

use super::life::*;
use super::tests::*;
use super::*;
use crate::vdev::fake::Memory;
use core::cell::Cell;

/// Sees an access to `Between` at an offset, with what is written, if anything is. What it gives takes its place.
type Hook<'h> = dyn Fn(&Between<'_>, u32, Option<u64>) -> Option<u64> + 'h;

/// A function to which something happens between two accesses: `hook` sees each, before it reaches `memory`, with its number.
struct Between<'a> {
    memory: Memory,
    count: Cell<u32>,
    hook: &'a Hook<'a>,
}

impl<'a> Between<'a> {
    fn new(hook: &'a Hook<'a>) -> Self {
        let memory = Memory::new(CONFIG_SIZE as usize, 0);
        bytes(E1000E).into_iter().zip(0..).for_each(|(byte, at)| memory.set(at, 1, byte.into()));
        Self { memory, count: Cell::new(0), hook }
    }
}

impl Frame for &Between<'_> {
    fn read(&self, offset: u32, size: u8) -> u64 {
        self.count.set(self.count.get() + 1);
        (self.hook)(self, offset, None).unwrap_or_else(|| self.memory.get(offset, size))
    }
    fn write(&self, offset: u32, size: u8, value: u64) {
        self.count.set(self.count.get() + 1);
        self.memory.set(offset, size, (self.hook)(self, offset, Some(value)).unwrap_or(value));
    }
}

/// Another CPU has turned bus mastering on when it saw the function on still, and its store arrives behind the first that turns it off.
#[test]
fn a_bus_master_that_races_the_end_of_its_run_loses() {
    let late =
        |_: &Between<'_>, offset: u32, written: Option<u64>| (offset == COMMAND && written.is_some()).then_some(0x406);
    let first = |at: &Between<'_>, offset: u32, written: Option<u64>| {
        if at.count.get() == 1 { late(at, offset, written) } else { None }
    };
    let (function, rules, state, frame) = (function(ALL), rules(), State::new(), Between::new(&first));
    state.status.store(ON, Ordering::Relaxed);
    let device = Device { function: &function, rules: &rules, dwords: &dwords(&rules), state: &state, frame: &frame };
    device.end(0);
    device.rest();
    assert_eq!(frame.memory.get(COMMAND, 2), 0x400);
}

/// The run ends, or a reset begins, while a bus master is being turned on: who does that turns it off again.
#[test]
fn a_bus_master_that_is_late_turns_itself_off() {
    for status in [OFF, RESETTING, RESTORING] {
        let (function, rules, state) = (function(ALL), rules(), State::new());
        state.status.store(ON, Ordering::Relaxed);
        let hook = |_: &Between<'_>, offset: u32, written: Option<u64>| {
            if offset == COMMAND && written.is_some() {
                state.status.store(status, Ordering::Relaxed);
            }
            None
        };
        let frame = Between::new(&hook);
        let device =
            Device { function: &function, rules: &rules, dwords: &dwords(&rules), state: &state, frame: &frame };
        device.write(Access { offset: COMMAND, size: 4, write: Some(6) }, 6, clock);
        assert_eq!(frame.memory.get(COMMAND, 2), 0x400, "{status}");
    }
}

/// A function that comes back from a reset in the middle of a write: nothing of the all ones it read before is written.
#[test]
fn a_write_that_races_a_reset_grants_nothing() {
    for missed in 0..8 {
        for (offset, mask) in [(COMMAND, IO_DECODE | BUS_MASTER), (0xE8, FLR)] {
            let hook = |at: &Between<'_>, _: u32, written: Option<u64>| {
                (written.is_none() && at.count.get() <= missed).then_some(u32::MAX.into())
            };
            let (function, rules, state, frame) = (function(ALL), rules(), State::new(), Between::new(&hook));
            frame.memory.set(0xE8, 4, 0x2810);
            state.status.store(ON, Ordering::Relaxed);
            let device =
                Device { function: &function, rules: &rules, dwords: &dwords(&rules), state: &state, frame: &frame };
            device.write(Access { offset, size: 1, write: Some(2) }, 2, clock);
            assert_eq!(frame.memory.get(offset, 4) as u32 & mask, 0, "{offset:#x}, {missed} reads missed");
        }
    }
}

#[test]
fn a_function_that_lost_its_addresses_has_them_before_it_decodes() {
    let bench = Bench::new(ALL, rules(), E1000E);
    (0..6).for_each(|n| bench.memory.set(BARS + 4 * n, 4, 0));
    bench.write(COMMAND, 4);
    bench.memory.writes();
    bench.write(COMMAND, 6);
    let placed =
        [(0x10, 4, 0x1040_0000), (0x14, 4, 0x1042_0000), (0x18, 4, 0), (0x1C, 4, 0x104A_0000), (COMMAND, 4, 0x406)];
    assert_eq!(bench.memory.writes()[..5], placed);
    // And not again while it decodes.
    bench.write(COMMAND, 2);
    assert_eq!(bench.memory.writes(), [(COMMAND, 4, 0x402)]);
}

/// Its registers are left alone while they may not answer: the reset does what the end would.
#[test]
fn one_that_ends_in_its_reset_is_not_touched() {
    let bench = Bench::new(ALL, rules(), E1000E);
    NOW.set(1000);
    bench.write(0xE8, FLR);
    bench.memory.writes();
    bench.memory.seen.borrow_mut().clear();
    bench.device().end(1099);
    bench.device().rest();
    assert!(bench.memory.seen.borrow().is_empty());
    // Nor while another of its CPUs asks whether that reset is over.
    bench.state.status.store(RESTORING, Ordering::Relaxed);
    bench.device().end(1099);
    bench.device().rest();
    assert!(bench.memory.seen.borrow().is_empty());
    // The next run waits that long, and then silences it.
    assert!(needs(&bench, Step::Rest, 1099) && !needs(&bench, Step::Rest, 1100));
    assert_eq!(bench.read(0), u32::MAX);
    // One whose time is over is silenced, by who is to and once.
    bench.device().begin();
    bench.write(0xE8, FLR);
    bench.memory.writes();
    bench.memory.seen.borrow_mut().clear();
    bench.device().end(1100);
    assert!(bench.memory.seen.borrow().is_empty());
    bench.device().rest();
    assert_eq!(bench.memory.writes(), [(COMMAND, 4, 0x400), (COMMAND, 4, 0x400)]);
    bench.device().rest();
    assert_eq!(bench.memory.writes(), []);
}

/// Each access may take a completion timeout.
#[test]
fn one_that_does_not_answer_is_not_waited_for_again() {
    let silent =
        |_: &Between<'_>, _: u32, written: Option<u64>| if written.is_none() { Some(u32::MAX.into()) } else { None };
    let (function, rules, state, frame) = (function(ALL), rules(), State::new(), Between::new(&silent));
    state.status.store(ON, Ordering::Relaxed);
    let device = Device { function: &function, rules: &rules, dwords: &dwords(&rules), state: &state, frame: &frame };
    device.end(0);
    assert_eq!(frame.count.get(), 0);
    device.rest();
    assert_eq!(frame.count.get(), 2);
}

#[test]
fn one_that_does_not_come_back_is_given_up_once() {
    let bench = Bench::new(ALL, rules(), E1000E);
    NOW.set(0);
    bench.write(0xE8, FLR);
    bench.memory.set(ID, 4, NOT_READY.into());
    for (now, lost) in [(100, false), (999, false), (1000, true), (2000, false)] {
        NOW.set(now);
        let found = Mismatch { offset: ID, found: NOT_READY, planned: 0x10D3_8086 };
        assert_eq!(bench.device().come_back(clock), Err(lost.then_some(found)), "{now}");
    }
    // Not even when it answers at last.
    bench.memory.set(ID, 4, 0x10D3_8086);
    assert_eq!(bench.read(0), u32::MAX);
    bench.device().begin();
    assert_eq!(bench.read(0), 0x10D3_8086);
}

fn needs(bench: &Bench, step: Step, now: u64) -> bool {
    bench.device().prepare(step, None, now)
}

#[test]
fn one_that_sleeps_is_woken_before_it_is_reset() {
    let bench = Bench::new(ALL, rules(), E1000E);
    let settles = || needs(&bench, Step::Settle, 0);
    let silent = (COMMAND, 4, 0x400);
    bench.memory.set(0xCC, 4, 0x810B);
    assert!(settles());
    assert_eq!(bench.memory.writes(), [silent, (0xCC, 4, 0x0108)]);
    // Requests without an answer hold a reset off.
    assert!(!settles());
    bench.memory.set(0xE8, 4, PENDING.into());
    assert!(settles());
    assert_eq!(bench.memory.writes(), [silent; 2]);
    // Nothing of the plan's is done to another function, nor to one that does not answer.
    bench.memory.set(0xCC, 4, 0x810B);
    for id in [u32::MAX, NOT_READY, 0x10D3_8087] {
        bench.memory.set(ID, 4, id.into());
        assert!(!settles() && !needs(&bench, Step::Reset, 0));
        assert_eq!(bench.memory.writes(), [silent]);
    }
    for (id, absent) in [(u32::MAX, true), (NOT_READY, true), (0x10D3_8086, false), (0x10D3_8087, false)] {
        bench.memory.set(ID, 4, id.into());
        assert_eq!(needs(&bench, Step::Answer, 0), absent);
    }
}

#[test]
fn a_bus_is_held_and_let_go_for_what_is_reset_by_it_alone() {
    let port = Memory::new(CONFIG_SIZE as usize, 0xFF);
    let bench = Bench::new(FunctionFlags::DMA | FunctionFlags::BUS_RESET, rules(), E1000E);
    let step = |step| bench.device().prepare(step, Some(&&port), 0);
    assert!(step(Step::Hold) && port.get(0x3C, 4) == 1 << 22);
    assert!(step(Step::Release) && port.get(0x3C, 4) == 0);
    assert!(!step(Step::Reset));
    assert_eq!((bench.memory.writes(), port.writes().len()), (vec![], 2));
    let own = Bench::new(ALL, rules(), E1000E);
    assert!(!needs(&own, Step::Hold, 0) && !needs(&own, Step::Release, 0) && needs(&own, Step::Reset, 0));
    assert_eq!(own.memory.writes(), [(0xE8, 4, u64::from(FLR))]);
}

/// The ports above go by what firmware has agreed for all; a message longer than the function takes is malformed (2.2.2).
#[test]
fn payload_sizes_outlive_the_reset_of_a_bus() {
    let port = Memory::new(CONFIG_SIZE as usize, 0);
    let mut list = rules();
    list.retain(|rule| rule.kind != RuleKind::BAR);
    let bench = Bench::new(FunctionFlags::DMA | FunctionFlags::BUS_RESET, list, E1000E);
    bench.memory.set(0xE8, 4, 0x0008_395F);
    // What does not answer is not asked, and one that a guest has reset by its own registers tells nothing new.
    for (id, control) in [(u32::MAX, u32::MAX), (0x10D3_8086, 0x0008_395F), (0x10D3_8086, 0x0008_2810)] {
        bench.memory.set(ID, 4, id.into());
        bench.memory.set(0xE8, 4, control.into());
        bench.device().prepare(Step::Settle, Some(&&port), 0);
        bench.memory.seen.borrow_mut().clear();
        // A neighbour may have the bus held already.
        bench.device().prepare(Step::Hold, Some(&&port), 0);
        assert!(bench.memory.seen.borrow().is_empty());
    }
    bench.memory.set(0xE8, 4, 0x0009_2810);
    bench.memory.writes();
    // Memory keeps all it is given, so that its base addresses are not as planned.
    assert!(bench.device().place().is_err());
    assert_eq!(bench.memory.writes().first(), Some(&(0xE8, 4, 0x3850)));
}

/// Who has seen that a reset may be over asks nothing of the function where another has begun meanwhile.
#[test]
fn one_reset_is_not_taken_for_another() {
    let bench = Bench::new(ALL, rules(), E1000E);
    NOW.set(1000);
    bench.write(0xE8, FLR);
    bench.memory.seen.borrow_mut().clear();
    assert_eq!(bench.device().come_back(clock), Err(None));
    assert!(bench.memory.seen.borrow().is_empty());
    assert_eq!(bench.state.status.load(Ordering::Relaxed), RESETTING);
    NOW.set(1100);
    assert_eq!(bench.device().come_back(clock), Ok(()));
    // The second who asks finds it done, and does not undo what the guest has made of it.
    bench.write(COMMAND, 2);
    bench.memory.writes();
    assert_eq!(bench.device().come_back(clock), Err(None));
    assert_eq!(bench.memory.writes(), []);
}

/// A function in reset, and what is written to it meanwhile.
struct Deaf(Cell<u32>);
impl Frame for Deaf {
    fn read(&self, _: u32, _: u8) -> u64 {
        u64::from(u32::MAX)
    }
    fn write(&self, _: u32, _: u8, _: u64) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn what_does_not_answer_is_not_written() {
    let (function, rules, state, deaf) = (function(FunctionFlags::DMA), rules(), State::new(), Deaf(Cell::new(0)));
    state.status.store(ON, Ordering::Relaxed);
    let dwords = dwords(&rules);
    let device = Device { function: &function, rules: &rules, dwords: &dwords, state: &state, frame: deaf };
    for offset in (0..CONFIG_SIZE as u32).step_by(4) {
        device.write(Access { offset, size: 4, write: Some(0x6) }, 0x6, clock);
    }
    assert_eq!(device.frame.0.get(), 0);
}
