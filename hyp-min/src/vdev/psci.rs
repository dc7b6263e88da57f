//! PSCI (DEN 0022) and SMCCC (DEN 0028): what a guest's HVC or SMC means, scoped to its own vCPUs.

/// What a call asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// Nothing to do: x0 gets this.
    Return(i64),
    /// Start vCPU `vcpu` at `entry` with x0 = `context`. The caller answers [`ALREADY_ON`], [`ON_PENDING`] or [`SUCCESS`].
    CpuOn {
        /// The vCPU, one of the domain's.
        vcpu: usize,
        /// Where it starts, 4-byte aligned.
        entry: u64,
        /// Its x0.
        context: u64,
    },
    /// Stop the calling vCPU; does not return on success.
    CpuOff,
    /// Wait for an interrupt, then answer [`SUCCESS`].
    Suspend,
    /// 0 on, 1 off, 2 on pending, for this vCPU of the domain.
    AffinityInfo(usize),
    /// The domain turns itself off.
    SystemOff,
    /// The domain resets itself.
    SystemReset,
}

/// PSCI and SMCCC return code.
pub const SUCCESS: i64 = 0;
/// PSCI and SMCCC return code: unknown function, or an immediate that is not zero.
pub const NOT_SUPPORTED: i64 = -1;
/// PSCI return code.
pub const INVALID_PARAMETERS: i64 = -2;
/// PSCI return code.
pub const DENIED: i64 = -3;
/// PSCI return code.
pub const ALREADY_ON: i64 = -4;
/// PSCI return code.
pub const ON_PENDING: i64 = -5;
/// PSCI return code.
pub const INTERNAL_FAILURE: i64 = -6;
/// PSCI return code.
pub const INVALID_ADDRESS: i64 = -9;

/// Decides one call: HVC or SMC with `immediate`, x0 to x3 in `x`, from a domain of `vcpu_count` vCPUs.
#[inline]
pub fn decide(immediate: u16, x: [u64; 4], vcpu_count: u32) -> Call {
    let _ = (immediate, x, vcpu_count);
    Call::Return(NOT_SUPPORTED)
}
