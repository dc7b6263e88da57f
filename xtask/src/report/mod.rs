//! `cargo xtask report`: the whole plan, readable. What was decided, why, and what remains open.
//!
//! Everything is read back from the finished blob, not from the compiler's head: the report shows what will run.

mod facts;
mod html;
mod text;

pub(crate) use facts::{HypervisorRam, Report};

use crate::files::Files;
use crate::guests::Guests;
use crate::hyp::Hypervisor;
use crate::pipeline::{self, Job, Options};
use crate::render;
use crate::trouble::Done;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Show the whole plan of a layout
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The layout
    layout: PathBuf,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    #[command(flatten)]
    options: Options,
}

/// Forms of the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    /// For a terminal
    Text,
    /// For scripts
    Json,
    /// For a browser, one file
    Html,
}

/// The command itself.
pub(crate) fn main(args: &Args) -> Done {
    let hypervisor = Hypervisor::build()?;
    let files = Files::default();
    let guests = Guests::new(&args.layout, &args.options.guest_dir, false);
    let job = Job {
        layout: &args.layout,
        options: &args.options,
        hypervisor: Some(&hypervisor),
        guests: &guests,
        files: &files,
    };
    pipeline::compile(&job, |outcome| {
        eprint!("{}", render::render(&outcome.messages, render::Format::Human, std::io::stderr().is_terminal()));
        let board = outcome.board;
        let Some(compiled) = outcome.compiled else { return Ok(1) };
        if !board.arch.hypervisor_supported() {
            eprintln!("error: there is no hypervisor for {} yet, so there is no plan to show", board.arch.name());
            return Ok(1);
        }
        let report = Report::new(&args.layout, compiled, &hypervisor, &guests)?;
        match args.format {
            Format::Text => print!("{}", text::render(&report)),
            Format::Json => println!("{}", report.json()),
            Format::Html => print!("{}", html::render(&report)),
        }
        Ok(0)
    })
}
