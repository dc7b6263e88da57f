//! PCI in the plan, held against what real functions say of themselves (`dts/qemu-virt-pci.dts`).

mod plans;

use cofferdam_plan::audit::{fact, grant, line};
use cofferdam_plan::pci::{Function, FunctionFlags, Rule, RuleKind};
use cofferdam_plan::{DomainFlags, NO_WINDOW, PciView};
use plans::{Built, Guests, build};

const GIB: u64 = 1 << 30;

/// A layout on the board with PCI; `board` comes before its domains.
fn compile(board: &str, domains: &[&str]) -> Built {
    let mut text = format!(
        "/dts-v1/;\n#include \"qemu-virt-pci.dts\"\n{board}\n/ {{ domains {{ compatible = \"cofferdam,domains-v1\";\n"
    );
    for (id, words) in domains.iter().enumerate() {
        text += &format!(
            "d{id} {{ compatible = \"cofferdam,domain\"; #address-cells = <2>; #size-cells = <2>; cpus = <&cpu{id}>; \
             kernel = \"k\"; {words} memory@40000000 {{ device_type = \"memory\"; reg = <0 0x40000000 0 0x1000000>; }}; }};\n"
        );
    }
    let outcome = build(&(text + "}; };\n"), &Guests::default());
    outcome.plan.unwrap_or_else(|| panic!("{:?}", outcome.messages))
}

fn view(built: &Built) -> PciView<'_> {
    built.plan().pci.expect("the layout has functions")
}

fn named<'a>(view: &PciView<'a>, name: &str) -> &'a Function {
    view.functions.iter().find(|f| f.name() == name).expect("the board has it")
}

fn rules<'a>(view: &PciView<'a>, f: &Function) -> &'a [Rule] {
    &view.rules[f.first_rule as usize..][..f.rule_count as usize]
}

/// What a guest reads of a dword in which nothing comes from the hardware.
fn constant(view: &PciView<'_>, f: &Function, offset: u16) -> u32 {
    let rule = rules(view, f).iter().find(|rule| rule.offset == offset);
    rule.map_or(0, |rule| rule.constant)
}

/// The offsets and IDs of the capabilities a guest finds.
fn capabilities(view: &PciView<'_>, f: &Function) -> Vec<(u16, u8)> {
    let mut found = Vec::new();
    let mut at = constant(view, f, 0x34) as u16;
    while at != 0 {
        let head = constant(view, f, at);
        found.push((at, head as u8));
        at = (head >> 8) as u16 & 0xFF;
        assert!(found.len() < 48, "the list is a ring");
    }
    found
}

#[test]
fn a_disk_sends_messages() {
    let built = compile("", &["access = <&nvme0>;"]);
    let (plan, view) = (built.plan(), view(&built));
    let f = named(&view, "nvme0");
    assert_eq!((f.rid, f.devfn, f.domain), (0x20, 0x20, 0));
    assert_eq!(f.flags, FunctionFlags::FLR | FunctionFlags::MSI | FunctionFlags::DMA);
    assert_eq!(f.reset, 0x88);
    // 64 bits, not prefetchable, 16 KiB; below 4 GiB all the same.
    assert_eq!((f.bars[0].mask, f.bars[1].mask), (0xFFFF_C004, u32::MAX));
    assert_eq!((f.bars[0].value & 0xF, f.bars[1].value), (4, 0));
    assert_eq!((f.bars[0].shown, f.bars[1].shown), (0xFFFF_C004, u32::MAX));
    assert_eq!(capabilities(&view, f), [(0x40, 0x11), (0x80, 0x10), (0x60, 0x01)]);
    // 65 entries of the table, of which a domain with one CPU is shown four.
    let owner = &view.owners[0];
    assert_eq!((owner.spi_count, constant(&view, f, 0x40) >> 16 & 0x7FF), (4, 3));
    assert_eq!((constant(&view, f, 0x44), constant(&view, f, 0x48)), (0x2000, 0x3000));
    assert_eq!(constant(&view, f, 0x80) >> 16 & 0xFF, 0x92);
    // No pin, and it stays off.
    assert_eq!(constant(&view, f, 0x3C) & 0xFF00, 0);
    assert_eq!(constant(&view, f, 0x04) & 1 << 10, 1 << 10);
    assert_ne!(plan.domains[0].flags & DomainFlags::INJECTED, 0);
    assert_eq!(view.lpis, (0..4).map(|n| owner.first_spi.0 + n).collect::<Vec<_>>());
    for spi in view.lpis {
        assert_eq!(plan.icfgr[*spi as usize / 16 - 2] >> (spi % 16 * 2) & 3, 2, "edge-triggered");
        assert_ne!(plan.domains[0].owned[*spi as usize / 32] & 1 << (spi % 32), 0);
    }
    assert_eq!(owner.frame.0, 0x0809_0000);
    let pending = view.pending.iter().filter(|base| **base != 0).count();
    assert_eq!((pending, view.record.its.device_bits, view.record.smmu.stream_bits), (1, 6, 6));
}

