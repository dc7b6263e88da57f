//! Capabilities as the board gives them (`cofferdam,capabilities`), and what their first dwords mean.
//!
//! The tables are those of PCI Local Bus 3.0, 6.8, and PCI Express Base 5.0, 7.5 to 7.9. What a guest may do with a
//! capability is decided elsewhere.

use super::model::{Capability, PciFunction};
use crate::cells;
use cofferdam_dts::Node;

/// The property: `<offset dword0 dword1 dword2>` again and again.
pub const PROPERTY: &str = "cofferdam,capabilities";
/// Cells of one capability.
pub const CELLS: usize = 4;
/// Where extended capabilities start (PCI Express Base 5.0, 7.6).
pub const EXTENDED: u16 = 0x100;

/// What a capability is, with the fields somebody asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Power management (PCI Express Base 5.0, 7.5.2).
    Power,
    /// MSI (7.7.1).
    Msi {
        /// Messages it can send: 1, 2, 4 … 32.
        vectors: u16,
        /// 64-bit address.
        wide: bool,
        /// A mask bit for each message.
        maskable: bool,
    },
    /// MSI-X (7.7.2).
    MsiX {
        /// Entries of its table: 1 to 2048.
        vectors: u16,
        /// Base address register and byte offset of the table.
        table: (u8, u32),
        /// Base address register and byte offset of the pending bits.
        pending: (u8, u32),
    },
    /// PCI Express (7.5.3).
    Express {
        /// Layout: 1 or 2.
        version: u8,
        /// Device/port type (7.5.3.2).
        port: Port,
        /// Function-level reset.
        flr: bool,
    },
    /// Vendor-specific (7.9.4).
    Vendor {
        /// Bytes, all of it.
        len: u8,
        /// Its fourth byte: `cfg_type` of a virtio device (Virtio 1.2, 4.1.4).
        virtio: u8,
    },
    /// Advanced error reporting (7.8.4).
    Aer,
    /// Access control services (7.7.8).
    Acs {
        /// Its capability register.
        offers: u16,
    },
    /// Single-root I/O virtualization (9.3.3).
    SrIov,
    /// Another one, by its ID; extended ones have [`EXTENDED`] added, which no conventional ID reaches.
    Other(u16),
}

/// Device/port types that matter (PCI Express Base 5.0, 7.5.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    /// PCI Express endpoint, legacy or not.
    Endpoint,
    /// Endpoint integrated into the root complex.
    Integrated,
    /// Root port.
    Root,
    /// Port of a switch towards the root.
    Upstream,
    /// Port of a switch away from the root.
    Downstream,
    /// Bridge between PCI Express and conventional PCI, either way.
    Conventional,
    /// Anything else.
    Other,
}

impl Capability {
    /// Decodes it.
    pub fn kind(&self) -> Kind {
        let [first, second, third] = self.dwords;
        if self.offset >= EXTENDED {
            return match first & 0xFFFF {
                0x0001 => Kind::Aer,
                0x000D => Kind::Acs { offers: second as u16 },
                0x0010 => Kind::SrIov,
                id => Kind::Other(id as u16 | EXTENDED),
            };
        }
        match first & 0xFF {
            0x01 => Kind::Power,
            0x05 => Kind::Msi {
                // 6 and 7 are reserved: a function that says so has no more than 32.
                vectors: 1 << (first >> 17 & 7).min(5),
                wide: first & 1 << 23 != 0,
                maskable: first & 1 << 24 != 0,
            },
            0x09 => Kind::Vendor { len: (first >> 16) as u8, virtio: (first >> 24) as u8 },
            0x10 => Kind::Express {
                version: (first >> 16 & 0xF) as u8,
                port: match first >> 20 & 0xF {
                    0 | 1 => Port::Endpoint,
                    4 => Port::Root,
                    5 => Port::Upstream,
                    6 => Port::Downstream,
                    7 | 8 => Port::Conventional,
                    9 | 10 => Port::Integrated,
                    _ => Port::Other,
                },
                flr: second & 1 << 28 != 0,
            },
            0x11 => Kind::MsiX {
                vectors: (first >> 16 & 0x7FF) as u16 + 1,
                table: ((second & 7) as u8, second & !7),
                pending: ((third & 7) as u8, third & !7),
            },
            id => Kind::Other(id as u16),
        }
    }
}

