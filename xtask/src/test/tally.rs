//! Counts what passed and what failed, and says so as it happens.

use std::fmt::Display;

/// The count of one `cargo xtask test`.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: u64,
    failed: Vec<String>,
    failures: u64,
}

impl Tally {
    /// One test's outcome; an error is shown at once, indented.
    pub(crate) fn check(&mut self, name: impl Display, outcome: Result<(), impl Display>) {
        match outcome {
            Ok(()) => {
                println!("ok {name}");
                self.passed += 1;
            }
            Err(why) => {
                println!("FAILED {name}");
                why.to_string().lines().for_each(|line| println!("    {line}"));
                self.failures += 1;
                self.failed.push(name.to_string());
            }
        }
    }

    /// Outcomes counted by another runner, which has shown its own failures.
    pub(crate) fn add(&mut self, name: &str, passed: u64, failed: u64) {
        println!("{} {name}: {passed} passed, {failed} failed", if failed == 0 { "ok" } else { "FAILED" });
        self.passed += passed;
        self.failures += failed;
        if failed != 0 {
            self.failed.push(name.into());
        }
    }

    /// The last lines. The exit code.
    pub(crate) fn end(self) -> u8 {
        if !self.failed.is_empty() {
            println!("failed: {}", self.failed.join(", "));
        }
        println!("{} passed, {} failed", self.passed, self.failures);
        u8::from(self.failures != 0)
    }
}
