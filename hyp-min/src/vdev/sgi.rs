//! Software-generated interrupts: what a guest's `ICC_SGI1R_EL1` write becomes on the physical register.
//!
//! A guest names vCPUs (Aff0 = number, Aff1 to Aff3 zero); only CPUs of its own domain are ever written. SGI0R and ASGI1R
//! have no function here at all: the caller drops them.

use cofferdam_plan::limits::MAX_VCPUS;
use cofferdam_plan::{Domain, IntId, Mpidr, Plan};

// Fields of ICC_SGI1R_EL1 (IHI 0069, 12.2.17).
const TARGET_LIST: u64 = 0xFFFF;
const INTID_SHIFT: u32 = 24;
const IRM: u64 = 1 << 40;
const RS_SHIFT: u32 = 44;
/// Aff3 55:48, RS 47:44, Aff2 39:32, Aff1 23:16: a guest's CPUs all have zero here.
const FOREIGN: u64 = 0xFF << 48 | 0xF << RS_SHIFT | 0xFF << 32 | 0xFF << 16;

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
    /// No targets: every write is dropped.
    pub const fn none() -> Self {
        Self { of: [0; MAX_VCPUS], all: 0, allowed: 0 }
    }

    /// The targets of `domain`, and the SGIs it owns.
    pub fn new(plan: &Plan<'_>, domain: &Domain) -> Self {
        let mut targets = Self::none();
        targets.allowed = domain.owned.first().copied().unwrap_or(0) & 0xFFFF & !sgi_bit(plan.header.kick_sgi);
        let cpus = plan.vcpus_of(domain).unwrap_or(&[]);
        for (vcpu, (slot, index)) in targets.of.iter_mut().zip(cpus).enumerate() {
            if let Some(cpu) = plan.cpus.get(usize::from(index.0)) {
                *slot = target(cpu.mpidr);
                targets.all |= 1 << vcpu;
            }
        }
        targets
    }

    /// Calls `send` with each physical `ICC_SGI1R_EL1` value that the guest's write `value` on vCPU `me` stands for:
    /// none where nothing is granted, at most [`MAX_VCPUS`].
    #[inline(always)]
    pub fn expand(&self, me: usize, value: u64, mut send: impl FnMut(u64)) {
        let intid = value & 0xF << INTID_SHIFT;
        let list = value & TARGET_LIST;
        let addressed = self.allowed & 1 << (intid >> INTID_SHIFT) != 0 && value & (FOREIGN | IRM) == 0;
        // The common case: one target. `list` is not zero, so the index is below 16.
        if addressed && list.is_power_of_two() {
            if list & u64::from(self.all) != 0 {
                send(self.of[list.trailing_zeros() as usize & (MAX_VCPUS - 1)] | intid);
            }
            return;
        }
        self.expand_rest(me, value, &mut send);
    }

    /// Several targets, or all but oneself (IRM), where affinity and RS mean nothing (IHI 0069, 12.2.17).
    #[inline(never)]
    fn expand_rest(&self, me: usize, value: u64, send: &mut dyn FnMut(u64)) {
        let intid = value & 0xF << INTID_SHIFT;
        if self.allowed & 1 << (intid >> INTID_SHIFT) == 0 {
            return;
        }
        let mut left = if value & IRM != 0 {
            self.all & !1u32.checked_shl(me as u32).unwrap_or(0)
        } else if value & FOREIGN == 0 {
            self.all & value as u32 & TARGET_LIST as u32
        } else {
            0
        };
        // One write per cluster: targets that differ in nothing but the target list go together.
        for vcpu in 0..MAX_VCPUS {
            if left & 1 << vcpu == 0 {
                continue;
            }
            let cluster = self.of[vcpu] & !TARGET_LIST;
            let mut write = cluster | intid;
            for (other, target) in self.of.iter().enumerate().skip(vcpu) {
                if left & 1 << other != 0 && target & !TARGET_LIST == cluster {
                    write |= target & TARGET_LIST;
                    left &= !(1 << other);
                }
            }
            send(write);
        }
    }

    /// The physical `ICC_SGI0R_EL1` value that sends `kick`, the hypervisor's own Group 0 SGI, to vCPU `vcpu`.
    pub fn kick(&self, vcpu: usize, kick: IntId) -> Option<u64> {
        if self.all & 1u32.checked_shl(vcpu as u32)? == 0 {
            return None;
        }
        Some(self.of.get(vcpu)? | u64::from(kick.0 & 0xF) << INTID_SHIFT)
    }
}

/// Aff3, RS, Aff2, Aff1 and the target list bit for the CPU `mpidr`. RS is Aff0's upper half: a CPU with Aff0 above 15
/// exists only where the GIC implements range selectors.
pub const fn target(mpidr: Mpidr) -> u64 {
    let (aff3, aff2, aff1, aff0) = (mpidr.0 >> 32 & 0xFF, mpidr.0 >> 16 & 0xFF, mpidr.0 >> 8 & 0xFF, mpidr.0 & 0xFF);
    aff3 << 48 | (aff0 >> 4) << RS_SHIFT | aff2 << 32 | aff1 << 16 | 1 << (aff0 & 0xF)
}

