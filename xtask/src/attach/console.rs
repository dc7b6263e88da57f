//! `run --console DOMAIN`: this terminal becomes the domain's. Its bytes come as it wrote them, what is typed goes to it.
//!
//! On a terminal, keys go to the domain one by one and Ctrl-] leaves; a pipe is handed on as it is, so a script can type and read.
//! Others' lines go to standard error unless that is a terminal, where they would tear the domain's screen apart.

use super::{chord, domain};
use crate::decode::OWN;
use crate::image::Built;
use crate::qemu::Sink;
use crate::raw::Raw;
use crate::trouble::Trouble;
use crate::typing::{Input, Typed};
use crate::wire::Part;
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Read, Write};
use std::sync::mpsc::{self, Sender};
use std::thread;

/// Ctrl-], as telnet has it.
const LEAVE: u8 = 0x1D;

/// The terminal as a domain's console.
pub(crate) struct Console {
    name: String,
    raw: Raw,
    /// The last byte shown was a line's end.
    at_start: bool,
    quiet: bool,
    /// How the terminal was before.
    before: Option<Termios>,
}

impl Console {
    /// Attaches standard input and output to domain `name`.
    ///
    /// # Errors
    /// There is no such domain with a console, or the layout has no chord to reach it.
    pub(crate) fn attach(built: &Built, name: &str) -> Result<(Self, Input), Trouble> {
        let index = domain(built, name)?;
        if built.console_escape == 0 && built.input != Some(index) {
            return Err(Trouble::other(format!(
                "`console-escape` of the layout is 0: input cannot be led to `{name}`\n  help: name it in `input`"
            )));
        }
        let (send, from) = mpsc::channel();
        // Chosen at once, so that the hypervisor says so.
        let _ = send.send(Typed::For(index, Vec::new()));
        let before = std::io::stdin().is_terminal().then(raw_mode).flatten();
        if before.is_some() {
            eprintln!("run: this is the console of {name}; Ctrl-] leaves and stops the board");
        }
        let keys = before.is_some();
        thread::spawn(move || type_in(index, keys, &send));
        let quiet = std::io::stderr().is_terminal();
        let console = Self { name: name.into(), raw: Raw::default(), at_start: true, quiet, before };
        Ok((console, Input::Typed { from, chord: chord(built) }))
    }

    /// A line of its own on standard error.
    fn aside(&mut self, line: &str) {
        if self.quiet && !std::mem::replace(&mut self.at_start, true) {
            eprintln!();
        }
        eprintln!("{line}");
    }
}

/// Keys as they are pressed, no echo, no signals. Output stays as it was: a line feed still goes to the line's start.
fn raw_mode() -> Option<Termios> {
    let before = tcgetattr(std::io::stdin()).ok()?;
    let mut raw = before.clone();
    raw.make_raw();
    raw.output_modes |= before.output_modes & (OutputModes::OPOST | OutputModes::ONLCR);
    tcsetattr(std::io::stdin(), OptionalActions::Drain, &raw).ok()?;
    Some(before)
}

/// Hands standard input on, until it ends or, on a terminal (`keys`), the key to leave is pressed.
fn type_in(index: usize, keys: bool, to: &Sender<Typed>) {
    let mut buffer = [0; 256];
    let mut from = std::io::stdin();
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..read];
        let leave = bytes.iter().position(|byte| keys && *byte == LEAVE);
        if to.send(Typed::For(index, bytes[..leave.unwrap_or(read)].to_vec())).is_err() {
            return;
        }
        if leave.is_some() {
            // Where nobody takes it any more, the run has ended by itself.
            let _ = to.send(Typed::Leave);
            return;
        }
    }
}

impl Sink for Console {
    fn domain(&mut self, name: &str, part: Part<'_>) {
        let mut bytes = Vec::new();
        if name == self.name {
            self.raw.feed(part, &mut bytes);
            if let Some(last) = bytes.last() {
                self.at_start = *last == b'\n';
            }
            let mut out = std::io::stdout().lock();
            // A reader that has gone away does not stop the run.
            let _ = out.write_all(&bytes).and_then(|()| out.flush());
        } else if !self.quiet {
            part.plain(name, &mut bytes);
            let _ = std::io::stderr().write_all(&bytes);
        }
    }

    fn own(&mut self, line: &str) {
        self.aside(&format!("{OWN}{line}"));
    }

    fn other(&mut self, line: &str) {
        self.aside(line);
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // The terminal may be gone; then nothing is left to restore.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, before);
        }
        if self.quiet && !self.at_start {
            eprintln!();
        }
    }
}
