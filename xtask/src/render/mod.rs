//! Diagnostics as a reader sees them: for people, as JSON, as SARIF.
//!
//! [`Message`] is a diagnostic with its templates filled in, so that it outlives the compiler's lent memory.

mod human;
mod json;
mod sarif;

pub(crate) use json::{Json, object, string};

use cofferdam_dts::{Diagnostic, Severity, Source, Span};

/// How diagnostics are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people, with source lines.
    Human,
    /// One JSON document.
    Json,
    /// SARIF 2.1.0.
    Sarif,
}

/// A place in a source file.
#[derive(Clone, Debug)]
pub(crate) struct Place<'f> {
    /// The file.
    pub(crate) source: Source<'f>,
    /// First byte and byte behind the last, within the text.
    pub(crate) bytes: std::ops::Range<usize>,
    /// What is said there; may be empty.
    pub(crate) text: String,
}

/// One diagnostic in words.
#[derive(Clone, Debug)]
pub(crate) struct Message<'f> {
    /// For example E0301.
    pub(crate) code: String,
    /// Its weight.
    pub(crate) severity: Severity,
    /// What is wrong.
    pub(crate) text: String,
    /// The primary place first.
    pub(crate) places: Vec<Place<'f>>,
    /// The way out; may be empty.
    pub(crate) help: String,
}

impl<'f> Message<'f> {
    /// Fills in the words of `diagnostic`. `files` are the compiler's, by `FileId`.
    pub(crate) fn new(diagnostic: &Diagnostic<'_>, files: &[Source<'f>]) -> Self {
        let place = |span: Span, text: &'static str| {
            let source = files.get(usize::from(span.file.0)).copied().unwrap_or_default();
            // Rendering must not depend on spans being right.
            let mut bytes = span.start as usize..(span.end as usize).min(source.text.len());
            bytes.start = bytes.start.min(bytes.end);
            while !source.text.is_char_boundary(bytes.start) {
                bytes.start -= 1;
            }
            while !source.text.is_char_boundary(bytes.end) {
                bytes.end += 1;
            }
            Place { source, bytes, text: diagnostic.fill(text).to_string() }
        };
        let mut places = vec![place(diagnostic.primary, diagnostic.label)];
        places.extend(diagnostic.labels.iter().map(|label| place(label.span, label.text)));
        Self {
            code: diagnostic.code.to_string(),
            severity: diagnostic.code.severity,
            text: diagnostic.fill(diagnostic.message).to_string(),
            places,
            help: diagnostic.fill(diagnostic.help).to_string(),
        }
    }
}

impl Place<'_> {
    /// Line and column of the first byte, and of the byte behind the last; columns in characters; all from 1.
    pub(crate) fn lines(&self) -> ((usize, usize), (usize, usize)) {
        let at = |byte: usize| {
            let before = self.source.text.get(..byte).unwrap_or("");
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
        };
        (at(self.bytes.start), at(self.bytes.end))
    }
}

/// All of `messages` in one `format`, ready to print.
pub(crate) fn render(messages: &[Message<'_>], format: Format, colour: bool) -> String {
    match format {
        Format::Human => human::render(messages, colour),
        Format::Json => json::render(messages),
        Format::Sarif => sarif::render(messages),
    }
}

/// The word for a severity.
fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}
