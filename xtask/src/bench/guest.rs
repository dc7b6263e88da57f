//! Costs a guest sees: exits, interrupts. The same guest runs in a domain and on bare metal.

use super::{Bench, COUNTED, Figure, LIMIT, Value, layout, words};
use crate::exec;
use crate::qemu;
use crate::trouble::Trouble;

/// Name of `bench.elf`'s line, words for the table, goal, Bao, Xen.
const FIGURES: [(&str, &str, Option<f64>, &str, &str); 6] = [
    ("hvc", "HVC PSCI_VERSION", Some(60.0), "190", "472"),
    ("gicd-read", "GICD_TYPER read", Some(120.0), "226", "612"),
    ("gicd-write", "GICD_ISENABLER write", Some(200.0), "3,564", "753"),
    ("sgi", "SGI to self", Some(100.0), "777", "1,098"),
    // Their goal is the bare-metal figure, put in once it is known.
    ("timer-busy", "virtual timer expiry → guest vector, busy", None, "200", "1,084"),
    ("timer-wfi", "virtual timer expiry → guest vector, from WFI", None, "201", "1,085"),
];

/// The same with `delivery = "injected"`: name, words, most beyond bare metal. Those without a goal are for information.
const INJECTED: [(&str, &str, Option<f64>); 5] = [
    ("timer-busy", "injected: virtual timer expiry → guest vector, busy", Some(180.0)),
    ("timer-wfi", "injected: virtual timer expiry → guest vector, from WFI", Some(180.0)),
    ("sgi", "injected: SGI to self", None),
    ("gicd-read", "injected: GICD_TYPER read", None),
    ("gicd-write", "injected: GICD_ISENABLER write", None),
];

/// Runs the guest with each delivery, and alone.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>, Trouble> {
    let domain = |name: &str, more: &str| {
        let (built, path) = bench.build(name, &layout(1, &format!("\t\t\taccess = <&gpio0>;\n{more}")))?;
        bench.boot(&built, path, &words(&COUNTED))
    };
    let direct = domain("costs", "")?;
    let injected = domain("costs-injected", "\t\t\tdelivery = \"injected\";\n")?;
    let bare = bare_metal(bench)?;
    let mut figures = Vec::new();
    for (name, text, goal, bao, xen) in FIGURES {
        let here = must_find(&direct, name)?;
        let there = find(&bare, name);
        let goal = goal.or(there.filter(|_| name.starts_with("timer")).map(|(median, _)| median as f64));
        // On bare metal a call into firmware is QEMU's own doing.
        let bare = there.filter(|_| name != "hvc").map_or(String::new(), |(median, _)| median.to_string());
        figures.push(Figure::new(text, Value::Spread(here.0, here.1), goal, [bare.as_str(), bao, xen]));
    }
    for (name, text, beyond) in INJECTED {
        let here = must_find(&injected, name)?;
        let there = find(&bare, name).map(|(median, _)| median);
        let goal = beyond.zip(there).map(|(beyond, there)| beyond + there as f64);
        let (bao, xen) = FIGURES.iter().find(|figure| figure.0 == name).map_or(("", ""), |figure| (figure.3, figure.4));
        let bare = there.map_or(String::new(), |there| there.to_string());
        figures.push(Figure::new(text, Value::Spread(here.0, here.1), goal, [bare.as_str(), bao, xen]));
    }
    Ok(figures)
}

/// The same as [`find`] where the guest must have said it.
pub(super) fn must_find(lines: &[String], name: &str) -> Result<(u64, u64), Trouble> {
    find(lines, name)
        .ok_or_else(|| Trouble::other(format!("the guest gave no figure for {name}:\n{}", lines.join("\n"))))
}

/// Median and worst of one line.
fn find(lines: &[String], name: &str) -> Option<(u64, u64)> {
    let mut words = lines
        .iter()
        .find_map(|line| line.strip_prefix("bench ")?.strip_prefix(name)?.strip_prefix(' '))?
        .split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// The guest alone at EL1.
fn bare_metal(bench: &Bench) -> Result<Vec<String>, Trouble> {
    let mut command = qemu::command()?;
    command.args(["-M", "virt-10.0,gic-version=3,dtb-randomness=off", "-m", "2G", "-nic", "none", "-display", "none"]);
    command
        .args(COUNTED)
        .args(["-monitor", "none", "-serial", "stdio", "-kernel"])
        .arg(bench.guest_dir.join("bench.elf"));
    let text = exec::text(&mut command, LIMIT)?;
    Ok(text.lines().map(|line| line.trim().to_string()).collect())
}
