//! Test doubles: a plan without a compiler, a frame without a GIC.

use super::{Frame, View, dist};
use cofferdam_plan::limits::INTID_WORDS;
use cofferdam_plan::{Cpu, CpuIndex, Domain, Header, HeaderFlags, IntId, Mpidr, Plan};
use core::cell::RefCell;
use zerocopy::FromZeros;

/// The hypervisor's own SGI.
pub(crate) const KICK: IntId = IntId(15);

/// The parts a plan borrows.
pub(crate) struct Board {
    header: Header,
    cpus: Vec<Cpu>,
    pub(crate) domains: Vec<Domain>,
    vcpus: Vec<CpuIndex>,
    pub(crate) icfgr: Vec<u32>,
}

/// A board whose domain d has vCPUs on the CPUs with these affinities. Every domain owns the SGIs but the kick and PPI 27;
/// SPI n (from 32) belongs to domain n modulo the number of domains + 1, the last share to nobody.
pub(crate) fn board(domains: &[&[u64]]) -> Board {
    let mut header = Header::new_zeroed();
    header.kick_sgi = KICK;
    header.gicd_words = 32;
    let mut board = Board {
        header,
        cpus: Vec::new(),
        domains: Vec::new(),
        vcpus: Vec::new(),
        icfgr: (0..62u32).map(|i| i.wrapping_mul(0x9E37_79B9) & 0xAAAA_AAAA).collect(),
    };
    for (index, mpidrs) in domains.iter().enumerate() {
        let mut domain = Domain::new_zeroed();
        domain.first_vcpu = board.vcpus.len() as u32;
        domain.vcpu_count = mpidrs.len() as u32;
        domain.gicd_typer = 0x0378_0008;
        domain.owned = [0; INTID_WORDS];
        domain.owned[0] = 0x0800_7FFF;
        for intid in (32..1020).filter(|i| i % (domains.len() + 1) == index) {
            domain.owned[intid / 32] |= 1 << (intid % 32);
        }
        board.domains.push(domain);
        for (vcpu, mpidr) in mpidrs.iter().enumerate() {
            board.vcpus.push(CpuIndex(board.cpus.len() as u16));
            let mut cpu = Cpu::new_zeroed();
            cpu.mpidr = Mpidr(*mpidr);
            cpu.gicv2_target = 1 << (board.cpus.len() % 8);
            cpu.domain = index as u16;
            cpu.vcpu = vcpu as u16;
            board.cpus.push(cpu);
        }
    }
    board
}

impl Board {
    /// Runs `run` with the plan.
    pub(crate) fn with<R>(&self, run: impl FnOnce(&Plan<'_>) -> R) -> R {
        run(&Plan {
            bytes: &[],
            header: &self.header,
            cpus: &self.cpus,
            domains: &self.domains,
            vcpus: &self.vcpus,
            spis: &[],
            icfgr: &self.icfgr,
            moves: &[],
            probes: &[],
            scrubs: &[],
            reloads: &[],
            pci: None,
        })
    }

    /// The same board with a GICv2; the n-th CPU has CPU interface n.
    pub(crate) fn with_gicv2(mut self) -> Self {
        self.header.flags |= HeaderFlags::GICV2;
        self
    }

    /// Runs `run` with the view of vCPU 0 of domain `domain`.
    pub(crate) fn view<R>(&self, domain: usize, dist: &dist::State, run: impl FnOnce(&View<'_>) -> R) -> R {
        self.with(|plan| run(&View { plan, domain: &plan.domains[domain], vcpu: 0, dist }))
    }
}

/// One access a frame has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) offset: u32,
    pub(crate) size: u8,
    pub(crate) write: Option<u64>,
}

/// Plain memory that remembers what was done to it.
pub(crate) struct Memory {
    pub(crate) bytes: RefCell<Vec<u8>>,
    pub(crate) seen: RefCell<Vec<Seen>>,
}

impl Memory {
    /// `len` bytes of `fill`.
    pub(crate) fn new(len: usize, fill: u8) -> Self {
        Self { bytes: RefCell::new(vec![fill; len]), seen: RefCell::default() }
    }

    /// What was written since the last call.
    pub(crate) fn writes(&self) -> Vec<(u32, u8, u64)> {
        let seen: Vec<Seen> = self.seen.borrow_mut().drain(..).collect();
        seen.iter().filter_map(|s| Some((s.offset, s.size, s.write?))).collect()
    }

    /// Sets `size` bytes, unseen.
    pub(crate) fn set(&self, offset: u32, size: u8, value: u64) {
        let at = offset as usize;
        self.bytes.borrow_mut()[at..at + usize::from(size)].copy_from_slice(&value.to_le_bytes()[..usize::from(size)]);
    }

    /// Gets `size` bytes, unseen.
    pub(crate) fn get(&self, offset: u32, size: u8) -> u64 {
        let mut value = [0; 8];
        let at = offset as usize;
        value[..usize::from(size)].copy_from_slice(&self.bytes.borrow()[at..at + usize::from(size)]);
        u64::from_le_bytes(value)
    }

    fn check(offset: u32, size: u8) {
        assert!(matches!(size, 1 | 4 | 8) && offset.is_multiple_of(u32::from(size)), "{offset:#x} by {size}");
    }
}

impl Frame for &Memory {
    fn read(&self, offset: u32, size: u8) -> u64 {
        Memory::check(offset, size);
        self.seen.borrow_mut().push(Seen { offset, size, write: None });
        self.get(offset, size)
    }

    fn write(&self, offset: u32, size: u8, value: u64) {
        Memory::check(offset, size);
        assert!(size == 8 || value >> (u32::from(size) * 8) == 0, "{value:#x} does not fit {size} bytes");
        self.seen.borrow_mut().push(Seen { offset, size, write: Some(value) });
        self.set(offset, size, value);
    }
}

/// Numbers that look random and are the same in every run (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
}
