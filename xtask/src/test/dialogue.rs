//! What a scenario types, and what it waits for before it does: a list of steps, done in order.
//!
//! Pure: the run's output in, text to type out. It looks at lines while they grow, for a prompt is a line that does not end.

use std::collections::BTreeMap;

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Waits until a domain's line contains this.
    After(String),
    /// Types this.
    Type(String),
}

/// A dialogue under way.
pub(super) struct Dialogue<'a> {
    steps: std::slice::Iter<'a, Step>,
    /// The line on the wire so far, prefix included.
    line: Vec<u8>,
    /// The line on the wire has ended: the next byte starts a new one.
    ended: bool,
    /// Each domain's line that may still grow.
    open: BTreeMap<Vec<u8>, Open>,
}

/// A domain's line.
struct Open {
    /// Prefix and all, as if nobody had torn it apart.
    text: Vec<u8>,
    /// Up to here steps have found something.
    found: usize,
}

impl<'a> Dialogue<'a> {
    pub(super) fn new(steps: &'a [Step]) -> Self {
        Self { steps: steps.iter(), line: Vec::new(), ended: false, open: BTreeMap::new() }
    }

    /// What is to be typed before anything is heard.
    pub(super) fn begin(&mut self) -> String {
        self.go_on()
    }

    /// Takes more of the run's standard output; what is to be typed now.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> String {
        let mut typed = String::new();
        for byte in bytes {
            if std::mem::take(&mut self.ended) {
                self.line.clear();
            }
            self.ended = *byte == b'\n';
            if !self.ended {
                self.line.push(*byte);
                self.grow();
                // Whatever else is open was looked at when the step was reached.
                if matches!(self.unfinished(), Some(Step::After(text)) if text.as_bytes().last() == Some(byte)) {
                    typed += &self.go_on();
                }
            }
        }
        typed
    }

    /// The step that never came to its end, if one has not.
    pub(super) fn unfinished(&self) -> Option<&'a Step> {
        self.steps.as_slice().first()
    }

    /// Adds the newest byte to its domain's line.
    fn grow(&mut self) {
        let Some(bracket) = self.line.iter().position(|byte| *byte == b']') else { return };
        let (prefix, rest) = self.line.split_at(bracket + 1);
        let start = || Open { text: [prefix, b" "].concat(), found: 0 };
        match rest {
            [] | b"+" | b"+ " => {}
            b" " => _ = self.open.insert(prefix.into(), start()),
            [.., newest] => self.open.entry(prefix.into()).or_insert_with(start).text.push(*newest),
        }
    }

    /// Does all steps that can be done.
    fn go_on(&mut self) -> String {
        let mut typed = String::new();
        while let Some(step) = self.unfinished() {
            match step {
                Step::Type(text) => typed += text,
                Step::After(text) if !self.find(text.as_bytes()) => break,
                Step::After(_) => {}
            }
            self.steps.next();
        }
        typed
    }

    /// Whether a line contains `text`, with an end behind all that has been found in it.
    fn find(&mut self, text: &[u8]) -> bool {
        for open in self.open.values_mut() {
            let ends = open.text.windows(text.len().max(1)).zip(text.len()..).filter(|(there, _)| *there == text);
            if let Some((_, end)) = ends.into_iter().find(|(_, end)| *end > open.found) {
                open.found = end;
                return true;
            }
        }
        false
    }
}

/// Reads `\n`, `\r`, `\t`, `\xNN` and `\\`.
///
/// # Errors
/// What is not one of these.
pub(super) fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('\\') => '\\',
            Some('x') => {
                let digits: String = chars.by_ref().take(2).collect();
                let byte = u8::from_str_radix(&digits, 16).ok().filter(u8::is_ascii);
                char::from(byte.ok_or_else(|| format!("not a byte below 80: \\x{digits}"))?)
            }
            other => return Err(format!("not an escape: \\{}", other.map_or(String::new(), String::from))),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> Step {
        Step::After(text.into())
    }

    fn types(text: &str) -> Step {
        Step::Type(text.into())
    }

    #[test]
    fn steps_are_done_in_order() {
        let steps = [types("a"), after("~ #"), types("ls\n"), types("x"), after("~ #"), types("exit\n")];
        let mut dialogue = Dialogue::new(&steps);
        assert_eq!(dialogue.begin(), "a");
        assert_eq!(dialogue.hear(b"[linux] boot\n[linux] ~ "), "");
        assert_eq!(dialogue.hear(b"# "), "ls\nx", "a prompt has no line end");
        assert_eq!(dialogue.hear(b"ls\n[linux] "), "", "a text is found once");
        assert_eq!(dialogue.unfinished(), Some(&after("~ #")));
        assert_eq!(dialogue.hear(b"~ # "), "exit\n");
        assert_eq!(dialogue.unfinished(), None);
    }

    #[test]
    fn others_do_not_tear_a_line_apart() {
        let steps = [after("[b] two words"), types("1"), after("[a] login:"), types("2")];
        let mut dialogue = Dialogue::new(&steps);
        assert_eq!(dialogue.begin(), "");
        assert_eq!(dialogue.hear(b"[a] log\n[b] two \n[a]+ in: \n"), "");
        assert_eq!(dialogue.hear(b"[b]+ words\n"), "12", "a prompt that waits still counts");
    }

    #[test]
    fn a_line_that_has_gone_by_does_not_count() {
        let steps = [after("second"), after("first"), types("x")];
        let mut dialogue = Dialogue::new(&steps);
        assert_eq!(dialogue.hear(b"[a] first\n[a] second\n"), "");
        assert_eq!(dialogue.hear("[a] \u{e9} first".as_bytes()), "x");
    }

    #[test]
    fn a_line_is_looked_at_as_a_whole() {
        let steps = [after("[a] >"), types("h"), after("[a] > h"), types("i"), after("i"), types("!")];
        let mut dialogue = Dialogue::new(&steps);
        assert_eq!(dialogue.hear(b"[a] > "), "h");
        assert_eq!((dialogue.hear(b"h"), dialogue.hear(b"i")), ("i".to_string(), "!".to_string()));
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape(r"a\n\x0f\\\t\r").as_deref(), Ok("a\n\x0f\\\t\r"));
        assert!(unescape(r"\q").is_err() && unescape(r"\xff").is_err() && unescape("\\").is_err());
    }
}
