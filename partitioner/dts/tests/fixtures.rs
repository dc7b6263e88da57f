//! Every code of this crate has its text and its fixtures; every fixture shows its defect, at its place, and no other.

mod common;

use cofferdam_dts::codes;
use common::{Files, open, root, show, sources, with};

/// Fixtures of a folder whose name begins with one of this crate's codes, or with another code of its group.
fn fixtures(folder: &str) -> Vec<std::path::PathBuf> {
    let all = sources(folder);
    assert!(!all.is_empty(), "no fixtures in {folder}");
    all
}

fn name(path: &std::path::Path) -> String {
    path.file_name().expect("a file").to_string_lossy().into_owned()
}

/// Line and column of the place a `/*  ^ CODE */` comment marks, tabs to the next multiple of eight.
fn marked(text: &str, code: &str) -> Vec<(usize, usize)> {
    let mark = format!("^ {code} */");
    let lines: Vec<_> = text.lines().collect();
    let found = |(at, line): (usize, &&str)| line.find(&mark).map(|column| (at, column));
    lines.iter().enumerate().filter_map(found).collect()
}

fn column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset];
    let line = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before[line..].chars().fold(0, |c, char| if char == '\t' { (c / 8 + 1) * 8 } else { c + 1 });
    (before.matches('\n').count() + 1, column)
}

#[test]
fn fixtures_show_their_defect_and_no_other() {
    for path in fixtures("partitioner/tests/reject").into_iter().chain(fixtures("partitioner/tests/warn")) {
        let name = name(&path);
        let code = name.split('-').next().unwrap_or("");
        let own = codes::ALL.iter().any(|c| c.to_string() == code);
        with(&mut Files, &[open(&path)], |parsed, all| {
            let shown: Vec<_> = all.iter().map(|d| show(&parsed, d)).collect();
            if !own {
                assert!(shown.is_empty(), "{name}: {shown:#?}");
                return;
            }
            assert_eq!(shown.len(), 1, "{name}: {shown:#?}");
            assert_eq!(all[0].code.to_string(), code, "{name}: {shown:#?}");
            let text = parsed.files[usize::from(all[0].primary.file.0)].text;
            let place = column(text, all[0].primary.start as usize);
            assert_eq!(marked(text, code), [place], "{name}: {shown:#?}");
        });
    }
}

#[test]
fn every_code_has_text_and_fixture() {
    for code in codes::ALL {
        let code = code.to_string();
        let path = root().join(format!("docs/codes/{code}.md"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(text.starts_with(&format!("# {code}: ")), "{code}: first line");
        assert!(text.contains("\n## Wrong\n```"), "{code}: wrong example");
        assert!(text.contains("\n## Right\n```"), "{code}: right example");
        let folder = if code.starts_with('E') { "reject" } else { "warn" };
        let prefix = format!("{code}-");
        let some = fixtures(&format!("partitioner/tests/{folder}")).iter().any(|p| name(p).starts_with(&prefix));
        // A damaged blob is no source: `dtb.rs` of these tests has that one.
        assert!(some || code == codes::BLOB.to_string(), "{code} has no fixture");
    }
}
