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
    /// Each domain's line that may still grow, prefix included, without what earlier steps have found.
    open: BTreeMap<String, String>,
    /// Whether the line on the wire has been looked at up to its end: it starts a new one.
    ended: bool,
}

impl<'a> Dialogue<'a> {
    pub(super) fn new(steps: &'a [Step]) -> Self {
        Self { steps: steps.iter(), line: Vec::new(), open: BTreeMap::new(), ended: false }
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
            }
            self.grow(*byte);
            typed += &self.go_on();
        }
        typed
    }

    /// The step that never came to its end, if one has not.
    pub(super) fn unfinished(&self) -> Option<&'a Step> {
        self.steps.as_slice().first()
    }

    /// Adds the newest byte to its domain's line.
    fn grow(&mut self, byte: u8) {
        let line = String::from_utf8_lossy(&self.line);
        let Some((name, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) else { return };
        if rest == " " && byte == b' ' {
            self.open.insert(name.into(), format!("[{name}] "));
        } else if rest != "+ " && rest.len() > 1 && byte != b'\n' {
            let open = self.open.entry(name.into()).or_insert_with(|| format!("[{name}] "));
            // A character of several bytes counts once it is whole.
            match line.chars().last() {
                Some(last) if last != char::REPLACEMENT_CHARACTER => open.push(last),
                _ => {}
            }
        }
    }

    /// Does all steps that can be done.
    fn go_on(&mut self) -> String {
        let mut typed = String::new();
        while let Some(step) = self.unfinished() {
            match step {
                Step::Type(text) => typed += text,
                Step::After(text) if !self.find(text) => break,
                Step::After(_) => {}
            }
            self.steps.next();
        }
        typed
    }

    /// Whether a line contains `text`; up to its end it is done with then.
    fn find(&mut self, text: &str) -> bool {
        for (name, open) in &mut self.open {
            if let Some(at) = open.find(text) {
                *open = format!("[{name}] {}", &open[at + text.len()..]);
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
    fn escapes() {
        assert_eq!(unescape(r"a\n\x0f\\\t\r").as_deref(), Ok("a\n\x0f\\\t\r"));
        assert!(unescape(r"\q").is_err() && unescape(r"\xff").is_err() && unescape("\\").is_err());
    }
}
