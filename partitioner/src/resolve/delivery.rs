//! How interrupts reach a domain: direct wherever that is sound.
//!
//! On a GICv3 it always is: a CPU belongs to one domain, EL2's own interrupts are Group 0, and what must work against a
//! guest does not depend on them. So only the layout asks for injected delivery, for a guest that masks by priority or must
//! not reach foreign active states.

use crate::model::{Delivery, Domain};

/// The delivery of `domain`.
pub(crate) fn of(domain: &Domain<'_>) -> Delivery {
    domain.delivery.map_or(Delivery::Direct, |asked| asked.value)
}
