//! Source files, read once and kept as long as any diagnostic speaks of them.
//!
//! Includes are searched in the including file's folder, then in each `-I` folder, then in the repository's `dts/`.

use crate::render::Message;
use crate::repo;
use crate::trouble::Trouble;
use cofferdam_dts::{Loaded, Loader, Source, Span, dtb};
use std::cell::OnceCell;
use std::path::{Component, Path, PathBuf};

/// A file's path as shown, and its text.
struct File {
    path: String,
    text: String,
    next: OnceCell<Box<File>>,
}

/// All files of one command. Grows only; what it handed out stays valid.
#[derive(Default)]
pub(crate) struct Files {
    first: OnceCell<Box<File>>,
}

impl Files {
    /// The layout itself.
    ///
    /// # Errors
    /// It cannot be read, or is not UTF-8.
    pub(crate) fn open(&self, path: &Path) -> Result<Source<'_>, Trouble> {
        let shown = normal(path);
        if let Some(known) = self.known(&shown) {
            return Ok(known);
        }
        let text = String::from_utf8(repo::read(path)?).map_err(|error| {
            Trouble::other(format!("{shown} is not UTF-8 (byte {})", error.utf8_error().valid_up_to()))
        })?;
        Ok(self.keep(shown, text))
    }

    /// A board given as a flattened device tree, as source text. Where it is damaged: what is wrong with it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn board(&self, path: &Path) -> Result<Result<Source<'_>, Message<'_>>, Trouble> {
        let shown = normal(path);
        // A damaged one has no text and is looked at again.
        if let Some(known) = self.known(&shown).filter(|known| !known.text.is_empty()) {
            return Ok(Ok(known));
        }
        let blob = repo::read(path)?;
        let mut text = vec![0; blob.len().saturating_mul(6).max(1024)];
        loop {
            match dtb::decompile(&blob, &mut text) {
                Ok(Ok(text)) => return Ok(Ok(self.keep(shown, text.to_owned()))),
                Ok(Err(error)) => {
                    let nothing = self.keep(shown, String::new());
                    return Ok(Err(Message::new(&error.diagnostic(Span::default()), &[nothing])));
                }
                Err(_) => text.resize(text.len().saturating_mul(2), 0),
            }
        }
    }

    /// A file that has been read.
    pub(crate) fn known(&self, path: &str) -> Option<Source<'_>> {
        let mut slot = &self.first;
        while let Some(file) = slot.get() {
            if file.path == path {
                return Some(Source { path: &file.path, text: &file.text });
            }
            slot = &file.next;
        }
        None
    }

    fn keep(&self, path: String, text: String) -> Source<'_> {
        let mut slot = &self.first;
        while let Some(file) = slot.get() {
            slot = &file.next;
        }
        let file = slot.get_or_init(|| Box::new(File { path, text, next: OnceCell::new() }));
        Source { path: &file.path, text: &file.text }
    }
}

/// The include search of one layout.
pub(crate) struct Includes<'f, 'i> {
    /// Where texts are kept.
    pub(crate) files: &'f Files,
    /// `-I`.
    pub(crate) folders: &'i [PathBuf],
}

impl<'a, 'f: 'a> Loader<'a> for Includes<'f, '_> {
    fn load(&mut self, from: &str, name: &str, system: bool) -> Loaded<'a> {
        let beside = Path::new(from).parent().map(Path::to_path_buf);
        let beside = beside.filter(|_| !system);
        let ours = repo::root().join("dts");
        for folder in beside.iter().chain(self.folders).chain([&ours]) {
            let path = folder.join(name);
            if path.is_file() {
                return match self.files.open(&here(&path)) {
                    Ok(source) => Loaded::Found(source),
                    Err(_) => Loaded::Unreadable,
                };
            }
        }
        Loaded::Missing
    }
}

/// Relative to the current folder where the file lies in it: shorter in messages, equal in every clone.
fn here(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).to_path_buf()
}

/// Without `.` and, where that is safe to see from the text, `..`: one file, one path.
fn normal(path: &Path) -> String {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_one_path() {
        assert_eq!(normal(Path::new("./a/../b/./c.dts")), "b/c.dts");
        assert_eq!(normal(Path::new("../a/../../b")), "../../b");
    }
}
