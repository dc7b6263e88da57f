//! HVC and SMC: does what `vdev::psci` has decided, on the domain's own vCPUs.

use super::percpu::PerCpu;
use super::{firmware, park, traps};
use crate::state::vcpu;
use crate::watchdog;
use core::sync::atomic::Ordering;
use hyp_min::vdev::psci::{self, Call, affinity};
use hyp_min::vdev::syndrome;

/// One call. The PC already points behind the instruction.
#[inline(always)]
pub(crate) fn call(cpu: &'static PerCpu, esr: u64) {
    let x = [cpu.register(0), cpu.register(1), cpu.register(2), cpu.register(3)];
    match psci::decide(syndrome::immediate(esr), x, cpu.domain().vcpu_count, &cpu.mitigations) {
        Call::Return(code) => cpu.set_register(0, code as u64),
        other => act(cpu, other),
    }
}

#[inline(never)]
fn act(cpu: &'static PerCpu, call: Call) {
    let code = match call {
        Call::Return(code) => code,
        Call::CpuOn { vcpu, entry, context } => cpu_on(cpu, vcpu, entry, context),
        Call::CpuOff => cpu_off(cpu),
        Call::Suspend => {
            // Any physical interrupt ends it, the guest's own and EL2's, masked or not.
            traps::doze(cpu);
            psci::SUCCESS
        }
        Call::Watchdog { command, argument } => watchdog::call(cpu, command, argument),
        Call::Mitigate(function) => {
            firmware::mitigate(function);
            psci::SUCCESS
        }
        Call::AffinityInfo(vcpu) => match state_of(cpu, vcpu) {
            Some(vcpu::ON) => affinity::ON,
            Some(vcpu::OFF) => affinity::OFF,
            Some(_) => affinity::ON_PENDING,
            None => psci::INVALID_PARAMETERS,
        },
        Call::SystemOff => park::off(cpu, false),
        Call::SystemReset => park::off(cpu, true),
    };
    cpu.set_register(0, code as u64);
}

fn state_of(cpu: &PerCpu, vcpu: usize) -> Option<u32> {
    Some(cpu.state.vcpus.get(vcpu)?.state.load(Ordering::Acquire))
}

fn cpu_on(cpu: &PerCpu, vcpu: usize, entry: u64, context: u64) -> i64 {
    let Some(target) = cpu.state.vcpus.get(vcpu) else { return psci::INVALID_PARAMETERS };
    match target.state.compare_exchange(vcpu::OFF, vcpu::CLAIMED, Ordering::AcqRel, Ordering::Acquire) {
        Err(vcpu::ON) => psci::ALREADY_ON,
        Err(_) => psci::ON_PENDING,
        Ok(_) => {
            target.entry.store(entry, Ordering::Relaxed);
            target.context.store(context, Ordering::Relaxed);
            target.state.store(vcpu::READY, Ordering::Release);
            park::wake(cpu, vcpu);
            psci::SUCCESS
        }
    }
}

/// A domain whose last vCPU turns itself off has turned itself off: nobody is left to start another.
fn cpu_off(cpu: &'static PerCpu) -> i64 {
    let Some(own) = cpu.state.vcpus.get(cpu.vcpu) else { return psci::DENIED };
    own.state.store(vcpu::OFF, Ordering::SeqCst);
    let count = cpu.domain().vcpu_count as usize;
    if cpu.state.vcpus.iter().take(count).all(|vcpu| vcpu.state.load(Ordering::SeqCst) == vcpu::OFF) {
        park::off(cpu, false);
    }
    park::stand_by(cpu)
}
