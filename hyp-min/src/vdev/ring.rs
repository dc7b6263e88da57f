//! A byte ring with one producer and one consumer, on atomics alone: neither side ever waits for the other.
//!
//! It lies in memory that starts as zeroes. An index that some accident damages can lose bytes, never reach outside.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// A ring of `N` bytes, `N` a power of two. All zeroes is the empty ring.
///
/// One producer and one consumer at a time; several vCPUs that produce exclude each other outside (a try-lock).
#[derive(Debug)]
pub struct Ring<const N: usize> {
    /// Bytes ever pushed, wrapping. Written by the producer only.
    head: AtomicU32,
    /// Bytes ever popped, wrapping. Written by the consumer only.
    tail: AtomicU32,
    /// Bytes dropped, wrapping. Written by the producer only.
    lost: AtomicU32,
    /// `head` behind the last newline pushed. Written by the producer only.
    line: AtomicU32,
    bytes: [AtomicU8; N],
}

impl<const N: usize> Ring<N> {
    const SIZE_IS_POWER_OF_TWO: () = assert!(N.is_power_of_two() && N <= 1 << 30);

    /// An empty ring.
    pub const fn new() -> Self {
        let () = Self::SIZE_IS_POWER_OF_TWO;
        Self {
            head: AtomicU32::new(0),
            tail: AtomicU32::new(0),
            lost: AtomicU32::new(0),
            line: AtomicU32::new(0),
            bytes: [const { AtomicU8::new(0) }; N],
        }
    }

