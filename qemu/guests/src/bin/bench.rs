//! Costs seen from inside a guest, for `cargo xtask bench`: one line per figure, in counter ticks.
//!
//! Under `-icount shift=0` and a counter of 1 GHz a tick is an instruction. Each figure is 1,000 repetitions of one sequence of
//! instructions, written out so that the compiler adds nothing; what the sequence costs without its subject is subtracted.
#![no_std]
#![no_main]
#![allow(unsafe_code)] // instructions counted one by one

use attackers::its;
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};
use unikernel::pci::{Function, Host};
use unikernel::platform::{GicFrames, platform};
use unikernel::{cpu, irq, println, read_sysreg, write_sysreg};

unikernel::entry!(main);

const RUNS: usize = 1000;
/// SGI the measurement sends itself.
const SGI: u32 = 1;

// The guest's first instruction reads the counter; the runtime starts after that. The place it is kept in is initialised
// data, so that clearing .bss leaves it alone.
global_asm!(
    ".section .text.bench, \"ax\"",
    ".global bench_start",
    "bench_start:",
    "mrs x1, cntpct_el0",
    "adrp x2, BENCH_ENTRY",
    "add x2, x2, :lo12:BENCH_ENTRY",
    "str x1, [x2]",
    "b _start",
    // Interrupts: the counter first; the first one's goes to x11 and is told by x12. The timer is set again, so that one
    // that came just before a WFI does not leave that asleep. A device whose line is to fall is told so at x15.
    ".balign 0x800",
    "bench_vectors:",
    ".space 0x280",
    "mrs x14, cntvct_el0",
    "mrs x13, icc_iar1_el1",
    "cbnz x12, 1f",
    "mov x11, x14",
    "1: cbz x15, 2f",
    "str w10, [x15]",
    "2: add x14, x14, #0x100, lsl #12",
    "msr cntv_cval_el0, x14",
    "isb",
    "msr icc_eoir1_el1, x13",
    "mov x12, #1",
    "eret",
    // The same with a GICv2, whose CPU interface lies in memory.
    ".balign 0x800",
    "bench_vectors_v2:",
    ".space 0x280",
    "mrs x14, cntvct_el0",
    "cbnz x12, 1f",
    "mov x11, x14",
    "1: adrp x13, BENCH_INTERFACE",
    "ldr x13, [x13, :lo12:BENCH_INTERFACE]",
    "ldr w14, [x13, #0x0C]", // GICC_IAR
    "mrs x12, cntvct_el0",
    "add x12, x12, #0x100, lsl #12",
    "msr cntv_cval_el0, x12",
    "isb",
    "str w14, [x13, #0x10]", // GICC_EOIR
    "mov x12, #1",
    "eret",
    ".balign 0x800",
);

unsafe extern "C" {
    static bench_vectors: u8;
    static bench_vectors_v2: u8;
}

/// Where a GICv2's CPU interface is.
#[unsafe(no_mangle)]
static BENCH_INTERFACE: AtomicU64 = AtomicU64::new(0);

#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.bench_entry")]
static BENCH_ENTRY: AtomicU64 = AtomicU64::new(u64::MAX);

struct Samples(UnsafeCell<[u64; RUNS]>);
// SAFETY: used by the one vCPU's main only.
unsafe impl Sync for Samples {}
static SAMPLES: Samples = Samples(UnsafeCell::new([0; RUNS]));

/// Counter ticks from before the first line to after the last one.
macro_rules! timed {
    ($($text:literal),*; $($operand:tt)*) => {{
        let (before, after): (u64, u64);
        // SAFETY: a measured instruction on registers of this domain.
        unsafe {
            asm!(
                "isb", "mrs x9, cntvct_el0", $($text,)* "mrs x10, cntvct_el0",
                out("x9") before, out("x10") after, $($operand)*
            )
        };
        after - before
    }};
}

/// Median and worst of [`RUNS`] times `f`.
fn measure(name: &str, null: u64, mut f: impl FnMut() -> u64) {
    // SAFETY: nobody else refers to it.
    let samples = unsafe { &mut *SAMPLES.0.get() };
    samples.iter_mut().for_each(|sample| *sample = f().saturating_sub(null));
    samples.sort_unstable();
    println!("bench {name} {} {}", samples[RUNS / 2], samples[RUNS - 1]);
}

