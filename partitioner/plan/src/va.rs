//! The hypervisor's own address space at EL2, the same for every board.
//!
//! The image, linked at [`HYP_VA`], the plan behind it and the areas below are mapped one after the other; every gap is
//! unmapped, so a stack that overflows faults instead of reaching its neighbour. Below 4 GiB so that the small code
//! model and defmt's 32-bit addresses hold.

/// Where `hyp-min` is linked. The image's physical address `base + x` is mapped at `HYP_VA + x`.
pub const HYP_VA: u64 = 0xF000_0000;
/// Bytes of one CPU's area: its stack grows down from the end, its `PerCpu` lies at the end above the stack.
pub const CPU_AREA: u64 = 0x2000;
/// Bytes of one domain's area: run-time state and console ring.
pub const DOMAIN_AREA: u64 = 0x1000;
/// Unmapped bytes before each area.
pub const GUARD: u64 = 0x1000;
/// Translation granule at both stages.
pub const PAGE: u64 = 0x1000;
/// MAIR_EL2: attribute 0 Device-nGnRE, attribute 1 Normal Write-Back (DDI 0487, D19.2.97).
pub const MAIR: u64 = 0xFF04;
/// Attribute index of Device-nGnRE in [`MAIR`].
pub const ATTR_DEVICE: u64 = 0;
/// Attribute index of Normal Write-Back in [`MAIR`].
pub const ATTR_NORMAL: u64 = 1;
