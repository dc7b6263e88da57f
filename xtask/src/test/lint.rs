//! Formatting, clippy on host and target, licences.

use super::tally::Tally;
use crate::cross;
use crate::exec;
use crate::repo;
use crate::setup;
use crate::trouble::Trouble;
use std::env;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(900);

/// Licences a dependency may come under; the same list as in `deny.toml`.
const ALLOWED: &[&str] =
    &["MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Unicode-3.0", "Zlib", "0BSD", "Unlicense"];

/// Dependencies under a file-level copyleft that only the log decoder has: a tool of its own, linked into nothing shipped.
const DECODER_ONLY: &[&str] = &["alterable_logger", "colored"];

/// All of it.
pub(crate) fn run(tally: &mut Tally) -> Result<(), Trouble> {
    tally.check("lint rustfmt", silent(cargo().args(["fmt", "--all", "--check"])));
    let host = ["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"];
    tally.check("lint clippy, host", silent(cargo().args(host)));
    for package in [cross::UNIKERNEL, cross::ATTACKERS] {
        tally.check(format_args!("lint clippy, target, {package}"), target_clippy(package, Some(cross::GUEST))?);
    }
    for (feature, which) in [(None, "without PCI"), (Some(cross::PCI), "with PCI")] {
        let outcome = target_clippy(cross::HYPERVISOR, feature)?;
        tally.check(format_args!("lint clippy, target, {} {which}", cross::HYPERVISOR), outcome);
    }
    tally.check("lint licences", licences()?);
    if exec::output(cargo().args(["deny", "--version"]), LIMIT)?.status.success() {
        tally.check(
            "lint cargo deny",
            silent(cargo().args(["deny", "--offline", "check", "licenses", "bans", "sources"])),
        );
    } else {
        eprintln!("lint: cargo-deny is not installed; licences are checked from cargo's metadata instead");
    }
    Ok(())
}

fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repo::root());
    cargo
}

/// Runs; what it wrote is the error where it fails.
fn silent(command: &mut Command) -> Result<(), String> {
    let output = exec::output(command, LIMIT).map_err(|trouble| trouble.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// Clippy belongs to the rustup toolchain, so it can only look where that toolchain has the target; elsewhere Debian's
/// compiler, which has no clippy, must compile without a warning.
fn target_clippy(package: &str, feature: Option<&str>) -> Result<Result<(), String>, Trouble> {
    let core = setup::core_library()?;
    let mut command = cargo();
    command.arg(match core {
        setup::CoreLibrary::Rustup => "clippy",
        setup::CoreLibrary::Debian { .. } => "check",
    });
    command.args(["--quiet", "--package", package]).arg("--target-dir").arg(repo::target().join("cross"));
    command.args(feature.into_iter().flat_map(|feature| ["--features", feature]));
    if package == cross::UNIKERNEL {
        command.arg("--examples");
    }
    core.apply(&mut command);
    match core {
        setup::CoreLibrary::Rustup => command.args(["--", "-D", "warnings"]),
        setup::CoreLibrary::Debian { .. } => command.env("CARGO_ENCODED_RUSTFLAGS", "-Dwarnings"),
    };
    Ok(silent(&mut command))
}

/// Every package's licence expression from `cargo metadata`: one of its alternatives must be allowed in full.
fn licences() -> Result<Result<(), String>, Trouble> {
    let mut command = cargo();
    command.args([
        "tree",
        "--workspace",
        "--all-features",
        "--target",
        "all",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
    ]);
    command.args(["--format", "{p}\t{l}"]);
    let text = exec::text(&mut command, LIMIT)?;
    let mut bad: Vec<_> = text
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter(|line| {
            let (package, licence) = line.split_once('\t').unwrap_or((line, ""));
            let name = package.split(' ').next().unwrap_or("");
            let excepted = licence == "MPL-2.0" && DECODER_ONLY.contains(&name);
            !line.is_empty() && !excepted && !allowed(licence)
        })
        .collect();
    bad.sort_unstable();
    bad.dedup();
    Ok(if bad.is_empty() { Ok(()) } else { Err(bad.join("\n")) })
}

/// Reads `A OR B`, `A/B`, `(A OR B) AND C`. `WITH` exceptions only widen a licence.
fn allowed(expression: &str) -> bool {
    let one = |name: &str| ALLOWED.contains(&name.trim().split(" WITH ").next().unwrap_or(""));
    let all = expression.split(" AND ").map(|part| part.trim().trim_matches(['(', ')']));
    all.clone().next().is_some_and(|first| !first.is_empty())
        && all.clone().all(|part| part.replace('/', " OR ").split(" OR ").any(one))
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn expressions() {
        assert!(
            allowed("MIT OR Apache-2.0") && allowed("MIT/Apache-2.0") && allowed("(MIT OR Apache-2.0) AND Unicode-3.0")
        );
        assert!(allowed("GPL-3.0 OR MIT") && allowed("Apache-2.0 WITH LLVM-exception"));
        assert!(!allowed("GPL-3.0") && !allowed("MIT AND GPL-3.0") && !allowed(""));
    }
}
