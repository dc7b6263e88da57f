//! Building for the bare-metal target: the hypervisor, the unikernel examples, the guests of the boot tests.
//!
//! The same source gives the same bytes in any folder: every path that could reach the output is remapped, and what is
//! shipped carries no debug information. The ELF with symbols stays in `target/cross`.

use crate::exec;
use crate::repo;
use crate::setup::{self, Stamp};
use crate::trouble::{Done, Trouble};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{env, fs};

/// Build a package for the bare-metal target, as image and run do on demand; prints the ELF files
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Package in the workspace, for example cofferdam-hyp-min
    package: String,
    /// Its example instead of its programs
    #[arg(long)]
    example: Option<String>,
}

/// The command itself.
pub(crate) fn main(args: &Args) -> Done {
    let what = match &args.example {
        Some(name) => Item::Example(name.clone()),
        None => Item::Bins,
    };
    let mut found = build(&args.package, &what)?;
    if args.package == HYPERVISOR && args.example.is_none() {
        found.extend(build(HYPERVISOR, &Item::BinsWith(PCI))?);
    }
    for path in found {
        println!("{}", repo::shown(&path));
    }
    Ok(0)
}

/// The hypervisor's package.
pub(crate) const HYPERVISOR: &str = "cofferdam-hyp-min";
/// Its feature without which it has no code for PCI.
pub(crate) const PCI: &str = "pci";
/// The feature with which guests are built for the target.
pub(crate) const GUEST: &str = "guest";
/// The unikernel's package, whose examples are guests.
pub(crate) const UNIKERNEL: &str = "cofferdam-unikernel";
/// The boot tests' guests.
pub(crate) const ATTACKERS: &str = "cofferdam-attackers";

/// The hypervisor is to be small. In LLVM's counts, which are about instructions: inlined is only what hot paths mark
/// `#[inline(always)]` and what is no longer than a call; unrolled is only a loop that has 40 at most when it is (the default
/// is 150); a block's end of one is copied to save a jump, of more it is not. (RUSTFLAGS, each behind a separator.)
const SMALL: &str = "\u{1f}-Cllvm-args=--inline-threshold=0 --unroll-threshold=40 --tail-dup-placement-threshold=1";

/// What of a package is built.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// All its programs.
    Bins,
    /// The same with a feature of the package, apart from those without.
    BinsWith(&'static str),
    /// One example.
    Example(String),
}

impl Item {
    fn name(&self) -> &str {
        match self {
            Self::Bins => "bins",
            Self::BinsWith(feature) => feature,
            Self::Example(name) => name,
        }
    }

    /// Where what is built of it goes. Programs with and without a feature have the same name.
    fn target_dir(&self) -> PathBuf {
        match self {
            Self::BinsWith(feature) => target_dir().join(feature),
            Self::Bins | Self::Example(_) => target_dir(),
        }
    }
}

/// Building core takes a minute on a slow machine; more than this is a hang.
const LIMIT: Duration = Duration::from_secs(900);

/// Builds `item` of `package` in release mode; gives the ELF files, with symbols.
///
/// # Errors
/// No core library, or the build fails (its messages went to standard error).
pub(crate) fn build(package: &str, item: &Item) -> Result<Vec<PathBuf>, Trouble> {
    let core = setup::core_library()?;
    let mut flags = rustflags(&core);
    if package == HYPERVISOR {
        flags += SMALL;
    }
    // Asking cargo costs more than compiling a layout; where no source has changed since, the answer is known.
    let toolchain = env::var("RUSTUP_TOOLCHAIN").unwrap_or_default();
    let stamp = Stamp::new(&format!("cross-{package}-{}", item.name()), &format!("{core} {toolchain} {flags}"));
    if let Some(files) = stamp.holds() {
        return Ok(files.into_iter().filter(|file| file.starts_with(target_dir())).collect());
    }
    let found = cargo_build(package, item, &core, &flags)?;
    let mut files: BTreeSet<PathBuf> = found.iter().cloned().collect();
    for program in &found {
        files.extend(sources(program)?);
    }
    stamp.keep(&files.into_iter().collect::<Vec<_>>())?;
    Ok(found)
}

