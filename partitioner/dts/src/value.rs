//! Values of properties: strings, cells, bytestrings, references.

use crate::build::{Draft, DraftKind, Pending};
use crate::expr::{self, Unescape, describe};
use crate::lex::{Kind, Token};
use crate::parse::Parser;
use crate::store::Full;
use crate::tree::Cell;
use crate::{Arg, Diagnostic, NodeId, Span, codes};

impl<'a> Parser<'a, '_, '_> {
    /// The comma-separated parts behind `=`. `None`: an error was reported and the rest of the statement makes no sense.
    pub(crate) fn values(&mut self) -> Result<Option<Span>, Full> {
        let mut all: Option<Span> = None;
        loop {
            self.value_labels()?;
            let Some((kind, span)) = self.value()? else { return Ok(None) };
            self.build.drafts.push(Draft { span, kind })?;
            all = Some(all.map_or(span, |a| a.to(span)));
            self.value_labels()?;
            if !self.pre.peek()?.is(b',') {
                return Ok(all);
            }
            self.bump()?;
        }
    }

    fn value_labels(&mut self) -> Result<(), Full> {
        while let Some((name, span)) = self.label()? {
            self.give_label(name, span, None)?;
        }
        Ok(())
    }

    fn value(&mut self) -> Result<Option<(DraftKind<'a>, Span)>, Full> {
        let token = self.pre.peek()?;
        match token.kind {
            Kind::Str => {
                self.bump()?;
                Ok(Some((DraftKind::Text(self.string(&token)?), token.span)))
            }
            Kind::Punct(b'<') => self.cells(32),
            Kind::Punct(b'[') => self.bytes(),
            Kind::Punct(b'&') => {
                let Some((text, span)) = self.reference()? else { return Ok(None) };
                let id = self.build.references.push(Pending { text, span })?;
                Ok(Some((DraftKind::Path(id), span)))
            }
            Kind::Punct(b'/') if self.pre.peek_at(1)?.kind == Kind::Ident => {
                let (name, span) = self.keyword()?;
                match name {
                    "bits" => self.bits(),
                    "incbin" => {
                        let help = "write the bytes as `[…]`";
                        self.pre.say(codes::SYNTAX, span, "`/incbin/` is not supported", help, &[]);
                        Ok(None)
                    }
                    _ => {
                        self.misplaced(name, span);
                        Ok(None)
                    }
                }
            }
            Kind::OpenStr => {
                self.bump()?;
                self.pre.say(codes::SYNTAX, token.span, "this string is not closed on its line", "add `\"`", &[]);
                Ok(None)
            }
            kind => {
                let message = "expected a value, found {0}";
                let help = match kind {
                    Kind::Number | Kind::Char | Kind::Punct(b'(') => "numbers stand between `<` and `>`",
                    Kind::Ident => "write `\"text\"`, `<number>` or `&label`",
                    _ => "a value is `\"text\"`, `<cells>`, `[bytes]` or `&label`",
                };
                self.pre.say(codes::SYNTAX, token.span, message, help, &[describe(&token)]);
                Ok(None)
            }
        }
    }

