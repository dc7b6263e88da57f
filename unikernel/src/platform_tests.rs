//! Device trees built by hand, byte by byte, and what is read from them.

use super::*;
use std::vec::Vec;

/// A flattened tree as it grows (Devicetree Specification 0.4, chapter 5).
#[derive(Default)]
struct Builder {
    tokens: Vec<u8>,
    strings: Vec<u8>,
}

impl Builder {
    fn word(&mut self, word: u32) {
        self.tokens.extend(word.to_be_bytes());
    }

    fn pad(&mut self) {
        while !self.tokens.len().is_multiple_of(4) {
            self.tokens.push(0);
        }
    }

    fn node(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        self.word(1);
        self.tokens.extend(name.bytes().chain([0]));
        self.pad();
        inside(self);
        self.word(2);
    }

    fn bytes(&mut self, name: &str, value: &[u8]) {
        let at = self.strings.len() as u32;
        self.strings.extend(name.bytes().chain([0]));
        self.word(3);
        self.word(value.len() as u32);
        self.word(at);
        self.tokens.extend(value);
        self.pad();
    }

    fn text(&mut self, name: &str, value: &str) {
        let value: Vec<u8> = value.bytes().chain([0]).collect();
        self.bytes(name, &value);
    }

    fn cells(&mut self, name: &str, value: &[u32]) {
        let value: Vec<u8> = value.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.bytes(name, &value);
    }

    fn finish(mut self) -> &'static [u8] {
        self.word(9);
        let tokens_at = 40 + 16;
        let strings_at = tokens_at + self.tokens.len() as u32;
        let size = strings_at + self.strings.len() as u32;
        let header = [
            0xD00D_FEED,
            size,
            tokens_at,
            strings_at,
            40,
            17,
            16,
            0,
            self.strings.len() as u32,
            self.tokens.len() as u32,
        ];
        let mut words: Vec<u64> = std::vec![0; size.div_ceil(8) as usize];
        let all =
            header.iter().flat_map(|word| word.to_be_bytes()).chain([0; 16]).chain(self.tokens).chain(self.strings);
        for (index, byte) in all.enumerate() {
            words[index / 8] |= u64::from(byte) << (index % 8 * 8);
        }
        let words: &'static [u64] = words.leak();
        // SAFETY: the same memory as bytes; any byte is valid.
        unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), size as usize) }
    }
}

fn domain(stdout: &str) -> &'static [u8] {
    let mut tree = Builder::default();
    tree.node("", |root| {
        root.cells("#address-cells", &[2]);
        root.cells("#size-cells", &[2]);
        root.node("chosen", |chosen| {
            chosen.text("bootargs", "walk ram=0x60000000");
            chosen.text("stdout-path", stdout);
        });
        root.node("aliases", |aliases| aliases.text("serial1", "/serial@9001000"));
        root.node("cpus", |cpus| {
            cpus.cells("#address-cells", &[1]);
            cpus.cells("#size-cells", &[0]);
            for reg in 0..2 {
                cpus.node(["cpu@0", "cpu@1"][reg as usize], |cpu| {
                    cpu.text("device_type", "cpu");
                    cpu.cells("reg", &[reg]);
                });
            }
        });
        root.node("memory@40000000", |memory| {
            memory.text("device_type", "memory");
            memory.cells("reg", &[0, 0x4000_0000, 0, 0x100_0000]);
        });
        root.node("psci", |psci| {
            psci.bytes("compatible", b"arm,psci-1.0\0arm,psci-0.2\0");
            psci.text("method", "smc");
        });
        root.node("timer", |timer| {
            timer.text("compatible", "arm,armv8-timer");
            timer.cells("interrupts", &[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]);
        });
        for (name, base, spi) in [("serial@9000000", 0x900_0000, 1), ("serial@9001000", 0x900_1000, 40)] {
            root.node(name, |serial| {
                serial.bytes("compatible", b"arm,pl011\0arm,primecell\0");
                serial.cells("reg", &[0, base, 0, 0x1000]);
                serial.cells("interrupts", &[0, spi, 4]);
            });
        }
        root.node("gpio@9030000", |gpio| {
            gpio.bytes("compatible", b"arm,pl061\0arm,primecell\0");
            gpio.cells("reg", &[0, 0x903_0000, 0, 0x1000]);
            gpio.text("status", "disabled");
        });
    });
    tree.finish()
}

fn read(stdout: &str) -> Platform {
    Platform::read(Fdt::new(domain(stdout)).unwrap()).unwrap()
}

#[test]
fn everything_is_found() {
    let platform = read("serial1:115200n8");
    assert_eq!(platform.cpus(), [0, 1]);
    assert_eq!(platform.memory, Region { base: 0x4000_0000, size: 0x100_0000 });
    assert_eq!(platform.psci, Some(Conduit::Smc));
    assert_eq!(platform.timer, Some(27));
    assert_eq!(platform.gic, None);
    assert_eq!(platform.argument("ram"), Some("0x60000000"));
    assert_eq!(platform.argument("walk"), None);
}

#[test]
fn stdout_path_decides_the_console() {
    let console = |stdout| read(stdout).console.map(|device| (device.region.base, device.intid));
    assert_eq!(console("serial1:115200n8"), Some((0x900_1000, Some(72))));
    assert_eq!(console("/serial@9001000"), Some((0x900_1000, Some(72))));
    assert_eq!(console("/serial@9000000"), Some((0x900_0000, Some(33))));
    assert_eq!(console("nonsense"), Some((0x900_0000, Some(33))));
}

#[test]
fn disabled_devices_do_not_exist() {
    let platform = read("");
    assert_eq!(platform.device("arm,pl061", 0), None);
    assert_eq!(platform.device("arm,pl011", 1).map(|device| device.region.base), Some(0x900_1000));
    assert_eq!(platform.device("arm,pl011", 2), None);
}

#[test]
fn a_pin_goes_through_the_interrupt_map() {
    let mut tree = Builder::default();
    tree.node("", |root| {
        root.node("gic", |gic| {
            gic.cells("phandle", &[7]);
            gic.cells("#address-cells", &[2]);
        });
        root.node("pcie", |pcie| {
            pcie.cells("interrupt-map-mask", &[0x1800, 0, 0, 7]);
            pcie.cells("interrupt-map", &[0x0800, 0, 0, 1, 7, 0, 0, 0, 4, 4, 0x0800, 0, 0, 2, 7, 0, 0, 0, 5, 4]);
        });
    });
    let fdt = Fdt::new(tree.finish()).unwrap();
    let pin = |unit, pin| fdt.find(|node| node.is_at("/pcie").then(|| node.pin_interrupt(unit, pin)))?;
    assert_eq!((pin(0x0800, 1), pin(0x2800, 2)), (Some(36), Some(37)), "devices 1 and 5 share their lines");
    assert_eq!((pin(0x0800, 3), pin(0x1000, 1)), (None, None));
}

#[test]
fn bytes_that_are_no_tree_are_refused() {
    assert!(Fdt::new(&[]).is_none());
    let good = domain("");
    for index in [0, 4, 8, 12] {
        let mut words: Vec<u64> = std::vec![0; good.len().div_ceil(8)];
        for (at, byte) in good.iter().enumerate() {
            let byte = if at == index { byte ^ 0xFF } else { *byte };
            words[at / 8] |= u64::from(byte) << (at % 8 * 8);
        }
        let words: &'static [u64] = words.leak();
        // SAFETY: the same memory as bytes.
        let bytes = unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), good.len()) };
        assert!(Fdt::new(bytes).is_none(), "byte {index}");
    }
}
