//! Turns `docs/codes/*.md` into the table behind `explain`: adding a code is adding a file.

use std::{env, fmt::Write, fs, path::Path};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let codes = Path::new(&root).join("../docs/codes");
    println!("cargo::rerun-if-changed={}", codes.display());
    let mut names: Vec<String> = fs::read_dir(&codes)
        .expect("docs/codes exists")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.strip_suffix(".md").map(String::from))
        .filter(|name| name.len() == 5 && name.starts_with(['E', 'W']))
        .collect();
    names.sort();
    let mut table = String::from("&[\n");
    for name in names {
        let path = codes.join(format!("{name}.md"));
        let path = path.canonicalize().expect("the file was just listed");
        writeln!(table, "(\"{name}\", include_str!({path:?})),").expect("writing to a string");
    }
    table.push(']');
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("codes.rs"), table).expect("OUT_DIR is writable");
}
