//! Golden transcripts: reading an `.expected` file and holding a run against it. The format is told in `qemu/README.md`.
//!
//! Pure: text in, verdict out.

use super::dialogue::{Step, unescape};
use std::collections::BTreeMap;

/// What a scenario must do.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Expected {
    /// Exit code of `run`.
    pub(crate) exit: u8,
    /// Seconds.
    pub(crate) timeout: u64,
    /// What is typed on the console, and what is waited for.
    pub(crate) steps: Vec<Step>,
    /// Added to QEMU's arguments.
    pub(crate) qemu: Vec<String>,
    /// Sections in order: domain name, or `log`, and its lines.
    pub(super) sections: Vec<(String, Vec<String>)>,
}

/// What a run did.
#[derive(Debug, Default)]
pub(crate) struct Actual {
    /// Exit code.
    pub(crate) exit: Option<i32>,
    /// Lines of standard output.
    pub(crate) stdout: Vec<String>,
    /// Lines of standard error.
    pub(crate) stderr: Vec<String>,
    /// The step of the dialogue that was not reached.
    pub(crate) unfinished: Option<Step>,
}

/// The section that is about the hypervisor's log.
const LOG: &str = "log";

impl Expected {
    /// Reads an `.expected` file.
    ///
    /// # Errors
    /// The line that is not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut expected = Self { timeout: 30, ..Self::default() };
        let mut exit = None;
        for line in text.lines().map(str::trim_end).filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix("== ") {
                expected.sections.push((name.trim().into(), Vec::new()));
            } else if let Some((_, lines)) = expected.sections.last_mut() {
                lines.push(line.strip_prefix('~').unwrap_or(line).into());
            } else if !line.trim().is_empty() {
                let (key, value) = line.split_once(':').ok_or_else(|| format!("not `key: value`: {line}"))?;
                let value = value.trim();
                let number = || value.parse::<u64>().map_err(|_| format!("not a number: {line}"));
                match key.trim() {
                    "exit" => exit = Some(u8::try_from(number()?).map_err(|_| format!("not an exit code: {line}"))?),
                    "timeout" => expected.timeout = number()?,
                    "type" => expected.steps.push(Step::Type(unescape(value)?)),
                    "after" => expected.steps.push(Step::After(value.into())),
                    "qemu" => expected.qemu = value.split_whitespace().map(String::from).collect(),
                    _ => return Err(format!("unknown key: {line}")),
                }
            }
        }
        for (_, lines) in &mut expected.sections {
            while lines.last().is_some_and(String::is_empty) {
                lines.pop();
            }
        }
        expected.exit = exit.ok_or("`exit` is missing")?;
        Ok(expected)
    }

    /// Everything that is not as it should be; empty where the run is as expected.
    pub(crate) fn compare(&self, actual: &Actual) -> String {
        let mut report = String::new();
        let mut domains = by_domain(&actual.stdout, &mut report);
        for (name, lines) in &self.sections {
            if name == LOG {
                missing_in_log(lines, &actual.stderr, &mut report);
                continue;
            }
            match domains.remove(name.as_str()) {
                Some(got) if matches(lines, &got) => {}
                Some(got) => difference(name, lines, &got, &mut report),
                // An empty section is a domain that says nothing.
                None if lines.is_empty() => {}
                None => report += &format!("domain {name} printed nothing\n"),
            }
        }
        for (name, lines) in domains {
            report += &format!("domain {name} printed {} lines and has no section:\n", lines.len());
            lines.iter().take(20).for_each(|line| report += &format!("  + {line}\n"));
        }
        if let Some(step) = &actual.unfinished {
            report += &format!("the dialogue has stopped before {step:?}\n");
        }
        if actual.exit != Some(i32::from(self.exit)) {
            let got = actual.exit.map_or("stopped by a signal".into(), |code| code.to_string());
            report += &format!("exit code: wanted {}, got {got}\n", self.exit);
        }
        report
    }
}

/// Splits prefixed lines; what has no prefix goes to `report`.
pub(super) fn by_domain(lines: &[String], report: &mut String) -> BTreeMap<String, Vec<String>> {
    let mut domains: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        let Some((name, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
            *report += &format!("a line without prefix on standard output: {line}\n");
            continue;
        };
        let lines = domains.entry(name.into()).or_default();
        match (rest.strip_prefix("+ "), lines.last_mut()) {
            (Some(more), Some(last)) => last.push_str(more),
            (Some(more), None) => lines.push(more.into()),
            (None, _) => lines.push(rest.strip_prefix(' ').unwrap_or(rest).into()),
        }
    }
    for lines in domains.values_mut() {
        lines.iter_mut().for_each(|line| line.truncate(line.trim_end().len()));
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
    }
    domains
}

/// Whether `got` is what `wanted` describes. `<...>` alone stands for any lines.
fn matches(wanted: &[String], got: &[String]) -> bool {
    glob(wanted, got, |wanted| wanted == "<...>", line_matches)
}

