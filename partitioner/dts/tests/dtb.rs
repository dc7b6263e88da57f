//! Boards given as blobs: decompiled text means the same tree, and what cannot be read says so.

mod common;

use cofferdam_dts::Source;
use cofferdam_dts::{Span, dtb};
use common::{Files, leak, root, show, with};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A blob that dtc makes of a text.
fn blob(text: &str) -> Vec<u8> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("cofferdam-{}-{number}.dts", std::process::id()));
    std::fs::write(&path, text).expect("the folder for temporary files can be written");
    let out = Command::new("dtc").args(["-q", "-I", "dts", "-O", "dtb"]).arg(&path).output();
    let out = out.expect("dtc cannot be started: install device-tree-compiler");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

fn decompile(blob: &[u8]) -> String {
    let mut out = vec![0; 16 * blob.len()];
    dtb::decompile(blob, &mut out).expect("room").expect("a good blob").to_owned()
}

fn refusal(blob: &[u8]) -> String {
    let mut out = vec![0; 4096];
    let error = dtb::decompile(blob, &mut out).expect("room").expect_err("a bad blob");
    let d = error.diagnostic(Span::default());
    format!("{} {}", d.code, d.fill(d.message))
}

const TEXT: &str = r#"/dts-v1/;
/memreserve/ 0x1000 0x2000;
/ {
	#address-cells = <1>;
	name-list = "one", "two \" \\ three";
	empty;
	bytes = [01 02 03];
	reg-like = <0x41424300>;
	bus {
		#address-cells = <0x61626300>;
		phandle = <5>;
		see = <5>;
	};
};
"#;

#[test]
fn text_and_blob_mean_the_same() {
    let first = blob(TEXT);
    let text = decompile(&first);
    assert!(text.contains("/memreserve/ 0x1000 0x2000;"), "{text}");
    assert!(text.contains(r#"name-list = "one", "two \" \\ three";"#), "{text}");
    assert!(text.contains("#address-cells = <0x61626300>;"), "{text}");
    // What dtc makes of our text is the blob again.
    assert_eq!(blob(&text), first);
}

#[test]
fn a_layout_goes_on_top_of_a_blob() {
    let board = Source { path: "board.dtb", text: leak(decompile(&blob(TEXT))) };
    let layout = Source { path: "l.dts", text: "/dts-v1/;\n&{/bus} { more = <&{/bus}>; };\n" };
    with(&mut Files, &[board, layout], |parsed, all| {
        assert!(all.is_empty(), "{}", show(&parsed, all[0]));
        let bus = parsed.tree.by_path("/bus").unwrap();
        assert_eq!(bus.phandle(), Some(5));
        assert_eq!(bus.property("more").unwrap().number(), Some(5));
        assert_eq!(parsed.files.iter().map(|f| f.path).collect::<Vec<_>>(), ["board.dtb", "l.dts"]);
    });
}

/// `dtc -@` writes labels as properties of `/__symbols__`; they come back as labels.
#[test]
fn symbols_are_labels() {
    let text = r#"/dts-v1/; / {
        soc { uart@1000 { }; uart { uart@1000 { }; }; };
        __symbols__ {
            uart0 = "/soc/uart@1000";
            serial = "/soc/uart@1000";
            inner = "/soc/uart/uart@1000";
            machine = "/";
            gone = "/soc/spi";
            not-a-label = "/soc";
            cells = <0x2f736f63>;
        };
    };"#;
    let text = decompile(&blob(text));
    assert!(text.contains("uart0: serial: uart@1000 {"), "{text}");
    assert!(text.contains("machine: / {"), "{text}");
    let board = Source { path: "board.dtb", text: leak(text) };
    let layout =
        Source { path: "l.dts", text: "/dts-v1/;\n&uart0 { on = <&inner>; };\n&machine { model = \"m\"; };\n" };
    with(&mut Files, &[board, layout], |parsed, all| {
        assert!(all.is_empty(), "{}", show(&parsed, all[0]));
        let path = |label| parsed.tree.by_label(label).map(|node| node.path().to_string());
        assert_eq!(path("uart0").as_deref(), Some("/soc/uart@1000"));
        assert_eq!(path("serial"), path("uart0"));
        assert_eq!(path("inner").as_deref(), Some("/soc/uart/uart@1000"));
        assert_eq!(path("gone").or(path("cells")), None);
        assert!(parsed.tree.by_path("/soc/uart@1000").unwrap().property("on").is_some());
    });
}

#[test]
fn what_cannot_be_read_says_why() {
    let good = blob(TEXT);
    assert_eq!(refusal(b"PK\x03\x04 not a blob"), "E0124 this is not a flattened device tree");
    assert!(refusal(&good[..good.len() - 8]).starts_with("E0124 the blob ends early"));
    let mut far = good.clone();
    far[8..12].copy_from_slice(&0x00ff_ff00u32.to_be_bytes());
    assert_eq!(refusal(&far), "E0124 the blob's structure lies outside of it or is not aligned");
    let long = blob("/dts-v1/; / { a-name-of-thirty-characters-xx { }; };");
    assert!(refusal(&long).contains("a-name-of-thirty-characters-xx"), "{}", refusal(&long));
    assert!(root().is_dir());
}
