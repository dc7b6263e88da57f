//! List registers and the physical controller behind them, played by arrays: nothing is lost, nothing comes twice.

use super::frames::{distributor, redistributor};
use super::*;
use crate::vdev::dist::State;
use crate::vdev::fake::{self, Memory, Random};
use crate::vdev::redist::STRIDE;
use crate::vdev::{Access, Outcome};
use core::cell::{Cell, RefCell};

/// A CPU interface with `count` list registers, and the physical states of its interrupts. `V2`: of a GICv2.
struct Fake<const V2: bool = false> {
    lrs: RefCell<Vec<Entry>>,
    /// SGIs of a GICv2 with their sender in bits 12:10.
    pended: RefCell<Vec<u32>>,
    ended: RefCell<Vec<u32>>,
    held: Cell<Option<(u8, Until)>>,
    told: Cell<u32>,
}

impl<const V2: bool> Fake<V2> {
    fn new(count: usize) -> Self {
        Self {
            lrs: RefCell::new(vec![Entry::default(); count]),
            pended: RefCell::default(),
            ended: RefCell::default(),
            held: Cell::new(None),
            told: Cell::new(0),
        }
    }

    fn set(&self, n: usize, intid: u32, priority: u8, state: &str) {
        let (pending, active) = (state.contains('p'), state.contains('a'));
        self.lrs.borrow_mut()[n] = Entry { intid, priority, pending, active, source: 0 };
    }

    fn list(&self) -> Vec<(u32, &'static str)> {
        let name = |e: &Entry| match (e.pending, e.active) {
            (true, true) => "pa",
            (true, false) => "p",
            (false, true) => "a",
            (false, false) => "",
        };
        self.lrs.borrow().iter().filter(|e| e.pending || e.active).map(|e| (e.intid, name(e))).collect()
    }

    /// What has been made pending and ended since the last call.
    fn physical(&self) -> (Vec<u32>, Vec<u32>) {
        (self.pended.take(), self.ended.take())
    }
}

impl<const V2: bool> Interface for Fake<V2> {
    const BANKED: bool = V2;

    fn count(&self) -> usize {
        self.lrs.borrow().len()
    }
    fn empty(&self) -> u32 {
        let lrs = self.lrs.borrow();
        lrs.iter().enumerate().fold(0, |bits, (n, e)| bits | u32::from(!e.pending && !e.active) << n)
    }
    fn get(&self, n: usize) -> Entry {
        self.lrs.borrow()[n]
    }
    fn put(&self, n: usize, entry: Entry) {
        self.lrs.borrow_mut()[n] = entry;
    }
    fn pend(&self, entry: Entry) {
        let Entry { intid, source, .. } = entry;
        let is_it = |e: &Entry| (e.intid, e.source) == (intid, source) && e.pending;
        assert!(!self.lrs.borrow().iter().any(is_it), "{intid} is in a list register");
        self.pended.borrow_mut().push(intid | u32::from(source) << 10);
    }
    fn deactivate(&self, intid: u32) {
        self.ended.borrow_mut().push(intid);
    }
    fn hold(&self, priority: u8, until: Until) {
        self.held.set(Some((priority, until)));
    }
    fn recheck_elsewhere(&self) {
        self.told.set(self.told.get() + 1);
    }
}

const MPIDRS: &[&[u64]] = &[&[0x0, 0x1], &[0x2]];
/// SPIs of domain 0 (n % 3 = 0), by the fake board's triggers: level, edge, and the virtual UART's, level without a wire.
const LEVEL: u32 = 36;
const EDGE: u32 = 33;
const VUART: u32 = 48;

