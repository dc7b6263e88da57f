//! The shared console taken apart while it comes: whose line, what of it, where it ends.
//!
//! Only the hypervisor writes line starts, so `[domain] ` cannot be forged; what starts otherwise is handed on as whole lines.
//! A domain's text comes piece by piece, as it is on the wire: a prompt is a line that does not end. Pure: bytes in, parts out.

/// How a line ends on the wire. The carriage returns are no text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LineEnd {
    /// LF: what the domain wrote.
    Feed,
    /// CR LF: what the domain wrote.
    ReturnFeed,
    /// CR CR LF: nothing the domain wrote; others needed the wire.
    Cut,
}

/// A part of a domain's line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part<'a> {
    /// It begins; with `continued` it goes on with the domain's line before.
    Opens {
        /// `[domain]+ ` instead of `[domain] `.
        continued: bool,
    },
    /// More of it, never empty.
    Text(&'a [u8]),
    /// It ends.
    Ends(LineEnd),
}

impl Part<'_> {
    /// Adds what a reader of plain lines is to see to `out`.
    pub(crate) fn plain(&self, name: &str, out: &mut Vec<u8>) {
        match self {
            Self::Opens { continued } => {
                out.extend_from_slice(format!("[{name}]{} ", if *continued { "+" } else { "" }).as_bytes());
            }
            Self::Text(text) => out.extend_from_slice(text),
            Self::Ends(_) => out.push(b'\n'),
        }
    }
}

/// What has been heard.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Heard<'a> {
    /// Part of a line of the domain with this index.
    Domain(usize, Part<'a>),
    /// A whole line that is no domain's, without its end.
    Line(&'a str),
}

/// Whose the line on the wire is.
#[derive(Clone, Copy)]
enum Owner {
    Domain(usize),
    Nobody,
}

/// The state between two pieces of input.
pub(crate) struct Wire<'a> {
    domains: &'a [String],
    /// Known once the prefix is complete.
    owner: Option<Owner>,
    /// The line so far, while it is nobody's or its owner is not known.
    line: Vec<u8>,
    /// Carriage returns that are part of the line's end if LF follows.
    returns: usize,
}

impl<'a> Wire<'a> {
    /// A wire on which `domains` write.
    pub(crate) fn new(domains: &'a [String]) -> Self {
        Self { domains, owner: None, line: Vec::new(), returns: 0 }
    }

