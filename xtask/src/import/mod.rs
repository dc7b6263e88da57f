//! `cargo xtask import`: board descriptions from what a running system says of itself.

mod lspci;
mod nodes;

use crate::repo;
use crate::trouble::{Done, Trouble};
use std::path::PathBuf;

/// Write board nodes from what a running system says of itself
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    from: From,
}

#[derive(clap::Subcommand)]
enum From {
    /// PCI functions and bridges, from what `lspci -vvnn -xxxx` prints (as root: others see 64 bytes of each)
    Lspci {
        /// File with lspci's output
        file: PathBuf,
        /// Label of the board's host bridge
        #[arg(long, default_value = "pcie0")]
        host: String,
    },
}

/// The command itself: nodes to standard output, what could not be known to standard error too.
pub(crate) fn main(args: &Args) -> Done {
    let From::Lspci { file, host } = &args.from;
    let text = String::from_utf8_lossy(&repo::read(file)?).into_owned();
    let functions = lspci::read(&text).map_err(|why| Trouble::other(format!("{}: {why}", file.display())))?;
    let mut warnings = Vec::new();
    print!("{}", nodes::write(&functions, host, &mut warnings));
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = include_str!("../../tests/data/lspci-qemu.txt");
    const BOARD: &str = include_str!("../../../dts/qemu-virt-pci.dts");

    fn import(text: &str) -> (String, Vec<String>) {
        let mut warnings = Vec::new();
        let functions = lspci::read(text).expect("this is lspci's output");
        (nodes::write(&functions, "pcie0", &mut warnings), warnings)
    }

    /// The properties of function nodes in order, without comments and layout.
    fn properties(text: &str) -> Vec<String> {
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("/*") {
            plain += before;
            rest = behind.split_once("*/").expect("comments end").1;
        }
        plain += rest;
        let words = |text: &str| {
            text.split_whitespace().collect::<Vec<_>>().join(" ").replace("0x0 0x0 0x0 0x0", "0 0 0x0 0x0")
        };
        let all = plain.split(';').map(|statement| words(statement.rsplit('{').next().unwrap_or("")));
        let wanted =
            ["reg =", "vendor-id", "device-id", "class-code", "revision-id", "subsystem", "cofferdam,", "bus-range"];
        all.filter(|statement| wanted.iter().any(|word| statement.starts_with(word))).collect()
    }

    /// The board's nodes were written from the same dump by hand; igb stands only in the dump.
    #[test]
    fn the_dump_of_qemu_is_the_board_of_qemu() {
        let imported = properties(&import(DUMP).0);
        let board = properties(BOARD.split_once("&pcie0").expect("the board has a host bridge").1);
        let is_igb = |statement: &String| statement.starts_with("reg = <0x00005800");
        let start = imported.iter().position(is_igb).expect("igb is there");
        let len =
            imported[start + 1..].iter().position(|s| s.starts_with("reg =")).map_or(imported.len() - start, |n| n + 1);
        let rest = [&imported[..start], &imported[start + len..]].concat();
        assert_eq!(rest.join("\n"), board.join("\n"));
    }

    #[test]
    fn golden() {
        assert_eq!(import(DUMP).0, include_str!("../../tests/data/lspci-qemu.dtsi"));
    }

    /// igb of the dump with two virtual functions: offset 128, every second.
    #[test]
    fn virtual_functions_are_their_physical_ones() {
        let vf = |place: &str| {
            format!(
                "{place} Ethernet controller [0200]: Intel Corporation 82576 Virtual Function [8086:10ca] (rev 01)\n\
                     00: ff ff ff ff 00 00 10 00 01 00 00 02 00 00 00 00\n\
                     10: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n\
                     20: 00 00 00 00 00 00 00 00 00 00 00 00 f4 1a 00 11\n\
                     30: 00 00 00 00 40 00 00 00 00 00 00 00 00 00 00 00\n\n"
            )
        };
        let at = DUMP.find("00:0b.0 Ethernet").expect("igb is there");
        let (before, igb) = DUMP.split_at(at);
        // VF Enable and memory space of VFs; two of them.
        let enabled = igb.replacen("\n160: 10 00 01 00 00 00 00 00 00 00", "\n160: 10 00 01 00 00 00 00 00 09 00", 1);
        let enabled = enabled.replacen("\n170: 00 00 00 00 80 00 02 00", "\n170: 02 00 00 00 80 00 02 00", 1);
        assert_eq!(igb.bytes().zip(enabled.bytes()).filter(|(a, b)| a != b).count(), 2, "the dump has its capability");
        let (nodes, warnings) =
            import(&(before.to_owned() + &enabled + "\n" + &vf("00:1b.0") + &vf("00:1b.2") + &vf("00:1c.0")));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("00:1c.0 is a virtual function"), "{warnings:?}");
        assert!(nodes.contains("nic5: ethernet@1b,0 {\n\t\treg = <0x0000d800 0 0 0x0 0x0>;\n\t\tcofferdam,physical-function = <&nic4>;\n\t};"), "{nodes}");
        assert!(nodes.contains("nic6: ethernet@1b,2 {\n\t\treg = <0x0000da00 0 0 0x0 0x0>;"), "{nodes}");
        assert!(!nodes.contains("0xffff"), "{nodes}");
    }

    #[test]
    fn what_lspci_does_not_say_is_said() {
        let text = "00:03.0 Ethernet controller [0200]: Intel Corporation Some */ Card [8086:100e] (rev 03)\n\
                    \tRegion 0: Memory at <unassigned> (64-bit, prefetchable) [disabled]\n\
                    \tCapabilities: <access denied>\n\
                    00: 86 80 0e 10 00 00 10 00 03 00 00 02 00 00 00 00\n\
                    10: 0c 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n\
                    20: 00 00 00 00 00 00 00 00 00 00 00 00 f4 1a 00 11\n\
                    30: 00 00 00 00 c8 00 00 00 00 00 00 00 00 01 00 00\n";
        let (nodes, warnings) = import(text);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("no size of the base address register 0x10"), "{warnings:?}");
        assert!(warnings[1].contains("as root"), "{warnings:?}");
        assert!(nodes.contains("vendor-id = <0x8086>;") && !nodes.contains("Some */ Card"), "{nodes}");
        assert!(lspci::read("nothing of the kind\n").is_err());
        let plain = "00:03.0 Ethernet controller: Intel Corporation Card\n\tRegion 0: Memory at 10 [size=4K]\n";
        assert!(lspci::read(plain).unwrap_err().contains("-xxxx"));
    }
}
