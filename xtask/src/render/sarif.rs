//! Diagnostics as SARIF 2.1.0 (OASIS), for code scanning in CI.

use super::{Json, Message, Place, object, string};
use cofferdam_dts::Severity;
use cofferdam_partitioner::catalog;
use std::collections::BTreeSet;

/// One log with one run.
pub(super) fn render(messages: &[Message<'_>]) -> String {
    let codes: BTreeSet<&str> = messages.iter().map(|message| message.code.as_str()).collect();
    let rules = codes.into_iter().map(|code| {
        object([
            ("id", string(code)),
            ("shortDescription", text(catalog::title(code).unwrap_or(code))),
            ("help", text(catalog::explain(code).unwrap_or(code))),
        ])
    });
    let driver = object([
        ("name", string("cofferdam")),
        ("version", string(env!("CARGO_PKG_VERSION"))),
        ("rules", Json::Array(rules.collect())),
    ]);
    let results = messages.iter().map(result).collect();
    let run = object([
        ("tool", object([("driver", driver)])),
        ("columnKind", string("unicodeCodePoints")),
        ("results", Json::Array(results)),
    ]);
    let log = object([
        ("$schema", string("https://json.schemastore.org/sarif-2.1.0.json")),
        ("version", string("2.1.0")),
        ("runs", Json::Array(vec![run])),
    ]);
    format!("{log}\n")
}

fn result(message: &Message<'_>) -> Json {
    let level = match message.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let words = if message.help.is_empty() {
        message.text.clone()
    } else {
        format!("{}\nhelp: {}", message.text, message.help)
    };
    let (primary, related) = message.places.split_at(1.min(message.places.len()));
    object([
        ("ruleId", string(message.code.as_str())),
        ("level", string(level)),
        ("message", text(words)),
        ("locations", Json::Array(primary.iter().map(location).collect())),
        ("relatedLocations", Json::Array(related.iter().map(location).collect())),
    ])
}

fn location(place: &Place<'_>) -> Json {
    let ((line, column), (end_line, end_column)) = place.lines();
    let region = object([
        ("startLine", Json::Number(line as u64)),
        ("startColumn", Json::Number(column as u64)),
        ("endLine", Json::Number(end_line as u64)),
        ("endColumn", Json::Number(end_column as u64)),
    ]);
    let physical =
        object([("artifactLocation", object([("uri", string(uri(place.source.path)))])), ("region", region)]);
    object([("physicalLocation", physical), ("message", text(place.text.as_str()))])
}

/// `path` as a URI reference (RFC 3986): relative where it is, a `file` URI where it is absolute.
fn uri(path: &str) -> String {
    let scheme = if path.starts_with('/') { "file://" } else { "" };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let bytes =
        path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    scheme.chars().map(String::from).chain(bytes).collect()
}

fn text(text: impl Into<String>) -> Json {
    object([("text", string(text))])
}
