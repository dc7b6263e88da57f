//! Generates a board and a layout of any size, for timing the compiler.

use std::fmt::Write;

/// First register page of the generated devices.
const DEVICES: u64 = 0x1000_0000;

/// A board with one CPU per domain and `devices` devices of one page and one interrupt each, and a layout that deals them
/// out evenly. The layout includes the board as `generated<domains>-board.dts`.
pub(super) fn board_and_layout(domains: usize, devices: usize) -> (String, String) {
    (board(domains, devices), layout(domains, devices))
}

fn board(cpus: usize, devices: usize) -> String {
    let mut out = String::from(
        "/dts-v1/;\n\n/ {\n\t#address-cells = <2>;\n\t#size-cells = <2>;\n\tcompatible = \"cofferdam,generated\";\n\tmodel = \"generated\";\n\tinterrupt-parent = <&gic>;\n\n\taliases {\n\t\tserial0 = &uart0;\n\t};\n\n\tchosen {\n\t\tstdout-path = \"serial0:115200n8\";\n\t};\n\n\tcpus {\n\t\t#address-cells = <1>;\n\t\t#size-cells = <0>;\n",
    );
    for cpu in 0..cpus {
        // Sixteen to a cluster: Aff0 is at most 15.
        let mpidr = cpu / 16 * 0x100 + cpu % 16;
        let _ = write!(
            out,
            "\n\t\tcpu{cpu}: cpu@{mpidr:x} {{\n\t\t\tdevice_type = \"cpu\";\n\t\t\tcompatible = \"arm,cortex-a57\";\n\t\t\treg = <{mpidr:#x}>;\n\t\t\tenable-method = \"psci\";\n\t\t}};\n"
        );
    }
    out += "\t};\n\n\tmemory@40000000 {\n\t\tdevice_type = \"memory\";\n\t\treg = <0x0 0x40000000 0x2 0x0>;\n\t};\n\n\tpsci {\n\t\tcompatible = \"arm,psci-1.0\", \"arm,psci-0.2\";\n\t\tmethod = \"smc\";\n\t};\n\n\ttimer {\n\t\tcompatible = \"arm,armv8-timer\";\n\t\tinterrupts = <1 13 4>, <1 14 4>, <1 11 4>, <1 10 4>;\n\t};\n\n\tgic: interrupt-controller@8000000 {\n\t\tcompatible = \"arm,gic-v3\";\n\t\treg = <0x0 0x08000000 0x0 0x10000>, <0x0 0x080a0000 0x0 0xf60000>;\n\t\tinterrupt-controller;\n\t\t#interrupt-cells = <3>;\n\t\tinterrupts = <1 9 4>;\n\t};\n\n\tuart0: serial@9000000 {\n\t\tcompatible = \"arm,pl011\", \"arm,primecell\";\n\t\treg = <0x0 0x09000000 0x0 0x1000>;\n\t\tinterrupts = <0 1 4>;\n\t};\n";
    for device in 0..devices {
        let at = DEVICES + device as u64 * 0x1000;
        let _ = write!(
            out,
            "\n\tdev{device}: gpio@{at:x} {{\n\t\tcompatible = \"arm,pl061\", \"arm,primecell\";\n\t\treg = <0x0 {at:#x} 0x0 0x1000>;\n\t\tinterrupts = <0 {} 4>;\n\t\tgpio-controller;\n\t\t#gpio-cells = <2>;\n\t}};\n",
            32 + device
        );
    }
    out + "};\n"
}

fn layout(domains: usize, devices: usize) -> String {
    let mut out = format!(
        "/dts-v1/;\n#include \"generated{domains}-board.dts\"\n\n/ {{\n\tdomains {{\n\t\tcompatible = \"cofferdam,domains-v1\";\n"
    );
    for domain in 0..domains {
        let own: Vec<_> =
            (0..devices).filter(|device| device % domains == domain).map(|device| format!("<&dev{device}>")).collect();
        let _ = write!(
            out,
            "\n\t\td{domain} {{\n\t\t\tcompatible = \"cofferdam,domain\";\n\t\t\t#address-cells = <2>;\n\t\t\t#size-cells = <2>;\n\t\t\tcpus = <&cpu{domain}>;\n\t\t\tkernel = \"pulse.elf\";\n\t\t\tconsole;\n\t\t\taccess = {};\n\n\t\t\tmemory@40000000 {{\n\t\t\t\tdevice_type = \"memory\";\n\t\t\t\treg = <0x0 0x40000000 0x0 0x01000000>;\n\t\t\t}};\n\t\t}};\n",
            own.join(", ")
        );
    }
    out + "\t};\n};\n"
}
