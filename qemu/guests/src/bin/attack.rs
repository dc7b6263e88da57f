//! The hostile guest. Its first boot argument names the attack.
#![no_std]
#![no_main]

use attackers::attacks::ATTACKS;
use attackers::probe;
use attackers::report::Report;
use unikernel::{platform, println};

unikernel::entry!(main);

fn main() {
    let bootargs = platform::platform().bootargs;
    let name = bootargs.split_whitespace().next().unwrap_or("");
    let Some((_, run)) = ATTACKS.iter().find(|(known, _)| *known == name) else {
        return println!("FAIL no attack is called {name:?}");
    };
    probe::install();
    let mut report = Report::default();
    run(&mut report);
    report.end();
}
