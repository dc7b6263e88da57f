//! The MSI frame as its domain's CPUs see it: a GICv2m (Arm Server Base System Architecture, DEN 0029, appendix E) that says which
//! SPIs its MSIs raise.
//!
//! Devices see the ITS at the same address; what they write never comes here. A CPU that writes raises nothing.

use super::{Access, Outcome};
use cofferdam_plan::pci::PciDomain;

/// MSI_TYPER: first SPI in bits 25:16, their number in bits 9:0.
const TYPER: u32 = 0x008;
/// MSI_IIDR.
const IIDR: u32 = 0xFCC;
/// Implementer Arm, no product: none whose errata a driver knows.
const IIDR_VALUE: u32 = 0x0000_043B;

/// An access to the frame. Registers are words.
#[inline]
pub const fn access(owner: &PciDomain, access: Access) -> Outcome {
    if access.size != 4 || access.offset & 3 != 0 {
        return Outcome::Abort;
    }
    let value = match access.offset {
        TYPER => (owner.first_spi.0 & 0x3FF) << 16 | owner.spi_count & 0x3FF,
        IIDR => IIDR_VALUE,
        _ => 0,
    };
    Outcome::Handled(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_plan::IntId;
    use zerocopy::FromZeros;

    #[test]
    fn says_which_spis_and_nothing_else() {
        let mut owner = PciDomain::new_zeroed();
        (owner.first_spi, owner.spi_count) = (IntId(200), 12);
        let read = |offset, size| access(&owner, Access { offset, size, write: None });
        assert_eq!(read(TYPER, 4), Outcome::Handled(200 << 16 | 12));
        assert_eq!(read(IIDR, 4), Outcome::Handled(0x43B));
        for offset in (0..0x1000).step_by(4).filter(|offset| ![TYPER, IIDR].contains(offset)) {
            assert_eq!(read(offset, 4), Outcome::Handled(0));
        }
        for (offset, size) in [(8, 1), (8, 2), (8, 8), (10, 4)] {
            assert_eq!(read(offset, size), Outcome::Abort);
        }
        let write = Access { offset: 0x40, size: 4, write: Some(200) };
        assert!(matches!(access(&owner, write), Outcome::Handled(_)));
    }
}