fn domain0(run: impl FnOnce(&View<'_>, &Fake, &Memory)) {
    let mut board = fake::board(MPIDRS);
    board.domains[0].vuart_intid = IntId(VUART);
    board.icfgr[0] = 2 << (2 * (EDGE - 32));
    board.icfgr[1] = 0;
    board.view(0, &State::new(), |view| run(view, &Fake::new(4), &Memory::new(STRIDE as usize, 0)));
}

/// The hardware's own condition (ICH_HCR_EL2.UIE, NPIE; 12.4.9): whether there is "room" at this moment.
fn is_told(lrs: &Fake, until: Until) -> bool {
    match until {
        Until::NonePending => lrs.list().iter().all(|(_, state)| *state != "p"),
        Until::AlmostEmpty => lrs.list().len() <= 1,
    }
}

#[test]
fn what_is_held_back_waits_for_the_guest_to_do_something() {
    // Whether the maintenance interrupt comes before the guest has run, with all list registers in `state`.
    let at_once = |count: usize, state: &str| {
        let lrs = Fake::new(count);
        (0..count).for_each(|n| lrs.set(n, 48 + n as u32, 0x80, state));
        domain0(|view, _, _| admit(view, &lrs, LEVEL, 0x80, 0));
        let (_, until) = lrs.held.get().expect("nothing is free");
        is_told(&lrs, until)
    };
    for state in ["p", "a", "pa"] {
        for count in LEAST as usize..=MOST {
            assert!(!at_once(count, state), "{count} list registers, {state}");
        }
    }
    assert!(at_once(LEAST as usize - 1, "a"), "why one is too few");
}

#[test]
fn what_finds_room_stays_active_for_the_hardware() {
    domain0(|v, f, _| {
        admit(v, f, 27, 0xA0, 0);
        admit(v, f, LEVEL, 0x80, 0);
        assert_eq!(f.list(), [(27, "p"), (LEVEL, "p")]);
        assert_eq!(f.physical(), (vec![], vec![]));
        assert_eq!(f.held.get(), None);
    });
}

#[test]
fn an_sgi_is_over_at_once_and_comes_once() {
    domain0(|v, f, _| {
        admit(v, f, 3, 0x10, 0);
        admit(v, f, 3, 0x10, 0);
        assert_eq!(f.list(), [(3, "p")]);
        assert_eq!(f.physical(), (vec![], vec![3, 3]));
        f.set(0, 3, 0x10, "a");
        admit(v, f, 3, 0x10, 0);
        assert_eq!(f.list(), [(3, "pa")], "a second one while the first is handled");
    });
}

#[test]
fn what_a_foreign_domain_has_ended_comes_again_in_one_place() {
    domain0(|v, f, _| {
        f.set(1, EDGE, 0x40, "a");
        f.set(2, LEVEL, 0x40, "a");
        f.set(3, 39, 0x40, "p");
        for intid in [EDGE, LEVEL, 39] {
            admit(v, f, intid, 0x40, 0);
        }
        assert_eq!(f.list(), [(EDGE, "a"), (LEVEL, "a"), (39, "p")]);
        assert_eq!(f.physical(), (vec![EDGE], vec![]), "both are active again; the edge waits behind that");
    });
}

#[test]
fn the_least_urgent_waits_outside() {
    domain0(|v, f, _| {
        for (n, (intid, priority)) in [(27, 0x20), (LEVEL, 0x80), (EDGE, 0xC0), (39, 0x40)].into_iter().enumerate() {
            f.set(n, intid, priority, "p");
        }
        admit(v, f, 42, 0x60, 0);
        assert_eq!(f.list(), [(27, "p"), (LEVEL, "p"), (42, "p"), (39, "p")]);
        assert_eq!(f.physical(), (vec![EDGE], vec![EDGE]), "an edge is remembered by the hardware");
        assert_eq!(f.held.get(), Some((0xC0, Until::NonePending)));
        admit(v, f, 45, 0x60, 0);
        assert_eq!(f.physical(), (vec![], vec![LEVEL]), "a level comes by itself");
        assert_eq!(f.held.get(), Some((0x80, Until::NonePending)));
        admit(v, f, VUART, 0x60, 0);
        assert_eq!(f.physical(), (vec![VUART], vec![VUART]), "among equals the one that came first stays");
        assert_eq!(f.list(), [(27, "p"), (45, "p"), (42, "p"), (39, "p")]);
    });
}

#[test]
fn what_the_guest_has_taken_is_never_thrown_out() {
    domain0(|v, f, _| {
        for n in 0..4 {
            f.set(n, 36 + 3 * n as u32, 0xF0, "a");
        }
        admit(v, f, 27, 0, 0);
        admit(v, f, 2, 0, 0);
        assert_eq!(f.list().len(), 4);
        assert_eq!(f.physical(), (vec![2], vec![27, 2]));
        assert_eq!(f.held.get(), Some((0, Until::AlmostEmpty)));
        assert!(!is_pending(f));
    });
}

#[test]
fn a_vcpu_that_stops_leaves_nothing_active() {
    domain0(|v, f, _| {
        f.set(0, 27, 0, "a");
        f.set(1, EDGE, 0, "p");
        f.set(2, 5, 0, "pa");
        f.set(3, 6, 0, "a");
        leave(v, f);
        assert_eq!(f.list(), []);
        assert_eq!(f.physical(), (vec![EDGE, 5], vec![27, EDGE]));
    });
}

#[test]
fn a_recheck_returns_what_is_disabled() {
    domain0(|v, f, _| {
        f.set(0, EDGE, 0, "p");
        f.set(1, LEVEL, 0, "a");
        f.set(2, 27, 0, "p");
        recheck(v, f, &|intid| intid == 27);
        assert_eq!(f.list(), [(LEVEL, "a"), (27, "p")]);
        assert_eq!(f.physical(), (vec![EDGE], vec![EDGE]));
    });
}

fn go<const V2: bool>(view: &View<'_>, f: &Fake<V2>, m: &Memory, offset: u32, write: Option<u64>) -> u64 {
    match distributor(view, &m, &m, f, Access { offset, size: 4, write }) {
        Outcome::Handled(value) => value,
        Outcome::Abort => panic!("{offset:#x} aborts"),
    }
}

const fn bit(intid: u32) -> u64 {
    1 << (intid % 32)
}

#[test]
fn states_are_the_guests_not_the_hardwares() {
    domain0(|v, f, m| {
        f.set(0, EDGE, 0, "p");
        f.set(1, LEVEL, 0, "a");
        m.set(0x304, 4, bit(EDGE) | bit(LEVEL) | bit(39));
        m.set(0x384, 4, bit(EDGE) | bit(LEVEL) | bit(39));
        m.set(0x204, 4, bit(LEVEL) | bit(34));
        for (offset, value) in
            [(0x204, bit(EDGE) | bit(LEVEL)), (0x304, bit(LEVEL) | bit(39)), (0x384, bit(LEVEL) | bit(39))]
        {
            assert_eq!(go(v, f, m, offset, None), value, "{offset:#x}");
        }
    });
}

#[test]
fn states_are_changed_in_the_list_registers() {
    domain0(|v, f, m| {
        go(v, f, m, 0, Some(2));
        f.told.set(0);
        f.set(0, EDGE, 0, "p");
        f.set(1, LEVEL, 0, "a");
        m.writes();
        go(v, f, m, 0x204, Some(bit(EDGE) | bit(LEVEL) | bit(34)));
        assert_eq!(m.writes(), [(0x204, 4, bit(LEVEL))], "what is pending is not made so again");
        go(v, f, m, 0x304, Some(u64::from(u32::MAX)));
        go(v, f, m, 0x384, Some(bit(EDGE) | bit(42)));
        assert_eq!((m.writes(), f.list().len(), f.physical()), (vec![], 2, (vec![], vec![])));
        go(v, f, m, 0x284, Some(bit(EDGE) | bit(LEVEL)));
        assert_eq!(m.writes(), [(0x284, 4, bit(EDGE) | bit(LEVEL))]);
        assert_eq!((f.list(), f.physical()), (vec![(LEVEL, "a")], (vec![], vec![EDGE])));
        go(v, f, m, 0x384, Some(bit(LEVEL)));
        assert_eq!((f.list(), f.physical()), (vec![], (vec![], vec![LEVEL])));
        assert_eq!(f.told.get(), 0);
    });
}

#[test]
fn a_disabled_interrupt_goes_back_from_here_and_from_elsewhere() {
    domain0(|v, f, m| {
        go(v, f, m, 0, Some(2));
        f.told.set(0);
        f.set(0, EDGE, 0, "p");
        f.set(1, LEVEL, 0, "a");
        m.set(0x304, 4, bit(EDGE) | bit(LEVEL));
        go(v, f, m, 0x184, Some(bit(EDGE) | bit(LEVEL)));
        assert_eq!((f.list(), f.physical()), (vec![(LEVEL, "a")], (vec![EDGE], vec![EDGE])));
        assert_eq!(f.told.get(), 0, "nobody else has one of them");
        m.set(0x304, 4, bit(39));
        go(v, f, m, 0x184, Some(bit(39)));
        assert_eq!(f.told.get(), 1);
        f.set(2, 42, 0, "p");
        m.set(0x104, 4, 0);
        go(v, f, m, 0, Some(0));
        assert_eq!((f.list(), f.told.get()), (vec![(LEVEL, "a")], 2), "the distributor is off");
    });
}

#[test]
fn private_states_of_this_vcpu_and_of_another() {
    domain0(|v, f, _| {
        let memories = [Memory::new(STRIDE as usize, 0), Memory::new(STRIDE as usize, 0)];
        let go =
            |offset: u32, write| redistributor(v, |vcpu| memories.get(vcpu), 1, f, Access { offset, size: 4, write });
        f.set(0, 27, 0, "p");
        f.set(1, 3, 0, "pa");
        memories[1].set(0x1_0300, 4, bit(27));
        memories[0].set(0x1_0300, 4, bit(27));
        assert_eq!(go(STRIDE + 0x1_0300, None), Outcome::Handled(bit(3)));
        assert_eq!(go(STRIDE + 0x1_0200, None), Outcome::Handled(bit(3) | bit(27)));
        assert_eq!(go(0x1_0300, None), Outcome::Handled(bit(27)), "another's list registers are out of reach");
        go(0x1_0380, Some(bit(27)));
        assert_eq!((memories[0].writes(), f.list().len()), (vec![], 2));
        go(STRIDE + 0x1_0280, Some(bit(3)));
        assert_eq!(f.list(), [(27, "p"), (3, "a")]);
        go(STRIDE + 0x1_0380, Some(bit(3)));
        assert_eq!((f.list(), f.physical()), (vec![(27, "p")], (vec![], vec![])));
        assert_eq!(f.told.get(), 0);
        go(0x1_0180, Some(bit(27)));
        assert_eq!((f.list(), f.told.get()), (vec![(27, "p")], 1), "that vCPU is told");
        go(STRIDE + 0x1_0180, Some(bit(27)));
        assert_eq!((f.list(), f.physical()), (vec![], (vec![], vec![27])));
        assert_eq!(go(2 * STRIDE + 0x1_0300, None), Outcome::Abort);
    });
}

fn domain0_v2(run: impl FnOnce(&View<'_>, &Fake<true>, &Memory)) {
    let mut board = fake::board(MPIDRS).with_gicv2();
    board.icfgr[0] = 0;
    board.view(0, &State::new(), |view| run(view, &Fake::new(4), &Memory::new(STRIDE as usize, 0)));
}

#[test]
fn an_sgi_of_another_sender_waits_active() {
    domain0_v2(|v, f, _| {
        admit(v, f, 3, 0x10, 0);
        assert_eq!(f.physical(), (vec![], vec![3]));
        admit(v, f, 3, 0x10, 1);
        assert_eq!(f.physical(), (vec![3 | 1 << 10], vec![]), "pending again, and not ended");
        assert_eq!(f.get(0).source, 0);
        admit(v, f, 3, 0x10, 0);
        assert_eq!(f.physical(), (vec![], vec![3]), "of the same sender it is the same");
        f.put(0, Entry { pending: false, active: true, ..f.get(0) });
        admit(v, f, 3, 0x10, 0);
        assert_eq!(f.list(), [(3, "pa")]);
        f.physical();
        // Whatever takes it out of its list register lets the other come.
        f.put(0, Entry { active: false, ..f.get(0) });
        recheck(v, f, &|_| false);
        assert_eq!((f.list(), f.physical()), (vec![], (vec![3], vec![3])));
        f.set(0, 3, 0, "a");
        leave(v, f);
        assert_eq!((f.list(), f.physical()), (vec![], (vec![], vec![3])));
    });
}

#[test]
fn banked_states_are_this_vcpus() {
    domain0_v2(|v, f, m| {
        f.set(0, 27, 0, "p");
        f.set(1, 3, 0, "pa");
        m.set(0x300, 4, bit(27) | bit(3));
        m.set(0x200, 4, bit(5));
        assert_eq!(go(v, f, m, 0x200, None), bit(27) | bit(3) | bit(5));
        assert_eq!(go(v, f, m, 0x300, None), bit(3));
        m.writes();
        go(v, f, m, 0x200, Some(0xFFFF_FFFF));
        assert_eq!(m.writes(), [], "the timer is pending, SGIs are not to be set");
        go(v, f, m, 0x280, Some(bit(3) | bit(27)));
        assert_eq!((f.list(), f.physical()), (vec![(3, "pa")], (vec![], vec![27])), "SGIs are not to be cleared");
        go(v, f, m, 0x380, Some(bit(3)));
        assert_eq!(f.list(), [(3, "p")]);
        go(v, f, m, 0x180, Some(bit(3)));
        assert_eq!((f.list(), f.physical()), (vec![], (vec![3], vec![3])));
        assert_eq!(f.told.get(), 0, "nobody else has them");
        f.set(0, 27, 0, "p");
        m.set(0x100, 4, 0);
        go(v, f, m, 0, Some(1));
        assert_eq!((f.list(), f.told.get()), (vec![], 1), "enables are asked of the distributor");
    });
}

/// Any sequence: every physical interrupt that was admitted is in exactly one list register or has been ended, each list
/// register holds another one, and only own bits reach the hardware.
#[test]
fn any_sequence_keeps_one_place_for_each() {
    domain0(|v, f, m| {
        let mut random = Random::new(5);
        let own: Vec<u32> = (0..96).filter(|n| v.domain.owns(IntId(*n))).collect();
        let mut active: Vec<u32> = vec![];
        go(v, f, m, 0, Some(2));
        for _ in 0..50_000 {
            let pick = random.next();
            match pick % 4 {
                0 => {
                    let intid = own[(pick >> 8) as usize % own.len()];
                    if !active.contains(&intid) {
                        active.extend((intid >= 16).then_some(intid));
                        admit(v, f, intid, (pick >> 32) as u8, 0);
                    }
                }
                1 => {
                    // The guest takes one, or ends one: HW = 1 ends the physical one too.
                    let n = (pick >> 8) as usize % 4;
                    let entry = f.get(n);
                    match (entry.pending, entry.active) {
                        (true, false) => f.put(n, Entry { pending: false, active: true, ..entry }),
                        (_, true) => {
                            f.put(n, Entry { active: false, ..entry });
                            f.ended.borrow_mut().extend(entry.is_physical().then_some(entry.intid));
                        }
                        _ => {}
                    }
                }
                2 => {
                    let write = (pick & 4 != 0).then_some(random.next() & 0xFFFF_FFFF);
                    go(v, f, m, (pick >> 8) as u32 % 0x100 * 4, write);
                }
                _ => recheck(v, f, &|intid| pick >> (intid % 64) & 1 != 0),
            }
            for intid in f.physical().1 {
                active.retain(|a| *a != intid);
            }
            let list = f.list();
            for (n, (intid, state)) in list.iter().enumerate() {
                assert!(list.iter().skip(n + 1).all(|other| other.0 != *intid), "{list:?}");
                assert!(*intid < 16 || active.contains(intid) && *state != "pa", "{list:?} {active:?}");
            }
            assert!(active.iter().all(|a| list.iter().any(|l| l.0 == *a)), "{list:?} {active:?}");
            for (at, size, value) in m.writes() {
                let (0x100..0x300, 4) = (at, size) else { panic!("{at:#x} by {size} is never written") };
                assert_eq!(value as u32 & !v.domain.owned[(at >> 2 & 31) as usize], 0);
            }
        }
    });
}
