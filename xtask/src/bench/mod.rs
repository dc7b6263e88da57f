//! `cargo xtask bench`: every figure with its goal and the peers' figures beside it.
//!
//! Instructions are counted by QEMU, not timed: `-icount shift=0` and a counter of 1 GHz make one tick one instruction.
//! What is measured is printed as it is; a figure beyond its goal says so and makes no excuse.

mod boot;
mod checks;
mod figure;
mod generate;
mod guest;
mod linux;
mod pci;
mod plugin;
mod sizes;

pub(crate) use figure::{Figure, Value};

use crate::guests;
use crate::hyp::Hypervisors;
use crate::image::{self, Built};
use crate::pipeline::Options;
use crate::qemu::{Boot, End, Sink};
use crate::repo;
use crate::run;
use crate::setup;
use crate::trouble::{Done, Trouble};
use crate::typing::Input;
use crate::wire::{Lines, Part};
use std::path::PathBuf;
use std::time::Duration;

/// Measure every figure and print it beside its goal and the peers'
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these parts [default: all]
    #[arg(value_parser = PARTS.map(|(name, _)| name))]
    names: Vec<String>,
    /// For scripts
    #[arg(long)]
    json: bool,
}

/// Measures one part's figures.
type Measure = fn(&Bench) -> Result<Vec<Figure>, Trouble>;

const PARTS: [(&str, Measure); 6] = [
    ("boot", boot::measure),
    ("guest", guest::measure),
    ("sizes", sizes::measure),
    ("checks", checks::measure),
    ("linux", linux::measure),
    ("pci", pci::measure),
];

/// Where the layouts and images of the measurements lie.
fn folder() -> PathBuf {
    repo::target().join("bench")
}

/// The command itself. Exit code 0 when everything could be measured, whatever it came to.
pub(crate) fn main(args: &Args) -> Done {
    setup::all()?;
    let bench = Bench { builds: Hypervisors::default(), guest_dir: guests::attackers()? };
    let mut figures = Vec::new();
    for (name, part) in PARTS {
        if args.names.is_empty() || args.names.iter().any(|wanted| wanted == name) {
            figures.extend(part(&bench)?);
        }
    }
    if args.json {
        println!("{}", figure::json(&figures));
    } else {
        print!("{}", figure::table(&figures));
    }
    Ok(0)
}

/// What every measurement needs.
pub(crate) struct Bench {
    /// The hypervisors that are measured.
    pub(crate) builds: Hypervisors,
    /// Where `bench.elf` lies.
    pub(crate) guest_dir: PathBuf,
}

/// QEMU's arguments under which a tick is an instruction, one CPU.
const COUNTED: [&str; 6] = ["-cpu", "cortex-a57,cntfrq=1000000000", "-icount", "shift=0,sleep=off", "-smp", "1"];
const LIMIT: Duration = Duration::from_secs(120);

impl Bench {
    /// Builds a layout from text.
    pub(crate) fn build(&self, name: &str, text: &str) -> Result<(Built, PathBuf), Trouble> {
        let layout = folder().join(format!("{name}.dts"));
        repo::write(&layout, text.as_bytes())?;
        let options = Options { guest_dir: vec![self.guest_dir.clone(), folder()], ..Options::default() };
        let built = image::build_with(&self.builds, &layout, &options)?
            .ok_or_else(|| Trouble::other(format!("the layout of the measurement `{name}` has errors")))?;
        let path = image::write(&built, &layout, &folder(), image::Format::Image)?;
        Ok((built, path))
    }

    /// Boots it; the domains' lines without prefix. Anything but a clean end is trouble: a figure of a failed run is none.
    pub(crate) fn boot(&self, built: &Built, path: PathBuf, extra: &[String]) -> Result<Vec<String>, Trouble> {
        self.boot_within(built, path, extra, LIMIT)
    }

    /// The same with another time limit.
    pub(crate) fn boot_within(
        &self,
        built: &Built,
        path: PathBuf,
        extra: &[String],
        limit: Duration,
    ) -> Result<Vec<String>, Trouble> {
        let mut heard = Heard::default();
        let end = run::boot_built(built, Boot::Kernel(path), extra, Some(limit), Input::Nobody, &mut heard)?;
        if end != End::Parked(0) {
            return Err(Trouble::other(format!(
                "a measurement ended as {end:?}:\n{}\n{}",
                heard.domains.get().join("\n"),
                heard.others.join("\n")
            )));
        }
        Ok(heard.domains.get().iter().filter_map(|line| Some(line.split_once("] ")?.1.to_string())).collect())
    }
}

#[derive(Default)]
struct Heard {
    domains: Lines,
    others: Vec<String>,
}

impl Sink for Heard {
    fn domain(&mut self, name: &str, part: Part<'_>) {
        self.domains.add(name, part);
    }
    fn own(&mut self, line: &str) {
        self.others.push(line.into());
    }
    fn other(&mut self, line: &str) {
        self.others.push(line.into());
    }
}

/// Arguments as strings.
fn words(args: &[&str]) -> Vec<String> {
    args.iter().map(|word| word.to_string()).collect()
}

/// The board of most figures.
const BOARD: &str = "qemu-virt.dts";

/// A layout of `count` single-CPU domains on [`BOARD`]; domain 0 is the measuring one. `more` goes into domain 0.
fn layout(count: usize, more: &str) -> String {
    layout_on(BOARD, "console;", count, more)
}

/// The same on another board; `console` is each domain's property.
fn layout_on(board: &str, console: &str, count: usize, more: &str) -> String {
    let mut text =
        format!("/dts-v1/;\n#include \"{board}\"\n\n/ {{\n\tdomains {{\n\t\tcompatible = \"cofferdam,domains-v1\";\n",);
    for index in 0..count {
        let more = if index == 0 { more } else { "" };
        text += &format!(
            "\n\t\tbench{index} {{\n\t\t\tcompatible = \"cofferdam,domain\";\n\t\t\t#address-cells = <2>;\n\t\t\t#size-cells = <2>;\n\t\t\tcpus = <&cpu{index}>;\n\t\t\tkernel = \"bench.elf\";\n\t\t\t{console}\n{more}\n\t\t\tmemory@40000000 {{\n\t\t\t\tdevice_type = \"memory\";\n\t\t\t\treg = <0x0 0x40000000 0x0 0x04000000>;\n\t\t\t}};\n\t\t}};\n"
        );
    }
    text + "\t};\n};\n"
}
