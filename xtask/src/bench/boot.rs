//! Boot costs: from the first instruction of `hyp-min` to the first of the guest.
//!
//! The guest reads CNTPCT as its very first instruction. What the counter shows when EL2 is entered is taken from a null
//! image that reads it as its very first instruction; the difference is ours. With several CPUs the counter under
//! `-icount` holds the others' turns too, so there the boot CPU's own instructions are counted by a TCG plugin, without
//! `-icount`, and those spent in wait loops are left out.

use super::plugin::{Counts, Plugin};
use super::{Bench, COUNTED, Figure, LIMIT, Value, folder, layout, words};
use crate::elf::Elf;
use crate::exec;
use crate::qemu;
use crate::repo;
use crate::trouble::Trouble;

/// A guest image as large as the kernel the peers were measured with.
const BIG: usize = 34_500_000;

/// The boot figures.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>, Trouble> {
    let null = null_count()?;
    let one = entry(bench, "one", "")?.saturating_sub(null);
    repo::write(&folder().join("big.bin"), &filler())?;
    let big = entry(bench, "big", "\t\t\tinitrd = \"big.bin\";\n")?.saturating_sub(null);
    let (work, waits) = more_domains(bench)?;
    let name = |what: &str| format!("EL2 entry → first guest instruction, {what}");
    Ok(vec![
        Figure::new(name("1 domain, 1 CPU"), Value::One(one), Some(6000.0), ["", "499,024", "16,210,000"]),
        Figure::new(name("34.5 MB image in RAM"), Value::One(big), Some(6000.0), ["", "583,088", "53,500,000"]),
        Figure::new(
            "one more single-CPU domain, boot CPU",
            Value::Spread(work[0], work[1]),
            Some(2000.0),
            ["", "9,500–10,000", "4,500,000"],
        ),
        Figure::new("  of 4 domains: spent in wait loops", Value::One(waits), None, ["", "", ""]),
    ])
}

/// What the guest's first instruction read.
fn entry(bench: &Bench, name: &str, more: &str) -> Result<u64, Trouble> {
    entry_of(bench, name, &layout(1, more))
}

/// The same for a layout of its own.
pub(super) fn entry_of(bench: &Bench, name: &str, text: &str) -> Result<u64, Trouble> {
    let (built, path) = bench.build(name, text)?;
    let lines = bench.boot(&built, path, &words(&COUNTED))?;
    let count =
        lines.iter().find_map(|line| line.strip_prefix("bench entry ")?.split_whitespace().next()?.parse().ok());
    count.ok_or_else(|| Trouble::other(format!("the guest of `{name}` gave no entry count:\n{}", lines.join("\n"))))
}

/// Bytes that compress and deduplicate badly, the same every time (xorshift).
fn filler() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(BIG + 8);
    while bytes.len() < BIG {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(BIG);
    bytes
}

/// The counter at EL2 entry: an arm64 Image whose first instruction reads it, prints it on the board's PL011 in 16
/// hexadecimal digits and powers off.
fn null_count() -> Result<u64, Trouble> {
    const START: [u32; 2] = [
        0xD53B_E020, // mrs x0, cntpct_el0
        0x1400_000F, // b .+60, behind the header
    ];
    const BODY: [u32; 17] = [
        0xD2A1_2001, // mov x1, #0x9000000
        0xD280_0782, // mov x2, #60
        0x9AC2_2403, // 1: lsr x3, x0, x2
        0x9240_0C63, // and x3, x3, #15
        0xF100_287F, // cmp x3, #10
        0x9100_C064, // add x4, x3, #'0'
        0x9101_5C65, // add x5, x3, #'a' - 10
        0x9A85_3083, // csel x3, x4, x5, lo
        0x3900_0023, // strb w3, [x1]
        0xF100_1042, // subs x2, x2, #4
        0x54FF_FF05, // b.pl 1b
        0x5280_0143, // mov w3, #'\n'
        0x3900_0023, // strb w3, [x1]
        0x52B0_8000, // mov w0, #0x84000000
        0x7280_0100, // movk w0, #8: SYSTEM_OFF
        0xD400_0003, // smc #0
        0x1400_0000, // b .
    ];
    let mut image: Vec<u8> = START.iter().flat_map(|word| word.to_le_bytes()).collect();
    // text_offset, image_size, flags as in hyp-min's own header, so that QEMU loads both to the same place.
    for word in [0, 0x1000, 0xA, 0, 0, 0] {
        image.extend_from_slice(&u64::to_le_bytes(word));
    }
    image.extend_from_slice(b"ARM\x64\0\0\0\0");
    image.extend(BODY.iter().flat_map(|word| word.to_le_bytes()));
    let path = folder().join("null.Image");
    repo::write(&path, &image)?;
    let board = qemu::board_arguments(&repo::root().join("dts/qemu-virt.qemu"))?;
    let mut command = qemu::command()?;
    command.args(board).args(COUNTED).args(["-monitor", "none", "-serial", "stdio", "-kernel"]).arg(path);
    let text = exec::text(&mut command, LIMIT)?;
    u64::from_str_radix(text.trim(), 16).map_err(|_| Trouble::other(format!("the null image said: {text}")))
}

/// Instructions of the boot CPU for each further domain: the differences between one, two, three and four domains,
/// as median and worst; and those in wait loops with four.
fn more_domains(bench: &Bench) -> Result<([u64; 2], u64), Trouble> {
    let guest = repo::read(&bench.guest_dir.join("bench.elf"))?;
    let stop = Elf::new(&guest)?.entry();
    let mut counts = Vec::new();
    for domains in 1..=4 {
        let (built, path) = bench.build(&format!("domains{domains}"), &layout(domains, ""))?;
        let plugin = Plugin::new(&format!("domains{domains}"), &format!("stop={stop:#x}"))?;
        bench.boot(&built, path, &plugin.arguments())?;
        let boot_cpu = plugin.counts()?.into_iter().find(|counts| counts.vcpu == 0 && counts.reached);
        let counts_of = |counts: Counts| (counts.insns.saturating_sub(counts.waits), counts.waits);
        counts.push(boot_cpu.map(counts_of).ok_or_else(|| Trouble::other("the boot CPU has not reached its guest"))?);
    }
    let mut more: Vec<u64> = counts.windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].0)).collect();
    more.sort_unstable();
    Ok(([more[more.len() / 2], more[more.len() - 1]], counts.last().map_or(0, |last| last.1)))
}
