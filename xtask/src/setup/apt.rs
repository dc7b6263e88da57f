//! Installs Debian packages without touching the user's apt configuration.
//!
//! Sources and lists live in a private folder given by `-o Dir::…`; the package cache files are switched off, so that the
//! user's next `apt` sees nothing of it. Backports are needed on Debian 12 only, whose own QEMU is 7.2.

use crate::exec;
use crate::repo;
use crate::trouble::Trouble;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const ARCHIVE: &str = "http://deb.debian.org/debian";
const KEY: &str = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
/// An archive that hangs must not hang us.
const UPDATE_LIMIT: Duration = Duration::from_secs(300);
const INSTALL_LIMIT: Duration = Duration::from_secs(1200);

/// Installs `packages`, needed for `what`.
///
/// # Errors
/// Not a Debian, no right to install, or apt-get fails: each with the command to type.
pub(crate) fn install(packages: &[&str], what: &str) -> Result<(), Trouble> {
    let list = packages.join(" ");
    let missing = |way_out: String| Trouble::Missing { what: what.into(), way_out };
    let by_hand = format!("install {what} by hand (on Debian and Ubuntu: `sudo apt-get install {list}`)");
    let Some(suite) = debian_suite() else { return Err(missing(by_hand)) };
    if repo::which("apt-get").is_none() {
        return Err(missing(by_hand));
    }
    let dir = repo::cache().join("apt");
    let backports = if suite == "bookworm" { " -t bookworm-backports" } else { "" };
    let command = format!(
        "add the suites {suite}, {suite}-updates, {suite}-security{} to apt's sources and type: sudo apt-get install{backports} {list}",
        if backports.is_empty() { "" } else { ", bookworm-backports" }
    );
    let Some(prefix) = privilege() else {
        return Err(missing(format!("you are not root and there is no sudo; {command}")));
    };
    eprintln!("setup: installing {list} for {what}");
    let sources = dir.join("sources.list");
    repo::write(&sources, sources_list(&suite).as_bytes())?;
    let lists = dir.join("lists");
    fs::create_dir_all(lists.join("partial")).map_err(Trouble::file(&lists, "make"))?;
    let apt = |args: &[&str], limit| {
        let mut apt = apt_get(prefix, &sources, &lists);
        exec::run(apt.args(args).stdin(Stdio::null()).stdout(std::io::stderr()), limit)
    };
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    if suite == "bookworm" {
        install.extend(["-t", "bookworm-backports"]);
    }
    install.extend(packages);
    let done = apt(&["update"], UPDATE_LIMIT).and_then(|()| apt(&install, INSTALL_LIMIT));
    // The lists belong to root and are large; what they were for is installed.
    let _ = remove(prefix, &lists);
    done.map_err(|trouble| missing(format!("apt-get failed ({trouble}); {command}")))
}

/// Downloads the upstream archive of a source package of Debian's `suite`, needed for `what`: a folder of ours, and the
/// archive in it.
///
/// # Errors
/// No apt-get, or it fails: with the file to put where.
pub(crate) fn source(package: &str, version: &str, suite: &str, what: &str) -> Result<(PathBuf, PathBuf), Trouble> {
    let dir = repo::cache().join(format!("{package}-{version}"));
    let find = || {
        let files = fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let start = format!("{package}_{version}.orig.tar.");
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.filter(|path| name(path).starts_with(&start) && !name(path).ends_with(".asc")).min()
    };
    let way_out = format!(
        "put the file {package}_{version}.orig.tar.* of Debian's source package {package} ({suite}) into {}",
        dir.display()
    );
    let missing =
        |why: &dyn std::fmt::Display| Trouble::Missing { what: what.into(), way_out: format!("{way_out} ({why})") };
    if find().is_none() {
        if repo::which("apt-get").is_none() {
            return Err(missing(&"there is no apt-get"));
        }
        eprintln!("setup: downloading the source package {package} for {what}");
        let sources = dir.join("sources.list");
        repo::write(&sources, format!("deb-src {KEY} {ARCHIVE} {suite} main\n").as_bytes())?;
        let lists = dir.join("lists");
        fs::create_dir_all(lists.join("partial")).map_err(Trouble::file(&lists, "make"))?;
        let apt = |args: &[&str], limit| {
            let mut apt = apt_get(&[], &sources, &lists);
            exec::run(apt.current_dir(&dir).args(args).stdin(Stdio::null()).stdout(std::io::stderr()), limit)
        };
        let done = apt(&["update"], UPDATE_LIMIT)
            .and_then(|()| apt(&["source", "--download-only", "--tar-only", package], INSTALL_LIMIT));
        let _ = fs::remove_dir_all(&lists);
        done.map_err(|trouble| missing(&trouble))?;
    }
    let archive = find().ok_or_else(|| missing(&"the suite has another version now"))?;
    Ok((dir, archive))
}

/// `VERSION_CODENAME` of a Debian, `None` elsewhere.
fn debian_suite() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_string())
    };
    (field("ID")? == "debian").then(|| field("VERSION_CODENAME"))?
}

/// What to put before `apt-get`: nothing for root, `sudo` where there is one.
fn privilege() -> Option<&'static [&'static str]> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    match () {
        () if root => Some(&[]),
        () if repo::which("sudo").is_none() => None,
        // A terminal can be asked for the password; a script cannot.
        () if std::io::stdin().is_terminal() => Some(&["sudo"]),
        () => Some(&["sudo", "-n"]),
    }
}

fn apt_get(prefix: &[&str], sources: &Path, lists: &Path) -> Command {
    let words = prefix.iter().copied().chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]);
    let words: Vec<_> = words.map(String::from).chain(private(sources, lists)).collect();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// Options that make apt read `sources` alone, keep its lists in `lists` and write no cache of its own.
pub(super) fn private(sources: &Path, lists: &Path) -> Vec<String> {
    let options = [
        format!("Dir::Etc::SourceList={}", sources.display()),
        "Dir::Etc::SourceParts=/dev/null".into(),
        format!("Dir::State::Lists={}", lists.display()),
        "Dir::Cache::pkgcache=".into(),
        "Dir::Cache::srcpkgcache=".into(),
        // The lists lie in a user's folder, which apt's own download user may not enter.
        "APT::Sandbox::User=root".into(),
        "DPkg::Lock::Timeout=120".into(),
        "Acquire::http::Timeout=30".into(),
        "Acquire::Retries=2".into(),
    ];
    options.into_iter().flat_map(|option| ["-o".into(), option]).collect()
}

fn remove(prefix: &[&str], dir: &Path) -> Result<(), Trouble> {
    let words: Vec<&str> = prefix.iter().copied().chain(["rm", "-rf", "--"]).collect();
    exec::run(Command::new(words[0]).args(&words[1..]).arg(dir), Duration::from_secs(60))
}

/// Debian's archives of `suite`, signatures checked.
pub(super) fn sources_list(suite: &str) -> String {
    let mut text = String::new();
    for part in [suite.to_string(), format!("{suite}-updates"), format!("{suite}-backports")] {
        // Debian's next release has no backports of itself; only Debian 12 needs them.
        if part.ends_with("-backports") && suite != "bookworm" {
            continue;
        }
        text += &format!("deb {KEY} {ARCHIVE} {part} main\n");
    }
    text + &format!("deb {KEY} {ARCHIVE}-security {suite}-security main\n")
}
