//! The device trees guests are given, as others read them: `dtc` with every warning, and the schemas of dtschema and Linux.
//!
//! Over every layout of `layouts/` and `qemu/tests`, so that whatever the repository shows or tries is held against them.

use super::boards;
use super::fixtures::dts_files;
use super::tally::Tally;
use crate::exec;
use crate::files::Files;
use crate::guests::{self, Guests};
use crate::pipeline::{self, Job, Options};
use crate::repo;
use crate::setup;
use crate::trouble::Trouble;
use cofferdam_plan::Plan;
use cofferdam_plan::audit::payload;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use zerocopy::IntoBytes;

const LIMIT: Duration = Duration::from_secs(60);
/// Checks of dtc that are off unless asked for.
const STRICT: &[&str] = &["unique_unit_address_if_enabled", "deprecated_gpio_property", "node_name_chars_strict"];
/// What dtc and the bindings disagree about: dtc before 1.7 wants `#address-cells` of every interrupt controller, the binding
/// of the PL061 knows no such property.
const DISPUTED: &str = "(arm,pl061): '#address-cells' does not match any of the regexes";

/// One test per layout for dtc, one for the schemas over all trees.
pub(crate) fn run(tally: &mut Tally) -> Result<(), Trouble> {
    let root = repo::root();
    let dtc = setup::dtc()?;
    let bindings = setup::bindings()?;
    let options = Options { guest_dir: vec![guests::attackers()?], ..Options::default() };
    let mut trees = Vec::new();
    for folder in ["layouts", "qemu/tests"] {
        for layout in dts_files(&root.join(folder))? {
            let made = trees_of(&layout, &options)?;
            let name = layout.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            tally.check(format_args!("guest-tree dtc {name}"), warnings(&dtc, &made)?);
            trees.extend(made);
        }
    }
    let said = bindings.validate(&root.join("schemas"), None, &trees)?;
    // A complaint has a second line, with the schema it comes from.
    let mut lines = said.lines();
    let mut open = String::new();
    while let Some(line) = lines.next() {
        if line.contains(DISPUTED) {
            lines.next();
        } else {
            open += &format!("{line}\n");
        }
    }
    let outcome = if open.is_empty() { Ok(()) } else { Err(open) };
    tally.check(format_args!("guest-tree dt-validate, {} trees", trees.len()), outcome);
    boards::run(&dtc, &bindings, tally)
}

/// Writes the generated trees of a layout and gives their paths.
fn trees_of(layout: &Path, options: &Options) -> Result<Vec<PathBuf>, Trouble> {
    let files = Files::default();
    // Debian's guests need not be fetched for their trees.
    let foreign = String::from_utf8_lossy(&repo::read(layout)?).contains("\"debian/");
    let guests = Guests::new(layout, &options.guest_dir, foreign);
    let job = Job { layout, options, hypervisors: None, guests: &guests, files: &files };
    pipeline::compile(&job, |outcome| {
        let bad = |why: &str| Trouble::other(format!("{}: {why}", repo::shown(layout)));
        let Some(compiled) = outcome.compiled else { return Err(bad("there is no plan")) };
        let blob = compiled.blob.as_bytes();
        let mut trees = Vec::new();
        if blob.is_empty() {
            return Ok(trees); // no hypervisor for this architecture
        }
        let plan = Plan::read_whole(blob).map_err(|_| bad("the plan cannot be read back"))?;
        let audit = plan.audit().map_err(|_| bad("the plan cannot be read back"))?;
        for tree in audit.payloads.iter().filter(|p| p.kind == payload::DTB && p.name.len == 0) {
            let from = tree.offset.saturating_sub(compiled.blob_offset) as usize;
            let bytes = blob.get(from..from + tree.len as usize).ok_or_else(|| bad("a tree outside the plan"))?;
            let domain = plan.domains.get(tree.domain as usize).map_or("", |domain| domain.name());
            let stem = layout.file_stem().unwrap_or_default().to_string_lossy();
            let path = repo::target().join("guest-trees").join(format!("{stem}.{domain}.dtb"));
            repo::write(&path, bytes)?;
            trees.push(path);
        }
        Ok(trees)
    })
}

/// What dtc has against `trees`.
fn warnings(dtc: &Path, trees: &[PathBuf]) -> Result<Result<(), String>, Trouble> {
    let mut report = String::new();
    for tree in trees {
        let mut command = Command::new(dtc);
        command.args(["-I", "dtb", "-O", "dts", "-o", "/dev/null"]);
        command.args(STRICT.iter().map(|check| format!("-W{check}"))).arg(tree);
        let output = exec::output(&mut command, LIMIT)?;
        if !output.status.success() || !output.stderr.is_empty() {
            report += &format!("{}: {}", repo::shown(tree), String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(if report.is_empty() { Ok(()) } else { Err(report) })
}
