//! The guest that starts again and again: it looks whether this start is like the first, leaves everything dirty, and ends its
//! run in one of several ways, with its second vCPU in one of several states.
//!
//! Its memory is written anew each time, so it counts its runs in a device that nobody resets: two registers of its GPIO.
#![no_std]
#![no_main]
#![allow(unsafe_code)] // memory nothing owns, registers nobody needs

use attackers::report::Report;
use attackers::{deaf, first, probe};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use core::time::Duration;
use unikernel::mmio::Registers;
use unikernel::platform::{Conduit, platform};
use unikernel::psci::function::{CPU_SUSPEND, SYSTEM_RESET};
use unikernel::psci::{self, Affinity};
use unikernel::{clock, cpu, print, println, read_sysreg, write_sysreg};

unikernel::entry!(main);

/// RAM that nothing uses: behind the image, before the device tree.
const UNUSED: (u64, u64) = (0x4020_0000, 0x4060_0000);
/// Written over everything.
const DIRT: u64 = 0xD1D1_D1D1_D1D1_D1D1;
/// PL061 (DDI 0190): direction and mode control, eight bits each.
const GPIO_DIR: usize = 0x400;
const GPIO_AFSEL: usize = 0x420;
/// Where this domain has nothing, and its own first stage would let it fetch.
const HOLE: u64 = 0x6000_0000;

/// Initialised data: a restart brings its value again.
static DATA: AtomicU64 = AtomicU64::new(0x5EED);
/// Zeroed data: a restart clears it.
static ZERO: AtomicU64 = AtomicU64::new(0);
static SECOND: AtomicBool = AtomicBool::new(false);

fn number(key: &str) -> Option<u32> {
    platform().argument(key)?.parse().ok()
}

fn main() {
    probe::install();
    let Some(gpio) = platform().device("arm,pl061", 0) else { return println!("FAIL no GPIO to count with") };
    let intid = gpio.intid.unwrap_or(0);
    let gpio = Registers::new(gpio.region);
    let run = gpio.read(GPIO_DIR) & 0xFF | (gpio.read(GPIO_AFSEL) & 0xFF) << 8;
    gpio.write(GPIO_DIR, (run + 1) & 0xFF);
    gpio.write(GPIO_AFSEL, (run + 1) >> 8);
    let last = number("runs").unwrap_or(1);
    let mut report = if run < last { Report::quiet() } else { Report::default() };
    if run == last {
        println!("run {run} begins");
    }
    look(&mut report, intid);
    if run == last {
        report.end();
    }
    dirty(intid);
    second(run);
    if run == 0 {
        print!("a line that the first run does not finish");
    }
    end(run, run == last)
}

/// Holds what this start finds against what a first start gives.
fn look(report: &mut Report, intid: u32) {
    first::check(report);
    report.equal("initialised data", DATA.load(SeqCst), 0x5EED);
    report.equal("zeroed data", ZERO.load(SeqCst), 0);
    let words = (UNUSED.0..UNUSED.1).step_by(8);
    // SAFETY: this domain's own RAM, used by nobody.
    let left = words.filter(|address| unsafe { (*address as *const u64).read_volatile() } != 0).count();
    report.equal("words of unused RAM that are not zero", left as u64, 0);
    // SAFETY: the end of the fill below lies in front of the image.
    report.equal("the page before the image", unsafe { (0x400F_F000 as *const u64).read_volatile() }, 0);
    let Some(gic) = platform().gic else { return report.check("interrupt controller", false, "none") };
    // The runtime has its timer, 27, by now; a GICv2 may have its SGIs enabled for good (IHI 0048, 4.3.5).
    let ours: u64 = if deaf::interface().is_some() { !0x0800_FFFF } else { !0x0800_0000 };
    let ((private, at), shared) = (gic.private(), Registers::new(gic.distributor));
    let private = Registers::new(private);
    let (word, bit) = ((intid / 32 * 4) as usize, 1u64 << (intid % 32));
    for (own, device, offset) in [
        ("private enabled", "shared enabled", 0x100),
        ("private pending", "shared pending", 0x200),
        ("private active", "shared active", 0x300),
    ] {
        report.equal(own, u64::from(private.read(at + offset)) & ours, 0);
        report.equal(device, u64::from(shared.read(offset + word)) & bit, 0);
    }
    let quiet = (0x400..0x420).step_by(4).filter(|offset| *offset != 0x418);
    report.equal("private priorities", quiet.map(|offset| u64::from(private.read(at + offset))).sum(), 0);
    report.equal(
        "a shared priority",
        u64::from(shared.read(0x400 + intid as usize / 4 * 4) >> (intid % 4 * 8) & 0xFF),
        0,
    );
    // GICD_ITARGETSR or GICD_IROUTER: vCPU 0.
    match deaf::interface() {
        Some(_) => report.equal(
            "its route",
            u64::from(shared.read(0x800 + (intid as usize & !3)) >> (intid % 4 * 8)) & 0xFF,
            1,
        ),
        None => report.equal("its route", shared.read64(0x6000 + intid as usize * 8), 0),
    }
    let second = platform().cpus().get(1).copied().unwrap_or(0);
    report.check("vCPU 1 is off", psci::affinity_info(second) == Ok(Affinity::Off), "not off");
}

