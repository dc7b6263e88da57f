//! What one CPU has to do later: a counter value per duty, one timer for all.
//!
//! EL2's physical timer is the CPU's own; its interrupt is Group 0. Without Group 0 nothing comes, and nobody has a duty.
#![allow(unsafe_code)] // EL2's timer

use crate::arch::aarch64::registers::msr;
use core::cell::Cell;

/// A duty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Look again for output that waits.
    Output,
    /// Listen to the console's UART again.
    Input,
    /// Stop waiting for the other CPUs of a domain that starts again.
    Restart,
    /// Look after the watchdogs of other domains.
    Watch,
}

/// The counter value of each duty; all ones where there is none.
pub(crate) struct Deadlines([Cell<u64>; 4]);

impl Deadlines {
    /// No duties.
    pub(crate) const fn new() -> Self {
        Self([const { Cell::new(u64::MAX) }; 4])
    }

    /// `duty` comes at counter value `at`, whatever was set before.
    pub(crate) fn set(&self, duty: Duty, at: u64) {
        if let Some(own) = self.0.get(duty as usize) {
            own.set(at);
        }
        self.arm();
    }

    /// Whether `duty` is still to come.
    pub(crate) fn has(&self, duty: Duty) -> bool {
        self.0.get(duty as usize).is_some_and(|at| at.get() != u64::MAX)
    }

    /// `duty` does not come.
    pub(crate) fn clear(&self, duty: Duty) {
        self.set(duty, u64::MAX);
    }

    /// Whether `duty` has come by `now`. It is over then.
    pub(crate) fn take(&self, duty: Duty, now: u64) -> bool {
        let due = self.0.get(duty as usize).is_some_and(|at| at.get() <= now);
        if due {
            self.clear(duty);
        }
        due
    }

    fn arm(&self) {
        let next = self.0.iter().map(Cell::get).min().unwrap_or(u64::MAX);
        // CNTHP_CTL_EL2: enabled, not masked; or off.
        if next != u64::MAX {
            msr!("cnthp_cval_el2", next);
        }
        msr!("cnthp_ctl_el2", u64::from(next != u64::MAX));
    }
}
