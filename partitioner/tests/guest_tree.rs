//! What of the board a guest's device tree has, node by node, as dtc reads it.

mod plans;

use plans::{Guests, build, root};
use std::io::Write;
use std::process::{Command, Stdio};

/// The tree of the first domain of a layout, as source, with nothing for dtc to complain of.
fn source(layout: &str) -> String {
    let outcome = build(layout, &Guests::default());
    let built = outcome.plan.unwrap_or_else(|| panic!("{:#?}", outcome.messages));
    let mut dtc = Command::new("dtc")
        .args(["-I", "dtb", "-O", "dts", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("dtc is installed (device-tree-compiler)");
    dtc.stdin.take().expect("piped").write_all(built.tree(0)).expect("dtc reads");
    let output = dtc.wait_with_output().expect("dtc ends");
    let text = String::from_utf8(output.stdout).expect("dtc writes text");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{text}");
    text
}

/// The text of a node, from its name to its closing brace.
fn node<'t>(source: &'t str, name: &str) -> &'t str {
    let open = format!("\t{name} {{\n");
    let from = source.find(&open).unwrap_or_else(|| panic!("no node {name} in\n{source}"));
    let depth = source[..from].len() - source[..from].trim_end_matches('\t').len() + 1;
    let close = format!("\n{}}};\n", "\t".repeat(depth));
    let len = source[from..].find(&close).unwrap_or_else(|| panic!("node {name} does not end in\n{source}"));
    &source[from..from + len]
}

/// The phandle of a node, as dtc writes it.
fn phandle<'t>(source: &'t str, name: &str) -> &'t str {
    let text = node(source, name);
    let from = text.find("phandle = <").unwrap_or_else(|| panic!("{name} has no phandle:\n{text}")) + 11;
    text[from..].split('>').next().expect("closed")
}

fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.contains(line), "`{line}` is not in\n{text}");
    }
}

#[test]
fn devices_come_with_their_own_and_without_what_is_others() {
    let text = std::fs::read_to_string(root().join("partitioner/tests/accept/guest-tree.dts")).expect("it is there");
    let tree = source(&text);
    let (left, half) = (phandle(&tree, "gpio@c000000"), phandle(&tree, "clock-12000000"));
    has(
        node(&tree, "gpio@c000000"),
        &[
            "reg = <0x00 0xc000000 0x00 0x1000 0x00 0xc002000 0x00 0x800>;",
            "reg-names = \"regs\\0more\";",
            "interrupts = <0x00 0x3c 0x04 0x00 0x3d 0x01>;",
            "interrupt-names = \"all\\0some\";",
            &format!("clocks = <{} {half}>;", phandle(&tree, "clock-100000000")),
            "clock-names = \"apb_pclk\\0debounce\";",
            "vcc-supply = <",
            "dma-coherent;",
        ],
    );
    for gone in ["assigned-clock", "pinctrl", "nvmem", "gpio@9030000", "soc", "bus", "factor", "efuse"] {
        assert!(!tree.contains(gone), "{gone} is in\n{tree}");
    }
    has(node(&tree, "clock-100000000"), &["compatible = \"fixed-clock\";", "clock-frequency = <0x5f5e100>;"]);
    has(
        node(&tree, "i2c@c004000"),
        &[
            "reg = <0x00 0xc004000 0x00 0x1000>;",
            &format!("interrupts-extended = <{left} 0x04 0x04 0x01 0x00 0x3e 0x04>;"),
            "#address-cells = <0x01>;",
        ],
    );
    has(node(&tree, "sensor@48"), &["reg = <0x48>;", &format!("interrupts-extended = <{left} 0x05 0x04>;")]);
    has(node(&tree, "other@49"), &["reg = <0x49>;", "interrupts = <0x00 0x3f 0x04>;"]);
    // A regulator is what firmware has made of it: no pin of it is the guest's.
    let regulator = tree.lines().find(|line| line.trim_start().starts_with("regulator-") && line.ends_with('{'));
    let regulator = node(&tree, regulator.expect("a regulator").trim().trim_end_matches(" {"));
    has(regulator, &["regulator-min-microvolt = <0x325aa0>;", "compatible = \"regulator-fixed\";"]);
    assert!(!regulator.contains("gpio"), "{regulator}");
    has(
        node(&tree, "aliases"),
        &[
            "serial0 = \"/serial@9000000\";",
            "gpio0 = \"/gpio@c000000\";",
            "serial2 = \"/serial@c006000\";",
            "serial1 = \"/serial@c007000\";",
        ],
    );
    assert!(!node(&tree, "aliases").contains("gpio1"), "{tree}");
}

