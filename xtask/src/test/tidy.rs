//! Rules of the repository that no compiler knows. Each violation is named with file and line.

use super::tally::Tally;
use crate::repo;
use crate::trouble::Trouble;
use cofferdam_partitioner::catalog;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this has more than one reason to change.
const LONGEST: usize = 500;
/// Bird's eye means one sitting.
const ARCHITECTURE: usize = 300;

/// Codes no layout can cause: a damaged `--board` blob (`partitioner/dts/tests/dtb.rs`), a mistake of the compiler.
const NO_FIXTURE: [&str; 2] = ["E0124", "E1399"];

/// A text file of the repository.
struct File {
    name: String,
    text: String,
}

/// Gives every violation, with its place.
type Rule = fn(&[File]) -> Vec<String>;

/// All rules.
pub(crate) fn run(tally: &mut Tally) -> Result<(), Trouble> {
    let root = repo::root();
    let mut files = Vec::new();
    walk(&root, &root, &mut files)?;
    let rules: [(&str, Rule); 10] = [
        ("every Rust file says what it is", headers),
        ("no unfinished business", unfinished),
        ("no file is too long", lengths),
        ("nothing names this machine", machine),
        ("no test is ignored", ignored),
        ("unsafe code states its reason", reasons),
        ("unsafe code says why it is sound", soundness),
        ("text is clean", clean),
        ("codes, documents and fixtures match", codes),
        ("scenarios and transcripts match", scenarios),
    ];
    for (name, rule) in rules {
        let found = rule(&files);
        tally.check(format_args!("tidy: {name}"), if found.is_empty() { Ok(()) } else { Err(found.join("\n")) });
    }
    Ok(())
}

fn walk(root: &Path, dir: &Path, files: &mut Vec<File>) -> Result<(), Trouble> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(dir).map_err(Trouble::file(dir, "list"))?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != ".git" {
                walk(root, &path, files)?;
            }
        } else if name == ".git" {
            // A work tree's pointer to where git keeps its files.
        } else if let Ok(text) = fs::read_to_string(&path) {
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            files.push(File { name, text });
        }
    }
    Ok(())
}

impl File {
    fn is(&self, extensions: &[&str]) -> bool {
        extensions.iter().any(|extension| self.name.ends_with(extension))
    }

    /// Lines for which `wrong` says why.
    fn lines(&self, wrong: impl Fn(&str) -> Option<&'static str>) -> Vec<String> {
        let all = self.text.lines().enumerate();
        all.filter_map(|(index, line)| Some(format!("{}:{}: {}", self.name, index + 1, wrong(line)?))).collect()
    }
}

fn headers(files: &[File]) -> Vec<String> {
    let rust = files.iter().filter(|file| file.is(&[".rs"]));
    rust.filter(|file| !file.text.starts_with("//! ")).map(|file| format!("{}: no `//!` header", file.name)).collect()
}

fn unfinished(files: &[File]) -> Vec<String> {
    // In pieces, so that this file does not find itself.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
    ];
    let sources = files.iter().filter(|file| file.is(&[".rs", ".S", ".ld", ".dts", ".md", ".toml"]));
    sources
        .flat_map(|file| file.lines(|line| words.iter().any(|word| line.contains(word)).then_some("unfinished")))
        .collect()
}

fn lengths(files: &[File]) -> Vec<String> {
    let long = |file: &&File, limit| file.text.lines().count() > limit;
    let mut found: Vec<_> = files
        .iter()
        .filter(|file| file.is(&[".rs", ".S"]) && long(file, LONGEST))
        .map(|file| format!("{}: {} lines, more than {LONGEST}", file.name, file.text.lines().count()))
        .collect();
    let architecture = files.iter().filter(|file| file.name == "ARCHITECTURE.md" && long(file, ARCHITECTURE));
    found.extend(architecture.map(|file| format!("{}: more than {ARCHITECTURE} lines", file.name)));
    found
}

fn machine(files: &[File]) -> Vec<String> {
    let paths = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];
    let all = files.iter().filter(|file| !file.name.starts_with("LICENSE"));
    all.flat_map(|file| {
        file.lines(|line| paths.iter().any(|path| line.contains(path)).then_some("a path of one machine"))
    })
    .collect()
}

