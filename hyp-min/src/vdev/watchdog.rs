//! A domain's watchdog as it sees it: by calls, `WATCHDOG_FUNCTION` of the vendor's hypervisor range, with the commands that
//! the firmware watchdog of Linux' `arm,smc-wdt` binding knows; by registers, an SBSA Generic Watchdog.
//!
//! It runs from the domain's first instruction and cannot be stopped; a domain may only ask to be held to a shorter time
//! than the layout's.

use super::psci::{DENIED, INVALID_PARAMETERS, NOT_SUPPORTED};
use super::{Access, Outcome};

// Commands, in W1.
const INIT: u32 = 0;
const SET_TIMEOUT: u32 = 1;
const ENABLE: u32 = 2;
const PET: u32 = 3;
const GET_TIMELEFT: u32 = 4;

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// x0.
    Code(i64),
    /// Success, with x1 and x2.
    Values(u64, u64),
    /// Success, and the time begins again.
    Pat,
    /// The same, and from now on this many ms pass until the next pat is due.
    Hold(u32),
}

/// Decides one call of a domain whose layout allows `planned` ms (0: it has no watchdog), of which `left` are left. Times a
/// guest sees are whole seconds.
pub fn decide(command: u32, argument: u32, planned: u32, left: u64) -> Answer {
    let most = planned / 1000;
    match command {
        _ if planned == 0 => Answer::Code(NOT_SUPPORTED),
        PET => Answer::Pat,
        ENABLE if argument == 1 => Answer::Pat,
        ENABLE if argument == 0 => Answer::Code(DENIED),
        // A watchdog of less than a second can be patted, and nothing else.
        INIT | SET_TIMEOUT if most == 0 => Answer::Code(NOT_SUPPORTED),
        INIT => Answer::Values(1, most.into()),
        SET_TIMEOUT if (1..=most).contains(&argument) => Answer::Hold(argument * 1000),
        GET_TIMELEFT => Answer::Values(left / 1000, 0),
        _ => Answer::Code(INVALID_PARAMETERS),
    }
}

// Registers (BSA 1.0, DEN 0094, Generic Watchdog), by the doubleword they are in. The control frame, then the refresh frame.
const WCS: u32 = 0;
const WOR: u32 = 8;
const WCV: u32 = 0x10;
const IIDR: u32 = 0xFC8;
const REFRESH: u32 = 0x1000;
/// Bytes of both frames.
pub const FRAMES_SIZE: u64 = 0x2000;
/// WCS: enabled, first signal.
const EN: u64 = 1;
const WS0: u64 = 1 << 1;
/// W_IIDR, in the upper word: architecture revision 1, with an offset of 48 bits.
const REVISION_1: u64 = 1 << (32 + 16);
const WOR_BITS: u64 = 0xFFFF_FFFF_FFFF;

/// The watchdog at one moment, in ticks of the system counter.
#[derive(Clone, Copy)]
pub struct Watch {
    /// Now.
    pub now: u64,
    /// When the time is over.
    pub until: u64,
    /// From a pat until then, as the domain has asked: it may have asked for more than there is.
    pub every: u64,
    /// Most there is.
    pub most: u64,
    /// What the domain's own counter is behind.
    pub offset: u64,
}

impl Watch {
    /// What WOR holds: a pat is due after this time by the first signal, after twice of it by the second, which ends the run.
    fn stage(&self) -> u64 {
        self.every.min(self.most) / 2
    }

    /// Whether the first signal is there.
    pub fn is_late(&self) -> bool {
        self.now > self.until.saturating_sub(self.stage())
    }
}

/// One access to the frames: what it answers, whether it is a pat, and the new `every` where it chooses one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Touch {
    /// For the guest.
    pub outcome: Outcome,
    /// The time begins again.
    pub pats: bool,
    /// See [`Watch::every`].
    pub every: Option<u64>,
}

