//! The compiler as the commands use it: one call from a path to a compiled layout and its diagnostics in words.
//!
//! All memory is lent from here: `vec!`s that double when the compiler says what was too short. What the compiler gives
//! borrows that memory, so a command looks at it inside a closure.

use crate::files::{Files, Includes};
use crate::guests::Guests;
use crate::hyp::{Hypervisor, Hypervisors};
use crate::render::Message;
use crate::trouble::Trouble;
use cofferdam_dts::{Capacities, Diagnostics, Source, lend_storage};
use cofferdam_partitioner::compile::{self, Compiled, HypImage};
use cofferdam_partitioner::model::{Board, Layout};
use cofferdam_partitioner::{Lent, front};
use std::path::{Path, PathBuf};

/// What is compiled, and with what.
pub(crate) struct Job<'j, 'f> {
    /// The layout.
    pub(crate) layout: &'j Path,
    /// What was said on the command line.
    pub(crate) options: &'j Options,
    /// The hypervisor's builds; one of nominal size where only checking is asked for.
    pub(crate) hypervisors: Option<&'j Hypervisors>,
    /// Its guests.
    pub(crate) guests: &'j Guests,
    /// Where texts are kept.
    pub(crate) files: &'f Files,
}

/// Options of every command that compiles.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// Folder searched for guest images, after the layout's own (repeatable)
    #[arg(long, value_name = "DIR")]
    pub(crate) guest_dir: Vec<PathBuf>,
    /// Folder searched for includes, after the including file's own (repeatable)
    #[arg(short = 'I', value_name = "DIR")]
    pub(crate) include: Vec<PathBuf>,
    /// Take the board from a flattened device tree; the layout then includes no board file
    #[arg(long, value_name = "FILE.dtb")]
    pub(crate) board: Option<PathBuf>,
}

/// What a compilation found.
pub(crate) struct Outcome<'o, 'f, 'a, 'm> {
    /// Diagnostics in the order of their places.
    pub(crate) messages: Vec<Message<'f>>,
    /// How many of them are errors.
    pub(crate) errors: usize,
    /// Files read: a board given as a blob, the layout, then what it includes.
    pub(crate) sources: &'o [Source<'f>],
    /// The board.
    pub(crate) board: &'o Board<'a>,
    /// The layout.
    pub(crate) layout: &'o Layout<'a, 'm>,
    /// The hypervisor it was compiled for, where it was for one.
    pub(crate) hypervisor: Option<&'o Hypervisor>,
    /// The plan, where there is no error.
    pub(crate) compiled: Option<&'o Compiled<'m, 'a>>,
}

/// Lengths of what is lent.
struct Room {
    dts: Capacities,
    diagnostics: usize,
    slices: [usize; LENT.len()],
}

/// Everything [`Lent`] can name and how much to start with.
const LENT: [(Lent, usize); 12] = [
    (Lent::Blob, 128 * 1024),
    (Lent::Pieces, 1024),
    (Lent::Payloads, 1024),
    (Lent::Ranges, 4096),
    (Lent::Scratch, 16 * 1024),
    (Lent::Bytes, 64 * 1024),
    (Lent::Devices, 1024),
    (Lent::Regions, 2048),
    (Lent::Interrupts, 2048),
    (Lent::Ports, 64),
    (Lent::Sort, 8192),
    (Lent::Owners, 4096),
];

/// Doublings before we believe that more memory does not help.
const ROUNDS: u32 = 24;

impl Room {
    fn new() -> Self {
        Self { dts: Capacities::default(), diagnostics: 64, slices: LENT.map(|(_, start)| start) }
    }

    fn of(&self, what: Lent) -> usize {
        LENT.iter().zip(self.slices).find(|((lent, _), _)| *lent == what).map_or(0, |(_, len)| len)
    }

    /// Doubles everything: what ran out is seldom alone, and each time the work starts anew.
    fn grow(&mut self) {
        for len in &mut self.slices {
            *len = len.saturating_mul(2);
        }
    }
}

/// Declares lent slices, as long as `$room` says.
macro_rules! lend {
    ($room:ident, $($name:ident: $what:ident),*) => {
        $(
            let mut $name = vec![Default::default(); $room.of(Lent::$what)];
            let $name = $name.as_mut_slice();
        )*
    };
}

