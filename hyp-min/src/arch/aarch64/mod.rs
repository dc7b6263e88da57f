//! Everything that is Arm's: the way up to Rust, vectors, registers, traps, and what a trap makes EL2 do.
//!
//! Knows no board: addresses come from the plan.
#![allow(unsafe_code)] // assembly

pub(crate) mod calls;
pub(crate) mod enter;
pub(crate) mod features;
pub(crate) mod firmware;
mod granted;
pub(crate) mod inject;
pub(crate) mod inject2;
pub(crate) mod park;
pub(crate) mod percpu;
pub(crate) mod registers;
pub(crate) mod restart;
pub(crate) mod revoke;
pub(crate) mod traps;

use crate::dev::{gicv2, gicv3};
use cofferdam_plan::limits::MAX_RECORDS;
use cofferdam_plan::{Cpu, Header, MAGIC, VERSION, va};
use core::arch::global_asm;
use core::mem::{offset_of, size_of};

global_asm!(
    include_str!("boot.S"),
    include_str!("boot_off.S"),
    MAGIC = const MAGIC,
    VERSION = const VERSION,
    MAX_RECORDS = const MAX_RECORDS,
    HEADER_SIZE = const size_of::<Header>(),
    H_MOVES = const offset_of!(Header, moves),
    H_PROBES = const offset_of!(Header, probes),
    H_CPUS = const offset_of!(Header, cpus),
    H_SPARE = const offset_of!(Header, spare_area_va),
    CPU_SIZE = const size_of::<Cpu>(),
    CPU_AREA_AT = const offset_of!(Cpu, area_va),
    AREA = const va::CPU_AREA,
    PER_CPU = const size_of::<percpu::PerCpu>(),
    MAIR = const va::MAIR,
    SCTLR_ON = const registers::SCTLR_ON,
    SCTLR_OFF = const registers::SCTLR_OFF,
    HCR_BOOT = const registers::HCR_BOOT,
);
global_asm!(
    include_str!("vectors.S"),
    SCTLR_EL1 = const registers::SCTLR_EL1_RESET,
    MAINTENANCE = const gicv3::MAINTENANCE.0,
    LISTS = const percpu::LISTS,
    PCI = const crate::pci::PRESENT as u32,
    FIRST_LPI = const cofferdam_plan::pci::FIRST_LPI,
    LPI_COUNT = const percpu::LPI_COUNT,
    LPIS = const percpu::LPIS,
    DISTRIBUTOR = const percpu::DISTRIBUTOR,
    ISPENDR = const gicv3::ISPENDR,
    GICC = const percpu::GICC,
    IAR = const gicv2::GICC_IAR,
    EOIR = const gicv2::GICC_EOIR,
    RPR = const gicv2::GICC_RPR,
    // GICH is mapped behind GICC.
    ELRSR = const va::PAGE + gicv2::GICH_ELRSR as u64,
    LR0 = const va::PAGE + gicv2::GICH_LR as u64,
);

unsafe extern "C" {
    /// First byte of the image, mapped at [`va::HYP_VA`].
    static _head: u8;
    /// Where a planned CPU starts after PSCI CPU_ON.
    static _secondary_entry: u8;
    /// First byte behind the image: the plan.
    static _plan: u8;
    /// The vector table of EL2.
    static vectors: u8;
    /// The same where interrupts are injected from a GICv3.
    static vectors_injected: u8;
    /// See boot.S.
    static scrub_off: u8;
    /// See boot.S.
    static reload: u8;
}
// Never entered from Rust with anything but what vectors.S says at each label.
unsafe extern "C" {
    fn enter_guest(entry: u64, x0: u64) -> !;
    safe fn read_id(index: u64) -> u64;
    safe fn clear_list_registers(count: u64);
    safe fn clear_scalable();
    safe fn clear_breakpoints(count: u64);
    safe fn clear_watchpoints(count: u64);
    safe fn read_list_register(n: u64) -> u64;
    safe fn write_list_register(n: u64, value: u64);
    pub(crate) fn clear_memory(start: *mut u8, bytes: u64);
    pub(crate) fn probe_word(address: u64) -> u64;
    pub(crate) fn probe_store(address: u64, value: u64);
    fn call_scrub(ranges: u64, count: u64, routine: u64);
    fn call_reload(to: u64, from: u64, len: u64, zero: u64, root: u64, routine: u64);
}

/// Distance of a symbol of the image from its start.
fn offset_in_image(symbol: &u8) -> u64 {
    // SAFETY: only the address is taken; the linker script places the symbol.
    let head = unsafe { &_head };
    core::ptr::from_ref(symbol) as u64 - core::ptr::from_ref(head) as u64
}

/// Offset of the plan in the image.
pub(crate) fn plan_offset() -> u64 {
    // SAFETY: only the address is taken.
    offset_in_image(unsafe { &_plan })
}

/// Offset of the secondaries' entry in the image.
pub(crate) fn secondary_offset() -> u64 {
    // SAFETY: only the address is taken.
    offset_in_image(unsafe { &_secondary_entry })
}

/// The plan's header and records, as the stub has checked them.
pub(crate) fn plan_bytes() -> &'static [u8] {
    let start = &raw const _plan;
    // SAFETY: the header lies there, 4 KiB aligned; `records_len` is at 16, asserted in the plan crate.
    let place = unsafe { start.add(16) };
    // SAFETY: as above.
    let len = unsafe { place.cast::<u32>().read() };
    // SAFETY: the stub has found MAGIC, a plausible length and the checksum here; EL2 maps the blob read-only and nothing
    // writes it (the stage-2 roots that revocation clears lie behind the records).
    unsafe { core::slice::from_raw_parts(start, len as usize) }
}
