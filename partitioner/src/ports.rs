//! A domain's I/O permission bitmap, as VMX and SVM take it: one bit per port, 1 = access exits to the hypervisor.
//!
//! Default deny: every bit starts set, a grant clears its own.

use crate::model::PortGrant;

/// Bytes of a bitmap: 64 Ki ports, one bit each.
pub const BYTES: usize = 8192;

/// The permission bitmap of one domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortBitmap(pub [u8; BYTES]);

impl PortBitmap {
    /// The bitmap of a domain with these grants.
    pub fn new(grants: &[PortGrant]) -> Self {
        let mut map = [0xFF; BYTES];
        for port in grants.iter().flat_map(|grant| grant.first..=grant.last) {
            map[usize::from(port / 8)] &= !(1 << (port % 8));
        }
        Self(map)
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
        let map = PortBitmap::new(&[grant(0x3F8, 0x3FF), grant(0xFFFF, 0xFFFF)]);
        let open = (0..=u16::MAX).filter(|port| map.allows(*port)).count();
        assert_eq!(open, 9);
        assert!(map.allows(0x3F8) && map.allows(0x3FF) && map.allows(0xFFFF));
        assert!(!map.allows(0x3F7) && !map.allows(0x400));
    }
}