    /// Takes the next `bytes`.
    pub(crate) fn feed(&mut self, bytes: &[u8], heard: &mut dyn FnMut(Heard<'_>)) {
        let mut text = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => {
                    self.say(&mut text, heard);
                    self.end(heard);
                }
                b'\r' => self.returns += 1,
                _ => {
                    let returns = std::mem::take(&mut self.returns);
                    for byte in std::iter::repeat_n(b'\r', returns).chain([*byte]) {
                        self.put(byte, &mut text, heard);
                    }
                }
            }
        }
        self.say(&mut text, heard);
    }

    /// The wire is dead: what waits for its end is handed on.
    pub(crate) fn finish(&mut self, heard: &mut dyn FnMut(Heard<'_>)) {
        if !self.line.is_empty() || matches!(self.owner, Some(Owner::Domain(_))) {
            self.end(heard);
        }
    }

    fn put(&mut self, byte: u8, text: &mut Vec<u8>, heard: &mut dyn FnMut(Heard<'_>)) {
        match self.owner {
            Some(Owner::Domain(_)) => text.push(byte),
            Some(Owner::Nobody) => self.line.push(byte),
            None => {
                self.line.push(byte);
                self.recognise(heard);
            }
        }
    }

    /// Looks whether the line's start says whose it is.
    fn recognise(&mut self, heard: &mut dyn FnMut(Heard<'_>)) {
        let mut possible = false;
        for (index, name) in self.domains.iter().enumerate() {
            for (prefix, continued) in [(format!("[{name}] "), false), (format!("[{name}]+ "), true)] {
                if self.line == prefix.as_bytes() {
                    self.owner = Some(Owner::Domain(index));
                    self.line.clear();
                    return heard(Heard::Domain(index, Part::Opens { continued }));
                }
                possible |= prefix.as_bytes().starts_with(&self.line);
            }
        }
        if !possible {
            self.owner = Some(Owner::Nobody);
        }
    }

    fn say(&self, text: &mut Vec<u8>, heard: &mut dyn FnMut(Heard<'_>)) {
        if let (Some(Owner::Domain(index)), false) = (self.owner, text.is_empty()) {
            heard(Heard::Domain(index, Part::Text(text)));
        }
        text.clear();
    }

    fn end(&mut self, heard: &mut dyn FnMut(Heard<'_>)) {
        let end = match std::mem::take(&mut self.returns) {
            0 => LineEnd::Feed,
            1 => LineEnd::ReturnFeed,
            _ => LineEnd::Cut,
        };
        match self.owner.take() {
            Some(Owner::Domain(index)) => heard(Heard::Domain(index, Part::Ends(end))),
            _ => heard(Heard::Line(&String::from_utf8_lossy(&self.line))),
        }
        self.line.clear();
    }
}

/// Collects domains' lines for those who want them whole.
#[derive(Default)]
pub(crate) struct Lines {
    text: Vec<u8>,
}

impl Lines {
    /// One part of a line.
    pub(crate) fn add(&mut self, name: &str, part: Part<'_>) {
        part.plain(name, &mut self.text);
    }

    /// All lines so far, prefixes included.
    pub(crate) fn get(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.text).lines().map(String::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything heard, one word per part.
    fn heard(pieces: &[&[u8]]) -> Vec<String> {
        let domains = ["a".to_string(), "ab".to_string()];
        let mut wire = Wire::new(&domains);
        let mut all = Vec::new();
        let mut hear = |heard: Heard<'_>| {
            all.push(match heard {
                Heard::Domain(index, Part::Opens { continued }) => {
                    format!("{index}{}", if continued { "+" } else { "" })
                }
                Heard::Domain(index, Part::Text(text)) => format!("{index}:{}", String::from_utf8_lossy(text)),
                Heard::Domain(index, Part::Ends(end)) => format!("{index}{end:?}"),
                Heard::Line(line) => format!("-{line}"),
            });
        };
        pieces.iter().for_each(|piece| wire.feed(piece, &mut hear));
        wire.finish(&mut hear);
        all
    }

    #[test]
    fn lines_of_all_kinds() {
        assert_eq!(
            heard(&[b"noise\n[a] one\r\n[hyp] ~00\n[ab]+ two\r\r\n[c] x\n[a]b\n[a] \n"]),
            [
                "-noise",
                "0",
                "0:one",
                "0ReturnFeed",
                "-[hyp] ~00",
                "1+",
                "1:two",
                "1Cut",
                "-[c] x",
                "-[a]b",
                "0",
                "0Feed"
            ]
        );
    }

    #[test]
    fn a_prompt_is_there_before_its_line_ends() {
        assert_eq!(heard(&[b"[a", b"] ~ # "])[..2], ["0", "0:~ # "]);
        assert_eq!(heard(&[b"[a] x", b"y\r", b"z\r", b"\n"]), ["0", "0:x", "0:y", "0:\rz", "0ReturnFeed"]);
    }

    #[test]
    fn what_has_no_end_is_not_lost() {
        assert_eq!(heard(&[b"[hyp] en"]), ["-[hyp] en"]);
        assert_eq!(heard(&[b"[a"]), ["-[a"]);
        assert_eq!(heard(&[b"[a] x"]), ["0", "0:x", "0Feed"]);
        assert!(heard(&[b""]).is_empty());
    }

    #[test]
    fn plain_lines_have_no_returns() {
        let mut lines = Lines::default();
        for part in [Part::Opens { continued: false }, Part::Text(b"x"), Part::Ends(LineEnd::Cut)] {
            lines.add("a", part);
        }
        lines.add("a", Part::Opens { continued: true });
        assert_eq!(lines.get(), ["[a] x", "[a]+ "]);
    }
}
