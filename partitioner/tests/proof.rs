//! The compiler and the verifier, held against each other on real layouts: what compiles is proven, and no single bit of a
//! real plan's tables can change unnoticed, apart from those named harmless here.

use cofferdam_dts::{Capacities, Diagnostics, Loaded, Loader, Source, lend_storage, parse};
use cofferdam_partitioner::compile::{self, HypImage, ImageFile, Images};
use cofferdam_partitioner::{Full, Lent, front};
use cofferdam_plan::audit::fact;
use cofferdam_plan::{Plan, records_checksum, tables_checksum};
use cofferdam_verify::{Finding, Refusal, scratch_words, verify};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_path_buf()
}

/// Files of the repository, kept for the life of the test.
struct Files;

fn open(path: &Path) -> Source<'static> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Source { path: path.display().to_string().leak(), text: text.leak() }
}

impl Loader<'static> for Files {
    fn load(&mut self, from: &str, name: &str, _: bool) -> Loaded<'static> {
        let near = Path::new(from).parent().map(|p| p.join(name));
        let found = near.into_iter().chain([root().join("dts").join(name)]).find(|p| p.is_file());
        found.map_or(Loaded::Missing, |path| Loaded::Found(open(&path)))
    }
}

/// Guests of no particular shape: raw kernels of 4 KiB.
struct Guests(Vec<u8>);

impl Images for Guests {
    fn open(&self, _: &str) -> ImageFile<'_> {
        ImageFile::Bytes(&self.0)
    }
}

/// Compiles one source with memory that grows until it is enough; the blob, 8-byte aligned, or the diagnostics.
fn blob_of(main: Source<'static>) -> Result<Vec<u64>, Vec<String>> {
    let mut capacities = Capacities::default();
    let (mut words, mut lists, mut scratch) = (32 * 1024, 4096, 4096);
    loop {
        let mut slots = vec![None; 4096];
        let mut diagnostics = Diagnostics::new(&mut slots);
        lend_storage!(storage, capacities);
        let parsed = match parse(storage, &mut Files, &[main], &mut diagnostics) {
            Ok(parsed) => parsed,
            Err(full) => {
                capacities.grow(full);
                continue;
            }
        };
        let mut devices = vec![Default::default(); lists];
        let mut regions = vec![Default::default(); lists];
        let mut interrupts = vec![Default::default(); lists];
        let mut ports = vec![Default::default(); lists];
        let mut sort = vec![Default::default(); 4 * lists];
        let mut owners = vec![0; 4 * lists];
        let front = front::Memory {
            devices: &mut devices,
            regions: &mut regions,
            interrupts: &mut interrupts,
            ports: &mut ports,
            sort: &mut sort,
            owners: &mut owners,
        };
        let mut blob = vec![0u64; words];
        let mut pieces = vec![Default::default(); lists];
        let mut payloads = vec![Default::default(); lists];
        let mut ranges = vec![Default::default(); 4 * lists];
        let mut space = vec![0u32; scratch];
        let mut bytes = vec![0u8; 64 * 1024];
        let memory = compile::Memory {
            blob: &mut blob,
            pieces: &mut pieces,
            payloads: &mut payloads,
            ranges: &mut ranges,
            scratch: &mut space,
            bytes: &mut bytes,
        };
        let guests = Guests(vec![0x1F; 4096]);
        let compiled = compile::compile(parsed.tree, front, memory, &guests, &HypImage::NOMINAL, &mut diagnostics);
        match compiled {
            Err(Full(Lent::Blob)) => words *= 2,
            Err(Full(Lent::Scratch)) => scratch *= 2,
            Err(Full(_)) => lists *= 2,
            Ok((_, Some(compiled))) => {
                let bytes = compiled.blob;
                let mut words = vec![0u64; bytes.len().div_ceil(8)];
                for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
                    let mut whole = [0; 8];
                    whole[..bytes.len()].copy_from_slice(bytes);
                    *word = u64::from_le_bytes(whole);
                }
                return Ok(words);
            }
            Ok((_, None)) => {
                return Err(diagnostics.iter().map(|d| format!("{d:?}").chars().take(400).collect()).collect());
            }
        }
    }
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// Makes both checksums hold again.
fn reseal(words: &mut [u64]) {
    let all = bytes(words);
    let (records_len, blob_len) = (words[2] as u32, (words[2] >> 32) as u32);
    let tables = tables_checksum(&all, records_len, blob_len).expect("lengths are untouched");
    words[3] = words[3] & !0xFFFF_FFFF | u64::from(tables);
    let records = records_checksum(&bytes(words), records_len).expect("lengths are untouched");
    words[1] = words[1] & !0xFFFF_FFFF | u64::from(records);
}

