//! Debian's Linux in a domain, held against the same kernel, RAM disk, device tree and machine without a hypervisor.
//!
//! One CPU under `-icount`, so that time is instructions and both runs take the same decisions. Everything the CPU executes
//! from reset to power-off is counted from outside; the domain's run contains the hypervisor's instructions.

use super::plugin::{Counts, Plugin};
use super::{Bench, COUNTED, Figure, Value, folder, words};
use crate::debian;
use crate::exec;
use crate::image::Built;
use crate::qemu;
use crate::repo;
use crate::trouble::Trouble;
use cofferdam_plan::audit::payload;
use cofferdam_plan::{Plan, va};
use object::{Object, ObjectSymbol};
use std::path::PathBuf;
use std::time::Duration;
use zerocopy::IntoBytes;

/// A counted boot of Linux takes about a minute.
const LIMIT: Duration = Duration::from_secs(900);
/// Where EL2's code lies: more than any `hyp-min` is long.
const EL2: u64 = 16 << 20;

/// What makes the CPU enter EL2, and the function of `hyp-min` that answers it (there may be one for each way of delivery),
/// or a place that many bytes behind it.
const CAUSES: [(&str, &str, u64); 8] = [
    ("PSCI and SMCCC calls", "trap_call", 0),
    ("accesses to emulated frames", "traps::data_abort", 0),
    ("  of them to the console", "console::access", 0),
    ("SGIs sent", "traps::send_sgi", 0),
    ("other system registers", "traps::system_register", 0),
    ("WFI, SMC, undefined", "traps::rare", 0),
    ("EL2's own interrupts", "trap_fiq", 0),
    // IRQ from a lower level in AArch64 (DDI 0487, D1.3.2).
    ("the guest's interrupts", "vectors_injected", 0x480),
];

/// What Linux does in a measured run: words of its command line, read by the kernel or by `qemu/linux/init`.
#[derive(Clone, Copy)]
struct Work {
    name: &'static str,
    bootargs: &'static str,
    /// Further words of the domain.
    words: &'static str,
}

impl Work {
    const fn new(name: &'static str, bootargs: &'static str) -> Self {
        Self { name, bootargs, words: "" }
    }
}
const QUIET: Work = Work::new("quiet", "console=ttyAMA0 quiet work=none");
const INJECTED: Work = Work { name: "injected", words: "delivery = \"injected\";", ..QUIET };
const VERBOSE: Work = Work::new("verbose", "console=ttyAMA0 work=none");
const LOAD: Work = Work::new("load", "console=ttyAMA0 quiet work=load");
const IDLE_1: Work = Work::new("idle1", "console=ttyAMA0 quiet nohz=off work=idle=1");
const IDLE_2: Work = Work::new("idle2", "console=ttyAMA0 quiet nohz=off work=idle=2");

/// The figures of a real guest.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>, Trouble> {
    let (quiet, quiet_bare) = pair(bench, QUIET)?;
    let (verbose, verbose_bare) = pair(bench, VERBOSE)?;
    let (load, load_bare) = pair(bench, LOAD)?;
    let injected = domain(bench, INJECTED)?;
    let own_load = load.total.saturating_sub(quiet.total);
    let bare_load = load_bare.saturating_sub(quiet_bare);
    let mut figures = vec![
        ratio("Linux, reset → /init → off, quiet", quiet.total, quiet_bare, 0.2, "±0.0 %"),
        ratio("the same with injected delivery", injected.total, quiet_bare, 0.2, ""),
        ratio("the same with a verbose console", verbose.total, verbose_bare, 1.0, "+2.0 %"),
        ratio("a load of fork, exec and checksums in it", own_load, bare_load, 0.05, "+0.64 %"),
    ];
    let (one, two) = (domain(bench, IDLE_1)?, domain(bench, IDLE_2)?);
    figures.push(Figure::new(
        "an idle, ticking second of Linux: instructions in EL2",
        Value::One(two.el2.saturating_sub(one.el2)),
        Some(0.0),
        ["", "", ""],
    ));
    for ((cause, ..), (direct, injected)) in CAUSES.iter().zip(quiet.exits.iter().zip(injected.exits)) {
        let words = Value::Words(format!("{direct} / {injected}"));
        figures.push(Figure::new(format!("  exits, direct / injected: {cause}"), words, None, ["", "", ""]));
    }
    Ok(figures)
}

/// How many percent more instructions there are with the hypervisor.
fn ratio(name: &str, with: u64, without: u64, goal: f64, xen: &str) -> Figure {
    let percent = (with as f64 / without.max(1) as f64 - 1.0) * 100.0;
    let bare = format!("{:.1} M", without as f64 / 1e6);
    Figure::new(name, Value::Percent(percent), Some(goal), [bare.as_str(), "", xen])
}

/// One run in a domain.
struct Run {
    total: u64,
    el2: u64,
    exits: [u64; CAUSES.len()],
}

fn pair(bench: &Bench, work: Work) -> Result<(Run, u64), Trouble> {
    Ok((domain(bench, work)?, bare(bench, work)?))
}

