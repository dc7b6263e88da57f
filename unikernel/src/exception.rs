//! Exceptions: interrupts go to [`crate::irq`], everything else to a hook or to a report and the end.
#![allow(unsafe_code)] // called from the vectors

use crate::{cpu, irq};
use core::sync::atomic::{AtomicUsize, Ordering};

/// What the vectors saved. Changing it changes what is returned to.
#[repr(C)]
pub struct Frame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// ELR_EL1.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
    reserved: u64,
}

const _: () = assert!(size_of::<Frame>() == 288);

/// The four types of exception, in the order of the vector table (DDI 0487, D1.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An instruction's own.
    Synchronous,
    /// Interrupt.
    Irq,
    /// Fast interrupt: Group 0, which no domain has.
    Fiq,
    /// SError.
    SError,
}

static HOOK: AtomicUsize = AtomicUsize::new(0);

/// Calls `hook` for every exception that is not an IRQ. `true` means handled: execution goes on at `frame.elr`.
pub fn set_hook(hook: fn(Kind, &mut Frame) -> bool) {
    HOOK.store(hook as usize, Ordering::Release);
}

#[unsafe(no_mangle)]
extern "C" fn unikernel_exception(frame: &mut Frame, vector: u64) {
    let kind = match vector % 4 {
        0 => Kind::Synchronous,
        1 => Kind::Irq,
        2 => Kind::Fiq,
        _ => Kind::SError,
    };
    if kind == Kind::Irq {
        return irq::dispatch();
    }
    let hook = HOOK.load(Ordering::Acquire);
    if hook != 0 {
        // SAFETY: only `set_hook` stores here, and it stores this type.
        let hook = unsafe { core::mem::transmute::<usize, fn(Kind, &mut Frame) -> bool>(hook) };
        if hook(kind, frame) {
            return;
        }
    }
    let name = match kind {
        Kind::Synchronous => "synchronous exception",
        Kind::Irq => "interrupt",
        Kind::Fiq => "fast interrupt",
        Kind::SError => "SError",
    };
    panic!("{name} on vCPU {}: pc {:#x} esr {:#x} far {:#x}", cpu::index(), frame.elr, frame.esr, frame.far);
}
