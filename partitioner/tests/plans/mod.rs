//! What the tests of the plan share: compiling a layout from text with memory that grows, and an independent table walker.
#![allow(dead_code)] // each test uses its part

use cofferdam_dts::{Capacities, Diagnostics, Loaded, Loader, Source, Span, lend_storage, parse};
use cofferdam_partitioner::compile::{Compiled, HypImage, ImageFile, Images, Memory, compile};
use cofferdam_partitioner::model::{DeviceGrant, DeviceInterrupt, DeviceRegion, PortGrant};
use cofferdam_partitioner::{Full, Lent, Payload, Piece, Range, front};
use cofferdam_plan::{IntId, Ipa, PaRegion, Plan};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies one folder deep").to_path_buf()
}

/// Boards of the repository.
struct Boards;

impl<'a> Loader<'a> for Boards {
    fn load(&mut self, _: &str, name: &str, _: bool) -> Loaded<'a> {
        let path = root().join("dts").join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Loaded::Found(Source { path: path.display().to_string().leak(), text: text.leak() }),
            Err(_) => Loaded::Missing,
        }
    }
}

/// Guest images by name; without any, images are not looked at.
#[derive(Default)]
pub(crate) struct Guests(pub(crate) HashMap<String, Vec<u8>>);

impl Guests {
    pub(crate) fn with(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.0.insert(name.into(), bytes);
        self
    }
}

impl Images for Guests {
    fn open(&self, path: &str) -> ImageFile<'_> {
        match self.0.get(path) {
            Some(bytes) => ImageFile::Bytes(bytes),
            None if self.0.is_empty() => ImageFile::Skipped,
            None => ImageFile::Missing,
        }
    }
}

/// What a compilation gave, in owned form.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) codes: Vec<String>,
    pub(crate) messages: Vec<String>,
    pub(crate) plan: Option<Built>,
}

/// A plan and what the image writer is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Built {
    /// Words, so that the bytes are aligned.
    words: Vec<u64>,
    len: usize,
    pub(crate) blob_offset: u64,
    pub(crate) base: u64,
    pub(crate) image_len: u64,
    /// Domain, kind, guest address, image offset, length, file.
    pub(crate) payloads: Vec<(u32, u32, u64, u64, u64, String)>,
}

impl Built {
    fn new(compiled: &Compiled<'_, '_>) -> Self {
        let bytes = compiled.blob;
        let words = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        });
        let payloads = compiled.payloads.iter().map(|p| (p.domain, p.kind, p.ipa, p.offset, p.len, p.file.to_string()));
        Self {
            words: words.collect(),
            len: bytes.len(),
            blob_offset: compiled.blob_offset,
            base: compiled.base.0,
            image_len: compiled.image_len,
            payloads: payloads.collect(),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &zerocopy::IntoBytes::as_bytes(&self.words[..])[..self.len]
    }

    pub(crate) fn plan(&self) -> Plan<'_> {
        Plan::read_whole(self.bytes()).expect("what compiles can be read")
    }

    /// A domain's generated device tree.
    pub(crate) fn tree(&self, domain: u32) -> &[u8] {
        let plan = self.plan();
        let audit = plan.audit().expect("the audit section is there");
        let is_tree = |p: &&cofferdam_plan::audit::Payload| p.kind == cofferdam_plan::audit::payload::DTB;
        let part = audit.payloads.iter().filter(is_tree).find(|p| p.domain == domain).expect("every domain has a tree");
        let at = (part.offset - self.blob_offset) as usize;
        &self.bytes()[at..at + part.len as usize]
    }
}