fn domain(bench: &Bench, work: Work) -> Result<Run, Trouble> {
    let (built, path) = build(bench, work)?;
    let addresses = addresses(&built.symbols.1)?;
    let hits: String = addresses.iter().flatten().map(|address| format!(",hit={address:#x}")).collect();
    let within = format!("within={:#x}-{:#x}{hits}", va::HYP_VA, va::HYP_VA + EL2);
    let plugin = Plugin::new(&format!("linux-{}", work.name), &within)?;
    let extra: Vec<_> = words(&COUNTED).into_iter().chain(plugin.arguments()).collect();
    bench.boot_within(&built, path, &extra, LIMIT)?;
    let Counts { insns, within, .. } = one_cpu(&plugin)?;
    let mut exits = [0; CAUSES.len()];
    for (times, addresses) in exits.iter_mut().zip(addresses) {
        for address in addresses {
            *times += plugin.times(address)?;
        }
    }
    Ok(Run { total: insns, el2: within, exits })
}

fn build(bench: &Bench, work: Work) -> Result<(Built, PathBuf), Trouble> {
    let text = format!(
        "/dts-v1/;\n#include \"qemu-virt.dts\"\n\n/ {{\n\tdomains {{\n\t\tcompatible = \"cofferdam,domains-v1\";\n\n\
         \t\tlinux {{\n\t\t\tcompatible = \"cofferdam,domain\";\n\t\t\t#address-cells = <2>;\n\t\t\t#size-cells = <2>;\n\
         \t\t\tcpus = <&cpu0>;\n\t\t\tkernel = \"debian/Image\";\n\t\t\tinitrd = \"debian/initrd.cpio\";\n\
         \t\t\tbootargs = \"{}\";\n\t\t\tconsole;\n\t\t\t{}\n\n\t\t\tmemory@40000000 {{\n\t\t\t\tdevice_type = \"memory\";\n\
         \t\t\t\treg = <0x0 0x40000000 0x0 0x20000000>;\n\t\t\t}};\n\t\t}};\n\t}};\n}};\n",
        work.bootargs, work.words
    );
    bench.build(&format!("linux-{}", work.name), &text)
}

/// The same without a hypervisor: QEMU's machine without EL2, the domain's own device tree. PSCI is QEMU's, by HVC, as the tree
/// says.
fn bare(bench: &Bench, work: Work) -> Result<u64, Trouble> {
    let (built, _) = build(bench, work)?;
    let tree = folder().join(format!("linux-{}.dtb", work.name));
    repo::write(&tree, &guest_tree(&built)?)?;
    let plugin = Plugin::new(&format!("linux-{}-bare", work.name), "within=1-0")?;
    let mut command = qemu::command()?;
    command.args([
        "-M",
        "virt-10.0,gic-version=3,dtb-randomness=off",
        "-m",
        "512M",
        "-nic",
        "none",
        "-display",
        "none",
    ]);
    command.args(COUNTED).args(["-monitor", "none", "-serial", "stdio"]);
    command.arg("-kernel").arg(guest("debian/Image")?).arg("-initrd").arg(guest("debian/initrd.cpio")?);
    command.arg("-dtb").arg(&tree).args(["-append", work.bootargs]).args(plugin.arguments());
    exec::text(&mut command, LIMIT)?;
    Ok(one_cpu(&plugin)?.insns)
}

pub(super) fn guest(name: &str) -> Result<PathBuf, Trouble> {
    debian::find(name)?.ok_or_else(|| Trouble::other(format!("{name} is no guest of Debian's")))
}

pub(super) fn one_cpu(plugin: &Plugin) -> Result<Counts, Trouble> {
    match plugin.counts()?.as_slice() {
        [counts] => Ok(*counts),
        others => Err(Trouble::other(format!("one CPU was to be counted, not {}", others.len()))),
    }
}

/// The device tree of the only domain, out of its image.
fn guest_tree(built: &Built) -> Result<Vec<u8>, Trouble> {
    let bad = || Trouble::other("the plan has no device tree for its guest");
    let words = super::sizes::aligned(&built.blob);
    let plan = Plan::read(words.as_bytes()).map_err(|error| Trouble::other(format!("{error:?}")))?;
    let audit = plan.audit().map_err(|error| Trouble::other(format!("{error:?}")))?;
    let tree = audit.payloads.iter().find(|one| one.kind == payload::DTB).ok_or_else(bad)?;
    let (from, len) = (tree.offset as usize, tree.len as usize);
    built.image.get(from..from + len).map(<[u8]>::to_vec).ok_or_else(bad)
}

/// Link addresses of the functions of [`CAUSES`].
fn addresses(elf: &[u8]) -> Result<Vec<Vec<u64>>, Trouble> {
    let file = object::read::elf::ElfFile64::<object::Endianness>::parse(elf)
        .map_err(|error| Trouble::other(format!("hyp-min cannot be read: {error}")))?;
    let find = |function: &str, behind: u64| {
        // `traps::data_abort` is mangled to `…5traps10data_abort17h…`.
        let is_it = |name: &str| match function.split_once("::") {
            Some((module, own)) => name.contains(&format!("{}{module}{}{own}17h", module.len(), own.len())),
            None => name == function,
        };
        let symbols = file.symbols().filter(|symbol| symbol.name().is_ok_and(is_it));
        let found: Vec<_> = symbols.map(|symbol| symbol.address() + behind).collect();
        match found.is_empty() {
            true => Err(Trouble::other(format!("hyp-min has no function {function} to count"))),
            false => Ok(found),
        }
    };
    CAUSES.iter().map(|(_, function, behind)| find(function, *behind)).collect()
}
