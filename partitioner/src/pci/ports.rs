//! Where I/O BARs go on an architecture that has I/O ports: packed into the host bridge's I/O window in the order of BDFs.

use super::check::bus;
use super::model::{PciHost, Space};

/// Alignment of what a bridge passes on (PCI-to-PCI Bridge Architecture 1.2, 3.2.5.6).
const BRIDGE_WINDOW: u64 = 0x1000;
/// I/O ports of an architecture that has them.
const PORTS: u64 = 0x1_0000;

/// First port of base address register `bar` of the function at `index`. The place depends on the board alone, not on who
/// asks. `None` where the window has no room, there is no window, or the register is none of I/O.
pub(crate) fn place(host: &PciHost<'_>, index: usize, bar: usize) -> Option<u64> {
    let window = host.io_window()?;
    let end = window.bus.saturating_add(window.pa.size).min(PORTS);
    let (mut next, mut last_bus) = (window.bus, host.buses.0);
    for (at, function) in host.functions.iter().enumerate() {
        for (number, spec) in function.bars.iter().enumerate() {
            let Some(size) = spec.filter(|spec| spec.space == Space::Io).map(|spec| spec.size) else { continue };
            if !size.is_power_of_two() {
                continue;
            }
            let new_bus = core::mem::replace(&mut last_bus, bus(function.bdf)) != bus(function.bdf);
            let first = next.checked_next_multiple_of(if new_bus { size.max(BRIDGE_WINDOW) } else { size })?;
            let fits = first.checked_add(size).filter(|behind| *behind <= end);
            if (at, number) == (index, bar) {
                return fits.map(|_| first);
            }
            next = fits.unwrap_or(next);
        }
    }
    None
}
