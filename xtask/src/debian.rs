//! Guests nobody here wrote, under the file names `debian/…` of a layout: Debian's arm64 kernel, an initial RAM disk around
//! its busybox, its firmware images. Fetched on demand, never part of the repository.

use crate::cpio::Archive;
use crate::repo;
use crate::setup;
use crate::trouble::Trouble;
use std::fs;
use std::path::PathBuf;

/// What a layout can name: the file, the package it comes from, its place there.
const FILES: [(&str, &str, &str); 2] = [
    ("u-boot.bin", "u-boot-qemu", "usr/lib/u-boot/qemu_arm64/u-boot.bin"),
    ("QEMU_EFI.fd", "qemu-efi-aarch64", "usr/share/qemu-efi-aarch64/QEMU_EFI.fd"),
];
const KERNEL: &str = "linux-image-cloud-arm64";
const BUSYBOX: &str = "busybox-static";

/// The file behind `name`, `None` where it is no `debian/…` name.
///
/// # Errors
/// The package cannot be fetched, or has no such file any more.
pub(crate) fn find(name: &str) -> Result<Option<PathBuf>, Trouble> {
    let Some(file) = name.strip_prefix("debian/") else { return Ok(None) };
    match file {
        "Image" => kernel().map(Some),
        "initrd.cpio" => initrd().map(Some),
        _ => match FILES.iter().find(|(known, ..)| *known == file) {
            Some((_, package, path)) => existing(setup::unpacked(package)?.join(path)).map(Some),
            None => Ok(None),
        },
    }
}

/// The one kernel in `/boot`.
fn kernel() -> Result<PathBuf, Trouble> {
    let boot = setup::unpacked(KERNEL)?.join("boot");
    let entries = fs::read_dir(&boot).map_err(Trouble::file(&boot, "list"))?.flatten().map(|entry| entry.path());
    let is_kernel =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"));
    entries.into_iter().find(is_kernel).ok_or_else(|| Trouble::other(format!("{KERNEL} has no kernel in boot/")))
}

/// `qemu/linux/init` and busybox, packed anew each time: it takes no longer than finding out whether it is needed.
fn initrd() -> Result<PathBuf, Trouble> {
    let init = repo::read(&repo::root().join("qemu/linux/init"))?;
    let busybox = repo::read(&existing(setup::unpacked(BUSYBOX)?.join("bin/busybox"))?)?;
    let mut archive = Archive::new();
    archive.folder("bin");
    archive.folder("dev");
    archive.character_device("dev/console", 5, 1);
    archive.program("bin/busybox", &busybox);
    archive.program("init", &init);
    let path = repo::target().join("guests/debian/initrd.cpio");
    repo::write(&path, &archive.finish())?;
    Ok(path)
}

fn existing(path: PathBuf) -> Result<PathBuf, Trouble> {
    if path.is_file() { Ok(path) } else { Err(Trouble::other(format!("{} is not there", repo::shown(&path)))) }
}
