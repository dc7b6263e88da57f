//! Boot and attack scenarios: each layout in `qemu/tests` is run as a user would, and held against its transcript.
//!
//! At most two at a time: every scenario wants up to four vCPUs of time on what may be a two-core machine.

use super::dialogue::{Dialogue, Step};
use super::tally::Tally;
use super::transcript::{Actual, Expected};
use crate::guests;
use crate::qemu::WAITED;
use crate::repo;
use crate::trouble::Trouble;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use std::{env, thread};

/// More at once would starve the victims' clocks.
const AT_ONCE: usize = 2;

/// Runs of a scenario that failed while the build machine was too busy to give QEMU a processor.
const ATTEMPTS: u32 = 4;

/// Names of all scenarios, sorted.
pub(crate) fn names() -> Result<Vec<String>, Trouble> {
    let dir = repo::root().join("qemu/tests");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).map_err(Trouble::file(&dir, "list"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(".dts") {
            names.push(name.to_string());
        }
    }
    names.sort();
    Ok(names)
}

/// The part `attack`.
pub(crate) fn run_all(tally: &mut Tally) -> Result<(), Trouble> {
    run(&names()?, tally)
}

/// Runs `names`; each is one test.
pub(crate) fn run(names: &[String], tally: &mut Tally) -> Result<(), Trouble> {
    let guest_dir = guests::attackers()?;
    prepare()?;
    let queue = Mutex::new(names.iter());
    let tally = Mutex::new(tally);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(names.len()) {
            scope.spawn(|| {
                loop {
                    let Some(name) = queue.lock().ok().and_then(|mut queue| queue.next()) else { return };
                    let outcome = one(name, &guest_dir);
                    if let Ok(mut tally) = tally.lock() {
                        tally.check(format_args!("attack {name}"), outcome);
                    }
                }
            });
        }
    });
    Ok(())
}

/// Builds what every scenario needs, so that none of them spends its time limit on it.
fn prepare() -> Result<(), Trouble> {
    for pci in [false, true] {
        crate::hyp::Hypervisor::build(pci)?;
    }
    crate::decode::build()?;
    for example in ["pulse", "duet"] {
        crate::cross::build(crate::cross::UNIKERNEL, &crate::cross::Item::Example(example.into()))?;
    }
    Ok(())
}

/// The text of an `.expected` file.
fn transcript(name: &str) -> Result<String, String> {
    let file = repo::root().join("qemu/tests").join(name).with_extension("expected");
    fs::read_to_string(file).map_err(|error| format!("qemu/tests/{name}.expected: {error}"))
}

fn one(name: &str, guest_dir: &Path) -> Result<(), String> {
    let file = repo::root().join("qemu/tests").join(name);
    let mut text = transcript(name)?;
    if let Some(other) = text.lines().find_map(|line| line.strip_prefix("like: ")) {
        text = transcript(other.trim())?;
    }
    let mut expected = Expected::parse(&text).map_err(|error| format!("qemu/tests/{name}.expected: {error}"))?;
    // QEMU's own option syntax doubles commas.
    let shown = |path: &Path| path.display().to_string().replace(',', ",,");
    let image = repo::target().join("images").join(format!("{name}.Image"));
    for argument in &mut expected.qemu {
        *argument = argument.replace("{guests}", &shown(guest_dir)).replace("{image}", &shown(&image));
    }
    let args = ["--guest-dir".into(), guest_dir.display().to_string()];
    let log = repo::target().join("test").join(format!("{name}.log"));
    let mut attempt = 1;
    loop {
        let actual = xtask_run(&file.with_extension("dts"), &expected, &args)?;
        let report = expected.compare(&actual);
        keep(&log, &actual).map_err(|trouble| trouble.to_string())?;
        if report.is_empty() {
            return Ok(());
        }
        // A guest in real time cannot be on time where its machine was not given a processor. That is no finding.
        match actual.stderr.iter().find_map(|line| line.strip_prefix(WAITED)) {
            Some(waited) if attempt < ATTEMPTS && expected.compare(&punctual(&actual)).is_empty() => {
                eprintln!("attack {name}: again, because this machine kept QEMU waiting for a processor for {waited}");
            }
            Some(waited) if attempt == ATTEMPTS => {
                let busy =
                    format!("this machine kept QEMU waiting for a processor for {waited}, {ATTEMPTS} times in a row");
                return Err(format!("{report}{busy}\nwhole transcript: {}", repo::shown(&log)));
            }
            _ => return Err(format!("{report}whole transcript: {}", repo::shown(&log))),
        }
        attempt += 1;
    }
}

