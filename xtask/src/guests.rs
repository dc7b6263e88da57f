//! Finds guest images: next to the layout, in each `--guest-dir`, then among Debian's (`debian/Image`, fetched on demand) and
//! our own examples, built on demand.
//!
//! Own examples are shipped without symbols in `target/guests/`, so that the same source gives the same bytes.

use crate::cross::{self, Item};
use crate::debian;
use crate::elf::Elf;
use crate::repo;
use crate::trouble::Trouble;
use cofferdam_partitioner::compile::{ImageFile, Images};
use std::cell::{Cell, OnceCell};
use std::fs;
use std::path::{Path, PathBuf};

/// A found file, or why there is none.
pub(crate) struct Found {
    /// As the layout wrote it.
    name: String,
    /// Where it was found.
    pub(crate) path: Option<PathBuf>,
    /// The ELF file with its symbols, where it is one.
    pub(crate) symbols: Option<PathBuf>,
    bytes: Option<Vec<u8>>,
    next: OnceCell<Box<Found>>,
}

/// The guest images of one layout. Every file is read once.
pub(crate) struct Guests {
    folders: Vec<PathBuf>,
    skip: bool,
    first: OnceCell<Box<Found>>,
    trouble: Cell<Option<Trouble>>,
}

impl Guests {
    /// Images for `layout`; none are looked at where `skip` says so.
    pub(crate) fn new(layout: &Path, guest_dirs: &[PathBuf], skip: bool) -> Self {
        let beside = layout.parent().map(Path::to_path_buf).unwrap_or_default();
        let folders = std::iter::once(beside).chain(guest_dirs.iter().cloned()).collect();
        Self { folders, skip, first: OnceCell::new(), trouble: Cell::new(None) }
    }

    /// What went wrong while looking, beside files that are not there.
    pub(crate) fn trouble(&self) -> Result<(), Trouble> {
        self.trouble.take().map_or(Ok(()), Err)
    }

    /// The file behind `name`, looked for at the first call.
    pub(crate) fn find(&self, name: &str) -> &Found {
        let mut slot = &self.first;
        while let Some(found) = slot.get() {
            if found.name == name {
                return found;
            }
            slot = &found.next;
        }
        slot.get_or_init(|| {
            let looked = self.look(name).unwrap_or_else(|trouble| {
                self.trouble.set(Some(trouble));
                None
            });
            let missing = Found { name: name.into(), path: None, symbols: None, bytes: None, next: OnceCell::new() };
            Box::new(looked.unwrap_or(missing))
        })
    }

    fn look(&self, name: &str) -> Result<Option<Found>, Trouble> {
        for folder in &self.folders {
            let path = folder.join(name);
            if path.is_file() {
                return Ok(Some(Found::new(name, path)?));
            }
        }
        if let Some(path) = debian::find(name)? {
            return Ok(Some(Found::new(name, path)?));
        }
        let Some(example) = name.strip_suffix(".elf").filter(|example| is_example(example)) else { return Ok(None) };
        let built = cross::build(cross::UNIKERNEL, &Item::Example(example.into()))?;
        let built = built.first().ok_or_else(|| Trouble::other(format!("{name} has not been built")))?;
        let path = repo::target().join("guests").join(name);
        ship(built, &path)?;
        Ok(Some(Found { symbols: Some(built.clone()), ..Found::new(name, path)? }))
    }
}

impl Found {
    fn new(name: &str, path: PathBuf) -> Result<Self, Trouble> {
        let bytes = repo::read(&path)?;
        let symbols = Elf::new(&bytes).is_ok().then(|| path.clone());
        Ok(Self { name: name.into(), path: Some(path), symbols, bytes: Some(bytes), next: OnceCell::new() })
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        self.bytes.as_deref()
    }
}

impl Images for Guests {
    fn open(&self, path: &str) -> ImageFile<'_> {
        if self.skip {
            return ImageFile::Skipped;
        }
        match self.find(path).bytes() {
            Some(bytes) => ImageFile::Bytes(bytes),
            None => ImageFile::Missing,
        }
    }
}

/// Whether the unikernel has such an example. A layout's text must not become a path outside.
fn is_example(name: &str) -> bool {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let folder = repo::root().join("unikernel/examples");
    plain && (folder.join(name).join("main.rs").is_file() || folder.join(format!("{name}.rs")).is_file())
}

/// Writes `from` without symbols to `to` and gives the bytes.
fn ship(from: &Path, to: &Path) -> Result<Vec<u8>, Trouble> {
    let bytes = Elf::new(&repo::read(from)?)?.stripped()?;
    repo::write(to, &bytes)?;
    Ok(bytes)
}

/// Builds the boot tests' guests into a folder of their own, for `--guest-dir`.
pub(crate) fn attackers() -> Result<PathBuf, Trouble> {
    let dir = repo::target().join("guests/tests");
    fs::create_dir_all(&dir).map_err(Trouble::file(&dir, "make"))?;
    for built in cross::build(cross::ATTACKERS, &Item::Bins)? {
        let name = built.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ship(&built, &dir.join(format!("{name}.elf")))?;
    }
    Ok(dir)
}
