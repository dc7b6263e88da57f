//! Writing JSON. So little of it is needed that a library would be longer than this.

use super::{Message, Place, word};

/// A JSON value.
#[derive(Clone, Debug)]
pub(crate) enum Json {
    /// `true`, `false`.
    Bool(bool),
    /// An exact number.
    Number(u64),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    String(String),
    /// `[…]`
    Array(Vec<Json>),
    /// `{…}`, in the order given.
    Object(Vec<(&'static str, Json)>),
    /// `null`
    Null,
}

/// An object.
pub(crate) fn object<const N: usize>(fields: [(&'static str, Json); N]) -> Json {
    Json::Object(fields.into())
}

/// Text.
pub(crate) fn string(text: impl Into<String>) -> Json {
    Json::String(text.into())
}

impl std::fmt::Display for Json {
    /// Indented by two spaces.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.write(f, 0)
    }
}

impl Json {
    fn write(&self, f: &mut std::fmt::Formatter<'_>, depth: usize) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Float(value) if value.is_finite() => write!(f, "{value}"),
            Self::Float(_) => f.write_str("null"),
            Self::String(text) => escape(f, text),
            Self::Array(items) if items.is_empty() => f.write_str("[]"),
            Self::Array(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}\n{:2$}", if index == 0 { "" } else { "," }, "", 2 * depth + 2)?;
                    item.write(f, depth + 1)?;
                }
                write!(f, "\n{:1$}]", "", 2 * depth)
            }
            Self::Object(fields) => {
                f.write_str("{")?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}\n{:2$}\"{name}\": ", if index == 0 { "" } else { "," }, "", 2 * depth + 2)?;
                    value.write(f, depth + 1)?;
                }
                write!(f, "\n{:1$}}}", "", 2 * depth)
            }
        }
    }
}

fn escape(f: &mut std::fmt::Formatter<'_>, text: &str) -> std::fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            c if (c as u32) < 0x20 => write!(f, "\\u{:04x}", c as u32)?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

/// `{"diagnostics": […]}`: code, severity, message, places (the primary one first), help.
pub(super) fn render(messages: &[Message<'_>]) -> String {
    let all = messages.iter().map(|message| {
        object([
            ("code", string(message.code.as_str())),
            ("severity", string(word(message.severity))),
            ("message", string(message.text.as_str())),
            ("places", Json::Array(message.places.iter().map(place).collect())),
            ("help", string(message.help.as_str())),
        ])
    });
    format!("{}\n", object([("diagnostics", Json::Array(all.collect()))]))
}

fn place(place: &Place<'_>) -> Json {
    let ((line, column), (end_line, end_column)) = place.lines();
    object([
        ("file", string(place.source.path)),
        ("line", Json::Number(line as u64)),
        ("column", Json::Number(column as u64)),
        ("end_line", Json::Number(end_line as u64)),
        ("end_column", Json::Number(end_column as u64)),
        ("text", string(place.text.as_str())),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let json = object([("a", string("x\"\\\n\u{1}é")), ("b", Json::Array(vec![]))]);
        assert_eq!(json.to_string(), "{\n  \"a\": \"x\\\"\\\\\\n\\u0001é\",\n  \"b\": []\n}");
    }
}
