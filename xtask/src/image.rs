//! `cargo xtask image`: writes the flashable image of a layout. Also how `run`, `test` and `bench` get theirs.

use crate::files::Files;
use crate::formats;
use crate::guests::Guests;
use crate::hyp::Hypervisors;
use crate::pipeline::{self, Job, Options, Outcome};
use crate::render;
use crate::repo;
use crate::trouble::{Done, Trouble};
use cofferdam_partitioner::model::Domain;
use cofferdam_plan::Plan;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use zerocopy::IntoBytes;

/// Write the flashable image of each layout and print its path. Exit code 1: the layout has errors
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Layouts
    #[arg(required = true)]
    layouts: Vec<PathBuf>,
    /// Folder to write into [default: target/images]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// What to write (repeatable, or separated by commas)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "image")]
    format: Vec<Format>,
    #[command(flatten)]
    options: Options,
}

/// A wrapping of the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    /// Flat arm64 Image, for booti and QEMU's -kernel
    Image,
    /// ELF, for QEMU's -kernel and loaders that want one
    Elf,
    /// Image padded to the board's flash: starts at the reset vector
    Flash,
}

/// A finished image and what a run of it must know.
pub(crate) struct Built {
    /// The flat image.
    pub(crate) image: Vec<u8>,
    /// Its planned address.
    pub(crate) base: u64,
    /// Byte offset of the plan blob.
    pub(crate) blob_offset: u64,
    /// The plan blob.
    pub(crate) blob: Vec<u8>,
    /// Bytes of its header and records.
    pub(crate) records_len: usize,
    /// Domain names.
    pub(crate) domains: Vec<String>,
    /// Their guests.
    pub(crate) guests: Vec<Guest>,
    /// Whether each has a console.
    pub(crate) consoles: Vec<bool>,
    /// Index of the domain that console input goes to first.
    pub(crate) input: Option<usize>,
    /// First byte of the chord that leads it elsewhere; 0: there is none.
    pub(crate) console_escape: u8,
    /// Whether the log has a UART of its own.
    pub(crate) own_log: bool,
    /// The ELF with symbols and its file name.
    pub(crate) symbols: (String, Vec<u8>),
    /// Bytes of the board's first flash bank, where it has one.
    pub(crate) flash: Option<u64>,
    /// QEMU's arguments for the board, where they are known: `<board>.qemu` beside the board file.
    pub(crate) qemu: Option<PathBuf>,
}

/// What a debugger wants to know of one domain's guest.
pub(crate) struct Guest {
    /// Where its vCPU 0 starts.
    pub(crate) entry: u64,
    /// Its vCPUs, as places in the board's list of CPUs.
    pub(crate) cpus: Vec<usize>,
    /// The file with its symbols, where its kernel is an ELF.
    pub(crate) symbols: Option<PathBuf>,
}

/// The command itself.
pub(crate) fn main(args: &Args) -> Done {
    let dir = args.output.clone().unwrap_or_else(|| repo::target().join("images"));
    for (index, layout) in args.layouts.iter().enumerate() {
        if let Some(other) = args.layouts[..index].iter().find(|other| other.file_stem() == layout.file_stem()) {
            return Err(Trouble::other(format!(
                "{} and {} would write the same files: make them in two calls, each with its own -o DIR",
                other.display(),
                layout.display()
            )));
        }
    }
    let mut code = 0;
    for layout in &args.layouts {
        let Some(built) = build(layout, &args.options)? else {
            code = 1;
            continue;
        };
        for format in &args.format {
            println!("{}", repo::shown(&write(&built, layout, &dir, *format)?));
        }
    }
    Ok(code)
}

/// Compiles `layout` and puts its image together. `None` where it has errors; they have been shown on standard error.
pub(crate) fn build(layout: &Path, options: &Options) -> Result<Option<Built>, Trouble> {
    if !has_hypervisor(layout, options)? {
        return Ok(None);
    }
    build_with(&Hypervisors::default(), layout, options)
}

/// Whether there is a hypervisor for the layout's board; where there is none, says so. Looked at before anything is built.
fn has_hypervisor(layout: &Path, options: &Options) -> Result<bool, Trouble> {
    let files = Files::default();
    let guests = Guests::new(layout, &options.guest_dir, true);
    let job = Job { layout, options, hypervisors: None, guests: &guests, files: &files };
    pipeline::compile(&job, |outcome| {
        let arch = outcome.board.arch;
        if arch.hypervisor_supported() {
            return Ok(true);
        }
        eprint!("{}", render::render(&outcome.messages, render::Format::Human, std::io::stderr().is_terminal()));
        if outcome.errors == 0 {
            eprintln!(
                "error: there is no hypervisor for {} yet: the layout is sound, but no image can be made of it",
                arch.name()
            );
        }
        Ok(false)
    })
}

