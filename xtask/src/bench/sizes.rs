//! What the hypervisor weighs: code and constants, RAM, lines.

use super::{Bench, Figure, Value, layout};
use crate::repo;
use crate::report::HypervisorRam;
use crate::trouble::Trouble;
use cofferdam_plan::Plan;
use std::fs;
use std::path::Path;
use zerocopy::IntoBytes;

/// The size figures.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>, Trouble> {
    let (built, _) = bench.build("one", &layout(1, ""))?;
    let lines = lines(&repo::root().join("hyp-min/src"))?;
    let shared = lines_of_plan()?;
    let ram = hypervisor_ram(&built.blob)?;
    Ok(vec![
        Figure::new(
            "hyp-min text + constants, bytes",
            Value::One(bench.hyp.text_and_constants),
            Some(40.0 * 1024.0),
            ["", "70,622", "about 970,000"],
        ),
        Figure::new(
            "all RAM it holds with one domain, bytes",
            Value::One(ram),
            Some(128.0 * 1024.0),
            ["", "352,256", "18,157,568"],
        ),
        Figure::new(
            "lines of hyp-min and the plan crate it shares",
            Value::One(lines + shared),
            Some(4000.0),
            ["", "10,075", "about 188,000"],
        ),
        Figure::new("  of them in hyp-min/src", Value::One(lines), None, ["", "", ""]),
    ])
}

/// Image with `.bss`, plan with tables, stacks, domain state.
fn hypervisor_ram(blob: &[u8]) -> Result<u64, Trouble> {
    // A copy on an 8-byte boundary.
    let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let words: Vec<u64> = blob.chunks(8).map(word).collect();
    let plan = Plan::read(words.as_bytes())
        .map_err(|error| Trouble::other(format!("the plan cannot be read back: {error:?}")))?;
    Ok(HypervisorRam::new(&plan).total())
}

fn lines_of_plan() -> Result<u64, Trouble> {
    lines(&repo::root().join("partitioner/plan/src"))
}

/// Lines of Rust and assembly that are not blank, not comment and not test, in a folder and below.
fn lines(folder: &Path) -> Result<u64, Trouble> {
    let mut sum = 0;
    let mut tests: Vec<String> = Vec::new();
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).map_err(Trouble::file(folder, "list"))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            sum += lines(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "S") {
            let text = String::from_utf8_lossy(&repo::read(&path)?).into_owned();
            let mut before = "";
            for line in text.lines() {
                if before.trim() == "#[cfg(test)]" {
                    // `mod name;`: that file is a test.
                    tests.extend(
                        line.trim().strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')).map(String::from),
                    );
                }
                before = line;
            }
            texts.push((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), text));
        }
    }
    let kept = texts.iter().filter(|(name, _)| !tests.contains(name));
    Ok(sum + kept.map(|(_, text)| code_lines(text)).sum::<u64>())
}

/// Counts one file's. A `#[cfg(test)]` module ends the file, as the house does it.
fn code_lines(text: &str) -> u64 {
    let mut count = 0;
    let mut lines = text.lines().map(str::trim).peekable();
    let mut block = false;
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            match lines.peek() {
                Some(next) if next.starts_with("mod ") && next.ends_with('{') => break,
                _ => {
                    lines.next();
                    continue;
                }
            }
        }
        let opens = line.starts_with("/*");
        let comment = block || opens || line.starts_with("//");
        block = (block || opens) && !line.contains("*/");
        count += u64::from(!line.is_empty() && !comment);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::code_lines;

    #[test]
    fn only_code_counts() {
        let text = "//! what\n\nuse a; // why\n/* long\n   text */\nfn f() {}\n#[cfg(test)]\nmod fake;\nfn g() {}\n#[cfg(test)]\nmod tests {\n    fn t() {}\n}\n";
        assert_eq!(code_lines(text), 3);
    }
}
