//! An SMMU of arrays that does what it is told, or fails in one way: EL2 is done in a bounded number of accesses, and what it cannot
//! be sure of stays closed.

use super::*;
use cofferdam_plan::IntId;
use core::cell::{Cell, RefCell};
use std::collections::HashMap;
use zerocopy::FromZeros;

/// How it fails.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Never takes the update of GBPA, or drops it.
    Gbpa,
    Drops,
    /// Never acknowledges this register.
    Deaf(u32),
    /// Does not keep this one.
    Forgets(u32),
    /// Carries out so many commands, and no more.
    Stuck(usize),
    /// Stops at the command behind so many, with this reason.
    Error(usize, u32),
}

struct Fake {
    registers: RefCell<HashMap<u32, u64>>,
    table: RefCell<HashMap<u64, u64>>,
    queue: RefCell<HashMap<u64, Command>>,
    done: RefCell<Vec<Command>>,
    fault: Cell<Fault>,
    now: Cell<u64>,
    /// The counter moves so far whenever it is read.
    tick: u64,
    accesses: Cell<u64>,
}

/// 1 MHz: 10 ms are as many readings of the counter.
const FREQUENCY: u64 = 1_000_000;
/// More than any wait may take.
const MOST: u64 = 60_000;

impl Fake {
    fn new(fault: Fault) -> Self {
        Self {
            registers: RefCell::default(),
            table: RefCell::default(),
            queue: RefCell::default(),
            done: RefCell::default(),
            fault: Cell::new(fault),
            now: Cell::new(7),
            tick: 1,
            accesses: Cell::new(0),
        }
    }

    fn get(&self, register: u32) -> u64 {
        self.registers.borrow().get(&register).copied().unwrap_or(0)
    }

    fn set(&self, register: u32, value: u64) {
        self.registers.borrow_mut().insert(register, value);
    }

    fn consume(&self, end: u32) {
        let bits = queue_bits(self.get(CMDQ_BASE));
        let mut at = self.get(CMDQ_CONS) as u32 & index_mask(bits);
        while at != end && self.get(CR0) as u32 & CMDQEN != 0 {
            let done = self.done.borrow().len();
            match self.fault.get() {
                Fault::Stuck(most) if done >= most => return,
                Fault::Error(most, reason) if done >= most => {
                    self.set(GERROR, self.get(GERROR) ^ u64::from(CMDQ_ERR));
                    return self.set(CMDQ_CONS, u64::from(at | reason << 24));
                }
                _ => {}
            }
            let command = self.queue.borrow()[&entry(at, bits, 4)];
            self.done.borrow_mut().push(command);
            at = next(at, bits);
            self.set(CMDQ_CONS, at.into());
        }
    }
}

impl Hardware for &Fake {
    fn load(&self, register: u32) -> u32 {
        self.accesses.set(self.accesses.get() + 1);
        self.get(register) as u32
    }
    fn store(&self, register: u32, value: u32) {
        self.accesses.set(self.accesses.get() + 1);
        let fault = self.fault.get();
        match register {
            GBPA if fault == Fault::Gbpa => return self.set(GBPA, value.into()),
            GBPA if fault == Fault::Drops => return,
            GBPA => return self.set(GBPA, (value & !GBPA_UPDATE).into()),
            CR0 | IRQ_CTRL if fault != Fault::Deaf(register) => self.set(register + 4, value.into()),
            _ => {}
        }
        self.set(register, value.into());
        if register == CMDQ_PROD {
            self.consume(value);
        }
    }
    fn load64(&self, register: u32) -> u64 {
        self.get(register)
    }
    fn store64(&self, register: u32, value: u64) {
        if self.fault.get() != Fault::Forgets(register) {
            self.set(register, value);
        }
    }
    fn set_command(&self, offset: u64, command: Command) {
        self.queue.borrow_mut().insert(offset, command);
    }
    fn event(&self, offset: u64) -> [u64; 4] {
        [0x10 | (offset / 32) << 32, 0, 0x5000, 0]
    }
    fn word(&self, offset: u64) -> u64 {
        self.table.borrow().get(&offset).copied().unwrap_or(0)
    }
    fn set_word(&self, offset: u64, value: u64) {
        self.table.borrow_mut().insert(offset, value);
    }
    fn fence(&self) {}
    fn clock(&self) -> (u64, u64) {
        self.now.set(self.now.get() + self.tick);
        (self.now.get(), FREQUENCY)
    }
}

fn plan() -> Smmu {
    Smmu {
        stream_table_base: 1 << 62 | 0x4400_0000,
        command_base: 1 << 62 | 0x4401_0008,
        event_base: 0x4402_0003,
        stream_table_cfg: 6,
        stream_bits: 6,
        cr1: 0xD75,
        event_intid: IntId(106),
        error_intid: IntId(109),
        ..Smmu::new_zeroed()
    }
}

