//! Software-generated interrupts: what a guest's `ICC_SGI1R_EL1` write becomes on the physical register.

use cofferdam_plan::limits::MAX_VCPUS;
use cofferdam_plan::{Domain, IntId, Plan};

/// The vCPUs of one domain as targets. Built once at boot, then read only.
#[derive(Clone, Copy, Debug)]
pub struct Targets {
    /// Per vCPU: Aff3, RS, Aff2, Aff1 and the one target list bit, as `ICC_SGI1R_EL1` wants them.
    of: [u64; MAX_VCPUS],
    /// Bit per vCPU that exists.
    all: u32,
    /// Bit per SGI the guest may send.
    allowed: u32,
}

impl Targets {
    /// The targets of `domain`.
    pub fn new(plan: &Plan<'_>, domain: &Domain) -> Self {
        let _ = (plan, domain);
        Self { of: [0; MAX_VCPUS], all: 0, allowed: 0 }
    }

    /// Calls `send` with each physical `ICC_SGI1R_EL1` value that the guest's write `value` on vCPU `me` stands for:
    /// none where nothing is granted, at most [`MAX_VCPUS`].
    #[inline]
    pub fn expand(&self, me: usize, value: u64, send: impl FnMut(u64)) {
        let _ = (me, value, send, self.of, self.all, self.allowed);
    }

    /// The physical `ICC_SGI0R_EL1` value that sends `kick` (the hypervisor's own SGI, Group 0) to vCPU `vcpu`.
    pub fn kick(&self, vcpu: usize, kick: IntId) -> Option<u64> {
        let _ = kick;
        self.of.get(vcpu).copied()
    }
}
