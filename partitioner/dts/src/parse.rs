//! The parser: sources one after the other, and how it goes on after an error. Statements outside of all nodes are in
//! `top`, node bodies in `body`, names in `names`, values in `value`.
//!
//! After an error the parser goes on behind the next `;` or in front of the next `}` of the same body, so that one run
//! reports everything.

mod body;
mod names;
mod top;

pub(crate) use names::is_label;

use crate::build::Builder;
use crate::expr::describe;
use crate::lex::{Kind, Token};
use crate::nearest::Nearest;
use crate::pre::Pre;
use crate::source::{Loaded, Loader, Source};
use crate::store::{Full, Storage};
use crate::tree::Tree;
use crate::{Arg, Diagnostic, Diagnostics, FileId, Span, check, codes, resolve};

/// Nodes within one another, the root not counted.
pub(crate) const MAX_DEPTH: u32 = 64;

/// What a source says.
#[derive(Clone, Copy)]
pub struct Parsed<'a> {
    /// The merged tree. After errors, what could be understood of it.
    pub tree: Tree<'a>,
    /// The files; a [`FileId`] is an index here.
    pub files: &'a [Source<'a>],
}

/// Reads source texts one after the other, each as if it stood behind the one before it, into one tree. Everything wrong
/// goes to `diagnostics`; a tree comes back all the same.
///
/// # Errors
/// [`Full`] names the lent slice that was too short: lend twice as much and call again, with fresh `diagnostics`.
pub fn parse<'a, 't: 'a>(
    mut storage: Storage<'a>,
    loader: &mut dyn Loader<'t>,
    mains: &[Source<'a>],
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<Parsed<'a>, Full> {
    let build = Builder::new(&mut storage)?;
    let mut loader = Shorter(loader);
    let pre = Pre::new(&mut storage, &mut loader, diagnostics);
    let mut parser = Parser { pre, build, bodies: 0, last: Span::default(), version: Version::default() };
    for main in mains {
        parser.main(*main)?;
    }
    let Parser { pre, build, .. } = parser;
    let Pre { files, expansions, diagnostics, bytes: _, .. } = pre;
    let tree = resolve::finish(build, expansions, &mut storage, diagnostics)?;
    check::all(tree, diagnostics);
    Ok(Parsed { tree, files: files.into_slice() })
}

/// A loader whose texts live longer than the lent memory.
struct Shorter<'d, 't>(&'d mut dyn Loader<'t>);

impl<'a, 't: 'a> Loader<'a> for Shorter<'_, 't> {
    fn load(&mut self, from: &str, name: &str, system: bool) -> Loaded<'a> {
        self.0.load(from, name, system)
    }
}

/// How far `/dts-v1/;` has come in one main source.
#[derive(Clone, Copy, Default)]
struct Version {
    seen: Option<(FileId, Span)>,
    /// Something else was read.
    content: bool,
}

pub(crate) struct Parser<'a, 'd, 's> {
    pub(crate) pre: Pre<'a, 'd, 's>,
    pub(crate) build: Builder<'a>,
    bodies: u32,
    /// The token taken last.
    pub(crate) last: Span,
    version: Version,
}

impl<'a> Parser<'a, '_, '_> {
    pub(crate) fn bump(&mut self) -> Result<Token<'a>, Full> {
        let token = self.pre.bump()?;
        if token.kind != Kind::Eof {
            self.last = token.span;
        }
        Ok(token)
    }

    /// `/word/`: the word and its place. The caller has seen `/` and a word behind it.
    pub(crate) fn keyword(&mut self) -> Result<(&'a str, Span), Full> {
        let open = self.bump()?;
        let Some((name, span)) = self.word()? else { return Ok(("", open.span)) };
        let close = self.pre.peek()?;
        if close.is(b'/') && !close.space {
            self.bump()?;
            return Ok((name, open.span.to(close.span)));
        }
        Ok(("", open.span.to(span)))
    }

    /// Complains about a directive that has no place where it stands.
    pub(crate) fn misplaced(&mut self, name: &'a str, span: Span) {
        const KNOWN: [&str; 10] = [
            "dts-v1",
            "plugin",
            "memreserve",
            "include",
            "delete-node",
            "delete-property",
            "omit-if-no-ref",
            "bits",
            "incbin",
            "memreserve",
        ];
        if KNOWN.contains(&name) {
            return self.pre.say(codes::SYNTAX, span, "`/{0}/` cannot stand here", "", &[Arg::Text(name)]);
        }
        let word = self.text(span).trim_matches('/');
        let mut nearest = Nearest::new(word);
        for known in KNOWN {
            nearest.offer(known, Span::default());
        }
        match nearest.found() {
            Some((best, _)) => {
                let args = [Arg::Text(self.text(span)), Arg::Text(best)];
                self.pre.say(codes::SYNTAX, span, "unknown directive `{0}`", "did you mean `/{1}/`?", &args);
            }
            None => {
                let args = [Arg::Text(self.text(span))];
                self.pre.say(codes::SYNTAX, span, "unknown directive `{0}`", "", &args);
            }
        }
    }

    pub(crate) fn text(&self, span: Span) -> &'a str {
        let file = self.pre.files.get(usize::from(span.file.0));
        file.and_then(|f| f.text.get(span.start as usize..span.end as usize)).unwrap_or("")
    }

    /// Reports a reference that leads nowhere.
    pub(crate) fn unknown(&mut self, code: crate::Code, text: &'a str, at: Span) {
        let unknown = resolve::unknown(&self.build, code, text, at);
        self.pre.error(unknown);
    }

    /// Expects `;`.
    pub(crate) fn semicolon(&mut self, place: &'static str) -> Result<(), Full> {
        let next = self.pre.peek()?;
        if next.is(b';') {
            self.bump()?;
            return Ok(());
        }
        let width = self.text(self.last).chars().next_back().map_or(0, char::len_utf8) as u32;
        let start = if width == 0 { self.last.start } else { self.last.end - width };
        let at = Span { start, ..self.last };
        let missing = Diagnostic::new(codes::SYNTAX, at, "`;` is missing {0}, before {1}")
            .label("`;` belongs behind this")
            .args(&[Arg::Text(place), describe(&next)]);
        self.pre.error(missing);
        // What begins a line begins a statement; what follows on the same line belongs to the mistake.
        if next.first || next.is(b'}') || next.kind == Kind::Eof { Ok(()) } else { self.skip(false) }
    }

    /// Goes on behind the next `;`, or in front of the next `}`, of this level. `top` there is no such `}`.
    pub(crate) fn skip(&mut self, top: bool) -> Result<(), Full> {
        let mut depth = 0u32;
        loop {
            let token = self.pre.peek()?;
            match token.kind {
                Kind::Eof => return Ok(()),
                Kind::Punct(b'}') if depth == 0 && !top => return Ok(()),
                _ => {}
            }
            self.bump()?;
            match token.kind {
                Kind::Punct(b'{') => depth += 1,
                Kind::Punct(b'}') => depth = depth.saturating_sub(1),
                Kind::Punct(b';') if depth == 0 => return Ok(()),
                _ => {}
            }
        }
    }
}