/// Runs `f` with the measuring vectors in place.
fn with_vectors<R>(f: impl FnOnce() -> R) -> R {
    let before = read_sysreg!("vbar_el1");
    let is_v2 = BENCH_INTERFACE.load(Ordering::Relaxed) != 0;
    let vectors = if is_v2 { &raw const bench_vectors_v2 } else { &raw const bench_vectors };
    write_sysreg!("vbar_el1", vectors as u64);
    cpu::isb();
    let result = f();
    write_sysreg!("vbar_el1", before);
    cpu::isb();
    result
}

fn sgi() -> u64 {
    let (before, at): (u64, u64);
    // SAFETY: the vector above changes x11 to x14 and nothing else.
    unsafe {
        asm!(
            "mov x12, #0", "mov x15, #0", "isb", "mrs x9, cntvct_el0", "msr icc_sgi1r_el1, x10", "2: cbz x12, 2b",
            out("x9") before, in("x10") u64::from(SGI) << 24 | 1, out("x11") at, out("x12") _, out("x13") _, out("x14") _, out("x15") _, options(nostack)
        )
    };
    at - before
}

/// From a store of `value` to `raise`, which makes an interrupt, to the vector's first instruction; the vector writes the same to
/// `quiet` unless that is 0, with a GICv3.
fn stored(raise: u64, value: u32, quiet: u64) -> u64 {
    let (before, at): (u64, u64);
    // SAFETY: as `sgi`; the stores are to a device of this domain.
    unsafe {
        asm!(
            "mov x12, #0", "isb", "mrs x9, cntvct_el0", "str w10, [x16]", "2: cbz x12, 2b",
            out("x9") before, in("x10") u64::from(value), in("x16") raise, in("x15") quiet,
            out("x11") at, out("x12") _, out("x13") _, out("x14") _, options(nostack)
        )
    };
    at - before
}

/// From the timer's expiry to the vector's first instruction; busy, or asleep.
fn timer(asleep: bool) -> u64 {
    let at: u64;
    let due = read_sysreg!("cntvct_el0") + 5000;
    write_sysreg!("cntv_cval_el0", due);
    if asleep {
        // SAFETY: as `sgi`.
        unsafe {
            asm!(
                "mov x12, #0", "mov x15, #0", "msr cntv_ctl_el0, x10", "isb", "2: wfi", "cbz x12, 2b",
                in("x10") 1u64, out("x11") at, out("x12") _, out("x13") _, out("x14") _, out("x15") _, options(nostack)
            )
        }
    } else {
        // SAFETY: as `sgi`.
        unsafe {
            asm!(
                "mov x12, #0", "mov x15, #0", "msr cntv_ctl_el0, x10", "isb", "2: cbz x12, 2b",
                in("x10") 1u64, out("x11") at, out("x12") _, out("x13") _, out("x14") _, out("x15") _, options(nostack)
            )
        }
    }
    write_sysreg!("cntv_ctl_el0", 0);
    at - due
}

fn main() {
    println!("bench entry {}", BENCH_ENTRY.load(Ordering::Relaxed));
    let null = timed!(; options(nostack));
    measure("null", 0, || timed!(; options(nostack)));
    measure("hvc", null, || timed!("hvc #0"; inout("x0") 0x8400_0000u64 => _, clobber_abi("C")));
    let Some(gic) = platform().gic else { return println!("bench needs a GIC") };
    let typer = gic.distributor.base + 4;
    measure("gicd-read", null, || timed!("ldr w0, [x1]"; out("x0") _, in("x1") typer));
    match platform().console.and_then(|console| console.intid) {
        Some(intid) => {
            let register = gic.distributor.base + 0x100 + u64::from(intid / 32 * 4);
            let bit = 1u64 << (intid % 32);
            measure("gicd-write", null, || timed!("str w0, [x1]"; in("x0") bit, in("x1") register));
        }
        None => println!("bench gicd-write n/a"),
    }
    if let Some(host) = Host::find() {
        measure_functions(host, null);
    }
    irq::enable(SGI);
    if let GicFrames::V2 { interface } = gic.frames {
        BENCH_INTERFACE.store(interface.base, Ordering::Relaxed);
        // GICD_SGIR: to the CPU interface that asks (IHI 0048, 4.3.15).
        let register = gic.distributor.base + 0xF00;
        with_vectors(|| measure_vectors(null, || stored(register, 2 << 24 | SGI, 0)));
    } else {
        with_vectors(|| measure_vectors(null, sgi));
    }
    println!("bench end");
}

