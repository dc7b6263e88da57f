//! Preprocessor directives: includes, conditionals, messages, line markers.

use crate::expr;
use crate::lex::{Cursor, Kind, Token};
use crate::pre::{Cond, Frame, Pre};
use crate::source::Loaded;
use crate::store::Full;
use crate::{Arg, Diagnostic, Span, codes};

/// Files open at once.
const MAX_DEPTH: usize = 32;
/// Bytes of source in all, every inclusion counted.
const MAX_SOURCE: u64 = 64 << 20;

impl<'a> Pre<'a, '_, '_> {
    /// Executes the directive behind `#`. False where there is none: then `#` begins a name such as `#address-cells`.
    pub(crate) fn directive(&mut self, sign: Token<'a>) -> Result<bool, Full> {
        let Some(mut cursor) = self.cursor() else { return Ok(false) };
        let name = cursor.next(true);
        match (name.kind, name.text) {
            (Kind::Ident, "define") => self.define(&mut cursor)?,
            (Kind::Ident, "undef") => {
                let name = cursor.next(true);
                if let Some(id) = self.lookup(name.text) {
                    self.macros[id as usize].defined = false;
                }
            }
            (Kind::Ident, "include") => return self.include(name, cursor).map(|()| true),
            (Kind::Ident, "ifdef" | "ifndef") => {
                let which = cursor.next(true);
                if which.kind != Kind::Ident {
                    self.say(
                        codes::SYNTAX,
                        which.span,
                        "`#{0}` needs the name of a macro",
                        "",
                        &[Arg::Text(name.text)],
                    );
                }
                let yes = self.lookup(which.text).is_some() == (name.text == "ifdef");
                self.open(sign.span.to(name.span), yes);
                self.end_line(cursor);
                return if yes { Ok(true) } else { self.skip().map(|()| true) };
            }
            (Kind::Ident, "if") => {
                let yes = self.condition(name.span, cursor)?;
                self.open(sign.span.to(name.span), yes);
                self.end_line(cursor);
                return if yes { Ok(true) } else { self.skip().map(|()| true) };
            }
            (Kind::Ident, "elif" | "elifdef" | "elifndef" | "else" | "endif") => {
                self.end_line(cursor);
                return self.branch(sign.span.to(name.span), name.text).map(|()| true);
            }
            (Kind::Ident, "error" | "warning") => {
                let start = cursor.at;
                let mut line = cursor;
                let mut end = start;
                loop {
                    let token = line.next(true);
                    if token.kind == Kind::Eof {
                        break;
                    }
                    end = token.span.end as usize;
                }
                let text = cursor.text.get(start..end).unwrap_or("").trim();
                let code = if name.text == "error" { codes::SAYS_ERROR } else { codes::SAYS_WARNING };
                let span = Span { end: end.max(name.span.end as usize) as u32, ..sign.span };
                self.say(code, span, "the source says: {0}", "", &[Arg::Text(text)]);
            }
            // Line markers `# 1 "file"`, and what cpp tolerates.
            (Kind::Number | Kind::Eof, _) | (Kind::Ident, "pragma" | "line" | "ident") => {}
            _ => return Ok(false),
        }
        self.end_line(cursor);
        Ok(true)
    }

