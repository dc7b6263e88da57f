//! A damaged plan never runs: flips in its records are refused at boot, flips in its tables by the verifier, and at boot
//! too where the layout says `verify-at-boot`. Nor does a plan for the other build of the hypervisor.

use super::WITH_PCI;
use super::tally::Tally;
use crate::hyp::{Hypervisor, Hypervisors};
use crate::image::{self, Built};
use crate::pipeline::Options;
use crate::qemu::{self, Boot, Sink};
use crate::repo;
use crate::run;
use crate::trouble::Trouble;
use crate::typing::Input;
use crate::wire::{Lines, Part};
use std::time::Duration;

/// A refused plan powers the machine off at once.
const LIMIT: Duration = Duration::from_secs(15);
/// Boots of damaged records: spread evenly, and each with another bit.
const RECORD_BOOTS: usize = 24;
/// Boots of damaged tables.
const TABLE_BOOTS: usize = 6;

/// All of it, on the smallest layout.
pub(crate) fn run(tally: &mut Tally) -> Result<(), Trouble> {
    let builds = Hypervisors::default();
    let dir = repo::target().join("test/bitflip");
    let options = Options { include: vec![repo::root().join("layouts")], ..Options::default() };
    let plain = dir.join("plain.dts");
    repo::write(&plain, b"#include \"minimal.dts\"\n")?;
    let checked = dir.join("checked.dts");
    repo::write(&checked, b"#include \"minimal.dts\"\n/ {\n\tdomains {\n\t\tverify-at-boot;\n\t};\n};\n")?;
    let cannot = || Trouble::other("layouts/minimal.dts cannot be compiled");
    let plain = image::build_with(&builds, &plain, &options)?.ok_or_else(cannot)?;
    let checked = image::build_with(&builds, &checked, &options)?.ok_or_else(cannot)?;

    let records = plain.records_len;
    tally.check("bitflip verifier, every byte", every_byte(&plain.blob));
    for index in 0..RECORD_BOOTS {
        let byte = index * records / RECORD_BOOTS;
        let outcome = boot_damaged(&plain, byte, index as u32 % 8)?;
        tally.check(format_args!("bitflip records, byte {byte}"), outcome);
    }
    for index in 0..TABLE_BOOTS {
        let byte = records + (2 * index + 1) * (checked.blob.len() - records) / (2 * TABLE_BOOTS);
        let outcome = boot_damaged(&checked, byte, index as u32 % 8)?;
        tally.check(format_args!("bitflip tables with verify-at-boot, byte {byte}"), outcome);
    }
    tally.check("bitflip: a plan with PCI, a hypervisor without", boot_mistaken(&options)?);
    Ok(())
}

/// A plan with PCI functions and a hypervisor without PCI: refused by name.
fn boot_mistaken(options: &Options) -> Result<Result<(), String>, Trouble> {
    let dir = repo::target().join("test/bitflip");
    let layout = dir.join("mistaken.dts");
    repo::write(&layout, WITH_PCI.as_bytes())?;
    // The one without, where the other is looked for.
    let mut without = Hypervisor::build(false)?;
    without.pci = true;
    let mut mistaken = Hypervisors::default();
    mistaken.with = without.into();
    let built = image::build_with(&mistaken, &layout, options)?
        .ok_or_else(|| Trouble::other("a layout with a PCI function cannot be compiled"))?;
    let path = dir.join("mistaken.Image");
    repo::write(&path, &built.image)?;
    let mut heard = Heard::default();
    let end = run::boot_built(&built, Boot::Kernel(path), &[], Some(LIMIT), Input::Nobody, &mut heard)?;
    let named = heard.own.iter().any(|line| line.contains("this hypervisor is built without PCI"));
    Ok(match end == qemu::End::NoEndLine && heard.domains.get().is_empty() && named {
        true => Ok(()),
        false => Err(format!("{end:?}\n{}\n{}", heard.own.join("\n"), heard.domains.get().join("\n"))),
    })
}

/// One bit of every byte of the blob: the verifier refuses each.
fn every_byte(blob: &[u8]) -> Result<(), String> {
    let mut words: Vec<u64> = vec![0; blob.len().div_ceil(8)];
    let mut scratch = vec![0; cofferdam_verify::scratch_words(blob).max(1024)];
    for byte in 0..blob.len() {
        for (word, chunk) in words.iter_mut().zip(blob.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_le_bytes(bytes);
        }
        words[byte / 8] ^= 1 << (8 * (byte % 8) + byte % 7);
        let damaged = &zerocopy::IntoBytes::as_bytes(words.as_slice())[..blob.len()];
        if cofferdam_verify::verify(damaged, &mut scratch, &mut |_| {}).is_ok() {
            return Err(format!("a flip in byte {byte} of {} went through", blob.len()));
        }
    }
    Ok(())
}

/// What a refused boot says.
#[derive(Default)]
struct Heard {
    domains: Lines,
    own: Vec<String>,
}

impl Sink for Heard {
    fn domain(&mut self, name: &str, part: Part<'_>) {
        self.domains.add(name, part);
    }
    fn own(&mut self, line: &str) {
        self.own.push(line.into());
    }
    fn other(&mut self, _: &str) {}
}

/// Boots with one bit flipped: no guest may run, and the machine must go off.
fn boot_damaged(built: &Built, byte: usize, bit: u32) -> Result<Result<(), String>, Trouble> {
    let mut image = built.image.clone();
    image[built.blob_offset as usize + byte] ^= 1 << bit;
    let path = repo::target().join("test/bitflip/damaged.Image");
    repo::write(&path, &image)?;
    let mut heard = Heard::default();
    let end = run::boot_built(built, Boot::Kernel(path), &[], Some(LIMIT), Input::Nobody, &mut heard)?;
    let mut report = String::new();
    if end != qemu::End::NoEndLine {
        report += &format!("it ended as {end:?}\n");
    }
    if !heard.domains.get().is_empty() {
        report += &format!("a guest ran: {}\n", heard.domains.get().join("\n"));
    }
    // Where the damage is in the console's address itself, silence is right: nobody vouches for it any more.
    let console = 64..80;
    if heard.own.is_empty() && !console.contains(&byte) {
        report += "it was not refused with a message\n";
    }
    Ok(if report.is_empty() { Ok(()) } else { Err(report) })
}
