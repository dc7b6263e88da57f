//! The GICv2 distributor, held against IHI 0048 on a frame of plain memory.

use super::*;
use crate::vdev::dist::State;
use crate::vdev::fake::{self, Memory, Random};

/// Domain 0 has CPUs 0, 1 and 2, domain 1 CPUs 3 and 4, each with the CPU interface of its number.
const MPIDRS: &[&[u64]] = &[&[0x0, 0x1, 0x2], &[0x100, 0x101]];

/// Runs `run` as vCPU `vcpu` of domain `domain`, its distributor on or off. INTID n is domain 0's where n % 3 = 0, domain 1's
/// where n % 3 = 1.
fn as_vcpu(domain: usize, vcpu: usize, on: bool, run: impl FnOnce(&View<'_>, &Memory)) {
    let (state, memory) = (State::new(), Memory::new(FRAME_SIZE as usize, 0));
    fake::board(MPIDRS).with_gicv2().view(domain, &state, |view| {
        let view = View { vcpu, ..*view };
        if on {
            dist::access(&view, &&memory, Access { offset: 0, size: 4, write: Some(1) });
        }
        memory.writes();
        run(&view, &memory);
    });
}

fn read(view: &View<'_>, memory: &Memory, offset: u32, size: u8) -> Outcome {
    dist::access(view, &memory, Access { offset, size, write: None })
}

fn write(view: &View<'_>, memory: &Memory, offset: u32, size: u8, value: u64) -> Vec<(u32, u8, u64)> {
    memory.writes();
    dist::access(view, &memory, Access { offset, size, write: Some(value) });
    memory.writes()
}

#[test]
fn constants() {
    as_vcpu(0, 0, false, |v, m| {
        assert_eq!(read(v, m, 0x4, 4), Outcome::Handled(u64::from(v.domain.gicd_typer)));
        assert_eq!(read(v, m, 0x8, 4), Outcome::Handled(IIDR_VALUE));
        assert_eq!(read(v, m, 0xFE8, 4), Outcome::Handled(0x2B));
        assert_eq!(read(v, m, 0xFE8, 1), Outcome::Abort);
        // Groups, NSACR, SGI pending bits and what is not there.
        for reserved in [0xC, 0x40, 0x80, 0x84, 0xD00, 0xD04, 0xE00, 0xF00, 0xF10, 0xF20, 0xFD4] {
            assert_eq!(read(v, m, reserved, 4), Outcome::Handled(0), "{reserved:#x}");
            if reserved != 0xF00 {
                assert_eq!(write(v, m, reserved, 4, 0xFFFF_FFFF), [], "{reserved:#x}");
            }
        }
        assert_eq!(m.seen.borrow().len(), 0, "nothing of this comes from the hardware");
        for behind in [0x1000, 0x6100, 0xFFE8] {
            assert_eq!(read(v, m, behind, 4), Outcome::Abort);
        }
    });
}

#[test]
fn banked_words_hold_own_sgis_and_ppis() {
    for on in [false, true] {
        as_vcpu(0, 1, on, |v, m| {
            let own = u64::from(v.domain.owned[0]);
            for base in [0x100, 0x180, 0x200, 0x280, 0x300, 0x380] {
                assert_eq!(
                    write(v, m, base, 4, 0xFFFF_FFFF),
                    [(base, 4, own)],
                    "the kick and EL2's PPIs are not there"
                );
                m.set(base, 4, 0xFFFF_FFFF);
                assert_eq!(read(v, m, base, 4), Outcome::Handled(own));
                assert_eq!(read(v, m, base, 1), Outcome::Abort);
            }
            assert_eq!(write(v, m, 0x400 + 15, 1, 0), [], "priority of the kick");
            assert_eq!(write(v, m, 0x400 + 26, 1, 0), [], "priority of EL2's timer");
            assert_eq!(write(v, m, 0x400 + 27, 1, 0), [(0x41B, 1, 0x80)]);
            m.set(0xC04, 4, 0xFFFF_FFFF);
            assert_eq!(read(v, m, 0xC00, 4), Outcome::Handled(0x2AAA_AAAA));
            assert_eq!(read(v, m, 0xC04, 4), Outcome::Handled(3 << 22), "PPI 27");
            assert_eq!(write(v, m, 0xC04, 4, 0), []);
        });
    }
}

#[test]
fn the_switch_works_on_own_spis() {
    as_vcpu(0, 0, false, |v, m| {
        assert_eq!(read(v, m, 0x0, 4), Outcome::Handled(0));
        let own = u64::from(v.domain.owned[2]);
        assert_eq!(write(v, m, 0x108, 4, 0xFFFF_FFFF), [], "kept until it is on");
        assert_eq!(read(v, m, 0x108, 4), Outcome::Handled(own));
        assert!(write(v, m, 0x0, 4, 0xFFFF_FFFF).contains(&(0x108, 4, own)));
        assert_eq!(read(v, m, 0x0, 4), Outcome::Handled(1));
        m.set(0x108, 4, 0xFFFF_FFFF);
        assert!(write(v, m, 0x0, 4, 0).contains(&(0x188, 4, own)));
    });
}

#[test]
fn targets_are_vcpus_for_the_guest_and_interfaces_for_the_hardware() {
    as_vcpu(1, 1, true, |v, m| {
        // INTID 34 is domain 1's; its vCPUs 0 and 1 are CPU interfaces 3 and 4.
        for (list, targets) in [(0b01, 0b0_1000), (0b10, 0b1_0000), (0b11, 0b1_1000), (0xFC, 0), (0xFF, 0b1_1000)] {
            assert_eq!(write(v, m, 0x822, 1, list), [(0x822, 1, targets)]);
            assert_eq!(read(v, m, 0x822, 1), Outcome::Handled(list & 0b11));
        }
        assert_eq!(write(v, m, 0x820, 4, 0x0102_0304), [(0x822, 1, 0b1_0000)], "of four only the own one");
        m.set(0x820, 4, 0xFFFF_FFFF);
        assert_eq!(read(v, m, 0x820, 4), Outcome::Handled(0b11 << 16));
        assert_eq!(read(v, m, 0x800, 4), Outcome::Handled(0x0202_0202), "I am vCPU 1");
        assert_eq!(write(v, m, 0x800, 4, 0xFFFF_FFFF), []);
        for (offset, size) in [(0x821, 2), (0x821, 4), (0x820, 8)] {
            assert_eq!(read(v, m, offset, size), Outcome::Abort);
        }
    });
}

#[test]
fn sgis_reach_own_cpus() {
    let send = |domain, vcpu, value| {
        let mut sent = Vec::new();
        as_vcpu(domain, vcpu, true, |v, m| sent = write(v, m, 0xF00, 4, value));
        sent.into_iter().map(|(at, _, value)| (at == 0xF00).then_some(value).expect("SGIR")).collect::<Vec<_>>()
    };
    assert_eq!(send(0, 0, 0b010 << 16 | 5), [0b010 << 16 | 5]);
    assert_eq!(send(1, 0, 0b10 << 16 | 5), [0b1_0000 << 16 | 5], "vCPU 1 is CPU interface 4");
    assert_eq!(send(0, 0, 0xFF << 16 | 5), [0b111 << 16 | 5], "a list is cut to the domain");
    assert_eq!(send(1, 0, 0xFC << 16 | 5), [], "nothing is left");
    assert_eq!(send(0, 1, 1 << 24 | 0xFF << 16 | 5), [0b101 << 16 | 5], "all but oneself");
    assert_eq!(send(1, 1, 2 << 24 | 0xFF << 16 | 5), [0b1_0000 << 16 | 5], "oneself");
    assert_eq!(send(0, 0, 3 << 24 | 0xFF << 16 | 5), []);
    for filter in 0..4 {
        assert_eq!(send(0, 0, filter << 24 | 0xFF << 16 | u64::from(fake::KICK.0)), [], "the kick");
    }
    assert_eq!(send(0, 0, 0b1 << 16 | 1 << 15 | 5), [0b1 << 16 | 5], "NSATT is not for guests");
}

#[test]
fn the_kick_reaches_own_vcpus_only() {
    as_vcpu(1, 0, true, |v, _| {
        assert_eq!(kick(v, 0, fake::KICK), Some(0b1000 << 16 | 15));
        assert_eq!(kick(v, 2, fake::KICK), None);
        assert_eq!(kick(v, usize::MAX, fake::KICK), None);
    });
}

#[test]
fn no_access_touches_what_is_not_owned() {
    for domain in [0, 1] {
        as_vcpu(domain, 0, true, |v, m| {
            let own = |intid: u32| v.domain.owned[intid as usize / 32] >> (intid % 32) & 1 != 0;
            let cpus = if domain == 0 { 0b111 } else { 0b1_1000 };
            let mut random = Random::new(1 + domain as u64);
            for offset in 0..0x2000 {
                for size in [1u8, 2, 4, 8] {
                    let value = random.next() & (u64::MAX >> (64 - u32::from(size) * 8));
                    for (at, size, value) in write(v, m, offset, size, value) {
                        let word = at / 4 % 32;
                        match at {
                            0x100..0x400 => assert!(size == 4 && value as u32 & !v.domain.owned[word as usize] == 0),
                            0x400..0x800 => (0..u32::from(size)).for_each(|byte| {
                                assert!(own(at - 0x400 + byte) && value >> (byte * 8) & 0x80 != 0);
                            }),
                            0x820..0xC00 => assert!(size == 1 && own(at - 0x800) && value & !cpus == 0),
                            0xF00 => assert!(value >> 24 == 0 && value >> 16 & !cpus == 0 && own(value as u32 & 0xF)),
                            _ => panic!("{at:#x} by {size} is never written"),
                        }
                    }
                }
            }
        });
    }
}

#[test]
fn senders_are_vcpus() {
    as_vcpu(1, 0, true, |v, _| {
        assert_eq!((sender(v, 3), sender(v, 4)), (0, 1));
        assert_eq!((sender(v, 0), sender(v, 7), sender(v, 12)), (0, 0, 1), "a number has three bits");
        assert_eq!((sent_by(v, 0), sent_by(v, 1), sent_by(v, 2), sent_by(v, 255)), (8, 16, 0, 0));
    });
}
