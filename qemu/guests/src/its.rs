//! The interrupt translation service on the bare machine: one message of one device becomes the first LPI, on this CPU. What a
//! message costs where no hypervisor is.
#![allow(unsafe_code)] // tables that hardware reads

use core::cell::UnsafeCell;
use unikernel::cpu;
use unikernel::fdt::Region;
use unikernel::mmio::Registers;

/// First LPI (IHI 0069, 2.2).
pub const LPI: u32 = 8192;
/// Offset of GITS_TRANSLATER from the control frame (12.18).
const TRANSLATER: u64 = 0x1_0040;

// Redistributor (12.11) and ITS (12.19).
const GICR_CTLR: usize = 0x00;
const GICR_PROPBASER: usize = 0x70;
const GICR_PENDBASER: usize = 0x78;
const GITS_CTLR: usize = 0x00;
const GITS_CBASER: usize = 0x80;
const GITS_CWRITER: usize = 0x88;
const GITS_BASER: usize = 0x100;
const VALID: u64 = 1 << 63;
/// Bits of INTID, less one: 8,192 LPIs.
const ID_BITS: u64 = 13;
/// LPI configuration (5.1.1): enabled, priority 0xA0.
const ENABLED: u8 = 0xA3;

/// What ITS and redistributor read. Pending LPIs lie at a multiple of 64 KiB.
#[repr(C, align(0x10000))]
struct Tables {
    pending: [u8; 0x1000],
    devices: [u8; 0x1000],
    collections: [u8; 0x1000],
    translation: [u8; 0x1000],
    properties: [u8; 0x2000],
    commands: [[u64; 4]; 128],
}
struct Cell(UnsafeCell<Tables>);
// SAFETY: written by one vCPU, before the hardware is told of it.
unsafe impl Sync for Cell {}
static TABLES: Cell = Cell(UnsafeCell::new(Tables {
    pending: [0; 0x1000],
    devices: [0; 0x1000],
    collections: [0; 0x1000],
    translation: [0; 0x1000],
    properties: [0; 0x2000],
    commands: [[0; 4]; 128],
}));

/// Makes `event` of `device` (both small) the LPI [`LPI`] of the CPU whose redistributor is the first; the address messages go to.
pub fn translate(its: Region, redistributors: Region, device: u32, event: u32) -> u64 {
    // SAFETY: called once, by the one vCPU.
    let tables = unsafe { &mut *TABLES.0.get() };
    tables.properties[0] = ENABLED;
    let at = |table: &[u8]| table.as_ptr() as u64;
    let device = u64::from(device) << 32;
    // MAPC, MAPD, MAPTI, INV, SYNC (5.3): collection 0 is this CPU's, processor number 0.
    let commands = [
        [0x09, 0, VALID, 0],
        [0x08 | device, 4, VALID | at(&tables.translation), 0],
        [0x0A | device, u64::from(event) | u64::from(LPI) << 32, 0, 0],
        [0x0C | device, u64::from(event), 0, 0],
        [0x05, 0, 0, 0],
    ];
    tables.commands[..commands.len()].copy_from_slice(&commands);
    cpu::publish();
    let (own, registers) = (Registers::new(redistributors), Registers::new(its));
    own.write64(GICR_PROPBASER, at(&tables.properties) | ID_BITS);
    own.write64(GICR_PENDBASER, at(&tables.pending) | 1 << 62);
    own.write(GICR_CTLR, 1);
    registers.write64(GITS_BASER, VALID | at(&tables.devices));
    registers.write64(GITS_BASER + 8, VALID | at(&tables.collections));
    registers.write64(GITS_CBASER, VALID | tables.commands.as_ptr() as u64);
    registers.write(GITS_CTLR, 1);
    registers.write64(GITS_CWRITER, size_of_val(&commands) as u64);
    its.base + TRANSLATER
}
