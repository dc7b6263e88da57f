//! Files the layout puts into a domain's RAM beside kernel, RAM disk and device tree.

use super::Payload;
use super::image::{empty, missing};
use super::payload::Loader;
use crate::codes;
use crate::compile::{ImageFile, Images};
use crate::lent::{Full, List};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics};
use cofferdam_plan::audit::payload;

impl<'a> Loader<'_, 'a> {
    /// Adds the domain's files to `payloads`, each in the room it is given.
    pub(crate) fn place_files(
        &self,
        images: &dyn Images,
        payloads: &mut List<'_, Payload<'a>>,
        out: &mut Diagnostics<'_, 'a>,
    ) -> Result<(), Full> {
        for file in &self.domain.files {
            let (path, room) = (file.path, file.room.value);
            let len = match images.open(path.value) {
                ImageFile::Bytes([]) => {
                    out.push(empty(path));
                    continue;
                }
                ImageFile::Bytes(bytes) => bytes.len() as u64,
                ImageFile::Missing => {
                    out.push(missing(path, self.domain.name));
                    continue;
                }
                // Where it goes can be checked all the same.
                ImageFile::Skipped => 0,
            };
            if len > room.size {
                let message = "`{0}` has {1}, more than the {2} its `reg` gives it";
                let d = Diagnostic::new(codes::IMAGE_TOO_LARGE, path.span, message);
                let d = d.args(&[Arg::Text(path.value), Arg::Bytes(len), Arg::Bytes(room.size)]);
                out.push(d.also(file.room.span, "its room").help("make the room larger"));
                continue;
            }
            let part = Payload {
                domain: self.id,
                kind: payload::FILE,
                ipa: room.base.0,
                file: path.value,
                len,
                mem: room.size,
                span: file.room.span,
                ..Payload::default()
            };
            let outside = "the file `{1}` of domain `{0}` would lie at {2}, outside its memory";
            self.fits(&part, codes::PAYLOAD_PLACE, outside, payloads, out);
            payloads.push(part)?;
        }
        Ok(())
    }
}
