//! What `setup` found, remembered together with what would make it untrue.
//!
//! A stamp names files with their size and time of change. It holds while all of them are as they were; whoever upgrades a
//! tool or removes a package gets a fresh look.

use crate::repo;
use crate::trouble::Trouble;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// One remembered finding.
pub(crate) struct Stamp {
    file: PathBuf,
    key: String,
}

impl Stamp {
    /// The stamp called `name`. It is worth nothing under another `key` (for example another active toolchain).
    pub(crate) fn new(name: &str, key: &str) -> Self {
        Self { file: repo::target().join("setup").join(format!("{name}.stamp")), key: key.replace('\n', " ") }
    }

    /// The files it rests on, while it holds.
    pub(crate) fn holds(&self) -> Option<Vec<PathBuf>> {
        let text = fs::read_to_string(&self.file).ok()?;
        let mut lines = text.lines();
        if lines.next()? != format!("key {}", self.key) {
            return None;
        }
        let mut files = Vec::new();
        for line in lines {
            let (_, path) = line.split_once(' ').and_then(|(_, rest)| rest.split_once(' '))?;
            let path = PathBuf::from(path);
            if line != state(&path)? {
                return None;
            }
            files.push(path);
        }
        Some(files)
    }

    /// Remembers that the finding rests on `files`.
    pub(crate) fn keep(&self, files: &[PathBuf]) -> Result<(), Trouble> {
        let mut text = format!("key {}\n", self.key);
        for file in files {
            if let Some(line) = state(file) {
                text += &line;
                text.push('\n');
            }
        }
        repo::write(&self.file, text.as_bytes())
    }
}

/// Size, time of change in nanoseconds, path.
fn state(path: &Path) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    let changed = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{} {} {}", meta.len(), changed.as_nanos(), path.display()))
}