/// The bit of SGI `intid`, 0 where it is none.
const fn sgi_bit(intid: IntId) -> u32 {
    if intid.0 < 16 { 1 << intid.0 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Board};
    use super::*;

    fn sent(targets: &Targets, me: usize, value: u64) -> Vec<u64> {
        let mut all = Vec::new();
        targets.expand(me, value, |v| all.push(v));
        all
    }

    /// Four vCPUs over two clusters and one CPU that needs a range selector.
    fn board() -> Board {
        fake::board(&[&[0x0, 0x100, 0x1, 0x1_0000_0012], &[0x2, 0x3]])
    }

    fn with_targets<R>(domain: usize, run: impl FnOnce(&Targets) -> R) -> R {
        let board = board();
        board.with(|plan| run(&Targets::new(plan, &plan.domains[domain])))
    }

    #[test]
    fn one_target() {
        with_targets(0, |t| {
            assert_eq!(sent(t, 0, 1 | 5 << 24), [1 | 5 << 24]);
            assert_eq!(sent(t, 0, 2 | 5 << 24), [1 | 1 << 16 | 5 << 24], "vCPU 1 is CPU 1.0");
            assert_eq!(sent(t, 0, 8), [1 << 48 | 1 << 44 | 1 << 2], "Aff0 0x12 by range selector");
            assert_eq!(sent(t, 0, 16), [], "no vCPU 4");
        });
        with_targets(1, |t| assert_eq!(sent(t, 0, 1), [1 << 2], "vCPU 0 of the second domain is CPU 2"));
    }

    #[test]
    fn lists_are_cut_to_own_and_grouped_by_cluster() {
        with_targets(0, |t| {
            assert_eq!(sent(t, 0, 0xFFFF), [0b11, 1 | 1 << 16, 1 << 48 | 1 << 44 | 1 << 2]);
            assert_eq!(sent(t, 0, 0), []);
            assert_eq!(sent(t, 0, 0xFFF0), []);
        });
    }

    #[test]
    fn all_but_self() {
        with_targets(0, |t| {
            assert_eq!(sent(t, 0, IRM), [1 | 1 << 16, 0b10, 1 << 48 | 1 << 44 | 1 << 2]);
            assert_eq!(sent(t, 3, IRM | FOREIGN | 0xFFFF), [0b11, 1 | 1 << 16], "affinity means nothing with IRM");
            assert_eq!(sent(t, 99, IRM).len(), 3, "a caller's mistake stays inside the domain");
        });
    }

    #[test]
    fn foreign_affinity_and_range_selector_are_dropped() {
        with_targets(0, |t| {
            for bit in (16..24).chain(32..40).chain(44..56) {
                assert_eq!(sent(t, 0, 1 | 1 << bit), [], "bit {bit}");
                assert_eq!(sent(t, 0, 3 | 1 << bit), [], "bit {bit}");
            }
        });
    }

    #[test]
    fn the_kick_is_refused() {
        with_targets(0, |t| {
            let kick = u64::from(fake::KICK.0) << 24;
            assert_eq!(sent(t, 0, 1 | kick), []);
            assert_eq!(sent(t, 0, 3 | kick), []);
            assert_eq!(sent(t, 0, IRM | kick), []);
            assert_eq!(t.kick(1, fake::KICK), Some(1 | 1 << 16 | kick));
            assert_eq!(t.kick(4, fake::KICK), None);
            assert_eq!(t.kick(64, fake::KICK), None);
        });
    }

    #[test]
    fn no_value_reaches_a_foreign_cpu() {
        let board = board();
        board.with(|plan| {
            let own: Vec<Vec<u64>> = plan
                .domains
                .iter()
                .map(|d| plan.vcpus_of(d).unwrap().iter().map(|c| target(plan.cpus[usize::from(c.0)].mpidr)).collect())
                .collect();
            let mut random = fake::Random::new(7);
            for _ in 0..100_000 {
                let (value, d) = (random.next(), random.next() as usize % 2);
                Targets::new(plan, &plan.domains[d]).expand(random.next() as usize % 4, value, |write| {
                    assert_eq!(write & IRM, 0);
                    assert_ne!(write >> 24 & 0xF, u64::from(fake::KICK.0));
                    for bit in 0..16 {
                        if write & 1 << bit != 0 {
                            let one = write & !(TARGET_LIST | 0xF << 24) | 1 << bit;
                            assert!(own[d].contains(&one), "{value:#x} -> {write:#x}");
                        }
                    }
                });
            }
        });
    }
}