/// Compiles a layout given as text, with a tiny start so that every kind of lent memory has to grow.
pub(crate) fn build(text: &str, guests: &Guests) -> Outcome {
    let mut dts = Capacities::default();
    let mut room: HashMap<Lent, usize> = HashMap::new();
    let mut has = |what: Lent, full: Option<Full>| {
        let size = room.entry(what).or_insert(16);
        if full == Some(Full(what)) {
            *size *= 2;
            assert!(*size < 1 << 26, "{what:?} grows without end");
        }
        *size
    };
    let mut full = None;
    loop {
        let mut slots = vec![None; 512];
        lend_storage!(storage, dts);
        let mut diagnostics = Diagnostics::new(&mut slots);
        let main = Source { path: "layout.dts", text };
        let parsed = match parse(storage, &mut Boards, &[main], &mut diagnostics) {
            Ok(parsed) => parsed,
            Err(short) => {
                dts.grow(short);
                continue;
            }
        };
        let root = parsed.tree.root();
        let span = Span::default();
        let grant = DeviceGrant { domain: 0, node: root, span, ..DeviceGrant::default() };
        let mut devices = vec![grant; has(Lent::Devices, full)];
        let region = DeviceRegion { pa: PaRegion::default(), ipa: Ipa(0), span };
        let mut regions = vec![region; has(Lent::Regions, full)];
        let mut interrupts = vec![DeviceInterrupt { intid: IntId(0), edge: false, span }; has(Lent::Interrupts, full)];
        let mut ports = vec![PortGrant { domain: 0, first: 0, last: 0, span }; has(Lent::Ports, full)];
        let mut sort = vec![front::Sorted::default(); has(Lent::Sort, full)];
        let mut owners = vec![0; has(Lent::Owners, full)];
        let front = front::Memory {
            devices: &mut devices,
            regions: &mut regions,
            interrupts: &mut interrupts,
            ports: &mut ports,
            sort: &mut sort,
            owners: &mut owners,
        };
        let mut blob = vec![0; has(Lent::Blob, full)];
        let mut pieces = vec![Piece::default(); has(Lent::Pieces, full)];
        let mut payloads = vec![Payload::default(); has(Lent::Payloads, full)];
        let mut ranges = vec![Range::default(); has(Lent::Ranges, full)];
        let mut scratch = vec![0; has(Lent::Scratch, full)];
        let mut bytes = vec![0; has(Lent::Bytes, full)];
        let memory = Memory {
            blob: &mut blob,
            pieces: &mut pieces,
            payloads: &mut payloads,
            ranges: &mut ranges,
            scratch: &mut scratch,
            bytes: &mut bytes,
        };
        match compile(parsed.tree, front, memory, guests, &HypImage::NOMINAL, &mut diagnostics) {
            Err(short) => full = Some(short),
            Ok((_, compiled)) => {
                let codes = diagnostics.iter().map(|d| d.code.to_string()).collect();
                let messages = diagnostics.iter().map(|d| format!("{} {}", d.code, d.fill(d.message))).collect();
                return Outcome { codes, messages, plan: compiled.as_ref().map(Built::new) };
            }
        }
    }
}

/// One leaf of a translation: input address, output address, size, the descriptor without its address.
pub(crate) type Leaf = (u64, u64, u64, u64);

/// Walks tables as the hardware does (DDI 0487, D8.2, D8.3), written from the manual and not from the compiler.
pub(crate) fn walk(tables: &[u8], tables_pa: u64, root: u64, level: u32, entries: usize) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    let word = |pa: u64| {
        let at = usize::try_from(pa - tables_pa).expect("tables lie together");
        u64::from_le_bytes(tables[at..at + 8].try_into().expect("eight bytes"))
    };
    let mut todo = vec![(root, level, 0u64, entries)];
    while let Some((table, level, from, entries)) = todo.pop() {
        for index in 0..entries as u64 {
            let entry = word(table + index * 8);
            let size = 1u64 << (12 + 9 * (3 - level));
            let (at, out) = (from + index * size, entry & 0x0000_FFFF_FFFF_F000);
            match (entry & 3, level) {
                (0 | 2, _) => {}
                (3, 3) => leaves.push((at, out, size, entry & !0x0000_FFFF_FFFF_F003)),
                (1, 1 | 2) => {
                    assert_eq!(out % size, 0, "a block of level {level} is aligned");
                    leaves.push((at, out, size, entry & !0x0000_FFFF_FFFF_F003));
                }
                (3, _) => todo.push((out, level + 1, at, 512)),
                other => panic!("descriptor {entry:#x} {other:?}"),
            }
        }
    }
    leaves.sort_unstable();
    leaves
}

/// Joins leaves that continue each other.
pub(crate) fn joined(leaves: &[Leaf]) -> Vec<Leaf> {
    let mut all: Vec<Leaf> = Vec::new();
    for leaf in leaves {
        match all.last_mut() {
            Some(last) if last.0 + last.2 == leaf.0 && last.1 + last.2 == leaf.1 && last.3 == leaf.3 => {
                last.2 += leaf.2
            }
            _ => all.push(*leaf),
        }
    }
    all
}

/// Stage-2 leaves of one domain.
pub(crate) fn stage2(built: &Built, domain: usize) -> Vec<Leaf> {
    let plan = built.plan();
    let record = plan.domains[domain];
    let bits = 64 - (record.vtcr & 0x3F) as u32;
    let level = match record.vtcr >> 6 & 3 {
        1 => 1,
        2 => 0,
        other => panic!("SL0 {other}"),
    };
    let entries = 1usize << (bits - (12 + 9 * (3 - level)));
    let tables = plan.tables().expect("tables are there");
    let pa = built.base + built.blob_offset + u64::from(plan.header.tables.offset);
    walk(tables, pa, record.vttbr & 0x0000_FFFF_FFFF_F000, level, entries)
}
