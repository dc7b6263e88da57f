//! `cargo xtask gdb` without a person: the demonstration stops where it was told, and names and source lines are known.

use super::tally::Tally;
use crate::exec;
use crate::repo;
use crate::setup;
use crate::trouble::Trouble;
use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// One session, builds included.
const LIMIT: Duration = Duration::from_secs(300);

/// What is typed, and what gdb must say to it; in this order.
const SESSION: [(&str, &[&str]); 8] = [
    ("continue", &["Thread 1 hit Temporary breakpoint", " in _start ()"]),
    ("gbreak duet::main", &["Hardware assisted breakpoint"]),
    ("continue", &["Thread 1 hit", "duet::main () at unikernel/examples/duet/main.rs:"]),
    ("thbreak trap_sync", &["Hardware assisted breakpoint", "hyp-min/src/"]),
    ("continue", &["hit Temporary breakpoint"]),
    ("info symbol $pc", &["trap_sync in section .text"]),
    ("vcpus", &["thread 1: vCPU 0 of duet", "thread 2: vCPU 1 of duet", "thread 3: vCPU 0 of pulse"]),
    ("vcpu 1", &["Switching to thread 2"]),
];

/// The part `gdb`.
pub(crate) fn run(tally: &mut Tally) -> Result<(), Trouble> {
    setup::gdb()?;
    tally.check("gdb stops in guest and hypervisor", session());
    tally.check("gdb --script-only", script_only());
    Ok(())
}

fn gdb(args: &[&str]) -> Result<String, String> {
    let me = env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
    let mut command = Command::new(me);
    command.current_dir(repo::root()).args(["gdb", "duet", "layouts/demo.dts"]).args(args);
    let output = exec::output(&mut command, LIMIT).map_err(|trouble| trouble.to_string())?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(text) } else { Err(text) }
}

fn session() -> Result<(), String> {
    let mut args = vec!["--batch"];
    SESSION.iter().for_each(|(typed, _)| args.extend(["--ex", typed]));
    let said = gdb(&args)?;
    let mut rest = said.as_str();
    for (typed, wanted) in SESSION {
        for words in wanted {
            let at = rest.find(words).ok_or_else(|| format!("no {words:?} after {typed:?} in\n{said}"))?;
            rest = &rest[at + words.len()..];
        }
    }
    Ok(())
}

fn script_only() -> Result<(), String> {
    let said = gdb(&["--script-only", "--port", "4321"])?;
    let script = said.lines().find_map(|line| line.strip_prefix("script: ")).ok_or("no script")?;
    let text = std::fs::read_to_string(repo::root().join(Path::new(script))).map_err(|error| error.to_string())?;
    if !text.contains("target remote 127.0.0.1:4321\n") || !said.contains("-S -gdb tcp:127.0.0.1:4321") {
        return Err(format!("not on the port asked for:\n{said}\n{text}"));
    }
    Ok(())
}
