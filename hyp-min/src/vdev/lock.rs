//! A lock that is tried, never waited for: who finds it taken leaves a flag and goes; the holder looks at the flag.
//!
//! Holders run in EL2 with interrupts masked and a bound on what they do, so a bounded number of tries is enough for those
//! who need an answer. A CPU that dies with the lock costs what the lock guards, nothing else.
#![allow(unsafe_code)] // hands out the guarded value

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// Tries of [`FlagLock::with`]: far more than any holder needs.
const TRIES: u32 = 20_000;
/// Times a holder repeats its work for those who came meanwhile.
const ROUNDS: u32 = 4;

/// A value for one CPU at a time. All zeroes is unlocked, no flag.
#[repr(C)]
#[derive(Debug)]
pub struct FlagLock<T> {
    taken: AtomicBool,
    asked: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `taken` lets one CPU at a time reach the value.
unsafe impl<T: Send> Sync for FlagLock<T> {}

impl<T> FlagLock<T> {
    /// Unlocked.
    pub const fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), asked: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Runs `work` if the lock is free.
    #[inline]
    fn attempt<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        if self.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        // SAFETY: `taken` was false and is true now: nobody else is here.
        let value = unsafe { &mut *self.value.get() };
        let result = work(value);
        self.taken.store(false, Ordering::Release);
        Some(result)
    }

    /// Runs `work` under the lock; `None` where it stayed taken for a bounded number of tries.
    #[inline]
    pub fn with<R>(&self, mut work: impl FnMut(&mut T) -> R) -> Option<R> {
        for _ in 0..TRIES {
            if let Some(result) = self.attempt(&mut work) {
                return Some(result);
            }
            core::hint::spin_loop();
        }
        None
    }

    /// Takes the lock as soon as it is free, and tries as long as `patient` says.
    pub fn hold(&self, patient: impl Fn() -> bool) -> Option<Held<'_, T>> {
        while self.taken.swap(true, Ordering::Acquire) {
            if !patient() {
                return None;
            }
        }
        Some(Held(self))
    }

    /// Has `work` run: now, or by whoever holds the lock (who runs the same work), as often as needed and at most a few
    /// times. `None` where another CPU does it.
    #[inline]
    pub fn ask<R>(&self, mut work: impl FnMut(&mut T) -> R) -> Option<R> {
        self.asked.store(true, Ordering::SeqCst);
        let mut last = None;
        for _ in 0..ROUNDS {
            if !self.asked.load(Ordering::SeqCst) {
                break;
            }
            let done = self.attempt(|value| {
                self.asked.store(false, Ordering::SeqCst);
                work(value)
            });
            if done.is_none() {
                break;
            }
            last = done;
        }
        last
    }

    /// Whether somebody has asked and was not served; clears it.
    pub fn take_asked(&self) -> bool {
        self.asked.swap(false, Ordering::SeqCst)
    }
}

/// Nobody else has the lock while this lives.
pub struct Held<'a, T>(&'a FlagLock<T>);

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_stays_taken_is_given_up_and_nothing_is_done() {
        let lock = FlagLock::new(1);
        let inner = lock.with(|_| lock.with(|value| *value = 2));
        assert_eq!(inner, Some(None));
        assert_eq!(lock.with(|value| *value), Some(1));
    }

    #[test]
    fn who_holds_it_keeps_others_out_as_long_as_they_are_patient() {
        let (lock, tries) = (FlagLock::new(()), core::cell::Cell::new(0));
        let held = lock.hold(|| false);
        assert!(held.is_some() && lock.with(|()| ()).is_none());
        let patient = || tries.replace(tries.get() + 1) < 3;
        assert!(lock.hold(patient).is_none() && tries.get() == 4);
        drop(held);
        assert!(lock.hold(|| false).is_some() && lock.with(|()| ()).is_some());
    }

    #[test]
    fn who_finds_it_taken_leaves_word() {
        let lock = FlagLock::new(0);
        assert_eq!(lock.with(|_| lock.ask(|value| *value += 1)), Some(None));
        assert!(lock.take_asked() && !lock.take_asked());
        assert_eq!(lock.ask(|value| *value), Some(0));
        assert!(!lock.take_asked());
    }

    #[test]
    fn a_holder_repeats_its_work_a_bounded_number_of_times() {
        let lock = FlagLock::new(0);
        let last = lock.ask(|value| {
            *value += 1;
            lock.ask(|_| 0);
            *value
        });
        assert_eq!(last, Some(ROUNDS));
        assert!(lock.take_asked(), "the one that was not served is known");
    }

    #[test]
    fn one_at_a_time() {
        let lock = FlagLock::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        while lock.with(|value| *value += 1).is_none() {}
                    }
                });
            }
        });
        assert_eq!(lock.with(|value| *value), Some(20_000));
    }
}
