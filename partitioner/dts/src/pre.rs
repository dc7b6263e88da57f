//! The token stream behind macros, conditionals and includes: a stack of frames, the topmost gives the next token.
//!
//! Nothing is expanded ahead of need, so the stream needs memory only for the macro that is being expanded.

use crate::lex::{Cursor, Kind, Token};
use crate::source::{Loader, Source};
use crate::store::{Bytes, Full, Index, List, Resource, Storage, hash};
use crate::tree::NONE;
use crate::{Arg, Code, Diagnostic, Diagnostics, FileId, Span, codes};

/// Frames: open files and macros that are being expanded. Bounds include depth and macro depth together.
const MAX_FRAMES: usize = 160;
/// Conditionals open at once.
const MAX_CONDS: usize = 64;
/// Tokens macros may make in all. Bounds what `#define A B B`, `#define B C C` … can cost.
const MAX_MADE: u32 = 1 << 21;

/// Arena entry of a macro.
#[derive(Clone, Copy, Debug, Default)]
pub struct Macro<'a> {
    pub(crate) name: &'a str,
    pub(crate) span: Span,
    /// Its body: a range of the file it is written in.
    pub(crate) body: Span,
    pub(crate) text: &'a str,
    pub(crate) function: bool,
    /// Range of the parameter list.
    pub(crate) params: (u32, u32),
    /// The last parameter takes all the rest.
    pub(crate) variadic: bool,
    pub(crate) defined: bool,
    /// How often it is on the stack.
    pub(crate) active: u32,
}

/// A use of a macro in the source, and its body's place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expansion {
    pub(crate) usage: Span,
    pub(crate) body: Span,
}

/// A token in a linked list: argument or expansion of a macro.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot<'a> {
    pub(crate) token: Token<'a>,
    pub(crate) next: u32,
}

/// Head and tail of a list of [`Slot`]s.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) head: u32,
    pub(crate) tail: u32,
}

impl Chain {
    pub(crate) const EMPTY: Self = Self { head: NONE, tail: NONE };
}

/// Where tokens come from.
#[derive(Clone, Copy)]
pub(crate) enum Frame<'a> {
    /// A file; `conds` conditionals were open when it was entered.
    File { cursor: Cursor<'a>, conds: usize },
    /// The rest of a directive's line. Ends with `Eof`.
    Line { cursor: Cursor<'a> },
    /// A macro's expansion, or with `barrier` an argument that is expanded alone and ends with `Eof`.
    List { next: u32, owner: u32, barrier: bool },
}

/// An open conditional.
#[derive(Clone, Copy)]
pub(crate) struct Cond {
    pub(crate) span: Span,
    /// One of its branches was taken.
    pub(crate) taken: bool,
    pub(crate) seen_else: bool,
}

/// The preprocessor.
pub(crate) struct Pre<'a, 'd, 's> {
    pub(crate) loader: &'d mut dyn Loader<'a>,
    pub(crate) diagnostics: &'d mut Diagnostics<'s, 'a>,
    pub(crate) files: List<'a, Source<'a>>,
    pub(crate) macros: List<'a, Macro<'a>>,
    pub(crate) macro_index: Index<'a>,
    pub(crate) params: List<'a, &'a str>,
    pub(crate) slots: List<'a, Slot<'a>>,
    pub(crate) expansions: List<'a, Expansion>,
    /// For the parser.
    pub(crate) bytes: Bytes<'a>,
    /// For tokens that macros paste together.
    pub(crate) pasted: Bytes<'a>,
    pub(crate) frames: heapless::Vec<Frame<'a>, MAX_FRAMES>,
    pub(crate) conds: heapless::Vec<Cond, MAX_CONDS>,
    /// Bytes of source entered so far.
    pub(crate) entered: u64,
    /// Calls of function-like macros whose arguments are being read.
    pub(crate) calls: u32,
    made: u32,
    /// Looked at and not yet taken, expanded.
    pub(crate) ahead: heapless::Deque<Token<'a>, 4>,
    /// Taken back, not expanded.
    pub(crate) back: Option<Token<'a>>,
    /// Where the last token of a file ended, for errors at the end.
    last: Span,
}

