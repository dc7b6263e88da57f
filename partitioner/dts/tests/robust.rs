//! No input makes the front end panic or run away: mutated sources of the repository, random text, corrupted blobs.

mod common;

use cofferdam_dts::{Capacities, Diagnostics, Source, dtb, lend_storage, parse};
use common::{Files, root, sources};
use proptest::prelude::*;
use std::fmt::Write;
use std::process::Command;

/// A generator that always gives the same numbers (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % below.max(1) as u64) as usize
    }
}

/// Parses, shows every diagnostic, walks every node and value.
fn survive(text: &str) {
    let source = Source { path: "t.dts", text };
    let mut capacities = Capacities::default();
    for _ in 0..64 {
        let mut slots = vec![None; 256];
        lend_storage!(storage, capacities);
        let mut diagnostics = Diagnostics::new(&mut slots);
        let mut loader = Files;
        let parsed = match parse(storage, &mut loader, &[source], &mut diagnostics) {
            Ok(parsed) => parsed,
            Err(full) => {
                capacities.grow(full);
                continue;
            }
        };
        let mut out = String::new();
        for d in diagnostics.iter() {
            let _ = write!(out, "{} {} {}", d.fill(d.message), d.fill(d.label), d.fill(d.help));
            for span in d.labels.iter().map(|l| l.span).chain([d.primary]) {
                let file = &parsed.files[usize::from(span.file.0)];
                assert!(
                    file.text.get(span.start as usize..span.end as usize).is_some(),
                    "{span:?} of {}",
                    d.fill(d.message)
                );
            }
        }
        for node in parsed.tree.nodes() {
            let _ = write!(out, "{}", node.path());
            let _ = (node.labels().count(), node.phandle(), node.unit_address());
            for property in node.properties() {
                let _ = (property.values().len(), property.number(), property.replaced().map(|p| p.values().len()));
                let _ = node.property(property.name()).map(|p| p.strings().count());
            }
        }
        return;
    }
    panic!("memory grows without end");
}

/// Pieces that mean something, so that mutations reach deep.
const PIECES: &[&str] = &[
    "{",
    "}",
    ";",
    "<",
    ">",
    "(",
    ")",
    "[",
    "]",
    "&",
    "&{",
    ":",
    "=",
    ",",
    "/",
    "\"",
    "'",
    "\\",
    "\n",
    "#",
    "@",
    "*/",
    "/*",
    "//",
    "/dts-v1/;",
    "/delete-node/ ",
    "/delete-property/ ",
    "/bits/ 8 ",
    "/include/ ",
    "/memreserve/ ",
    "/plugin/;",
    "/omit-if-no-ref/ ",
    "/incbin/ ",
    "\n#define A B\n",
    "\n#define B A A\n",
    "\n#define F(x) x##x F(x) #x\n",
    "A",
    "B",
    "F(F(1))",
    "F(",
    "\n#if 1\n",
    "\n#if defined(A) && (B\n",
    "\n#else\n",
    "\n#elif A\n",
    "\n#endif\n",
    "\n#include \"qemu-virt.dts\"\n",
    "\n#include <",
    "\n#error x\n",
    "&gic",
    "&{/cpus}",
    "0x",
    "0xffffffffffffffffff",
    "08",
    "1 / 0",
    "(1 ? 2 : 3)",
    "gic:",
    "cpu0: ",
    "phandle = <1>;",
    "é",
    "\u{feff}",
];

