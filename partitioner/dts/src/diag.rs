//! Diagnostics as typed data: a stable code, places, arguments and static templates. Text is made only when one is shown.
//!
//! Why templates: no allocator, and a test can hold every template against its arguments. `{0}` to `{5}` name arguments.

use crate::Span;
use core::fmt;

/// How much a diagnostic weighs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// The layout cannot be compiled.
    Error,
    /// It can, but the author should know.
    Warning,
    /// A decision the compiler took and reports.
    Note,
}

/// A stable code: letter, group (two digits), ordinal within the group (two digits). E and W share the numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Code {
    /// Decides the letter; notes are counted among the warnings and carry `W`.
    pub severity: Severity,
    /// Group times 100 plus ordinal: 301 for E0301.
    pub number: u16,
}

impl Code {
    /// An error's code.
    pub const fn error(number: u16) -> Self {
        Self { severity: Severity::Error, number }
    }
    /// A warning's code.
    pub const fn warning(number: u16) -> Self {
        Self { severity: Severity::Warning, number }
    }
    /// A note's code.
    pub const fn note(number: u16) -> Self {
        Self { severity: Severity::Note, number }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = if self.severity == Severity::Error { 'E' } else { 'W' };
        write!(f, "{letter}{:04}", self.number)
    }
}

/// One argument of a diagnostic's templates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Arg<'a> {
    /// Not given.
    #[default]
    None,
    /// A name or other text from the source.
    Text(&'a str),
    /// Shown in decimal.
    Number(u64),
    /// Shown in hexadecimal with `0x`.
    Hex(u64),
    /// Base and size, shown as `0xbase..=0xlast`.
    Range(u64, u64),
    /// A number of bytes, shown with the largest unit that divides it.
    Bytes(u64),
    /// Bus << 8 | device << 3 | function of a PCI function, shown as `00:05.0`.
    Function(u16),
    /// A node, shown as its path.
    Node(crate::Node<'a>),
}

/// A second place a diagnostic speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// Template of what is to be said there.
    pub text: &'static str,
}

/// One message to the author of a layout.
#[derive(Clone, Debug)]
pub struct Diagnostic<'a> {
    /// The stable code.
    pub code: Code,
    /// The place to mend.
    pub primary: Span,
    /// Template of the message: what is wrong, both parties named.
    pub message: &'static str,
    /// Template shown at the primary place; may be empty.
    pub label: &'static str,
    /// Other places.
    pub labels: heapless::Vec<Label, 4>,
    /// Template of the way out; may be empty.
    pub help: &'static str,
    /// Arguments of all templates.
    pub args: [Arg<'a>; 6],
}

impl<'a> Diagnostic<'a> {
    /// A diagnostic with its message and primary place; the rest is added with the methods below.
    pub fn new(code: Code, primary: Span, message: &'static str) -> Self {
        Self { code, primary, message, label: "", labels: heapless::Vec::new(), help: "", args: [Arg::None; 6] }
    }

    /// Sets the arguments of the templates, at most six.
    #[must_use]
    pub fn args(mut self, args: &[Arg<'a>]) -> Self {
        for (slot, arg) in self.args.iter_mut().zip(args) {
            *slot = *arg;
        }
        self
    }

    /// Sets what is shown at the primary place.
    #[must_use]
    pub fn label(mut self, text: &'static str) -> Self {
        self.label = text;
        self
    }

    /// Adds a second place. A fifth is dropped: the message must be complete without it.
    #[must_use]
    pub fn also(mut self, span: Span, text: &'static str) -> Self {
        let _ = self.labels.push(Label { span, text });
        self
    }

    /// Sets the way out.
    #[must_use]
    pub fn help(mut self, text: &'static str) -> Self {
        self.help = text;
        self
    }

    /// A template of this diagnostic with its arguments filled in.
    pub fn fill<'d>(&'d self, template: &'static str) -> impl fmt::Display + 'd {
        Filled { template, args: &self.args }
    }
}

struct Filled<'d, 'a> {
    template: &'static str,
    args: &'d [Arg<'a>; 6],
}

impl fmt::Display for Filled<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.template;
        while let Some(at) = rest.find('{') {
            let (before, after) = rest.split_at(at);
            f.write_str(before)?;
            let index = after.as_bytes().get(1).copied().unwrap_or(0).wrapping_sub(b'0');
            match self.args.get(usize::from(index)) {
                Some(arg) if after.as_bytes().get(2) == Some(&b'}') => {
                    write!(f, "{arg}")?;
                    rest = &after[3..];
                }
                _ => {
                    f.write_str("{")?;
                    rest = &after[1..];
                }
            }
        }
        f.write_str(rest)
    }
}

