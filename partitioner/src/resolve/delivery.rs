//! How interrupts reach a domain: direct wherever that is sound.
//!
//! On a GICv3 it always is: a CPU belongs to one domain, EL2's own interrupts are Group 0, and what must work against a
//! guest does not depend on them. So only the layout asks for injected delivery, for a guest that masks by priority or must
//! not reach foreign active states. And functions do that send messages: these arrive as LPIs, which EL2 turns into interrupts
//! the guest knows.

use crate::model::{Board, Delivery, DeviceGrant, Domain};
use crate::pci::lines;

/// The delivery of `domain`, which has its part of `grants`.
pub(crate) fn of(board: &Board<'_>, grants: &[DeviceGrant<'_>], domain: &Domain<'_>) -> Delivery {
    let sends = |grant: &DeviceGrant<'_>| {
        let host = board.pci.as_ref()?;
        Some(lines::can_send(board, host, host.functions.get(grant.function?)?))
    };
    let grants = grants.get(domain.devices.clone()).unwrap_or(&[]);
    match domain.delivery {
        Some(asked) => asked.value,
        None if grants.iter().any(|grant| sends(grant) == Some(true)) => Delivery::Injected,
        None => Delivery::Direct,
    }
}
