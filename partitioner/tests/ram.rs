//! RAM and guest addresses of unusual shapes: scattered banks, images in odd places, wide guest addresses, large blocks.

mod plans;

use plans::{Guests, Outcome, build, joined, stage2};

/// A node of RAM at `base`.
fn memory(base: u64, size: u64) -> String {
    let (high, low) = (base >> 32, base & 0xFFFF_FFFF);
    let (size_high, size_low) = (size >> 32, size & 0xFFFF_FFFF);
    format!("memory@{base:x} {{ device_type = \"memory\"; reg = <{high:#x} {low:#x} {size_high:#x} {size_low:#x}>; }};")
}

/// A layout on `qemu-virt` with RAM at `ram` (base and size) in place of its own, and one domain.
fn layout(ram: (u64, u64), rest: &str, nodes: &str) -> String {
    let ram = memory(ram.0, ram.1);
    format!(
        "/dts-v1/;\n#include \"qemu-virt.dts\"\n/delete-node/ &{{/memory@40000000}};\n/ {{ {ram}\n\
         domains {{ compatible = \"cofferdam,domains-v1\"; one {{ compatible = \"cofferdam,domain\"; \
         #address-cells = <2>; #size-cells = <2>; cpus = <&cpu0>; kernel = \"k\"; {rest} {nodes} }}; }}; }};\n"
    )
}

fn run(text: &str) -> Outcome {
    build(text, &Guests::default().with("k", vec![0x14; 64]))
}

#[test]
fn a_tree_lies_in_one_piece_or_says_why() {
    let with = |load: &str, size| run(&layout((0x4000_0000, 256 << 20), load, &memory(0x4000_0000, size)));
    assert_eq!(with("dtb-load = <0 0x401ffff0>;", 8 << 20).codes, ["E1121"]);
    // The second piece is a page, too small for the tree, so it would begin in the kernel's block.
    let much = format!("bootargs = \"{}\";", "a".repeat(3500));
    assert!(with(&much, 0x20_1000).codes.contains(&"E1121".into()), "{:?}", with(&much, 0x20_1000).messages);
    assert!(with("dtb-load = <0 0x40200000>;", 8 << 20).plan.is_some());
}

#[test]
fn an_image_goes_behind_the_hypervisors_own_addresses() {
    let text = layout((0xEFE0_0000, 256 << 20), "", &memory(0x4000_0000, 8 << 20));
    assert_eq!(run(&text).codes, ["E0325"]);
    let reserved = format!("{text}\n/memreserve/ 0xf0000000 0x200000;\n");
    assert_eq!(run(&reserved).plan.map(|built| built.base), Some(0xF020_0000), "{:?}", run(&reserved).messages);
}

/// Guest addresses of 37 to 48 bits: one root at level 1, two to sixteen side by side, a root at level 0.
#[test]
fn wide_guest_addresses_map_what_they_grant() {
    for width in 37u32..=48 {
        for (base, size) in [((1 << (width - 1)), 0x20_0000), ((1u64 << width) - 0x8000_0000, 0x8000_0000)] {
            let outcome = run(&layout((0x4000_0000, 4 << 30), "", &memory(base, size)));
            let built = outcome.plan.unwrap_or_else(|| panic!("{width} bits, {base:#x}: {:?}", outcome.messages));
            let plan = built.plan();
            let record = &plan.domains[0];
            let (level, roots) = if width <= 39 {
                (1, 1)
            } else if width <= 43 {
                (1, 1u64 << (width - 39))
            } else {
                (0, 1)
            };
            assert_eq!((64 - (record.vtcr & 0x3F), record.vtcr >> 6 & 3), (width.into(), 2 - level), "{width} bits");
            assert_eq!((record.vttbr & 0xFFFF_FFFF_FFFF) % (roots * 4096), 0, "{width} bits");
            let audit = plan.audit().expect("the audit section is there");
            let grants: Vec<_> = audit.grants.iter().map(|g| (g.ipa.base.0, g.pa.base.0, g.ipa.size, 0x7FC)).collect();
            assert_eq!(joined(&stage2(&built, 0)), grants, "{width} bits");
            let granted: u64 = grants.iter().map(|grant| grant.2).sum();
            assert_eq!((grants[0].0, granted), (base, size), "{width} bits");
        }
    }
}

/// Several domains with roots of different sizes: each is aligned to its own.
#[test]
fn roots_of_all_sizes_stand_side_by_side() {
    let domains: String = [33, 43, 40, 47]
        .iter()
        .enumerate()
        .map(|(id, width)| {
            let node = memory(1 << (width - 1), 4 << 20);
            let head = "compatible = \"cofferdam,domain\"; #address-cells = <2>; #size-cells = <2>;";
            format!("d{id} {{ {head} cpus = <&cpu{id}>; kernel = \"k\"; {node} }};\n")
        })
        .collect();
    let head = "/dts-v1/;\n#include \"qemu-virt.dts\"\n/ { domains { compatible = \"cofferdam,domains-v1\";\n";
    let outcome = run(&format!("{head}{domains} }}; }};\n"));
    let built = outcome.plan.unwrap_or_else(|| panic!("{:?}", outcome.messages));
    assert!((0..4).all(|id| !stage2(&built, id).is_empty()));
}

/// A region of 1 GiB and more takes level 1 blocks where its guest addresses allow: all of it but the kernel's surroundings.
#[test]
fn large_regions_take_large_blocks() {
    let outcome = run(&layout((0x4000_0000, 6 << 30), "", &memory(0x4000_0000, 3 << 30)));
    let built = outcome.plan.unwrap_or_else(|| panic!("{:?}", outcome.messages));
    let sizes: Vec<u64> = stage2(&built, 0).iter().map(|leaf| leaf.2).collect();
    assert_eq!(sizes.iter().filter(|size| **size == 1 << 30).count(), 2, "{sizes:x?}");
    assert!(sizes.iter().all(|size| *size >= 2 << 20), "{sizes:x?}");
    assert_eq!(sizes.iter().sum::<u64>(), 3 << 30);
}
