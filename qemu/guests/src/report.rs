//! One line per probe, one at the end: what the transcripts hold.

use crate::probe::{Fault, Outcome};
use core::fmt::Display;
use unikernel::println;

/// Counts and prints.
#[derive(Default)]
pub struct Report {
    ok: u32,
    failed: u32,
    quiet: bool,
}

impl Report {
    /// One that prints what fails, and nothing else.
    pub fn quiet() -> Self {
        Self { quiet: true, ..Self::default() }
    }

    /// A probe whose outcome is a yes or no; `got` is said when it is no.
    pub fn check(&mut self, what: &str, holds: bool, got: impl Display) {
        if holds {
            self.ok += 1;
            if !self.quiet {
                println!("ok {what}");
            }
        } else {
            self.failed += 1;
            println!("FAIL {what}: got {got}");
        }
    }

    /// A number that must be `want`.
    pub fn equal(&mut self, what: &str, got: u64, want: u64) {
        self.check(what, got == want, format_args!("{got:#x}, not {want:#x}"));
    }

    /// A probe that must give `want`.
    pub fn value(&mut self, what: &str, got: Outcome, want: u64) {
        match got {
            Ok(got) => self.equal(what, got, want),
            Err(fault) => self.check(what, false, fault),
        }
    }

    /// A probe that must be refused with an exception for which `holds` is true.
    pub fn fault(&mut self, what: &str, got: Outcome, holds: impl FnOnce(&Fault) -> bool) {
        match got {
            Ok(value) => self.check(what, false, format_args!("value {value:#x}")),
            Err(fault) => self.check(what, holds(&fault), fault),
        }
    }

    /// A data access that must end as a synchronous external abort at `address`.
    pub fn external(&mut self, what: &str, got: Outcome, address: u64) {
        self.fault(what, got, |fault| fault.is_external(address));
    }

    /// An instruction that must be undefined.
    pub fn undefined(&mut self, what: &str, got: Outcome) {
        self.fault(what, got, Fault::is_undefined);
    }

    /// The last line.
    pub fn end(&self) {
        println!("done: {} ok, {} failed", self.ok, self.failed);
    }
}