/// A root port with what is below it: cards without a reset of their own.
fn port(kind: u32, below: &str) -> String {
    format!(
        "&pcie0 {{ rp1: pcie@b,0 {{ device_type = \"pci\"; reg = <0x5800 0 0 0 0>; vendor-id = <0x1b36>; device-id = <0xc>;
         class-code = <0x60400>; revision-id = <0>; cofferdam,capabilities = <0x54 {:#x} 0 0>;
         #address-cells = <3>; #size-cells = <2>; bus-range = <2 2>; ranges; {below} }}; }};\n",
        0x0102_0010 | kind << 20
    )
}

fn card(name: &str, devfn: u32) -> String {
    format!(
        "{name}: card@0,{devfn:x} {{ reg = <{:#x} 0 0 0 0>, <{:#x} 0 0 0 0x1000>; vendor-id = <0x8086>; device-id = <0x10d3>;
         class-code = <0x20000>; revision-id = <0>; interrupts = <1>; cofferdam,capabilities = <0xe0 0x00020010 0 0>; }};",
        0x2_0000 | devfn << 8,
        0x0202_0010 | devfn << 8
    )
}

#[test]
fn a_bus_is_reset_for_who_has_all_of_it() {
    let (one, two) = (card("c0", 0), card("c1", 1));
    let flags = |board: &str, access: &str, name: &str| {
        let built = compile(board, &[&format!("access = {access}; delivery = \"direct\";")]);
        let view = view(&built);
        let f = named(&view, name);
        let by = view.functions.get(usize::from(f.reset)).filter(|_| f.flags & FunctionFlags::BUS_RESET != 0);
        (f.flags & (FunctionFlags::FLR | FunctionFlags::BUS_RESET), by.map(|port| port.name().to_owned()))
    };
    let by_bus = (FunctionFlags::BUS_RESET, Some("rp1".to_owned()));
    let pair = port(4, &[one.clone(), two].concat());
    assert_eq!(flags(&port(4, &one), "<&c0>", "c0"), by_bus);
    assert_eq!(flags(&port(6, &one), "<&rp1>, <&nvme0>", "c0"), by_bus);
    assert_eq!(flags(&pair, "<&rp1>", "c0"), by_bus);
    assert_eq!(flags(&pair, "<&rp1>", "c1"), by_bus);
    // Nobody has the other; a bridge to conventional PCI; the root bus; its own reset where it has one.
    assert_eq!(flags(&pair, "<&c0>", "c0"), (0, None));
    assert_eq!(flags(&port(7, &one), "<&c0>", "c0"), (0, None));
    assert_eq!(flags("", "<&nic1>", "nic1"), (0, None));
    assert_eq!(flags("", "<&nvme1>", "nvme1"), (FunctionFlags::FLR, None));
}

