//! The long text of every code, from `docs/codes/`, compiled in: `explain` needs no files.

/// Code and text of every file in `docs/codes/`, ascending.
pub static CODES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/codes.rs"));

/// The long text of `code` (`"E0301"`, in either case), where there is one.
pub fn explain(code: &str) -> Option<&'static str> {
    CODES.iter().find(|(known, _)| known.eq_ignore_ascii_case(code)).map(|(_, text)| *text)
}

/// The title of `code`: what its text's first line says behind the colon.
pub fn title(code: &str) -> Option<&'static str> {
    explain(code)?.lines().next()?.split_once(": ").map(|(_, title)| title)
}