/// A bus that the guest's tree does not have speaks for what is on it, the nearest one; without one it is the root's word.
#[test]
fn coherence_is_that_of_the_nearest_bus() {
    let bus = |name: &str, at: u32, word: &str, inside: &str| {
        format!(
            "{name}: {name} {{ compatible = \"simple-bus\"; #address-cells = <2>; #size-cells = <2>; ranges; {word}
             gpio@{at:x} {{ compatible = \"arm,pl061\"; reg = <0 {at:#x} 0 0x1000>; }}; {inside} }};"
        )
    };
    let text = |root: &str| {
        format!(
            "/dts-v1/;\n#include \"qemu-virt.dts\"\n/ {{ {root} {} {} domains {{ compatible = \"cofferdam,domains-v1\"; a {{
             compatible = \"cofferdam,domain\"; #address-cells = <2>; #size-cells = <2>; cpus = <&cpu0>; kernel = \"a.elf\";
             access = <&outer>, <&plain>; memory@40000000 {{ device_type = \"memory\"; reg = <0 0x40000000 0 0x1000000>; }};
             }}; }}; }};",
            bus("outer", 0xC00_0000, "dma-coherent;", &bus("inner", 0xC00_1000, "dma-noncoherent;", "")),
            bus("plain", 0xC00_2000, "", ""),
        )
    };
    for (root, is_coherent) in [("", true), ("/delete-property/ dma-coherent;", false)] {
        let tree = source(&text(root));
        let top = &tree[..tree.find("\n\t\t").expect("a node")];
        assert_eq!(top.contains("dma-coherent;"), is_coherent, "{tree}");
        has(node(&tree, "gpio@c000000"), &["dma-coherent;"]);
        has(node(&tree, "gpio@c001000"), &["dma-noncoherent;"]);
        assert!(!node(&tree, "gpio@c002000").contains("coherent"), "{tree}");
    }
}