fn function(stream: u32) -> Function {
    let mut function = Function::new_zeroed();
    (function.stream, function.ste_offset) = (stream, stream * 64);
    function.ste = [0xD, 1 << 44, 1 | 1 << 58, 0x4500_0000];
    function
}

/// Runs `work` with the unit of a machine that fails so; what its functions' first doublewords say at the end.
fn with<R>(fake: &Fake, work: impl FnOnce(&Unit<'_, &Fake>) -> R) -> R {
    let (plan, state) = (plan(), State::new());
    work(&Unit { plan: &plan, hardware: fake, state: &state })
}

#[test]
fn a_sound_one_starts_opens_and_closes() {
    let fake = Fake::new(Fault::None);
    let functions = [function(5), function(8)];
    with(&fake, |unit| {
        assert_eq!(unit.abort_all().and_then(|()| unit.set_up(&functions)), Ok(()));
        assert_eq!(fake.done.take(), [CFGI_ALL, TLBI_NSNH_ALL, SYNC]);
        assert!(functions.iter().all(|function| unit.is_closed(function)));
        assert_eq!(fake.get(CR0) as u32, CMDQEN | EVENTQEN | SMMUEN | ATSCHK);
        assert!(unit.attach(&functions[0]));
        assert_eq!(fake.done.take(), [cfgi_ste(5), SYNC, cfgi_ste(5), SYNC]);
        assert_eq!([0, 8, 16, 24].map(|at| (&&fake).word(5 * 64 + at)), functions[0].ste);
        assert!(unit.detach(&functions, 2));
        assert_eq!(fake.done.take(), [cfgi_ste(5), SYNC, cfgi_ste(8), SYNC, tlbi_vmid(2), SYNC]);
        assert!(functions.iter().all(|function| unit.is_closed(function)));
        assert!(unit.close(9) && !unit.close(9) && !unit.close(64), "a stream of nobody, once; one beyond the table");
        assert_eq!((unit.broken(), unit.errors()), (Broken::No, 0));
        let none = Function::new_zeroed();
        assert!(unit.attach(&none) && unit.detach(core::slice::from_ref(&none), 2), "no stream, nothing to do");
    });
}

#[test]
fn one_that_does_not_start_is_refused_by_name() {
    let queue = Step::Commands;
    let cases = [
        (Fault::Gbpa, Step::GbpaAbort, Broken::No),
        (Fault::Drops, Step::GbpaAbort, Broken::No),
        (Fault::Deaf(CR0), Step::CommandsOn, Broken::No),
        (Fault::Deaf(IRQ_CTRL), Step::IrqCtrlOn, Broken::No),
        (Fault::Forgets(STRTAB_BASE), Step::Bases, Broken::No),
        (Fault::Forgets(CMDQ_BASE), Step::Bases, Broken::No),
        (Fault::Forgets(EVENTQ_BASE), Step::Bases, Broken::No),
        (Fault::Stuck(0), queue, Broken::CommandsStuck),
        (Fault::Stuck(2), queue, Broken::CommandsStuck),
        (Fault::Error(0, 1), queue, Broken::IllegalCommand),
        (Fault::Error(1, 2), queue, Broken::UnreadableCommand),
        (Fault::Error(2, 3), queue, Broken::DeviceSilent),
        (Fault::Error(0, 0), queue, Broken::CommandsStuck),
        (Fault::Error(0, 0x7F), queue, Broken::CommandsStuck),
    ];
    for (fault, what, why) in cases {
        let fake = Fake::new(fault);
        with(&fake, |unit| {
            assert_eq!(unit.abort_all().and_then(|()| unit.set_up(&[function(5)])), Err(what));
            assert_eq!(unit.broken(), why);
        });
        assert!(fake.accesses.get() < MOST, "{what:?}: {} accesses", fake.accesses.get());
        assert_eq!(fake.get(CR0) as u32 & SMMUEN, 0, "{what:?}");
    }
    // What a loader has left on does not go off.
    let fake = Fake::new(Fault::Deaf(CR0));
    fake.set(CR0 + 4, 1);
    assert_eq!(with(&fake, |unit| unit.abort_all()), Err(Step::Cr0));
    let fake = Fake::new(Fault::None);
    fake.set(GBPA, GBPA_UPDATE.into());
    assert_eq!(with(&fake, |unit| unit.abort_all()), Err(Step::Gbpa));
}

#[test]
fn one_that_breaks_is_waited_for_once_and_streams_stay_closed() {
    let functions = [function(5), function(8)];
    // Behind the three commands of its start: at the first of a stream's, at its SYNC, when it is open already.
    for most in 3..8 {
        for (fault, why) in [
            (Fault::Stuck(most), Broken::CommandsStuck),
            (Fault::Error(most, 1), Broken::IllegalCommand),
            (Fault::Error(most, 2), Broken::UnreadableCommand),
        ] {
            let fake = Fake::new(Fault::None);
            with(&fake, |unit| {
                assert_eq!(unit.abort_all().and_then(|()| unit.set_up(&functions)), Ok(()));
                fake.fault.set(fault);
                let opened = unit.attach(&functions[0]);
                assert_eq!(opened, most == 7);
                assert!(opened || unit.is_closed(&functions[0]));
                // Who comes later does not wait.
                let closed = unit.detach(&functions, 2);
                assert!(!closed && functions.iter().all(|function| unit.is_closed(function)));
                assert_eq!(unit.broken(), why);
                assert!(fake.accesses.get() < MOST);
                let before = fake.accesses.get();
                assert!(!unit.attach(&functions[1]) && !unit.detach(&functions, 2) && unit.close(9));
                assert!(functions.iter().all(|function| unit.is_closed(function)));
                assert_eq!(fake.accesses.get(), before, "not a register is touched");
            });
        }
    }
}

#[test]
fn a_counter_that_stands_still_ends_no_less() {
    let fake = Fake { tick: 0, ..Fake::new(Fault::Stuck(0)) };
    with(&fake, |unit| assert_eq!(unit.set_up(&[]), Err(Step::Commands)));
    assert!(fake.accesses.get() <= 4 * u64::from(POLLS));
}

#[test]
fn a_queue_that_nobody_lets_go_of_is_given_up_by_all() {
    let fake = Fake::new(Fault::None);
    with(&fake, |unit| {
        unit.state.commands.with(|()| {
            assert!(!unit.attach(&function(5)));
            let waited = fake.now.get();
            assert!(waited <= FREQUENCY / HOLDS_PER_SECOND + 100);
            assert!(!unit.detach(&[function(8)], 1) && unit.is_closed(&function(8)));
            assert!(fake.now.get() - waited < 10, "nobody waits any more");
        });
        assert_eq!(unit.broken(), Broken::QueueHeld);
    });
}

#[test]
fn errors_are_told_once_and_fatal_ones_break_it() {
    let fake = Fake::new(Fault::None);
    with(&fake, |unit| {
        fake.set(GERROR, 1 << 2);
        assert_eq!((unit.errors(), unit.errors(), unit.broken()), (1 << 2, 0, Broken::No));
        fake.set(GERROR, 1 << 2 | 1 << 8);
        assert_eq!((unit.errors(), unit.errors()), (1 << 8, 0));
        assert_eq!(unit.broken(), Broken::ServiceFailed);
        assert_eq!(fake.get(GERRORN), 1 << 2, "where it has stopped, it stays");
        assert!(!unit.attach(&function(5)));
    });
}

#[test]
fn events_are_taken_once_through_the_queue_and_an_overflow_is_acknowledged() {
    let fake = Fake::new(Fault::None);
    let told = RefCell::new(Vec::new());
    with(&fake, |unit| {
        let take = || unit.events(|event| told.borrow_mut().push(event.stream));
        assert!(!take() && told.take().is_empty());
        // Three, then full and more.
        fake.set(EVENTQ_PROD, 3);
        assert!(!take());
        assert_eq!((told.take(), fake.get(EVENTQ_CONS)), (vec![0, 1, 2], 3));
        fake.set(EVENTQ_PROD, 11 | u64::from(OVERFLOW));
        assert!(!take());
        assert_eq!((told.take(), fake.get(EVENTQ_CONS)), (vec![3, 4, 5, 6, 7, 0, 1, 2], 11 | u64::from(OVERFLOW)));
        // A device that writes as fast as they are read.
        let more = unit.events(|event| {
            told.borrow_mut().push(event.stream);
            let end = fake.get(EVENTQ_PROD) as u32;
            fake.set(EVENTQ_PROD, (next(end, 3) | OVERFLOW).into());
        });
        assert!(!more && told.take().is_empty(), "it was empty");
        fake.set(EVENTQ_PROD, (next(11, 3) | OVERFLOW).into());
        let more = unit.events(|event| {
            told.borrow_mut().push(event.stream);
            let end = fake.get(EVENTQ_PROD) as u32 & index_mask(3);
            fake.set(EVENTQ_PROD, (next(end, 3) | OVERFLOW).into());
        });
        assert!(more && told.take().len() == 8, "others have their turn in between");
    });
}