#[test]
fn with_direct_delivery_pins_are_used_and_messages_hidden() {
    let built = compile("", &["access = <&nvme0>, <&nvme1>; delivery = \"direct\";"]);
    let (plan, view) = (built.plan(), view(&built));
    assert_eq!(plan.domains[0].flags & DomainFlags::INJECTED, 0);
    let (one, two) = (named(&view, "nvme0"), named(&view, "nvme1"));
    assert_eq!(capabilities(&view, one), [(0x80, 0x10), (0x60, 0x01)]);
    // Slot 4: SPI 3. Behind slot 9, as device 0: its pin stays as it is there, so SPI 4.
    let audit = plan.audit().expect("the audit section is there");
    let lines = audit.lines.iter().filter(|l| l.kind == line::DEVICE).map(|l| (l.intid.0, l.edge));
    assert_eq!(lines.collect::<Vec<_>>(), [(35, 0), (36, 0)]);
    assert_eq!(constant(&view, one, 0x3C) & 0xFF00, 0x100);
    let command = rules(&view, one).iter().find(|rule| rule.offset == 4).expect("it has a command register");
    assert_eq!((command.write & 1, command.write & 1 << 10), (0, 1 << 10));
    // The first device number the root bus does not have. There it is no endpoint behind a port.
    assert_eq!((two.rid, two.devfn), (0x100, 0x58));
    assert_eq!(constant(&view, two, 0x80) >> 20 & 0xF, 9);
    assert_eq!((view.record.its.control_va, view.lpis.len(), view.owners[0].frame), (0, 0, NO_WINDOW));
}

#[test]
fn io_bars_are_absent() {
    let built = compile("", &["access = <&nic1>, <&nic2>;"]);
    let view = view(&built);
    for (name, bar) in [("nic1", 2), ("nic2", 1)] {
        let f = named(&view, name);
        assert_eq!(f.bars[bar].mask & 1, 1);
        assert_eq!((f.bars[bar].value, f.bars[bar].shown), (0, 0));
        let offset = 0x10 + 4 * bar as u16;
        assert!(rules(&view, f).iter().all(|rule| rule.offset != offset), "nothing is there for a guest");
        assert!(rules(&view, f).iter().filter(|rule| rule.offset == 4).all(|rule| rule.write & 1 == 0));
    }
    // e1000e: MSI of one message, MSI-X, error reporting at 0x100 and no serial number. e1000 has no capabilities at all.
    let (nic1, nic2) = (named(&view, "nic1"), named(&view, "nic2"));
    assert_eq!(capabilities(&view, nic1), [(0xC8, 0x01), (0xD0, 0x05), (0xE0, 0x10), (0xA0, 0x11)]);
    assert_eq!((constant(&view, nic1, 0x100), constant(&view, nic1, 0x140)), (0x0002_0001, 0));
    assert_eq!((capabilities(&view, nic2), constant(&view, nic2, 4) >> 16), (vec![], 0));
    assert_eq!(nic2.flags, FunctionFlags::DMA);
}

#[test]
fn virtio_keeps_its_structures_but_the_way_around_them() {
    let built = compile("", &["access = <&blk0>;"]);
    let view = view(&built);
    let f = named(&view, "blk0");
    let ids = capabilities(&view, f);
    assert_eq!(ids, [(0x98, 0x11), (0x70, 9), (0x60, 9), (0x50, 9), (0x40, 9)]);
    assert!(rules(&view, f).iter().filter(|rule| (0x40..0x98).contains(&rule.offset)).all(|rule| rule.write == 0));
    assert!(rules(&view, f).iter().all(|rule| !(0x84..0x98).contains(&rule.offset)));
    assert!(rules(&view, f).iter().all(|rule| rule.kind != RuleKind::CONTROL), "it has no reset");
}

#[test]
fn transitional_virtio_is_trusted_and_uses_its_pin() {
    let trusted = "access = <&nic0>; dma = \"trusted\";";
    let text = format!(
        "{trusted} memory@80000000 {{ device_type = \"memory\"; reg = <0 0x80000000 0 0x200000>; direct-map; }};"
    );
    let layout = format!(
        "/dts-v1/;\n#include \"qemu-virt-pci.dts\"\n/ {{ domains {{ compatible = \"cofferdam,domains-v1\"; a {{ \
         compatible = \"cofferdam,domain\"; #address-cells = <2>; #size-cells = <2>; cpus = <&cpu0>; kernel = \"k\"; {text} }}; }}; }};"
    );
    let outcome = build(&layout, &Guests::default());
    let built = outcome.plan.unwrap_or_else(|| panic!("{:?}", outcome.messages));
    let view = view(&built);
    let f = named(&view, "nic0");
    assert_eq!((f.flags, f.ste), (FunctionFlags::DMA, [0; 4]));
    assert_eq!(capabilities(&view, f).iter().filter(|(_, id)| *id == 0x11).count(), 0);
    let plan = built.plan();
    let audit = plan.audit().expect("the audit section is there");
    assert_eq!(audit.facts.iter().filter(|f| f.kind == fact::TRUSTED_DMA && f.owner == 1).count(), 1);
}