#[test]
fn a_domain_without_a_console_speaks_by_its_own_uart() {
    let text = "/dts-v1/;\n#include \"qemu-virt.dts\"\n/ { domains { compatible = \"cofferdam,domains-v1\"; a {
        compatible = \"cofferdam,domain\"; #address-cells = <2>; #size-cells = <2>; cpus = <&cpu0>; kernel = \"a.elf\";
        access = <&uart1>; memory@40000000 { device_type = \"memory\"; reg = <0 0x40000000 0 0x1000000>; }; }; }; };";
    let tree = source(text);
    has(node(&tree, "chosen"), &["stdout-path = \"/serial@9040000\";"]);
    has(node(&tree, "aliases"), &["serial1 = \"/serial@9040000\";"]);
}

#[test]
fn an_overlay_replaces_adds_and_refers() {
    let text = r#"/dts-v1/;
#include "qemu-virt.dts"
/ { domains { compatible = "cofferdam,domains-v1"; a {
	compatible = "cofferdam,domain"; #address-cells = <2>; #size-cells = <2>; cpus = <&cpu0>; kernel = "a.elf";
	access = <&gpio0>; console; bootargs = "one"; rng-seed = [000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f];
	kaslr-seed = [0123456789abcdef];
	memory@40000000 { device_type = "memory"; reg = <0 0x40000000 0 0x1000000>; };
	overlay {
		compatible = "vendor,appliance", "cofferdam,domain";
		chosen { bootargs = "two"; };
		pins: gpio@9030000 { gpio-line-names = "power"; };
		serial@9000000 { current-speed = <115200>; };
		aliases { led0 = &led; };
		leds {
			compatible = "gpio-leds";
			led: led-0 { gpios = <&gpio0 3 0>, <&pins 4 1>; };
		};
		crystal: crystal { compatible = "fixed-clock"; #clock-cells = <0>; clock-frequency = <32768>; };
		timer-unit { compatible = "vendor,counter"; clocks = <&crystal>, <&clk24mhz>; interrupts-extended = <&gic 0 7 4>; };
	};
}; }; };"#;
    let tree = source(text);
    let gpio = phandle(&tree, "gpio@9030000");
    has(&tree, &["\tcompatible = \"vendor,appliance\\0cofferdam,domain\";", "\tmodel = \"a\";"]);
    assert_eq!(tree.matches("\tcompatible = \"cofferdam,domain\"").count(), 0, "{tree}");
    has(
        node(&tree, "chosen"),
        &[
            "bootargs = \"two\";",
            "rng-seed = <0x10203 0x4050607",
            "0x1c1d1e1f>;",
            "kaslr-seed = <0x1234567 0x89abcdef>;",
        ],
    );
    has(node(&tree, "gpio@9030000"), &["compatible = \"arm,pl061\\0arm,primecell\";", "gpio-line-names = \"power\";"]);
    has(node(&tree, "led-0"), &[&format!("gpios = <{gpio} 0x03 0x00 {gpio} 0x04 0x01>;")]);
    has(node(&tree, "aliases"), &["led0 = \"/leds/led-0\";", "serial0 = "]);
    has(node(&tree, "serial@9000000"), &["current-speed = <0x1c200>;"]);
    let clocks = format!("clocks = <{} {}>;", phandle(&tree, "crystal"), phandle(&tree, "clock-24000000"));
    has(node(&tree, "timer-unit"), &[&clocks, "interrupts-extended = <0x01 0x00 0x07 0x04>;"]);
}

#[test]
fn caches_and_topology_are_those_of_the_domains_cpus() {
    let text = r#"/dts-v1/;
#include "qemu-virt.dts"
/ { cpus {
	cpu-map {
		cluster0 { core0 { cpu = <&cpu0>; }; core1 { cpu = <&cpu1>; }; };
		cluster1 { core0 { cpu = <&cpu2>; }; core1 { cpu = <&cpu3>; }; };
	};
	left: l2-cache0 { compatible = "cache"; cache-level = <2>; cache-unified; next-level-cache = <&last>; };
	right: l2-cache1 { compatible = "cache"; cache-level = <2>; cache-unified; cache-size = <0x80000>; next-level-cache = <&last>; };
	last: l3-cache { compatible = "cache"; cache-level = <3>; cache-unified; };
}; };
&cpu0 { next-level-cache = <&left>; };
&cpu2 { next-level-cache = <&right>; d-cache-size = <0x8000>; cpu-idle-states = <&right>; };
&cpu3 { next-level-cache = <&right>; capacity-dmips-mhz = <1024>; };
/ { domains { compatible = "cofferdam,domains-v1"; a {
	compatible = "cofferdam,domain"; #address-cells = <2>; #size-cells = <2>; cpus = <&cpu3>, <&cpu2>; kernel = "a.elf";
	memory@40000000 { device_type = "memory"; reg = <0 0x40000000 0 0x1000000>; };
}; }; };"#;
    let tree = source(text);
    let (l2, l3) = (phandle(&tree, "cache-0"), phandle(&tree, "cache-1"));
    has(node(&tree, "cache-0"), &["cache-size = <0x80000>;", &format!("next-level-cache = <{l3}>;")]);
    has(
        node(&tree, "cpu@0"),
        &[&format!("next-level-cache = <{l2}>;"), "capacity-dmips-mhz = <0x400>;", "reg = <0x00>;"],
    );
    has(node(&tree, "cpu@1"), &[&format!("next-level-cache = <{l2}>;"), "d-cache-size = <0x8000>;"]);
    let (first, second) = (phandle(&tree, "cpu@0"), phandle(&tree, "cpu@1"));
    // The board's second cluster is the guest's only one: core 0 is what the board calls cpu2, the guest's vCPU 1.
    has(node(&tree, "cluster0"), &[&format!("cpu = <{second}>;"), &format!("cpu = <{first}>;")]);
    for gone in ["cluster1", "cpu-idle-states", "cache-2"] {
        assert!(!tree.contains(gone), "{gone} is in\n{tree}");
    }
}

#[test]
fn an_empty_overlay_changes_nothing() {
    let text = std::fs::read_to_string(root().join("partitioner/tests/accept/guest-tree.dts")).expect("it is there");
    let with = text.replace("console;\n", "console;\n overlay { };\n");
    assert_ne!(text, with);
    let tree = |text: &str| build(text, &Guests::default()).plan.expect("a plan").tree(0).to_vec();
    assert_eq!(tree(&text), tree(&with));
}
