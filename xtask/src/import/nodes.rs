//! Function nodes as docs/pci.md describes them, from what lspci has read.

use super::lspci::{Function, Region};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Node name and label of a function, by the first byte of its class code or both (PCI Code and ID Assignment 1.11, 1).
const KINDS: &[(u32, u32, &str, &str)] = &[
    (0xFFFF, 0x0108, "nvme", "nvme"),
    (0xFFFF, 0x0106, "sata", "sata"),
    (0xFF00, 0x0100, "block", "blk"),
    (0xFF00, 0x0200, "ethernet", "nic"),
    (0xFF00, 0x0300, "display", "gpu"),
    (0xFF00, 0x0400, "sound", "audio"),
    (0xFFFF, 0x0604, "pcie", "rp"),
    (0xFFFF, 0x0700, "serial", "serial_pci"),
    (0xFFFF, 0x0C03, "usb", "usb"),
];

/// Capability IDs whose dwords hold state, not only what the function is (PCI Express Base 5.0, 7.5.2, 7.5.3, 7.7).
const POWER: u32 = 0x01;
const MSI: u32 = 0x05;
const EXPRESS: u32 = 0x10;
const MSI_X: u32 = 0x11;

struct Writer<'f, 'w> {
    functions: &'f [Function],
    out: String,
    warnings: &'w mut Vec<String>,
    labels: BTreeMap<&'static str, u32>,
    /// Of virtual functions, by what they are: the physical function.
    physical: BTreeMap<u16, u16>,
    /// Of what has been written.
    written: BTreeMap<u16, String>,
}

/// The nodes, for the host bridge labelled `host`. What lspci does not tell is a comment and one of `warnings`.
pub(super) fn write(functions: &[Function], host: &str, warnings: &mut Vec<String>) -> String {
    let out = format!(
        "/*\n * PCI functions from `lspci -vvnn -xxxx`, for the host bridge of a board file.\n *\n * Labels are for `access` of a \
         domain: rename them as you like.\n */\n&{host} {{\n"
    );
    let physical = functions.iter().flat_map(|f| f.virtual_functions().into_iter().map(|of| (of, f.rid()))).collect();
    let mut writer = Writer { functions, out, warnings, labels: BTreeMap::new(), physical, written: BTreeMap::new() };
    let root = functions.first().map_or(0, |function| function.bus);
    writer.bus(root, 1);
    writer.out += "};\n";
    let behind =
        |f: &&Function| f.bus != root && !functions.iter().any(|b| b.buses().is_some_and(|(first, _)| first == f.bus));
    for orphan in functions.iter().filter(behind) {
        let place = orphan.place();
        writer.warnings.push(format!("{place} is on bus {:02x}, and no bridge leads there: left out", orphan.bus));
    }
    writer.out
}

/// First cell of a PCI address (IEEE 1275 PCI, 2.2.1.1).
fn cell(f: &Function, space: u32, register: u32) -> u32 {
    space << 24 | u32::from(f.bus) << 16 | u32::from(f.device) << 11 | u32::from(f.function) << 8 | register
}

impl Writer<'_, '_> {
    fn line(&mut self, depth: usize, text: &str) {
        let _ = writeln!(self.out, "{}{text}", "\t".repeat(depth));
    }

    fn warn(&mut self, depth: usize, f: &Function, text: &str) {
        self.warnings.push(format!("{}: {text}", f.place()));
        self.line(depth, &format!("/* {text} */"));
    }

    /// Every function on one bus. A bridge that leads back to a bus above it leads nowhere.
    fn bus(&mut self, bus: u8, depth: usize) {
        let mut first = true;
        let functions = self.functions;
        for f in functions.iter().filter(|f| f.bus == bus) {
            let host = f.dword(8) >> 16 == 0x0600 && f.regions.is_empty();
            let alone = functions.iter().filter(|other| (other.bus, other.device) == (f.bus, f.device)).count() == 1;
            if host && alone {
                continue;
            }
            let physical = self.physical.get(&f.rid()).and_then(|rid| self.written.get(rid).cloned());
            if physical.is_none() && f.has_no_id() {
                let place = f.place();
                self.warnings
                    .push(format!("{place} is a virtual function, and its physical one is not there: left out"));
                continue;
            }
            if !core::mem::take(&mut first) {
                self.out.push('\n');
            }
            match physical {
                Some(physical) => self.virtual_function(f, &physical, depth),
                None => self.function(f, depth),
            }
        }
    }

    /// Opens the node of a function.
    fn open(&mut self, f: &Function, depth: usize) {
        let class = f.dword(8) >> 8;
        let kind = KINDS.iter().find(|(mask, of, ..)| class >> 8 & mask == *of);
        let (name, label) = kind.map_or(("device", "device"), |(_, _, name, label)| (*name, *label));
        let count = self.labels.entry(label).or_default();
        let label = format!("{label}{count}");
        *count += 1;
        let unit = format!("{:x},{}", f.device, f.function);
        self.line(depth, &format!("/* {}: {} */", f.place(), f.title.replace("*/", "* /")));
        self.line(depth, &format!("{label}: {name}@{unit} {{"));
        self.written.insert(f.rid(), label);
    }

