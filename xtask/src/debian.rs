//! Guests nobody here wrote, under the file names `debian/…` of a layout: Debian's arm64 kernel, an initial RAM disk around
//! its busybox, its firmware images. Fetched on demand, never part of the repository.

use crate::cpio::Archive;
use crate::elf::Elf;
use crate::repo;
use crate::setup;
use crate::trouble::Trouble;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What a layout can name: the file, the package it comes from, its place there.
const FILES: [(&str, &str, &str); 2] = [
    ("u-boot.bin", "u-boot-qemu", "usr/lib/u-boot/qemu_arm64/u-boot.bin"),
    ("QEMU_EFI.fd", "qemu-efi-aarch64", "usr/share/qemu-efi-aarch64/QEMU_EFI.fd"),
];
/// Kernels: the folder below `debian/`, the package. The first has what virtual machines need and little more, the second
/// drivers for real hardware too.
const KERNELS: [(&str, &str); 2] = [("", "linux-image-cloud-arm64"), ("full/", "linux-image-arm64")];
const BUSYBOX: &str = "busybox-static";

/// The file behind `name`, `None` where it is no `debian/…` name.
///
/// # Errors
/// The package cannot be fetched, or has no such file any more.
pub(crate) fn find(name: &str) -> Result<Option<PathBuf>, Trouble> {
    let Some(file) = name.strip_prefix("debian/") else { return Ok(None) };
    for (folder, package) in KERNELS {
        match file.strip_prefix(folder) {
            Some("Image") => return kernel(package).map(Some),
            Some(own) if let Some(modules) = modules_of(own) => return initrd(file, package, &modules).map(Some),
            _ => {}
        }
    }
    match FILES.iter().find(|(known, ..)| *known == file) {
        Some((_, package, path)) => existing(setup::unpacked(package)?.join(path)).map(Some),
        None => Ok(None),
    }
}

/// The one kernel in `/boot` of `package`.
fn kernel(package: &str) -> Result<PathBuf, Trouble> {
    let boot = setup::unpacked(package)?.join("boot");
    let entries = fs::read_dir(&boot).map_err(Trouble::file(&boot, "list"))?.flatten().map(|entry| entry.path());
    let is_kernel =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"));
    entries.into_iter().find(is_kernel).ok_or_else(|| Trouble::other(format!("{package} has no kernel in boot/")))
}

/// The kernel modules that the name of an initial RAM disk asks for: `initrd+sbsa_gwdt+virtio_net.cpio` two, `initrd.cpio`
/// none. `None` where it is no such name.
fn modules_of(file: &str) -> Option<Vec<&str>> {
    let list = file.strip_prefix("initrd")?.strip_suffix(".cpio")?;
    match list.strip_prefix('+') {
        Some(list) => Some(list.split('+').collect()),
        None => list.is_empty().then(Vec::new),
    }
}

/// `qemu/linux/init`, busybox, and `modules` with all they depend on; packed anew each time: it takes no longer than finding out
/// whether it is needed.
fn initrd(file: &str, package: &str, modules: &[&str]) -> Result<PathBuf, Trouble> {
    let init = repo::read(&repo::root().join("qemu/linux/init"))?;
    let busybox = repo::read(&existing(setup::unpacked(BUSYBOX)?.join("bin/busybox"))?)?;
    let mut archive = Archive::new();
    archive.folder("bin");
    archive.folder("dev");
    archive.character_device("dev/console", 5, 1);
    archive.program("bin/busybox", &busybox);
    archive.program("init", &init);
    if !modules.is_empty() {
        let known = all_modules(&setup::unpacked(package)?.join("lib/modules"))?;
        let mut order = Vec::new();
        for module in modules {
            with_dependencies(module, &known, &mut order)?;
        }
        archive.folder("modules");
        for (name, bytes) in &order {
            archive.program(&format!("modules/{name}.ko"), bytes);
        }
        let names: Vec<_> = order.iter().map(|(name, _)| name.as_str()).collect();
        archive.program("modules/order", format!("{}\n", names.join("\n")).as_bytes());
    }
    let path = repo::target().join("guests/debian").join(file);
    repo::write(&path, &archive.finish())?;
    Ok(path)
}

/// Every module below `folder`, by its name: that of the file, where `-` and `_` are one.
fn all_modules(folder: &Path) -> Result<BTreeMap<String, PathBuf>, Trouble> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(Trouble::file(&folder, "list"))?.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            // A link, `build` or `source`, leads out of the package.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if let Some(name) = name.strip_suffix(".ko") {
                found.insert(name.replace('-', "_"), path);
            }
        }
    }
    Ok(found)
}

/// Adds `module` to `order`, behind what it depends on (`depends=` of its section `.modinfo`).
fn with_dependencies(
    module: &str,
    known: &BTreeMap<String, PathBuf>,
    order: &mut Vec<(String, Vec<u8>)>,
) -> Result<(), Trouble> {
    let name = module.replace('-', "_");
    if order.iter().any(|(other, _)| *other == name) {
        return Ok(());
    }
    let path =
        known.get(&name).ok_or_else(|| Trouble::other(format!("the kernel's package has no module {module}")))?;
    let bytes = repo::read(path)?;
    let info = Elf::new(&bytes)?.section(".modinfo").unwrap_or(&[]);
    let depends = info.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"depends=")).unwrap_or(&[]);
    for other in String::from_utf8_lossy(depends).split(',').filter(|other| !other.is_empty()) {
        with_dependencies(other, known, order)?;
    }
    order.push((name, bytes));
    Ok(())
}

fn existing(path: PathBuf) -> Result<PathBuf, Trouble> {
    if path.is_file() { Ok(path) } else { Err(Trouble::other(format!("{} is not there", repo::shown(&path)))) }
}

#[cfg(test)]
mod tests {
    use super::modules_of;

    #[test]
    fn the_name_lists_modules() {
        assert_eq!(modules_of("initrd.cpio"), Some(vec![]));
        assert_eq!(modules_of("initrd+sbsa_gwdt.cpio"), Some(vec!["sbsa_gwdt"]));
        assert_eq!(modules_of("initrd+a+b-c.cpio"), Some(vec!["a", "b-c"]));
        assert_eq!(modules_of("initrdx.cpio"), None);
        assert_eq!(modules_of("initrd.img"), None);
    }
}
