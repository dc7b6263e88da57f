//! Properties of arbitrary layouts: what compiles verifies, and its tables say exactly what its grants say.

mod plans;

use cofferdam_plan::audit::grant;
use plans::{Guests, build, joined, stage2};
use proptest::prelude::*;
use std::fmt::Write;

/// One memory region: guest page, pages, and where it is pinned.
type Region = (u64, u64, Option<u64>);

fn region() -> impl Strategy<Value = Region> {
    let page = prop_oneof![
        (0x40000u64..0x50000),
        (0x40000u64..0x50000).prop_map(|page| page & !0x1FF),
        Just(0x40000u64),
        Just(0x1_0000_0000u64 >> 12),
        (0x8000u64..0x8400),
    ];
    let pages = prop_oneof![1u64..64, (1u64..40).prop_map(|blocks| blocks * 512), 500u64..5000];
    let pinned = prop_oneof![3 => Just(None), 1 => (0x3FFF0u64..0xC0010).prop_map(Some), 1 => (0x200u64..0x600)
        .prop_map(|block| Some(block * 512))];
    (page, pages, pinned)
}

/// A domain: regions, console, bits (see [`BITS`]), scrub.
type Domain = (Vec<Region>, bool, u16, bool);

/// What a domain may have: devices, PCI functions (one of them behind a bridge), words.
const DEVICES: &[&str] = &["gpio0", "rtc0", "uart1", "nvme0", "rp0", "edu0", "edu1", "blk0", "nic1", "nic2"];
const WORDS: &[&str] = &["on-reset = \"restart\";", "delivery = \"direct\";"];
const BITS: u32 = (DEVICES.len() + WORDS.len()) as u32;

fn domain() -> impl Strategy<Value = Domain> {
    // Few of them, so that domains seldom want the same.
    let few = (0u16..1 << BITS, 0u16..1 << BITS).prop_map(|(a, b)| a & b);
    (prop::collection::vec(region(), 1..4), any::<bool>(), few, any::<bool>())
}

fn layout(domains: &[Domain]) -> String {
    let mut text = String::from(
        "/dts-v1/;\n#include \"qemu-virt-pci.dts\"\n/ { domains { compatible = \"cofferdam,domains-v1\";\n",
    );
    let mut given = 0;
    for (id, (regions, console, devices, scrub)) in domains.iter().enumerate() {
        let _ = write!(
            text,
            "d{id} {{ compatible = \"cofferdam,domain\"; #address-cells = <2>; #size-cells = <2>; cpus = <&cpu{id}>; \
             kernel = \"k\";"
        );
        // Mostly nobody asks for what another has.
        let devices = if id == 3 { *devices } else { devices & !given };
        given |= devices & ((1 << DEVICES.len()) - 1);
        let has = |n: usize| devices >> n & 1 == 1;
        let access: Vec<_> = (0..DEVICES.len()).filter(|n| has(*n)).map(|n| format!("<&{}>", DEVICES[n])).collect();
        if !access.is_empty() {
            let _ = write!(text, "access = {};", access.join(", "));
        }
        text += if *console { "console;" } else { "" };
        (0..WORDS.len()).filter(|n| has(DEVICES.len() + n)).for_each(|n| text += WORDS[n]);
        text += if *scrub { "scrub = \"boot\";" } else { "" };
        for (page, pages, pinned) in regions {
            let (base, size) = (page << 12, pages << 12);
            let _ = write!(
                text,
                "memory@{base:x} {{ device_type = \"memory\"; reg = <{:#x} {:#x} {:#x} {:#x}>;",
                base >> 32,
                base & 0xFFFF_FFFF,
                size >> 32,
                size & 0xFFFF_FFFF
            );
            if let Some(at) = pinned {
                let _ = write!(text, "host-address = <{:#x} {:#x}>;", at >> 20, (at << 12) & 0xFFFF_FFFF);
            }
            text += "};";
        }
        text += "};\n";
    }
    text + "}; };\n"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_compiles_verifies_and_maps_what_it_grants(domains in prop::collection::vec(domain(), 1..5), raw in 0usize..3) {
        // A raw kernel at the start of the first region, or none looked at.
        let guests = match raw {
            0 => Guests::default(),
            1 => Guests::default().with("k", vec![0x14; 64]),
            _ => Guests::default().with("k", vec![0x14; 3 << 20]),
        };
        let outcome = build(&layout(&domains), &guests);
        prop_assert!(!outcome.codes.contains(&"E1399".into()), "{:?}", outcome.messages);
        let errors = outcome.codes.iter().filter(|code| code.starts_with('E')).count();
        prop_assert_eq!(outcome.plan.is_some(), errors == 0, "{:?}", outcome.messages);
        let Some(built) = outcome.plan else { return Ok(()) };
        let plan = built.plan();
        let audit = plan.audit().expect("the audit section is there");
        for id in 0..plan.domains.len() {
            let mut granted: Vec<_> = audit.grants.iter().filter(|g| g.domain as usize == id).map(|g| {
                let attributes = if g.kind == grant::RAM { 0x7FC } else { 0x40_0000_0000_04C4 };
                (g.ipa.base.0, g.pa.base.0, g.ipa.size, attributes)
            }).collect();
            granted.sort_unstable();
            prop_assert_eq!(joined(&stage2(&built, id)), granted);
        }
    }
}
