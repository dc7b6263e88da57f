//! PCI: what configuration space and interrupts cost a guest, what a function costs at boot, and what Linux' disk and network
//! traffic costs beside the same kernel on the same machine without a hypervisor.
//!
//! Traffic is counted, not timed: the CPU's instructions for so many bytes more, with the hypervisor's in them.

use super::plugin::Plugin;
use super::{Bench, COUNTED, Figure, LIMIT, Value, boot, guest, layout_on, linux, words};
use crate::exec;
use crate::qemu;
use crate::repo;
use crate::trouble::Trouble;
use std::time::Duration;

/// A counted boot of Linux with traffic.
const LONG: Duration = Duration::from_secs(900);
/// One CPU; time passes as instructions do, and as outside where there are none: hosts take their time.
const STEADY: [&str; 6] = ["-cpu", "cortex-a57,cntfrq=1000000000", "-icount", "shift=0,sleep=on", "-smp", "1"];

/// Runs of each kind. The host's own pace decides how bytes go together in packets; the least of some runs is the work itself.
const RUNS: usize = 3;

/// Every function of the board that works and that the SMMU holds back.
const ALL: &str = "<&nic1>, <&nic2>, <&nvme0>, <&edu0>, <&edu1>, <&blk0>, <&rp0>, <&nic3>";

/// What Linux moves its bytes through.
struct Traffic {
    name: &'static str,
    function: &'static str,
    /// In its boot arguments, before the number of MiB.
    work: &'static str,
    /// MiB each way: little, and much. Their difference has no boot in it.
    mib: [u64; 2],
}
const TRAFFIC: [Traffic; 2] = [
    Traffic { name: "NVMe", function: "nvme0", work: "move=nvme0n1,", mib: [2, 34] },
    Traffic { name: "virtio-net", function: "nic3", work: "stream=10.0.2.15,", mib: [1, 9] },
];

/// The figures.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>, Trouble> {
    let all = costs(bench, "pci-all", ALL, "")?;
    let injected = costs(bench, "pci-injected", "<&edu0>", "")?;
    let direct = costs(bench, "pci-direct", "<&edu0>", "\t\t\tdelivery = \"direct\";\n")?;
    let bare = bare_costs(bench)?;
    let bare_pin = guest::must_find(&bare, "pin")?.0;
    let one = |lines: &[String], name: &str, text: &str, goal: Option<f64>| {
        let (median, worst) = guest::must_find(lines, name)?;
        let bare = guest::must_find(&bare, name)?.0.to_string();
        Ok::<_, Trouble>(Figure::new(text, Value::Spread(median, worst), goal, [bare.as_str(), "", ""]))
    };
    let mut figures = vec![
        one(&all, "config-read", "configuration space read, a constant", Some(250.0))?,
        one(&all, "config-read-slowest", "  the slowest dword of all functions", Some(250.0))?,
        one(&all, "config-write-slowest", "configuration space write, the slowest dword", None)?,
        one(&direct, "pin", "a function's pin → guest vector, direct", Some(bare_pin as f64))?,
        one(&injected, "msi", "a function's MSI → guest vector", None)?,
    ];
    let entries = ["", "\t\t\taccess = <&edu0>;\n", "\t\t\taccess = <&edu0>, <&edu1>;\n"];
    let mut counts = Vec::new();
    for (number, more) in entries.iter().enumerate() {
        counts.push(boot::entry_of(bench, &format!("functions{number}"), &on_pci_board(more))?);
    }
    figures.push(Figure::new(
        "one more function, at boot",
        Value::One(counts[2].saturating_sub(counts[1])),
        Some(2500.0),
        ["", "", ""],
    ));
    figures.push(Figure::new(
        "  the first one, with the SMMU and the ITS",
        Value::One(counts[1].saturating_sub(counts[0])),
        None,
        ["", "", ""],
    ));
    for traffic in &TRAFFIC {
        let [mut with, mut without] = [[0; 2]; 2];
        for (index, mib) in traffic.mib.into_iter().enumerate() {
            with[index] = least(|| domain(bench, traffic, mib))?;
            without[index] = least(|| alone(traffic, mib))?;
        }
        let bytes = ((traffic.mib[1] - traffic.mib[0]) << 20) as f64;
        let per_byte = |counts: [u64; 2]| counts[1].saturating_sub(counts[0]) as f64 / bytes;
        let (with, without) = (per_byte(with), per_byte(without));
        let bare = format!("{without:.3}");
        figures.push(Figure::new(
            format!("Linux, {}: instructions for a byte there and back", traffic.name),
            Value::Percent((with / without - 1.0) * 100.0),
            Some(2.0),
            [bare.as_str(), "", ""],
        ));
    }
    Ok(figures)
}

/// The least of some runs.
fn least(run: impl Fn() -> Result<u64, Trouble>) -> Result<u64, Trouble> {
    (0..RUNS).map(|_| run()).try_fold(u64::MAX, |least, count| Ok(least.min(count?)))
}

