//! Every code has its text, its fixture and its constant; every fixture raises exactly what it marks, where it marks it.
//!
//! `tests/reject/` and `tests/warn/` hold one defect each, `tests/accept/` none, and the repository's own layouts none
//! either. A mark is a comment below the line: `/*   ^ E0301 */`, the caret below the first character of the primary
//! place, tabs to multiples of 8; `/*< E0301 */` marks the first column, `/*> other.dtsi:3:8 E0301 */` a place in an included file.

mod damage;
mod support;

use cofferdam_dts::{Diagnostic, Severity};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use support::{Mark, compile, marks, place};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository is there")
}

/// The `.dts` files of a folder, sorted.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|why| panic!("{}: {why}", folder.display()))
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|e| e == "dts"))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "{} has no fixture", folder.display());
    found
}

fn fixtures(kind: &str) -> Vec<PathBuf> {
    sources(&root().join("partitioner/tests").join(kind))
}

/// One line for a diagnostic, for failures.
fn line(diagnostic: &Diagnostic<'_>, at: &Mark) -> String {
    format!("{}:{}:{} {} {}", at.file, at.line, at.column, diagnostic.code, diagnostic.fill(diagnostic.message))
}

/// Holds what a file raises against its marks; returns what is wrong.
fn check(path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).expect("the fixture can be read");
    let name = path.to_str().expect("paths are text");
    let expected: BTreeSet<Mark> = marks(name, &text);
    let mut listing = String::new();
    let raised = compile(path, &root().join("dts"), |diagnostics, files| {
        let mut raised = BTreeSet::new();
        for diagnostic in diagnostics {
            let mark = place(diagnostic, files);
            // Notes report decisions; a fixture may mark them, and need not.
            if diagnostic.code.severity != Severity::Note || expected.contains(&mark) {
                listing += &format!("\n    {}", line(diagnostic, &mark));
                raised.insert(mark);
            }
        }
        raised
    });
    if raised == expected {
        return Ok(());
    }
    let missing: Vec<String> =
        expected.difference(&raised).map(|m| format!("\n    {}:{} {}", m.line, m.column, m.code)).collect();
    Err(format!("{}\n  marked and not raised:{}\n  raised:{listing}", path.display(), missing.concat()))
}

fn check_all(paths: &[PathBuf]) {
    let wrong: Vec<String> = paths.iter().filter_map(|path| check(path).err()).collect();
    assert!(wrong.is_empty(), "{} of {} fixtures:\n{}", wrong.len(), paths.len(), wrong.join("\n"));
}

/// The code a fixture's name starts with.
fn code_of(path: &Path) -> String {
    let name = path.file_name().and_then(|n| n.to_str()).expect("paths are text");
    let (code, what) = name.split_once('-').unwrap_or_else(|| panic!("{name}: name it <code>-<what>.dts"));
    assert!(!what.is_empty(), "{name}: name it <code>-<what>.dts");
    code.to_owned()
}

#[test]
fn rejected_layouts_say_what_and_where() {
    check_all(&fixtures("reject"));
}

#[test]
fn warned_layouts_say_what_and_where() {
    check_all(&fixtures("warn"));
}

#[test]
fn accepted_layouts_raise_nothing() {
    check_all(&fixtures("accept"));
}

#[test]
fn layouts_of_the_repository_raise_nothing() {
    check_all(&sources(&root().join("layouts")));
}

/// Every fixture marks the code it is named after, and nothing marks an error in a file of warnings.
#[test]
fn fixtures_are_named_after_what_they_mark() {
    for (kind, letter) in [("reject", 'E'), ("warn", 'W')] {
        for path in fixtures(kind) {
            let text = std::fs::read_to_string(&path).expect("the fixture can be read");
            let marked = marks("", &text);
            let code = code_of(&path);
            assert!(code.starts_with(letter), "{}: wrong folder", path.display());
            assert!(marked.iter().any(|m| m.code == code), "{}: does not mark {code}", path.display());
            let only = kind == "reject" || marked.iter().all(|m| m.code.starts_with('W'));
            assert!(only, "{}: an error among warnings", path.display());
        }
    }
}

