//! `run --pty`: each domain with a console gets a pseudo-terminal, for screen, minicom, expect or a script of one's own.
//!
//! Bytes as the domain wrote them, bytes as they were typed; the reader is switched to whose pty was written to. A pty that nobody
//! reads fills up and then loses what follows, as a serial line would: the board never waits for it.

use super::chord;
use crate::decode::OWN;
use crate::image::Built;
use crate::qemu::Sink;
use crate::raw::Raw;
use crate::trouble::Trouble;
use crate::typing::{Input, Typed};
use crate::wire::Part;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

/// One domain's.
struct Pty {
    domain: usize,
    /// Our end; never blocks.
    ours: OwnedFd,
    /// The other end, held open so that the pty outlives whoever opens and closes it.
    _theirs: OwnedFd,
    path: String,
}

/// All of them.
pub(crate) struct Ptys {
    names: Vec<String>,
    ptys: Arc<Vec<Pty>>,
    raws: Vec<Raw>,
}

impl Ptys {
    /// Opens one for each domain of `built` with a console, and says where: `name: /dev/pts/N`.
    ///
    /// # Errors
    /// The system gives none, or no domain has a console.
    pub(crate) fn open(built: &Built) -> Result<(Self, Input), Trouble> {
        let with = built.consoles.iter().enumerate().filter(|(_, console)| **console).map(|(index, _)| index);
        let ptys = with.map(pty).collect::<Result<Vec<_>, _>>();
        let ptys = Arc::new(ptys.map_err(|error| Trouble::other(format!("cannot open a pty: {error}")))?);
        if ptys.is_empty() {
            return Err(Trouble::other("no domain of the layout has a console"));
        }
        for pty in ptys.iter() {
            println!("{}: {}", built.domains[pty.domain], pty.path);
        }
        let (send, from) = mpsc::channel();
        let theirs = Arc::clone(&ptys);
        thread::spawn(move || type_in(&theirs, &send));
        let raws = ptys.iter().map(|_| Raw::default()).collect();
        Ok((Self { names: built.domains.clone(), ptys, raws }, Input::Typed { from, chord: chord(built) }))
    }
}

fn pty(domain: usize) -> rustix::io::Result<Pty> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let path = ptsname(&ours, Vec::new())?;
    let theirs = open(&path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    // Nothing is echoed or translated in between.
    let mut raw = tcgetattr(&theirs)?;
    raw.make_raw();
    tcsetattr(&theirs, OptionalActions::Now, &raw)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok(Pty { domain, ours, _theirs: theirs, path: path.to_string_lossy().into_owned() })
}

/// Hands on what is written to the ptys, until nobody takes it any more.
fn type_in(ptys: &[Pty], to: &Sender<Typed>) {
    let mut buffer = [0; 256];
    loop {
        let mut fds: Vec<_> = ptys.iter().map(|pty| PollFd::new(&pty.ours, PollFlags::IN)).collect();
        if poll(&mut fds, None).is_err_and(|error| error != rustix::io::Errno::INTR) {
            return;
        }
        let ready: Vec<_> = fds.iter().map(|fd| fd.revents().contains(PollFlags::IN)).collect();
        for (pty, _) in ptys.iter().zip(ready).filter(|(_, ready)| *ready) {
            let Ok(read @ 1..) = rustix::io::read(&pty.ours, &mut buffer) else { continue };
            if to.send(Typed::For(pty.domain, buffer[..read].to_vec())).is_err() {
                return;
            }
        }
    }
}

impl Sink for Ptys {
    fn domain(&mut self, name: &str, part: Part<'_>) {
        let found = self.ptys.iter().zip(&mut self.raws).find(|(pty, _)| self.names[pty.domain] == name);
        let Some((pty, raw)) = found else { return };
        let mut bytes = Vec::new();
        raw.feed(part, &mut bytes);
        let mut rest = bytes.as_slice();
        while let (false, Ok(written @ 1..)) = (rest.is_empty(), rustix::io::write(&pty.ours, rest)) {
            rest = &rest[written..];
        }
    }

    fn own(&mut self, line: &str) {
        eprintln!("{OWN}{line}");
    }

    fn other(&mut self, line: &str) {
        eprintln!("{line}");
    }
}