fn findings(words: &[u64]) -> (Result<(), Refusal>, Vec<Finding>) {
    // The words are the blob: little-endian machines only, as the plan itself.
    let blob = zerocopy::IntoBytes::as_bytes(words);
    let mut scratch = vec![0; scratch_words(blob)];
    let mut all = Vec::new();
    let result = verify(blob, &mut scratch, &mut |f| all.push(f));
    (result.map(|_| ()), all)
}

fn layouts(folder: &str) -> Vec<PathBuf> {
    let folder = root().join(folder);
    let mut all: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "dts"))
        .collect();
    all.sort();
    all
}

/// What the verifier says of a layout's plan; `None` where there is no plan for another reason.
fn verdict(path: &Path) -> Option<(Result<(), Refusal>, Vec<Finding>)> {
    match blob_of(open(path)) {
        Ok(words) if words.is_empty() => None, // no hypervisor for this architecture
        Ok(words) => Some(findings(&words)),
        Err(errors) => {
            let internal = errors.iter().any(|e| e.contains("mistake of the compiler"));
            assert!(!internal, "{}: {errors:#?}", path.display());
            None
        }
    }
}

#[test]
fn what_compiles_is_proven() {
    for path in layouts("layouts").iter().filter(|path| !path.ends_with("x86-ports.dts")) {
        assert_eq!(verdict(path), Some((Ok(()), vec![])), "{}", path.display());
    }
    // The boot tests' layouts are made for their own guests; some do not fit ours, and then there is no plan.
    let tests = layouts("qemu/tests");
    let proven = tests.iter().filter(|path| {
        let verdict = verdict(path);
        assert!(verdict.is_none() || verdict == Some((Ok(()), vec![])), "{}: {verdict:?}", path.display());
        verdict.is_some()
    });
    let proven = proven.count();
    assert!(2 * proven > tests.len(), "only {proven} of {} boot tests have a plan", tests.len());
}

/// Two domains with functions that send messages, one of them with a bridge.
fn functions() -> Vec<u64> {
    let path = root().join("partitioner/tests/accept/pci-functions.dts");
    blob_of(open(&path)).unwrap_or_else(|e| panic!("{e:#?}"))
}

#[test]
fn functions_of_two_domains_are_proven() {
    let words = functions();
    assert_eq!(findings(&words), (Ok(()), vec![]));
    let plan = Plan::read(zerocopy::IntoBytes::as_bytes(&words[..])).expect("sound");
    let owners = plan.pci.expect("it has functions").owners;
    assert!(owners.iter().all(|owner| owner.function_count > 1 && owner.spi_count != 0));
}

/// Which bits of PCI records are harmless, the verifier's own tests say of a smaller plan.
#[test]
fn most_bits_of_functions_are_proven() {
    let sound = functions();
    let blob = zerocopy::IntoBytes::as_bytes(&sound[..]);
    let record = Plan::read(blob).expect("sound").pci.expect("it has functions").record;
    let from = record.functions.offset as usize / 8;
    let words = record.functions.count as usize * size_of::<cofferdam_plan::pci::Function>() / 8;
    let (mut tried, mut refused) = (0, 0);
    for at in from..from + words {
        for bit in (0..64).filter(|bit| (at + bit) % 5 == 0) {
            let mut words = sound.clone();
            words[at] ^= 1 << bit;
            reseal(&mut words);
            tried += 1;
            refused += u32::from(findings(&words).0.is_err());
        }
    }
    assert!(refused * 10 > tried * 7, "only {refused} of {tried} refused");
}