/// Constant ↔ `docs/codes/<code>.md` ↔ fixture, one to one.
#[test]
fn every_code_has_a_text_and_a_fixture() {
    let constants: Vec<String> =
        cofferdam_partitioner::codes::ALL.iter().chain(cofferdam_dts::codes::ALL).map(ToString::to_string).collect();
    let codes: BTreeSet<&str> = constants.iter().map(String::as_str).collect();
    assert_eq!(codes.len(), constants.len(), "two constants with one code");
    let texts: BTreeSet<&str> = cofferdam_partitioner::catalog::CODES.iter().map(|(code, _)| *code).collect();
    let named: BTreeSet<String> =
        fixtures("reject").iter().chain(&fixtures("warn")).map(|path| code_of(path)).collect();
    let named: BTreeSet<&str> = named.iter().map(String::as_str).collect();
    let without: Vec<_> = codes.difference(&texts).collect();
    assert!(without.is_empty(), "codes without docs/codes/<code>.md: {without:?}");
    let unknown: Vec<_> = texts.difference(&codes).collect();
    assert!(unknown.is_empty(), "texts of codes nobody raises: {unknown:?}");
    // These speak of mistakes that no source text can hold.
    let unreachable: BTreeSet<&str> = support::WITHOUT_FIXTURE.iter().copied().collect();
    let untested: Vec<_> = codes.difference(&named).filter(|code| !unreachable.contains(*code)).collect();
    assert!(untested.is_empty(), "codes without a fixture: {untested:?}");
    let stale: Vec<_> = named.difference(&codes).chain(unreachable.intersection(&named)).collect();
    assert!(stale.is_empty(), "fixtures of codes nobody raises, or listed as without fixture: {stale:?}");
}

/// `docs/codes/<code>.md` has its form: title with the code, text, a wrong and a right example.
#[test]
fn texts_have_their_form() {
    for (code, text) in cofferdam_partitioner::catalog::CODES {
        let title = cofferdam_partitioner::catalog::title(code);
        assert!(text.starts_with(&format!("# {code}: ")) && title.is_some_and(|t| !t.is_empty()), "{code}: title");
        let (prose, examples) =
            text.split_once("\n## Wrong\n```").unwrap_or_else(|| panic!("{code}: no wrong example"));
        assert!(prose.lines().count() > 2, "{code}: no text");
        let (wrong, right) =
            examples.split_once("\n## Right\n```").unwrap_or_else(|| panic!("{code}: no right example"));
        for example in [wrong, right] {
            let body: String = example.lines().skip(1).take_while(|l| !l.starts_with("```")).collect();
            assert!(example.contains("\n```") && !body.trim().is_empty(), "{code}: an empty example");
        }
        assert_ne!(wrong, right, "{code}: both examples are the same");
    }
}

/// Every `{n}` of every template a fixture shows has an argument: a message must not have holes.
#[test]
fn templates_have_their_arguments() {
    let mut holes: BTreeMap<String, String> = BTreeMap::new();
    for path in fixtures("reject").iter().chain(&fixtures("warn")).chain(&fixtures("accept")) {
        compile(path, &root().join("dts"), |diagnostics, _| {
            for diagnostic in diagnostics {
                let texts = diagnostic.labels.iter().map(|l| l.text);
                for template in texts.chain([diagnostic.message, diagnostic.label, diagnostic.help]) {
                    for (n, arg) in diagnostic.args.iter().enumerate() {
                        if template.contains(&format!("{{{n}}}")) && *arg == cofferdam_dts::Arg::None {
                            holes.insert(diagnostic.code.to_string(), template.to_owned());
                        }
                    }
                }
                if diagnostic.code.severity == Severity::Error {
                    assert!(!diagnostic.message.is_empty(), "{}: no message", diagnostic.code);
                }
            }
        });
    }
    assert!(holes.is_empty(), "templates without their arguments: {holes:#?}");
}

/// Fixtures with numbers, references and lines changed at random: whatever comes out, nothing panics or hangs.
#[test]
fn damaged_layouts_never_panic() {
    const NUMBERS: [&str; 8] = ["0", "1", "2", "16", "0x80000000", "0xffffffff", "0x40000000", "3"];
    let boards = root().join("dts");
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    for path in fixtures("reject").iter().chain(&fixtures("accept")) {
        let text = std::fs::read_to_string(path).expect("the fixture can be read");
        for _ in 0..6 {
            let mut lines: Vec<String> = text.lines().map(String::from).collect();
            for _ in 0..=random(3) {
                // The first lines include the board: without it there is little to look at.
                let at = 3 + random(lines.len().saturating_sub(3));
                let other = 3 + random(lines.len().saturating_sub(3));
                let Some(line) = lines.get(at).cloned() else { continue };
                match random(4) {
                    0 => drop(lines.remove(at)),
                    1 => lines.insert(other.min(lines.len()), line),
                    2 => lines[at] = line.replacen("0x0", NUMBERS[random(8)], 1 + random(2)),
                    _ => {
                        let words: Vec<&str> = line.split(' ').collect();
                        let changed = random(words.len());
                        let word = |n: usize| if n == changed { NUMBERS[random(8)] } else { words[n] };
                        lines[at] = (0..words.len()).map(word).collect::<Vec<_>>().join(" ");
                    }
                }
            }
            let text = lines.join("\n");
            let name = path.to_str().expect("paths are text");
            let source = cofferdam_dts::Source { path: name, text: &text };
            support::compile_source(source, path, &boards, |_, _| ());
        }
    }
}
