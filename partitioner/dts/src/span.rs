//! Places in source text.

/// A source file, by its index in the order files were opened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FileId(pub u16);

/// Bytes `start..end` of one file.
///
/// A token that came out of a macro keeps the span of its *use*: that is where the reader's mistake is. Where the macro's
/// body matters, the diagnostic carries it as a label of its own (see `Tree::expansion`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// Byte behind the last.
    pub end: u32,
}

impl Span {
    /// From the start of `self` to the end of `other`; `self` where they lie in different files.
    pub fn to(self, other: Self) -> Self {
        if self.file == other.file { Self { end: other.end.max(self.end), ..self } } else { self }
    }
}