/// A layout of one domain on the board with PCI functions; `more` goes into it.
fn on_pci_board(more: &str) -> String {
    layout_on("qemu-virt-pci.dts", "console;", 1, more)
}

/// What `bench.elf` says in a domain with functions.
fn costs(bench: &Bench, name: &str, access: &str, more: &str) -> Result<Vec<String>, Trouble> {
    let text = on_pci_board(&format!("\t\t\taccess = {access};\n{more}"));
    let (built, path) = bench.build(name, &text)?;
    bench.boot(&built, path, &words(&COUNTED))
}

/// The same on the bare machine.
fn bare_costs(bench: &Bench) -> Result<Vec<String>, Trouble> {
    let mut command = bare_machine()?;
    command.args(COUNTED).args(["-monitor", "none", "-serial", "stdio", "-kernel"]);
    let text = exec::text(command.arg(bench.guest_dir.join("bench.elf")), LIMIT)?;
    Ok(text.lines().map(|line| line.trim().to_string()).collect())
}

/// QEMU for the board without EL2 and SMMU. The transitional card is left out, so that the first card is the one that domains get.
fn bare_machine() -> Result<std::process::Command, Trouble> {
    let board = qemu::board_arguments(&repo::root().join("dts/qemu-virt-pci.qemu"))?;
    let mut command = qemu::command()?;
    for pair in board.chunks(2).filter(|pair| !pair[pair.len() - 1].starts_with("virtio-net-pci,addr=1.0")) {
        command.args(pair.iter().map(|word| word.replace(",virtualization=on", "").replace(",iommu=smmuv3", "")));
    }
    Ok(command)
}

fn bootargs(traffic: &Traffic, mib: u64) -> String {
    format!("console=ttyAMA0 quiet nokaslr work={}{mib}", traffic.work)
}

const INITRD: &str = "debian/initrd+virtio_pci+virtio_net.cpio";

/// Instructions of a run in a domain.
fn domain(bench: &Bench, traffic: &Traffic, mib: u64) -> Result<u64, Trouble> {
    let text = format!(
        "/dts-v1/;\n#include \"qemu-virt-pci.dts\"\n\n/ {{\n\tdomains {{\n\t\tcompatible = \"cofferdam,domains-v1\";\n\n\
         \t\tlinux {{\n\t\t\tcompatible = \"cofferdam,domain\";\n\t\t\t#address-cells = <2>;\n\t\t\t#size-cells = <2>;\n\
         \t\t\tcpus = <&cpu0>;\n\t\t\tkernel = \"debian/Image\";\n\t\t\tinitrd = \"{INITRD}\";\n\t\t\tbootargs = \"{}\";\n\
         \t\t\taccess = <&{}>;\n\t\t\tconsole;\n\n\t\t\tmemory@40000000 {{\n\t\t\t\tdevice_type = \"memory\";\n\
         \t\t\t\treg = <0x0 0x40000000 0x0 0x20000000>;\n\t\t\t}};\n\t\t}};\n\t}};\n}};\n",
        bootargs(traffic, mib),
        traffic.function
    );
    let name = format!("linux-{}-{mib}", traffic.function);
    let (built, path) = bench.build(&name, &text)?;
    let plugin = Plugin::new(&name, "within=1-0")?;
    let extra: Vec<_> = words(&STEADY).into_iter().chain(plugin.arguments()).collect();
    let lines = bench.boot_within(&built, path, &extra, LONG)?;
    complete(&lines.join("\n"), traffic, mib)?;
    Ok(linux::one_cpu(&plugin)?.insns)
}

/// The same without a hypervisor.
fn alone(traffic: &Traffic, mib: u64) -> Result<u64, Trouble> {
    let plugin = Plugin::new(&format!("linux-{}-{mib}-bare", traffic.function), "within=1-0")?;
    let mut command = bare_machine()?;
    // The function that the domain has, and no other of its kind before it.
    command.args(STEADY).args(["-m", "512M", "-monitor", "none", "-serial", "stdio"]);
    command.arg("-kernel").arg(linux::guest("debian/Image")?).arg("-initrd").arg(linux::guest(INITRD)?);
    command.args(["-append", &bootargs(traffic, mib)]).args(plugin.arguments());
    let text = exec::text(&mut command, LONG)?;
    complete(&text, traffic, mib)?;
    Ok(linux::one_cpu(&plugin)?.insns)
}

/// A run that has not moved its bytes gives no figure.
fn complete(text: &str, traffic: &Traffic, mib: u64) -> Result<(), Trouble> {
    let done = [format!("move: nvme0n1, {mib} MiB"), format!("stream: {} bytes", mib << 20)];
    match done.iter().any(|line| text.contains(line.as_str())) {
        true => Ok(()),
        false => Err(Trouble::other(format!("{} has not moved its bytes:\n{text}", traffic.name))),
    }
}