impl<'a, 'd, 's> Pre<'a, 'd, 's> {
    pub(crate) fn new(
        storage: &mut Storage<'a>,
        loader: &'d mut dyn Loader<'a>,
        diagnostics: &'d mut Diagnostics<'s, 'a>,
    ) -> Self {
        use core::mem::take;
        let bytes = take(&mut storage.bytes);
        let (pasted, bytes) = bytes.split_at_mut(bytes.len() / 4);
        Self {
            loader,
            diagnostics,
            files: List::new(take(&mut storage.files), Resource::Files),
            macros: List::new(take(&mut storage.macros), Resource::Macros),
            macro_index: Index::new(take(&mut storage.macro_index), Resource::Macros),
            params: List::new(take(&mut storage.params), Resource::Params),
            slots: List::new(take(&mut storage.tokens), Resource::Tokens),
            expansions: List::new(take(&mut storage.expansions), Resource::Expansions),
            bytes: Bytes::new(bytes),
            pasted: Bytes::new(pasted),
            frames: heapless::Vec::new(),
            conds: heapless::Vec::new(),
            entered: 0,
            calls: 0,
            made: 0,
            ahead: heapless::Deque::new(),
            back: None,
            last: Span::default(),
        }
    }

    /// Reports an error.
    pub(crate) fn error(&mut self, diagnostic: Diagnostic<'a>) {
        self.diagnostics.push(diagnostic);
    }

    /// Reports an error that needs no more than a place and two words.
    pub(crate) fn say(&mut self, code: Code, at: Span, message: &'static str, help: &'static str, args: &[Arg<'a>]) {
        self.error(Diagnostic::new(code, at, message).help(help).args(args));
    }

    /// The file's number; the same path always has the same.
    pub(crate) fn file(&mut self, source: Source<'a>) -> Result<FileId, Full> {
        let known = self.files.iter().position(|f| f.path == source.path);
        let at = match known {
            Some(at) => at as u32,
            None => self.files.push(source)?,
        };
        u16::try_from(at).map(FileId).map_err(|_| Full(Resource::Files))
    }

    /// Starts reading a file. False where the stack is full.
    pub(crate) fn enter(&mut self, source: Source<'a>) -> Result<bool, Full> {
        let file = self.file(source)?;
        self.entered += source.text.len() as u64;
        let frame = Frame::File { cursor: Cursor::new(source.text, file), conds: self.conds.len() };
        Ok(self.frames.push(frame).is_ok())
    }

    /// Takes the next token.
    pub(crate) fn bump(&mut self) -> Result<Token<'a>, Full> {
        match self.ahead.pop_front() {
            Some(token) => Ok(token),
            None => self.expanded(),
        }
    }

