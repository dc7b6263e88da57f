//! What the tests share: a loader over the file system, and a run that grows its memory.
#![allow(dead_code)] // Each test uses its part.

use cofferdam_dts::{Capacities, Diagnostic, Diagnostics, Loaded, Loader, Parsed, Source, lend_storage, parse};
use std::path::{Path, PathBuf};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate lies two folders deep").to_path_buf()
}

/// Every `.dts` file directly in a folder of the repository.
pub(crate) fn sources(folder: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(root().join(folder))
        .map(|dir| dir.filter_map(|e| e.ok()).map(|e| e.path()).collect())
        .unwrap_or_default();
    all.retain(|p| p.extension().is_some_and(|e| e == "dts"));
    all.sort();
    all
}

/// Text for the life of the test.
pub(crate) fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// Reads a file.
pub(crate) fn open(path: &Path) -> Source<'static> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Source { path: leak(path.display().to_string()), text: leak(text) }
}

/// Searches next to the including file, then in the repository's `dts/`.
pub(crate) struct Files;

impl Loader<'static> for Files {
    fn load(&mut self, from: &str, name: &str, _: bool) -> Loaded<'static> {
        let near = Path::new(from).parent().map(|p| p.join(name));
        for path in near.into_iter().chain([root().join("dts").join(name)]) {
            if path.is_file() {
                return Loaded::Found(open(&path));
            }
        }
        Loaded::Missing
    }
}

/// Parses with memory that grows until it is enough, and hands tree and diagnostics to `then`.
pub(crate) fn with<T>(
    loader: &mut dyn Loader<'static>,
    mains: &[Source<'static>],
    then: impl FnOnce(Parsed<'_>, &[&Diagnostic<'_>]) -> T,
) -> T {
    let mut capacities = Capacities::default();
    loop {
        let mut slots = vec![None; 4096];
        lend_storage!(storage, capacities);
        let mut diagnostics = Diagnostics::new(&mut slots);
        match parse(storage, loader, mains, &mut diagnostics) {
            Ok(parsed) => {
                let all: Vec<_> = diagnostics.iter().collect();
                return then(parsed, &all);
            }
            Err(full) => capacities.grow(full),
        }
    }
}

/// A diagnostic as one line: code, line and column, message, help.
pub(crate) fn show(parsed: &Parsed<'_>, d: &Diagnostic<'_>) -> String {
    let file = &parsed.files[usize::from(d.primary.file.0)];
    let before = &file.text[..d.primary.start as usize];
    let line = before.matches('\n').count() + 1;
    let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
    let name = file.path.rsplit('/').next().unwrap_or("");
    format!("{} {name}:{line}:{column} {} [{}]", d.code, d.fill(d.message), d.fill(d.help))
}

/// Diagnostics of one text that stands alone.
pub(crate) fn complaints(text: &str) -> Vec<String> {
    let source = Source { path: "t.dts", text: leak(text.to_string()) };
    with(&mut Files, &[source], |parsed, all| all.iter().map(|d| show(&parsed, d)).collect())
}
