//! The same source in two folders gives the same bytes.
//!
//! The repository is copied to a folder with another name; this program builds there too (it finds its repository at run
//! time), with target folders of its own. Compared are all formats of the demonstration, and of a layout with a PCI function.

use super::WITH_PCI;
use super::tally::Tally;
use crate::exec;
use crate::repo;
use crate::trouble::Trouble;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

const LIMIT: Duration = Duration::from_secs(900);

/// Copies, builds twice, compares.
pub(crate) fn run(tally: &mut Tally) -> Result<(), Trouble> {
    let copy = repo::target().join("test/another place");
    if copy.exists() {
        fs::remove_dir_all(&copy).map_err(Trouble::file(&copy, "remove"))?;
    }
    copy_sources(&repo::root(), &copy)?;
    let here = images(&repo::root(), &repo::target())?;
    let there = images(&copy, &copy.join("target"))?;
    for (a, b) in here.iter().zip(&there) {
        let name = a.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tally.check(format_args!("determinism {name}"), equal(&repo::read(a)?, &repo::read(b)?));
    }
    Ok(())
}

/// Builds all formats of both layouts in `root`.
fn images(root: &Path, target: &Path) -> Result<Vec<PathBuf>, Trouble> {
    let me = env::current_exe().map_err(Trouble::file(Path::new("/proc/self/exe"), "find"))?;
    let out = target.join("test/determinism");
    let pci = out.join("pci.dts");
    repo::write(&pci, WITH_PCI.as_bytes())?;
    let mut command = Command::new(me);
    command.current_dir(root).env("CARGO_MANIFEST_DIR", root.join("xtask")).env("CARGO_TARGET_DIR", target);
    // What is needed has been fetched for this program already.
    command.env("CARGO_NET_OFFLINE", "true");
    command.args(["image", "layouts/demo.dts"]).arg(pci).args(["--format", "image,elf,flash", "-o"]).arg(&out);
    exec::text(&mut command, LIMIT)?;
    let formats = ["Image", "elf", "flash"];
    Ok(["demo", "pci"].iter().flat_map(|name| formats.map(|format| out.join(format!("{name}.{format}")))).collect())
}

fn equal(a: &[u8], b: &[u8]) -> Result<(), String> {
    if a.len() != b.len() {
        return Err(format!("{} bytes and {} bytes", a.len(), b.len()));
    }
    match a.iter().zip(b).position(|(a, b)| a != b) {
        Some(at) => Err(format!("they differ first at byte {at:#x}")),
        None => Ok(()),
    }
}

/// Everything but what is built and what git keeps.
fn copy_sources(from: &Path, to: &Path) -> Result<(), Trouble> {
    fs::create_dir_all(to).map_err(Trouble::file(to, "make"))?;
    for entry in fs::read_dir(from).map_err(Trouble::file(from, "list"))?.flatten() {
        let name = entry.file_name();
        if name == "target" || name == ".git" {
            continue;
        }
        let (path, to) = (entry.path(), to.join(name));
        if path.is_dir() {
            copy_sources(&path, &to)?;
        } else {
            fs::copy(&path, &to).map_err(Trouble::file(&path, "copy"))?;
        }
    }
    Ok(())
}