/// Streams of a domain walk a root of their own, whose tables are the CPU's as far as they hold RAM alone.
#[test]
fn memory_is_shared_by_tables_and_not_by_roots() {
    let built = compile("", &["access = <&nvme0>, <&edu0>;", "access = <&blk0>;"]);
    let (plan, view) = (built.plan(), view(&built));
    let [one, edu, two] = ["nvme0", "edu0", "blk0"].map(|name| named(&view, name).ste);
    assert_eq!(one, edu);
    assert_ne!(one[3], two[3]);
    assert_eq!((one[0], two[0]), (0xD, 0xD));
    for (ste, domain) in [(one, 0), (two, 1)] {
        let (vttbr, vtcr) = (plan.domains[domain].vttbr, plan.domains[domain].vtcr);
        assert_eq!((ste[2] & 0xFFFF, ste[2] >> 32 & 0x7_FFFF), (vttbr >> 48, vtcr & 0x7_FFFF));
        assert_ne!(ste[3], vttbr & 0xFFFF_FFFF_FFFF);
        let entry = |root: u64, index: usize| {
            let at = (root - built.base - built.blob_offset) as usize + index * 8;
            u64::from_le_bytes(built.bytes()[at..at + 8].try_into().expect("eight bytes"))
        };
        // Root entry 1: RAM from 1 GiB on, by the CPU's table. Entry 0: registers and frame, by others.
        let cpu = vttbr & 0xFFFF_FFFF_FFFF;
        assert_eq!(entry(ste[3], (0x4000_0000 / GIB) as usize), entry(cpu, 1));
        assert_ne!(entry(ste[3], 0), entry(cpu, 0));
    }
}

#[test]
fn large_registers_go_above_4_gib_and_bridges_follow() {
    let board = "&pcie0 { big0: display@b,0 { reg = <0x5800 0 0 0 0>, <0x43005810 0 0 0 0x40000000>; vendor-id = <0x1234>; \
                 device-id = <0x1111>; class-code = <0x030000>; revision-id = <0>; subsystem-vendor-id = <1>; \
                 subsystem-id = <1>; interrupts = <1>; }; }; &rp0 { deep0: display@1,0 { reg = <0x10800 0 0 0 0>, \
                 <0x02010810 0 0 0 0x100>, <0x43010814 0 0 0 0x100000>; vendor-id = <0x1234>; device-id = <0x1111>; \
                 class-code = <0x030000>; revision-id = <0>; subsystem-vendor-id = <1>; subsystem-id = <1>; interrupts = <2>; }; };";
    let built = compile(board, &["access = <&big0>, <&rp0>;"]);
    let view = view(&built);
    let big = named(&view, "big0");
    assert_eq!((big.bars[0].value, big.bars[1].value), (0xC, 0x80));
    let (port, deep) = (named(&view, "rp0"), named(&view, "deep0"));
    let [buses, io, memory, prefetchable, upper] = port.bridge;
    assert_eq!((buses, io, upper), (0x0001_0100, 0xF0, 0x80));
    let base = |word: u32| (word & 0xFFF0) << 16;
    assert_eq!(deep.bars[0].value & 0xFFF0_0000, base(memory));
    assert_eq!(deep.bars[1].value & 0xFFF0_0000, base(prefetchable));
    assert_eq!(deep.bars[2].value, 0x80);
    // Its own register has a place outside, which no guest reaches.
    assert_ne!(port.bars[0].value, 0);
    assert_eq!(port.bars[0].shown, 0);
    // Device 1 behind slot 9, pin B: C there, then by slot 9: SPI 3 + ((9 + 2) & 3).
    let plan = built.plan();
    let lines = plan.audit().expect("the audit section is there").lines;
    assert!(lines.iter().any(|l| l.kind == line::DEVICE && l.intid.0 == 32 + 6));
    let audit = plan.audit().expect("the audit section is there");
    assert!(
        audit.grants.iter().any(|g| g.kind == grant::DEVICE && g.ipa.base.0 == 0x80_0000_0000 && g.ipa.size >= GIB)
    );
}