fn ignored(files: &[File]) -> Vec<String> {
    let attribute = concat!("#[ign", "ore");
    let rust = files.iter().filter(|file| file.is(&[".rs"]));
    rust.flat_map(|file| file.lines(|line| line.contains(attribute).then_some("an ignored test"))).collect()
}

fn reasons(files: &[File]) -> Vec<String> {
    let attribute = concat!("allow(uns", "afe_code)");
    let global = concat!("static ", "mut ");
    let rust = files.iter().filter(|file| file.is(&[".rs"]));
    rust.flat_map(|file| {
        file.lines(|line| match () {
            () if line.contains(attribute) && !line.contains("//") => Some("no reason on the same line"),
            () if line.trim_start().starts_with(global) => Some("a mutable static"),
            () => None,
        })
    })
    .collect()
}

/// Clippy's rule, for the code that is built where clippy is not at hand too: the comment directly above says SAFETY.
fn soundness(files: &[File]) -> Vec<String> {
    let openings = [concat!("uns", "afe {"), concat!("uns", "afe impl")];
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is(&[".rs"])) {
        let mut is_said = false;
        for (index, line) in file.text.lines().enumerate() {
            if let Some(comment) = line.trim_start().strip_prefix("//") {
                is_said |= comment.trim_start().starts_with("SAFETY: ");
                continue;
            }
            let code = line.split("//").next().unwrap_or("");
            if !is_said && openings.iter().any(|opening| code.contains(opening)) {
                found.push(format!("{}:{}: no `// SAFETY:` above it", file.name, index + 1));
            }
            is_said = false;
        }
    }
    found
}

fn clean(files: &[File]) -> Vec<String> {
    let text = files.iter().filter(|file| file.is(&[".rs", ".S", ".ld", ".dts", ".md", ".toml", ".expected"]));
    text.flat_map(|file| {
        let trailing = |line: &str| line.ends_with([' ', '\t']).then_some("space at the end of the line");
        let mut found = if file.is(&[".md", ".expected"]) { Vec::new() } else { file.lines(trailing) };
        if !file.text.ends_with('\n') && !file.text.is_empty() {
            found.push(format!("{}: no newline at the end", file.name));
        }
        found
    })
    .collect()
}

fn codes(files: &[File]) -> Vec<String> {
    let stem = |name: &str| name.rsplit('/').next().unwrap_or("").split(['-', '.']).next().unwrap_or("").to_string();
    let of = |folder: &str| -> BTreeSet<String> {
        files
            .iter()
            .filter(|file| file.name.starts_with(folder) && file.is(&[".dts", ".md"]))
            .map(|file| stem(&file.name))
            .collect()
    };
    let documents = of("docs/codes/");
    let fixtures: BTreeSet<String> =
        of("partitioner/tests/reject/").into_iter().chain(of("partitioner/tests/warn/")).collect();
    let mut found = Vec::new();
    let alone = documents.difference(&fixtures).filter(|code| !NO_FIXTURE.contains(&code.as_str()));
    found.extend(alone.map(|code| format!("docs/codes/{code}.md has no fixture")));
    found.extend(fixtures.difference(&documents).map(|code| format!("fixture {code} has no docs/codes/{code}.md")));
    for (code, text) in catalog::CODES {
        if !text.starts_with(&format!("# {code}: ")) {
            found.push(format!("docs/codes/{code}.md does not start with `# {code}: title`"));
        }
    }
    found
}

fn scenarios(files: &[File]) -> Vec<String> {
    let of = |extension: &str| -> BTreeSet<&str> {
        files.iter().filter_map(|file| file.name.strip_prefix("qemu/tests/")?.strip_suffix(extension)).collect()
    };
    let (layouts, transcripts) = (of(".dts"), of(".expected"));
    let mut found: Vec<_> =
        layouts.difference(&transcripts).map(|name| format!("qemu/tests/{name}.dts has no transcript")).collect();
    found.extend(transcripts.difference(&layouts).map(|name| format!("qemu/tests/{name}.expected has no layout")));
    found
}