    /// A string token's bytes, escapes resolved.
    fn string(&mut self, token: &Token<'a>) -> Result<&'a [u8], Full> {
        let inner = crate::directive::unquote(token).unwrap_or("");
        if !inner.contains('\\') {
            return Ok(inner.as_bytes());
        }
        for byte in Unescape(inner.as_bytes()) {
            self.pre.bytes.push(byte)?;
        }
        Ok(self.pre.bytes.finish())
    }

    /// `/bits/ n <…>`, behind the directive.
    fn bits(&mut self) -> Result<Option<(DraftKind<'a>, Span)>, Full> {
        let Some((bits, at)) = expr::cell(&mut self.pre)? else { return Ok(None) };
        if !matches!(bits, 8 | 16 | 32 | 64) {
            let message = "cells have 8, 16, 32 or 64 bits, not {0}";
            self.pre.say(codes::NUMBER, at, message, "", &[Arg::Number(bits)]);
            return Ok(None);
        }
        let open = self.pre.peek()?;
        if !open.is(b'<') {
            let message = "expected `<` behind `/bits/`, found {0}";
            self.pre.say(codes::SYNTAX, open.span, message, "", &[describe(&open)]);
            return Ok(None);
        }
        self.cells(bits as u8)
    }

    /// `<…>`.
    fn cells(&mut self, bits: u8) -> Result<Option<(DraftKind<'a>, Span)>, Full> {
        let open = self.bump()?;
        let first = self.build.cells.len() as u32;
        let mut good = true;
        loop {
            self.value_labels()?;
            let token = self.pre.peek()?;
            match token.kind {
                Kind::Punct(b'>') => {
                    self.bump()?;
                    let count = self.build.cells.len() as u32 - first;
                    let kind = DraftKind::Cells { bits, first, count };
                    return Ok(if good { Some((kind, open.span.to(token.span))) } else { self.after_cells()? });
                }
                Kind::Eof | Kind::Punct(b';' | b'}' | b'{' | b'=') => {
                    let message = "expected a number, a reference or `>`, found {0}";
                    let unclosed = Diagnostic::new(codes::SYNTAX, token.span, message)
                        .args(&[describe(&token)])
                        .also(open.span, "opened here");
                    self.pre.error(unclosed);
                    return Ok(None);
                }
                Kind::Punct(b',') => {
                    self.bump()?;
                    let help = "separate cells with spaces";
                    self.pre.say(codes::SYNTAX, token.span, "`,` between cells", help, &[]);
                    good = false;
                }
                Kind::Punct(b'&') => {
                    let Some((text, span)) = self.reference()? else {
                        good = false;
                        continue;
                    };
                    if bits != 32 {
                        let message = "a reference needs a cell of 32 bits, these have {0}";
                        self.pre.say(codes::NUMBER, span, message, "", &[Arg::Number(u64::from(bits))]);
                        good = false;
                        continue;
                    }
                    let id = self.build.references.push(Pending { text, span })?;
                    let target = Some(NodeId(id));
                    self.build.cells.push(Cell { value: u64::from(u32::MAX), span, target })?;
                }
                kind => match expr::cell(&mut self.pre)? {
                    Some((value, span)) => {
                        self.last = span;
                        let value = self.fit(value, bits, span);
                        good &= value.is_some();
                        self.build.cells.push(Cell { value: value.unwrap_or(0), span, target: None })?;
                    }
                    None => {
                        good = false;
                        // A literal was taken; of anything else nobody knows how far it goes.
                        if !matches!(kind, Kind::Number | Kind::Char | Kind::Ident | Kind::Punct(b'-')) {
                            self.skip_to_close()?;
                        }
                    }
                },
            }
        }
    }

    /// A list of cells was bad, but ends where it should: the rest of the value is looked at too.
    fn after_cells(&mut self) -> Result<Option<(DraftKind<'a>, Span)>, Full> {
        while self.pre.peek()?.is(b',') {
            self.bump()?;
            self.value_labels()?;
            if self.value()?.is_none() {
                break;
            }
        }
        Ok(None)
    }

    /// Goes to the `>` of a list of cells, or to where it cannot be any more.
    fn skip_to_close(&mut self) -> Result<(), Full> {
        let mut taken = false;
        loop {
            let token = self.pre.peek()?;
            match token.kind {
                Kind::Eof | Kind::Punct(b'>' | b';' | b'}' | b'{') => return Ok(()),
                // At least one token, so that there is an end.
                _ if taken && token.is(b'&') => return Ok(()),
                _ => taken = true,
            }
            self.bump()?;
        }
    }

    /// A value cut to its cell, where it fits unsigned or as a negative number.
    fn fit(&mut self, value: u64, bits: u8, span: Span) -> Option<u64> {
        let mask = u64::MAX >> (64 - u32::from(bits));
        if value > mask && value | mask != u64::MAX {
            let big = Diagnostic::new(codes::NUMBER, span, "{0} does not fit a cell of {1} bits")
                .args(&[Arg::Hex(value), Arg::Number(u64::from(bits))])
                .help("write it as two cells, high half first");
            let made = self.pre.expansions.iter().rev().find(|e| e.usage == span).map(|e| e.body);
            self.pre.error(match made {
                Some(body) => big.also(body, "the macro's text"),
                None => big,
            });
            return None;
        }
        Some(value & mask)
    }

    /// `[…]`.
    fn bytes(&mut self) -> Result<Option<(DraftKind<'a>, Span)>, Full> {
        let open = self.bump()?;
        // A half byte may be completed by the next token, as dtc allows.
        let mut good = true;
        loop {
            self.value_labels()?;
            let token = self.bump()?;
            match token.kind {
                Kind::Punct(b']') => {
                    let bytes = self.pre.bytes.finish();
                    return Ok(good.then_some((DraftKind::Bytes(bytes), open.span.to(token.span))));
                }
                Kind::Ident | Kind::Number => {
                    let digits = token.text.as_bytes();
                    if let Some(bad) = digits.iter().position(|b| !b.is_ascii_hexdigit()) {
                        let message = "`{0}` is not hexadecimal: `[…]` holds bytes of two digits each";
                        let at = if token.made {
                            token.span
                        } else {
                            let start = token.span.start + bad as u32;
                            Span { start, end: start + 1, ..token.span }
                        };
                        let help = "without 0x, as in `[00 1f]`; numbers belong in `<…>`";
                        self.pre.say(codes::BYTESTRING, at, message, help, &[Arg::Text(token.text)]);
                        good = false;
                        continue;
                    }
                    if digits.len() % 2 != 0 {
                        let message = "`{0}` is an odd number of hexadecimal digits";
                        let help = "every byte has two digits: write `0` in front of a single one";
                        self.pre.say(codes::BYTESTRING, token.span, message, help, &[Arg::Text(token.text)]);
                        good = false;
                        continue;
                    }
                    for pair in digits.chunks_exact(2) {
                        let digit = |b: u8| char::from(b).to_digit(16).unwrap_or(0) as u8;
                        self.pre.bytes.push(digit(pair[0]) << 4 | digit(pair[1]))?;
                    }
                }
                _ => {
                    let _ = self.pre.bytes.finish();
                    let message = "expected hexadecimal digits or `]`, found {0}";
                    let wrong = Diagnostic::new(codes::BYTESTRING, token.span, message)
                        .args(&[describe(&token)])
                        .also(open.span, "opened here");
                    self.pre.error(wrong);
                    return Ok(None);
                }
            }
        }
    }

    /// `&label` or `&{/path}`: its text and place.
    pub(crate) fn reference(&mut self) -> Result<Option<(&'a str, Span)>, Full> {
        let sign = self.bump()?;
        let next = self.pre.peek()?;
        if next.is(b'{') && !next.space {
            self.bump()?;
            let path = self.glue(|t| {
                !matches!(t.kind, Kind::Eof | Kind::Str | Kind::OpenStr | Kind::Punct(b'}' | b'{' | b';' | b'"'))
            })?;
            let close = self.pre.peek()?;
            let Some((text, _)) = path.filter(|_| close.is(b'}')) else {
                let wrong = Diagnostic::new(codes::SYNTAX, close.span, "expected the `}` of a path, found {0}")
                    .args(&[describe(&close)])
                    .also(sign.span, "the reference")
                    .help("a reference by path is `&{/soc/serial@9000000}`");
                self.pre.error(wrong);
                return Ok(None);
            };
            self.bump()?;
            return Ok(Some((text, sign.span.to(close.span))));
        }
        if next.kind == Kind::Ident && !next.space {
            self.bump()?;
            return Ok(Some((next.text, sign.span.to(next.span))));
        }
        let message = "expected a label directly behind `&`, found {0}";
        let help = "a reference is `&label` or `&{/path}`";
        self.pre.say(codes::SYNTAX, sign.span, message, help, &[describe(&next)]);
        Ok(None)
    }
}
