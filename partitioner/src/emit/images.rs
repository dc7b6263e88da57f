//! The bytes of a guest image that was there a moment ago.

use crate::compile::{ImageFile, Images};

/// The file's bytes, where it is there.
pub(crate) fn bytes<'i>(images: &'i dyn Images, path: &str) -> Option<&'i [u8]> {
    match images.open(path) {
        ImageFile::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}
