//! Where a run's output goes, and who types, when more is wanted than prefixed lines: one domain's console, a pty for each, files.
//!
//! Each way is a [`Sink`] of its own; they know the wire's parts and nothing of QEMU.

mod console;
mod logs;
mod pty;

pub(crate) use console::Console;
pub(crate) use logs::Logs;
pub(crate) use pty::Ptys;

use crate::image::Built;
use crate::qemu::Sink;
use crate::trouble::Trouble;
use crate::typing::Chord;
use crate::wire::Part;

/// Two sinks that hear the same.
pub(crate) struct Both<'a>(pub(crate) &'a mut dyn Sink, pub(crate) &'a mut dyn Sink);

impl Sink for Both<'_> {
    fn domain(&mut self, name: &str, part: Part<'_>) {
        self.0.domain(name, part);
        self.1.domain(name, part);
    }
    fn own(&mut self, line: &str) {
        self.0.own(line);
        self.1.own(line);
    }
    fn other(&mut self, line: &str) {
        self.0.other(line);
        self.1.other(line);
    }
}

/// Index of the domain called `name`, which must have a console.
fn domain(built: &Built, name: &str) -> Result<usize, Trouble> {
    let index = built.domains.iter().position(|domain| domain == name).filter(|index| built.consoles[*index]);
    index.ok_or_else(|| {
        let with = built.domains.iter().zip(&built.consoles).filter(|(_, console)| **console);
        let names: Vec<_> = with.map(|(name, _)| name.as_str()).collect();
        Trouble::other(format!("`{name}` is no domain with a console\n  help: these are: {}", names.join(", ")))
    })
}

/// How the reader is chosen.
fn chord(built: &Built) -> Chord {
    if built.input.is_none() {
        eprintln!("run: no domain of this layout reads its console: what is typed goes nowhere");
    }
    Chord { escape: built.console_escape, reader: built.input.filter(|_| built.console_escape == 0) }
}
