//! The `file@…` nodes of a domain: what else lies in its RAM when it starts.

use super::words;
use crate::cells;
use crate::codes;
use crate::model::{At, File, MAX_FILES};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node};
use cofferdam_plan::{Ipa, IpaRegion};
use heapless::Vec;

/// Every file node of `domain`, in order.
pub(super) fn read<'a>(domain: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> Vec<File<'a>, MAX_FILES> {
    let mut list = Vec::new();
    for node in domain.children().filter(|node| node.base_name() == "file" && node.is_enabled()) {
        words::check(node, words::FILE, diagnostics);
        let (path, mut entries) = (node.property("file"), cells::reg(node));
        for (needed, there) in [("file", path.is_some()), ("reg", node.property("reg").is_some())] {
            if !there {
                let d = Diagnostic::new(codes::MISSING, node.span(), "{0} has no `{1}`");
                let d = d.args(&[Arg::Node(node), Arg::Text(needed)]);
                diagnostics.push(d.help("a file node has file = \"…\"; and reg = <address size>;"));
            }
        }
        let first = entries.next();
        if let (Some(_), Some(second)) = (first, entries.next()) {
            let message = "{0} has two `reg` entries: a file lies in one place";
            let d = Diagnostic::new(codes::WRONG_TYPE, second.span, message).args(&[Arg::Node(node)]);
            diagnostics.push(d.help("keep one: where the file goes, and the room it is given"));
        }
        let path = path.and_then(|path| Some(At { value: path.string()?, span: path.value_span() }));
        // Wrapping and empty entries have been reported by `shape`.
        let room = first.and_then(|reg| {
            let region = IpaRegion::new(Ipa(reg.address.low), reg.size).filter(|region| !region.is_empty())?;
            Some(At { value: region, span: reg.span })
        });
        if let (Some(path), Some(room)) = (path, room)
            && list.push(File { path, room }).is_err()
        {
            let message = "domain `{0}` has more files than the {1} a domain can have";
            let d = Diagnostic::new(codes::CAPACITY, node.span(), message);
            let args = [Arg::Text(domain.name()), Arg::Number(MAX_FILES as u64)];
            diagnostics.push(d.args(&args).help("join some of them"));
            break;
        }
    }
    list
}