/// What `program` was built from: cargo's dependency file beside it, and the manifests above each source.
pub(crate) fn sources(program: &Path) -> Result<BTreeSet<PathBuf>, Trouble> {
    let list = program.with_extension("d");
    let text = String::from_utf8_lossy(&repo::read(&list)?).into_owned();
    let (_, text) = text.split_once(": ").ok_or_else(|| Trouble::other(format!("{} is damaged", list.display())))?;
    let root = repo::root();
    let mut files = BTreeSet::from([root.join("Cargo.toml"), root.join("Cargo.lock")]);
    // A space within a path is written as `\ `.
    for path in text.trim().replace("\\ ", "\0").split(' ').map(|path| PathBuf::from(path.replace('\0', " "))) {
        let above = path.ancestors().take_while(|folder| folder.starts_with(&root));
        files.extend(above.map(|folder| folder.join("Cargo.toml")).filter(|manifest| manifest.is_file()));
        files.insert(path);
    }
    Ok(files)
}

/// Asks cargo.
fn cargo_build(package: &str, item: &Item, core: &setup::CoreLibrary, flags: &str) -> Result<Vec<PathBuf>, Trouble> {
    let mut cargo = exec::cargo_build();
    cargo.args(["--release", "--package", package]);
    eprintln!("build: {package} for {}", setup::TARGET);
    if package != HYPERVISOR {
        cargo.args(["--features", GUEST]);
    }
    match item {
        Item::Bins => cargo.arg("--bins"),
        Item::BinsWith(feature) => cargo.args(["--bins", "--features", feature]),
        Item::Example(name) => cargo.args(["--example", name]),
    };
    core.apply(&mut cargo);
    cargo.arg("--target-dir").arg(item.target_dir());
    // What they are made of is shared. (A cargo before 1.91 does not know this, and builds it twice.)
    cargo.env("CARGO_BUILD_BUILD_DIR", target_dir());
    cargo.args(["--message-format", "json-render-diagnostics"]);
    // Replaces whatever flags the caller has: they would change the bytes.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags);
    cargo.stdin(Stdio::null()).stdout(Stdio::piped());
    let start = |source| Trouble::Start { program: "cargo".into(), source };
    let mut child = cargo.spawn().map_err(start)?;
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || stdout.map(std::io::read_to_string).unwrap_or(Ok(String::new())));
    let status = exec::wait(&mut child, LIMIT).map_err(start)?;
    let messages = reader.join().ok().and_then(Result::ok).unwrap_or_default();
    match status {
        None => return Err(Trouble::TimeOver { program: "cargo build".into(), seconds: LIMIT.as_secs() }),
        Some(status) if !status.success() => {
            return Err(Trouble::other(format!("{package} cannot be built for {}", setup::TARGET)));
        }
        Some(_) => {}
    }
    let mut found: Vec<PathBuf> = messages.lines().filter_map(executable).collect();
    found.sort();
    if found.is_empty() {
        return Err(Trouble::other(format!("{package} has no program for {}", setup::TARGET)));
    }
    Ok(found)
}

/// Where cross builds lie: apart from the host's, so that neither rebuilds the other.
fn target_dir() -> PathBuf {
    repo::target().join("cross")
}

/// The value of `"executable"` in one of cargo's messages. Cargo writes it as a plain JSON string.
fn executable(line: &str) -> Option<PathBuf> {
    let (_, rest) = line.split_once("\"executable\":\"")?;
    let (path, _) = rest.split_once('"')?;
    Some(PathBuf::from(path.replace("\\\\", "\\")))
}

/// Compiler flags: no absolute path may reach the output.
fn rustflags(core: &setup::CoreLibrary) -> String {
    let mut maps = vec![(repo::root(), ".".to_string())];
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    if let Some(cargo) = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"))) {
        let registry = cargo.join("registry/src");
        for index in fs::read_dir(registry).into_iter().flatten().flatten() {
            maps.push((index.path(), "registry".into()));
        }
    }
    maps.extend(core.source_folders().into_iter().map(|folder| (folder, "rust".into())));
    let flags = maps.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    flags.collect::<Vec<_>>().join("\u{1f}")
}
