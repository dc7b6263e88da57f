//! Reads back a flattened tree our own writer has just written: whatever it finds malformed is the end of the tree.

/// Bytes before the structure: header and an empty reservation block.
const STRUCTURE: usize = 56;
const BEGIN_NODE: u32 = 1;
const PROPERTY: u32 = 3;

/// A tree of [`super::fdt::Fdt`].
#[derive(Clone, Copy)]
pub(super) struct Base<'b> {
    bytes: &'b [u8],
}

/// What stands at a place of the structure, and where the next thing does.
pub(super) enum Token<'b> {
    Begin { name: &'b str, next: usize },
    Property { name: &'b str, value: &'b [u8], next: usize },
    End { next: usize },
}

impl<'b> Base<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes }
    }

    fn word(&self, at: usize) -> u32 {
        let bytes = self.bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_be_bytes)
    }

    fn text(&self, at: usize) -> &'b str {
        let rest = self.bytes.get(at..).unwrap_or(&[]);
        let text = rest.split(|byte| *byte == 0).next().unwrap_or(&[]);
        core::str::from_utf8(text).unwrap_or("")
    }

    /// Behind the root's name.
    pub(super) fn root(&self) -> usize {
        match self.token(STRUCTURE) {
            Token::Begin { next, .. } => next,
            _ => STRUCTURE,
        }
    }

    pub(super) fn token(&self, at: usize) -> Token<'b> {
        match self.word(at) {
            BEGIN_NODE => {
                let name = self.text(at + 4);
                Token::Begin { name, next: (at + 4 + name.len() + 1).next_multiple_of(4) }
            }
            PROPERTY => {
                let (len, name) = (self.word(at + 4) as usize, self.word(at + 8) as usize);
                let value = self.bytes.get(at + 12..at + 12 + len).unwrap_or(&[]);
                // Offset of the strings (Devicetree Specification 0.4, 5.2).
                let name = self.text(self.word(12) as usize + name);
                Token::Property { name, value, next: (at + 12 + value.len()).next_multiple_of(4) }
            }
            _ => Token::End { next: at + 4 },
        }
    }

    /// The child called `name` of the node whose content starts at `at`: where its content starts.
    pub(super) fn child(&self, at: usize, name: &str) -> Option<usize> {
        let mut at = at;
        loop {
            match self.token(at) {
                Token::Property { next, .. } => at = next,
                Token::Begin { name: found, next } if found == name => return Some(next),
                Token::Begin { next, .. } => at = self.end(next),
                Token::End { .. } => return None,
            }
        }
    }

    /// Behind the node whose content starts at `at`.
    fn end(&self, at: usize) -> usize {
        let (mut at, mut depth) = (at, 1);
        while depth > 0 {
            at = match self.token(at) {
                Token::Property { next, .. } => next,
                Token::Begin { next, .. } => {
                    depth += 1;
                    next
                }
                Token::End { next } => {
                    depth -= 1;
                    next
                }
            };
        }
        at
    }

    /// The phandle of the node whose content starts at `at`.
    pub(super) fn phandle(&self, at: usize) -> Option<u32> {
        let mut at = at;
        while let Token::Property { name, value, next } = self.token(at) {
            if name == "phandle" {
                return value.try_into().ok().map(u32::from_be_bytes);
            }
            at = next;
        }
        None
    }
}
