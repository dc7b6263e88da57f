//! Where things lie in the repository, and the few file operations with their errors named.

use crate::trouble::Trouble;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs};

/// The repository's top folder: the parent of this package, found at run time so that the folder may move.
pub(crate) fn root() -> PathBuf {
    if let Some(package) = env::var_os("CARGO_MANIFEST_DIR") {
        let package = PathBuf::from(package);
        if package.ends_with("xtask") {
            return package.parent().map(Path::to_path_buf).unwrap_or(package);
        }
    }
    let here = env::current_dir().unwrap_or_default();
    let top = here.ancestors().find(|dir| dir.join("xtask/Cargo.toml").is_file());
    top.map(Path::to_path_buf).unwrap_or(here)
}

/// `target/` or what `CARGO_TARGET_DIR` says.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).unwrap_or_else(|| root().join("target"))
}

/// Where downloads are kept: `$COFFERDAM_CACHE`, else a folder in `target/`.
pub(crate) fn cache() -> PathBuf {
    env::var_os("COFFERDAM_CACHE").map(PathBuf::from).unwrap_or_else(|| target().join("setup"))
}

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Trouble> {
    fs::read(path).map_err(Trouble::file(path, "read"))
}

/// Writes a whole file, making its folder; an equal file stays untouched, so that nothing is rebuilt for it. The file
/// appears at once: whoever is interrupted, or runs out of disk, leaves no half of it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Trouble> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(Trouble::file(dir, "make"))?;
    }
    // Two threads may write the same file.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{}.tmp", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed)));
    let half = path.with_file_name(name);
    fs::write(&half, bytes).and_then(|()| fs::rename(&half, path)).map_err(|source| {
        // There is nothing to remove where it could not be made at all.
        let _ = fs::remove_file(&half);
        Trouble::file(path, "write")(source)
    })
}

/// The program's file in `PATH`.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// `path` as a user should read it: relative to the current folder where it lies in it.
pub(crate) fn shown(path: &Path) -> String {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}
