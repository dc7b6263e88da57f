//! `cargo xtask gdb`: a layout in QEMU under gdb, which knows the hypervisor's symbols and one domain's.
//!
//! The board is a `cargo xtask run` of its own, in a process group of its own: keys like Ctrl-C are for gdb alone, which takes this
//! process over. The board ends with it.

mod script;

use crate::image::{self, Built};
use crate::pipeline::Options;
use crate::repo;
use crate::setup;
use crate::trouble::{Done, Trouble};
use script::Script;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

/// For the board to be built and to wait for gdb.
const LIMIT: Duration = Duration::from_secs(300);

/// Debug one domain of a layout, and the hypervisor below it, in QEMU
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The domain
    domain: String,
    /// The layout [default: layouts/demo.dts]
    layout: Option<PathBuf>,
    /// File with the guest's symbols, for example vmlinux; an ELF kernel and our own examples bring theirs
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
    /// Start nothing; print where the script is and the two commands to type, for an IDE
    #[arg(long)]
    script_only: bool,
    /// Port of QEMU's stub [default: a free one; 1234 with --script-only]
    #[arg(long)]
    port: Option<u16>,
    /// A gdb command to run once connected (repeatable)
    #[arg(long, value_name = "COMMAND")]
    ex: Vec<String>,
    /// End after the commands of --ex
    #[arg(long)]
    batch: bool,
    #[command(flatten)]
    options: Options,
    /// Further arguments for QEMU
    #[arg(last = true)]
    qemu: Vec<String>,
}

/// The command itself. It only comes back where there is nothing to debug.
pub(crate) fn main(args: &Args) -> Done {
    setup::all()?;
    let gdb = setup::gdb()?;
    let layout = args.layout.clone().unwrap_or_else(|| repo::root().join("layouts/demo.dts"));
    let Some(built) = image::build(&layout, &args.options)? else {
        return Err(Trouble::other(format!("{} cannot be run", layout.display())));
    };
    let name = layout.file_stem().unwrap_or_default().to_string_lossy();
    let dir = repo::target().join("gdb").join(format!("{name}-{}", args.domain));
    let port = match args.port {
        Some(port) => port,
        None if args.script_only => 1234,
        None => free_port()?,
    };
    let consoles = dir.join("consoles");
    let script = script(args, &built, &dir, port, (!args.script_only).then_some(consoles.as_path()))?;
    let board = board(args, &layout, &built, port);
    if args.script_only {
        println!("script: {}", repo::shown(&script));
        println!("board:  cargo xtask {}", board.join(" "));
        println!("gdb:    {} -x {}", gdb.display(), repo::shown(&script));
        return Ok(0);
    }
    let mut child = start(&board, &dir, &consoles)?;
    wait_for(&mut child, port, &dir)?;
    let mut command = Command::new(gdb);
    command.arg("-q").arg("-x").arg(&script);
    if args.batch {
        command.arg("-batch");
    }
    args.ex.iter().for_each(|line| _ = command.arg("-ex").arg(line));
    Err(Trouble::Start { program: "gdb".into(), source: command.exec() })
}

/// Writes the script.
fn script(args: &Args, built: &Built, dir: &Path, port: u16, consoles: Option<&Path>) -> Result<PathBuf, Trouble> {
    let index = built.domains.iter().position(|name| *name == args.domain).ok_or_else(|| {
        Trouble::other(format!("there is no domain `{}`\n  help: there are: {}", args.domain, built.domains.join(", ")))
    })?;
    let guest = &built.guests[index];
    let hypervisor = dir.join(&built.symbols.0);
    repo::write(&hypervisor, &built.symbols.1)?;
    let names = built.domains.iter().map(String::as_str);
    let domains: Vec<_> = names.zip(&built.guests).map(|(name, guest)| (name, guest.cpus.as_slice())).collect();
    let symbols = args.symbols.as_deref().or(guest.symbols.as_deref());
    if symbols.is_none() {
        eprintln!("gdb: the kernel of {} has no symbols; --symbols names a file that has", args.domain);
    }
    let text = Script {
        root: &repo::root(),
        hypervisor: &hypervisor,
        base: built.base,
        domain: &args.domain,
        symbols,
        entry: guest.entry,
        domains: &domains,
        port,
        consoles,
    }
    .text();
    let path = dir.join("script.gdb");
    repo::write(&path, text.as_bytes())?;
    Ok(path)
}

/// The words behind `cargo xtask` that start the board, stopped at its first instruction.
fn board(args: &Args, layout: &Path, built: &Built, port: u16) -> Vec<String> {
    let mut words = vec!["run".into(), layout.display().to_string()];
    if built.consoles.contains(&true) {
        words.push("--pty".into());
    }
    let options = &args.options;
    let folders = options.guest_dir.iter().map(|dir| ("--guest-dir", dir));
    let folders = folders.chain(options.include.iter().map(|dir| ("-I", dir)));
    for (option, dir) in folders.chain(options.board.iter().map(|file| ("--board", file))) {
        words.extend([option.into(), dir.display().to_string()]);
    }
    words.extend(["--".into(), "-S".into(), "-gdb".into(), format!("tcp:127.0.0.1:{port}")]);
    words.extend(args.qemu.iter().cloned());
    words
}

/// Starts the board. It ends when this process does, or what this process becomes.
fn start(words: &[String], dir: &Path, consoles: &Path) -> Result<Child, Trouble> {
    let me = env::current_exe().map_err(Trouble::file(Path::new("/proc/self/exe"), "find"))?;
    let mut command = match repo::which("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(me);
            command
        }
        None => Command::new(me),
    };
    fs::create_dir_all(dir).map_err(Trouble::file(dir, "make"))?;
    let file = |path: &Path| File::create(path).map_err(Trouble::file(path, "write"));
    let (first, rest) = words.split_first().ok_or_else(|| Trouble::other("nothing to start"))?;
    command.arg(first).arg("--log").arg(dir).args(rest).process_group(0);
    command.stdin(Stdio::null()).stdout(file(consoles)?).stderr(file(&dir.join("chatter"))?);
    command.spawn().map_err(|source| Trouble::Start { program: "run".into(), source })
}

/// Waits until QEMU listens.
fn wait_for(board: &mut Child, port: u16, dir: &Path) -> Result<(), Trouble> {
    let end = Instant::now() + LIMIT;
    while !listens(port) {
        let ended = board.try_wait().map_err(|source| Trouble::Start { program: "run".into(), source })?;
        if ended.is_some() {
            let chatter = fs::read_to_string(dir.join("chatter")).unwrap_or_default();
            return Err(Trouble::other(format!("the board did not start:\n{chatter}")));
        }
        if Instant::now() > end {
            return Err(Trouble::TimeOver { program: "run".into(), seconds: LIMIT.as_secs() });
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether somebody listens on `port` of this machine, by the kernel's table: the stub takes one caller only, who is to be gdb.
/// The state of a listener is 0A (Linux, Documentation/networking/proc_net_tcp.rst).
fn listens(port: u16) -> bool {
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let local = format!("0100007F:{port:04X}");
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(local.as_str()) && words.nth(1) == Some("0A")
    })
}

/// A port nobody has. Whoever takes it in between makes QEMU say so.
fn free_port() -> Result<u16, Trouble> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|error| Trouble::other(format!("no free port: {error}")))
}
