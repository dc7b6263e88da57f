//! Firmware calls: the SMC calling convention (DEN 0028) and the PSCI functions a domain has (DEN 0022).
#![allow(unsafe_code)] // hvc, smc

use crate::platform::{Conduit, platform};
use crate::{MAX_CPUS, cpu};
use core::arch::asm;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Function identifiers, 64-bit calls where both exist (DEN 0022, 5.1).
pub mod function {
    #![allow(missing_docs)] // named as in the manual
    pub const VERSION: u64 = 0x8400_0000;
    pub const CPU_SUSPEND: u64 = 0xC400_0001;
    pub const CPU_OFF: u64 = 0x8400_0002;
    pub const CPU_ON: u64 = 0xC400_0003;
    pub const AFFINITY_INFO: u64 = 0xC400_0004;
    pub const SYSTEM_OFF: u64 = 0x8400_0008;
    pub const SYSTEM_RESET: u64 = 0x8400_0009;
    pub const FEATURES: u64 = 0x8400_000A;
}

/// Why PSCI refused (DEN 0022, 5.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The function does not exist, or the domain has no PSCI at all.
    NotSupported,
    /// No such vCPU in this domain, or a bad state.
    InvalidParameters,
    /// Refused.
    Denied,
    /// That vCPU runs already.
    AlreadyOn,
    /// That vCPU is about to run.
    OnPending,
    /// Any other code.
    Other(i32),
}

/// State of a vCPU, as AFFINITY_INFO tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Affinity {
    /// Runs.
    On,
    /// Does not.
    Off,
    /// Is starting.
    OnPending,
}

/// Calls firmware: function in x0, three arguments; returns x0. Registers x1 to x17 may change (DEN 0028, 2.6).
pub fn call(conduit: Conduit, function: u64, arguments: [u64; 3]) -> u64 {
    let [a, b, c] = arguments;
    let result: u64;
    match conduit {
        // SAFETY: firmware keeps to the calling convention; registers it may change are given up.
        Conduit::Hvc => unsafe {
            asm!("hvc #0", inout("x0") function => result, in("x1") a, in("x2") b, in("x3") c, clobber_abi("C"), options(nostack))
        },
        // SAFETY: as above.
        Conduit::Smc => unsafe {
            asm!("smc #0", inout("x0") function => result, in("x1") a, in("x2") b, in("x3") c, clobber_abi("C"), options(nostack))
        },
    }
    result
}

fn psci(function: u64, arguments: [u64; 3]) -> Result<u32, Error> {
    let conduit = platform().psci.ok_or(Error::NotSupported)?;
    match call(conduit, function, arguments) as i32 {
        -1 => Err(Error::NotSupported),
        -2 => Err(Error::InvalidParameters),
        -3 => Err(Error::Denied),
        -4 => Err(Error::AlreadyOn),
        -5 => Err(Error::OnPending),
        code if code < 0 => Err(Error::Other(code)),
        value => Ok(value as u32),
    }
}

/// Version: major in bits 31:16, minor below.
///
/// # Errors
/// Without PSCI.
pub fn version() -> Result<u32, Error> {
    psci(function::VERSION, [0; 3])
}

/// Whether `function` exists, and its flags.
///
/// # Errors
/// [`Error::NotSupported`] where it does not.
pub fn features(function: u64) -> Result<u32, Error> {
    psci(function::FEATURES, [function, 0, 0])
}

/// State of the vCPU with this affinity.
///
/// # Errors
/// For an affinity that is not this domain's.
pub fn affinity_info(mpidr: u64) -> Result<Affinity, Error> {
    match psci(function::AFFINITY_INFO, [mpidr, 0, 0])? {
        0 => Ok(Affinity::On),
        1 => Ok(Affinity::Off),
        _ => Ok(Affinity::OnPending),
    }
}

static ENTRIES: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];

/// Starts vCPU `index` (in the device tree's order) in `entry`. When `entry` returns, that vCPU turns itself off.
///
/// # Errors
/// For a vCPU the domain has not got, or one that is on.
pub fn start(index: usize, entry: fn()) -> Result<(), Error> {
    let mpidr = *platform().cpus().get(index).ok_or(Error::InvalidParameters)?;
    let slot = ENTRIES.get(index).ok_or(Error::InvalidParameters)?;
    // The slot is free again once that vCPU has taken what is in it.
    slot.compare_exchange(0, entry as usize, Ordering::AcqRel, Ordering::Acquire).map_err(|_| Error::OnPending)?;
    let started = psci(function::CPU_ON, [mpidr, crate::arch::secondary_entry(), index as u64]);
    if started.is_err() {
        slot.store(0, Ordering::Release);
    }
    started.map(drop)
}

/// Takes what [`start`] was given for this vCPU.
pub(crate) fn take_entry() -> Option<fn()> {
    let address = ENTRIES.get(cpu::index())?.swap(0, Ordering::AcqRel);
    // SAFETY: only `start` stores here, and it stores a `fn()`.
    (address != 0).then(|| unsafe { core::mem::transmute::<usize, fn()>(address) })
}

/// Turns this vCPU off.
pub fn cpu_off() -> ! {
    let _refused = psci(function::CPU_OFF, [0; 3]);
    halt()
}

/// Turns the domain off.
pub fn system_off() -> ! {
    let _refused = psci(function::SYSTEM_OFF, [0; 3]);
    halt()
}

/// Resets the domain.
pub fn system_reset() -> ! {
    let _refused = psci(function::SYSTEM_RESET, [0; 3]);
    halt()
}

/// Where a call that cannot return did: nothing is left to run.
pub(crate) fn halt() -> ! {
    cpu::mask();
    loop {
        cpu::wfi();
    }
}
