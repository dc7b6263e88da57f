//! Child processes with a time limit. Only children started here are ever stopped, each by its own handle.

use crate::repo;
use crate::trouble::Trouble;
use std::env;
use std::io::{IsTerminal, Read};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The program's name for messages.
fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// `cargo build` in the repository. It shows its progress on a terminal and is silent elsewhere, messages apart.
pub(crate) fn cargo_build() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repo::root()).arg("build");
    if !std::io::stderr().is_terminal() {
        cargo.arg("--quiet");
    }
    cargo
}

/// Waits for `child` until `limit` is over, then stops it. `None` where it had to be stopped.
///
/// # Errors
/// The system refuses to say how the child is.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            // It may have ended by itself in between; either way it is gone after `wait`.
            let _ = child.kill();
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Runs to the end with inherited output. An exit code other than 0 is trouble.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<(), Trouble> {
    let status = status(command, limit)?;
    if status.success() { Ok(()) } else { Err(Trouble::Ended { program: name(command), how: ended(status) }) }
}

/// Runs to the end with inherited output.
pub(crate) fn status(command: &mut Command, limit: Duration) -> Result<ExitStatus, Trouble> {
    let program = name(command);
    let mut child = command.spawn().map_err(|source| Trouble::Start { program: program.clone(), source })?;
    match wait(&mut child, limit) {
        Ok(Some(status)) => Ok(status),
        Ok(None) => Err(Trouble::TimeOver { program, seconds: limit.as_secs() }),
        Err(source) => Err(Trouble::Start { program, source }),
    }
}

/// Runs to the end and gives what it wrote. Any exit code is fine; time over is trouble.
pub(crate) fn output(command: &mut Command, limit: Duration) -> Result<Output, Trouble> {
    let program = name(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| Trouble::Start { program: program.clone(), source })?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = wait(&mut child, limit).map_err(|source| Trouble::Start { program: program.clone(), source })?;
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    match status {
        Some(status) => Ok(Output { status, stdout, stderr }),
        None => Err(Trouble::TimeOver { program, seconds: limit.as_secs() }),
    }
}

/// Standard output of a program that must end with 0, as text.
pub(crate) fn text(command: &mut Command, limit: Duration) -> Result<String, Trouble> {
    let program = name(command);
    let output = output(command, limit)?;
    if !output.status.success() {
        let how = format!("{}: {}", ended(output.status), String::from_utf8_lossy(&output.stderr).trim());
        return Err(Trouble::Ended { program, how });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn drain<R: Read + Send + 'static>(from: Option<R>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            // A pipe that breaks has said all it will.
            let _ = from.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn ended(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => "was stopped by a signal".into(),
    }
}
