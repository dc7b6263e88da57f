//! What brings a function back to a state after reset when a run of its domain begins.
//!
//! Its own reset (function-level) where it has one. Else that of the bus it is on, by the port above it (PCI Express Base 5.0, 6.6.1 and
//! 7.5.1.3.13), if nothing else is reached by that: nobody else's function, none that nobody has, no bridge.

use super::capability::Port;
use super::model::{PciHost, Reset};

impl PciHost<'_> {
    /// What resets the function at `index`. `owner` answers whose a function is; functions that nobody has differ from all that
    /// somebody has.
    ///
    /// # Errors
    /// Where there is a port and something else is behind it: the first such function or bridge.
    pub(crate) fn reset(&self, index: usize, owner: &dyn Fn(usize) -> Option<usize>) -> Result<Reset, usize> {
        let Some(function) = self.functions.get(index) else { return Ok(Reset::None) };
        if let Some(control) = function.flr() {
            return Ok(Reset::Function(control));
        }
        let port = function.above.filter(|above| {
            let kind = self.functions.get(*above).and_then(|bridge| bridge.port());
            matches!(kind, Some(Port::Root | Port::Downstream))
        });
        let Some(port) = port else { return Ok(Reset::None) };
        let behind = |other: &usize| self.bridges_above(*other).any(|above| above == port);
        let foreign = |other: &usize| {
            let is_bridge = self.functions.get(*other).is_none_or(|other| other.bridge.is_some());
            is_bridge || owner(*other) != owner(index)
        };
        (0..self.functions.len()).filter(behind).find(foreign).map_or(Ok(Reset::Bus(port)), Err)
    }
}