#[test]
fn a_device_with_a_long_name_is_told_under_a_shorter_one() {
    let text = r#"/dts-v1/;
#include "qemu-virt.dts"
/ {
	general-purpose-io-control@d000000 {
		compatible = "arm,pl061", "arm,primecell";
		reg = <0x0 0x0d000000 0x0 0x1000>;
		gpio-controller;
		#gpio-cells = <2>;
	};
	domains {
		compatible = "cofferdam,domains-v1";
		only {
			compatible = "cofferdam,domain";
			#address-cells = <2>;
			#size-cells = <2>;
			cpus = <&cpu0>;
			kernel = "kernel.raw";
			access = <&{/general-purpose-io-control@d000000}>;
			memory@40000000 {
				device_type = "memory";
				reg = <0x0 0x40000000 0x0 0x01000000>;
			};
		};
	};
};
"#;
    let path = root().join("layouts/long-name.dts").display().to_string().leak();
    let words = blob_of(Source { path, text }).unwrap_or_else(|e| panic!("{e:#?}"));
    assert_eq!(findings(&words), (Ok(()), vec![]));
    let blob = bytes(&words);
    let has = |name: &[u8]| blob.windows(name.len()).any(|window| window == name);
    assert!(has(b"\x01general-purpose-io-co@d000000\0"));
}

/// xorshift64: reproducible without a dependency.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Why a flipped bit of a valid descriptor may go unnoticed.
fn is_harmless(plan: &Plan<'_>, entry: u64, bit: u32) -> bool {
    let audit = plan.audit().expect("the sound plan has one");
    let address = entry & 0xFFFF_FFFF_F000;
    let kept =
        |a: u64| audit.facts.iter().any(|f| f.kind == fact::HYPERVISOR && f.region.contains(cofferdam_plan::Pa(a)));
    let is_ram = audit.facts.iter().any(|f| f.kind == fact::RAM && f.region.contains(cofferdam_plan::Pa(address)));
    let blob = plan.header.base.0 + u64::from(plan.header.blob_offset);
    // SH of Device memory is ignored, as long as it does not become the reserved 0b01 (DDI 0487, D8.6.2).
    let device = !is_ram && bit == 9;
    // Which pages of its own image the hypervisor may write or run is its linker's business; never both.
    let image = (plan.header.base.0..blob).contains(&address) && (bit == 54 || bit == 7);
    // A CPU's or domain's area may lie anywhere in memory the hypervisor keeps and uses for nothing else.
    let behind = blob + u64::from(plan.header.blob_len);
    let moved = address ^ 1 << bit;
    let area = address >= behind && kept(address) && moved >= behind && kept(moved) && (12..48).contains(&bit);
    entry & 1 == 1 && (device || image || area)
}

#[test]
fn every_table_bit_of_the_demo_is_proven_or_harmless() {
    let sound = blob_of(open(&root().join("layouts/demo.dts"))).unwrap_or_else(|e| panic!("{e:#?}"));
    let blob = zerocopy::IntoBytes::as_bytes(&sound[..]);
    let plan = Plan::read_whole(blob).expect("it was just compiled");
    let (from, slots) = (plan.header.tables.offset as usize / 8, plan.header.tables.count as usize * 512);
    let used: Vec<usize> = (from..from + slots).filter(|at| sound[*at] != 0).collect();
    let mut state = 0x1234_5678_9ABC_DEF1;
    let (mut tried, mut harmless) = (0, 0);
    for round in 0..4000 {
        // Most flips hit descriptors in use, the others any.
        let at = match round % 8 {
            0 => from + (random(&mut state) as usize % slots),
            _ => used[random(&mut state) as usize % used.len()],
        };
        let bit = random(&mut state) as u32 % 64;
        let mut words = sound.clone();
        words[at] ^= 1 << bit;
        reseal(&mut words);
        tried += 1;
        if findings(&words).0.is_ok() {
            assert!(is_harmless(&plan, sound[at], bit), "word {at:#x} bit {bit} of {:#x}", sound[at]);
            harmless += 1;
        }
    }
    assert!(harmless * 10 < tried, "{harmless} of {tried}");
}

#[test]
fn damaged_records_of_the_demo_never_panic() {
    let sound = blob_of(open(&root().join("layouts/demo.dts"))).unwrap_or_else(|e| panic!("{e:#?}"));
    let tables =
        Plan::read(zerocopy::IntoBytes::as_bytes(&sound[..])).expect("sound").header.tables.offset as usize / 8;
    let mut state = 0xFEED_5EED_0000_0001;
    let mut refused = 0;
    for _ in 0..1000 {
        let mut words = sound.clone();
        // Header lengths stay, so that the sums can be made to hold.
        let at = 4 + random(&mut state) as usize % (tables - 4);
        words[at] ^= 1 << (random(&mut state) % 64);
        reseal(&mut words);
        refused += u32::from(findings(&words).0.is_err());
    }
    assert!(refused > 150, "only {refused} of 1000 changes to records were refused");
}
