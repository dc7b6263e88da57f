//! `cargo xtask run`: builds a layout's image and boots it in QEMU.
//!
//! Standard output carries domain lines and nothing else; the hypervisor's log in words and all chatter go to standard
//! error. Scripts rely on that and on the exit codes.

use crate::decode::{self, Decoder, OWN};
use crate::image::{self, Built};
use crate::pipeline::Options;
use crate::qemu::{self, Boot, Run, Sink};
use crate::repo;
use crate::setup;
use crate::trouble::{Done, Trouble};
use crate::wire::Part;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Boot a layout in QEMU. Exit code 0: all domains off, 1: one parked by a fault, 2: tool trouble, 3: time over
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The layout [default: layouts/demo.dts]
    layout: Option<PathBuf>,
    /// Stop the board after this many seconds
    #[arg(long, value_name = "SECS")]
    timeout: Option<u64>,
    /// How the image reaches the machine
    #[arg(long, value_enum, default_value = "image")]
    format: image::Format,
    #[command(flatten)]
    options: Options,
    /// Further arguments for QEMU
    #[arg(last = true)]
    qemu: Vec<String>,
}

/// The command itself.
pub(crate) fn main(args: &Args) -> Done {
    setup::all()?;
    // Before the board runs: the first frame must not wait for a build, and `--timeout` counts the board's time only.
    // Without it the log is shown as it comes, with the reason.
    if let Err(trouble) = decode::build() {
        eprintln!("run: the hypervisor's log stays undecoded: {trouble}");
    }
    let layout = args.layout.clone().unwrap_or_else(|| repo::root().join("layouts/demo.dts"));
    let Some(built) = image::build(&layout, &args.options)? else {
        // Exit code 1 is kept for a domain that was parked.
        return Err(Trouble::other(format!("{} cannot be run", layout.display())));
    };
    let dir = repo::target().join("images");
    let path = image::write(&built, &layout, &dir, args.format)?;
    eprintln!("run: {} ({} bytes)", repo::shown(&path), built.image.len());
    let boot = if args.format == image::Format::Flash { Boot::Flash(path) } else { Boot::Kernel(path) };
    let end = boot_built(&built, boot, &args.qemu, args.timeout.map(Duration::from_secs), true, &mut Terminal)?;
    match end {
        qemu::End::NoEndLine => eprintln!("run: the machine stopped without the hypervisor's last line"),
        qemu::End::StayedOn => eprintln!("run: all domains have ended, but the machine did not go off"),
        qemu::End::TimeOver => eprintln!("run: time over"),
        qemu::End::Parked(_) => {}
    }
    Ok(end.code())
}

/// Boots an image that has been written.
pub(crate) fn boot_built(
    built: &Built,
    boot: Boot,
    extra: &[String],
    limit: Option<Duration>,
    stdin: bool,
    sink: &mut dyn Sink,
) -> Result<qemu::End, Trouble> {
    let file = built.qemu.as_ref().ok_or_else(|| {
        Trouble::other("no <board>.qemu stands beside the board file: how QEMU is started for it is not known")
    })?;
    let elf = repo::target().join("images").join(&built.symbols.0);
    repo::write(&elf, &built.symbols.1)?;
    let log = repo::target().join("run").join(format!("{}.log", std::process::id()));
    if built.own_log {
        repo::write(&log, b"")?;
    }

    qemu::run(
        Run {
            board: &qemu::board_arguments(file)?,
            boot,
            extra,
            log: built.own_log.then_some(log.as_path()),
            domains: &built.domains,
            decoder: Decoder::new(elf),
            limit,
            stdin,
        },
        sink,
    )
}

/// The contract of standard output and standard error.
struct Terminal;

impl Sink for Terminal {
    fn domain(&mut self, name: &str, part: Part<'_>) {
        let mut text = Vec::new();
        part.plain(name, &mut text);
        let mut out = std::io::stdout().lock();
        // A reader that has gone away does not stop the run.
        let _ = out.write_all(&text).and_then(|()| out.flush());
    }

    fn own(&mut self, line: &str) {
        eprintln!("{OWN}{line}");
    }

    fn other(&mut self, line: &str) {
        eprintln!("{line}");
    }
}
