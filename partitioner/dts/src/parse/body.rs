//! Bodies of nodes: properties, subnodes, deletions.

use super::{MAX_DEPTH, Parser, is_label};
use crate::expr::describe;
use crate::lex::Kind;
use crate::nearest::Nearest;
use crate::store::Full;
use crate::tree::PropertyData;
use crate::{Arg, Diagnostic, NodeId, Span, codes};

impl<'a> Parser<'a, '_, '_> {
    /// The body of a node behind its `{`, to its `}`.
    pub(super) fn body(&mut self, node: NodeId, open: Span) -> Result<(), Full> {
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
}
