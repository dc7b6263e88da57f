//! Costs a guest sees: exits, interrupts. The same guest runs in a domain and on bare metal.

use super::{BOARD, Bench, COUNTED, Figure, LIMIT, Value, layout_on, words};
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

/// The same with `delivery = "injected"`, and with a GICv2: name, words, most beyond bare metal. Those without a goal are for
/// information.
const OTHERS: [(&str, &str, Option<f64>); 6] = [
    ("timer-busy", "virtual timer expiry → guest vector, busy", Some(180.0)),
    ("timer-wfi", "virtual timer expiry → guest vector, from WFI", Some(180.0)),
    ("sgi", "SGI to self", None),
    ("gicd-read", "GICD_TYPER read", None),
    ("gicd-write", "GICD_ISENABLER write", None),
    ("hvc", "HVC PSCI_VERSION", None),
];

/// Boards by their version of the GIC.
const BOARDS: [(u32, &str); 2] = [(3, BOARD), (2, "qemu-virt-gicv2.dts")];

/// Runs the guest with each GIC and each delivery, and alone.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>, Trouble> {
    let mut figures = Vec::new();
    for (version, board) in BOARDS {
        // From a GICv2 a domain that reads the console has its interrupts injected.
        let console = if version == 3 { "console;" } else { "console = \"output\";" };
        let domain = |name: &str, more: &str| {
            let text = layout_on(board, console, 1, &format!("\t\t\taccess = <&gpio0>;\n{more}"));
            let (built, path) = bench.build(&format!("{name}{version}"), &text)?;
            bench.boot(&built, path, &words(&COUNTED))
        };
        let direct = domain("costs", "")?;
        let injected = domain("costs-injected", "\t\t\tdelivery = \"injected\";\n")?;
        let bare = bare_metal(bench, version)?;
        if version == 3 {
            figures.extend(first(&direct, &bare)?);
            figures.extend(others("injected: ", &injected, &bare, true)?);
        } else {
            figures.extend(others("GICv2: ", &direct, &bare, false)?);
            figures.extend(others("GICv2, injected: ", &injected, &bare, true)?);
        }
    }
    Ok(figures)
}

/// Direct delivery from a GICv3.
fn first(direct: &[String], bare: &[String]) -> Result<Vec<Figure>, Trouble> {
    let figure = |(name, text, goal, bao, xen): (&str, &str, Option<f64>, &str, &str)| {
        let here = must_find(direct, name)?;
        let there = bare_of(bare, name);
        let goal = goal.or(there.filter(|_| name.starts_with("timer")).map(|median| median as f64));
        let bare = there.map_or(String::new(), |median| median.to_string());
        Ok(Figure::new(text, Value::Spread(here.0, here.1), goal, [bare.as_str(), bao, xen]))
    };
    FIGURES.into_iter().map(figure).collect()
}

/// The others, each named with `prefix`. Where interrupts are not `injected`, the timer is to cost what it costs on bare metal. The
/// peers were measured with a GICv3.
fn others(prefix: &str, lines: &[String], bare: &[String], injected: bool) -> Result<Vec<Figure>, Trouble> {
    let figure = |(name, text, beyond): (&str, &str, Option<f64>)| {
        let here = must_find(lines, name)?;
        let there = bare_of(bare, name);
        let goal = beyond.zip(there).map(|(beyond, there)| there as f64 + if injected { beyond } else { 0.0 });
        let peers = FIGURES.iter().find(|figure| figure.0 == name && !prefix.contains("GICv2"));
        let (bao, xen) = peers.map_or(("", ""), |figure| (figure.3, figure.4));
        let bare = there.map_or(String::new(), |there| there.to_string());
        Ok(Figure::new(format!("{prefix}{text}"), Value::Spread(here.0, here.1), goal, [bare.as_str(), bao, xen]))
    };
    OTHERS.into_iter().map(figure).collect()
}

/// What `name` costs on bare metal: there a call into firmware is QEMU's own doing.
fn bare_of(bare: &[String], name: &str) -> Option<u64> {
    find(bare, name).filter(|_| name != "hvc").map(|(median, _)| median)
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
fn bare_metal(bench: &Bench, version: u32) -> Result<Vec<String>, Trouble> {
    let mut command = qemu::command()?;
    let machine = format!("virt-10.0,gic-version={version},dtb-randomness=off");
    command.args(["-M", &machine, "-m", "2G", "-nic", "none", "-display", "none"]);
    command
        .args(COUNTED)
        .args(["-monitor", "none", "-serial", "stdio", "-kernel"])
        .arg(bench.guest_dir.join("bench.elf"));
    let text = exec::text(&mut command, LIMIT)?;
    Ok(text.lines().map(|line| line.trim().to_string()).collect())
}
