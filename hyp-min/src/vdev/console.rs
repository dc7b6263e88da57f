//! One UART for all: turns the domains' byte rings into prefixed lines.

use super::ring::Ring;

/// Bytes of output a domain can have waiting.
pub const OUTPUT: usize = 2048;
/// Bytes of input that can wait behind a domain's receive FIFO.
pub const INPUT: usize = 256;

/// Where the bytes come from: the domains by index, then the hypervisor itself.
pub trait Sources {
    /// Output ring of domain `index`, `None` where it has no console.
    fn domain(&self, index: usize) -> Option<&Ring<OUTPUT>>;
    /// Name of domain `index`, at most `limits::MAX_NAME` bytes.
    fn name(&self, index: usize) -> &[u8];
    /// The hypervisor's own ring: whole lines, prefix and newline included, written out as they are.
    fn own(&self) -> &Ring<OUTPUT>;
    /// Number of domains.
    fn count(&self) -> usize;
}

/// The multiplexer: one per physical UART, used by one CPU at a time.
#[derive(Debug)]
pub struct Mux {
    idle_ticks: u64,
}

impl Mux {
    /// A multiplexer. `idle_ticks`: counter ticks after which a silent domain gives the wire back, 20 ms.
    pub const fn new(idle_ticks: u64) -> Self {
        Self { idle_ticks }
    }

    /// Moves bytes from the rings to `sink` until that says false (no room), nothing may go out now, or the bound of one
    /// call is reached. `now` is the counter. Answers whether bytes are left that want another call.
    pub fn drain(&mut self, sources: &impl Sources, now: u64, sink: &mut impl FnMut(u8) -> bool) -> bool {
        let _ = (sources, now, sink, self.idle_ticks);
        false
    }
}
