//! PSCI (DEN 0022) and SMCCC (DEN 0028): what a guest's HVC or SMC means, scoped to its own vCPUs.
//!
//! HVC and SMC mean the same. Nothing of a guest reaches the firmware: what is not listed here is refused, and what is
//! listed is answered here or done by EL2 with values of its own.

use cofferdam_plan::WATCHDOG_FUNCTION;
use cofferdam_plan::limits::MAX_VCPUS;

/// What a call asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// Nothing to do: x0 gets this.
    Return(i64),
    /// Start vCPU `vcpu` at `entry` with x0 = `context`. The caller answers [`ALREADY_ON`], [`ON_PENDING`] or [`SUCCESS`].
    CpuOn {
        /// The vCPU, one of the domain's.
        vcpu: usize,
        /// Where it starts, 4-byte aligned. Whether RAM is there is the guest's own affair: stage 2 holds.
        entry: u64,
        /// Its x0.
        context: u64,
    },
    /// Stop the calling vCPU; does not return on success.
    CpuOff,
    /// Wait for an interrupt, then answer [`SUCCESS`].
    Suspend,
    /// Let the firmware mitigate on this CPU by this function, one of SMCCC_ARCH_WORKAROUND_1 and _3, then answer
    /// [`SUCCESS`]. The function takes no argument.
    Mitigate(u32),
    /// 0 on, 1 off, 2 on pending, for this vCPU of the domain.
    AffinityInfo(usize),
    /// A call to the domain's watchdog, see `watchdog::decide`.
    Watchdog {
        /// What is asked for.
        command: u32,
        /// Its argument.
        argument: u32,
    },
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
pub const INVALID_ADDRESS: i64 = -9;

/// AFFINITY_INFO's answers (DEN 0022, 5.7).
pub mod affinity {
    /// The vCPU runs.
    pub const ON: i64 = 0;
    /// The vCPU is off.
    pub const OFF: i64 = 1;
    /// The vCPU has been started and does not run yet.
    pub const ON_PENDING: i64 = 2;
}

/// PSCI 1.1: minor version in bits 15:0, major in 30:16 (DEN 0022, 5.1).
const PSCI_1_1: i64 = 0x1_0001;
/// SMCCC 1.1 (DEN 0028, 7.2): 1.2 would promise x4 to x17 as results of calls we do not have.
const SMCCC_1_1: i64 = 0x1_0001;
/// MIGRATE_INFO_TYPE: no Trusted OS that would need migration (DEN 0022, 5.9).
const NO_TRUSTED_OS: i64 = 2;
/// StateType of CPU_SUSPEND's power_state in the original format: power down (DEN 0022, 5.4.2).
const POWER_DOWN: u32 = 1 << 16;
/// SMCCC_ARCH_WORKAROUND_2: there is nothing to call for (DEN 0028, 7.6).
const NOT_REQUIRED: i64 = -2;

/// What the firmware has once said about a CPU's mitigations, in the words of SMCCC_ARCH_FEATURES (DEN 0028, 7.4):
/// negative for "not there", 0 for "call it", 1 for "this CPU needs none".
#[derive(Clone, Copy, Debug)]
pub struct Mitigations {
    /// SMCCC_ARCH_WORKAROUND_1: branch predictor (CVE-2017-5715).
    pub predictor: i64,
    /// SMCCC_ARCH_WORKAROUND_2: speculative store bypass (CVE-2018-3639).
    pub bypass: i64,
    /// SMCCC_ARCH_WORKAROUND_3: branch history (CVE-2022-23960).
    pub history: i64,
}

impl Mitigations {
    /// Of a firmware that does not tell.
    pub const UNKNOWN: Self = Self { predictor: NOT_SUPPORTED, bypass: NOT_SUPPORTED, history: NOT_SUPPORTED };

    /// Asks by `features`, the firmware's SMCCC_ARCH_FEATURES.
    pub fn ask(features: impl Fn(u32) -> i64) -> Self {
        Self {
            predictor: features(id::WORKAROUND_1),
            bypass: features(id::WORKAROUND_2),
            history: features(id::WORKAROUND_3),
        }
    }

    /// SMCCC_ARCH_FEATURES as a guest hears it. What firmware lets one switch off for store bypass starts switched on and
    /// nobody is given the switch: for the guest, no call is required.
    fn feature(&self, function: u32) -> i64 {
        match function {
            id::SMCCC_VERSION | id::SMCCC_ARCH_FEATURES => SUCCESS,
            id::WORKAROUND_1 => self.predictor.max(NOT_SUPPORTED),
            id::WORKAROUND_2 if self.bypass == SUCCESS || self.bypass == NOT_REQUIRED => NOT_REQUIRED,
            id::WORKAROUND_2 => self.bypass.max(NOT_SUPPORTED),
            id::WORKAROUND_3 => self.history.max(NOT_SUPPORTED),
            _ => NOT_SUPPORTED,
        }
    }
}

