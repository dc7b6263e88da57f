//! Emulation that decides: what a trapped access means for the domain that made it.
//!
//! Nothing here touches hardware, blocks, panics or trusts a guest's value; registers are reached through [`Frame`],
//! which a test replaces by an array. Every loop is bounded by a constant of the plan.

pub mod chord;
pub mod config;
pub mod console;
pub mod dist;
pub mod dist2;
mod encode;
#[cfg(test)]
mod fake;
pub mod idreg;
pub mod inject;
pub mod its;
pub mod lock;
pub mod msi_frame;
pub mod psci;
pub mod redist;
pub mod ring;
pub mod sgi;
pub mod smmu;
pub mod syndrome;
pub mod sysreg;
pub mod vuart;
pub mod watchdog;

use cofferdam_plan::{Domain, Mpidr, Plan};

/// What becomes of a trapped access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Handled; a read returns this value (zero-extended), a write ignores it.
    Handled(u64),
    /// Not granted: the guest gets a synchronous external abort.
    Abort,
}

/// One guest access to an emulated frame, decoded from the syndrome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Byte offset from the start of the frame.
    pub offset: u32,
    /// Bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// The value written (already truncated to `size`), `None` for a read.
    pub write: Option<u64>,
}

/// A frame of physical registers. Offsets are within the frame and aligned to the access.
pub trait Frame {
    /// Reads `size` bytes (1, 4 or 8).
    fn read(&self, offset: u32, size: u8) -> u64;
    /// Writes `size` bytes (1, 4 or 8).
    fn write(&self, offset: u32, size: u8, value: u64);
}

/// A domain as the virtual interrupt controller of one of its vCPUs sees it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The plan.
    pub plan: &'a Plan<'a>,
    /// The domain's record in it.
    pub domain: &'a Domain,
    /// The vCPU that looks.
    pub vcpu: usize,
    /// What of its virtual distributor is not in the hardware. One for all vCPUs of the domain.
    pub dist: &'a dist::State,
}

impl View<'_> {
    /// Affinity of the CPU that carries vCPU `vcpu`, `None` where the domain has no such vCPU.
    #[inline]
    pub fn mpidr(&self, vcpu: usize) -> Option<Mpidr> {
        let cpu = self.plan.vcpus_of(self.domain)?.get(vcpu)?;
        Some(self.plan.cpus.get(usize::from(cpu.0))?.mpidr)
    }
    /// The vCPU that the CPU with affinity `mpidr` carries, `None` where it is not the domain's.
    pub fn vcpu(&self, mpidr: Mpidr) -> Option<usize> {
        let cpus = self.plan.vcpus_of(self.domain)?;
        cpus.iter().position(|cpu| self.plan.cpus.get(usize::from(cpu.0)).is_some_and(|cpu| cpu.mpidr == mpidr))
    }
}
