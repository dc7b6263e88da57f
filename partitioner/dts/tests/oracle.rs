//! Our tree against dtc's, for every source of the repository: equal up to the numbering of phandles.

mod common;

use cofferdam_dts::{Node, Property, Tree, ValueKind};
use common::{Files, open, root, show, sources, with};
use std::path::Path;
use std::process::{Command, Stdio};

/// What dtc makes of a source, behind cpp as boards are built everywhere.
fn dtc(path: &Path) -> Vec<u8> {
    const MISSING: &str = "cannot be started: install cpp and device-tree-compiler";
    let mut cpp = Command::new("cpp")
        .args(["-undef", "-nostdinc", "-x", "assembler-with-cpp", "-I"])
        .arg(root().join("dts"))
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cpp {MISSING} ({e})"));
    let text = cpp.stdout.take().expect("piped");
    let include = path.parent().expect("a file has a folder");
    let out = Command::new("dtc")
        .args(["-q", "-I", "dts", "-O", "dtb", "-i"])
        .arg(include)
        .stdin(text)
        .output()
        .unwrap_or_else(|e| panic!("dtc {MISSING} ({e})"));
    assert!(cpp.wait().expect("cpp was started").success(), "cpp refuses {}", path.display());
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "dtc refuses {}: {said}", path.display());
    out.stdout
}

/// A node of a blob.
#[derive(Debug, Default)]
struct Blob {
    name: String,
    properties: Vec<(String, Vec<u8>)>,
    children: Vec<Blob>,
}

fn word(blob: &[u8], at: usize) -> usize {
    u32::from_be_bytes(blob[at..at + 4].try_into().unwrap()) as usize
}

fn text(blob: &[u8], at: usize) -> String {
    let len = blob[at..].iter().position(|b| *b == 0).unwrap();
    String::from_utf8(blob[at..at + len].to_vec()).unwrap()
}

/// Reads the node whose begin token stands at `at`, and leaves `at` behind its end.
fn read(blob: &[u8], at: &mut usize) -> Blob {
    assert_eq!(word(blob, *at), 1);
    let mut node = Blob { name: text(blob, *at + 4), ..Blob::default() };
    *at = (*at + 4 + node.name.len() + 1).next_multiple_of(4);
    loop {
        match word(blob, *at) {
            1 => node.children.push(read(blob, at)),
            2 => {
                *at += 4;
                return node;
            }
            3 => {
                let (len, name) = (word(blob, *at + 4), word(blob, *at + 8));
                let value = blob[*at + 12..*at + 12 + len].to_vec();
                node.properties.push((text(blob, word(blob, 12) + name), value));
                *at = (*at + 12 + len).next_multiple_of(4);
            }
            4 => *at += 4,
            other => panic!("token {other}"),
        }
    }
}

fn reservations(blob: &[u8]) -> Vec<(u64, u64)> {
    let mut at = word(blob, 16);
    let mut all = Vec::new();
    loop {
        let [base, size] = [at, at + 8].map(|at| u64::from_be_bytes(blob[at..at + 8].try_into().unwrap()));
        if (base, size) == (0, 0) {
            return all;
        }
        all.push((base, size));
        at += 16;
    }
}

/// The path of the node with a phandle.
fn find(node: &Blob, path: &str, phandle: &[u8]) -> Option<String> {
    let path = if node.name.is_empty() { String::new() } else { format!("{path}/{}", node.name) };
    if node.properties.iter().any(|(name, value)| name == "phandle" && value == phandle) {
        return Some(if path.is_empty() { "/".into() } else { path });
    }
    node.children.iter().find_map(|child| find(child, &path, phandle))
}

/// A property's bytes, and where in them which node is referred to.
fn bytes(tree: Tree<'_>, property: Property<'_>) -> (Vec<u8>, Vec<(usize, String)>) {
    let (mut out, mut references) = (Vec::new(), Vec::new());
    for value in property.values() {
        match value.kind {
            ValueKind::String(s) => {
                out.extend(s.as_bytes());
                out.push(0);
            }
            ValueKind::RawString(s) => {
                out.extend(s);
                out.push(0);
            }
            ValueKind::Bytes(b) => out.extend(b),
            ValueKind::Path(node) => {
                out.extend(tree.node(node).path().to_string().as_bytes());
                out.push(0);
            }
            ValueKind::Cells { bits, cells } => {
                for cell in cells {
                    if let Some(target) = cell.target {
                        references.push((out.len(), tree.node(target).path().to_string()));
                    }
                    out.extend(&cell.value.to_be_bytes()[8 - usize::from(bits) / 8..]);
                }
            }
        }
    }
    (out, references)
}

fn compare(ours: Node<'_>, theirs: &Blob, top: &Blob) {
    assert_eq!(ours.name(), theirs.name);
    let at = ours.path().to_string();
    let own: Vec<_> = ours.properties().filter(|p| p.name() != "phandle").collect();
    let other: Vec<_> = theirs.properties.iter().filter(|(name, _)| name != "phandle").collect();
    let names = (own.iter().map(|p| p.name()).collect::<Vec<_>>(), other.iter().map(|p| &p.0[..]).collect::<Vec<_>>());
    assert_eq!(names.0, names.1, "properties of {at}");
    for (own, (name, theirs)) in own.iter().zip(other) {
        let (mut own, references) = bytes(ours.tree(), *own);
        assert_eq!(own.len(), theirs.len(), "length of {at}:{name}");
        for (offset, path) in references {
            let phandle = &theirs[offset..offset + 4];
            assert_eq!(find(top, "", phandle).as_deref(), Some(&path[..]), "reference in {at}:{name}");
            own[offset..offset + 4].copy_from_slice(phandle);
        }
        assert_eq!(&own, theirs, "{at}:{name}");
    }
    let has = theirs.properties.iter().any(|(name, _)| name == "phandle");
    assert_eq!(ours.phandle().is_some(), has, "phandle of {at}");
    let children: Vec<_> = ours.children().collect();
    let names = children.iter().map(|c| c.name()).collect::<Vec<_>>();
    assert_eq!(names, theirs.children.iter().map(|c| &c.name[..]).collect::<Vec<_>>(), "children of {at}");
    for (own, other) in children.into_iter().zip(&theirs.children) {
        compare(own, other, top);
    }
}

fn check(path: &Path) {
    let blob = dtc(path);
    let theirs = read(&blob, &mut word(&blob, 8).clone());
    with(&mut Files, &[open(path)], |parsed, all| {
        let errors: Vec<_> =
            all.iter().filter(|d| d.code.to_string().starts_with('E')).map(|d| show(&parsed, d)).collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", path.display());
        compare(parsed.tree.root(), &theirs, &theirs);
        let ours: Vec<_> = parsed.tree.reservations().iter().map(|r| (r.0, r.1)).collect();
        assert_eq!(ours, reservations(&blob), "/memreserve/ of {}", path.display());
    });
}

fn check_all(folder: &str, least: usize) {
    let all = sources(folder);
    assert!(all.len() >= least, "only {} sources in {folder}", all.len());
    all.iter().for_each(|path| check(path));
}

#[test]
fn boards() {
    check_all("dts", 2);
}

#[test]
fn layouts() {
    check_all("layouts", 2);
    check_all("partitioner/tests/accept", 1);
    check_all("qemu/tests", 1);
}

#[test]
fn syntax() {
    check_all("partitioner/dts/tests/dts", 2);
}
