//! The plan as a whole: what compiles is what was granted, byte for byte, and the same every time.

mod plans;

use cofferdam_plan::audit::{grant, payload};
use plans::{Guests, build, joined, root, stage2};
use std::io::Write;
use std::process::{Command, Stdio};

/// A domain node.
fn domain(name: &str, cpu: usize, memory: &str, rest: &str) -> String {
    format!(
        "{name} {{ compatible = \"cofferdam,domain\"; #address-cells = <2>; #size-cells = <2>; cpus = <&cpu{cpu}>; \
         kernel = \"{name}.elf\"; {rest} memory@40000000 {{ device_type = \"memory\"; {memory} }}; }};\n"
    )
}

/// A layout on the board `qemu-virt`.
fn layout(domains: &str) -> String {
    format!(
        "/dts-v1/;\n#include \"qemu-virt.dts\"\n/ {{ domains {{ compatible = \"cofferdam,domains-v1\";\n{domains}}}; }};\n"
    )
}

/// An ELF file with one code segment of `len` bytes and `zeroes` behind it.
fn elf(at: u64, len: usize, zeroes: u64) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2u16, 183].iter().flat_map(|v| v.to_le_bytes()));
    file.extend(1u32.to_le_bytes());
    file.extend([at, 64, 0].iter().flat_map(|v| v.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 1, 0, 0, 0].iter().flat_map(|v| v.to_le_bytes()));
    file.extend([1u32, 7].iter().flat_map(|v| v.to_le_bytes()));
    file.extend([128, at, at, len as u64, len as u64 + zeroes, 16].iter().flat_map(|v| v.to_le_bytes()));
    file.resize(128, 0);
    file.extend((0..len).map(|i| i as u8));
    file
}

const SIXTEEN: &str = "reg = <0 0x40000000 0 0x1000000>;";

#[test]
fn the_demo_compiles_and_its_tables_equal_its_grants() {
    let text = std::fs::read_to_string(root().join("layouts/demo.dts")).expect("the demo is there");
    let guests =
        Guests::default().with("duet.elf", elf(0x4008_0000, 5000, 9000)).with("pulse.elf", elf(0x4000_0000, 64, 0));
    let outcome = build(&text, &guests);
    let built = outcome.plan.unwrap_or_else(|| panic!("{:?}", outcome.messages));
    let plan = built.plan();
    assert_eq!(plan.domains.iter().map(|d| d.name()).collect::<Vec<_>>(), ["duet", "pulse"]);
    assert_eq!(built.base, 0x4020_0000);
    let audit = plan.audit().expect("the audit section is there");
    for (id, domain) in plan.domains.iter().enumerate() {
        let mut granted: Vec<_> = audit
            .grants
            .iter()
            .filter(|g| g.domain as usize == id)
            .map(|g| {
                // Normal WB inner shareable RW, or Device-nGnRE RW never executed; both with the access flag.
                let attributes = if g.kind == grant::RAM { 0x7FC } else { 0x40_0000_0000_04C4 };
                (g.ipa.base.0, g.pa.base.0, g.ipa.size, attributes)
            })
            .collect();
        granted.sort_unstable();
        assert_eq!(joined(&stage2(&built, id)), granted, "domain {}", domain.name());
    }
    // Kernels start where they lie: in the first blocks behind the hypervisor, without a copy.
    let kernels: Vec<_> = built.payloads.iter().filter(|p| p.1 == payload::KERNEL).map(|p| p.3).collect();
    assert_eq!(kernels, [0x28_0000, 0x40_0000]);
    assert_eq!(plan.moves.len(), 2, "only the device trees are copied");
    // Everything the hypervisor holds beside its own 48 KiB: the budget with one domain is 128 KiB, this has two.
    let space = plan.header.blob_len + plan.cpus.len() as u32 * 0x2000 + plan.domains.len() as u32 * 0x1000;
    assert!(space < 128 * 1024, "{space} bytes");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let text = std::fs::read_to_string(root().join("layouts/demo.dts")).expect("the demo is there");
    let guests = Guests::default().with("duet.elf", elf(0x4000_0000, 64, 0)).with("pulse.elf", elf(0x4000_0000, 64, 0));
    assert_eq!(build(&text, &guests).plan, build(&text, &guests).plan);
}