/// Compiles `job` and shows the outcome to `visit`.
///
/// # Errors
/// A file that cannot be read, a guest that cannot be built. What is wrong with the layout is in the outcome.
pub(crate) fn compile<'f, R>(
    job: &Job<'_, 'f>,
    visit: impl FnOnce(Outcome<'_, 'f, '_, '_>) -> Result<R, Trouble>,
) -> Result<R, Trouble> {
    let source = job.files.open(job.layout)?;
    let board = job.options.board.as_deref().map(|path| job.files.board(path)).transpose()?;
    let (board, damaged) = match board {
        Some(Err(message)) => (None, Some(message)),
        Some(Ok(board)) => (Some(board), None),
        None => (None, None),
    };
    // The layout stands behind its board, as if it had included it.
    let mains: Vec<Source<'f>> = board.into_iter().chain([source]).collect();
    let mut room = Room::new();
    for _ in 0..ROUNDS {
        lend_storage!(storage, room.dts);
        let mut slots = vec![None; room.diagnostics];
        let mut diagnostics = Diagnostics::new(&mut slots);
        let mut includes = Includes { files: job.files, folders: &job.options.include };
        let parsed = match cofferdam_dts::parse(storage, &mut includes, &mains, &mut diagnostics) {
            Ok(parsed) => parsed,
            Err(full) => {
                room.dts.grow(full);
                continue;
            }
        };
        lend!(room, devices: Devices, regions: Regions, interrupts: Interrupts, ports: Ports, sort: Sort, owners: Owners);
        let memory = front::Memory { devices, regions, interrupts, ports, sort, owners };
        let read = match front::read(parsed.tree, memory, &mut diagnostics) {
            Ok(read) => read,
            Err(_) => {
                room.grow();
                continue;
            }
        };
        lend!(room, blob: Blob, pieces: Pieces, payloads: Payloads, ranges: Ranges, scratch: Scratch, bytes: Bytes);
        let (board, layout) = &read;
        let memory = compile::Memory { blob, pieces, payloads, ranges, scratch, bytes };
        let hypervisor = job.hypervisors.map(|builds| builds.of(layout.has_functions())).transpose()?;
        let image = hypervisor.map_or(HypImage::NOMINAL, Hypervisor::image);
        // Without its board, whatever else could be said of the layout would only be a consequence.
        if let Some(message) = damaged {
            let places = message.places.iter().map(|place| place.source);
            let (sources, messages) = (places.collect::<Vec<_>>(), vec![message.clone()]);
            return visit(Outcome {
                messages,
                errors: 1,
                sources: &sources,
                board,
                layout,
                hypervisor,
                compiled: None,
            });
        }
        let compiled = match compile::plan(memory, board, layout, job.guests, &image, &mut diagnostics) {
            Ok(compiled) => compiled,
            Err(_) => {
                room.grow();
                continue;
            }
        };
        job.guests.trouble()?;
        if diagnostics.lost() > 0 {
            room.diagnostics = (room.diagnostics + diagnostics.lost()).next_power_of_two();
            continue;
        }
        // The compiler's sources live as long as its memory; ours, found by the same paths, as long as the messages.
        let sources: Vec<Source<'f>> =
            parsed.files.iter().map(|source| job.files.known(source.path).unwrap_or_default()).collect();
        let mut messages: Vec<_> = diagnostics.iter().map(|one| (one.primary, Message::new(one, &sources))).collect();
        messages.sort_by_key(|(place, message)| (*place, message.code.clone()));
        return visit(Outcome {
            messages: messages.into_iter().map(|(_, message)| message).collect(),
            errors: diagnostics.errors(),
            sources: &sources,
            board,
            layout,
            hypervisor,
            compiled: compiled.as_ref().filter(|_| diagnostics.errors() == 0),
        });
    }
    Err(Trouble::other("the compiler asks for more memory without end; please report this layout"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_board_is_one_error_of_the_layout_each_time() {
        let folder = std::env::temp_dir().join(format!("cofferdam-damaged-{}", std::process::id()));
        let (board, layout) = (folder.join("board.dtb"), folder.join("layout.dts"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&board, b"PK\x03\x04").unwrap();
        std::fs::write(&layout, "/dts-v1/;\n&uart0 { };\n").unwrap();
        let options = Options { board: Some(board.clone()), ..Options::default() };
        let files = Files::default();
        for _ in 0..2 {
            let guests = Guests::new(&layout, &[], true);
            let job = Job { layout: &layout, options: &options, hypervisors: None, guests: &guests, files: &files };
            let seen = compile(&job, |outcome| {
                assert!(outcome.compiled.is_none());
                let place = |message: &Message<'_>| message.places[0].source.path.to_owned();
                let seen = outcome.messages.iter().map(|m| (m.code.clone(), m.text.clone(), place(m)));
                Ok((outcome.errors, seen.collect::<Vec<_>>()))
            });
            let Ok((errors, seen)) = seen else { panic!("a damaged board is no trouble of the tool") };
            let text = "this is not a flattened device tree".to_owned();
            assert_eq!((errors, seen), (1, vec![("E0124".to_owned(), text, board.display().to_string())]));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
