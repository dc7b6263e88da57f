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
        /// PCI domain (segment) whose functions are taken, in hexadecimal as lspci prints it
        #[arg(long, default_value = "0", value_parser = hexadecimal)]
        domain: u32,
    },
}

fn hexadecimal(text: &str) -> Result<u32, std::num::ParseIntError> {
    u32::from_str_radix(text.trim_start_matches("0x"), 16)
}

/// The command itself: nodes to standard output, what could not be known to standard error too.
pub(crate) fn main(args: &Args) -> Done {
    let From::Lspci { file, host, domain } = &args.from;
    let (nodes, warnings) = import(&repo::read(file)?, host, *domain)
        .map_err(|why| Trouble::other(format!("{}: {why}", file.display())))?;
    print!("{nodes}");
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    Ok(0)
}

/// The nodes, and what could not be known or was left out.
fn import(bytes: &[u8], host: &str, domain: u32) -> Result<(String, Vec<String>), String> {
    // What lspci prints begins with a digit: the other byte of that is 0.
    if matches!(bytes, [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] | [0, _, ..] | [_, 0, ..]) {
        return Err("this is UTF-16: convert it, for instance with `iconv -f UTF-16 -t UTF-8`".to_owned());
    }
    let dump = lspci::read(&String::from_utf8_lossy(bytes), domain)?;
    let mut warnings = Vec::new();
    if !dump.left_out.is_empty() {
        let others = lspci::others(&dump.left_out);
        warnings.push(format!("left out: {others} (--domain takes another than {domain:04x})"));
    }
    let nodes = nodes::write(&dump.functions, host, &mut warnings);
    Ok((nodes, warnings))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = include_str!("../../tests/data/lspci-qemu.txt");
    const BOARD: &str = include_str!("../../../dts/qemu-virt-pci.dts");

    fn import(text: &str) -> (String, Vec<String>) {
        super::import(text.as_bytes(), "pcie0", 0).expect("this is lspci's output")
    }

    fn error(text: &str, domain: u32) -> String {
        super::import(text.as_bytes(), "pcie0", domain).expect_err("this is not lspci's whole output")
    }

    /// A function's dump of so many rows: an NVMe drive whose capability list has PCI Express at 0x40 and nothing else, and access
    /// control services at 0x100.
    fn nvme(place: &str, rows: usize) -> String {
        let title = "Non-Volatile memory controller [0108]: Some Drive [1b36:0010] (rev 02)";
        let region = "Region 0: Memory at 10000000 (64-bit, non-prefetchable) [size=16K]";
        let mut text = format!("{place} {title}\n\t{region}\n");
        for row in 0..rows {
            let bytes = match row {
                0 => "36 1b 10 00 06 00 10 00 02 02 08 01 00 00 00 00",
                1 => "04 00 00 10 00 00 00 00 00 00 00 00 00 00 00 00",
                3 => "00 00 00 00 40 00 00 00 00 00 00 00 00 01 00 00",
                4 => "10 00 02 00 c0 8f 00 10 00 28 10 00 11 0c 00 00",
                16 => "0d 00 01 00 5f 00 00 00 00 00 00 00 00 00 00 00",
                _ => "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
            };
            text += &format!("{:02x}: {bytes}\n", row * 16);
        }
        text + "\n"
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
        assert!(error("nothing of the kind\n", 0).contains("not what `lspci"));
        assert!(error("", 0).contains("not what `lspci"));
        let plain = "00:03.0 Ethernet controller: Intel Corporation Card\n\tRegion 0: Memory at 10 [size=4K]\n";
        assert!(error(plain, 0).contains("-xxxx"));
    }

    #[test]
    fn functions_of_another_pci_domain_are_nobody_elses() {
        let (one, other) = (nvme("0000:00:04.0", 4), nvme("0001:01:00.0", 256) + &nvme("10000:00:01.0", 16));
        let alone = import(&one);
        let (nodes, warnings) = import(&(one.clone() + &other));
        assert_eq!(nodes, alone.0);
        let left_out = "left out: 1 function of PCI domain 0001, 1 of 10000 (--domain takes another than 0000)";
        assert_eq!(warnings, [&[left_out.to_owned()], &alone.1[..]].concat());
        assert_eq!(import(&(other.clone() + &one)).0, alone.0);

        let (nodes, warnings) = super::import((one + &other).as_bytes(), "pcie1", 1).expect("there is one");
        assert!(nodes.contains("&pcie1 {") && nodes.contains("reg = <0x00010000 0 0 0x0 0x0>,"), "{nodes}");
        assert!(nodes.contains("<0x100 0x0001000d 0x0000005f 0x00000000>"), "{nodes}");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let nothing = error(&other, 0);
        assert!(nothing.contains("no function of PCI domain 0000, but 1 function of PCI domain 0001"), "{nothing}");
        assert!(nothing.contains("--domain"), "{nothing}");
        assert_eq!((hexadecimal("10000"), hexadecimal("0x1")), (Ok(0x1_0000), Ok(1)));
    }

    #[test]
    fn what_is_cut_off_or_twice_is_said() {
        let whole = nvme("00:04.0", 256);
        assert!(error(&(whole.clone() + &whole), 0).contains("00:04.0 is there twice"));
        let cut = |at: &str, behind: usize| error(&whole[..whole.find(at).expect("it is there") + behind], 0);
        assert!(cut("\n20: ", 12).contains("00:04.0: the row 0x20 is cut off"));
        assert!(cut("\n20: ", 6).contains("the row 0x20 is cut off"));
        assert!(cut("\n50: ", 0).contains("ends after 0x50 bytes: the file is cut off"));
        assert!(cut("\n20: ", 0).contains("ends after 0x20 bytes"));
        let (before, behind) = whole.split_once("\n20: ").expect("it is there");
        let gap = error(&format!("{before}\n{}", behind.split_once('\n').expect("a line").1), 0);
        assert!(gap.contains("the row 0x30 stands where the row 0x20 should"), "{gap}");
    }

    #[test]
    fn missing_extended_space_is_said_where_there_is_some() {
        let (nodes, warnings) = import(&nvme("00:04.0", 16));
        assert!(warnings.len() == 1 && warnings[0].contains("extended capabilities"), "{warnings:?}");
        assert!(nodes.contains("/* its extended capabilities"), "{nodes}");
        assert_eq!(import(&nvme("00:04.0", 256)).1, [""; 0]);
        // Conventional PCI has none.
        let conventional = nvme("00:04.0", 16).replace("40: 10 00", "40: 01 00");
        assert_eq!(import(&conventional).1, [""; 0]);
    }

    #[test]
    fn other_encodings() {
        let text = nvme("00:04.0", 256);
        let plain = import(&text);
        assert_eq!(import(&format!("\u{feff}{text}")), plain);
        assert_eq!(import(&text.replace('\n', "\r\n")), plain);
        for mark in ["", "\u{feff}"] {
            let units = || format!("{mark}{text}").encode_utf16().collect::<Vec<_>>();
            for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
                let bytes: Vec<u8> = units().into_iter().flat_map(bytes).collect();
                assert!(super::import(&bytes, "pcie0", 0).unwrap_err().contains("UTF-16"));
            }
        }
    }
}