#[test]
fn dtc_reads_guest_trees_without_a_warning() {
    let rest = "console; bootargs = \"a b\"; initrd = \"disk\"; access = <&gpio0>, <&rtc0>;";
    let text = layout(&domain("one", 0, SIXTEEN, rest));
    let guests = Guests::default().with("one.elf", elf(0x4000_0000, 64, 0)).with("disk", vec![7; 5000]);
    let outcome = build(&text, &guests);
    let built = outcome.plan.unwrap_or_else(|| panic!("{:?}", outcome.messages));
    let mut dtc = Command::new("dtc")
        .args(["-I", "dtb", "-O", "dts", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("dtc is installed (device-tree-compiler)");
    dtc.stdin.take().expect("piped").write_all(built.tree(0)).expect("dtc reads");
    let output = dtc.wait_with_output().expect("dtc ends");
    let source = String::from_utf8(output.stdout).expect("dtc writes text");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{source}");
    for line in [
        "bootargs = \"a b\";",
        "stdout-path = \"/serial@9000000\";",
        "linux,initrd-start = <0x00 0x40001000>;",
        "linux,initrd-end = <0x00 0x40002388>;",
        "compatible = \"arm,pl061\\0arm,primecell\";",
        "reg = <0x00 0x9030000 0x00 0x1000>;",
        "interrupt-names = \"phys\\0virt\";",
        "always-on;",
    ] {
        assert!(source.contains(line), "{line} is not in\n{source}");
    }
    assert!(!source.contains("cpu@1"), "{source}");
}

#[test]
fn fixed_memory_is_where_it_was_asked_for_and_its_kernel_is_copied() {
    let pinned = "reg = <0 0x40000000 0 0x1000000>; host-address = <0 0x70000000>;";
    let guests = Guests::default().with("one.elf", elf(0x4000_1000, 5000, 0x30_0000));
    let outcome = build(&layout(&domain("one", 0, pinned, "")), &guests);
    let built = outcome.plan.unwrap_or_else(|| panic!("{:?}", outcome.messages));
    assert_eq!(joined(&stage2(&built, 0)), [(0x4000_0000, 0x7000_0000, 0x100_0000, 0x7FC)]);
    // The pages the file touches, then the zeroes behind them.
    let moves: Vec<_> = built.plan().moves.iter().take(2).map(|m| (m.to.0, m.len, m.zero)).collect();
    let end = 0x7000_1000 + 5000 + 0x30_0000u64;
    assert_eq!(moves, [(0x7000_1000, 5008, 0x2000 - 5008), (0x7000_3000, 0, end.next_multiple_of(16) - 0x7000_3000)]);
    let (.., offset, len, _) = built.payloads[0].clone();
    assert_eq!((built.plan().moves[0].offset, len), (offset, 5000));
}

#[test]
fn large_zeroes_are_not_carried_in_the_image() {
    let guests = Guests::default().with("one.elf", elf(0x4000_0000, 64, 0x80_0000));
    let outcome = build(&layout(&domain("one", 0, SIXTEEN, "")), &guests);
    let built = outcome.plan.unwrap_or_else(|| panic!("{:?}", outcome.messages));
    assert_eq!(built.image_len, 0x40_0000, "hypervisor block and kernel block");
    let plan = built.plan();
    let zeroes: Vec<_> = plan.moves.iter().filter(|m| m.len == 0).map(|m| m.zero).collect();
    assert_eq!(zeroes, [0x80_0000 + 64 - 0x20_0000]);
}

#[test]
fn an_arm64_image_lies_above_a_block_boundary_and_its_disk_behind_it() {
    let mut image = vec![0; 0x1_0000];
    image[8..16].copy_from_slice(&0x8_0000u64.to_le_bytes());
    image[16..24].copy_from_slice(&0x20_0000u64.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    let guests = Guests::default().with("one.elf", image).with("disk", vec![1; 0x50_0000]);
    let memory = "reg = <0 0x40000000 0 0x2000000>;";
    let outcome = build(&layout(&domain("one", 0, memory, "initrd = \"disk\";")), &guests);
    let built = outcome.plan.unwrap_or_else(|| panic!("{:?}", outcome.messages));
    let at: Vec<_> = built.payloads.iter().map(|p| (p.1, p.2)).collect();
    let expected = [(payload::KERNEL, 0x4008_0000), (payload::INITRD, 0x4028_0000), (payload::DTB, 0x41E0_0000)];
    assert_eq!(at, expected);
    assert_eq!(built.plan().domains[0].entry.0, 0x4008_0000);
}

#[test]
fn files_lie_where_they_are_put_and_hidden_memory_is_not_told() {
    let rest = "initrd = \"disk\"; memory@0 { device_type = \"memory\"; reg = <0 0 0 0x200000>; hidden; };
        file@40000000 { file = \"second\"; reg = <0 0x40000000 0 0x3000>; };
        file@1000 { file = \"first\"; reg = <0 0x1000 0 0x1000>; };";
    let guests = Guests::default().with("one.elf", elf(0x4080_0000, 64, 0)).with("disk", vec![1; 0x7F_D000]);
    let guests = guests.with("first", vec![2; 0x1000]).with("second", vec![3; 100]);
    let outcome = build(&layout(&domain("one", 0, SIXTEEN, rest)), &guests);
    let built = outcome.plan.unwrap_or_else(|| panic!("{:?}", outcome.messages));
    let (plan, tree) = (built.plan(), String::from_utf8_lossy(built.tree(0)).into_owned());
    let at: Vec<_> = plan.audit().expect("there").payloads.iter().map(|p| (p.kind, p.ipa.base.0, p.len)).collect();
    // The RAM disk finds no room behind the kernel, nor at the start, which is taken: it follows the file there.
    let expected = [
        (payload::FILE, 0x1000, 0x1000),
        (payload::FILE, 0x4000_0000, 100),
        (payload::INITRD, 0x4000_3000, 0x80_0000 - 0x3000),
        (payload::KERNEL, 0x4080_0000, 64),
    ];
    assert_eq!(at[..4], expected);
    assert!(tree.contains("memory@40000000") && !tree.contains("memory@0"), "{tree}");
    let moved: Vec<_> = plan.moves.iter().map(|m| m.len).collect();
    assert_eq!(moved.len(), 1, "only the device tree is copied: {moved:x?}");
}

#[test]
fn what_scrub_at_boot_leaves_is_payload() {
    let guests = Guests::default().with("one.elf", elf(0x4000_0000, 5000, 100));
    let outcome = build(&layout(&domain("one", 0, SIXTEEN, "scrub = \"boot\";")), &guests);
    let built = outcome.plan.unwrap_or_else(|| panic!("{:?}", outcome.messages));
    let plan = built.plan();
    let scrubbed: u64 = plan.scrubs.iter().map(|s| s.size).sum();
    assert_eq!(scrubbed, 0x100_0000 - 0x2000 - 0x1000, "all but two pages of kernel and one of device tree");
    let tree = plan.moves[0];
    assert_eq!(tree.len + tree.zero, 0x1000, "the rest of the tree's page is zeroed");
}

#[test]
fn thirty_two_domains_with_512_devices_take_well_below_a_second() {
    use std::fmt::Write;
    let mut board = String::new();
    for cpu in 4..32 {
        let affinity = ((cpu / 16) << 8) | (cpu % 16);
        let _ = write!(
            board,
            "cpu{cpu}: cpu@{affinity:x} {{ device_type = \"cpu\"; compatible = \"arm,cortex-a57\"; \
             reg = <{affinity}>; enable-method = \"psci\"; }};"
        );
    }
    let mut devices = String::new();
    let mut domains = String::new();
    for id in 0..32 {
        let mut access = String::from("access = ");
        for n in 0..16 {
            let number = id * 16 + n;
            let at = 0xB00_0000 + number * 0x1000;
            let _ = write!(
                devices,
                "d{number}: gpio@{at:x} {{ compatible = \"arm,pl061\"; reg = <0 {at:#x} 0 0x1000>; \
                 interrupts = <0 {} 4>; clocks = <&clk24mhz>; clock-names = \"apb_pclk\"; }};",
                100 + number
            );
            let _ = write!(access, "{}<&d{number}>", if n == 0 { "" } else { ", " });
        }
        domains += &domain(&format!("dom{id}"), id, SIXTEEN, &format!("{access}; console;"));
    }
    let text = format!(
        "/dts-v1/;\n#include \"qemu-virt.dts\"\n/ {{ cpus {{ {board} }}; {devices} domains {{ compatible = \
         \"cofferdam,domains-v1\"; {domains} }}; }};\n"
    );
    let start = std::time::Instant::now();
    let outcome = build(&text, &Guests::default());
    let took = start.elapsed();
    assert!(outcome.plan.is_some(), "{:?}", outcome.messages.first());
    // Unoptimised, with every kind of memory growing from 16 entries: dozens of runs.
    assert!(took.as_secs() < 10, "{took:?}");
}

#[test]
fn payloads_at_odd_addresses_are_placed_or_refused() {
    // A second segment of nothing but zeroes, at an odd address in the page where the first one ends.
    let two = |zeroes: u64| {
        let mut file = elf(0x4000_0000, 20, 0);
        file[56] = 2;
        let code = file.split_off(128);
        file.truncate(120);
        file.extend([1u32, 6].iter().flat_map(|v| v.to_le_bytes()));
        file.extend([184, 0x4000_0019, 0x4000_0019, 0, zeroes, 1].iter().flat_map(|v| v.to_le_bytes()));
        file[72..80].copy_from_slice(&184u64.to_le_bytes());
        file.resize(184, 0);
        file.extend(code);
        file
    };
    for zeroes in [1, 0x1000, 0x30_0003] {
        let guests = Guests::default().with("one.elf", two(zeroes));
        let outcome = build(&layout(&domain("one", 0, SIXTEEN, "")), &guests);
        let built = outcome.plan.unwrap_or_else(|| panic!("{:?}", outcome.messages));
        let end = (0x20_0019 + zeroes).min(0x40_0000).next_multiple_of(16);
        assert_eq!(built.image_len, end, "its zeroes in the kernel's block are part of the image");
    }
    let pinned = "reg = <0 0x40000000 0 0x1000000>; host-address = <0 0x70000000>;";
    let guests = Guests::default().with("one.elf", two(100));
    assert_eq!(build(&layout(&domain("one", 0, pinned, "")), &guests).codes, ["E1102"]);
    let guests = Guests::default().with("one.elf", elf(0x4000_0000, 20, 0)).with("disk", vec![1; 3]);
    let disk = "initrd = \"disk\"; initrd-load = <0 0x40100001>;";
    assert!(build(&layout(&domain("one", 0, SIXTEEN, disk)), &guests).plan.is_some());
    assert_eq!(build(&layout(&domain("one", 0, pinned, disk)), &guests).codes, ["E1102"]);
}
