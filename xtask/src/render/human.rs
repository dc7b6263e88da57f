//! Diagnostics for people, drawn by rustc's own renderer.

use super::{Message, Place};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use cofferdam_dts::Severity;

/// Each message with its source lines and an empty line behind it.
pub(super) fn render(messages: &[Message<'_>], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for message in messages {
        out += &renderer.render(&groups(message));
        out += "\n\n";
    }
    out
}

fn groups<'m>(message: &'m Message<'_>) -> Vec<Group<'m>> {
    let level = match message.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let mut group = Group::with_title(level.primary_title(message.text.as_str()).id(message.code.as_str()));
    // Places of one file share a snippet; the primary place's file comes first.
    let mut files: Vec<&str> = Vec::new();
    for place in &message.places {
        if !files.contains(&place.source.path) {
            files.push(place.source.path);
            group = group.element(snippet(message, place));
        }
    }
    let mut groups = vec![group];
    if !message.help.is_empty() {
        groups.push(Group::with_title(Level::HELP.secondary_title(message.help.as_str())));
    }
    groups
}

/// All places of `message` in the file of `of`.
fn snippet<'m>(message: &'m Message<'_>, of: &'m Place<'_>) -> Snippet<'m, annotate_snippets::Annotation<'m>> {
    let places = message.places.iter().enumerate().filter(|(_, place)| place.source.path == of.source.path);
    let annotations = places.map(|(index, place)| {
        let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        let annotation = kind.span(place.bytes.clone());
        if place.text.is_empty() { annotation } else { annotation.label(place.text.as_str()) }
    });
    Snippet::source(of.source.text).path(of.source.path).annotations(annotations)
}
