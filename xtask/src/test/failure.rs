//! EL2 fails while it serves an interrupt of its own, and goes on doing what that CPU owes other domains.
//!
//! No guest can bring such a failure about, so gdb does: where the interrupt has been acknowledged and not ended, the CPU is sent to
//! an address that EL2 does not map. That costs the CPU's own domain, and must cost nobody else. Likewise for what hardware may answer
//! and QEMU's does not: an access of EL2's that aborts.

use super::attach::{PATIENCE, until};
use super::tally::Tally;
use crate::guests;
use crate::repo;
use crate::setup;
use crate::trouble::Trouble;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, open};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

/// One session, builds included.
const LIMIT: Duration = Duration::from_secs(300);
/// Where EL2's interrupts are served, the acknowledged one being in W1.
const SERVED: &str = "cofferdam_hyp_min::arch::aarch64::traps::serve_taken";

/// The part `failure`.
pub(crate) fn run(tally: &mut Tally) -> Result<(), Trouble> {
    setup::gdb()?;
    let guest_dir = guests::attackers()?;
    for gic in ["", "gicv2-"] {
        tally.check(format_args!("EL2 fails in its timer, {gic}watchdog"), timer(gic, &guest_dir));
        tally.check(format_args!("EL2 fails in the console's interrupt, {gic}console"), console(gic, &guest_dir));
    }
    for access in ["probe_word", "probe_store"] {
        tally.check(format_args!("configuration space aborts, {access}"), configuration(access, &guest_dir));
    }
    Ok(())
}

/// A layout under gdb, one of whose CPUs fails. Killed, with its board, should the test end early.
struct Session {
    gdb: Child,
    dir: PathBuf,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Where it has ended there is nothing left to do.
        let _ = self.gdb.kill().and_then(|()| self.gdb.wait());
    }
}

impl Session {
    /// `domain`, whose vCPU 0 is gdb's `thread`, fails when it first serves `intid`.
    fn start(layout: &str, domain: &str, thread: u32, intid: u32, guest_dir: &Path) -> Result<Self, String> {
        let stop = format!("hbreak {SERVED} if $w1 == {intid} && $_thread == {thread}");
        Self::typed(layout, domain, &["continue", &stop, "continue", "delete", "set $pc = 0", "continue"], guest_dir)
    }

    /// `typed` is what gdb is told.
    fn typed(layout: &str, domain: &str, typed: &[&str], guest_dir: &Path) -> Result<Self, String> {
        let me = env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
        let dir = repo::target().join("gdb").join(format!("{layout}-{domain}"));
        // What an earlier session has left is not this one's.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let said = File::create(dir.join("said")).map_err(|error| error.to_string())?;
        let also = said.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new(me);
        command.current_dir(repo::root()).args(["gdb", domain, &format!("qemu/tests/{layout}.dts"), "--batch"]);
        command.arg("--guest-dir").arg(guest_dir);
        for typed in typed {
            command.args(["--ex", typed]);
        }
        command.stdin(Stdio::null()).stdout(said).stderr(also);
        let gdb = command.spawn().map_err(|error| format!("cannot start `gdb`: {error}"))?;
        Ok(Self { gdb, dir })
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).unwrap_or_default()
    }

    /// Waits until `file` has a line that contains `words`; the line.
    fn line(&self, file: &str, words: &str, limit: Duration) -> Result<String, String> {
        let end = Instant::now() + limit;
        loop {
            let text = self.read(file);
            if let Some(line) = text.lines().find(|line| line.contains(words)) {
                return Ok(line.into());
            }
            if Instant::now() > end {
                let (said, log) = (self.read("said"), self.read("hyp.log"));
                return Err(format!("no {words:?} in {file}; gdb said\n{said}\nthe log has\n{log}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The pty of `domain`.
    fn pty(&self, domain: &str) -> Result<OwnedFd, String> {
        let prefix = format!("{domain}: ");
        let line = self.line("consoles", &prefix, LIMIT)?;
        let path = line.strip_prefix(&prefix).unwrap_or_default();
        open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).map_err(|error| format!("{path}: {error}"))
    }

    /// Waits for the board's end. The log must have these in order.
    fn end(mut self, wanted: &[&str]) -> Result<(), String> {
        crate::exec::wait(&mut self.gdb, PATIENCE * 3).map_err(|error| error.to_string())?;
        let log = self.read("hyp.log");
        let mut lines = log.lines();
        for words in wanted {
            let found = lines.any(|line| line.contains(words));
            found.then_some(()).ok_or_else(|| format!("no {words:?} at its place in\n{log}{}", self.read("said")))?;
        }
        Ok(())
    }
}

/// EL2's timer, on a CPU that looks after another domain's watchdog: that domain still ends when it should.
fn timer(gic: &str, guest_dir: &Path) -> Result<(), String> {
    let session = Session::start(&format!("{gic}lifecycle-watchdog"), "victim", 1, 26, guest_dir)?;
    session.line("hyp.log", "in EL2", LIMIT)?;
    session.end(&[
        "exception 0 in EL2: pc 0x0",
        "parked domain 0 vcpu 0: Hypervisor",
        "restarted domain 1: its watchdog has expired",
        "parked domain 1: its watchdog has expired",
        "end parked=2",
    ])
}

/// The UART's interrupt, on the CPU that takes it: what is typed still comes to the other domain.
fn console(gic: &str, guest_dir: &Path) -> Result<(), String> {
    let session = Session::start(&format!("{gic}switch"), "two", 3, 33, guest_dir)?;
    let (one, two) = (session.pty("one")?, session.pty("two")?);
    let say = |to: &OwnedFd, text: &str| rustix::io::write(to, text.as_bytes()).map_err(|error| error.to_string());
    until(&one, "quit to leave\r\n")?;
    until(&two, "quit to leave\r\n")?;
    say(&two, "x\n")?;
    session.line("hyp.log", "parked domain 2 vcpu 0: Hypervisor", PATIENCE)?;
    say(&one, "hello\n")?;
    until(&one, "echo: HELLO")?;
    say(&one, "quit\n")?;
    session.end(&["exception 0 in EL2: pc 0x0", "end parked=1"])
}

/// What a guest reads or writes of a function's configuration space makes EL2's access abort, as host bridges may answer (invariant
/// I05); QEMU's never does, so gdb gives EL2 an address that is not mapped. The guest goes on behind its own access, at EL1.
fn configuration(access: &str, guest_dir: &Path) -> Result<(), String> {
    let stop = format!("hbreak {access} if $_thread == 2");
    let typed = [
        "continue",
        &stop,
        "continue",
        "delete",
        "set $behind = $ELR_EL2 + 4",
        "set $level = $SPSR_EL2 & 0xF",
        "set $x0 = 0",
        "thbreak *$behind",
        "continue",
        "printf \"came back: %d, level: %d of %d\\n\", $pc == $behind, $cpsr & 0xF, $level",
        "continue",
    ];
    let session = Session::typed("pci-every-dword", "attacker", &typed, guest_dir)?;
    session.line("said", "came back: 1, level: 5 of 5", LIMIT)?;
    session.end(&["end parked=0"])
}
