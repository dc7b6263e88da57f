//! Macro definitions, calls and substitution, as ISO C 6.10.3 has them and cpp does them.

use crate::lex::{Cursor, Kind, Token};
use crate::pre::{Chain, Expansion, Frame, Macro, Pre};
use crate::store::{Full, hash};
use crate::tree::NONE;
use crate::{Arg, Diagnostic, Span, codes};

/// Parameters of one macro.
const MAX_PARAMS: usize = 32;
/// Calls within arguments of calls.
const MAX_CALLS: u32 = 32;

/// An argument: its tokens as written and, once needed, expanded.
#[derive(Clone, Copy)]
pub(crate) struct Argument {
    raw: Chain,
    expanded: Option<Chain>,
}

impl<'a> Pre<'a, '_, '_> {
    /// `#define`, behind its name's token.
    pub(crate) fn define(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Full> {
        let name = cursor.next(true);
        if name.kind != Kind::Ident || name.text == "defined" {
            self.say(codes::SYNTAX, name.span, "`#define` needs the name of a macro", "", &[]);
            return Ok(());
        }
        let mut new = Macro { name: name.text, span: name.span, body: name.span, defined: true, ..Macro::default() };
        let mut ahead = *cursor;
        let open = ahead.next(true);
        if open.is(b'(') && !open.space {
            *cursor = ahead;
            new.function = true;
            if !self.parameters(cursor, &mut new)? {
                return Ok(());
            }
        }
        let (mut first, mut last) = (None, Span::default());
        loop {
            let token = cursor.next(true);
            if token.kind == Kind::Eof {
                break;
            }
            first = first.or(Some(token.span));
            last = token.span;
        }
        if let Some(first) = first {
            new.body = first.to(last);
            new.text = cursor.text.get(first.start as usize..last.end as usize).unwrap_or("");
        }
        let macros = &self.macros;
        match self.macro_index.find(hash(name.text.as_bytes(), 0), |id| macros[id as usize].name == name.text) {
            None => {
                let id = self.macros.push(new)?;
                self.macro_index.insert(hash(name.text.as_bytes(), 0), id)?;
            }
            Some(id) => {
                let old = self.macros[id as usize];
                if old.defined && old.text != new.text {
                    let again = Diagnostic::new(codes::MACRO_AGAIN, name.span, "macro `{0}` gets another meaning here")
                        .args(&[Arg::Text(name.text)])
                        .also(old.span, "its meaning until now")
                        .help("put `#undef {0}` in front if that is intended");
                    self.error(again);
                }
                self.macros[id as usize] = Macro { active: old.active, ..new };
            }
        }
        Ok(())
    }

    /// The parameter list behind `(`.
    fn parameters(&mut self, cursor: &mut Cursor<'a>, new: &mut Macro<'a>) -> Result<bool, Full> {
        let from = self.params.len() as u32;
        let mut token = cursor.next(true);
        while !token.is(b')') {
            if token.kind == Kind::Ident {
                self.params.push(token.text)?;
                token = cursor.next(true);
            } else if token.is(b'.') {
                self.params.push("__VA_ARGS__")?;
            }
            if token.is(b'.') {
                new.variadic = true;
                while token.is(b'.') {
                    token = cursor.next(true);
                }
            }
            let go_on = token.is(b',') && !new.variadic;
            let count = self.params.len() - from as usize;
            if (!go_on && !token.is(b')')) || count == 0 || count > MAX_PARAMS {
                let message = "parameters of a macro are at most 32 names between `(` and `)`";
                self.say(codes::SYNTAX, token.span, message, "", &[]);
                return Ok(false);
            }
            if go_on {
                token = cursor.next(true);
            }
        }
        new.params = (from, self.params.len() as u32);
        Ok(true)
    }

    /// A call of a function-like macro behind its name. False where no `(` follows: then it is an ordinary word.
    pub(crate) fn call(&mut self, id: u32, name: Token<'a>) -> Result<bool, Full> {
        let open = self.raw()?;
        if !open.is(b'(') {
            if open.kind != Kind::Eof {
                self.back = Some(open);
            }
            return Ok(false);
        }
        if self.calls >= MAX_CALLS {
            let message = "calls of macros are nested too deep here";
            self.say(codes::MACRO, name.span, message, "write the value out", &[]);
            return Ok(true);
        }
        self.calls += 1;
        let done = self.arguments(id, name);
        self.calls -= 1;
        done?;
        Ok(true)
    }

    fn arguments(&mut self, id: u32, name: Token<'a>) -> Result<(), Full> {
        let mac = self.macros[id as usize];
        let wanted = (mac.params.1 - mac.params.0) as usize;
        let mut args: heapless::Vec<Argument, MAX_PARAMS> = heapless::Vec::new();
        let (mut list, mut given, mut depth) = (Chain::EMPTY, 0usize, 0u32);
        let close = loop {
            let mut token = self.raw()?;
            if token.kind == Kind::Eof {
                let open = Diagnostic::new(codes::MACRO, name.span, "this call of macro `{0}` is never closed")
                    .args(&[Arg::Text(name.text)])
                    .also(mac.span, "the macro")
                    .help("add `)`");
                self.error(open);
                return Ok(());
            }
            if token.kind == Kind::Ident && self.lookup(token.text).is_some_and(|m| self.macros[m as usize].active > 0)
            {
                token.painted = true;
            }
            let split = token.is(b',') && depth == 0 && !(mac.variadic && given + 1 >= wanted);
            if split || (token.is(b')') && depth == 0) {
                given += 1;
                // Too many are counted, not kept.
                let _ = args.push(Argument { raw: list, expanded: None });
                list = Chain::EMPTY;
                if split {
                    continue;
                }
                break token;
            }
            match token.kind {
                Kind::Punct(b'(') => depth += 1,
                Kind::Punct(b')') => depth -= 1,
                _ => {}
            }
            if !self.append(&mut list, token)? {
                return Ok(());
            }
        };
        let empty = given == 1 && args.first().is_some_and(|a| a.raw.head == NONE);
        if wanted == 0 && empty {
            given = 0;
        }
        if mac.variadic && given + 1 == wanted {
            let _ = args.push(Argument { raw: Chain::EMPTY, expanded: None });
            given += 1;
        }
        let same = name.span.file == close.span.file && name.span.end <= close.span.start;
        let usage = if same { name.span.to(close.span) } else { name.span };
        if given != wanted {
            let wrong = Diagnostic::new(codes::MACRO, usage, "macro `{0}` takes {1} arguments, here are {2}")
                .args(&[Arg::Text(name.text), Arg::Number(wanted as u64), Arg::Number(given as u64)])
                .also(mac.span, "the macro");
            self.error(wrong);
            // A number in its place, so that nothing else is said about it.
            let zero = Token { kind: Kind::Number, text: "0", span: usage, made: true, ..name };
            let mut list = Chain::EMPTY;
            if self.append(&mut list, zero)? {
                self.enter_list(list, NONE, false, usage);
            }
            return Ok(());
        }
        self.substitute(id, name, usage, &mut args)
    }

    /// Makes a macro's expansion and starts reading it.
    pub(crate) fn substitute(
        &mut self,
        id: u32,
        name: Token<'a>,
        usage: Span,
        args: &mut [Argument],
    ) -> Result<(), Full> {
        let mac = self.macros[id as usize];
        if !name.made {
            self.expansions.push(Expansion { usage, body: mac.body })?;
        }
        let text = self.files.get(usize::from(mac.body.file.0)).map_or("", |f| f.text);
        let mut cursor = Cursor { text, file: mac.body.file, ..Cursor::default() };
        cursor = if mac.text.is_empty() { cursor } else { cursor.within(mac.body.start, mac.body.end) };
        let (mut list, mut paste, mut left) = (Chain::EMPTY, false, false);
        let mut first = true;
        loop {
            let mut token = cursor.next(true);
            if token.kind == Kind::Eof {
                break;
            }
            if first {
                (token.space, token.first, first) = (name.space, name.first, false);
            }
            if token.is(b'#') {
                let mut ahead = cursor;
                let next = ahead.next(true);
                if next.is(b'#') && !next.space {
                    (cursor, paste) = (ahead, left);
                    continue;
                }
                if let Some(arg) = self.parameter(&mac, &next).and_then(|p| args.get(p)) {
                    cursor = ahead;
                    let text = self.stringify(arg.raw)?;
                    token = Token { kind: Kind::Str, text, span: usage, made: true, ..token };
                    left = self.append(&mut list, token)?;
                    continue;
                }
            }
            let Some(param) = self.parameter(&mac, &token) else {
                token = Token { span: usage, made: true, ..token };
                left = if paste { self.paste(&mut list, token)? } else { self.append(&mut list, token)? };
                paste = false;
                if !left {
                    break;
                }
                continue;
            };
            let mut ahead = cursor;
            let pasted = ahead.next(true).is(b'#') && ahead.next(true).is(b'#');
            let source = if paste || pasted { args.get(param).map(|a| a.raw) } else { self.expand(args, param)? };
            let mut next = source.map_or(NONE, |s| s.head);
            left = false;
            while let Some(slot) = self.slots.get(next as usize).copied() {
                let mut copy = slot.token;
                if !left {
                    copy.space = token.space;
                }
                let done = if paste { self.paste(&mut list, copy)? } else { self.append(&mut list, copy)? };
                if !done {
                    return Ok(());
                }
                (left, paste, next) = (true, false, slot.next);
            }
            paste = false;
        }
        self.enter_list(list, id, false, usage);
        Ok(())
    }

    fn parameter(&self, mac: &Macro<'a>, token: &Token<'a>) -> Option<usize> {
        if token.kind != Kind::Ident || !mac.function {
            return None;
        }
        let names = self.params.get(mac.params.0 as usize..mac.params.1 as usize)?;
        names.iter().position(|n| *n == token.text)
    }

    /// An argument with its own macros expanded.
    fn expand(&mut self, args: &mut [Argument], param: usize) -> Result<Option<Chain>, Full> {
        let Some(arg) = args.get_mut(param) else { return Ok(None) };
        if arg.expanded.is_none() {
            let mut list = Chain::EMPTY;
            if self.enter_list(arg.raw, NONE, true, Span::default()) {
                let base = self.frames.len();
                loop {
                    let token = self.expanded()?;
                    if token.kind == Kind::Eof || !self.append(&mut list, token)? {
                        break;
                    }
                }
                while self.frames.len() >= base {
                    self.leave();
                }
            }
            arg.expanded = Some(list);
        }
        Ok(arg.expanded)
    }

    /// `##`: joins a token to the last of a list.
    fn paste(&mut self, list: &mut Chain, token: Token<'a>) -> Result<bool, Full> {
        let Some(last) = self.slots.get(list.tail as usize).map(|s| s.token) else { return self.append(list, token) };
        for byte in last.text.bytes().chain(token.text.bytes()) {
            self.pasted.push(byte)?;
        }
        let text = core::str::from_utf8(self.pasted.finish()).unwrap_or("");
        let mut cursor = Cursor::new(text, last.span.file);
        let mut at_first = true;
        loop {
            let made = cursor.next(true);
            if made.kind == Kind::Eof {
                return Ok(true);
            }
            let made = Token { span: last.span, space: at_first && last.space, first: false, made: true, ..made };
            if !at_first {
                if !self.append(list, made)? {
                    return Ok(false);
                }
            } else if let Some(slot) = self.slots.get_mut(list.tail as usize) {
                slot.token = made;
            }
            at_first = false;
        }
    }

    /// `#`: an argument as a string.
    fn stringify(&mut self, list: Chain) -> Result<&'a str, Full> {
        self.pasted.push(b'"')?;
        let mut next = list.head;
        while let Some(slot) = self.slots.get(next as usize).copied() {
            if slot.token.space && next != list.head {
                self.pasted.push(b' ')?;
            }
            for byte in slot.token.text.bytes() {
                if matches!(byte, b'"' | b'\\') && matches!(slot.token.kind, Kind::Str | Kind::Char) {
                    self.pasted.push(b'\\')?;
                }
                self.pasted.push(byte)?;
            }
            next = slot.next;
        }
        self.pasted.push(b'"')?;
        Ok(core::str::from_utf8(self.pasted.finish()).unwrap_or("\"\""))
    }

    /// Reads the rest of a directive's line with `read`, macros expanded.
    pub(crate) fn on_line<T>(
        &mut self,
        cursor: Cursor<'a>,
        read: impl FnOnce(&mut Self) -> Result<T, Full>,
    ) -> Result<Option<T>, Full> {
        let base = self.frames.len();
        if self.frames.push(Frame::Line { cursor }).is_err() {
            return Ok(None);
        }
        let ahead = core::mem::take(&mut self.ahead);
        let value = read(self);
        self.ahead = ahead;
        self.back = None;
        while self.frames.len() > base {
            self.leave();
        }
        value.map(Some)
    }
}
