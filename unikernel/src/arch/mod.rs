//! From reset to `main`: entry code, translation tables, and the order in which the parts come up.
#![allow(unsafe_code)] // entry from assembly

use crate::fdt::{Fdt, Region};
use crate::platform::{self, Platform};
use crate::{clock, console, cpu, irq, psci};
use core::arch::global_asm;
use core::cell::UnsafeCell;

global_asm!(include_str!("boot.S"));
global_asm!(include_str!("vectors.S"));

const GIB: u64 = 1 << 30;
/// Level 1 block: valid, access flag, Device-nGnRE, never executable (DDI 0487, D8.3).
const DEVICE: u64 = 1 | 1 << 10 | 1 << 53 | 1 << 54;
/// Level 1 block: valid, access flag, Inner Shareable, Normal Write-Back, executable at EL1.
const NORMAL: u64 = 1 | 1 << 2 | 3 << 8 | 1 << 10 | 1 << 54;

/// Blocks of 1 GiB: 1 TiB, PCI windows of 64 bits included.
const BLOCKS: usize = 1024;

/// Two level 1 tables in a row.
#[repr(C, align(4096))]
struct Tables(UnsafeCell<[u64; BLOCKS]>);
// SAFETY: written by vCPU 0 during boot only, before another one runs.
unsafe impl Sync for Tables {}

/// What entry turns on: devices in the first GiB, this program in the second. In .data, so that it is there before .bss is.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.unikernel_tables")]
static unikernel_tables: Tables = Tables(UnsafeCell::new({
    let mut table = [0; BLOCKS];
    table[0] = DEVICE;
    table[1] = GIB | NORMAL;
    table
}));

unsafe extern "C" {
    fn unikernel_secondary_entry();
}

unsafe extern "Rust" {
    fn unikernel_main();
}

/// Where CPU_ON sends another vCPU of this domain.
pub(crate) fn secondary_entry() -> u64 {
    unikernel_secondary_entry as *const () as u64
}

/// Maps the rest of the address space: Normal where the memory is, Device elsewhere. Entries go from invalid to valid only,
/// so no TLB holds anything old. The hypervisor's stage 2 has the last word on both.
fn map_rest(memory: Region) {
    let table = unikernel_tables.0.get();
    for index in 2..BLOCKS {
        let base = index as u64 * GIB;
        let is_memory = base < memory.base + memory.size && memory.base < base + GIB;
        let entry = base | if is_memory { NORMAL } else { DEVICE };
        // SAFETY: `index` is below the number of entries.
        let slot = unsafe { table.cast::<u64>().add(index) };
        // SAFETY: inside the table; no other vCPU runs, and the walker sees an aligned doubleword change at once.
        unsafe { slot.write_volatile(entry) };
    }
    // SAFETY: makes the entries visible to the walker.
    unsafe { core::arch::asm!("dsb ishst", "isb", options(nostack)) };
}

/// First Rust function of vCPU 0: MMU and caches are on, .bss is clear, interrupts are masked.
#[unsafe(no_mangle)]
extern "C" fn unikernel_boot(dtb: usize) -> ! {
    clock::note_start();
    // SAFETY: x0 or the start of RAM; a tree is at most 2 MiB (Linux arm64 booting.rst), and RAM goes on behind it.
    let bytes = unsafe { core::slice::from_raw_parts(dtb as *const u8, 2 << 20) };
    // Without a platform there is no console to complain on and no PSCI to call.
    let Some(platform) = Fdt::new(bytes).and_then(Platform::read) else { psci::halt() };
    map_rest(platform.memory);
    platform::set(platform);
    console::init();
    irq::init();
    clock::init();
    cpu::unmask();
    // SAFETY: `entry!` defines it with this signature; a program without it does not link.
    unsafe { unikernel_main() };
    psci::system_off()
}

/// First Rust function of any other vCPU.
#[unsafe(no_mangle)]
extern "C" fn unikernel_secondary() -> ! {
    irq::init_cpu();
    clock::init();
    cpu::unmask();
    if let Some(entry) = psci::take_entry() {
        entry();
    }
    psci::cpu_off()
}
