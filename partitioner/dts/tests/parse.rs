//! What the front end accepts, keeps and refuses.

mod common;
use cofferdam_dts::{Source, ValueKind};
use common::{Files, complaints, open, show, sources, with};

fn source(text: &str) -> Source<'static> {
    Source { path: "t.dts", text: common::leak(text.to_string()) }
}

#[test]
fn every_source_of_the_repository_is_clean() {
    let mut all = sources("dts");
    all.extend(sources("layouts"));
    assert!(all.len() >= 3, "sources not found");
    for path in all {
        with(&mut Files, &[open(&path)], |parsed, all| {
            let shown: Vec<_> = all.iter().map(|d| show(&parsed, d)).collect();
            assert!(shown.is_empty(), "{}: {shown:#?}", path.display());
            assert!(parsed.tree.nodes().count() > 5);
        });
    }
}

#[test]
fn cells_know_their_places_and_macros() {
    let text = "/dts-v1/;\n#define A 7\n#define PAIR(x, y) x (y << 4)\n/ { p = <1 A PAIR(A, 2) &l>; l: n { }; };\n";
    with(&mut Files, &[source(text)], |parsed, all| {
        assert!(all.is_empty(), "{:?}", all.first().map(|d| show(&parsed, d)));
        let p = parsed.tree.root().property("p").unwrap();
        let cells: Vec<_> = p.cells().unwrap().collect();
        let values: Vec<_> = cells.iter().map(|c| c.value).collect();
        assert_eq!(values, [1, 7, 7, 32, 1]);
        let words: Vec<_> = cells.iter().map(|c| &text[c.span.start as usize..c.span.end as usize]).collect();
        assert_eq!(words[..2], ["1", "A"]);
        assert_eq!(words[4], "&l");
        let body = parsed.tree.expansion(cells[1].span).unwrap();
        assert_eq!(&text[body.start as usize..body.end as usize], "7");
        let target = parsed.tree.node(cells[4].target.unwrap());
        assert_eq!(target.name(), "n");
        assert_eq!(target.phandle(), Some(1));
        assert_eq!(parsed.tree.by_phandle(1), Some(target));
        assert_eq!(parsed.tree.by_label("l"), Some(target));
        assert_eq!(target.labels().collect::<Vec<_>>(), ["l"]);
    });
}

#[test]
fn overrides_keep_position_and_history() {
    let text = "/dts-v1/;\n/ { a = <1>; b; l: n { x; }; };\n/ { a = <2>; };\n&l { y; /delete-property/ x; };\n";
    with(&mut Files, &[source(text)], |parsed, all| {
        assert!(all.is_empty());
        let root = parsed.tree.root();
        assert_eq!(root.properties().map(|p| p.name()).collect::<Vec<_>>(), ["a", "b"]);
        let a = root.property("a").unwrap();
        assert_eq!(a.number(), Some(2));
        assert_eq!(a.replaced().unwrap().number(), Some(1));
        let n = root.child("n").unwrap();
        assert_eq!(n.properties().map(|p| p.name()).collect::<Vec<_>>(), ["y"]);
    });
}

