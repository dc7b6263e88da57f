//! `cargo xtask`: the command line, and nothing else. Each command is one module.
//!
//! Exit codes are a contract (ARCHITECTURE.md, commands): 0 fine, 1 the input is wrong, 2 usage or tool trouble, 3 time
//! over.

mod attach;
mod bench;
mod check;
mod cpio;
mod cross;
mod debian;
mod decode;
mod elf;
mod exec;
mod explain;
mod files;
mod formats;
mod gdb;
mod guests;
mod hyp;
mod image;
mod import;
mod pipeline;
mod qemu;
mod raw;
mod render;
mod repo;
mod report;
mod run;
mod setup;
mod test;
mod trouble;
mod typing;
mod wire;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Cofferdam: partitions an Arm board before it boots",
    version
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(check::Args),
    Image(image::Args),
    Run(run::Args),
    Gdb(gdb::Args),
    Bench(bench::Args),
    Report(report::Args),
    Test(test::Args),
    Setup(setup::Args),
    Cross(cross::Args),
    Explain(explain::Args),
    Decode(decode::Args),
    Import(import::Args),
}

fn main() -> ExitCode {
    // A reader that goes away (`| head`) ends the command. `print!` panics then; that is no fault of ours to show.
    let show = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<String>();
        if let Some(text) = text.filter(|text| text.starts_with("failed printing to stdout")) {
            if !text.contains("Broken pipe") {
                eprintln!("error: {text}");
            }
            std::process::exit(2);
        }
        show(info);
    }));
    let done = match Cli::parse().command {
        Command::Check(args) => check::main(&args),
        Command::Image(args) => image::main(&args),
        Command::Run(args) => run::main(&args),
        Command::Gdb(args) => gdb::main(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Report(args) => report::main(&args),
        Command::Test(args) => test::main(&args),
        Command::Setup(args) => setup::main(&args),
        Command::Cross(args) => cross::main(&args),
        Command::Explain(args) => explain::main(&args),
        Command::Decode(args) => decode::main(&args),
        Command::Import(args) => import::main(&args),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(trouble) => {
            eprintln!("error: {trouble}");
            ExitCode::from(2)
        }
    }
}
