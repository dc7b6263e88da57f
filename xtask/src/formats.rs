//! The image's bytes and their wrappings. Pure: bytes in, bytes out; the same input gives the same bytes.
//!
//! `flat` is an exact picture of RAM from the planned base: hypervisor, plan blob, guest payloads. `elf` wraps it for
//! loaders that want one, `flash` pads it to the size of the board's flash.

use crate::guests::Guests;
use crate::hyp::Hypervisor;
use crate::trouble::Trouble;
use cofferdam_partitioner::compile::Compiled;
use cofferdam_plan::Plan;
use cofferdam_plan::audit::fact;
use zerocopy::IntoBytes;

/// Offset of `image_size` in the arm64 Image header (Linux, Documentation/arch/arm64/booting.rst).
const IMAGE_SIZE: usize = 16;
/// Its magic, at offset 56.
const IMAGE_MAGIC: &[u8] = b"ARM\x64";

/// Behind an image that is not at its place, the stub puts the code that moves it.
const MOVER: u64 = 4096;

/// The flat arm64 Image.
///
/// # Errors
/// The parts do not fit together: a fault of ours, named.
pub(crate) fn flat(compiled: &Compiled<'_, '_>, hyp: &Hypervisor, guests: &Guests) -> Result<Vec<u8>, Trouble> {
    let blob = compiled.blob.as_bytes();
    let mut image = vec![0; usize::try_from(compiled.image_len).map_err(|_| bad("longer than memory"))?];
    put(&mut image, 0, &hyp.flat)?;
    put(&mut image, compiled.blob_offset, blob)?;
    // Generated device trees have no file: they are in the blob already.
    for payload in compiled.payloads.iter().filter(|payload| !payload.file.is_empty()) {
        let bytes = guests.find(payload.file).bytes().ok_or_else(|| bad("a guest image is gone"))?;
        let end = payload.file_offset.checked_add(payload.len).ok_or_else(|| bad("a payload wraps"))?;
        let part =
            bytes.get(payload.file_offset as usize..end as usize).ok_or_else(|| bad("a payload beyond its file"))?;
        put(&mut image, payload.offset, part)?;
        if payload.pristine != 0 {
            put(&mut image, payload.pristine, part)?;
        }
    }
    if image.get(56..60) != Some(IMAGE_MAGIC) {
        return Err(bad("hyp-min does not start with an arm64 Image header"));
    }
    let plan = Plan::read_whole(blob).map_err(|_| bad("the plan cannot be read back"))?;
    if plan.pci.is_some() && !hyp.pci {
        return Err(bad("the plan has PCI functions, hyp-min has been built without PCI"));
    }
    let size = ram_size(compiled, &plan)?;
    put(&mut image, IMAGE_SIZE as u64, &size.to_le_bytes())?;
    Ok(image)
}

/// RAM from the base that nobody else may use while booting: the image and the hypervisor's RAM-only areas behind it.
fn ram_size(compiled: &Compiled<'_, '_>, plan: &Plan<'_>) -> Result<u64, Trouble> {
    let audit = plan.audit().map_err(|_| bad("the plan cannot be read back"))?;
    let kept = audit.facts.iter().filter(|fact| fact.kind == fact::HYPERVISOR).map(|fact| fact.region.end().0);
    let kept = kept.max().unwrap_or(0).saturating_sub(compiled.base.0);
    Ok(kept.max(compiled.image_len.saturating_add(MOVER)))
}

/// An ELF64 whose single segment is the flat image at its planned address; execution starts at its first byte.
pub(crate) fn elf(image: &[u8], base: u64) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    // The segment's place in the file equals its address modulo the page size, as loaders that map files expect.
    let offset = HEADERS.next_multiple_of(4096) + base % 4096;
    let mut out = Vec::with_capacity(offset as usize + image.len());
    out.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    out.extend_from_slice(&2u16.to_le_bytes()); // ET_EXEC
    out.extend_from_slice(&183u16.to_le_bytes()); // EM_AARCH64
    out.extend_from_slice(&1u32.to_le_bytes()); // EV_CURRENT
    out.extend_from_slice(&base.to_le_bytes()); // e_entry
    out.extend_from_slice(&64u64.to_le_bytes()); // e_phoff
    out.extend_from_slice(&0u64.to_le_bytes()); // e_shoff
    out.extend_from_slice(&0u32.to_le_bytes()); // e_flags
    for half in [64u16, 56, 1, 0, 0, 0] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    out.extend_from_slice(&1u32.to_le_bytes()); // PT_LOAD
    out.extend_from_slice(&7u32.to_le_bytes()); // readable, writable, executable
    let len = image.len() as u64;
    for word in [offset, base, base, len, len, 4096] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.resize(offset as usize, 0);
    out.extend_from_slice(image);
    out
}

/// The Image padded to a flash of `size` bytes, `None` where it does not fit. Erased flash reads as ones.
pub(crate) fn flash(image: &[u8], size: u64) -> Option<Vec<u8>> {
    let mut out = image.to_vec();
    if image.len() as u64 > size {
        return None;
    }
    out.resize(size as usize, 0xFF);
    Some(out)
}

fn put(image: &mut [u8], at: u64, bytes: &[u8]) -> Result<(), Trouble> {
    let slot = usize::try_from(at).ok().and_then(|at| image.get_mut(at..at.checked_add(bytes.len())?));
    slot.ok_or_else(|| bad("a part lies beyond its end"))?.copy_from_slice(bytes);
    Ok(())
}

fn bad(what: &str) -> Trouble {
    Trouble::other(format!("the image cannot be put together: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::Elf;

    #[test]
    fn elf_holds_the_image_at_its_base() {
        let image = [1, 2, 3, 4, 5];
        let bytes = elf(&image, 0x4020_0000);
        let elf = Elf::new(&bytes).unwrap();
        let segments = elf.segments().unwrap();
        assert_eq!(elf.entry(), 0x4020_0000);
        assert_eq!(segments.len(), 1);
        assert_eq!((segments[0].vaddr, segments[0].data), (0x4020_0000, &image[..]));
    }

    #[test]
    fn flash_is_padded_or_refused() {
        assert_eq!(flash(&[1, 2], 4).unwrap(), [1, 2, 0xFF, 0xFF]);
        assert!(flash(&[1, 2, 3], 2).is_none());
    }
}
