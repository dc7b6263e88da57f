//! Text to preprocessing tokens. Knows nothing of device trees: names such as `#address-cells` or `cpu@0` are several tokens
//! here, which the parser glues together again, because macros are recognised in between exactly as cpp does it.

use crate::{FileId, Span};

/// Kinds of [`Token`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Kind {
    /// End of everything, or of the range that is being read.
    #[default]
    Eof,
    /// A C identifier.
    Ident,
    /// A digit and whatever letters, digits, `_` and `.` follow.
    Number,
    /// `"…"`, quotes included.
    Str,
    /// `'…'`, quotes included.
    Char,
    /// A string without its closing quote on the same line.
    OpenStr,
    /// A comment without its end.
    OpenComment,
    /// Any other single character.
    Punct(u8),
    /// A character outside ASCII, or a control character.
    Other,
}

/// A preprocessing token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    /// Where it is used: for a token out of a macro's body the place of the macro's use.
    pub(crate) span: Span,
    /// White space, a comment or a line end stands before it.
    pub(crate) space: bool,
    /// It is the first of its line.
    pub(crate) first: bool,
    /// It came out of a macro's body.
    pub(crate) made: bool,
    /// It names a macro that was being expanded when it appeared, and is never expanded again.
    pub(crate) painted: bool,
}

impl Token<'_> {
    pub(crate) fn is(&self, punct: u8) -> bool {
        self.kind == Kind::Punct(punct)
    }
}

/// A position in a text. Works on bytes; every token boundary is a character boundary.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor<'a> {
    pub(crate) text: &'a str,
    pub(crate) at: usize,
    pub(crate) end: usize,
    pub(crate) file: FileId,
    /// The next token is the first of its line.
    pub(crate) fresh: bool,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str, file: FileId) -> Self {
        let end = text.len().min(u32::MAX as usize);
        let at = if text.starts_with('\u{feff}') { 3 } else { 0 };
        Self { text, at, end, file, fresh: true }
    }

    /// The same text between two offsets.
    pub(crate) fn within(self, start: u32, end: u32) -> Self {
        Self { at: start as usize, end: (end as usize).min(self.text.len()), fresh: false, ..self }
    }

    fn byte(&self, ahead: usize) -> u8 {
        match self.at.checked_add(ahead) {
            Some(at) if at < self.end => self.text.as_bytes().get(at).copied().unwrap_or(0),
            _ => 0,
        }
    }

    /// Length of a line continuation at this place: backslash and line end.
    fn continuation(&self) -> usize {
        match (self.byte(0), self.byte(1), self.byte(2)) {
            (b'\\', b'\n', _) => 2,
            (b'\\', b'\r', b'\n') => 3,
            _ => 0,
        }
    }

    /// The next token. With `line`, stops in front of the end of the line with `Eof`.
    pub(crate) fn next(&mut self, line: bool) -> Token<'a> {
        let mut space = self.fresh;
        loop {
            let start = self.at;
            match self.byte(0) {
                _ if self.at >= self.end => break,
                b'\n' if line => break,
                b'\n' => {
                    (self.at, self.fresh, space) = (self.at + 1, true, true);
                }
                b' ' | b'\t' | b'\r' | 0x0b | 0x0c => (self.at, space) = (self.at + 1, true),
                b'\\' if self.continuation() != 0 => self.at += self.continuation(),
                b'/' if self.byte(1) == b'/' => {
                    space = true;
                    while self.at < self.end && self.byte(0) != b'\n' {
                        self.at += self.continuation().max(1);
                    }
                }
                b'/' if self.byte(1) == b'*' => {
                    space = true;
                    let body = self.text.as_bytes().get(start + 2..self.end).unwrap_or(&[]);
                    match body.windows(2).position(|w| w == b"*/") {
                        Some(at) => self.at = start + 2 + at + 2,
                        None => {
                            self.at = self.end;
                            return self.token(Kind::OpenComment, start, start + 2, space);
                        }
                    }
                }
                _ => {
                    let kind = self.scan();
                    return self.token(kind, start, self.at, space);
                }
            }
        }
        self.token(Kind::Eof, self.at, self.at, space)
    }

    fn token(&mut self, kind: Kind, start: usize, end: usize, space: bool) -> Token<'a> {
        let first = self.fresh && kind != Kind::Eof;
        if kind != Kind::Eof {
            self.fresh = false;
        }
        let span = Span { file: self.file, start: start as u32, end: end as u32 };
        let text = self.text.get(start..end).unwrap_or("");
        Token { kind, text, span, space, first, made: false, painted: false }
    }

    /// Moves over one token that starts here.
    fn scan(&mut self) -> Kind {
        let first = self.byte(0);
        match first {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                while matches!(self.byte(0), b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_') {
                    self.at += 1;
                }
                Kind::Ident
            }
            // Unlike cpp, no sign after an `e`: dtc would take `0xe-1` apart again.
            b'0'..=b'9' => {
                while matches!(self.byte(0), b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.') {
                    self.at += 1;
                }
                Kind::Number
            }
            b'"' => self.quoted(b'"', Kind::Str).unwrap_or(Kind::OpenStr),
            b'\'' => {
                let start = self.at;
                match self.quoted(b'\'', Kind::Char) {
                    Some(kind) => kind,
                    None => {
                        self.at = start + 1;
                        Kind::Punct(b'\'')
                    }
                }
            }
            0x21..=0x7e => {
                self.at += 1;
                Kind::Punct(first)
            }
            _ => {
                self.at += 1;
                while self.at < self.end && !self.text.is_char_boundary(self.at) {
                    self.at += 1;
                }
                Kind::Other
            }
        }
    }

    /// Moves over a quoted token; to the end of the line where it is not closed.
    fn quoted(&mut self, quote: u8, kind: Kind) -> Option<Kind> {
        self.at += 1;
        while self.at < self.end {
            let byte = self.byte(0);
            if byte == quote {
                self.at += 1;
                return Some(kind);
            }
            if byte == b'\n' {
                return None;
            }
            let step = match self.continuation() {
                0 if byte == b'\\' && self.byte(1) != b'\n' => 2,
                0 => 1,
                n => n,
            };
            self.at = (self.at + step).min(self.end);
        }
        // A backslash may have stood in front of half a character.
        while !self.text.is_char_boundary(self.at) && self.at < self.text.len() {
            self.at += 1;
        }
        None
    }
}
