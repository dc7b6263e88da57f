//! PCI: silent at boot, a domain's functions given to it at each start and taken back at each end.
//!
//! Bus mastering goes off and the SMMU's entries say abort before anything else of a domain that has ended is reused (invariants
//! I63, I73); a function that is not as planned stays off and reads as absent.

use crate::arch::aarch64::park;
use crate::arch::aarch64::percpu::PerCpu;
use crate::console;
use crate::dev::ecam::Ecam;
use crate::dev::{its, smmu};
use crate::log::text;
use crate::state::config_state;
use cofferdam_plan::pci::{ECAM_SIZE, Function, FunctionFlags};
use cofferdam_plan::{PciView, Plan, va};
use hyp_min::vdev::config::{self, Device};
use hyp_min::vdev::{Access, Outcome, msi_frame};

/// Whether this build has PCI: `hyp-min` is built with it and without, and a plan is given the one it needs (decision 0062).
pub(crate) const PRESENT: bool = cfg!(feature = "pci");

/// What the plan says of PCI. Everything that is PCI's comes from here, so that a build without it is linked without all of that.
#[inline(always)]
pub(crate) fn view<'p, 'a>(plan: &'p Plan<'a>) -> Option<&'p PciView<'a>> {
    if PRESENT { plan.pci.as_ref() } else { None }
}

/// Function `index` of the plan.
#[inline(always)]
fn device<'a>(view: &PciView<'a>, index: usize, function: &'a Function) -> Device<'a, Ecam> {
    let rules = view.rules_of(function).unwrap_or(&[]);
    let dwords = view.dwords_of(function).unwrap_or(&[]);
    Device { function, rules, dwords, state: config_state(view.record, index), frame: Ecam(function.config_va) }
}

/// Does `work` to each function of which `which` says so, in the plan's order.
#[inline(never)]
fn each(view: &PciView<'_>, which: &dyn Fn(&Function) -> bool, work: &mut dyn FnMut(&Device<'_, Ecam>)) {
    for (index, function) in view.functions.iter().enumerate().filter(|(_, function)| which(function)) {
        work(&device(view, index, function));
    }
}

fn is_bridge(function: &Function) -> bool {
    function.flags & FunctionFlags::BRIDGE != 0
}

/// Brings all of it from any state to the plan's: nothing masters a bus, bridges lead where they must. Boot CPU only, before any other
/// CPU runs. False where the machine does not follow; why has been logged.
pub(crate) fn set_up(plan: &Plan<'_>) -> bool {
    let Some(view) = view(plan) else { return true };
    if !smmu::abort_all(view) {
        return false;
    }
    // A bridge that forwards nothing silences what is behind it, before that can be reached.
    each(view, &is_bridge, &mut |bridge| {
        bridge.silence();
        if bridge.is_planned() {
            bridge.lead();
        }
    });
    each(view, &|function| !is_bridge(function), &mut |device| _ = device.silence());
    each(view, &is_bridge, &mut |bridge| match bridge.place() {
        Ok(()) => bridge.open(),
        Err(found) => tell(bridge.function, found),
    });
    its::set_up(plan, view) && smmu::set_up(view)
}

#[inline(never)]
fn tell(function: &Function, config::Mismatch { offset, found, planned }: config::Mismatch) {
    defmt::error!(
        "{=str} ({=u16:#x}) is off: register {=u32:#x} is {=u32:#x}, planned {=u32:#x}",
        text(&function.name),
        function.rid,
        offset,
        found,
        planned
    );
}

/// Whether this CPU's domain has functions.
pub(crate) fn has_functions(cpu: &PerCpu) -> bool {
    let owner = view(cpu.plan()).and_then(|view| view.owners.get(usize::from(cpu.id.0)));
    owner.is_some_and(|owner| owner.function_count != 0)
}