/// The same run with no tick missed: what is left to differ is no matter of time.
fn punctual(actual: &Actual) -> Actual {
    let on_time = |line: &String| match line.rsplit_once(" ticks, ") {
        Some((before, after)) if after.strip_suffix(" missed").is_some_and(|n| n.parse::<u32>().is_ok()) => {
            format!("{before} ticks, 0 missed")
        }
        _ => line.clone(),
    };
    Actual {
        exit: actual.exit,
        stdout: actual.stdout.iter().map(on_time).collect(),
        stderr: actual.stderr.clone(),
        unfinished: actual.unfinished.clone(),
    }
}

fn keep(log: &Path, actual: &Actual) -> Result<(), Trouble> {
    let text = format!(
        "== standard output\n{}\n== standard error\n{}\n== exit code\n{:?}\n",
        actual.stdout.join("\n"),
        actual.stderr.join("\n"),
        actual.exit
    );
    repo::write(log, text.as_bytes())
}

/// `cargo xtask run LAYOUT` as a user would type it, with what the scenario types on its console.
pub(crate) fn xtask_run(layout: &Path, expected: &Expected, args: &[String]) -> Result<Actual, String> {
    let me = env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
    let mut command = Command::new(me);
    command
        .current_dir(repo::root())
        .arg("run")
        .arg(layout)
        .args(["--timeout", &expected.timeout.to_string()])
        .args(args);
    if !expected.qemu.is_empty() {
        command.arg("--").args(&expected.qemu);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot start `run`: {error}"))?;
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err("no pipes".into());
    };
    let stderr = thread::spawn(move || lines(stderr));
    let steps = expected.steps.clone();
    let stdout = thread::spawn(move || talk(&steps, stdin, stdout));
    // `run` has the time limit itself; this one is for a `run` that hangs while building or ending.
    let limit = Duration::from_secs(expected.timeout + 120);
    let status = crate::exec::wait(&mut child, limit).map_err(|error| error.to_string())?;
    let (stdout, unfinished) = stdout.join().map_err(|_| "reading failed")?;
    let stderr = stderr.join().map_err(|_| "reading failed")?;
    Ok(Actual { exit: status.and_then(|status| status.code()), stdout, stderr, unfinished })
}

/// Goes through the dialogue; the lines heard, and the step that was not reached.
fn talk(steps: &[Step], mut stdin: ChildStdin, mut stdout: ChildStdout) -> (Vec<String>, Option<Step>) {
    let mut dialogue = Dialogue::new(steps);
    // Whoever does not read its input may have ended; its exit code says so.
    let mut type_in = |text: String| {
        let _ = stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush());
    };
    type_in(dialogue.begin());
    let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stdout.read(&mut buffer) {
        heard.extend_from_slice(&buffer[..read]);
        type_in(dialogue.hear(&buffer[..read]));
    }
    (lines(heard.as_slice()), dialogue.unfinished().cloned())
}

fn lines(from: impl Read) -> Vec<String> {
    let lines = BufReader::new(from).split(b'\n').map_while(Result::ok);
    lines.map(|line| String::from_utf8_lossy(&line).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Actual, punctual};

    #[test]
    fn only_the_count_of_missed_ticks_is_forgiven() {
        let run = |line: &str| Actual { exit: Some(0), stdout: vec![line.into()], ..Actual::default() };
        assert_eq!(punctual(&run("[v] victim: 20 ticks, 3 missed")).stdout, ["[v] victim: 20 ticks, 0 missed"]);
        assert_eq!(punctual(&run("[a] FAIL foreign RAM: got 7")).stdout, ["[a] FAIL foreign RAM: got 7"]);
    }
}
