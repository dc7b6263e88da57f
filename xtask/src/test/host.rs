//! Tests of the crates that run on the host, counted one by one from libtest's summaries.

use super::tally::Tally;
use crate::exec;
use crate::repo;
use crate::trouble::Trouble;
use std::env;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(1200);

/// `cargo test` of all default members.
pub(crate) fn run(tally: &mut Tally) -> Result<(), Trouble> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // hyplog is no default member, so that nobody waits for the defmt decoder; its tests count all the same.
    cargo.current_dir(repo::root()).args(["test", "--no-fail-fast", "--quiet"]);
    let output = exec::output(&mut cargo, LIMIT)?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let (mut passed, mut failed) = (0, 0);
    for line in stdout.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        passed += count(line, " passed");
        failed += count(line, " failed");
        if count(line, " ignored") != 0 {
            tally.check("host: no ignored tests", Err(line));
        }
    }
    if !output.status.success() {
        print!("{stdout}");
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        // A crate that does not compile has no summary.
        failed = failed.max(1);
    }
    tally.add("host", passed, failed);
    Ok(())
}

/// The number before `what` in a summary.
fn count(line: &str, what: &str) -> u64 {
    let before = line.split(what).next().filter(|before| before.len() < line.len());
    before.and_then(|before| before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn summaries() {
        let line = "ok. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!((count(line, " passed"), count(line, " failed"), count(line, " ignored")), (12, 3, 0));
        assert_eq!(count("ok", " passed"), 0);
    }
}
