//! One QEMU: its arguments from the board's file, its life bound to ours, its console handed on as it comes.
//!
//! What the bytes of the console mean is `wire.rs`'s business, what becomes of them the sink's.

use crate::decode::{Decoder, OWN};
use crate::exec;
use crate::repo;
use crate::setup;
use crate::trouble::Trouble;
use crate::typing::{self, Input};
use crate::wire::{Heard, Part, Wire};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How long QEMU may take to end after the hypervisor said that all domains have.
const POWER_OFF: Duration = Duration::from_secs(5);

/// How often the log's own UART is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// QEMU waiting this long for a processor of a busy build machine may make a guest late.
const WORTH_SAYING: u64 = 50;
/// How that is said; the test runner looks for it.
pub(crate) const WAITED: &str = "run: this machine was busy: QEMU waited for a processor for ";

/// How the image reaches the machine.
#[derive(Clone, Debug)]
pub(crate) enum Boot {
    /// `-kernel FILE`: an Image or an ELF.
    Kernel(PathBuf),
    /// The CPU starts in this flash.
    Flash(PathBuf),
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// `[hyp] end parked=N`, and the machine went off.
    Parked(u64),
    /// The machine went off, or QEMU ended, without that line.
    NoEndLine,
    /// The machine did not go off after that line.
    StayedOn,
    /// Stopped: time over.
    TimeOver,
    /// Stopped by whoever was attached.
    Left,
}

impl End {
    /// The exit code of `run`.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Parked(0) | Self::Left => 0,
            Self::Parked(_) => 1,
            Self::NoEndLine | Self::StayedOn => 2,
            Self::TimeOver => 3,
        }
    }
}

/// Where what a run says goes.
pub(crate) trait Sink {
    /// Part of a line of domain `name`, at once.
    fn domain(&mut self, name: &str, part: Part<'_>);
    /// A line of the hypervisor's, in words.
    fn own(&mut self, line: &str);
    /// Anything else that came over the wire.
    fn other(&mut self, line: &str);
}

/// Everything a run needs.
pub(crate) struct Run<'a> {
    /// QEMU's arguments for the board, from [`board_arguments`].
    pub(crate) board: &'a [String],
    /// The image.
    pub(crate) boot: Boot,
    /// Further arguments.
    pub(crate) extra: &'a [String],
    /// Whether the log has a UART of its own.
    pub(crate) log: Option<&'a Path>,
    /// Names of the domains.
    pub(crate) domains: &'a [String],
    /// For the log.
    pub(crate) decoder: Decoder,
    /// Give up after this.
    pub(crate) limit: Option<Duration>,
    /// Who types.
    pub(crate) input: Input,
}

/// The arguments in `dts/<board>.qemu`: words, with `#` lines as comments.
pub(crate) fn board_arguments(file: &Path) -> Result<Vec<String>, Trouble> {
    let text =
        String::from_utf8(repo::read(file)?).map_err(|_| Trouble::other(format!("{} is not UTF-8", file.display())))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    Ok(lines.flat_map(|line| line.split_whitespace().map(String::from)).collect())
}

/// A QEMU that dies with us: by a signal from the kernel where `setpriv` can ask for it, else by our own hand only.
pub(crate) fn command() -> Result<Command, Trouble> {
    let qemu = setup::qemu()?;
    Ok(match repo::which("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(qemu);
            command
        }
        None => Command::new(qemu),
    })
}

/// A path within a list of options: QEMU takes a doubled comma for one that belongs to it.
fn option_value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Boots and stays until the end.
pub(crate) fn run(mut run: Run<'_>, sink: &mut dyn Sink) -> Result<End, Trouble> {
    let mut command = command()?;
    command.args(run.board);
    match &run.boot {
        Boot::Kernel(path) => command.arg("-kernel").arg(path),
        Boot::Flash(path) => {
            command.arg("-drive").arg(format!("if=pflash,format=raw,readonly=on,file={}", option_value(path)))
        }
    };
    // A domain's policy may reset the board: that is the end of a run, not the start of another.
    command.args(["-no-reboot", "-monitor", "none", "-serial", "stdio"]);
    if let Some(log) = run.log {
        command.arg("-serial").arg(format!("file:{}", log.display()));
    }
    command.args(run.extra);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child =
        command.spawn().map_err(|source| Trouble::Start { program: "qemu-system-aarch64".into(), source })?;
    let end = watch(&mut child, &mut run, sink);
    // After the end of its output QEMU still has its own files to finish; after that, or where it was stopped, it is gone.
    let ended = matches!(end, Ok(End::Parked(_) | End::NoEndLine));
    let patience = if ended { POWER_OFF } else { Duration::ZERO };
    exec::wait(&mut child, patience)
        .map_err(|source| Trouble::Start { program: "qemu-system-aarch64".into(), source })?;
    end
}