/// Function identifiers. Bit 30 set: the SMC64 form, arguments are 64 bits wide.
mod id {
    pub(super) const PSCI_VERSION: u32 = 0x8400_0000;
    pub(super) const CPU_SUSPEND_32: u32 = 0x8400_0001;
    pub(super) const CPU_SUSPEND_64: u32 = 0xC400_0001;
    pub(super) const CPU_OFF: u32 = 0x8400_0002;
    pub(super) const CPU_ON_32: u32 = 0x8400_0003;
    pub(super) const CPU_ON_64: u32 = 0xC400_0003;
    pub(super) const AFFINITY_INFO_32: u32 = 0x8400_0004;
    pub(super) const AFFINITY_INFO_64: u32 = 0xC400_0004;
    pub(super) const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
    pub(super) const SYSTEM_OFF: u32 = 0x8400_0008;
    pub(super) const SYSTEM_RESET: u32 = 0x8400_0009;
    pub(super) const PSCI_FEATURES: u32 = 0x8400_000A;
    pub(super) const SYSTEM_RESET2_32: u32 = 0x8400_0012;
    pub(super) const SYSTEM_RESET2_64: u32 = 0xC400_0012;
    pub(super) const SMCCC_VERSION: u32 = 0x8000_0000;
    pub(super) const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;
    pub(super) const WORKAROUND_1: u32 = 0x8000_8000;
    pub(super) const WORKAROUND_2: u32 = 0x8000_7FFF;
    pub(super) const WORKAROUND_3: u32 = 0x8000_3FFF;
}

/// Decides one call: HVC or SMC with `immediate`, x0 to x3 in `x`, from a domain of `vcpu_count` vCPUs, on a CPU of which
/// the firmware has said `mitigations`.
///
/// An SMC32 call sees the lower halves of its arguments only (DEN 0028, 3.1).
#[inline]
pub fn decide(immediate: u16, x: [u64; 4], vcpu_count: u32, mitigations: &Mitigations) -> Call {
    let [function, args @ ..] = x;
    // The function identifier is W0 (DEN 0028, 2.5): the upper half says nothing.
    let function = function as u32;
    if immediate != 0 {
        return Call::Return(NOT_SUPPORTED);
    }
    if function == id::PSCI_VERSION {
        return Call::Return(PSCI_1_1);
    }
    decide_rest(function, args, vcpu_count, mitigations)
}

fn decide_rest(function: u32, args: [u64; 3], vcpu_count: u32, mitigations: &Mitigations) -> Call {
    let wide = function & 1 << 30 != 0;
    let [a1, a2, a3] = args.map(|arg| if wide { arg } else { arg & 0xFFFF_FFFF });
    match function {
        id::CPU_ON_32 | id::CPU_ON_64 => match vcpu_of(a1, vcpu_count) {
            None => Call::Return(INVALID_PARAMETERS),
            Some(_) if a2 & 3 != 0 => Call::Return(INVALID_ADDRESS),
            Some(vcpu) => Call::CpuOn { vcpu, entry: a2, context: a3 },
        },
        id::CPU_OFF => Call::CpuOff,
        // The states there are: standby and power-down of the own core (level 0) with StateID 0. An implementation may make
        // a standby of a power-down, and return behind the call (DEN 0022, 5.4): the CPU is the domain's alone, so there is
        // no power to be saved for anybody, and nothing a guest would have to restore is lost.
        id::CPU_SUSPEND_32 | id::CPU_SUSPEND_64 if a1 as u32 & !POWER_DOWN == 0 => match a2 & 3 {
            1.. if a1 as u32 == POWER_DOWN => Call::Return(INVALID_ADDRESS),
            _ => Call::Suspend,
        },
        id::CPU_SUSPEND_32 | id::CPU_SUSPEND_64 => Call::Return(INVALID_PARAMETERS),
        // Only affinity level 0 exists for a guest: no vCPU shares a power domain with another.
        id::AFFINITY_INFO_32 | id::AFFINITY_INFO_64 => match vcpu_of(a1, vcpu_count) {
            Some(vcpu) if a2 as u32 == 0 => Call::AffinityInfo(vcpu),
            _ => Call::Return(INVALID_PARAMETERS),
        },
        id::MIGRATE_INFO_TYPE => Call::Return(NO_TRUSTED_OS),
        id::SYSTEM_OFF => Call::SystemOff,
        id::SYSTEM_RESET => Call::SystemReset,
        // Type 0 is the architectural SYSTEM_WARM_RESET, the only one (DEN 0022, 5.12); bit 31 would be a vendor's.
        id::SYSTEM_RESET2_32 | id::SYSTEM_RESET2_64 if a1 as u32 == 0 => Call::SystemReset,
        id::SYSTEM_RESET2_32 | id::SYSTEM_RESET2_64 => Call::Return(INVALID_PARAMETERS),
        id::PSCI_FEATURES => Call::Return(features(a1 as u32)),
        id::SMCCC_VERSION => Call::Return(SMCCC_1_1),
        id::SMCCC_ARCH_FEATURES => Call::Return(mitigations.feature(a1 as u32)),
        id::WORKAROUND_1 | id::WORKAROUND_3 => match mitigations.feature(function) {
            SUCCESS => Call::Mitigate(function),
            other => Call::Return(other.min(SUCCESS)),
        },
        WATCHDOG_FUNCTION => Call::Watchdog { command: a1 as u32, argument: a2 as u32 },
        _ => Call::Return(NOT_SUPPORTED),
    }
}