    fn cursor(&mut self) -> Option<Cursor<'a>> {
        match self.frames.last() {
            Some(Frame::File { cursor, .. }) => Some(*cursor),
            _ => None,
        }
    }

    fn set_cursor(&mut self, to: Cursor<'a>) {
        if let Some(Frame::File { cursor, .. }) = self.frames.last_mut() {
            *cursor = to;
        }
    }

    /// Goes on in the file behind the line `cursor` stands in.
    fn end_line(&mut self, mut cursor: Cursor<'a>) {
        loop {
            let token = cursor.next(true);
            match token.kind {
                Kind::Eof => break,
                Kind::OpenComment => {
                    self.say(codes::SYNTAX, token.span, "this comment never ends", "close it with `*/`", &[]);
                }
                _ => {}
            }
        }
        self.set_cursor(cursor);
    }

    fn open(&mut self, span: Span, taken: bool) {
        if self.conds.push(Cond { span, taken, seen_else: false }).is_err() {
            self.say(codes::SYNTAX, span, "conditionals are nested too deep here", "", &[]);
        }
    }

    fn condition(&mut self, at: Span, cursor: Cursor<'a>) -> Result<bool, Full> {
        let value = self.on_line(cursor, |pre| expr::condition(pre, at))?;
        Ok(value.flatten().unwrap_or(0) != 0)
    }

    /// Whether a conditional of this very file is open.
    fn inside(&self) -> bool {
        let base = self.frames.iter().rev().find_map(|f| match f {
            Frame::File { conds, .. } => Some(*conds),
            _ => None,
        });
        self.conds.len() > base.unwrap_or(0)
    }

    /// `#elif`, `#else` or `#endif` at the end of a branch that was read.
    fn branch(&mut self, span: Span, name: &'a str) -> Result<(), Full> {
        if !self.inside() {
            self.say(codes::SYNTAX, span, "`#{0}` without `#if` in this file", "", &[Arg::Text(name)]);
            return Ok(());
        }
        if name == "endif" {
            self.conds.pop();
            return Ok(());
        }
        self.no_second_else(span, name);
        self.skip()
    }

    fn no_second_else(&mut self, span: Span, name: &'a str) {
        let Some(top) = self.conds.last_mut() else { return };
        let (opened, again) = (top.span, top.seen_else);
        top.seen_else |= name == "else";
        if again {
            let again = Diagnostic::new(codes::SYNTAX, span, "`#{0}` behind `#else`")
                .args(&[Arg::Text(name)])
                .also(opened, "the conditional");
            self.error(again);
        }
    }

    /// Skips branches until one is taken or the conditional ends.
    fn skip(&mut self) -> Result<(), Full> {
        let Some(mut cursor) = self.cursor() else { return Ok(()) };
        let mut depth = 0u32;
        loop {
            let sign = cursor.next(false);
            if sign.kind == Kind::Eof || sign.kind == Kind::OpenComment {
                // The end of the file says that the conditional is not closed.
                self.set_cursor(cursor);
                return Ok(());
            }
            if !sign.is(b'#') || !sign.first {
                continue;
            }
            let name = cursor.next(true);
            match name.text {
                "if" | "ifdef" | "ifndef" => depth += 1,
                "endif" if depth == 0 => {
                    self.conds.pop();
                    self.end_line(cursor);
                    return Ok(());
                }
                "endif" => depth -= 1,
                "else" | "elif" | "elifdef" | "elifndef" if depth == 0 => {
                    let span = sign.span.to(name.span);
                    self.no_second_else(span, name.text);
                    let taken = self.conds.last().is_none_or(|c| c.taken);
                    let yes = !taken
                        && match name.text {
                            "else" => true,
                            "elif" => self.condition(name.span, cursor)?,
                            other => {
                                let mut ahead = cursor;
                                self.lookup(ahead.next(true).text).is_some() == (other == "elifdef")
                            }
                        };
                    if yes {
                        if let Some(top) = self.conds.last_mut() {
                            top.taken = true;
                        }
                        self.end_line(cursor);
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
    }

    fn include(&mut self, at: Token<'a>, mut cursor: Cursor<'a>) -> Result<(), Full> {
        let first = cursor.next(true);
        let (name, system, span) = if first.is(b'<') {
            let start = first.span.end as usize;
            let rest = cursor.text.get(start..cursor.end).unwrap_or("");
            let line = rest.split('\n').next().unwrap_or("");
            match line.split_once('>') {
                Some((name, _)) => {
                    cursor.at = start + name.len() + 1;
                    let end = cursor.at as u32;
                    (Some(name), true, Span { end, ..first.span })
                }
                None => (None, true, first.span),
            }
        } else if first.kind == Kind::Ident {
            let mut ahead = cursor;
            ahead.at = first.span.start as usize;
            let word = self.on_line(ahead, |pre| pre.bump())?.unwrap_or_default();
            (unquote(&word), false, first.span)
        } else {
            (unquote(&first), false, first.span)
        };
        self.end_line(cursor);
        match name {
            Some(name) => self.open_include(name, system, span),
            None => {
                let span = if first.kind == Kind::Eof { at.span } else { span };
                let help = "write `#include \"file.dtsi\"` or `#include <file.h>`";
                self.say(codes::INCLUDE, span, "`#include` needs a file name", help, &[]);
                Ok(())
            }
        }
    }

    /// Enters the file included as `name`; `#include` and `/include/` end here.
    pub(crate) fn open_include(&mut self, name: &'a str, system: bool, span: Span) -> Result<(), Full> {
        let from = self.files.get(usize::from(span.file.0)).map_or("", |f| f.path);
        let source = match self.loader.load(from, name, system) {
            Loaded::Found(source) => source,
            Loaded::Missing => {
                let help =
                    "it is searched next to the including file, in each `-I` folder, then in the repository's dts/";
                self.say(codes::INCLUDE, span, "include file `{0}` not found", help, &[Arg::Text(name)]);
                self.excuse_labels();
                return Ok(());
            }
            Loaded::Unreadable => {
                let message = "include file `{0}` cannot be read as UTF-8 text";
                self.say(codes::INCLUDE, span, message, "", &[Arg::Text(name)]);
                self.excuse_labels();
                return Ok(());
            }
        };
        let mut depth = 0;
        let mut cycle = false;
        for frame in &self.frames {
            if let Frame::File { cursor, .. } = frame {
                depth += 1;
                cycle |= self.files.get(usize::from(cursor.file.0)).is_some_and(|f| f.path == source.path);
            }
        }
        if cycle {
            if !self.guarded(source.text) {
                let help = "wrap its text in `#ifndef NAME`, `#define NAME`, `#endif`, or drop the include";
                self.say(codes::INCLUDE, span, "`{0}` includes itself", help, &[Arg::Text(source.path)]);
            }
            return Ok(());
        }
        if self.entered + source.text.len() as u64 > MAX_SOURCE {
            let message = "the included files are more than {0} in all";
            self.say(codes::INCLUDE, span, message, "", &[Arg::Bytes(MAX_SOURCE)]);
            return Ok(());
        }
        if depth >= MAX_DEPTH || !self.enter(source)? {
            let message = "include files are nested more than {0} deep";
            self.say(codes::INCLUDE, span, message, "", &[Arg::Number(MAX_DEPTH as u64)]);
        }
        Ok(())
    }

    /// A file that is not there may have had any label.
    fn excuse_labels(&mut self) {
        self.diagnostics.mute(&[codes::REFERENCE]);
    }

    /// Whether a text is one `#ifndef NAME` block whose name is defined by now: then including it again is empty.
    fn guarded(&self, text: &'a str) -> bool {
        let mut cursor = Cursor::new(text, crate::FileId(0));
        let (sign, word, name) = (cursor.next(false), cursor.next(true), cursor.next(true));
        sign.is(b'#') && word.text == "ifndef" && self.lookup(name.text).is_some()
    }
}

/// What stands between the quotes of a string token.
pub(crate) fn unquote<'a>(token: &Token<'a>) -> Option<&'a str> {
    match token.kind {
        Kind::Str => token.text.strip_prefix('"')?.strip_suffix('"'),
        _ => None,
    }
}
