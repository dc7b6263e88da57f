//! The boot, after the stub: numbered, short, once.
//!
//! The stub (boot.S) has checked the plan's sums, moved what had to be moved, probed RAM and turned the EL2 tables on.
#![allow(unsafe_code)] // exported to boot.S

use crate::arch::aarch64::percpu::PerCpu;
use crate::arch::aarch64::{enter, firmware, park, plan_bytes, plan_offset, registers, secondary_offset};
use crate::dev::gicv2::Gic;
use crate::dev::gicv3::Distributor;
use crate::{console, machine, pci, state};
use cofferdam_plan::{Header, Plan, PlanError};
use zerocopy::FromBytes;

/// The boot CPU. `index`: which of the plan's CPUs this is, or all ones; `failed_probe`: address of RAM that is not there,
/// or all ones.
#[unsafe(no_mangle)]
extern "C" fn primary_main(index: usize, failed_probe: u64) -> ! {
    // 1. The plan: structure, then its place in memory.
    let plan = match Plan::read(plan_bytes()) {
        Ok(plan) => state::keep(plan),
        Err(error) => refuse_plan(error),
    };
    // 2. This CPU's own data, every domain's state, the console.
    for domain in plan.domains {
        state::prepare(domain);
    }
    let cpu = PerCpu::set_up(plan, index);
    if let Some(cpu) = cpu {
        registers::own(cpu);
    }
    console::set_up(plan);
    // 3. The machine.
    if !machine::check(plan, plan_offset(), failed_probe) {
        refuse();
    }
    // 4. The distributor.
    if let Some(gic) = Gic::of(plan.header) {
        gic.set_up_distributor(plan);
    } else if !Distributor::new(plan.header.gicd_va).set_up(plan) {
        defmt::error!("refused: the distributor does not follow");
        refuse();
    }
    // 5. PCI: whatever the loader has left on goes silent.
    if !pci::set_up(plan) {
        refuse();
    }
    state::open_to_guests();
    // 6. The other CPUs. Each sets itself up and enters its guest or waits for its start.
    let entry = plan.header.base.0 + secondary_offset();
    for (other, record) in plan.cpus.iter().enumerate().filter(|(other, _)| *other != index) {
        let code = firmware::cpu_on(record.mpidr.0, entry, other as u64);
        if code != 0 {
            defmt::error!("refused: CPU {=u64} does not start, PSCI says {=i64}", other as u64, code);
            refuse();
        }
    }
    // 7. This CPU. One that no domain owns turns itself off.
    match cpu {
        Some(cpu) => enter::first(cpu),
        None => firmware::cpu_off(),
    }
}

/// Every other CPU, started by the boot CPU. `index` is valid.
#[unsafe(no_mangle)]
extern "C" fn secondary_main(index: usize) -> ! {
    let cpu = state::plan().and_then(|plan| PerCpu::set_up(plan, index));
    let Some(cpu) = cpu else { firmware::cpu_off() };
    registers::own(cpu);
    enter::first(cpu)
}

/// Ends a boot whose reasons have been logged.
pub(crate) fn refuse() -> ! {
    if let Some(plan) = state::plan() {
        console::drain(plan);
    }
    firmware::power_off()
}

/// A plan whose checksum holds and whose structure does not: the compiler's mistake, said without the log.
fn refuse_plan(_error: PlanError) -> ! {
    if let Ok((header, _)) = Header::ref_from_prefix(plan_bytes()) {
        console::say_now(header, b"[hyp] refused: the plan contradicts itself\r\n");
    }
    firmware::power_off()
}

/// EL2 code does not panic; if it does, it costs the domain it worked for.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    match PerCpu::current() {
        Some(cpu) if state::is_open_to_guests() => park::fault(cpu, park::Reason::Panic),
        _ => refuse(),
    }
}
