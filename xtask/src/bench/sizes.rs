//! What the hypervisor weighs: code and constants, RAM, lines.

use super::{Bench, Figure, Value, layout};
use crate::repo;
use crate::report::HypervisorRam;
use crate::trouble::Trouble;
use cofferdam_plan::Plan;
use std::fs;
use std::path::{Path, PathBuf};
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
            Value::One(bench.builds.of(false)?.text_and_constants),
            Some(40.0 * 1024.0),
            ["", "70,622", "about 970,000"],
        ),
        Figure::new(
            "  with PCI: everything",
            Value::One(bench.builds.of(true)?.text_and_constants),
            Some(72.0 * 1024.0),
            ["", "", "about 970,000"],
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
            Some(9000.0),
            ["", "10,075", "about 188,000"],
        ),
        Figure::new("  of them in hyp-min/src", Value::One(lines), None, ["", "", ""]),
    ])
}

/// Image with `.bss`, plan with tables, stacks, domain state.
fn hypervisor_ram(blob: &[u8]) -> Result<u64, Trouble> {
    let words = aligned(blob);
    let plan = Plan::read(words.as_bytes())
        .map_err(|error| Trouble::other(format!("the plan cannot be read back: {error:?}")))?;
    Ok(HypervisorRam::new(&plan).total())
}

/// A copy on an 8-byte boundary, as a plan wants to be read.
pub(super) fn aligned(blob: &[u8]) -> Vec<u64> {
    let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    blob.chunks(8).map(word).collect()
}

fn lines_of_plan() -> Result<u64, Trouble> {
    lines(&repo::root().join("partitioner/plan/src"))
}

/// Lines of Rust and assembly that are not blank, not comment and not test, in a folder and below.
fn lines(folder: &Path) -> Result<u64, Trouble> {
    let mut sources = Vec::new();
    gather(folder, &mut sources)?;
    let tests: Vec<PathBuf> = sources.iter().flat_map(|(path, text)| test_files(path, text)).collect();
    let kept = sources.iter().filter(|(path, _)| !tests.contains(path));
    Ok(kept.map(|(_, text)| code_lines(text)).sum())
}

/// Every source below `folder`, with its text.
fn gather(folder: &Path, sources: &mut Vec<(PathBuf, String)>) -> Result<(), Trouble> {
    for entry in fs::read_dir(folder).map_err(Trouble::file(folder, "list"))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            gather(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "S") {
            let text = String::from_utf8_lossy(&repo::read(&path)?).into_owned();
            sources.push((path, text));
        }
    }
    Ok(())
}

/// The files that `path` declares as test modules: `#[cfg(test)]`, then `mod name;`.
fn test_files(path: &Path, text: &str) -> Vec<PathBuf> {
    let is_root = path.file_stem().is_some_and(|stem| stem == "mod" || stem == "lib" || stem == "main");
    let folder = if is_root { path.parent().unwrap_or(path).to_path_buf() } else { path.with_extension("") };
    let names = text.lines().zip(text.lines().skip(1)).filter(|(before, _)| before.trim() == "#[cfg(test)]");
    let names = names.filter_map(|(_, line)| line.trim().strip_prefix("mod ")?.strip_suffix(';'));
    names.map(|name| folder.join(name).with_extension("rs")).collect()
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
    use super::{code_lines, test_files};
    use std::path::{Path, PathBuf};

    #[test]
    fn only_code_counts() {
        let text = "//! what\n\nuse a; // why\n/* long\n   text */\nfn f() {}\n#[cfg(test)]\nmod fake;\nfn g() {}\n#[cfg(test)]\nmod tests {\n    fn t() {}\n}\n";
        assert_eq!(code_lines(text), 3);
    }

    #[test]
    fn test_files_lie_where_rust_looks_for_them() {
        let text = "#[cfg(test)]\nmod tests;\nmod kept;\n";
        assert_eq!(test_files(Path::new("a/b.rs"), text), [PathBuf::from("a/b/tests.rs")]);
        assert_eq!(test_files(Path::new("a/mod.rs"), text), [PathBuf::from("a/tests.rs")]);
    }
}
