//! Names and labels: how tokens form them, and what may stand in them.

use super::Parser;
use crate::lex::{Kind, Token};
use crate::store::Full;
use crate::{Arg, NodeId, Span, codes};

/// Whether a token can be part of a node's or property's name, or would be meant as one.
fn wordy(token: &Token<'_>) -> bool {
    match token.kind {
        Kind::Ident | Kind::Number | Kind::Other => true,
        Kind::Punct(p) => !b"{};=:\"<>[]()&/".contains(&p),
        _ => false,
    }
}

/// Whether a word can be a label.
pub(crate) fn is_label(word: &str) -> bool {
    let mut bytes = word.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl<'a> Parser<'a, '_, '_> {
    pub(crate) fn give_label(&mut self, name: &'a str, span: Span, node: Option<NodeId>) -> Result<(), Full> {
        if let Some(twice) = self.build.label(name, span, node)? {
            self.pre.error(twice);
        }
        Ok(())
    }

    /// `label:`, if one stands here.
    pub(crate) fn label(&mut self) -> Result<Option<(&'a str, Span)>, Full> {
        let name = self.pre.peek()?;
        if name.kind != Kind::Ident {
            return Ok(None);
        }
        let colon = self.pre.peek_at(1)?;
        if !colon.is(b':') || colon.space {
            return Ok(None);
        }
        self.bump()?;
        self.bump()?;
        Ok(Some((name.text, name.span)))
    }

    /// Adjacent tokens that form a name.
    pub(crate) fn word(&mut self) -> Result<Option<(&'a str, Span)>, Full> {
        self.glue(wordy)
    }

    /// Adjacent tokens that `accept` takes, as one text.
    pub(crate) fn glue(&mut self, accept: fn(&Token<'_>) -> bool) -> Result<Option<(&'a str, Span)>, Full> {
        let first = self.pre.peek()?;
        if !accept(&first) {
            return Ok(None);
        }
        self.bump()?;
        let mut span = first.span;
        let mut text = first.text;
        // Whether `text` is still a piece of the file; otherwise it grows in the lent bytes.
        let mut copied = false;
        loop {
            let next = self.pre.peek()?;
            if next.space || !accept(&next) {
                break;
            }
            self.bump()?;
            let joined = Span { end: next.span.end, ..span };
            if !copied && !next.made && !first.made && next.span.file == span.file && next.span.start == span.end {
                text = self.text(joined);
            } else {
                if !copied {
                    for byte in text.bytes() {
                        self.pre.bytes.push(byte)?;
                    }
                    copied = true;
                }
                for byte in next.text.bytes() {
                    self.pre.bytes.push(byte)?;
                }
            }
            span = span.to(next.span);
        }
        if copied {
            text = core::str::from_utf8(self.pre.bytes.finish()).unwrap_or("");
        }
        Ok(Some((text, span)))
    }

    /// Points at the first character of a name that cannot stand there.
    fn bad_char(&self, name: &'a str, span: Span, good: fn(u8) -> bool) -> Option<(Span, &'a str)> {
        let at = name.bytes().position(|b| !good(b))?;
        let len = name.get(at..)?.chars().next()?.len_utf8();
        let text = name.get(at..at + len)?;
        let exact = (span.end - span.start) as usize == name.len();
        let start = span.start + at as u32;
        Some((if exact { Span { start, end: start + len as u32, ..span } } else { span }, text))
    }

    pub(super) fn node_name(&mut self, name: &'a str, span: Span) {
        let good = |b: u8| b.is_ascii_alphanumeric() || b",._+-@".contains(&b);
        if let Some((at, text)) = self.bad_char(name, span, good) {
            let message = "`{0}` cannot stand in the name of a node";
            let help = "names of nodes are letters, digits and `,._+-`, with `@` in front of a unit address";
            return self.pre.say(codes::NODE_NAME, at, message, help, &[Arg::Text(text)]);
        }
        let ats = name.bytes().filter(|b| *b == b'@').count();
        let message = match name.split_once('@') {
            _ if ats > 1 => "node name `{0}` has more than one `@`",
            Some(("", _)) => "node name `{0}` has nothing in front of `@`",
            Some((_, "")) => "node name `{0}` has nothing behind `@`",
            _ => return,
        };
        self.pre.say(codes::NODE_NAME, span, message, "a name is `name` or `name@unit-address`", &[Arg::Text(name)]);
    }

    pub(super) fn property_name(&mut self, name: &'a str, span: Span) {
        let good = |b: u8| b.is_ascii_alphanumeric() || b",._+*#?-".contains(&b);
        if let Some((at, text)) = self.bad_char(name, span, good) {
            let message = "`{0}` cannot stand in the name of a property";
            let help = "names of properties are letters, digits and `,._+*#?-`";
            self.pre.say(codes::PROPERTY_NAME, at, message, help, &[Arg::Text(text)]);
        }
    }
}
