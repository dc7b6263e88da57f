//! `docs/isolation.md` names functions, scenarios, fixtures and mutations: each must exist, and each invariant function must
//! be named there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate lies two folders deep").to_path_buf()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Names of functions in the verifier's sources that `wanted` accepts.
fn functions(wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let folder = root().join("partitioner/verify/src");
    let files = std::fs::read_dir(folder).expect("the sources are there").filter_map(|e| Some(e.ok()?.path()));
    let mut all = BTreeSet::new();
    for file in files {
        for line in read(file).lines() {
            let name = line.trim_start().trim_start_matches("pub(crate) ").strip_prefix("fn ");
            let name = name.and_then(|rest| rest.split(['(', '<']).next());
            all.extend(name.filter(|name| wanted(name)).map(String::from));
        }
    }
    all
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_invariant(name: &str) -> bool {
    name.strip_prefix('i').is_some_and(|rest| rest.len() > 3 && rest.as_bytes()[..2].iter().all(u8::is_ascii_digit))
}

#[test]
fn functions_and_document_name_each_other() {
    let text = read("docs/isolation.md");
    let all = functions(|_| true);
    for name in quoted(&text) {
        let function = name.rsplit("::").next().unwrap_or(name);
        let ours = [
            "bar", "bridge", "command", "config", "cpus", "dma", "domains", "dtb", "el2", "header", "irq", "memory",
            "msi", "payload", "pci", "regime", "restart", "shape", "stage2",
        ];
        let meant = name.split_once("::").is_some_and(|(file, _)| ours.contains(&file)) || is_invariant(name);
        assert!(!meant || all.contains(function), "{name} is no function of the verifier");
    }
    for name in functions(is_invariant) {
        assert!(text.contains(&name), "{name} is not in the document");
    }
}

#[test]
fn what_tries_each_invariant_exists() {
    let text = read("docs/isolation.md");
    let mutations = read("partitioner/verify/tests/mutations.rs");
    let reject = root().join("partitioner/tests/reject");
    let fixtures: Vec<String> = std::fs::read_dir(reject)
        .expect("the fixtures are there")
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .collect();
    for row in text.lines().filter(|line| line.starts_with("| I")) {
        let tried = row.trim_end_matches(" |").rsplit(" | ").next().expect("a row has columns");
        for word in tried.split([' ', ',', ';', ':', '(', ')']).filter(|word| word.len() > 3) {
            let name = word.trim_matches('…').trim_end_matches('-');
            let is_scenario = root().join(format!("qemu/tests/{name}.dts")).is_file();
            let is_fixture = fixtures.iter().any(|file| name.starts_with('E') && file.starts_with(name));
            let is_mutation = name.contains('_') && mutations.contains(name);
            let is_name = name.contains(['-', '_']) && !name.starts_with(['-', '`']);
            assert!(!is_name || is_scenario || is_fixture || is_mutation, "{word} in {row}");
        }
    }
}
