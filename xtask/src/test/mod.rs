//! `cargo xtask test`: everything that must hold, in named parts. The last line is `N passed, N failed`.
//!
//! A missing tool is an error, never a skipped test.

mod attach;
mod bitflip;
mod boards;
mod boot;
mod determinism;
mod dialogue;
mod failure;
mod fixtures;
mod gdb;
mod guest_tree;
mod host;
mod lint;
mod scan;
mod scenario;
mod tally;
mod tidy;
mod transcript;

use crate::setup;
use crate::trouble::{Done, Trouble};
use tally::Tally;

/// Run everything that must hold, or only the named parts
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Parts: tidy, lint, host, scan, fixtures, guest-tree, boot, attack, attach, gdb, failure, determinism, bitflip; or scenarios
    /// in qemu/tests, by name or by group (`linux` for all `linux-…`)
    names: Vec<String>,
}

/// The smallest layout with a PCI function: it has the hypervisor's other build.
const WITH_PCI: &str = r#"/dts-v1/;
#include "qemu-virt-pci.dts"

/ {
	domains {
		compatible = "cofferdam,domains-v1";

		pulse {
			compatible = "cofferdam,domain";
			#address-cells = <2>;
			#size-cells = <2>;
			cpus = <&cpu0>;
			kernel = "pulse.elf";
			access = <&edu0>;
			console;

			memory@40000000 {
				device_type = "memory";
				reg = <0x0 0x40000000 0x0 0x01000000>;
			};
		};
	};
};
"#;

/// A part's tests; what it finds goes to the tally.
type Part = fn(&mut Tally) -> Result<(), Trouble>;

/// Quick ones first: a slip should be seen soon.
const PARTS: &[(&str, Part)] = &[
    ("tidy", tidy::run),
    ("lint", lint::run),
    ("host", host::run),
    ("scan", scan::run),
    ("fixtures", fixtures::run),
    ("guest-tree", guest_tree::run),
    ("boot", boot::run),
    ("attack", scenario::run_all),
    ("attach", attach::run),
    ("gdb", gdb::run),
    ("failure", failure::run),
    ("determinism", determinism::run),
    ("bitflip", bitflip::run),
];

/// The command itself.
pub(crate) fn main(args: &Args) -> Done {
    let scenarios = scenario::names()?;
    // `linux` names `linux` itself and every `linux-…`.
    let is_named = |scenario: &String, name: &String| {
        scenario.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    for name in &args.names {
        let known = PARTS.iter().any(|(part, _)| part == name) || scenarios.iter().any(|one| is_named(one, name));
        if !known {
            let parts: Vec<_> = PARTS.iter().map(|(part, _)| *part).collect();
            return Err(Trouble::other(format!(
                "there is no test called {name}\n  help: parts: {}\n  help: scenarios: {}",
                parts.join(", "),
                scenarios.join(", ")
            )));
        }
    }
    setup::all()?;
    let mut tally = Tally::default();
    for (part, run) in PARTS {
        if args.names.is_empty() || args.names.iter().any(|name| name == part) {
            eprintln!("-- {part}");
            run(&mut tally)?;
        }
    }
    let named = |scenario: &String| args.names.iter().any(|name| is_named(scenario, name));
    let named: Vec<_> = scenarios.into_iter().filter(named).collect();
    if !named.is_empty() {
        scenario::run(&named, &mut tally)?;
    }
    Ok(tally.end())
}
