//! Boards, and boards with one wrong value each, before the schemas of `schemas/`: what only we know of a board's nodes.
//!
//! Linux' own schemas are left out: a board is described as far as the compiler needs it. Boards are preprocessed as kernels' are.

use super::fixtures::dts_files;
use super::tally::Tally;
use crate::exec;
use crate::repo;
use crate::setup::Bindings;
use crate::trouble::Trouble;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// The board that is damaged, in all places where the first text stands, and what a schema must find.
const WRONG_OF: &str = "qemu-virt-pci";
const WRONG: &[(&str, &str, &str)] = &[
    ("capability-between-dwords", "<0x40 0x00408011", "<0x42 0x00408011"),
    ("capability-in-the-header", "<0x40 0x00408011", "<0x3c 0x00408011"),
    ("capability-of-three-cells", "<0x40 0x00800005 0x00000000 0x00000000>", "<0x40 0x00800005 0x00000000>"),
    ("capabilities-as-text", "<0x40 0x00800005 0x00000000 0x00000000>", "\"0x40\""),
    ("vendor-of-nothing", "vendor-id = <0x1b36>", "vendor-id = <0xffff>"),
    ("class-of-four-bytes", "class-code = <0x010802>", "class-code = <0x1010802>"),
    (
        "physical-function-of-two-cells",
        "revision-id = <0x10>;",
        "revision-id = <0x10>; cofferdam,physical-function = <1 2>;",
    ),
    ("function-word", "revision-id = <0x10>;", "revision-id = <0x10>; cofferdam,resets;"),
    ("two-registers", "<0x0d44101b 0x02730010 0x00000074>", "<0x0d44101b 0x02730010>"),
    ("smmu-word", "cofferdam,idr =", "cofferdam,oas = <44>; cofferdam,idr ="),
    ("trap-wfi-with-a-value", "\"arm,gic-v3\";", "\"arm,gic-v3\"; cofferdam,trap-wfi = <1>;"),
    ("gic-word", "\"arm,gic-v3\";", "\"arm,gic-v3\"; cofferdam,trap-wfi; cofferdam,trap-wfe;"),
    ("boot-medium-with-a-value", "cofferdam,boot-medium;", "cofferdam,boot-medium = <1>;"),
];

/// One test over all boards, one for each damage.
pub(super) fn run(dtc: &Path, bindings: &Bindings, tally: &mut Tally) -> Result<(), Trouble> {
    let schemas = repo::root().join("schemas");
    let folder = repo::target().join("board-trees");
    let (mut boards, mut wrong) = (Vec::new(), Vec::new());
    for board in dts_files(&repo::root().join("dts"))? {
        let name = board.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = preprocessed(&board)?;
        boards.push(blob(dtc, &folder, &name, &text)?);
        for (what, from, to) in WRONG.iter().filter(|_| name == WRONG_OF) {
            if !text.contains(from) {
                return Err(Trouble::other(format!("{}: no `{from}` to damage", repo::shown(&board))));
            }
            wrong.push(blob(dtc, &folder, what, &text.replace(from, to))?);
        }
    }
    let said = bindings.validate(&schemas, Some("cofferdam"), &boards)?;
    let outcome = if said.is_empty() { Ok(()) } else { Err(said) };
    tally.check(format_args!("guest-tree dt-validate, {} boards", boards.len()), outcome);
    let said = bindings.validate(&schemas, Some("cofferdam"), &wrong)?;
    for (what, ..) in WRONG {
        let found = said.contains(&format!("/{what}.dtb: "));
        let outcome = if found { Ok(()) } else { Err("no schema finds anything wrong".to_owned()) };
        tally.check(format_args!("guest-tree dt-validate refuses {what}"), outcome);
    }
    Ok(())
}

/// The text of a board without macros and includes.
fn preprocessed(board: &Path) -> Result<String, Trouble> {
    let mut cc = Command::new("cc");
    cc.args(["-E", "-P", "-nostdinc", "-undef", "-x", "assembler-with-cpp"]).arg(board);
    exec::text(&mut cc, LIMIT)
}

fn blob(dtc: &Path, folder: &Path, name: &str, text: &str) -> Result<PathBuf, Trouble> {
    let source = folder.join(format!("{name}.dts"));
    let path = source.with_extension("dtb");
    repo::write(&source, text.as_bytes())?;
    let mut command = Command::new(dtc);
    command.args(["-q", "-O", "dtb", "-o"]).arg(&path).arg(&source);
    exec::text(&mut command, LIMIT)?;
    Ok(path)
}