/// The capabilities of a function's node, in the order given. A short rest is left out here and reported by `check`.
pub fn of<'a>(node: Node<'a>) -> impl Iterator<Item = Capability> + 'a {
    node.property(PROPERTY).into_iter().flat_map(|property| cells::groups(property, CELLS)).filter_map(|cells| {
        let span = cells::span_of(&cells);
        let [offset, a, b, c] = cells.as_slice() else { return None };
        let offset = u16::try_from(offset.value).ok()?;
        Some(Capability { offset, dwords: [a.value as u32, b.value as u32, c.value as u32], span })
    })
}

impl PciFunction<'_> {
    /// Its capabilities.
    pub fn capabilities(&self) -> impl Iterator<Item = Capability> {
        of(self.node)
    }

    /// The first capability of which `pick` makes something.
    pub fn find<T>(&self, mut pick: impl FnMut(Kind) -> Option<T>) -> Option<T> {
        self.capabilities().find_map(|capability| pick(capability.kind()))
    }

    /// Messages it can send by MSI-X, else by MSI; `None` without either.
    pub fn vectors(&self) -> Option<u16> {
        let msi_x = self.find(|kind| if let Kind::MsiX { vectors, .. } = kind { Some(vectors) } else { None });
        msi_x.or_else(|| self.find(|kind| if let Kind::Msi { vectors, .. } = kind { Some(vectors) } else { None }))
    }

    /// Byte offset of Device Control where bit 15 of it resets the function.
    pub fn flr(&self) -> Option<u16> {
        let express = |c: &Capability| matches!(c.kind(), Kind::Express { flr: true, .. });
        self.capabilities().find(express).map(|c| c.offset + 8)
    }

    /// Whether it is, by capabilities that are given, a bridge to conventional PCI: what is behind it has no ID of its own. Without them
    /// that is not known, and what is behind it cannot be granted where IDs count (E0637).
    pub fn speaks_for_others(&self) -> bool {
        let conventional = matches!(self.port(), None | Some(Port::Conventional));
        self.bridge.is_some() && conventional && self.node.property(PROPERTY).is_some()
    }

    /// Its type on PCI Express; `None` on conventional PCI.
    pub fn port(&self) -> Option<Port> {
        self.find(|kind| if let Kind::Express { port, .. } = kind { Some(port) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_dts::Span;

    fn kind(offset: u16, dwords: [u32; 3]) -> Kind {
        Capability { offset, dwords, span: Span::default() }.kind()
    }

    /// Dwords of QEMU's devices, as lspci shows them.
    #[test]
    fn dwords_of_real_functions() {
        let nvme = Kind::MsiX { vectors: 65, table: (0, 0x2000), pending: (0, 0x3000) };
        assert_eq!(kind(0x40, [0x0040_0011, 0x2000, 0x3000]), nvme);
        assert_eq!(kind(0xD0, [0x0080_E005, 0, 0]), Kind::Msi { vectors: 1, wide: true, maskable: false });
        let e1000e = Kind::Express { version: 1, port: Port::Integrated, flr: false };
        assert_eq!(kind(0xE0, [0x0091_A010, 0x8020, 0x0411_0000]), e1000e);
        assert_eq!(kind(0x84, [0x0514_7009, 0, 0]), Kind::Vendor { len: 0x14, virtio: 5 });
        assert_eq!(kind(0x100, [0x1402_0001, 0, 0x0240_0000]), Kind::Aer);
        assert_eq!(kind(0x148, [0x0001_000D, 0x5F, 0]), Kind::Acs { offers: 0x5F });
        assert_eq!(kind(0x140, [0x0001_0003, 0, 0]), Kind::Other(0x103));
    }
}
