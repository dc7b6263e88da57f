//! A domain's watchdog as it calls it: `WATCHDOG_FUNCTION` of the vendor's hypervisor range, with the commands that
//! the firmware watchdog of Linux' `arm,smc-wdt` binding knows.
//!
//! It runs from the domain's first instruction and cannot be stopped; a domain may only ask to be held to a shorter time
//! than the layout's.

use super::psci::{DENIED, INVALID_PARAMETERS, NOT_SUPPORTED};

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
    /// Success, and the time begins again: this many ms until the next pat, each time.
    Pat(u32),
}

/// Decides one call of a domain whose layout allows `planned` ms (0: it has no watchdog), that has asked to be held to
/// `chosen` ms, of which `left` are left. Times a guest sees are whole seconds.
pub fn decide(command: u32, argument: u32, planned: u32, chosen: u32, left: u64) -> Answer {
    let most = planned / 1000;
    match command {
        _ if planned == 0 => Answer::Code(NOT_SUPPORTED),
        PET => Answer::Pat(chosen),
        ENABLE if argument == 1 => Answer::Pat(chosen),
        ENABLE if argument == 0 => Answer::Code(DENIED),
        // A watchdog of less than a second can be patted, and nothing else.
        INIT | SET_TIMEOUT if most == 0 => Answer::Code(NOT_SUPPORTED),
        INIT => Answer::Values(1, most.into()),
        SET_TIMEOUT if (1..=most).contains(&argument) => Answer::Pat(argument * 1000),
        GET_TIMELEFT => Answer::Values(left / 1000, 0),
        _ => Answer::Code(INVALID_PARAMETERS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_one_there_is_nothing_to_call() {
        for command in 0..8 {
            assert_eq!(decide(command, 1, 0, 0, 0), Answer::Code(NOT_SUPPORTED));
        }
    }

    #[test]
    fn no_call_stops_it_or_makes_it_longer() {
        for command in (0..8).chain([u32::MAX]) {
            for argument in [0, 1, 2, 3, 4, 1000, 0x8000_0000, u32::MAX] {
                if let Answer::Pat(ms) = decide(command, argument, 2500, 1000, 700) {
                    assert!(ms > 0 && ms <= 2500, "{command} {argument}: {ms}");
                }
            }
        }
        assert_eq!(decide(ENABLE, 0, 2500, 2500, 0), Answer::Code(DENIED));
        assert_eq!(decide(SET_TIMEOUT, 3, 2500, 2500, 0), Answer::Code(INVALID_PARAMETERS));
        assert_eq!(decide(SET_TIMEOUT, 0, 2500, 2500, 0), Answer::Code(INVALID_PARAMETERS));
    }

    #[test]
    fn what_linux_asks() {
        assert_eq!(decide(INIT, 0, 2500, 2500, 0), Answer::Values(1, 2));
        assert_eq!(decide(SET_TIMEOUT, 2, 2500, 2500, 0), Answer::Pat(2000));
        assert_eq!(decide(ENABLE, 1, 2500, 2000, 0), Answer::Pat(2000));
        assert_eq!(decide(PET, 0, 2500, 2000, 0), Answer::Pat(2000));
        assert_eq!(decide(GET_TIMELEFT, 0, 2500, 2000, 1999), Answer::Values(1, 0));
    }

    #[test]
    fn one_of_less_than_a_second_can_be_patted() {
        assert_eq!(decide(PET, 0, 200, 200, 0), Answer::Pat(200));
        assert_eq!(decide(INIT, 0, 200, 200, 0), Answer::Code(NOT_SUPPORTED));
    }
}
