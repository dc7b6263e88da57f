//! A lock between vCPUs and interrupt handlers, for things held for a line of output or a few registers.
#![allow(unsafe_code)] // shares an UnsafeCell under a lock

use crate::cpu;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// A value one vCPU at a time can use, with its interrupts masked while it does.
pub struct Lock<T> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `with` gives out one reference at a time; the value may move between vCPUs.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Self { held: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Runs `f` with the value. Not reentrant: taking it twice on one vCPU never ends.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let mask = cpu::mask();
        while self.held.swap(true, Ordering::Acquire) {
            cpu::relax();
        }
        // SAFETY: `held` was false and is ours, interrupts are masked: nobody else has a reference.
        let result = f(unsafe { &mut *self.value.get() });
        self.held.store(false, Ordering::Release);
        cpu::restore(mask);
        result
    }

    /// Frees the lock whoever holds it: for a panic, after which nothing else runs.
    pub(crate) fn force(&self) {
        self.held.store(false, Ordering::Release);
    }
}
