//! Where text comes from. The front end has no file system: it asks.

/// A source file: its path as shown to the reader, and its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Source<'a> {
    /// Path. The same file must always come under the same path: that is how it is recognised.
    pub path: &'a str,
    /// All of its text.
    pub text: &'a str,
}

/// What a [`Loader`] found.
#[derive(Clone, Copy, Debug)]
pub enum Loaded<'a> {
    /// The file.
    Found(Source<'a>),
    /// There is no such file in any folder searched.
    Missing,
    /// There is one, but it is not UTF-8 text or cannot be read.
    Unreadable,
}

/// Gives text by include name. The loader decides where to search; Cofferdam's searches the including file's folder, the
/// `-I` folders, then the repository's `dts/`.
pub trait Loader<'a> {
    /// The file that `from` includes as `name`; `system` where it is written `<name>`.
    fn load(&mut self, from: &str, name: &str, system: bool) -> Loaded<'a>;
}

/// A loader that finds nothing: for sources that stand alone.
pub struct NoIncludes;

impl<'a> Loader<'a> for NoIncludes {
    fn load(&mut self, _: &str, _: &str, _: bool) -> Loaded<'a> {
        Loaded::Missing
    }
}
