//! A core library for `aarch64-unknown-none-softfloat`, by whichever way works.
//!
//! rustup's target where it is there or can be fetched; else Debian's compiler with its library sources, from which cargo
//! builds core itself. Debian's way needs the linker of the rustup toolchain, because Debian does not ship `rust-lld`.

use super::apt;
use super::stamp::Stamp;
use crate::exec;
use crate::repo;
use crate::trouble::Trouble;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fmt, fs};

/// The bare-metal target: EL2 must never touch a guest's FP and SIMD registers.
pub(crate) const TARGET: &str = "aarch64-unknown-none-softfloat";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/core/src/lib.rs";
/// `rustup target add` waits for ever on some networks.
const RUSTUP_LIMIT: Duration = Duration::from_secs(240);
const ASK: Duration = Duration::from_secs(30);

/// How code for the target is compiled on this machine.
#[derive(Clone, Debug)]
pub(crate) enum CoreLibrary {
    /// The active toolchain has the target.
    Rustup,
    /// Debian's compiler builds core; linked with this `rust-lld`.
    Debian { lld: PathBuf },
}

impl fmt::Display for CoreLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustup => f.write_str("the active toolchain's"),
            Self::Debian { .. } => write!(f, "built from Debian's source by {DEBIAN_RUSTC}"),
        }
    }
}

impl CoreLibrary {
    /// Makes `cargo` (a `cargo build`) compile for the target this way.
    pub(crate) fn apply(&self, cargo: &mut Command) {
        cargo.args(["--target", TARGET]);
        if let Self::Debian { lld } = self {
            cargo.arg("-Zbuild-std=core");
            cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
            cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_LINKER", lld);
        }
    }

    /// Folders whose names must not reach the output: where the library's own source lies.
    pub(crate) fn source_folders(&self) -> Vec<PathBuf> {
        match self {
            Self::Rustup => Vec::new(),
            Self::Debian { .. } => vec![PathBuf::from("/usr/lib/rustlib/src/rust"), PathBuf::from("/usr/src")],
        }
    }
}

/// Finds or installs it. `COFFERDAM_CORE=rustup` or `=debian` allows only that way.
pub(crate) fn core_library() -> Result<CoreLibrary, Trouble> {
    let only = env::var("COFFERDAM_CORE").unwrap_or_default();
    let toolchain = env::var("RUSTUP_TOOLCHAIN").unwrap_or_default();
    let stamp = Stamp::new("core", &format!("{toolchain} {only}"));
    if let Some(files) = stamp.holds() {
        return match files.as_slice() {
            [_] => Ok(CoreLibrary::Rustup),
            [_, _, lld] => Ok(CoreLibrary::Debian { lld: lld.clone() }),
            _ => Err(Trouble::other("target/setup/core.stamp is damaged; remove it")),
        };
    }
    let sysroot = exec::text(Command::new("rustc").args(["--print", "sysroot"]), ASK)?;
    let sysroot = PathBuf::from(sysroot.trim());
    if only != "debian" {
        if let Some(core) = target_core(&sysroot) {
            stamp.keep(&[core])?;
            return Ok(CoreLibrary::Rustup);
        }
        // What is there beats what must be fetched.
        if !(only.is_empty() && debian_present() && lld(&sysroot).is_some()) {
            rustup_target_add();
            if let Some(core) = target_core(&sysroot) {
                stamp.keep(&[core])?;
                return Ok(CoreLibrary::Rustup);
            }
        }
    }
    let way_out = format!("type: rustup target add {TARGET}");
    if only == "rustup" {
        return Err(Trouble::Missing { what: format!("a core library for {TARGET}"), way_out });
    }
    let Some(lld) = lld(&sysroot) else {
        return Err(Trouble::Missing {
            what: format!("a core library for {TARGET}, and rust-lld to link with"),
            way_out,
        });
    };
    if !debian_present() {
        apt::install(&["rustc-web", "rust-web-src"], &format!("a core library for {TARGET}"))?;
    }
    if !debian_present() {
        return Err(Trouble::Missing {
            what: format!("a core library for {TARGET}"),
            way_out: format!("{way_out}, or on Debian: sudo apt-get install rustc-web rust-web-src"),
        });
    }
    stamp.keep(&[DEBIAN_RUSTC.into(), DEBIAN_SOURCE.into(), lld.clone()])?;
    Ok(CoreLibrary::Debian { lld })
}

/// The target's `libcore-….rlib` in a sysroot.
fn target_core(sysroot: &Path) -> Option<PathBuf> {
    let lib = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    fs::read_dir(lib).ok()?.filter_map(|entry| Some(entry.ok()?.path())).find(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

/// `rust-lld` of the active toolchain, whatever the host is called.
fn lld(sysroot: &Path) -> Option<PathBuf> {
    let hosts = fs::read_dir(sysroot.join("lib/rustlib")).ok()?;
    hosts.filter_map(|entry| Some(entry.ok()?.path().join("bin/rust-lld"))).find(|path| path.is_file())
}

fn debian_present() -> bool {
    Path::new(DEBIAN_RUSTC).is_file() && Path::new(DEBIAN_SOURCE).is_file()
}

/// Tries to fetch the target. Whether it worked is seen by looking for the library.
fn rustup_target_add() {
    if repo::which("rustup").is_none() {
        return;
    }
    eprintln!("setup: rustup target add {TARGET} (at most {} s)", RUSTUP_LIMIT.as_secs());
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]).stdin(Stdio::null()).stdout(std::io::stderr());
    if let Err(trouble) = exec::run(&mut rustup, RUSTUP_LIMIT) {
        eprintln!("setup: {trouble}; trying Debian's packages instead");
    }
}