impl fmt::Display for Arg<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Text(text) => f.write_str(text),
            Self::Number(n) => write!(f, "{n}"),
            Self::Hex(n) => write!(f, "{n:#x}"),
            Self::Range(base, 0) => write!(f, "{base:#x} (empty)"),
            Self::Range(base, size) => write!(f, "{base:#x}..={:#x}", base.saturating_add(size - 1)),
            Self::Bytes(n) => match n {
                n if *n >= 1 << 30 && n % (1 << 30) == 0 => write!(f, "{} GiB", n >> 30),
                n if *n >= 1 << 20 && n % (1 << 20) == 0 => write!(f, "{} MiB", n >> 20),
                n if *n >= 1 << 10 && n % (1 << 10) == 0 => write!(f, "{} KiB", n >> 10),
                n => write!(f, "{n} bytes"),
            },
            Self::Function(rid) => write!(f, "{:02x}:{:02x}.{}", rid >> 8, rid >> 3 & 0x1F, rid & 7),
            Self::Node(node) => write!(f, "{}", node.path()),
        }
    }
}

/// Where diagnostics collect: slots the caller lends. Those that do not fit are counted, and the caller runs again with
/// more room.
#[derive(Debug)]
pub struct Diagnostics<'s, 'a> {
    slots: &'s mut [Option<Diagnostic<'a>>],
    len: usize,
    errors: usize,
    lost: usize,
    muted: heapless::Vec<&'static [Code], 4>,
}

impl<'s, 'a> Diagnostics<'s, 'a> {
    /// Collects into `slots`.
    pub fn new(slots: &'s mut [Option<Diagnostic<'a>>]) -> Self {
        Self { slots, len: 0, errors: 0, lost: 0, muted: heapless::Vec::new() }
    }

    /// Drops these codes too from now on: those that would only repeat, in other words, what has been reported. Of different lists a fifth
    /// is not taken: its codes are reported.
    pub fn mute(&mut self, codes: &'static [Code]) {
        if !self.muted.contains(&codes) {
            let _ = self.muted.push(codes);
        }
    }

    /// Adds one. The same code at the same primary place with the same arguments is kept once.
    pub fn push(&mut self, diagnostic: Diagnostic<'a>) {
        if self.muted.iter().any(|codes| codes.contains(&diagnostic.code)) {
            return;
        }
        let known = self
            .iter()
            .any(|d| d.code == diagnostic.code && d.primary == diagnostic.primary && d.args == diagnostic.args);
        if known {
            return;
        }
        if diagnostic.code.severity == Severity::Error {
            self.errors += 1;
        }
        match self.slots.get_mut(self.len) {
            Some(slot) => {
                *slot = Some(diagnostic);
                self.len += 1;
            }
            None => self.lost += 1,
        }
    }

    /// How many errors were pushed, lost ones included.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// How many found no slot.
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// Those kept, in the order they were pushed.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic<'a>> {
        self.slots.iter().take(self.len).flatten()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    /// Many missing include files mute the same codes: that takes no room from other lists.
    #[test]
    fn muted_lists_count_once() {
        const ONE: &[Code] = &[Code::error(121)];
        const OTHER: &[Code] = &[Code::error(1411)];
        let mut slots = [const { None }; 4];
        let mut out = Diagnostics::new(&mut slots);
        (0..9).for_each(|_| out.mute(ONE));
        out.mute(OTHER);
        for code in [301, 121, 1411] {
            out.push(Diagnostic::new(Code::error(code), Span::default(), "wrong"));
        }
        assert!(out.iter().map(|d| d.code).eq([Code::error(301)]));
    }

    #[test]
    fn templates_fill() {
        let d = Diagnostic::new(Code::error(301), Span::default(), "{0} and {1} share {2} {x}").args(&[
            Arg::Text("a"),
            Arg::Number(7),
            Arg::Range(0x1000, 0x1000),
        ]);
        assert_eq!(d.fill(d.message).to_string(), "a and 7 share 0x1000..=0x1fff {x}");
        assert_eq!(d.code.to_string(), "E0301");
    }
}
