//! `cargo xtask decode`: a recorded hypervisor log in words. Also what `run` decodes with while the board runs.
//!
//! The decoder is a program of its own (`xtask/hyplog`), built where needed before the board runs. No line is ever lost: a frame
//! that cannot be decoded is shown as it came, with the reason.

use crate::cross;
use crate::exec;
use crate::repo;
use crate::setup::Stamp;
use crate::trouble::{Done, Trouble};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::{env, fs};

/// Turn a recorded hypervisor log into words
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The log: what the board's console or log UART said; `-` reads standard input
    log: PathBuf,
    /// ELF file with symbols, hyp-min-<build-id>.elf; without it the newest in target/images
    #[arg(long)]
    elf: Option<PathBuf>,
}

/// Start of a line of the hypervisor's own.
pub(crate) const OWN: &str = "[hyp] ";

/// The command itself: other lines pass unchanged.
pub(crate) fn main(args: &Args) -> Done {
    let elf = match &args.elf {
        Some(elf) => elf.clone(),
        None => newest_elf()?,
    };
    let text = if args.log.as_os_str() == "-" {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut text).map_err(Trouble::file(&args.log, "read"))?;
        text
    } else {
        repo::read(&args.log)?
    };
    let mut decoder = Decoder::new(elf);
    let mut undecoded = false;
    for line in String::from_utf8_lossy(&text).lines() {
        let line = line.trim_end_matches('\r');
        match line.strip_prefix(OWN).and_then(|rest| rest.strip_prefix('~')) {
            Some(frame) => {
                for words in decoder.words(frame) {
                    undecoded |= words.is_err();
                    println!("{OWN}{}", words.unwrap_or_else(|raw| raw));
                }
            }
            None => println!("{line}"),
        }
    }
    Ok(u8::from(undecoded))
}

/// Turns frames into words; starts its helper at the first frame.
pub(crate) struct Decoder {
    elf: PathBuf,
    helper: Helper,
}

enum Helper {
    NotStarted,
    Running { child: Child, to: ChildStdin, from: BufReader<ChildStdout> },
    Broken(String),
}

impl Decoder {
    /// Decodes with the symbols of `elf`.
    pub(crate) fn new(elf: PathBuf) -> Self {
        Self { elf, helper: Helper::NotStarted }
    }

    /// The words of one frame (hexadecimal digits); where there are none, the frame and why.
    pub(crate) fn words(&mut self, frame: &str) -> Vec<Result<String, String>> {
        if matches!(self.helper, Helper::NotStarted) {
            self.helper = start(&self.elf).unwrap_or_else(|trouble| Helper::Broken(trouble.to_string()));
        }
        let raw = |why: &str| Err(format!("~{frame}  (not decoded: {why})"));
        let answer = match &mut self.helper {
            Helper::Broken(why) => return vec![raw(why)],
            Helper::NotStarted => return vec![raw("no decoder")],
            Helper::Running { to, from, .. } => ask(to, from, frame),
        };
        match answer {
            Some(lines) => lines.into_iter().map(|line| line.or_else(|why| raw(&why))).collect(),
            None => {
                let why = "the decoder ended".to_string();
                let lost = raw(&why);
                self.stop(why);
                vec![lost]
            }
        }
    }

    fn stop(&mut self, why: String) {
        if let Helper::Running { mut child, to, .. } = std::mem::replace(&mut self.helper, Helper::Broken(why)) {
            drop(to);
            // It ends when its input does; both calls only fail where it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.stop("stopped".into());
    }
}

type Answer = Vec<Result<String, String>>;

fn ask(to: &mut ChildStdin, from: &mut BufReader<ChildStdout>, frame: &str) -> Option<Answer> {
    writeln!(to, "{frame}").and_then(|()| to.flush()).ok()?;
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        match line.split_at_checked(1) {
            Some(("=", words)) => lines.push(Ok(words.to_string())),
            Some(("?", why)) => lines.push(Err(why.to_string())),
            Some((".", "")) => return Some(lines),
            _ => return None,
        }
    }
}

/// Builds the helper where needed and starts it.
fn start(elf: &Path) -> Result<Helper, Trouble> {
    let mut child = Command::new(build()?)
        .arg(elf)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| Trouble::Start { program: "hyplog".into(), source })?;
    match (child.stdin.take(), child.stdout.take()) {
        (Some(to), Some(from)) => Ok(Helper::Running { child, to, from: BufReader::new(from) }),
        _ => Err(Trouble::other("hyplog has no pipes")),
    }
}

/// The helper's program, built by cargo in the host's target folder. Cargo is asked only where a source has changed.
pub(crate) fn build() -> Result<PathBuf, Trouble> {
    let program = repo::target().join("debug/hyplog");
    let stamp = Stamp::new("hyplog", &env::var("RUSTUP_TOOLCHAIN").unwrap_or_default());
    if stamp.holds().is_some() {
        return Ok(program);
    }
    let mut cargo = exec::cargo_build();
    cargo.args(["--package", "hyplog"]);
    cargo.stdin(Stdio::null()).stdout(Stdio::null());
    exec::run(&mut cargo, std::time::Duration::from_secs(600))?;
    let files: Vec<_> = cross::sources(&program)?.into_iter().chain([program.clone()]).collect();
    stamp.keep(&files)?;
    Ok(program)
}

/// The symbols of the image built last in the default folder.
fn newest_elf() -> Result<PathBuf, Trouble> {
    let dir = repo::target().join("images");
    let mut found: Vec<_> = fs::read_dir(&dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("hyp-min-") && name.ends_with(".elf")
        })
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path).ok_or_else(|| Trouble::Missing {
        what: format!("hyp-min-<build-id>.elf in {}", repo::shown(&dir)),
        way_out: "name it with --elf; `cargo xtask image` writes it beside each image".into(),
    })
}
