//! Single instructions under guard: each gives a value, or the exception it caused.
//!
//! The runtime's exception hook records a synchronous exception and goes on behind the instruction (a fetch goes back to the
//! caller). One vCPU probes at a time.
#![allow(unsafe_code)] // doing what is not allowed is the purpose

use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use unikernel::exception::{Frame, Kind, set_hook};
use unikernel::{read_sysreg, write_sysreg};

/// A synchronous exception taken at EL1.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
    /// ELR_EL1.
    pub elr: u64,
}

/// How a probe ended.
pub type Outcome = Result<u64, Fault>;

static ARMED: AtomicBool = AtomicBool::new(false);
static HIT: AtomicBool = AtomicBool::new(false);
static ESR: AtomicU64 = AtomicU64::new(0);
static FAR: AtomicU64 = AtomicU64::new(0);
static ELR: AtomicU64 = AtomicU64::new(0);

/// Catches the exceptions of probes from now on; any other still ends the guest.
pub fn install() {
    set_hook(|kind, frame: &mut Frame| {
        if kind != Kind::Synchronous || !ARMED.load(SeqCst) {
            return false;
        }
        ESR.store(frame.esr, SeqCst);
        FAR.store(frame.far, SeqCst);
        ELR.store(frame.elr, SeqCst);
        HIT.store(true, SeqCst);
        match frame.esr >> 26 {
            0x20..=0x22 => frame.elr = frame.x[30],
            // A step has been made: no more of them.
            0x33 => write_sysreg!("mdscr_el1", read_sysreg!("mdscr_el1") & !1),
            _ => frame.elr += 4,
        }
        true
    });
}

/// Runs `f`, which holds one instruction that may fault.
pub fn catch(f: impl FnOnce() -> u64) -> Outcome {
    HIT.store(false, SeqCst);
    ARMED.store(true, SeqCst);
    let value = f();
    ARMED.store(false, SeqCst);
    if HIT.load(SeqCst) {
        return Err(Fault { esr: ESR.load(SeqCst), far: FAR.load(SeqCst), elr: ELR.load(SeqCst) });
    }
    Ok(value)
}

impl Fault {
    /// Exception class.
    pub fn class(&self) -> u64 {
        self.esr >> 26
    }

    /// Fault status code of an abort.
    pub fn status(&self) -> u64 {
        self.esr & 0x3F
    }

    /// A synchronous external abort on the data access at `address` (DDI 0487, D19.2.40: EC 0x25, DFSC 0x10).
    pub fn is_external(&self, address: u64) -> bool {
        self.class() == 0x25 && self.status() == 0x10 && self.far == address
    }

    /// The same on an instruction fetch (EC 0x21).
    pub fn is_external_fetch(&self, address: u64) -> bool {
        self.class() == 0x21 && self.status() == 0x10 && self.far == address && self.elr == address
    }

    /// An undefined instruction (EC 0).
    pub fn is_undefined(&self) -> bool {
        self.class() == 0
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "esr {:#x} far {:#x} elr {:#x}", self.esr, self.far, self.elr)
    }
}

/// Defines functions that run one instruction on an address in x9 with a value in x10, and give x10 back.
#[macro_export]
macro_rules! instruction {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident = $text:literal;)*) => {$(
        $(#[$doc])*
        $vis fn $name(address: u64, value: u64) -> $crate::probe::Outcome {
            $crate::probe::catch(|| {
                let mut result = value;
                // SAFETY: the instruction is a probe: it faults and is skipped, or touches only what the attack names.
                unsafe {
                    core::arch::asm!(
                        ".arch_extension fp", ".arch_extension simd",
                        $text,
                        inout("x9") address => _, inout("x10") result, out("x11") _, out("x12") _,
                        options(nostack)
                    )
                };
                result
            })
        }
    )*};
}

instruction! {
    /// 8-bit load.
    pub fn load8 = "ldrb w10, [x9]";
    /// 16-bit load.
    pub fn load16 = "ldrh w10, [x9]";
    /// 32-bit load.
    pub fn load32 = "ldr w10, [x9]";
    /// 64-bit load.
    pub fn load64 = "ldr x10, [x9]";
    /// 8-bit store.
    pub fn store8 = "strb w10, [x9]";
    /// 16-bit store.
    pub fn store16 = "strh w10, [x9]";
    /// 32-bit store.
    pub fn store32 = "str w10, [x9]";
    /// 64-bit store.
    pub fn store64 = "str x10, [x9]";
    /// Jumps to the address; code there returns with `ret`.
    pub fn fetch = "mov x12, x30\n blr x9\n mov x30, x12";
}

/// Gigabytes of the address space where attacks put their own translations.
pub const ALIAS_NORMAL: u64 = 256 << 30;
/// A second one.
pub const ALIAS_WALK: u64 = 257 << 30;

/// Sets one level 1 entry of the runtime's tables: `index` is the gigabyte, below 1,024.
pub fn set_level1(index: u64, entry: u64) {
    // The level 0 table is short, so aligned to 64 bytes only (DDI 0487, D8.2).
    let root = read_sysreg!("ttbr0_el1") & 0xFFFF_FFFF_FFC0;
    // SAFETY: the runtime's own level 0 table, identity mapped: a descriptor for each half TiB.
    let table = unsafe { ((root + (index >> 9) * 8) as *const u64).read_volatile() } & 0xFFFF_FFFF_F000;
    let slot = (table + (index & 511) * 8) as *mut u64;
    // SAFETY: the runtime's own table, identity mapped; nothing uses this gigabyte but the attack.
    unsafe { slot.write_volatile(entry) };
    // SAFETY: completes the change.
    unsafe { asm!("dsb ishst", "tlbi vmalle1", "dsb ish", "isb", options(nostack)) };
}

/// Maps the first gigabyte of IPA space a second time, as Normal executable memory: for accesses that stage 1 would refuse on
/// Device memory. Gives the virtual address of IPA 0.
pub fn alias_as_normal() -> u64 {
    set_level1(ALIAS_NORMAL >> 30, 1 | 1 << 2 | 3 << 8 | 1 << 10);
    ALIAS_NORMAL
}

/// Allows FP and SIMD at EL1.
pub fn enable_simd() {
    write_sysreg!("cpacr_el1", 3 << 20);
    unikernel::cpu::isb();
}