    /// Looks at the next token.
    pub(crate) fn peek(&mut self) -> Result<Token<'a>, Full> {
        self.peek_at(0)
    }

    /// Looks at the token `n` behind the next, at most three.
    pub(crate) fn peek_at(&mut self, n: usize) -> Result<Token<'a>, Full> {
        while self.ahead.len() <= n {
            let token = self.expanded()?;
            // Four slots, three at most looked ahead.
            let _ = self.ahead.push_back(token);
        }
        Ok(self.ahead.iter().nth(n).copied().unwrap_or_default())
    }

    /// The next token with macros expanded.
    pub(crate) fn expanded(&mut self) -> Result<Token<'a>, Full> {
        loop {
            let mut token = self.raw()?;
            if token.kind != Kind::Ident || token.painted {
                return Ok(token);
            }
            let Some(id) = self.lookup(token.text) else { return Ok(token) };
            if self.is_active(id) {
                token.painted = true;
                return Ok(token);
            }
            if self.made > MAX_MADE {
                return Ok(token);
            }
            if !self.macros[id as usize].function {
                self.substitute(id, token, token.span, &mut [])?;
            } else if !self.call(id, token)? {
                return Ok(token);
            }
        }
    }

    /// The next token without expansion. Executes directives, leaves frames that end.
    pub(crate) fn raw(&mut self) -> Result<Token<'a>, Full> {
        loop {
            if let Some(token) = self.back.take() {
                return Ok(token);
            }
            let token = match self.frames.last_mut() {
                None => return Ok(Token { span: self.last, space: true, ..Token::default() }),
                Some(Frame::Line { cursor }) => return Ok(cursor.next(true)),
                Some(Frame::List { next, barrier, .. }) => {
                    if *next != NONE {
                        let slot = self.slots[*next as usize];
                        *next = slot.next;
                        return Ok(slot.token);
                    }
                    if *barrier {
                        return Ok(Token { span: self.last, ..Token::default() });
                    }
                    self.leave();
                    continue;
                }
                Some(Frame::File { cursor, .. }) => cursor.next(false),
            };
            match token.kind {
                Kind::Eof => {
                    self.last = token.span;
                    self.leave();
                }
                Kind::Punct(b'#') if token.first && self.directive(token)? => {}
                Kind::OpenComment => {
                    self.say(codes::SYNTAX, token.span, "this comment never ends", "close it with `*/`", &[])
                }
                _ => return Ok(token),
            }
        }
    }

    /// Leaves the topmost frame.
    pub(crate) fn leave(&mut self) {
        match self.frames.pop() {
            Some(Frame::File { conds, .. }) => {
                while self.conds.len() > conds {
                    let Some(open) = self.conds.pop() else { break };
                    self.say(codes::SYNTAX, open.span, "this conditional is never closed", "add `#endif`", &[]);
                }
            }
            Some(Frame::List { owner, .. }) => {
                if let Some(owner) = self.macros.get_mut(owner as usize) {
                    owner.active = owner.active.saturating_sub(1);
                }
                if self.calls == 0 && !self.frames.iter().any(|f| matches!(f, Frame::List { .. })) {
                    self.slots.clear();
                }
            }
            Some(Frame::Line { .. }) | None => {}
        }
    }

    /// Starts reading a list of tokens; reports where the stack is full.
    pub(crate) fn enter_list(&mut self, list: Chain, owner: u32, barrier: bool, at: Span) -> bool {
        let fits = self.frames.push(Frame::List { next: list.head, owner, barrier }).is_ok();
        if !fits {
            self.say(codes::MACRO, at, "macros are nested too deep here", "write the value out", &[]);
        } else if let Some(owner) = self.macros.get_mut(owner as usize) {
            owner.active += 1;
        }
        fits
    }

    /// Appends a token to a list. False when macros have made too many tokens, which is reported once.
    pub(crate) fn append(&mut self, list: &mut Chain, token: Token<'a>) -> Result<bool, Full> {
        if self.made >= MAX_MADE {
            if self.made == MAX_MADE {
                self.made += 1;
                let message = "the expansion of macros grows without end: more than {0} tokens so far";
                let help = "look for macros that use each other several times";
                self.say(codes::MACRO, token.span, message, help, &[Arg::Number(u64::from(MAX_MADE))]);
            }
            return Ok(false);
        }
        self.made += 1;
        let id = self.slots.push(Slot { token, next: NONE })?;
        match self.slots.get_mut(list.tail as usize) {
            Some(tail) => tail.next = id,
            None => list.head = id,
        }
        list.tail = id;
        Ok(true)
    }

    fn is_active(&self, id: u32) -> bool {
        self.macros.get(id as usize).is_some_and(|m| m.active > 0)
    }

    /// The macro of this name.
    pub(crate) fn lookup(&self, name: &str) -> Option<u32> {
        let macros = &self.macros;
        let id = self.macro_index.find(hash(name.as_bytes(), 0), |id| macros[id as usize].name == name)?;
        self.macros[id as usize].defined.then_some(id)
    }
}
