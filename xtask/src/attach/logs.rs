//! `run --log DIR`: one file per domain, and the hypervisor's log in words, beside whatever else becomes of them.
//!
//! Lines as standard output shows them, without prefixes and whole again where others had interrupted them; control characters
//! stay escaped, so that a log can be looked at. What comes is written at once.

use crate::qemu::Sink;
use crate::trouble::Trouble;
use crate::wire::{LineEnd, Part};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The files.
pub(crate) struct Logs {
    dir: PathBuf,
    domains: Vec<(String, File)>,
    own: File,
    /// A line could not be written, and it has been said.
    failed: bool,
}

impl Logs {
    /// Makes `dir`, and in it an empty file for each of `domains` and `hyp.log`.
    ///
    /// # Errors
    /// What cannot be written.
    pub(crate) fn new(dir: &Path, domains: &[String]) -> Result<Self, Trouble> {
        fs::create_dir_all(dir).map_err(Trouble::file(dir, "make"))?;
        let file = |name: &str| {
            let path = dir.join(format!("{name}.log"));
            File::create(&path).map_err(Trouble::file(&path, "write"))
        };
        let files = domains.iter().map(|name| Ok((name.clone(), file(name)?)));
        // A domain cannot be called `hyp`.
        Ok(Self { dir: dir.into(), domains: files.collect::<Result<_, _>>()?, own: file("hyp")?, failed: false })
    }

    fn check(&mut self, written: std::io::Result<()>) {
        if let (Err(error), false) = (written, self.failed) {
            eprintln!("run: cannot write to {}: {error}", self.dir.display());
            self.failed = true;
        }
    }
}

impl Sink for Logs {
    fn domain(&mut self, name: &str, part: Part<'_>) {
        let Some((_, file)) = self.domains.iter_mut().find(|(domain, _)| domain == name) else { return };
        let written = match part {
            Part::Opens { .. } | Part::Ends(LineEnd::Cut) => return,
            Part::Text(text) => file.write_all(text),
            Part::Ends(_) => file.write_all(b"\n"),
        };
        self.check(written);
    }

    fn own(&mut self, line: &str) {
        let written = writeln!(self.own, "{line}");
        self.check(written);
    }

    fn other(&mut self, _: &str) {}
}
