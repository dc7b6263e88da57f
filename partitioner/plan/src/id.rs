//! Newtypes for every identifier and address, so that a PA cannot be passed where an IPA is meant.

use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($repr:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
        )]
        #[repr(transparent)]
        pub struct $name(pub $repr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

newtype!(
    /// Physical address.
    Pa(u64), "{:#x}"
);
newtype!(
    /// Intermediate physical address: what a guest believes to be physical.
    Ipa(u64), "{:#x}"
);
newtype!(
    /// GIC interrupt identifier: SGI 0–15, PPI 16–31, SPI 32–1019 (IHI 0069, 2.2).
    IntId(u32), "{}"
);
newtype!(
    /// `MPIDR_EL1` affinity fields only: Aff3 in bits 39:32, Aff2..0 in bits 23:0 (DDI 0487, D19.2.102).
    Mpidr(u64), "{:#x}"
);
newtype!(
    /// Virtual machine identifier, as in `VTTBR_EL2.VMID`. Never zero for a domain.
    Vmid(u16), "{}"
);
newtype!(
    /// Index of a domain in the plan, in the order of the layout.
    DomainId(u16), "{}"
);
newtype!(
    /// Index of a physical CPU in the plan's `cpus` table.
    CpuIndex(u16), "{}"
);
newtype!(
    /// SMMU stream ID.
    StreamId(u32), "{:#x}"
);
newtype!(
    /// PCI bus, device, function: bus in bits 15:8, device 7:3, function 2:0.
    Bdf(u16), "{:#06x}"
);

impl Mpidr {
    /// The affinity fields of a raw `MPIDR_EL1` value; U, MT and RES1 bits are dropped.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw & 0xFF_00FF_FFFF)
    }

    /// Affinity level 0: the CPU inside its cluster, and its bit in a target list when below 16.
    pub const fn aff0(self) -> u8 {
        self.0 as u8
    }

    /// The affinity as `GICR_TYPER` bits 63:32 hold it: Aff3.Aff2.Aff1.Aff0 (IHI 0069, 12.11.35).
    pub const fn packed(self) -> u32 {
        (((self.0 >> 32) as u32) << 24) | (self.0 as u32 & 0xFF_FFFF)
    }
}

impl IntId {
    /// First shared peripheral interrupt.
    pub const FIRST_SPI: Self = Self(32);
    /// Last INTID that can be an SPI.
    pub const LAST_SPI: Self = Self(1019);

    /// The SPI with number `n` of a device tree's interrupt specifier, where it exists.
    pub const fn spi(n: u32) -> Option<Self> {
        if n <= Self::LAST_SPI.0 - Self::FIRST_SPI.0 { Some(Self(n + Self::FIRST_SPI.0)) } else { None }
    }

    /// The PPI with number `n` (0 to 15) of a device tree's interrupt specifier, where it exists.
    pub const fn ppi(n: u32) -> Option<Self> {
        if n < 16 { Some(Self(n + 16)) } else { None }
    }

    /// Whether this is a shared peripheral interrupt.
    pub const fn is_spi(self) -> bool {
        self.0 >= Self::FIRST_SPI.0 && self.0 <= Self::LAST_SPI.0
    }

    /// Index of the 32-bit register word that holds this INTID's bit.
    pub const fn word(self) -> usize {
        (self.0 / 32) as usize
    }

    /// This INTID's bit in its word.
    pub const fn bit(self) -> u32 {
        1 << (self.0 % 32)
    }
}