/// No run of this CPU's domain is under way: its functions fall silent, are reset and have the time they need for that. EL2's
/// interrupts are served meanwhile; the CPU interface is EL2's (`park::quiet`). On the CPU of its vCPU 0.
pub(crate) fn reset(cpu: &'static PerCpu) {
    let Some(view) = view(cpu.plan()) else { return };
    for &(step, times, per_second) in &config::STEPS {
        for _ in 0..times {
            let mut wait = false;
            each(view, &|function| function.domain == cpu.id.0, &mut |device| {
                let by_bus = device.function.flags & FunctionFlags::BUS_RESET != 0;
                let port = view.functions.get(usize::from(device.function.reset)).filter(|_| by_bus);
                let port = port.map(|port| self::device(view, 0, port)).filter(|port| port.is_planned());
                wait |= device.prepare(step, port.as_ref().map(|port| &port.frame), console::now());
            });
            if !wait {
                break;
            }
            park::sleep_until(cpu, console::now().saturating_add(console::frequency() / per_second.max(1)));
        }
    }
}

/// The domain of this CPU, that of its vCPU 0, is about to run, its functions have been reset: they are compared with the plan and
/// placed.
pub(crate) fn start(cpu: &'static PerCpu) {
    let Some(view) = view(cpu.plan()) else { return };
    let own = |function: &Function| function.domain == cpu.id.0;
    each(view, &own, &mut |device| match device.place() {
        Ok(()) if smmu::attach(view, device.function) => device.begin(),
        Ok(()) if cpu.log.permit().is_some() => {
            defmt::error!(
                "{=str} is off: the SMMU does not follow ({})",
                text(&device.function.name),
                smmu::broken(view)
            );
        }
        Err(found) if cpu.log.permit().is_some() => tell(device.function, found),
        _ => {}
    });
}

/// The run of domain `id` has ended: its streams reach no memory any more. From any CPU; those of the domain silence the functions
/// ([`rest`]), which is all that stops one without a stream. False where that cannot be had: the domain must not run again.
pub(crate) fn end(plan: &Plan<'_>, id: u16) -> bool {
    let Some(view) = view(plan) else { return true };
    let (Some(domain), Some(owner)) = (plan.domains.get(usize::from(id)), view.owners.get(usize::from(id))) else {
        return true;
    };
    each(view, &|function| function.domain == id, &mut |device| device.end(console::now()));
    let silent = smmu::detach(view, view.functions_of(owner).unwrap_or(&[]), domain);
    if !silent {
        // Once: it never runs again.
        defmt::error!("domain {=str}: the SMMU does not follow ({})", text(&domain.name), smmu::broken(view));
    }
    silent
}

/// Silences what a run of this CPU's domain has left behind.
pub(crate) fn rest(cpu: &PerCpu) {
    let Some(view) = view(cpu.plan()) else { return };
    each(view, &|function| function.domain == cpu.id.0, &mut |device| device.rest());
}

fn clock() -> (u64, u64) {
    (console::now(), console::frequency())
}

/// Apart, as `write` is, so that a read saves fewer registers.
#[inline(never)]
fn comes_back(view: &PciView<'static>, index: usize, function: &Function) -> bool {
    let back = device(view, index, function).come_back(clock);
    // Once in a run, so no allowance of records is asked.
    if let Err(Some(found)) = back {
        tell(function, found);
    }
    back.is_ok()
}

#[inline(never)]
fn write(view: &PciView<'static>, index: usize, function: &Function, access: Access, written: u64) -> u64 {
    device(view, index, function).write(access, written, clock);
    0
}

/// A guest's access to where nothing is mapped, the last that may be meant: its configuration space, its MSI frame.
#[inline(never)]
pub(crate) fn access(cpu: &PerCpu, view: &PciView<'static>, ipa: u64, size: u8, write: Option<u64>) -> Outcome {
    let Some(owner) = view.owners.get(usize::from(cpu.id.0)) else { return Outcome::Abort };
    let offset = ipa.wrapping_sub(owner.ecam.0);
    if offset < ECAM_SIZE {
        let access = Access { offset: offset as u32, size, write };
        if !config::is_request(access) {
            return Outcome::Abort;
        }
        let found = config::find(view.functions, owner, access.offset);
        let Some((function, index)) = found else { return Outcome::Handled(u64::MAX) };
        let device = device(view, index, function);
        let value = match write {
            _ if !device.is_there() && !comes_back(view, index, function) => u64::MAX,
            Some(written) => self::write(view, index, function, access, written),
            None => device.read(access),
        };
        return Outcome::Handled(value);
    }
    let offset = ipa.wrapping_sub(owner.frame.0);
    if offset < va::PAGE {
        return msi_frame::access(owner, Access { offset: offset as u32, size, write });
    }
    Outcome::Abort
}