fn mutate(text: &str, numbers: &mut Numbers) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=numbers.next(6) {
        let (at, to) = (numbers.next(bytes.len() + 1), numbers.next(bytes.len() + 1));
        match numbers.next(5) {
            0 => {
                bytes.splice(at..at, PIECES[numbers.next(PIECES.len())].bytes());
            }
            1 => {
                bytes.drain(at.min(to)..at.max(to).min(at.min(to) + 40));
            }
            2 if at < bytes.len() => bytes[at] = numbers.next(256) as u8,
            3 => bytes.truncate(at.max(bytes.len() / 2)),
            _ => {
                let piece = bytes[at.min(to)..at.max(to).min(at.min(to) + 200)].to_vec();
                let at = numbers.next(bytes.len() + 1);
                bytes.splice(at..at, piece);
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn mutated_sources() {
    let mut numbers = Numbers(1);
    let mut all = sources("layouts");
    all.extend(sources("partitioner/dts/tests/dts"));
    all.extend(sources("dts"));
    for path in all {
        let text = std::fs::read_to_string(&path).unwrap();
        // Small files often, large ones less so.
        for _ in 0..(1_000_000 / (text.len() + 2000)).min(300) {
            survive(&mutate(&text, &mut numbers));
        }
    }
}

#[test]
fn random_pieces() {
    let mut numbers = Numbers(2);
    for _ in 0..1500 {
        let mut text = String::from("/dts-v1/;\n/ { ");
        for _ in 0..numbers.next(60) {
            text += PIECES[numbers.next(PIECES.len())];
        }
        survive(&text);
    }
}

#[test]
fn deep_and_wide() {
    let mut deep = String::from("/dts-v1/;\n/ {");
    deep += &"a {".repeat(5000);
    survive(&deep);
    survive(&format!("/dts-v1/; / {{ p = <{}", "(".repeat(20000)));
    survive(&format!("/dts-v1/; / {{ p = <({}1)>; }};", "-".repeat(20000)));
    survive(&format!("/dts-v1/; / {{ p = <({}1)>; }};", "1 ? ".repeat(20000)));
    survive(&format!("#define F(x) x\n/dts-v1/; / {{ p = <{}1", "F(".repeat(20000)));
    survive(&format!("/dts-v1/;\n{}", "#if 1\n".repeat(5000)));
    survive("#define F(x) F(x)(x)\n/dts-v1/; / { p = <F(F)(1)>; };");
    survive(&format!("/dts-v1/; / {{ {} }};", "p;".repeat(3000)));
    survive("/dts-v1/;\n#include \"t.dts\"\n/ { };");
}

#[test]
fn arguments_that_double() {
    let mut text = String::from("/dts-v1/;\n#define D(x) x x\n/ { p = <");
    text += &"D(".repeat(28);
    text += "1";
    text += &")".repeat(28);
    text += ">; };";
    survive(&text);
}

#[test]
fn corrupted_blobs() {
    let source = root().join("dts/qemu-virt.dts");
    let made = Command::new("dtc").args(["-q", "-I", "dts", "-O", "dtb"]).arg(preprocessed(&source)).output();
    let good = made.expect("dtc cannot be started: install device-tree-compiler").stdout;
    assert!(good.len() > 1000, "dtc made nothing");
    let mut out = vec![0; good.len() * 8];
    let text = dtb::decompile(&good, &mut out).unwrap().unwrap().to_owned();
    survive(&text);
    let mut numbers = Numbers(3);
    for round in 0..20_000 {
        let mut bad = good.clone();
        for _ in 0..=numbers.next(3) {
            // Header and structure are hit most.
            let range = if round % 3 == 0 { 64 } else { bad.len() };
            let at = numbers.next(range.min(bad.len()));
            match numbers.next(4) {
                0 => bad[at] = numbers.next(256) as u8,
                1 => bad[at] ^= 1 << numbers.next(8),
                2 => bad.truncate(at.max(1)),
                _ => bad[at & !3..].iter_mut().take(4).for_each(|b| *b = 0xff),
            }
        }
        if let Ok(Ok(text)) = dtb::decompile(&bad, &mut out)
            && round % 20 == 0
        {
            survive(text);
        }
    }
    assert!(dtb::decompile(&good, &mut [0; 100]).is_err(), "a short buffer is a capacity error");
}

/// The board behind cpp, for dtc.
fn preprocessed(path: &std::path::Path) -> std::path::PathBuf {
    let to = std::env::temp_dir().join(format!("cofferdam-{}-blob.dts", std::process::id()));
    let cpp = Command::new("cpp").args(["-undef", "-nostdinc", "-x", "assembler-with-cpp"]).arg(path).arg(&to).status();
    assert!(cpp.expect("cpp cannot be started: install it").success());
    to
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in ".{0,400}") {
        survive(&text);
    }

    #[test]
    fn any_body(text in "[ -~\n]{0,300}") {
        survive(&format!("/dts-v1/;\n/ {{\n{text}\n}};\n"));
    }

    #[test]
    fn any_blob(blob in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut out = [0; 4096];
        let _ = dtb::decompile(&blob, &mut out);
    }
}
