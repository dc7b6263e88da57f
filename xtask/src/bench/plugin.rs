//! The instruction counter outside the guest: builds the TCG plugin, gives QEMU's arguments for it, reads what it said.

use super::{LIMIT, folder};
use crate::exec;
use crate::repo;
use crate::trouble::Trouble;
use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// One run's counter.
pub(super) struct Plugin {
    library: PathBuf,
    asked: String,
    log: PathBuf,
}

/// What one vCPU has executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// Its number.
    pub(super) vcpu: u64,
    /// All instructions, up to the `stop` address where one was given.
    pub(super) insns: u64,
    /// WFI, WFE and YIELD among them.
    pub(super) waits: u64,
    /// Those in the addresses asked for apart.
    pub(super) within: u64,
    /// Whether the `stop` address was reached.
    pub(super) reached: bool,
}

impl Plugin {
    /// Builds the plugin. `asked`: its arguments, separated by commas. `name` is the run's.
    pub(super) fn new(name: &str, asked: &str) -> Result<Self, Trouble> {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(repo::root()).args(["build", "--quiet", "--package", "cofferdam-insncount"]);
        exec::run(cargo.stdin(Stdio::null()).stdout(Stdio::null()), LIMIT)?;
        let log = folder().join(format!("{name}.insns"));
        // What an earlier run said must not count for this one.
        let _ = std::fs::remove_file(&log);
        let library = repo::target().join("debug/libcofferdam_insncount.so");
        Ok(Self { library, asked: asked.into(), log })
    }

    /// QEMU's arguments.
    pub(super) fn arguments(&self) -> Vec<String> {
        let plugin = format!("{},{}", self.library.display(), self.asked);
        ["-plugin", &plugin, "-d", "plugin", "-D", &self.log.display().to_string()].map(String::from).to_vec()
    }

    /// What each vCPU has executed, once QEMU has ended.
    pub(super) fn counts(&self) -> Result<Vec<Counts>, Trouble> {
        let log = self.log()?;
        let counts: Vec<_> = log.lines().filter_map(counts).collect();
        if counts.is_empty() {
            return Err(Trouble::other(format!("the instruction counter said:\n{log}")));
        }
        Ok(counts)
    }

    /// How often the address `hit=…` was executed.
    pub(super) fn times(&self, address: u64) -> Result<u64, Trouble> {
        let log = self.log()?;
        let start = format!("insncount hit={address:#x} ");
        let line = log.lines().find(|line| line.starts_with(&start));
        line.and_then(|line| field(line, "times="))
            .ok_or_else(|| Trouble::other(format!("the instruction counter knows nothing of {address:#x}:\n{log}")))
    }

    fn log(&self) -> Result<String, Trouble> {
        Ok(String::from_utf8_lossy(&repo::read(&self.log)?).into_owned())
    }
}

fn field(line: &str, name: &str) -> Option<u64> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse().ok())
}

fn counts(line: &str) -> Option<Counts> {
    line.strip_prefix("insncount vcpu=")?;
    Some(Counts {
        vcpu: field(line, "vcpu=")?,
        insns: field(line, "insns=")?,
        waits: field(line, "waits=")?,
        within: field(line, "within=")?,
        reached: field(line, "reached=")? == 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_the_plugin_writes_it() {
        let line = "insncount vcpu=2 insns=1000 waits=7 within=300 reached=1";
        let expected = Counts { vcpu: 2, insns: 1000, waits: 7, within: 300, reached: true };
        assert_eq!(counts(line), Some(expected));
        assert_eq!(counts("insncount hit=0xf0000000 times=3"), None);
        assert_eq!(field("insncount hit=0xf0000000 times=3", "times="), Some(3));
    }
}