fn watch(child: &mut Child, run: &mut Run<'_>, sink: &mut dyn Sink) -> Result<End, Trouble> {
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Trouble::other("QEMU has no pipes"));
    };
    let (send, pieces) = mpsc::channel();
    let leave = send.clone();
    let (up, is_up) = mpsc::channel();
    let mut up = Some(up);
    let _held = typing::start(std::mem::replace(&mut run.input, Input::Nobody), input, is_up, move || {
        // Where nobody listens any more, the run has ended by itself.
        let _ = leave.send(Event::Left);
    });
    thread::spawn(move || read_all(output, &send));
    let mut wire = Wire::new(run.domains);
    let mut log = Tail::new(run.log);
    let mut waited = Waited::new(child.id());
    let started = Instant::now();
    let mut limit = run.limit;
    let mut end = End::NoEndLine;
    let end = loop {
        for line in log.lines() {
            deliver(&line, &mut run.decoder, sink);
        }
        waited.look();
        let left = limit.map_or(Duration::MAX, |limit| limit.saturating_sub(started.elapsed()));
        match pieces.recv_timeout(left.min(LOOK_AGAIN)) {
            Ok(Event::Left) => break End::Left,
            Ok(Event::Dead) => break end,
            Ok(Event::Heard(piece)) => {
                // Where nobody waits for it, it does not matter.
                up.take().map(|up| up.send(()));
                let mut parked = None;
                wire.feed(&piece, &mut |heard| parked = hear(heard, run, sink).or(parked));
                if let Some(parked) = parked {
                    end = End::Parked(parked);
                    limit = Some(started.elapsed() + POWER_OFF);
                }
            }
            Err(RecvTimeoutError::Timeout) if left > LOOK_AGAIN => {}
            Err(RecvTimeoutError::Timeout) if matches!(end, End::Parked(_)) => break End::StayedOn,
            Err(RecvTimeoutError::Timeout) => break End::TimeOver,
            Err(RecvTimeoutError::Disconnected) => break end,
        }
    };
    wire.finish(&mut |heard| {
        // The last line is a whole one; a number that has been cut off is none.
        hear(heard, run, sink);
    });
    for line in log.lines() {
        deliver(&line, &mut run.decoder, sink);
    }
    if matches!(end, End::Parked(_) | End::NoEndLine) && waited.millis() >= WORTH_SAYING {
        sink.other(&format!("{WAITED}{} ms", waited.millis()));
    }
    Ok(end)
}

/// How long QEMU's threads were ready to run and had no processor, by the kernel's own account.
struct Waited {
    tasks: PathBuf,
    nanos: u64,
    looked: Instant,
}

impl Waited {
    fn new(process: u32) -> Self {
        Self { tasks: PathBuf::from(format!("/proc/{process}/task")), nanos: 0, looked: Instant::now() }
    }

    /// Adds up `run_delay` of all threads (Linux, Documentation/scheduler/sched-stats.rst). Nothing where there is none.
    fn look(&mut self) {
        if self.looked.elapsed() < LOOK_AGAIN {
            return;
        }
        self.looked = Instant::now();
        let tasks = std::fs::read_dir(&self.tasks).into_iter().flatten().flatten();
        let delay = |task: std::fs::DirEntry| -> Option<u64> {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().nth(1)?.parse().ok()
        };
        self.nanos = self.nanos.max(tasks.filter_map(delay).sum());
    }

    fn millis(&self) -> u64 {
        self.nanos / 1_000_000
    }
}

/// The file that QEMU writes the log's own UART to, read as it grows.
struct Tail {
    file: Option<PathBuf>,
    read: usize,
}

impl Tail {
    fn new(file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_path_buf), read: 0 }
    }

    /// Whole lines that have come since the last call.
    fn lines(&mut self) -> Vec<String> {
        // QEMU makes the file when it starts; before that there is nothing to read.
        let Some(bytes) = self.file.as_ref().and_then(|file| std::fs::read(file).ok()) else { return Vec::new() };
        let new = bytes.get(self.read..).unwrap_or(&[]);
        let whole = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.read += whole;
        String::from_utf8_lossy(&new[..whole]).lines().map(String::from).collect()
    }
}

/// Hands on what came over the console; the number of parked domains where it was the last line.
fn hear(heard: Heard<'_>, run: &mut Run<'_>, sink: &mut dyn Sink) -> Option<u64> {
    match heard {
        Heard::Domain(index, part) => sink.domain(run.domains.get(index)?, part),
        Heard::Line(line) => return deliver(line, &mut run.decoder, sink),
    }
    None
}

/// Sorts a line that is no domain's; the number of parked domains where it is the last.
fn deliver(line: &str, decoder: &mut Decoder, sink: &mut dyn Sink) -> Option<u64> {
    let Some(own) = line.strip_prefix(OWN) else {
        if !line.is_empty() {
            sink.other(line);
        }
        return None;
    };
    match own.strip_prefix('~') {
        Some(frame) => {
            for words in decoder.words(frame) {
                sink.own(&words.unwrap_or_else(|raw| raw));
            }
        }
        None => sink.own(own),
    }
    own.strip_prefix("end parked=").and_then(|count| count.trim().parse().ok())
}

/// What the run waits for.
enum Event {
    /// The board has said this.
    Heard(Vec<u8>),
    /// It says nothing more.
    Dead,
    /// Whoever typed has left.
    Left,
}

/// Reads what there is, as it comes, into `to`.
fn read_all(mut from: impl Read, to: &mpsc::Sender<Event>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.send(Event::Heard(buffer[..read].to_vec())).is_err() {
            return;
        }
    }
    // Where nobody listens any more, it is known already.
    let _ = to.send(Event::Dead);
}
