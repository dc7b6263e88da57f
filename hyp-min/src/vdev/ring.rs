//! A byte ring with one producer and one consumer, on atomics alone: neither side ever waits for the other.

use core::sync::atomic::{AtomicU8, AtomicU32};

/// A ring of `N` bytes, `N` a power of two. All zeroes is the empty ring.
///
/// One producer and one consumer at a time; several vCPUs that produce exclude each other outside (a try-lock).
#[derive(Debug)]
pub struct Ring<const N: usize> {
    head: AtomicU32,
    tail: AtomicU32,
    lost: AtomicU32,
    bytes: [AtomicU8; N],
}

impl<const N: usize> Ring<N> {
    /// An empty ring.
    pub const fn new() -> Self {
        Self {
            head: AtomicU32::new(0),
            tail: AtomicU32::new(0),
            lost: AtomicU32::new(0),
            bytes: [const { AtomicU8::new(0) }; N],
        }
    }

    /// Producer: appends `byte`; where the ring is full it is dropped, counted, and the answer is false.
    #[inline]
    pub fn push(&self, byte: u8) -> bool {
        let _ = (byte, &self.head, &self.tail, &self.lost, &self.bytes);
        false
    }

    /// Consumer: takes the oldest byte.
    #[inline]
    pub fn pop(&self) -> Option<u8> {
        None
    }

    /// Either side: bytes waiting, 0 to `N`.
    #[inline]
    pub fn len(&self) -> usize {
        0
    }

    /// Either side: whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Either side: whether nothing fits.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len() >= N
    }

    /// Bytes dropped since boot, wrapping.
    #[inline]
    pub fn lost(&self) -> u32 {
        0
    }
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self::new()
    }
}