/// Leaves traces wherever a guest can.
fn dirty(intid: u32) {
    DATA.store(DIRT, SeqCst);
    ZERO.store(DIRT, SeqCst);
    for address in (UNUSED.0..UNUSED.1).step_by(8).chain([0x400F_F000]) {
        // SAFETY: this domain's own RAM, used by nobody.
        unsafe { (address as *mut u64).write_volatile(DIRT) };
    }
    // The next run reads its device tree again.
    if let Some(tree) = (read_sysreg!("tpidr_el0") == 0).then_some(UNUSED.1) {
        // SAFETY: the tree has been read; nothing looks at it any more.
        unsafe { (tree as *mut u64).write_volatile(DIRT) };
    }
    if let Some(gic) = platform().gic {
        let ((private, at), shared) = (gic.private(), Registers::new(gic.distributor));
        let private = Registers::new(private);
        let (word, bit) = ((intid / 32 * 4) as usize, 1 << (intid % 32));
        cpu::mask();
        for offset in [0x300, 0x200, 0x100] {
            private.write(at + offset, 0x4000_FFFF);
            shared.write(offset + word, bit);
        }
        (0x400..0x420).step_by(4).for_each(|offset| private.write(at + offset, 0xF0F0_F0F0));
        shared.write8(0x400 + intid as usize, 0xF0);
        match deaf::interface() {
            Some(_) => shared.write8(0x800 + intid as usize, 2),
            None => shared.write64(0x6000 + intid as usize * 8, 1),
        }
    }
    if let Some(console) = platform().console {
        let registers = Registers::new(console.region);
        registers.write(0x38, 0x7FF);
        registers.write(0x34, 0);
    }
    probe::enable_simd();
    write_sysreg!("cntp_cval_el0", 0);
    write_sysreg!("cntp_ctl_el0", 1);
    write_sysreg!("cntv_ctl_el0", 3);
    write_sysreg!("cntkctl_el1", 3);
    for _ in 0..2 {
        write_sysreg!("tpidr_el0", DIRT);
        write_sysreg!("tpidrro_el0", DIRT);
        write_sysreg!("tpidr_el1", DIRT);
        write_sysreg!("contextidr_el1", 0xD1D1);
        write_sysreg!("esr_el1", 0xD1D1);
        write_sysreg!("far_el1", DIRT);
    }
    match deaf::interface() {
        Some(interface) => {
            // GICC_CTLR, PMR, BPR, APR0.
            for (offset, value) in [(0, 1), (4, 0xF0), (8, 7), (0xD0, 1)] {
                let _ = probe::store32(interface + offset, value);
            }
        }
        None => {
            write_sysreg!("icc_ap1r0_el1", 1);
            write_sysreg!("icc_igrpen1_el1", 1);
        }
    }
    // SAFETY: soft-float code uses none of these.
    unsafe {
        asm!(
            ".arch_extension fp", ".arch_extension simd",
            ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
            "movi v\\n\\().2d, #0xFFFFFFFFFFFFFFFF",
            ".endr",
            "msr fpcr, {0}", "msr fpsr, {0}",
            in(reg) 0x0000_0080u64, options(nostack)
        );
    }
}

/// Has vCPU 1 off, spinning, asleep or suspended, where its priorities hold off every interrupt (I42).
fn second(run: u32) {
    let what: fn() = match run % 4 {
        0 => return,
        1 => || loop {
            cpu::relax();
        },
        2 => || loop {
            cpu::wfi();
        },
        _ => || loop {
            psci::call(Conduit::Hvc, CPU_SUSPEND, [0; 3]);
        },
    };
    STATE.store(what as usize as u64, SeqCst);
    let started = psci::start(1, || {
        deaf::become_deaf();
        SECOND.store(true, SeqCst);
        // SAFETY: the function stored before this vCPU was started.
        let what: fn() = unsafe { core::mem::transmute(STATE.load(SeqCst) as usize) };
        what();
    });
    if started.is_err() {
        println!("FAIL vCPU 1 does not start");
    }
    while started.is_ok() && !SECOND.load(SeqCst) {
        cpu::relax();
    }
    // Until it sleeps.
    let until = clock::ticks() + clock::to_ticks(Duration::from_millis(2));
    while clock::ticks() < until {
        cpu::relax();
    }
}

static STATE: AtomicU64 = AtomicU64::new(0);

/// Ends the run, by turns. The last one asks for a reset, whatever comes of it.
fn end(run: u32, last: bool) {
    match if last { 0 } else { run % 3 } {
        0 => drop(psci::call(Conduit::Smc, SYSTEM_RESET, [0; 3])),
        1 => psci::system_off(),
        _ => {
            write_sysreg!("vbar_el1", HOLE);
            cpu::isb();
            let _ = probe::load32(HOLE, 0);
        }
    }
    println!("FAIL still running after the end");
}
