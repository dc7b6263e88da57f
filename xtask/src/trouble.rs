//! What stops a command for reasons outside its input: a missing tool, a file that cannot be read, a build that fails.
//!
//! A mistake in a layout is never a [`Trouble`]: it is a diagnostic with a place.

use std::{fmt, io, path::Path};

/// Why a command cannot do its work. Ends it with exit code 2.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// A file or folder, what was tried with it, and why that failed.
    File { path: String, action: &'static str, source: io::Error },
    /// A program that could not be started.
    Start { program: String, source: io::Error },
    /// A program that ended badly: its name and how.
    Ended { program: String, how: String },
    /// A program that did not end within its time limit in seconds.
    TimeOver { program: String, seconds: u64 },
    /// Something is missing on this machine, and the command to type.
    Missing { what: String, way_out: String },
    /// Anything else, as a sentence.
    Other(String),
}

/// A command's end: its exit code.
pub(crate) type Done = Result<u8, Trouble>;

impl Trouble {
    /// A sentence.
    pub(crate) fn other(text: impl Into<String>) -> Self {
        Self::Other(text.into())
    }

    /// For `map_err` on file operations.
    pub(crate) fn file(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { path, action, source }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, action, source } => write!(f, "cannot {action} {path}: {source}"),
            Self::Start { program, source } => write!(f, "cannot start {program}: {source}"),
            Self::Ended { program, how } => write!(f, "{program} {how}"),
            Self::TimeOver { program, seconds } => {
                write!(f, "{program} did not end within {seconds} s and was stopped")
            }
            Self::Missing { what, way_out } => write!(f, "{what} is missing\n  help: {way_out}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}
