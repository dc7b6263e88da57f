//! Calls EL2 makes itself to the firmware at EL3 (PSCI, DEN 0022; SMCCC, DEN 0028). No guest value reaches them (invariant
//! I59).
#![allow(unsafe_code)] // SMC

use core::arch::asm;
use hyp_min::vdev::psci::{Mitigations, SUCCESS};

const CPU_OFF: u64 = 0x8400_0002;
const CPU_ON: u64 = 0xC400_0003;
const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;
const PSCI_FEATURES: u64 = 0x8400_000A;
const SMCCC_VERSION: u64 = 0x8000_0000;
const SMCCC_ARCH_FEATURES: u64 = 0x8000_0001;

/// One SMC with up to three arguments.
fn call(function: u64, a1: u64, a2: u64, a3: u64) -> i64 {
    let result: u64;
    // SAFETY: PSCI calls follow the SMC calling convention: x0 to x17 may change, memory as the function says. The
    // functions of this file write none of ours.
    unsafe {
        asm!("smc #0", inout("x0") function => result, inout("x1") a1 => _, inout("x2") a2 => _, inout("x3") a3 => _,
            out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _,
            out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _, options(nostack));
    }
    result as i64
}

/// What the firmware says of this CPU's mitigations: SMCCC 1.1 or later tells (DEN 0028, 7.3), PSCI tells whether it is there.
pub(crate) fn mitigations() -> Mitigations {
    // Results are 32 bits wide.
    let ask = |function, about| i64::from(call(function, about, 0, 0) as i32);
    if ask(PSCI_FEATURES, SMCCC_VERSION) != SUCCESS || ask(SMCCC_VERSION, 0) < 0x1_0001 {
        return Mitigations::UNKNOWN;
    }
    Mitigations::ask(|function| ask(SMCCC_ARCH_FEATURES, function.into()))
}

/// Calls a mitigation that [`mitigations`] has found: it concerns this CPU alone and takes no argument.
pub(crate) fn mitigate(function: u32) {
    call(function.into(), 0, 0, 0);
}

/// Starts the CPU `mpidr` at physical `entry` with x0 = `context`. Answers PSCI's code.
pub(crate) fn cpu_on(mpidr: u64, entry: u64, context: u64) -> i64 {
    // What has been written so far is there for the CPU that starts; SMC is no barrier.
    cortex_a::asm::barrier::dsb(cortex_a::asm::barrier::ISHST);
    call(CPU_ON, mpidr, entry, context)
}

/// Turns this CPU off; where the firmware refuses, it sleeps.
pub(crate) fn cpu_off() -> ! {
    call(CPU_OFF, 0, 0, 0);
    sleep()
}

/// Turns the machine off; where the firmware refuses, this CPU sleeps.
pub(crate) fn power_off() -> ! {
    call(SYSTEM_OFF, 0, 0, 0);
    sleep()
}

/// Resets the board; where the firmware refuses, this CPU sleeps.
pub(crate) fn reset() -> ! {
    call(SYSTEM_RESET, 0, 0, 0);
    sleep()
}

/// The end of a CPU that cannot even report: before any guest runs that ends the machine.
pub(crate) fn power_off_or_sleep(off: bool) -> ! {
    if off { power_off() } else { sleep() }
}

/// Sleeps for good.
pub(crate) fn sleep() -> ! {
    loop {
        cortex_a::asm::wfi();
    }
}