/// Decides one access. Words and doublewords are answered; what has no register reads as zero and ignores writes.
pub fn frames(access: Access, watch: &Watch) -> Touch {
    let nothing = Touch { outcome: Outcome::Abort, pats: false, every: None };
    let Access { offset, size, write } = access;
    if !matches!(size, 4 | 8) || !offset.is_multiple_of(size.into()) {
        return nothing;
    }
    let (register, shift) = (offset & !7, (offset & 4) * 8);
    if let Some(value) = write {
        let mut every = None;
        if register == WOR {
            let mask = (u64::MAX >> (64 - 8 * u32::from(size))) << shift;
            every = Some(((watch.every / 2) & !mask | (value << shift) & mask & WOR_BITS) * 2);
        }
        // WCS.EN cannot be cleared, and WCV only follows: whatever it were set to, the time would be another than planned.
        return Touch { outcome: Outcome::Handled(0), pats: matches!(offset, WCS | REFRESH) || every.is_some(), every };
    }
    let value = match register {
        WCS => EN | if watch.is_late() { WS0 } else { 0 },
        WOR => watch.stage(),
        WCV if watch.is_late() => watch.until.wrapping_sub(watch.offset),
        WCV => watch.until.wrapping_sub(watch.stage()).wrapping_sub(watch.offset),
        _ if register & !REFRESH == IIDR => REVISION_1,
        _ => 0,
    };
    Touch { outcome: Outcome::Handled(if size == 4 { value >> shift & 0xFFFF_FFFF } else { value }), ..nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_one_there_is_nothing_to_call() {
        for command in 0..8 {
            assert_eq!(decide(command, 1, 0, 0), Answer::Code(NOT_SUPPORTED));
        }
    }

    #[test]
    fn no_call_stops_it_or_makes_it_longer() {
        for command in (0..8).chain([u32::MAX]) {
            for argument in [0, 1, 2, 3, 4, 1000, 0x8000_0000, u32::MAX] {
                if let Answer::Hold(ms) = decide(command, argument, 2500, 700) {
                    assert!(ms > 0 && ms <= 2500, "{command} {argument}: {ms}");
                }
            }
        }
        assert_eq!(decide(ENABLE, 0, 2500, 0), Answer::Code(DENIED));
        assert_eq!(decide(SET_TIMEOUT, 3, 2500, 0), Answer::Code(INVALID_PARAMETERS));
        assert_eq!(decide(SET_TIMEOUT, 0, 2500, 0), Answer::Code(INVALID_PARAMETERS));
    }

    #[test]
    fn what_linux_asks() {
        assert_eq!(decide(INIT, 0, 2500, 0), Answer::Values(1, 2));
        assert_eq!(decide(SET_TIMEOUT, 2, 2500, 0), Answer::Hold(2000));
        assert_eq!(decide(ENABLE, 1, 2500, 0), Answer::Pat);
        assert_eq!(decide(PET, 0, 2500, 0), Answer::Pat);
        assert_eq!(decide(GET_TIMELEFT, 0, 2500, 1999), Answer::Values(1, 0));
    }

    #[test]
    fn one_of_less_than_a_second_can_be_patted() {
        assert_eq!(decide(PET, 0, 200, 0), Answer::Pat);
        assert_eq!(decide(INIT, 0, 200, 0), Answer::Code(NOT_SUPPORTED));
    }

    const MOST: u64 = 1_000_000;

    fn watch(now: u64, every: u64) -> Watch {
        Watch { now, until: 5_000_000 + every.min(MOST), every, most: MOST, offset: 1_000_000 }
    }

    fn read(offset: u32, size: u8, watch: &Watch) -> u64 {
        let touch = frames(Access { offset, size, write: None }, watch);
        assert!(!touch.pats && touch.every.is_none(), "reading does nothing");
        match touch.outcome {
            Outcome::Handled(value) => value,
            Outcome::Abort => panic!("{offset:#x} is there"),
        }
    }

    #[test]
    fn registers_read_as_a_generic_watchdog_does() {
        let early = watch(5_000_001, 600_000);
        assert_eq!(read(0, 4, &early), 1, "enabled");
        assert_eq!((read(8, 4, &early), read(12, 4, &early), read(8, 8, &early)), (300_000, 0, 300_000));
        assert_eq!(read(0x10, 8, &early), 4_300_000, "of its own counter");
        let late = watch(5_300_001, 600_000);
        assert_eq!((read(0, 4, &late), read(0x10, 8, &late)), (3, 4_600_000));
        for frame in [0, 0x1000] {
            assert_eq!((read(frame + 0xFCC, 4, &early), read(frame + 0xFC8, 4, &early)), (0x1_0000, 0));
        }
        for reserved in [4, 0x18, 0xFF8, 0x1000, 0x1008, 0x1010, 0x1FF8] {
            assert_eq!(read(reserved, 4, &early), 0, "{reserved:#x}");
        }
        assert_eq!(read(0x14, 4, &watch(0, 0)), 0);
    }

    #[test]
    fn an_offset_is_written_by_halves_and_held_to_what_the_layout_allows() {
        let mut watch = watch(5_000_000, MOST);
        let mut write = |offset, size, value| {
            let touch = frames(Access { offset, size, write: Some(value) }, &watch);
            assert!(touch.pats, "{offset:#x}");
            watch.every = touch.every.expect("chosen");
            read(8, 8, &watch)
        };
        assert_eq!(write(8, 8, 250_000), 250_000);
        assert_eq!(write(12, 4, u64::from(u32::MAX)), MOST / 2, "far more than there is");
        assert_eq!(write(8, 4, 1000), MOST / 2, "the upper half is still there");
        assert_eq!(write(12, 4, 0), 1000, "and nothing of the lower half was lost");
        assert_eq!(write(8, 8, u64::MAX), MOST / 2);
        assert_eq!(write(8, 8, 0), 0);
    }

    #[test]
    fn nothing_that_is_written_stops_it_or_makes_it_longer() {
        for offset in (0..0x2000).step_by(4) {
            for (size, value) in [(4, 0), (4, 1), (4, 0xFFFF_FFFF), (8, 0), (8, u64::MAX)] {
                let mut watch = watch(5_100_000, 600_000);
                let touch = frames(Access { offset, size, write: Some(value) }, &watch);
                watch.every = touch.every.unwrap_or(watch.every);
                assert!(watch.stage() * 2 <= MOST && read(0, 4, &watch) & 1 == 1);
                let known = matches!(offset, 0 | 8 | 12 | 0x1000) && (size == 4 || offset != 12);
                assert_eq!(touch.pats, known, "{offset:#x}");
            }
        }
        for (offset, size) in [(0, 1), (0, 2), (2, 4), (4, 8), (0x1001, 4), (8, 16)] {
            for write in [None, Some(1)] {
                let touch = frames(Access { offset, size, write }, &watch(0, 0));
                assert_eq!(touch, Touch { outcome: Outcome::Abort, pats: false, every: None });
            }
        }
    }
}