    /// Producer: appends `byte`; where the ring is full it is dropped, counted, and the answer is false.
    #[inline]
    pub fn push(&self, byte: u8) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        let waiting = head.wrapping_sub(self.tail.load(Ordering::Acquire));
        match self.bytes.get(head as usize & (N - 1)) {
            Some(cell) if (waiting as usize) < N => {
                cell.store(byte, Ordering::Relaxed);
                let head = head.wrapping_add(1);
                if byte == b'\n' {
                    self.line.store(head, Ordering::Relaxed);
                }
                self.head.store(head, Ordering::Release);
                true
            }
            _ => {
                self.count_loss(1);
                false
            }
        }
    }

    /// Producer: appends all of `bytes` (which end with a newline or do not count as a line), or drops and counts all of them where they do not fit.
    pub fn push_all(&self, bytes: &[u8]) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        if N - self.len() < bytes.len() {
            self.count_loss(bytes.len() as u32);
            return false;
        }
        for (i, byte) in bytes.iter().enumerate() {
            if let Some(cell) = self.bytes.get((head as usize).wrapping_add(i) & (N - 1)) {
                cell.store(*byte, Ordering::Relaxed);
            }
        }
        let head = head.wrapping_add(bytes.len() as u32);
        if bytes.last() == Some(&b'\n') {
            self.line.store(head, Ordering::Relaxed);
        }
        self.head.store(head, Ordering::Release);
        true
    }

    /// Producer: [`Ring::push_all`], but only where at most `most` bytes wait afterwards: the room above is for others.
    pub fn push_within(&self, bytes: &[u8], most: usize) -> bool {
        if self.len() + bytes.len() > most {
            self.count_loss(bytes.len() as u32);
            return false;
        }
        self.push_all(bytes)
    }

    /// Producer: counts `bytes` as dropped.
    pub fn count_loss(&self, bytes: u32) {
        self.lost.store(self.lost.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
    }

    /// Consumer: the oldest byte, left in place.
    #[inline]
    pub fn peek(&self) -> Option<u8> {
        let tail = self.tail.load(Ordering::Relaxed);
        if self.head.load(Ordering::Acquire) == tail {
            return None;
        }
        Some(self.bytes.get(tail as usize & (N - 1))?.load(Ordering::Relaxed))
    }

    /// Consumer: takes the oldest byte.
    #[inline]
    pub fn pop(&self) -> Option<u8> {
        let byte = self.peek()?;
        self.tail.store(self.tail.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        Some(byte)
    }

    /// Consumer: hands up to `most` bytes to `sink`, until that has no room. Answers whether nothing waits any more.
    pub fn pour(&self, most: usize, mut sink: impl FnMut(u8) -> bool) -> bool {
        for _ in 0..most {
            match self.peek() {
                Some(byte) if sink(byte) => self.pop(),
                _ => break,
            };
        }
        self.is_empty()
    }

    /// Either side: bytes waiting, 0 to `N`.
    #[inline]
    pub fn len(&self) -> usize {
        // Tail first: a consumer that runs on in between must not make the difference wrap.
        let tail = self.tail.load(Ordering::Acquire);
        (self.head.load(Ordering::Acquire).wrapping_sub(tail) as usize).min(N)
    }

    /// Consumer: whether a whole line waits, newline included.
    #[inline]
    pub fn has_line(&self) -> bool {
        let tail = self.tail.load(Ordering::Relaxed);
        let ahead = self.line.load(Ordering::Acquire).wrapping_sub(tail);
        // A newline already taken lies behind the tail: half the numbers are behind.
        ahead as i32 > 0 && !self.is_empty()
    }

    /// Producer: whether the last byte pushed was no newline.
    pub fn is_line_open(&self) -> bool {
        self.head.load(Ordering::Relaxed) != self.line.load(Ordering::Relaxed)
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
        self.lost.load(Ordering::Relaxed)
    }
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_in_first_out_over_many_laps() {
        let ring = Ring::<8>::new();
        let (mut sent, mut got) = (0u32, 0u32);
        for step in 0..1000u32 {
            for _ in 0..step % 9 {
                if ring.push(sent as u8) {
                    sent += 1;
                }
            }
            for _ in 0..step % 7 {
                if let Some(byte) = ring.pop() {
                    assert_eq!(byte, got as u8);
                    got += 1;
                }
            }
            assert_eq!(ring.len() as u32, sent - got);
        }
        assert!(got > 1000);
    }

    #[test]
    fn a_full_ring_drops_the_new_and_counts() {
        let ring = Ring::<4>::new();
        assert!((0..4).all(|b| ring.push(b)));
        assert!(ring.is_full() && !ring.push(9) && ring.lost() == 1);
        assert_eq!(ring.pop(), Some(0));
        assert!(!ring.push_all(&[5, 6]) && ring.lost() == 3);
        assert!(ring.push_all(&[4]));
        let left: [Option<u8>; 5] = core::array::from_fn(|_| ring.pop());
        assert_eq!(left, [Some(1), Some(2), Some(3), Some(4), None]);
    }

    #[test]
    fn pouring_stops_where_there_is_no_room_and_loses_nothing() {
        let ring = Ring::<8>::new();
        ring.push_all(b"abcdef\n");
        let mut out = Vec::new();
        // At most this many bytes, room for that many; what is out then.
        for (most, room, so_far) in [(2, 9, 2), (9, 3, 5), (9, 0, 5), (9, 9, 7), (9, 9, 7)] {
            let end = out.len() + room;
            let empty = ring.pour(most, |byte| {
                let fits = out.len() < end;
                if fits {
                    out.push(byte);
                }
                fits
            });
            assert_eq!((out.len(), empty), (so_far, so_far == 7));
        }
        assert_eq!(out, b"abcdef\n");
    }

    #[test]
    fn room_can_be_kept() {
        let ring = Ring::<8>::new();
        assert!(ring.push_within(b"abc\n", 4) && !ring.push_within(b"\n", 4) && ring.lost() == 1);
        assert!(ring.push_within(b"ABC\n", 8) && !ring.push_within(b"", 4) && ring.len() == 8);
        assert!(!ring.push_within(b"\n", 9) && ring.lost() == 2, "never more than there is");
        let left: Vec<u8> = core::iter::from_fn(|| ring.pop()).collect();
        assert_eq!(left, b"abc\nABC\n");
    }

    #[test]
    fn indices_wrap_at_32_bits() {
        let ring = Ring::<4>::new();
        ring.head.store(u32::MAX - 1, Ordering::Relaxed);
        ring.tail.store(u32::MAX - 1, Ordering::Relaxed);
        assert!(ring.push_all(&[1, 2, 3]) && ring.push(4) && !ring.push(5));
        assert_eq!(
            (ring.pop(), ring.pop(), ring.pop(), ring.pop(), ring.pop()),
            (Some(1), Some(2), Some(3), Some(4), None)
        );
    }

    #[test]
    fn lines_are_known_without_looking_for_them() {
        let ring = Ring::<8>::new();
        assert!(!ring.has_line());
        ring.push_all(b"ab");
        assert!(!ring.has_line());
        ring.push(b'\n');
        ring.push(b'c');
        for _ in 0..3 {
            assert!(ring.has_line());
            ring.pop();
        }
        assert!(!ring.has_line() && !ring.is_empty());
        assert!(ring.push_all(b"d\n") && ring.has_line());
    }

    #[test]
    fn two_threads_lose_nothing() {
        let ring = Ring::<64>::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut next = 0u32;
                while next < 20_000 {
                    if ring.push(next as u8) {
                        next += 1;
                    }
                }
            });
            let mut next = 0u32;
            while next < 20_000 {
                if let Some(byte) = ring.pop() {
                    assert_eq!(byte, next as u8);
                    next += 1;
                }
            }
        });
    }
}
