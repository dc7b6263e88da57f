//! `run --console`, `--pty` and `--log`, used as people and scripts use them, with two shells that answer.

use super::tally::Tally;
use crate::guests;
use crate::repo;
use crate::trouble::Trouble;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// For one answer, on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The part `attach`.
pub(crate) fn run(tally: &mut Tally) -> Result<(), Trouble> {
    let guest_dir = guests::attackers()?;
    let logs = repo::target().join("test/attach");
    tally.check("attach --console", console(&guest_dir));
    tally.check("attach --pty", ptys(&guest_dir));
    tally.check("attach --log", log(&guest_dir, &logs));
    Ok(())
}

/// `cargo xtask run` on the layout with two shells. Killed with its QEMU should the test end early.
struct Run {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Run {
    fn start(guest_dir: &Path, args: &[&str]) -> Result<Self, String> {
        let me = env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
        let layout = repo::root().join("qemu/tests/shells.dts");
        let mut command = Command::new(me);
        command.current_dir(repo::root()).arg("run").arg(layout).args(["--timeout", "60", "--guest-dir"]);
        command.arg(guest_dir).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("cannot start `run`: {error}"))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok(Self { child, stdin, stdout }),
            _ => Err("no pipes".into()),
        }
    }

    /// Its exit code, which must be 0.
    fn end(mut self) -> Result<(), String> {
        let status = crate::exec::wait(&mut self.child, PATIENCE).map_err(|error| error.to_string())?;
        match status.and_then(|status| status.code()) {
            Some(0) => Ok(()),
            other => Err(format!("exit code {other:?} instead of 0")),
        }
    }
}

/// Reads from `from` until what came ends with `end`; all of it.
pub(super) fn until(from: impl AsFd, end: &str) -> Result<String, String> {
    let (started, mut heard) = (Instant::now(), Vec::new());
    while !heard.ends_with(end.as_bytes()) {
        let left = PATIENCE.saturating_sub(started.elapsed());
        let wait = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = [PollFd::new(&from, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&wait)).map_err(|error| error.to_string())?;
        let mut byte = [0];
        match if ready == 0 { Ok(0) } else { rustix::io::read(&from, &mut byte) } {
            Ok(1) => heard.extend(byte),
            _ => return Err(format!("waited for {end:?}, heard {:?}", String::from_utf8_lossy(&heard))),
        }
    }
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

fn expect(from: impl AsFd, whole: &str) -> Result<(), String> {
    let heard = until(from, whole)?;
    if heard == whole { Ok(()) } else { Err(format!("wanted {whole:?}, heard {heard:?}")) }
}

/// A script on pipes: one domain's bytes, exactly, while others write; control characters and backslashes both ways.
fn console(guest_dir: &Path) -> Result<(), String> {
    let mut run = Run::start(guest_dir, &["--console", "blue"])?;
    let say = |stdin: &mut ChildStdin, text: &[u8]| {
        stdin.write_all(text).and_then(|()| stdin.flush()).map_err(|error| error.to_string())
    };
    until(&run.stdout, "> ")?;
    // Every byte but those the shell acts on; 0x0F begins the chord, and is a byte like any other here.
    say(&mut run.stdin, b"a\x01\x0f\x1b[A\\x41\\\x1d\xc3\xa9\xff\x7f\n")?;
    expect(&run.stdout, "a\x01\x0f\x1b[A\\x41\\\x1d\u{e9}")?;
    until(&run.stdout, "> ")?;
    say(&mut run.stdin, b"one\n")?;
    expect(&run.stdout, "one\r\nyou said one\r\n> ")?;
    // Nobody reads `red`: its `exit` has to come from elsewhere, so the run ends by its time limit or by us.
    say(&mut run.stdin, b"exit\n")?;
    expect(&run.stdout, "exit\r\n")?;
    run.child.kill().map_err(|error| error.to_string())?;
    run.child.wait().map_err(|error| error.to_string())?;
    Ok(())
}

/// Both shells at once, key by key in turns: each pty has its own domain's bytes and no others.
fn ptys(guest_dir: &Path) -> Result<(), String> {
    let mut run = Run::start(guest_dir, &["--pty"])?;
    let mut lines = BufReader::new(&mut run.stdout).lines().map_while(Result::ok);
    let mut pty = |domain: &str| -> Result<OwnedFd, String> {
        let line = lines.next().unwrap_or_default();
        let path = line.strip_prefix(&format!("{domain}: ")).ok_or_else(|| format!("no pty of {domain}: {line}"))?;
        open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).map_err(|error| format!("{path}: {error}"))
    };
    let (red, blue) = (pty("red")?, pty("blue")?);
    pty("pulse")?;
    let say = |to: &OwnedFd, text: &str| rustix::io::write(to, text.as_bytes()).map_err(|error| error.to_string());
    expect(&red, "> ")?;
    expect(&blue, "> ")?;
    for key in 'a'..='j' {
        let (key, other) = (key.to_string(), key.to_ascii_uppercase().to_string());
        say(&red, &key)?;
        say(&blue, &other)?;
        expect(&red, &key)?;
        expect(&blue, &other)?;
    }
    say(&red, "\n")?;
    say(&blue, "\n")?;
    expect(&red, "\r\nyou said abcdefghij\r\n> ")?;
    expect(&blue, "\r\nyou said ABCDEFGHIJ\r\n> ")?;
    say(&blue, "exit\n")?;
    say(&red, "exit\n")?;
    expect(&red, "exit\r\n")?;
    expect(&blue, "exit\r\n")?;
    run.end()
}

/// The files beside standard output.
fn log(guest_dir: &Path, dir: &Path) -> Result<(), String> {
    let mut run = Run::start(guest_dir, &["--log", &dir.display().to_string()])?;
    run.stdin.write_all(b"one\x1b\nexit\n\x0f1two\nexit\n").map_err(|error| error.to_string())?;
    let mut out = String::new();
    std::io::Read::read_to_string(&mut run.stdout, &mut out).map_err(|error| error.to_string())?;
    run.end()?;
    let wanted = [
        ("red.log", "> one\\x1B\nyou said one\\x1B\n> exit\n"),
        ("blue.log", "> two\nyou said two\n> exit\n"),
        ("hyp.log", "input goes to blue\nend parked=0\n"),
    ];
    for (file, text) in wanted {
        let got = std::fs::read_to_string(dir.join(file)).map_err(|error| format!("{file}: {error}"))?;
        if got != text {
            return Err(format!("{file}: wanted {text:?}, got {got:?}"));
        }
    }
    if !out.contains("[pulse] pulse: done\n") {
        return Err(format!("standard output lacks the domains' lines:\n{out}"));
    }
    Ok(())
}
