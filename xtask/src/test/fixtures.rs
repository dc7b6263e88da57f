//! The reject and warn fixtures, the layouts and `explain`, through the command line a user types.
//!
//! Exact places are asserted by the partitioner's own tests; here it is the commands, their codes and exit codes.

use super::tally::Tally;
use crate::exec;
use crate::repo;
use crate::trouble::Trouble;
use cofferdam_partitioner::catalog;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

const LIMIT: Duration = Duration::from_secs(300);

/// All of it.
pub(crate) fn run(tally: &mut Tally) -> Result<(), Trouble> {
    let root = repo::root();
    for layout in dts_files(&root.join("layouts"))? {
        tally.check(name("layout", &layout), expect(&["check".into(), shown(&layout)], 0, &[]));
    }
    for fixture in dts_files(&root.join("partitioner/tests/reject"))? {
        tally.check(name("reject", &fixture), expect(&["check".into(), shown(&fixture)], 1, &[&code(&fixture)]));
    }
    for fixture in dts_files(&root.join("partitioner/tests/accept"))? {
        tally.check(name("accept", &fixture), expect(&["check".into(), shown(&fixture)], 0, &[]));
    }
    for (format, alarm) in [
        ("text", "\n  ! nic0 (00:01.0) reads"),
        ("json", "\"nic0 (00:01.0) reads"),
        ("html", "<p class=\"alarm\">nic0 (00:01.0) reads"),
    ] {
        let layout = "partitioner/tests/accept/io-bars-aarch64.dts".to_owned();
        let args = ["report".into(), layout, "--format".into(), format.into()];
        let open = ["nic0 of domain b reads and writes all of memory", "nic0 of domain b has no reset"];
        tally.check(
            format_args!("report of a trusted function, {format}"),
            expect(&args, 0, &[&[alarm], &open[..]].concat()),
        );
    }
    for fixture in dts_files(&root.join("partitioner/tests/warn"))? {
        let args = ["check".into(), shown(&fixture)];
        tally.check(name("warn", &fixture), expect(&args, 0, &[&code(&fixture)]));
    }
    for (code, _) in catalog::CODES {
        let parts = [*code, "wrong", "right"];
        tally.check(format_args!("explain {code}"), expect(&["explain".into(), code.to_string()], 0, &parts));
    }
    for (command, shown) in examples(&root.join("docs/pci.md"))? {
        let words: Vec<String> = command.split(' ').map(String::from).collect();
        tally.check(
            format_args!("docs/pci.md: {command}"),
            expect(&words, i32::from(shown.contains("error[")), &[&shown]),
        );
    }
    tally.check("explain an unknown code", expect(&["explain".into(), "E9999".into()], 2, &[]));
    tally.check("check without a file", expect(&["check".into(), "no/such.dts".into()], 2, &[]));
    let minimal = shown(&root.join("layouts/minimal.dts"));
    for format in ["json", "sarif"] {
        let args = ["check".into(), minimal.clone(), "--format".into(), format.into()];
        tally.check(format_args!("check --format {format}"), expect(&args, 0, &["{", "["]));
    }
    Ok(())
}

/// The `$ cargo xtask check …` and `report …` of a document, each with what the document shows of its output.
fn examples(document: &Path) -> Result<Vec<(String, String)>, Trouble> {
    let text = fs::read_to_string(document).map_err(Trouble::file(document, "read"))?;
    let blocks = text.split("```console\n$ cargo xtask ").skip(1).filter_map(|block| block.split("```").next());
    let parts = blocks
        .filter_map(|block| block.split_once('\n'))
        .filter(|(command, _)| ["check ", "report "].iter().any(|name| command.starts_with(name)));
    Ok(parts.map(|(command, shown)| (command.to_owned(), shown.trim_end().to_owned())).collect())
}

/// Runs this program; the exit code and parts of standard output must be as said.
fn expect(args: &[String], exit: i32, parts: &[&str]) -> Result<(), String> {
    let me = env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(me);
    command.current_dir(repo::root()).args(args);
    let output = exec::output(&mut command, LIMIT).map_err(|trouble| trouble.to_string())?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let lower = stdout.to_lowercase();
    let mut report = String::new();
    if output.status.code() != Some(exit) {
        report += &format!("exit code: wanted {exit}, got {:?}\n", output.status.code());
    }
    for part in parts.iter().filter(|part| !lower.contains(&part.to_lowercase())) {
        report += &format!("not in the output: {part}\n");
    }
    if report.is_empty() {
        return Ok(());
    }
    Err(format!("{report}{stdout}{}", String::from_utf8_lossy(&output.stderr)))
}

/// All `.dts` files of a folder, sorted.
pub(super) fn dts_files(dir: &Path) -> Result<Vec<PathBuf>, Trouble> {
    let entries = fs::read_dir(dir).map_err(Trouble::file(dir, "list"))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "dts"));
    files.sort();
    Ok(files)
}

/// `E0301-two-owners.dts` → `E0301`.
fn code(fixture: &Path) -> String {
    let name = fixture.file_name().unwrap_or_default().to_string_lossy();
    name.split('-').next().unwrap_or_default().to_string()
}

fn name(kind: &str, file: &Path) -> String {
    format!("{kind} {}", file.file_stem().unwrap_or_default().to_string_lossy())
}

fn shown(path: &Path) -> String {
    path.strip_prefix(repo::root()).unwrap_or(path).display().to_string()
}
