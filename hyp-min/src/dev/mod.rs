//! Drivers that do: registers behind methods, no policy, no guest values but those vdev has checked.

pub(crate) mod ecam;
pub(crate) mod gicv2;
pub(crate) mod gicv3;
pub(crate) mod its;
pub(crate) mod mmio;
pub(crate) mod pl011;
pub(crate) mod smmu;