/// `<*>` stands for any text.
fn line_matches(wanted: &str, got: &str) -> bool {
    let parts: Vec<&str> = wanted.split("<*>").collect();
    let [first, between @ .., last] = parts.as_slice() else { return wanted == got };
    let Some(mut rest) = got.strip_prefix(first) else { return false };
    for part in between {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Matching with "any number of" items, without backtracking beyond the last one: linear times quadratic at worst.
fn glob(wanted: &[String], got: &[String], any: impl Fn(&str) -> bool, same: impl Fn(&str, &str) -> bool) -> bool {
    let (mut w, mut g) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while g < got.len() {
        match wanted.get(w) {
            Some(item) if any(item) => {
                retry = Some((w, g));
                w += 1;
            }
            Some(item) if same(item, &got[g]) => {
                w += 1;
                g += 1;
            }
            _ => match retry {
                Some((at, from)) => {
                    retry = Some((at, from + 1));
                    (w, g) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    wanted[w..].iter().all(|item| any(item))
}

fn missing_in_log(wanted: &[String], stderr: &[String], report: &mut String) {
    let mut log = stderr.iter().filter_map(|line| line.strip_prefix(crate::decode::OWN));
    for line in wanted.iter().filter(|line| !line.is_empty()) {
        let inside = format!("<*>{line}<*>");
        if !log.any(|got| line_matches(&inside, got)) {
            *report += &format!("not in the hypervisor's log, or not in this order: {line}\n");
            return;
        }
    }
}

/// The two texts beside each other: common start left out, then what differs.
fn difference(name: &str, wanted: &[String], got: &[String], report: &mut String) {
    let same =
        wanted.iter().zip(got).take_while(|(wanted, got)| *wanted != "<...>" && line_matches(wanted, got)).count();
    *report += &format!("domain {name}, after {same} equal lines (- wanted, + got):\n");
    wanted.iter().skip(same).take(40).for_each(|line| *report += &format!("  - {line}\n"));
    got.iter().skip(same).take(40).for_each(|line| *report += &format!("  + {line}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "exit: 1\nqemu: -m 1G\nafter: one\ntype: a\\n\n# comment\n\n== a\none\n<...>\nlast <*> of <*>\n\n== log\nparked\n";

    fn actual(stdout: &[&str], stderr: &[&str], exit: i32) -> Actual {
        let lines = |from: &[&str]| from.iter().map(|line| line.to_string()).collect();
        Actual { exit: Some(exit), stdout: lines(stdout), stderr: lines(stderr), unfinished: None }
    }

    #[test]
    fn header_and_sections() {
        let expected = Expected::parse(TEXT).unwrap();
        assert_eq!((expected.exit, expected.timeout), (1, 30));
        assert_eq!(expected.steps, [Step::After("one".into()), Step::Type("a\n".into())]);
        assert_eq!(expected.qemu, ["-m", "1G"]);
        assert!(Expected::parse("timeout: 3\n").is_err());
        assert!(Expected::parse("exit: 0\nnonsense: 3\n").is_err());
    }

    #[test]
    fn a_run_as_expected() {
        let expected = Expected::parse(TEXT).unwrap();
        let run =
            actual(&["[a] one", "[a] two", "[a] la", "[a]+ st 1 of 2"], &["noise", "[hyp] INFO parked domain 1"], 1);
        assert_eq!(expected.compare(&run), "");
    }

    #[test]
    fn every_kind_of_difference_is_seen() {
        let expected = Expected::parse(TEXT).unwrap();
        let good = ["[a] one", "[a] last 1 of 2"];
        let log = ["[hyp] parked"];
        assert!(expected.compare(&actual(&good, &log, 0)).contains("exit code"));
        assert!(expected.compare(&actual(&good, &["parked"], 1)).contains("not in the hypervisor's log"));
        assert!(expected.compare(&actual(&good[..1], &log, 1)).contains("- <...>"));
        assert!(expected.compare(&actual(&[], &log, 1)).contains("printed nothing"));
        assert!(expected.compare(&actual(&["[a] one", "[a] last 1 of 2", "[b] x"], &log, 1)).contains("no section"));
        assert!(expected.compare(&actual(&["one"], &log, 1)).contains("without prefix"));
        let silent = Actual { unfinished: Some(Step::After("prompt".into())), ..actual(&good, &log, 1) };
        assert!(expected.compare(&silent).contains("prompt"));
    }

    #[test]
    fn wildcards() {
        assert!(line_matches("a<*>c", "abc") && line_matches("a<*>c", "ac") && !line_matches("a<*>c", "ab"));
        assert!(!line_matches("ab<*>b", "ab"));
        assert!(line_matches("<*>", ""));
        let lines = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        assert!(matches(&lines("a <...> b <...> c"), &lines("a x b y b z c")));
        assert!(!matches(&lines("a <...> b"), &lines("a b c")));
    }
}
