//! A domain's I/O permission bitmap, as VMX and SVM take it: one bit per port, 1 = access exits to the hypervisor.
//!
//! Default deny: every bit starts set, a grant clears its own.

use crate::lent::{Full, Lent};
use crate::model::{Layout, PortGrant};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a bitmap: 64 Ki ports, one bit each.
pub const BYTES: usize = 8192;

/// The permission bitmap of one domain.
#[derive(Clone, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct PortBitmap(pub [u8; BYTES]);

impl PortBitmap {
    /// Makes it the bitmap of a domain with these grants.
    pub fn set(&mut self, grants: &[PortGrant]) {
        self.0.fill(0xFF);
        for port in grants.iter().flat_map(|grant| grant.first..=grant.last) {
            self.0[usize::from(port / 8)] &= !(1 << (port % 8));
        }
    }

    /// One bitmap for each domain, in order, in lent memory.
    ///
    /// # Errors
    /// [`Full`]: there is less than [`BYTES`] for each.
    pub(crate) fn all<'m>(lent: &'m mut [u64], layout: &Layout<'_, '_>) -> Result<&'m [Self], Full> {
        let count = layout.domains.len();
        let lent = lent.as_mut_bytes().get_mut(..count * BYTES).ok_or(Full(Lent::Blob))?;
        let maps = <[Self]>::mut_from_bytes(lent).map_err(|_| Full(Lent::Blob))?;
        for (map, domain) in maps.iter_mut().zip(&layout.domains) {
            map.set(layout.ports.get(domain.ports.clone()).unwrap_or(&[]));
        }
        Ok(maps)
    }

    /// The open ports, ascending, as first and last of each run.
    pub fn open(&self) -> impl Iterator<Item = (u16, u16)> {
        let mut next = Some(0u16);
        core::iter::from_fn(move || {
            let first = (next?..=u16::MAX).find(|port| self.allows(*port))?;
            let last = (first..=u16::MAX).take_while(|port| self.allows(*port)).last()?;
            next = last.checked_add(1);
            Some((first, last))
        })
    }

    /// Whether the domain may use `port` without an exit.
    pub fn allows(&self, port: u16) -> bool {
        self.0[usize::from(port / 8)] & 1 << (port % 8) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_granted() {
        let grant = |first, last| PortGrant { first, last, ..PortGrant::default() };
        let mut map = PortBitmap([0; BYTES]);
        map.set(&[grant(0x3F8, 0x3FB), grant(0xFFFF, 0xFFFF), grant(0x3FC, 0x3FF)]);
        let open = (0..=u16::MAX).filter(|port| map.allows(*port)).count();
        assert_eq!(open, 9);
        assert!(map.allows(0x3F8) && map.allows(0x3FF) && map.allows(0xFFFF));
        assert!(!map.allows(0x3F7) && !map.allows(0x400));
        assert!(map.open().eq([(0x3F8, 0x3FF), (0xFFFF, 0xFFFF)]));
    }
}
