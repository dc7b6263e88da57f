//! Statements outside of all nodes: versions, the root, extensions of nodes, directives.

use super::{Parser, Version};
use crate::expr::{self, describe};
use crate::lex::{Kind, Token};
use crate::source::Source;
use crate::store::Full;
use crate::tree::{NONE, NodeData};
use crate::{Diagnostic, NodeId, Span, codes};

impl<'a> Parser<'a, '_, '_> {
    pub(super) fn main(&mut self, source: Source<'a>) -> Result<(), Full> {
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
    pub(super) fn include(&mut self) -> Result<(), Full> {
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
}
