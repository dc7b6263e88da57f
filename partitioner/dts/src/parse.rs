//! Sources, statements and node bodies. Values are in `value`.
//!
//! After an error the parser goes on behind the next `;` or in front of the next `}` of the same body, so that one run
//! reports everything.

use crate::build::Builder;
use crate::expr::{self, describe};
use crate::lex::{Kind, Token};
use crate::nearest::Nearest;
use crate::pre::Pre;
use crate::source::{Loaded, Loader, Source};
use crate::store::{Full, Storage};
use crate::tree::{NONE, NodeData, PropertyData, Tree};
use crate::{Arg, Diagnostic, Diagnostics, FileId, NodeId, Span, check, codes, resolve};

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

/// Whether a token can be part of a node's or property's name, or would be meant as one.
fn wordy(token: &Token<'_>) -> bool {
    match token.kind {
        Kind::Ident | Kind::Number | Kind::Other => true,
        Kind::Punct(p) => !b"{};=:\"<>[]()&/".contains(&p),
        _ => false,
    }
}

fn is_label(word: &str) -> bool {
    let mut bytes = word.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl<'a> Parser<'a, '_, '_> {
    pub(crate) fn bump(&mut self) -> Result<Token<'a>, Full> {
        let token = self.pre.bump()?;
        if token.kind != Kind::Eof {
            self.last = token.span;
        }
        Ok(token)
    }

    fn main(&mut self, source: Source<'a>) -> Result<(), Full> {
        self.version = Version::default();
        self.pre.enter(source)?;
        loop {
            let token = self.pre.peek()?;
            match token.kind {
                Kind::Eof => break,
                _ => self.top(token)?,
            }
        }
        let end = self.pre.peek()?.span;
        self.content(end);
        self.pre.ahead.clear();
        Ok(())
    }

    /// Something other than `/dts-v1/;` begins here.
    fn content(&mut self, at: Span) {
        if self.version.seen.is_none() && !self.version.content {
            let help = "a source begins with `/dts-v1/;`";
            self.pre.say(codes::VERSION, at, "`/dts-v1/;` is missing in front of this", help, &[]);
        }
        self.version.content = true;
    }

    /// A statement outside of all nodes.
    fn top(&mut self, first: Token<'a>) -> Result<(), Full> {
        if first.is(b'/') {
            let next = self.pre.peek_at(1)?;
            if next.is(b'{') {
                self.content(first.span);
                self.bump()?;
                let open = self.bump()?;
                self.bodies += 1;
                self.build.nodes[0].span = first.span;
                self.body(NodeId(0), open.span)?;
                return self.semicolon("behind the `}` of a node");
            }
            if next.kind == Kind::Ident && !next.space {
                return self.top_keyword();
            }
        }
        self.content(first.span);
        if first.is(b'&') {
            return self.extension(&[]);
        }
        if first.kind == Kind::Ident {
            let colon = self.pre.peek_at(1)?;
            if colon.is(b':') && !colon.space {
                let mut labels: heapless::Vec<(&'a str, Span), 8> = heapless::Vec::new();
                while let Some(label) = self.label()? {
                    if labels.push(label).is_err() {
                        self.pre.say(codes::SYNTAX, label.1, "more than 8 labels in a row", "", &[]);
                    }
                }
                let next = self.pre.peek()?;
                let after = self.pre.peek_at(1)?;
                if next.is(b'&') {
                    return self.extension(&labels);
                }
                if next.is(b'/') && after.is(b'{') {
                    for (name, span) in labels {
                        self.give_label(name, span, Some(NodeId(0)))?;
                    }
                    return self.top(next);
                }
                if next.is(b'/') && after.text == "memreserve" {
                    for (name, span) in labels {
                        self.give_label(name, span, None)?;
                    }
                    return self.top(next);
                }
            }
        }
        let found = self.pre.peek()?;
        let message = "expected `/ {`, `&label {` or a directive such as `/memreserve/`, found {0}";
        self.pre.say(codes::SYNTAX, found.span, message, "", &[describe(&found)]);
        self.skip(true)
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

    fn top_keyword(&mut self) -> Result<(), Full> {
        let (name, span) = self.keyword()?;
        if !matches!(name, "dts-v1" | "include" | "plugin") {
            self.content(span);
        }
        match name {
            "dts-v1" => {
                if self.version.content {
                    let help = "it belongs in front of everything else";
                    self.pre.say(codes::VERSION, span, "`/dts-v1/;` stands behind content", help, &[]);
                } else if let Some((file, first)) = self.version.seen
                    && file == span.file
                {
                    let twice = Diagnostic::new(codes::VERSION, span, "`/dts-v1/;` is repeated")
                        .also(first, "the first one")
                        .help("once per file is enough");
                    self.pre.error(twice);
                }
                self.version.seen = Some((span.file, span));
                self.semicolon("behind `/dts-v1/`")
            }
            "plugin" => {
                let help = "apply the overlay to its base with `fdtoverlay` first, or write its nodes into the layout";
                self.pre.say(codes::OVERLAY, span, "overlays are not supported: `/plugin/`", help, &[]);
                self.semicolon("behind `/plugin/`")
            }
            "memreserve" => self.reservation(span),
            "include" => self.include(),
            "delete-node" => {
                if self.pre.peek()?.is(b'&') {
                    if let Some(at) = self.reference()? {
                        let (text, at) = at;
                        match self.build.target(text) {
                            Some(NodeId(0)) => {
                                self.pre.say(codes::DELETE, at, "the root cannot be deleted", "", &[]);
                            }
                            Some(node) => self.build.delete(node, at),
                            None => self.unknown(codes::DELETE, text, at),
                        }
                    }
                    return self.semicolon("behind `/delete-node/`");
                }
                let found = self.pre.peek()?;
                let help = "outside of all nodes write `/delete-node/ &label;` or `/delete-node/ &{/path};`";
                self.pre.say(codes::SYNTAX, found.span, "expected a reference, found {0}", help, &[describe(&found)]);
                self.skip(true)
            }
            "omit-if-no-ref" => {
                if self.pre.peek()?.is(b'&') {
                    if let Some((text, at)) = self.reference()? {
                        match self.build.target(text) {
                            Some(node) => self.build.nodes[node.0 as usize].omit = true,
                            None => self.unknown(codes::REFERENCE, text, at),
                        }
                    }
                    return self.semicolon("behind `/omit-if-no-ref/`");
                }
                self.misplaced(name, span);
                self.skip(true)
            }
            _ => {
                self.misplaced(name, span);
                self.skip(true)
            }
        }
    }

    /// `/include/ "file"`, behind the directive.
    fn include(&mut self) -> Result<(), Full> {
        let name = self.bump()?;
        match crate::directive::unquote(&name) {
            // Nothing has been looked at behind the string, so the file's text comes next.
            Some(text) => self.pre.open_include(text, false, name.span),
            None => {
                let help = "write `/include/ \"file.dtsi\"`";
                self.pre.say(codes::INCLUDE, name.span, "`/include/` needs a file name", help, &[]);
                Ok(())
            }
        }
    }

    fn reservation(&mut self, span: Span) -> Result<(), Full> {
        let base = expr::cell(&mut self.pre)?;
        let size = if base.is_some() { expr::cell(&mut self.pre)? } else { None };
        match (base, size) {
            (Some((base, from)), Some((size, to))) => {
                self.last = to;
                self.build.reservations.push((base, size, from.to(to)))?;
                self.semicolon("behind `/memreserve/`")
            }
            _ => {
                self.last = span;
                self.skip(true)
            }
        }
    }

    /// `&label { … };` outside of all nodes.
    fn extension(&mut self, labels: &[(&'a str, Span)]) -> Result<(), Full> {
        let Some((text, at)) = self.reference()? else { return self.skip(true) };
        let open = self.pre.peek()?;
        if !open.is(b'{') {
            let message = "expected `{` behind the reference, found {0}";
            self.pre.say(codes::SYNTAX, open.span, message, "", &[describe(&open)]);
            return self.skip(true);
        }
        self.bump()?;
        let node = match self.build.target(text) {
            Some(node) => node,
            None => {
                self.unknown(codes::REFERENCE, text, at);
                // Its text is read all the same, into a node that belongs to nothing.
                let stray = NodeData { deleted: true, ..self.build.node(NodeId(NONE)) };
                NodeId(self.build.nodes.push(stray)?)
            }
        };
        for (name, span) in labels {
            self.give_label(name, *span, Some(node))?;
        }
        self.body(node, open.span)?;
        self.semicolon("behind the `}` of a node")
    }

    /// Reports a reference that leads nowhere.
    pub(crate) fn unknown(&mut self, code: crate::Code, text: &'a str, at: Span) {
        let unknown = resolve::unknown(&self.build, code, text, at);
        self.pre.error(unknown);
    }

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

    /// The body of a node behind its `{`, to its `}`.
    fn body(&mut self, node: NodeId, open: Span) -> Result<(), Full> {
        self.bodies += 1;
        let body = self.bodies;
        let mut child: Option<Span> = None;
        loop {
            let token = self.pre.peek()?;
            match token.kind {
                Kind::Eof => {
                    self.pre.say(codes::SYNTAX, open, "this `{` is never closed", "add `};`", &[]);
                    return Ok(());
                }
                Kind::Punct(b'}') => {
                    self.bump()?;
                    return Ok(());
                }
                Kind::Punct(b';') => {
                    self.bump()?;
                    self.pre.say(codes::SYNTAX, token.span, "this `;` ends nothing", "drop it", &[]);
                }
                Kind::Punct(b'/') => self.body_keyword(node, body, &mut child)?,
                _ => self.statement(node, body, &mut child)?,
            }
        }
    }

    fn body_keyword(&mut self, node: NodeId, body: u32, child: &mut Option<Span>) -> Result<(), Full> {
        let next = self.pre.peek_at(1)?;
        if next.kind != Kind::Ident || next.space {
            let slash = self.bump()?;
            self.pre.say(codes::SYNTAX, slash.span, "expected a property or a node, found `/`", "", &[]);
            return self.skip(false);
        }
        let (name, span) = self.keyword()?;
        match name {
            "include" => self.include(),
            "delete-node" | "delete-property" => {
                let Some((which, at)) = self.word()? else {
                    let found = self.pre.peek()?;
                    let help = if found.is(b'&') { "a reference is deleted outside of all nodes" } else { "" };
                    self.pre.say(codes::SYNTAX, found.span, "expected a name, found {0}", help, &[describe(&found)]);
                    return self.skip(false);
                };
                if name == "delete-node" {
                    *child = Some(span);
                    self.delete_node(node, which, at);
                } else {
                    self.after_node(span, *child);
                    self.delete_property(node, which, at);
                }
                self.semicolon("behind the name")
            }
            "omit-if-no-ref" => {
                let before = self.build.nodes.len();
                self.statement(node, body, child)?;
                match self.build.nodes.get_mut(before) {
                    Some(made) => made.omit = true,
                    None => {
                        let help = "it belongs in front of the definition of a new node";
                        self.pre.say(codes::SYNTAX, span, "`/omit-if-no-ref/` cannot stand here", help, &[]);
                    }
                }
                Ok(())
            }
            _ => {
                self.misplaced(name, span);
                self.skip(false)
            }
        }
    }

    fn delete_node(&mut self, parent: NodeId, name: &'a str, at: Span) {
        match self.build.find_child(parent, name).filter(|id| !self.build.node(*id).deleted) {
            Some(id) => self.build.delete(id, at),
            None => {
                let mut nearest = Nearest::new(name);
                let mut next = self.build.node(parent).first_child;
                while let Some(node) = self.build.nodes.get(next as usize) {
                    if !node.deleted {
                        nearest.offer(node.name, node.span);
                    }
                    next = node.next;
                }
                let found = nearest.found();
                self.nothing("there is no node `{0}` here to delete", name, at, found);
            }
        }
    }

    fn delete_property(&mut self, node: NodeId, name: &'a str, at: Span) {
        match self.build.find_property(node, name).filter(|id| !self.build.properties[*id as usize].deleted) {
            Some(id) => self.build.properties[id as usize].deleted = true,
            None => {
                let mut nearest = Nearest::new(name);
                let mut next = self.build.node(node).first_property;
                while let Some(property) = self.build.properties.get(next as usize) {
                    if !property.deleted {
                        nearest.offer(property.name, property.name_span);
                    }
                    next = property.next;
                }
                let found = nearest.found();
                self.nothing("there is no property `{0}` here to delete", name, at, found);
            }
        }
    }

    fn nothing(&mut self, message: &'static str, name: &'a str, at: Span, nearest: Option<(&'a str, Span)>) {
        let nothing = Diagnostic::new(codes::DELETE, at, message);
        self.pre.error(match nearest {
            Some((best, span)) => nothing
                .args(&[Arg::Text(name), Arg::Text(best)])
                .also(span, "`{1}` is here")
                .help("did you mean `{1}`?"),
            None => nothing.args(&[Arg::Text(name)]).help("drop the line"),
        });
    }

    fn after_node(&mut self, at: Span, child: Option<Span>) {
        if let Some(child) = child {
            let wrong = Diagnostic::new(codes::PROPERTY_AFTER_NODE, at, "properties come before all subnodes")
                .also(child, "a subnode of the same body")
                .help("move the property up");
            self.pre.error(wrong);
        }
    }

    /// A property or a subnode, with its labels.
    fn statement(&mut self, node: NodeId, body: u32, child: &mut Option<Span>) -> Result<(), Full> {
        let mut labels: heapless::Vec<(&'a str, Span), 8> = heapless::Vec::new();
        let (name, span) = loop {
            let Some((word, span)) = self.word()? else {
                let found = self.pre.peek()?;
                if found.kind == Kind::OpenStr {
                    self.pre.say(codes::SYNTAX, found.span, "this string is not closed on its line", "add `\"`", &[]);
                } else {
                    let message = "expected a property or a node, found {0}";
                    self.pre.say(codes::SYNTAX, found.span, message, "", &[describe(&found)]);
                }
                if !found.is(b'}') {
                    self.bump()?;
                }
                return if found.is(b'{') { self.skip_body() } else { self.skip(false) };
            };
            let colon = self.pre.peek()?;
            if !colon.is(b':') || colon.space {
                break (word, span);
            }
            self.bump()?;
            if !is_label(word) {
                let message = "`{0}` cannot be a label";
                let help = "labels are letters, digits and `_`, and do not begin with a digit";
                self.pre.say(codes::SYNTAX, span, message, help, &[Arg::Text(word)]);
            } else if labels.push((word, span)).is_err() {
                self.pre.say(codes::SYNTAX, span, "more than 8 labels in a row", "", &[]);
            }
        };
        let next = self.pre.peek()?;
        if next.is(b'{') {
            *child = Some(span);
            self.bump()?;
            return self.node(node, name, span, &labels, body, next.span);
        }
        self.after_node(span, *child);
        for (label, at) in &labels {
            self.give_label(label, *at, None)?;
        }
        self.property_name(name, span);
        let mut new =
            PropertyData { name, name_span: span, value_span: span, node: node.0, body, ..Default::default() };
        new.first_value = self.build.drafts.len() as u32;
        let mut skip = false;
        if next.is(b'=') {
            self.bump()?;
            match self.values()? {
                Some(at) => {
                    new.value_span = at;
                    new.value_count = self.build.drafts.len() as u32 - new.first_value;
                }
                None => (new.faulty, skip) = (true, true),
            }
        } else if !next.is(b';') && !next.first && !next.is(b'}') {
            let message = "expected `=`, `;` or `{` behind `{0}`, found {1}";
            self.pre.say(codes::SYNTAX, next.span, message, "", &[Arg::Text(name), describe(&next)]);
            (new.faulty, skip) = (true, true);
        }
        if let Some(twice) = self.build.property(new)? {
            self.pre.error(twice);
        }
        if skip { self.skip(false) } else { self.semicolon("behind a property") }
    }

    fn node(
        &mut self,
        parent: NodeId,
        name: &'a str,
        span: Span,
        labels: &[(&'a str, Span)],
        body: u32,
        open: Span,
    ) -> Result<(), Full> {
        self.node_name(name, span);
        if self.build.node(parent).depth >= MAX_DEPTH {
            let message = "nodes are nested more than {0} deep";
            self.pre.say(codes::DEPTH, span, message, "", &[Arg::Number(u64::from(MAX_DEPTH))]);
            self.skip_body()?;
            return self.semicolon("behind the `}` of a node");
        }
        let (id, twice) = self.build.child(parent, name, span, body)?;
        if let Some(twice) = twice {
            self.pre.error(twice);
        }
        for (label, at) in labels {
            self.give_label(label, *at, Some(id))?;
        }
        self.body(id, open)?;
        self.semicolon("behind the `}` of a node")
    }

    /// Skips a body behind its `{`, to its `}`.
    fn skip_body(&mut self) -> Result<(), Full> {
        let mut depth = 1u32;
        while depth > 0 {
            let token = self.bump()?;
            match token.kind {
                Kind::Eof => return Ok(()),
                Kind::Punct(b'{') => depth += 1,
                Kind::Punct(b'}') => depth -= 1,
                _ => {}
            }
        }
        Ok(())
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

    fn node_name(&mut self, name: &'a str, span: Span) {
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

    fn property_name(&mut self, name: &'a str, span: Span) {
        let good = |b: u8| b.is_ascii_alphanumeric() || b",._+*#?-".contains(&b);
        if let Some((at, text)) = self.bad_char(name, span, good) {
            let message = "`{0}` cannot stand in the name of a property";
            let help = "names of properties are letters, digits and `,._+*#?-`";
            self.pre.say(codes::PROPERTY_NAME, at, message, help, &[Arg::Text(text)]);
        }
    }
}