/// PSCI_FEATURES: 0 for what [`decide`] knows. For CPU_SUSPEND that also means the original StateID format and
/// platform-coordinated mode (DEN 0022, 5.15).
fn features(function: u32) -> i64 {
    match function {
        id::PSCI_VERSION
        | id::CPU_SUSPEND_32
        | id::CPU_SUSPEND_64
        | id::CPU_OFF
        | id::CPU_ON_32
        | id::CPU_ON_64
        | id::AFFINITY_INFO_32
        | id::AFFINITY_INFO_64
        | id::MIGRATE_INFO_TYPE
        | id::SYSTEM_OFF
        | id::SYSTEM_RESET
        | id::SYSTEM_RESET2_32
        | id::SYSTEM_RESET2_64
        | id::PSCI_FEATURES
        | id::SMCCC_VERSION => SUCCESS,
        _ => NOT_SUPPORTED,
    }
}

/// The vCPU with this virtual affinity: Aff0 is its number, everything else zero.
fn vcpu_of(mpidr: u64, vcpu_count: u32) -> Option<usize> {
    let count = u64::from(vcpu_count).min(MAX_VCPUS as u64);
    (mpidr < count).then_some(mpidr as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(x: [u64; 4]) -> Call {
        decide(0, x, 2, &Mitigations::UNKNOWN)
    }

    #[test]
    fn versions() {
        assert_eq!(call([0x8400_0000, 0, 0, 0]), Call::Return(0x10001));
        assert_eq!(call([0xFFFF_FFFF_8400_0000, 0, 0, 0]), Call::Return(0x10001), "W0 counts");
        assert_eq!(call([0x8000_0000, 0, 0, 0]), Call::Return(0x10001));
        assert_eq!(call([0x8400_0006, 0, 0, 0]), Call::Return(2));
    }

    #[test]
    fn an_immediate_makes_any_call_unknown() {
        for function in [0x8400_0000, 0x8400_0008, 0xC400_0003] {
            assert_eq!(decide(1, [function, 0, 0, 0], 2, &Mitigations::UNKNOWN), Call::Return(-1));
        }
    }

    #[test]
    fn cpu_on_only_for_own_vcpus() {
        let on = Call::CpuOn { vcpu: 1, entry: 0x4000_0000, context: 7 };
        assert_eq!(call([0xC400_0003, 1, 0x4000_0000, 7]), on);
        for mpidr in [2, 0x100, 0x1_0000, 1 << 32 | 1, u64::MAX, 0x8000_0001] {
            assert_eq!(call([0xC400_0003, mpidr, 0, 0]), Call::Return(INVALID_PARAMETERS), "{mpidr:#x}");
        }
        assert_eq!(call([0xC400_0003, 1, 2, 0]), Call::Return(INVALID_ADDRESS));
        let many = decide(0, [0xC400_0003, 16, 0, 0], u32::MAX, &Mitigations::UNKNOWN);
        assert_eq!(many, Call::Return(INVALID_PARAMETERS), "limit holds");
    }

    #[test]
    fn smc32_sees_lower_halves() {
        let on = Call::CpuOn { vcpu: 1, entry: 0x4000_0000, context: 7 };
        assert_eq!(call([0x8400_0003, 0xFF_0000_0001, 0xFF_4000_0000, 0xFF_0000_0007]), on);
    }

    #[test]
    fn suspend_is_standby() {
        assert_eq!(call([0xC400_0001, 0, 0, 0]), Call::Suspend);
        assert_eq!(call([0x8400_0001, 0xFF_0000_0000, 0, 0]), Call::Suspend);
        assert_eq!(call([0xC400_0001, 0x1_0000, 0x4000_0000, 0]), Call::Suspend, "power down");
        assert_eq!(call([0xC400_0001, 0x1_0000, 0x4000_0002, 0]), Call::Return(INVALID_ADDRESS));
        assert_eq!(call([0xC400_0001, 0, 3, 0]), Call::Suspend, "standby has no entry");
        for state in [1, 0x1_0001, 0x100_0000, 0x101_0000, 0xFFFF_FFFF] {
            assert_eq!(call([0xC400_0001, state, 0, 0]), Call::Return(INVALID_PARAMETERS));
        }
    }

    #[test]
    fn reset_is_the_architecture_s_or_none() {
        for function in [0x8400_0012, 0xC400_0012] {
            assert_eq!(call([function, 0xFF_0000_0000, u64::MAX, 0]), Call::SystemReset, "the type has 32 bits");
            for kind in [1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF] {
                assert_eq!(call([function, kind, 0, 0]), Call::Return(INVALID_PARAMETERS));
            }
        }
    }

    #[test]
    fn mitigations_are_what_the_firmware_has_said() {
        let (one, two, three) = (0x8000_8000, 0x8000_7FFF, 0x8000_3FFF);
        let ask = |m: &Mitigations, function: u64| decide(0, [0x8000_0001, function, 0, 0], 1, m);
        let make = |m: &Mitigations, function: u64| decide(0, [function, 5, 6, 7], 1, m);
        for function in [one, two, three] {
            assert_eq!(ask(&Mitigations::UNKNOWN, function), Call::Return(NOT_SUPPORTED));
            assert_eq!(make(&Mitigations::UNKNOWN, function), Call::Return(NOT_SUPPORTED));
        }
        let called = Mitigations::ask(|_| 0);
        assert_eq!(ask(&called, one), Call::Return(0));
        assert_eq!(ask(&called, two), Call::Return(NOT_REQUIRED), "on, and stays on");
        assert_eq!(make(&called, one), Call::Mitigate(0x8000_8000));
        assert_eq!(make(&called, two), Call::Return(NOT_SUPPORTED), "no switch");
        assert_eq!(make(&called, three), Call::Mitigate(0x8000_3FFF));
        let unaffected = Mitigations::ask(|_| 1);
        for function in [one, two, three] {
            assert_eq!(ask(&unaffected, function), Call::Return(1));
        }
        assert_eq!(make(&unaffected, one), Call::Return(0), "nothing to do");
        assert_eq!(ask(&Mitigations::ask(|_| -2), two), Call::Return(NOT_REQUIRED));
        assert_eq!(ask(&Mitigations::ask(|_| i64::MIN), one), Call::Return(NOT_SUPPORTED));
    }

    #[test]
    fn affinity_info_only_for_own_vcpus_at_level_zero() {
        assert_eq!(call([0xC400_0004, 1, 0, 0]), Call::AffinityInfo(1));
        assert_eq!(call([0xC400_0004, 2, 0, 0]), Call::Return(INVALID_PARAMETERS));
        assert_eq!(call([0xC400_0004, 0, 1, 0]), Call::Return(INVALID_PARAMETERS));
    }

    #[test]
    fn only_listed_identifiers_do_anything() {
        let mut known = 0;
        for top in [0x8000_0000u64, 0x8400_0000, 0xC400_0000, 0xC000_0000, 0x8200_0000, 0x8600_0000, 0x0400_0000, 0] {
            for low in 0..=0xFFFFu64 {
                if call([top | low, 0, 0, 0]) != Call::Return(NOT_SUPPORTED) {
                    known += 1;
                }
            }
        }
        // 17 identifiers; SMCCC_ARCH_FEATURES and PSCI_FEATURES of function 0 answer -1 as well.
        assert_eq!(known, 15);
        for refused in [0x8400_0005, 0x8400_0007, 0x8400_000E, 0xC400_000E, 0xC400_0013, 0x8000_0002, 0x8400_0050] {
            assert_eq!(call([refused, 0, 0, 0]), Call::Return(NOT_SUPPORTED), "{refused:#x}");
        }
    }

    #[test]
    fn features_agree_with_what_is_there() {
        for low in 0..0x20u64 {
            for top in [0x8400_0000u64, 0xC400_0000, 0x8000_0000] {
                let feature = call([0x8400_000A, top | low, 0, 0]) == Call::Return(SUCCESS);
                let there = call([top | low, 0, 0, 0]) != Call::Return(NOT_SUPPORTED) || top | low == 0x8400_000A;
                assert_eq!(feature, there, "{:#x}", top | low);
            }
        }
        assert_eq!(call([0x8000_0001, 0x8000_0000, 0, 0]), Call::Return(SUCCESS));
        assert_eq!(call([0x8000_0001, 0x8000_8000, 0, 0]), Call::Return(NOT_SUPPORTED));
    }
}
