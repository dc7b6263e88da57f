//! The shipped layouts boot in every format, and say the same in each.

use super::dialogue::Step;
use super::fixtures::dts_files;
use super::scenario::xtask_run;
use super::tally::Tally;
use super::transcript::{Actual, Expected, by_domain};
use crate::repo;
use crate::trouble::Trouble;
use std::path::Path;

/// Every layout of an architecture with a hypervisor and guests of our own, as Image, ELF and flash.
pub(crate) fn run(tally: &mut Tally) -> Result<(), Trouble> {
    for layout in dts_files(&repo::root().join("layouts"))? {
        let text = String::from_utf8_lossy(&repo::read(&layout)?).into_owned();
        // Debian's guests wait for somebody who types: the scenarios `linux-…` do.
        if text.contains("qemu-x86.dts") || text.contains("\"debian/") {
            continue;
        }
        let name = layout.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut first: Option<Actual> = None;
        for format in ["image", "elf", "flash"] {
            let outcome = boot(&layout, format, first.as_ref());
            tally.check(format_args!("boot {name} as {format}"), outcome.as_ref().map(|_| ()));
            first = first.or(outcome.ok());
        }
    }
    Ok(())
}

fn boot(layout: &Path, format: &str, like: Option<&Actual>) -> Result<Actual, String> {
    // The echo ends when told to; no other layout asks.
    let steps = vec![Step::After("type something".into()), Step::Type("quit\n".into())];
    let expected = Expected { timeout: 60, steps, ..Expected::default() };
    let actual = xtask_run(layout, &expected, &["--format".into(), format.into()])?;
    let mut report = String::new();
    if actual.exit != Some(0) {
        report += &format!("exit code: wanted 0, got {:?}\n", actual.exit);
    }
    let domains = by_domain(&actual.stdout, &mut report);
    if domains.is_empty() {
        report += "no domain printed anything\n";
    }
    // Times differ from run to run; how much each domain says does not.
    for (name, lines) in like.map(|like| by_domain(&like.stdout, &mut report)).into_iter().flatten() {
        let got = domains.get(&name).map_or(0, Vec::len);
        if got != lines.len() {
            report += &format!("domain {name} printed {got} lines, as Image {}\n", lines.len());
        }
    }
    if report.is_empty() {
        return Ok(actual);
    }
    Err(format!("{report}{}\n{}", actual.stdout.join("\n"), actual.stderr.join("\n")))
}
