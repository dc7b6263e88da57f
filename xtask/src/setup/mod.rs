//! `cargo xtask setup`: finds the tools the other commands need, and installs what is missing.
//!
//! Three things: QEMU ≥ 10, dtc (tests only), and a core library for the bare-metal target; gdb when it is first asked for. What was found is kept in
//! `target/setup/`, with size and time of the files it rests on: a second call compares those and starts no process. The
//! user's apt sources and Rust default are never touched.

mod apt;
mod bindings;
mod core_library;
mod packages;
mod stamp;

pub(crate) use bindings::{Bindings, bindings};
pub(crate) use core_library::{CoreLibrary, TARGET, core_library};
pub(crate) use packages::unpacked;
pub(crate) use stamp::Stamp;

use crate::exec;
use crate::repo;
use crate::trouble::{Done, Trouble};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Find the tools, install what is missing (QEMU >= 10, dtc, a core library for the bare-metal target)
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Oldest QEMU whose `virt` machine behaves as the tests expect.
const QEMU_MAJOR: u32 = 10;

/// Everything at once, each on a line of standard output.
pub(crate) fn main(_: &Args) -> Done {
    println!("qemu: {}", qemu()?.display());
    println!("dtc: {}", dtc()?.display());
    println!("core library: {}", core_library()?);
    Ok(0)
}

/// All tools, silently where nothing is missing. For `run` and `test`.
pub(crate) fn all() -> Result<(), Trouble> {
    qemu()?;
    dtc()?;
    core_library()?;
    Ok(())
}

/// `qemu-system-aarch64`, at least version 10.
pub(crate) fn qemu() -> Result<PathBuf, Trouble> {
    tool("qemu-system-aarch64", "qemu-system-arm", &format!("QEMU {QEMU_MAJOR} or newer"), |path| {
        let version = exec::text(Command::new(path).arg("--version"), Duration::from_secs(20))?;
        let major = version.split("version ").nth(1).and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        Ok(major.is_some_and(|major| major >= QEMU_MAJOR))
    })
}

/// The device-tree compiler, oracle of the front end's tests.
pub(crate) fn dtc() -> Result<PathBuf, Trouble> {
    tool("dtc", "device-tree-compiler", "dtc", |_| Ok(true))
}

/// gdb for AArch64: one that knows many architectures, or a cross toolchain's. Asked for on demand only.
pub(crate) fn gdb() -> Result<PathBuf, Trouble> {
    let good = |path: &Path| {
        let mut gdb = Command::new(path);
        gdb.args(["-nx", "-batch", "-ex", "set architecture aarch64", "-ex", "show architecture"]);
        let said = exec::output(&mut gdb, Duration::from_secs(20))?;
        Ok(String::from_utf8_lossy(&said.stdout).contains("\"aarch64\""))
    };
    for program in ["gdb-multiarch", "aarch64-linux-gnu-gdb", "aarch64-none-elf-gdb", "aarch64-elf-gdb", "gdb"] {
        if let Some(path) = repo::which(program)
            && good(&path)?
        {
            return Ok(path);
        }
    }
    tool("gdb-multiarch", "gdb-multiarch", "gdb for AArch64", good)
}

/// `program` from `PATH` where it is good enough, else from Debian's `package`.
fn tool(
    program: &str,
    package: &str,
    what: &str,
    good: impl Fn(&Path) -> Result<bool, Trouble>,
) -> Result<PathBuf, Trouble> {
    let stamp = Stamp::new(program, "");
    if let Some(known) = stamp.holds()
        && let Some(path) = known.first()
        && repo::which(program).as_deref() == Some(path)
    {
        return Ok(path.clone());
    }
    let find = || -> Result<Option<PathBuf>, Trouble> {
        match repo::which(program) {
            Some(path) if good(&path)? => Ok(Some(path)),
            _ => Ok(None),
        }
    };
    let path = match find()? {
        Some(path) => path,
        None => {
            apt::install(&[package], what)?;
            find()?.ok_or_else(|| Trouble::Missing {
                what: format!("{what} (the package {package} does not offer it here)"),
                way_out: format!("install {what} and put {program} into PATH"),
            })?
        }
    };
    stamp.keep(std::slice::from_ref(&path))?;
    Ok(path)
}