/// A physical function with SR-IOV (QEMU's igb): nothing of that is there for its owner, nor of alternative routing IDs before it.
#[test]
fn a_physical_function_makes_no_virtual_ones() {
    let board = "&pcie0 { nic4: ethernet@b,0 { reg = <0x5800 0 0 0 0>, <0x02005810 0 0 0 0x20000>, <0x0300581c 0 0 0 0x4000>; \
                 vendor-id = <0x8086>; device-id = <0x10c9>; class-code = <0x020000>; revision-id = <1>; interrupts = <1>; \
                 cofferdam,capabilities = <0x70 0x0009a011 0x00000003 0x00002003>, <0xa0 0x00920010 0x10008020 0x00000000>, \
                 <0x100 0x15020001 0x00000000 0x02400000>, <0x150 0x1601000e 0x00000000 0x00000000>, \
                 <0x160 0x00010010 0x00000000 0x00000000>; }; };";
    let built = compile(board, &["access = <&nic4>;"]);
    let view = view(&built);
    let f = named(&view, "nic4");
    assert_eq!(capabilities(&view, f), [(0x70, 0x11), (0xA0, 0x10)]);
    assert_eq!(constant(&view, f, 0x100), 0x0002_0001, "the extended list ends with its first");
    assert!(rules(&view, f).iter().all(|rule| rule.offset < 0x150));
}

/// What is behind a bridge to conventional PCI arrives under the bridge's ID, at the SMMU and at the ITS.
#[test]
fn a_bridge_to_conventional_pci_speaks_for_what_is_behind_it() {
    let bridge = |capability: &str| {
        format!(
            "&pcie0 {{ bridge0: pci@b,0 {{ device_type = \"pci\"; #address-cells = <3>; #size-cells = <2>; ranges; bus-range = <2 2>; \
             reg = <0x5800 0 0 0 0>; vendor-id = <0x1b36>; device-id = <0xe>; class-code = <0x060400>; revision-id = <0>; \
             cofferdam,capabilities = {capability}; \
             old0: ethernet@3,0 {{ reg = <0x21800 0 0 0 0>, <0x02021810 0 0 0 0x20000>; vendor-id = <0x8086>; \
             device-id = <0x100e>; class-code = <0x020000>; revision-id = <3>; interrupts = <1>; }}; }}; }};"
        )
    };
    for (capability, stream) in [
        ("<0x60 0x00710010 0x00008020 0x00000000>", 0x200),
        ("<0x60 0x00800005 0x00000000 0x00000000>", 0x58),
        ("<0x60 0x01420010 0x00008020 0x00000000>", 0x218),
    ] {
        let built = compile(&bridge(capability), &["access = <&old0>;"]);
        let view = view(&built);
        let f = named(&view, "old0");
        assert_eq!((f.rid, f.stream), (0x218, stream), "{capability}");
    }
}

/// Rows of maps are for requester IDs behind their mask.
#[test]
fn streams_are_those_of_the_maps() {
    let board = "&pcie0 { iommu-map = <0x0 &smmu 0x100 0x8>, <0x20 &smmu 0x2000 0x10>, <0x30 &smmu 0x3000 0xd0>; \
                 iommu-map-mask = <0xff>; };";
    let built = compile(board, &["access = <&nvme0>, <&blk0>, <&rp0>;"]);
    let view = view(&built);
    let streams = ["nvme0", "blk0", "nvme1"].map(|name| named(&view, name).stream);
    assert_eq!(streams, [0x2000, 0x3008, 0x100]);
}