    /// What a driver of the function labelled `physical` has made: its place, and whose it is.
    fn virtual_function(&mut self, f: &Function, physical: &str, depth: usize) {
        self.open(f, depth);
        self.line(depth + 1, &format!("reg = <{:#010x} 0 0 0x0 0x0>;", cell(f, 0, 0)));
        self.line(depth + 1, &format!("cofferdam,physical-function = <&{physical}>;"));
        self.line(depth, "};");
    }

    fn function(&mut self, f: &Function, depth: usize) {
        let class = f.dword(8) >> 8;
        self.open(f, depth);
        let inside = depth + 1;
        if f.buses().is_some() {
            self.line(inside, "device_type = \"pci\";");
        }
        self.registers(f, inside);
        let (id, subsystem) = (f.dword(0), f.dword(0x2C));
        self.line(inside, &format!("vendor-id = <{:#06x}>;", id & 0xFFFF));
        self.line(inside, &format!("device-id = <{:#06x}>;", id >> 16));
        self.line(inside, &format!("class-code = <{class:#08x}>;"));
        self.line(inside, &format!("revision-id = <{:#04x}>;", f.dword(8) & 0xFF));
        if f.buses().is_none() {
            self.line(inside, &format!("subsystem-vendor-id = <{:#06x}>;", subsystem & 0xFFFF));
            self.line(inside, &format!("subsystem-id = <{:#06x}>;", subsystem >> 16));
            if (1..=4).contains(&f.pin()) {
                self.line(inside, &format!("interrupts = <{}>;", f.pin()));
            }
        }
        self.capabilities(f, inside);
        if let Some((first, last)) = f.buses() {
            self.line(inside, "#address-cells = <3>;");
            self.line(inside, "#size-cells = <2>;");
            self.line(inside, &format!("bus-range = <{first} {last}>;"));
            self.line(inside, "ranges;");
            if first > f.bus && self.functions.iter().any(|below| below.bus == first) {
                self.out.push('\n');
                self.bus(first, inside);
            }
        }
        self.line(depth, "};");
    }

    fn registers(&mut self, f: &Function, depth: usize) {
        let mut entries = vec![format!("<{:#010x} 0 0 0x0 0x0>", cell(f, 0, 0))];
        for region in &f.regions {
            let Region { mut register, space, prefetchable, size } = *region;
            if register == 0x30 && f.buses().is_some() {
                register = 0x38;
            }
            let Some(size) = size else {
                self.warn(
                    depth,
                    f,
                    &format!("no size of the base address register {register:#x}: add its entry to `reg`"),
                );
                continue;
            };
            let space = if prefetchable { space | 0x40 } else { space };
            entries.push(format!(
                "<{:#010x} 0 0 {:#x} {:#x}>",
                cell(f, space, register),
                size >> 32,
                size & 0xFFFF_FFFF
            ));
        }
        let between = format!(",\n{}      ", "\t".repeat(depth));
        self.line(depth, &format!("reg = {};", entries.join(&between)));
    }

    fn capabilities(&mut self, f: &Function, depth: usize) {
        if !f.is_whole() && f.dword(4) & 1 << 20 != 0 {
            self.warn(depth, f, "its capabilities are not known: run lspci with -xxxx, as root");
        }
        if f.lacks_extended() {
            self.warn(
                depth,
                f,
                "its extended capabilities (error reporting, access control services) are not known: run lspci with -xxxx",
            );
        }
        let entries: Vec<String> = f.capabilities().into_iter().map(|at| entry(f, at)).collect();
        if !entries.is_empty() {
            let between = format!(",\n{} ", "\t".repeat(depth + 3));
            self.line(depth, &format!("cofferdam,capabilities = {};", entries.join(&between)));
        }
    }
}

/// Offset and three dwords of a capability, without what a driver has set since reset.
fn entry(f: &Function, at: usize) -> String {
    let mut dwords = [f.dword(at), f.dword(at + 4), f.dword(at + 8)];
    match dwords[0] & 0xFF {
        _ if at >= 0x100 => {}
        // Power state, PME enable and status.
        POWER => dwords[1] &= !(3 | 1 << 8 | 1 << 15),
        // Enable and multiple message enable; address.
        MSI => {
            dwords[0] &= !(1 << 16 | 7 << 20);
            dwords[1] = 0;
            if dwords[0] & 1 << 23 != 0 {
                dwords[2] = 0;
            } else {
                dwords[2] &= !0xFFFF;
            }
        }
        // Enable and function mask.
        MSI_X => dwords[0] &= !(3 << 30),
        // Error reporting, reset; errors found.
        EXPRESS => dwords[2] &= !(0xF | 1 << 15 | 0xF << 16),
        _ => {}
    }
    format!("<{at:#x} {:#010x} {:#010x} {:#010x}>", dwords[0], dwords[1], dwords[2])
}
