//! What is typed, on its way to QEMU's console: our standard input as it is, or bytes that are each meant for one domain.
//!
//! For the latter the hypervisor's chord goes first wherever the reader changes, so bytes for two domains never mix. A chord for a
//! domain that has ended chooses nobody: what follows is lost, and reaches no other.

use std::io::{Read, Write};
use std::process::ChildStdin;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

/// One thing somebody did at a keyboard.
pub(crate) enum Typed {
    /// Bytes for the domain with this index.
    For(usize, Vec<u8>),
    /// The run is to end.
    Leave,
}

/// Who types.
pub(crate) enum Input {
    /// Nobody.
    Nobody,
    /// Our standard input, chords and all.
    Stdin,
    /// Whoever holds the other end.
    Typed {
        /// What they type.
        from: Receiver<Typed>,
        /// How the reader is chosen.
        chord: Chord,
    },
}

/// The hypervisor's key chord (docs/layout.md).
pub(crate) struct Chord {
    /// Its first byte; 0: there is none.
    pub(crate) escape: u8,
    /// Who reads, where that is known.
    pub(crate) reader: Option<usize>,
}

impl Chord {
    /// `bytes` as they must be typed to reach domain `domain` and no other.
    fn keys(&mut self, domain: usize, bytes: &[u8]) -> Vec<u8> {
        let mut keys = Vec::new();
        if self.reader != Some(domain) {
            keys.extend([self.escape, b'0'.wrapping_add(domain as u8)]);
            self.reader = Some(domain);
        }
        for byte in bytes {
            if *byte == self.escape && self.escape != 0 {
                keys.push(*byte);
            }
            keys.push(*byte);
        }
        keys
    }
}

/// A board that says nothing is taken to be up after this time.
const BOOT: Duration = Duration::from_secs(1);

/// Types into `to` on a thread of its own, which ends with the process; `leave` is called when the run is to end. Chords wait
/// until `up` says that the board is heard: half of one, lost while the UART is set up, would send what follows to another.
/// Answers what must be held until the end: a closed input would reach the guests' console as an event of its own.
pub(crate) fn start(
    input: Input,
    mut to: ChildStdin,
    up: Receiver<()>,
    leave: impl Fn() + Send + 'static,
) -> Option<ChildStdin> {
    match input {
        Input::Nobody => return Some(to),
        Input::Stdin => thread::spawn(move || {
            let mut buffer = [0; 256];
            let mut from = std::io::stdin();
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                if send(&mut to, &buffer[..read]).is_err() {
                    return;
                }
            }
            hold(to);
        }),
        Input::Typed { from, mut chord } => thread::spawn(move || {
            // Heard, silent for too long, or over already: nothing more to wait for.
            let _ = up.recv_timeout(BOOT);
            for typed in from {
                match typed {
                    Typed::For(domain, bytes) if send(&mut to, &chord.keys(domain, &bytes)).is_err() => return,
                    Typed::For(..) => {}
                    Typed::Leave => leave(),
                }
            }
            hold(to);
        }),
    };
    None
}

fn send(to: &mut ChildStdin, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// The end of our input is no event for the guests: the pipe stays open until the process ends.
fn hold(_to: ChildStdin) -> ! {
    loop {
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::Chord;

    #[test]
    fn the_reader_is_chosen_before_its_bytes() {
        let mut chord = Chord { escape: 15, reader: None };
        assert_eq!(chord.keys(2, b"ls\n"), b"\x0f2ls\n");
        assert_eq!(chord.keys(2, b"a\x0fb"), b"a\x0f\x0fb");
        assert_eq!(chord.keys(10, b""), b"\x0f:");
        assert_eq!(chord.keys(63, b"x"), b"\x0fox");
    }

    #[test]
    fn without_a_chord_the_first_reader_gets_every_byte() {
        let mut chord = Chord { escape: 0, reader: Some(1) };
        assert_eq!(chord.keys(1, b"\0\x0f0"), b"\0\x0f0");
    }
}
