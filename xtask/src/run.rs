//! `cargo xtask run`: builds a layout's image and boots it in QEMU.
//!
//! Standard output carries domain lines and nothing else; the hypervisor's log in words and all chatter go to standard
//! error. Scripts rely on that and on the exit codes.

use crate::attach::{Both, Console, Logs, Ptys};
use crate::decode::{self, Decoder, OWN};
use crate::image::{self, Built};
use crate::pipeline::Options;
use crate::qemu::{self, Boot, Run, Sink};
use crate::repo;
use crate::setup;
use crate::trouble::{Done, Trouble};
use crate::typing::Input;
use crate::wire::Part;
use std::io::{IsTerminal, Write};
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
    /// Attach this terminal to one domain: its bytes as it wrote them, keys go to it, Ctrl-] leaves. Others' lines and the
    /// hypervisor's log go to standard error; where that is a terminal, others' lines are left out
    #[arg(long, value_name = "DOMAIN")]
    console: Option<String>,
    /// Give each domain with a console a pseudo-terminal, and print `domain: /dev/pts/N` for each
    #[arg(long, conflicts_with = "console")]
    pty: bool,
    /// Also write DOMAIN.log for each domain and hyp.log, the hypervisor's log in words, into this folder
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
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
    let (mut sink, input): (Box<dyn Sink>, _) = match &args.console {
        Some(name) => Console::attach(&built, name).map(|(console, input)| (Box::new(console) as _, input))?,
        None if args.pty => Ptys::open(&built).map(|(ptys, input)| (Box::new(ptys) as _, input))?,
        None => (Box::new(Terminal::new()), Input::Stdin),
    };
    let limit = args.timeout.map(Duration::from_secs);
    let end = match &args.log {
        Some(dir) => {
            let mut logs = Logs::new(dir, &built.domains)?;
            boot_built(&built, boot, &args.qemu, limit, input, &mut Both(sink.as_mut(), &mut logs))?
        }
        None => boot_built(&built, boot, &args.qemu, limit, input, sink.as_mut())?,
    };
    // A terminal is as it was before anything else is said.
    drop(sink);
    match end {
        qemu::End::NoEndLine => eprintln!("run: the machine stopped without the hypervisor's last line"),
        qemu::End::StayedOn => eprintln!("run: all domains have ended, but the machine did not go off"),
        qemu::End::TimeOver => eprintln!("run: time over"),
        qemu::End::Parked(_) | qemu::End::Left => {}
    }
    Ok(end.code())
}

/// Boots an image that has been written.
pub(crate) fn boot_built(
    built: &Built,
    boot: Boot,
    extra: &[String],
    limit: Option<Duration>,
    input: Input,
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
            input,
        },
        sink,
    )
}

/// The contract of standard output and standard error.
struct Terminal {
    /// Both are the same terminal, as far as can be seen: a line of one must not run into a line of the other.
    shared: bool,
    /// The line on standard output has not ended.
    open: bool,
}

impl Terminal {
    fn new() -> Self {
        Self { shared: std::io::stdout().is_terminal() && std::io::stderr().is_terminal(), open: false }
    }

    fn aside(&mut self, line: &str) {
        if self.shared && std::mem::take(&mut self.open) {
            eprintln!();
        }
        eprintln!("{line}");
    }
}

impl Sink for Terminal {
    fn domain(&mut self, name: &str, part: Part<'_>) {
        let mut text = Vec::new();
        // Its line was interrupted from outside the wire, which knows nothing of it.
        if self.shared && !self.open && matches!(part, Part::Text(_)) {
            Part::Opens { continued: true }.plain(name, &mut text);
        }
        part.plain(name, &mut text);
        self.open = !matches!(part, Part::Ends(_));
        let mut out = std::io::stdout().lock();
        // A reader that has gone away does not stop the run.
        let _ = out.write_all(&text).and_then(|()| out.flush());
    }

    fn own(&mut self, line: &str) {
        self.aside(&format!("{OWN}{line}"));
    }

    fn other(&mut self, line: &str) {
        self.aside(line);
    }
}