#[test]
fn values_of_all_kinds() {
    let text = r#"/dts-v1/;
/memreserve/ 0x1000 0x2000;
/ {
	s = "a\tb\x41\0", "c";
	h = [00 1f ab cd];
	b = /bits/ 8 <1 0xff (-1)>, /bits/ 64 <0x1122334455667788>;
	c = <'a' '\n' (1 ? 2 : 3) (7 % 4 == 3 && !0) (~0 & 0xf0)>;
	p = &l;
	q = &{/l@1};
	l: l@1 { };
};
"#;
    with(&mut Files, &[source(text)], |parsed, all| {
        let root = parsed.tree.root();
        let shown: Vec<_> = all.iter().filter(|d| d.code.number < 200).map(|d| show(&parsed, d)).collect();
        assert!(shown.is_empty(), "{shown:?}");
        assert_eq!(root.property("s").unwrap().strings().map(|s| s.0).collect::<Vec<_>>(), ["a\tbA\0", "c"]);
        assert!(matches!(root.property("h").unwrap().values()[0].kind, ValueKind::Bytes([0, 0x1f, 0xab, 0xcd])));
        let b = root.property("b").unwrap();
        let ValueKind::Cells { bits: 8, cells } = b.values()[0].kind else { panic!() };
        assert_eq!(cells.iter().map(|c| c.value).collect::<Vec<_>>(), [1, 255, 255]);
        let c: Vec<_> = root.property("c").unwrap().cells().unwrap().map(|c| c.value).collect();
        assert_eq!(c, [97, 10, 2, 1, 0xf0]);
        assert!(matches!(root.property("p").unwrap().values()[0].kind, ValueKind::Path(_)));
        assert!(matches!(root.property("q").unwrap().values()[0].kind, ValueKind::Path(_)));
        assert_eq!(parsed.tree.reservations().len(), 1);
    });
}

#[test]
fn several_mistakes_are_all_reported() {
    let all = complaints(
        "/dts-v1/;\n/ {\n\ta = <1 FOO>;\n\tb = <&nowhere>;\n\tc = [1];\n\td = <1>\n\te = <0x1ffffffff>;\n\tn { };\n\tn { };\n};\n",
    );
    let codes: Vec<_> = all.iter().map(|c| c.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        codes,
        [
            "E0104 t.dts:3:9",
            "E0106 t.dts:5:7",
            "E0102 t.dts:6:8",
            "E0105 t.dts:7:7",
            "E0107 t.dts:9:2",
            "E0113 t.dts:4:7"
        ],
        "{all:#?}"
    );
}

#[test]
fn conditionals_and_includes() {
    let text = "/dts-v1/;\n#define X 3\n#if defined(X) && X > 2 && (Y == 0)\n/ { yes; };\n#elif 1\n/ { no; };\n#else\n/ { no; };\n#endif\n#ifdef Y\nit's #if junk\n#endif\n#undef X\n#ifndef X\n/ { also = \"X\"; };\n#endif\n";
    with(&mut Files, &[source(text)], |parsed, all| {
        assert!(all.is_empty(), "{}", show(&parsed, all[0]));
        assert_eq!(parsed.tree.root().properties().map(|p| p.name()).collect::<Vec<_>>(), ["yes", "also"]);
    });
}

#[test]
fn macros_do_as_cpp_does() {
    let text = "/dts-v1/;\n#define CAT(a, b) a##b\n#define STR(x) #x\n#define F(x) (x + F(1))\n#define EMPTY\n#define ADDR(a) CAT(a, 00)\n#define V(f, ...) f(__VA_ARGS__)\n#define SUM(a, b) (a + b)\n/ { p = <CAT(1, 2) EMPTY SUM(1, SUM(2, 3)) V(SUM, 4, 5)>; s = STR(a \"b\" c); node@ADDR(40) { reg = <0x4000>; }; };\n";
    with(&mut Files, &[source(text)], |parsed, all| {
        let shown: Vec<_> = all.iter().filter(|d| d.code.number < 200).map(|d| show(&parsed, d)).collect();
        assert!(shown.is_empty(), "{shown:?}");
        let root = parsed.tree.root();
        let p: Vec<_> = root.property("p").unwrap().cells().unwrap().map(|c| c.value).collect();
        assert_eq!(p, [12, 6, 9]);
        assert_eq!(root.property("s").unwrap().string(), Some("a \"b\" c"));
        assert!(root.child("node@4000").is_some());
    });
}

#[test]
fn macros_that_grow_without_end_are_stopped() {
    let mut text = String::from("/dts-v1/;\n#define A0 1\n");
    for i in 0..60 {
        text += &format!("#define A{} A{i} A{i}\n", i + 1);
    }
    text += "/ { p = <A60>; };\n";
    let all = complaints(&text);
    assert!(all.iter().any(|c| c.starts_with("E0104")), "{all:?}");
}