/// As [`build`], with hypervisors that may have been built already.
pub(crate) fn build_with(builds: &Hypervisors, layout: &Path, options: &Options) -> Result<Option<Built>, Trouble> {
    let files = Files::default();
    let guests = Guests::new(layout, &options.guest_dir, false);
    let job = Job { layout, options, hypervisors: Some(builds), guests: &guests, files: &files };
    pipeline::compile(&job, |outcome| {
        eprint!("{}", render::render(&outcome.messages, render::Format::Human, std::io::stderr().is_terminal()));
        put_together(&outcome, &guests)
    })
}

fn put_together(outcome: &Outcome<'_, '_, '_, '_>, guests: &Guests) -> Result<Option<Built>, Trouble> {
    let (board, layout) = (outcome.board, outcome.layout);
    let (Some(compiled), Some(hyp)) = (outcome.compiled, outcome.hypervisor) else { return Ok(None) };
    if !board.arch.hypervisor_supported() {
        return Err(Trouble::other(format!("there is no hypervisor for {} yet", board.arch.name())));
    }
    let blob = compiled.blob.as_bytes().to_vec();
    let plan = Plan::read_whole(compiled.blob.as_bytes())
        .map_err(|error| Trouble::other(format!("the compiler's plan cannot be read back: {error:?}")))?;
    Ok(Some(Built {
        image: formats::flat(compiled, hyp, guests)?,
        base: compiled.base.0,
        blob_offset: compiled.blob_offset,
        blob,
        records_len: plan.header.records_len as usize,
        domains: layout.domains.iter().map(|domain| domain.name.to_string()).collect(),
        guests: layout.domains.iter().zip(plan.domains).map(|(domain, record)| guest(domain, record, guests)).collect(),
        consoles: layout.domains.iter().map(|domain| domain.console.is_some()).collect(),
        input: layout.input,
        console_escape: layout.console_escape,
        own_log: plan.header.log_va != 0,
        symbols: (hyp.elf_name(), hyp.elf.clone()),
        flash: flash_size(board),
        qemu: board_arguments(outcome),
    }))
}

fn guest(domain: &Domain<'_>, record: &cofferdam_plan::Domain, guests: &Guests) -> Guest {
    Guest {
        entry: record.entry.0,
        cpus: domain.cpus.iter().map(|cpu| cpu.value).collect(),
        symbols: domain.kernel.and_then(|kernel| guests.find(kernel.value).symbols.clone()),
    }
}

/// Writes `built` in one format into `dir`, with the hypervisor's symbols beside it.
pub(crate) fn write(built: &Built, layout: &Path, dir: &Path, format: Format) -> Result<PathBuf, Trouble> {
    let name = layout.file_stem().unwrap_or_default().to_string_lossy();
    let (extension, bytes) = match format {
        Format::Image => ("Image", built.image.clone()),
        Format::Elf => ("elf", formats::elf(&built.image, built.base)),
        Format::Flash => {
            let size = built.flash.ok_or_else(|| {
                Trouble::other("the board has no cfi-flash node, so it is not known how large a flash image must be")
            })?;
            let bytes = formats::flash(&built.image, size).ok_or_else(|| {
                Trouble::other(format!("the image ({} bytes) does not fit the flash ({size} bytes)", built.image.len()))
            })?;
            ("flash", bytes)
        }
    };
    let path = dir.join(format!("{name}.{extension}"));
    repo::write(&path, &bytes)?;
    repo::write(&dir.join(&built.symbols.0), &built.symbols.1)?;
    Ok(path)
}

/// Size of the flash bank at address 0, where the CPU starts.
fn flash_size(board: &cofferdam_partitioner::model::Board<'_>) -> Option<u64> {
    board.tree.nodes().filter(|node| node.is_compatible("cfi-flash") && node.is_enabled()).find_map(|node| {
        let mut cells = node.property("reg")?.cells()?.map(|cell| cell.value);
        let (high, low, size_high, size_low) = (cells.next()?, cells.next()?, cells.next()?, cells.next()?);
        (high << 32 | low == 0).then_some(size_high << 32 | size_low)
    })
}

/// `<board>.qemu` beside one of the files the layout includes.
fn board_arguments(outcome: &Outcome<'_, '_, '_, '_>) -> Option<PathBuf> {
    let files = outcome.sources.iter().map(|source| Path::new(source.path).with_extension("qemu"));
    files.into_iter().find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_boards_with_a_hypervisor_get_one_built() {
        for (layout, expected) in [("layouts/x86-ports.dts", false), ("layouts/demo.dts", true)] {
            let Ok(has) = has_hypervisor(&repo::root().join(layout), &Options::default()) else { panic!("{layout}") };
            assert_eq!(has, expected, "{layout}");
        }
    }
}
