//! Files out of Debian's arm64 packages: what guests nobody here wrote are made of.
//!
//! Downloaded by apt, which checks the archive's signatures, with a private configuration, without root, and unpacked
//! into the cache. Nothing is installed. One suite whatever this machine runs, so that everybody tests the same kernel.

use super::apt;
use crate::exec;
use crate::repo;
use crate::trouble::Trouble;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// Debian 12.
const SUITE: &str = "bookworm";
const UPDATE_LIMIT: Duration = Duration::from_secs(300);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(900);
const UNPACK_LIMIT: Duration = Duration::from_secs(120);
const ASK: Duration = Duration::from_secs(60);

/// Two threads that want the same package must not fetch it twice.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The folder with the unpacked files of the arm64 package `name`, fetched where it is not there yet. A metapackage, which
/// has no files, stands for the package it depends on whose name starts as its own does.
///
/// # Errors
/// No apt, no network, a signature that does not hold: with what to do.
pub(crate) fn unpacked(name: &str) -> Result<PathBuf, Trouble> {
    let _one = ONE_AT_A_TIME.lock();
    let top = repo::cache().join("debian");
    let folder = top.join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    fetch(name, &top, &folder).map_err(|trouble| Trouble::Missing {
        what: format!("Debian's package {name} (arm64, {SUITE})"),
        way_out: format!(
            "its fetch failed ({trouble}); it needs apt-get, dpkg-deb, Debian's archive keyring and deb.debian.org. \
             Or unpack it by hand: dpkg-deb -x {name}_….deb {}",
            folder.display()
        ),
    })?;
    Ok(folder)
}

fn fetch(name: &str, top: &Path, folder: &Path) -> Result<(), Trouble> {
    // One that was interrupted leaves only this behind.
    let half = top.join(format!("{name}.{}.half", std::process::id()));
    let made = download(name, &half).and_then(|deb| {
        let files = half.join("files");
        exec::run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&files), UNPACK_LIMIT)?;
        fs::rename(&files, folder).or_else(|error| {
            // Another process was sooner.
            if folder.is_dir() { Ok(()) } else { Err(Trouble::file(folder, "make")(error)) }
        })
    });
    let _ = fs::remove_dir_all(&half);
    made
}

/// The package's archive in `dir`.
fn download(name: &str, dir: &Path) -> Result<PathBuf, Trouble> {
    eprintln!("fetch: {name} for arm64 from Debian {SUITE}");
    let (sources, status, lists) = (dir.join("sources.list"), dir.join("status"), dir.join("lists"));
    let archives = dir.join("archives");
    for folder in [lists.join("partial"), archives.join("partial")] {
        fs::create_dir_all(&folder).map_err(Trouble::file(&folder, "make"))?;
    }
    // Backports bring other kernels; only the suite itself, its updates and its security fixes are wanted.
    let archive = apt::sources_list(SUITE);
    let lines = archive.lines().filter(|line| !line.contains("-backports"));
    repo::write(&sources, lines.map(|line| format!("{line}\n")).collect::<String>().as_bytes())?;
    repo::write(&status, b"")?;
    let mut options = apt::private(&sources, &lists);
    for option in [
        "APT::Architecture=arm64".into(),
        "APT::Architectures=arm64".into(),
        "Debug::NoLocking=1".into(),
        format!("Dir::State::status={}", status.display()),
        format!("Dir::Cache::archives={}", archives.display()),
    ] {
        options.extend(["-o".into(), option]);
    }
    let tool = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        command.arg("-qq").args(&options).args(words).current_dir(dir).stdin(Stdio::null()).stdout(std::io::stderr());
        command
    };
    exec::run(&mut tool("apt-get", &["update"]), UPDATE_LIMIT)?;
    let depends = exec::text(tool("apt-cache", &["depends", name]).stdout(Stdio::piped()), ASK)?;
    let real = behind(name, &depends).unwrap_or(name);
    exec::run(&mut tool("apt-get", &["download", real]), DOWNLOAD_LIMIT)?;
    let entries = fs::read_dir(dir).map_err(Trouble::file(dir, "list"))?.flatten();
    let deb = entries.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "deb"));
    deb.ok_or_else(|| Trouble::other(format!("apt-get has fetched no archive of {real}")))
}

/// The package a metapackage stands for, from `apt-cache depends`: `linux-image-cloud-arm64` depends on
/// `linux-image-6.1.0-…-cloud-arm64`, which has the files.
fn behind<'t>(name: &str, depends: &'t str) -> Option<&'t str> {
    let family = name.split_inclusive('-').take(2).collect::<String>();
    let mut all = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    all.find(|other| name.starts_with("linux-image-") && other.starts_with(&family))
}

#[cfg(test)]
mod tests {
    use super::behind;

    #[test]
    fn a_metapackage_stands_for_its_kernel() {
        let text = "linux-image-cloud-arm64\n  Depends: linux-image-6.1.0-56-cloud-arm64\n";
        assert_eq!(behind("linux-image-cloud-arm64", text), Some("linux-image-6.1.0-56-cloud-arm64"));
        let text = "linux-image-6.1.0-56-cloud-arm64\n  Depends: kmod\n  Depends: linux-base\n";
        assert_eq!(behind("linux-image-6.1.0-56-cloud-arm64", text), None);
        assert_eq!(behind("busybox-static", "busybox-static\n"), None);
    }
}