/// What QEMU's `edu` (docs/specs/edu.rst) tells: configuration space, and its interrupt by pin and by message.
fn measure_functions(host: Host, null: u64) {
    const EDU: u32 = 0x11E8_1234;
    let (raise, acknowledge) = (0x60, 0x64);
    let Some(edu) = host.functions().find(|function| host.id(*function) == EDU) else { return };
    let register = host.address(edu);
    let read = |register: u64| timed!("ldr w0, [x1]"; out("x0") _, in("x1") register);
    // What has been read is written back: nothing changes, but for statuses that this clears.
    let write = |register: u64| {
        // SAFETY: a register of configuration space, aligned; nobody else uses it.
        let value = unsafe { (register as *const u32).read_volatile() };
        timed!("str w0, [x1]"; in("x0") u64::from(value), in("x1") register)
    };
    measure("config-read", null, || read(register));
    let worst = slowest(host, read);
    measure("config-read-slowest", null, || read(worst));
    let worst = slowest(host, write);
    measure("config-write-slowest", null, || write(worst));
    if !host.enable(edu) {
        return println!("bench: edu has no address");
    }
    let base = u64::from(host.read(edu, 0x10) & !0xF);
    let run = |name| with_vectors(|| measure(name, null, || stored(base + raise, 1, base + acknowledge)));
    if let Some(intid) = host.interrupt(edu) {
        irq::enable(intid);
        run("pin");
        irq::disable(intid);
    }
    let Some((address, data)) = message(u32::from(edu.0)) else { return };
    // MSI, its capability at 0x40: 64 bits of address, data, enable (PCI Express Base 5.0, 7.7.1).
    host.write(edu, 0x44, address as u32);
    host.write(edu, 0x48, (address >> 32) as u32);
    host.write(edu, 0x4C, data);
    host.write(edu, 0x40, 1 << 16);
    run("msi");
}

/// The address of the dword of configuration space, of all there are, for which `cost` is highest.
fn slowest(host: Host, cost: impl Fn(u64) -> u64) -> u64 {
    let dwords = |function| (0..0x1000).step_by(4).map(move |offset| host.address(function) + offset);
    let least = |register: &u64| (0..3).map(|_| cost(*register)).min();
    let place = host.functions().flat_map(dwords).max_by_key(least).unwrap_or(0);
    let offset = place.wrapping_sub(host.address(Function(0)));
    println!("bench: slowest at {:02x}.{}, {:#05x}", offset >> 15, offset >> 12 & 7, offset & 0xFFF);
    place
}

/// Where a device's messages go and what they say: by a frame, or by the ITS itself.
fn message(device: u32) -> Option<(u64, u32)> {
    let frame = platform().fdt.find(|node| {
        let is_it = node.is_compatible("arm,gic-v2m-frame");
        is_it.then(|| Some((node.reg(0)?.base + 0x40, node.word("arm,msi-base-spi", 0)?))).flatten()
    });
    if let Some((address, intid)) = frame {
        irq::set_edge(intid, true);
        irq::enable(intid);
        return Some((address, intid));
    }
    let its = platform().device("arm,gic-v3-its", 0)?;
    match platform().gic?.frames {
        GicFrames::V3 { redistributors } => Some((its::translate(its.region, redistributors, device, 1), 1)),
        GicFrames::V2 { .. } => None,
    }
}

/// Prints after measuring, with the measuring vectors: printing needs no interrupt.
fn measure_vectors(null: u64, sgi: impl FnMut() -> u64) {
    measure("sgi", null, sgi);
    measure("timer-busy", 0, || timer(false));
    measure("timer-wfi", 0, || timer(true));
}
