//! The distributor, held against IHI 0069 on a frame of plain memory.

use super::*;
use crate::vdev::fake::{self, Memory, Random};
use cofferdam_plan::IntId;

const MPIDRS: &[&[u64]] = &[&[0x0, 0x100, 0x1_0000_0001], &[0x2, 0x3]];

/// Runs `run` as domain 0 of two. INTID n is domain 0's where n % 3 = 0.
fn domain0(enabled: bool, run: impl FnOnce(&View<'_>, &Memory)) {
    let state = State::new();
    state.enabled.store(if enabled { ENABLE_GRP1A } else { 0 }, Relaxed);
    fake::board(MPIDRS).view(0, &state, |view| run(view, &Memory::new(FRAME_SIZE as usize, 0)));
}

fn read(view: &View<'_>, memory: &Memory, offset: u32, size: u8) -> Outcome {
    access(view, &memory, Access { offset, size, write: None })
}

fn write(view: &View<'_>, memory: &Memory, offset: u32, size: u8, value: u64) -> Vec<(u32, u8, u64)> {
    memory.writes();
    access(view, &memory, Access { offset, size, write: Some(value) });
    memory.writes()
}

#[test]
fn constants() {
    domain0(false, |v, m| {
        assert_eq!(read(v, m, 0x4, 4), Outcome::Handled(0x0378_0008));
        assert_eq!(read(v, m, 0x8, 4), Outcome::Handled(0x43B));
        assert_eq!(read(v, m, 0xFFE8, 4), Outcome::Handled(0x3B));
        assert_eq!(read(v, m, 0xFFE9, 4), Outcome::Abort);
        for reserved in [0xC, 0x10, 0x40, 0x48, 0x50, 0x58, 0xF00, 0xF10, 0xF20, 0xF80, 0x1200, 0x3000, 0x8000, 0xC000]
        {
            assert_eq!(read(v, m, reserved, 4), Outcome::Handled(0), "{reserved:#x}");
            assert_eq!(write(v, m, reserved, 4, u64::MAX >> 32), [], "{reserved:#x}");
        }
        assert_eq!(m.seen.borrow().len(), 0, "nothing of this comes from the hardware");
    });
}

#[test]
fn write_one_registers_forward_own_bits() {
    domain0(true, |v, m| {
        let own = u64::from(v.domain.owned[3]);
        for base in [0x100, 0x180, 0x200, 0x280, 0x300, 0x380] {
            assert_eq!(write(v, m, base + 12, 4, 0xFFFF_FFFF), [(base + 12, 4, own)]);
            assert_eq!(write(v, m, base + 12, 4, !own & 0xFFFF_FFFF), [], "foreign bits alone do nothing");
            assert_eq!(write(v, m, base, 4, 0xFFFF_FFFF), [], "word 0 is not the distributor's");
            m.set(base + 12, 4, 0xFFFF_FFFF);
            assert_eq!(read(v, m, base + 12, 4), Outcome::Handled(own));
            assert_eq!(read(v, m, base, 4), Outcome::Handled(0));
            for (offset, size) in [(base + 12, 1), (base + 12, 2), (base + 8, 8), (base + 13, 4), (base + 14, 2)] {
                assert_eq!(read(v, m, offset, size), Outcome::Abort);
            }
        }
    });
}

#[test]
fn groups_are_fixed() {
    domain0(true, |v, m| {
        assert_eq!(read(v, m, 0x84, 4), Outcome::Handled(u64::from(v.domain.owned[1])));
        assert_eq!(write(v, m, 0x84, 4, 0), []);
        assert_eq!(write(v, m, 0xD04, 4, 0xFFFF_FFFF), []);
    });
}

#[test]
fn priorities_stay_in_the_lower_half() {
    domain0(true, |v, m| {
        for p in 0..=255u64 {
            assert_eq!(write(v, m, 0x400 + 33, 1, p), [(0x421, 1, 0x80 | p >> 1)]);
            assert_eq!(read(v, m, 0x400 + 33, 1), Outcome::Handled(p & 0xFE));
        }
        // INTIDs 32 to 35: 33 is ours, one byte in four.
        m.set(0x420, 4, 0);
        assert_eq!(write(v, m, 0x420, 4, 0x4433_2211), [(0x421, 1, 0x91)]);
        assert_eq!(read(v, m, 0x420, 4), Outcome::Handled(0x2200));
        m.set(0x420, 4, 0xFFFF_FFFF);
        assert_eq!(read(v, m, 0x420, 4), Outcome::Handled(0xFE00), "foreign bytes read as zero");
        m.set(0x421, 1, 0x80);
        assert_eq!(read(v, m, 0x421, 1), Outcome::Handled(0), "reset");
        assert_eq!(write(v, m, 0x422, 1, 0), []);
        assert_eq!(write(v, m, 0x41B, 1, 0), [], "INTID 27 is the redistributor's");
        assert_eq!(read(v, m, 0x421, 2), Outcome::Abort);
        assert_eq!(read(v, m, 0x420, 8), Outcome::Abort);
    });
}

#[test]
fn a_word_of_own_priorities_is_one_write() {
    let mut board = fake::board(MPIDRS);
    board.domains[0].owned[2] = 0xF0;
    board.view(0, &State::new(), |v| {
        let m = Memory::new(FRAME_SIZE as usize, 0);
        assert_eq!(write(v, &m, 0x444, 4, 0xFF80_4000), [(0x444, 4, 0xFFC0_A080)]);
        assert_eq!(read(v, &m, 0x444, 4), Outcome::Handled(0xFE80_4000));
    });
}

#[test]
fn triggers_come_from_the_plan() {
    domain0(true, |v, m| {
        for register in 0..64 {
            let mut expected = 0;
            for intid in register * 16..register * 16 + 16 {
                if intid >= 32 && v.domain.owns(IntId(intid)) {
                    expected |= v.plan.icfgr[register as usize - 2] & 3 << (intid % 16 * 2);
                }
            }
            assert_eq!(read(v, m, 0xC00 + register * 4, 4), Outcome::Handled(u64::from(expected)));
            assert_eq!(write(v, m, 0xC00 + register * 4, 4, 0xFFFF_FFFF), []);
        }
        assert_eq!(fields(0b1000_0000_0000_0101), 0xC000_0033);
    });
}

#[test]
fn routes_are_translated_both_ways() {
    domain0(true, |v, m| {
        let at = 0x6000 + 33 * 8;
        assert_eq!(read(v, m, at, 8), Outcome::Handled(0), "reset route: vCPU 0");
        assert_eq!(write(v, m, at, 8, 2), [(at, 8, 0x1_0000_0001)]);
        assert_eq!(read(v, m, at, 8), Outcome::Handled(2));
        assert_eq!((read(v, m, at, 4), read(v, m, at + 4, 4)), (Outcome::Handled(2), Outcome::Handled(0)));
        assert_eq!(write(v, m, at, 4, 1), [(at, 8, 0x100)]);
        assert_eq!(write(v, m, at + 4, 4, 0), [], "Aff3 is zero already");
        assert_eq!(write(v, m, at + 4, 4, 1), []);
        for refused in [3, 1 << 31, 1 << 31 | 1, 0x100, 0x1_0000_0001, 1 << 40, u64::MAX] {
            assert_eq!(write(v, m, at, 8, refused), [], "{refused:#x}");
        }
        assert_eq!(write(v, m, at + 8, 8, 1), [], "INTID 34 is foreign");
        m.set(at + 8, 8, 0x3);
        assert_eq!(read(v, m, at + 8, 8), Outcome::Handled(0));
        assert_eq!(write(v, m, 0x6000 + 27 * 8, 8, 1), [], "PPIs have no route");
        for (offset, size) in [(at + 4, 8), (at + 1, 4), (at, 1), (at, 2)] {
            assert_eq!(read(v, m, offset, size), Outcome::Abort);
        }
    });
}

#[test]
fn an_off_distributor_keeps_the_enables_for_later() {
    domain0(false, |v, m| {
        let own = u64::from(v.domain.owned[1]);
        assert_eq!(read(v, m, 0, 4), Outcome::Handled(0x10), "reset");
        assert_eq!(write(v, m, 0x104, 4, 0xFFFF_FFFF), [], "off: nothing is enabled");
        assert_eq!(read(v, m, 0x104, 4), Outcome::Handled(own), "but remembered");
        assert_eq!(write(v, m, 0x184, 4, 1 << 1), []);
        let kept = own & !2;
        assert_eq!(read(v, m, 0x184, 4), Outcome::Handled(kept));
        assert_eq!(write(v, m, 0, 4, 1), [], "EnableGrp1 means nothing with ARE");
        assert_eq!(write(v, m, 0, 4, 0x13), [(0x104, 4, kept)]);
        assert_eq!(read(v, m, 0, 4), Outcome::Handled(0x12));
        assert_eq!(write(v, m, 0, 4, 0x12), [], "on twice is on");
        // The hardware's word holds foreign enables too.
        m.set(0x104, 4, 0xFFFF_FFFF);
        assert_eq!(write(v, m, 0, 4, 0), [(0x184, 4, own)]);
        assert_eq!(read(v, m, 0x104, 4), Outcome::Handled(own));
        assert_eq!(read(v, m, 0, 4), Outcome::Handled(0x10));
    });
}

/// Holds one hardware write against what the domain owns, independently of the code above.
fn check_write(view: &View<'_>, (offset, size, value): (u32, u8, u64)) {
    let owns = |intid: u32| (32..1020).contains(&intid) && view.domain.owns(IntId(intid));
    match (offset, size) {
        (0x100..0x400, 4) => {
            for bit in (0..32).filter(|bit| value >> bit & 1 != 0) {
                assert!(owns((offset & 0x7F) * 8 + bit), "{offset:#x} = {value:#x}");
            }
        }
        (0x400..0x7FC, 1 | 4) => {
            for byte in 0..u32::from(size) {
                assert!(owns(offset - 0x400 + byte), "{offset:#x} by {size}");
                assert!(value >> (byte * 8) & 0x80 != 0, "priority {value:#x} reaches EL2's half");
            }
        }
        (0x6000..0x8000, 8) => {
            assert!(owns((offset - 0x6000) / 8));
            assert!(view.vcpu(Mpidr(value)).is_some(), "route {value:#x}");
        }
        _ => panic!("{offset:#x} by {size} is never written"),
    }
}

#[test]
fn a_kernel_that_sets_up_the_whole_distributor_changes_its_own_spis_only() {
    domain0(false, |v, m| {
        let foreign = m.bytes.borrow().clone();
        write(v, m, 0, 4, 0);
        for word in 1..32 {
            for (base, value) in [(0x80, u64::from(u32::MAX)), (0x380, 0xFFFF_FFFF), (0x180, 0xFFFF_FFFF)] {
                access(v, &m, Access { offset: base + word * 4, size: 4, write: Some(value) });
            }
        }
        for at in (0xC08..0xD00).step_by(4) {
            access(v, &m, Access { offset: at, size: 4, write: Some(0) });
        }
        for at in (0x420..0x7FC).step_by(4) {
            access(v, &m, Access { offset: at, size: 4, write: Some(0xA0A0_A0A0) });
        }
        write(v, m, 0, 4, 0x13);
        for intid in 32..1020 {
            access(v, &m, Access { offset: 0x6000 + intid * 8, size: 8, write: Some(0) });
        }
        for intid in 32..1020u32 {
            let priority = m.get(0x400 + intid, 1);
            let own = v.domain.owns(IntId(intid));
            assert_eq!(priority, if own { 0xD0 } else { 0 }, "INTID {intid}");
        }
        assert_eq!(m.bytes.borrow()[0x80..0x100], foreign[0x80..0x100], "groups");
        assert_eq!(m.bytes.borrow()[0xC00..0x6000], foreign[0xC00..0x6000], "triggers and everything behind");
    });
}

#[test]
fn the_short_way_is_the_table() {
    domain0(true, |v, m| {
        let other = Memory::new(FRAME_SIZE as usize, 0x5A);
        m.bytes.borrow_mut().fill(0x5A);
        for offset in 4..0x800 {
            for size in [1, 2, 4, 8] {
                for write in [None, Some(0xFF), Some(0x8000_0001)] {
                    let request = Access { offset, size, write };
                    assert_eq!(access(v, &m, request), any(v, &&other, request), "{request:x?}");
                    assert_eq!(m.writes(), other.writes(), "{request:x?}");
                }
            }
        }
    });
}

#[test]
fn no_access_touches_what_is_not_owned() {
    let board = fake::board(MPIDRS);
    let values = [0, 1, 2, 0x80, 0x8000_0000, 0xFFFF_FFFF, 1 << 32, u64::MAX, 0x0123_4567_89AB_CDEF];
    for domain in 0..2 {
        let state = State::new();
        board.view(domain, &state, |view| {
            let memory = Memory::new(FRAME_SIZE as usize, 0xFF);
            for offset in 0..FRAME_SIZE {
                for size in [1u8, 2, 4, 8] {
                    for value in values {
                        let value = if size == 8 { value } else { value & ((1 << (size * 8)) - 1) };
                        access(view, &&memory, Access { offset, size, write: Some(value) });
                        memory.writes().into_iter().for_each(|write| check_write(view, write));
                    }
                }
            }
        });
    }
}

#[test]
fn no_read_shows_what_is_not_owned() {
    // Two frames that differ in everything that is not owned must read the same.
    let board = fake::board(MPIDRS);
    board.view(0, &State::new(), |view| {
        view.dist.enabled.store(ENABLE_GRP1A, Relaxed);
        let mut random = Random::new(1);
        let (left, right) = (Memory::new(FRAME_SIZE as usize, 0), Memory::new(FRAME_SIZE as usize, 0));
        for offset in 0..FRAME_SIZE {
            left.set(offset, 1, random.next() & 0xFF);
            right.set(offset, 1, random.next() & 0xFF);
        }
        for intid in (32..1020).filter(|i| view.domain.owns(IntId(*i))) {
            for base in [0x100, 0x180, 0x200, 0x280, 0x300, 0x380] {
                let (at, bit) = (base + intid / 32 * 4, 1 << (intid % 32));
                let value = right.get(at, 4) & !bit | left.get(at, 4) & bit;
                right.set(at, 4, value);
            }
            right.set(0x400 + intid, 1, left.get(0x400 + intid, 1));
            right.set(0x6000 + intid * 8, 8, left.get(0x6000 + intid * 8, 8));
        }
        for offset in 0..FRAME_SIZE {
            for size in [1, 2, 4, 8] {
                assert_eq!(read(view, &left, offset, size), read(view, &right, offset, size), "{offset:#x} by {size}");
            }
        }
    });
}
