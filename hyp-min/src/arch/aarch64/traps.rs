//! Every exception that reaches EL2, by class: emulate, inject, park (invariant I03: the table is total, nothing panics).
//!
//! What is not granted becomes a synchronous external abort in the guest, what does not exist an undefined instruction.
#![allow(unsafe_code)] // exported to vectors.S; system registers

use super::percpu::PerCpu;
use super::registers::{mrs, msr};
use super::{calls, firmware, inject, inject2, park};
use crate::deadline::Duty;
use crate::dev::{gicv3, smmu};
use crate::{console, pci, state, watchdog};
use cofferdam_plan::{DomainFlags, IntId, va};
use hyp_min::vdev::syndrome::{self, Injection, ec};
use hyp_min::vdev::sysreg::{Policy, policy};
use hyp_min::vdev::{Access, Outcome, dist, dist2, idreg, redist};

/// HVC from AArch64.
#[unsafe(no_mangle)]
extern "C" fn trap_call(cpu: &'static PerCpu, esr: u64) {
    calls::call(cpu, esr);
}

/// Every other synchronous exception from a guest. Tail calls only: each path saves what it needs and no more.
#[unsafe(no_mangle)]
extern "C" fn trap_sync(cpu: &'static PerCpu, esr: u64) {
    sync::<false>(cpu, esr);
}

/// The same where interrupts are injected from a GICv3.
#[unsafe(no_mangle)]
extern "C" fn trap_sync_injected(cpu: &'static PerCpu, esr: u64) {
    sync::<true>(cpu, esr);
}

#[inline(always)]
fn sync<const INJECTED: bool>(cpu: &'static PerCpu, esr: u64) {
    match syndrome::class(esr) {
        ec::DATA_ABORT => data_abort::<INJECTED>(cpu, esr),
        ec::SYSREG if esr & SYSREG_ISS == SGI1_WRITE => send_sgi(cpu, esr),
        ec::SYSREG => system_register(cpu, esr),
        class => rare(cpu, esr, class),
    }
}

/// All of a system register trap's syndrome but the general-purpose register.
const SYSREG_ISS: u64 = 0x3F_FC1F;
/// MSR ICC_SGI1R_EL1: op0 3, op1 0, CRn 12, CRm 11, op2 5 (IHI 0069, 12.2.17).
const SGI1_WRITE: u64 = 3 << 20 | 5 << 17 | 12 << 10 | 11 << 1;

/// The one system register that guests write all the time.
#[inline(never)]
fn send_sgi(cpu: &'static PerCpu, esr: u64) {
    // Before the write: an SGI to this CPU is taken as soon as the guest runs again.
    advance(esr);
    cpu.targets.expand(cpu.vcpu, cpu.register((esr >> 5) as u8), gicv3::send_group1);
}

/// The rest of the table.
#[inline(never)]
fn rare(cpu: &'static PerCpu, esr: u64, class: u8) {
    match class {
        ec::INSTRUCTION_ABORT => refuse(cpu, esr),
        ec::SMC => {
            advance(esr);
            calls::call(cpu, esr);
        }
        ec::WFX => {
            advance(esr);
            // Trapped where the plan says so, or output waits that nothing else of EL2 looks after: WFI alone, TI = 0. The
            // others may be a NOP.
            if esr & 3 == 0 {
                doze(cpu);
            }
        }
        // AArch32 EL0: MCR, MRC, MCRR, MRRC, LDC, STC, VMRS (0x03 to 0x08, 0x0C), DCC. AArch64: pointer authentication,
        // LD64B, MSRR, SVE, ERET, TSTART, SME, GCS, and "unknown". None is granted; each is undefined.
        0x00 | 0x03..=0x0A | 0x0C | 0x14 | 0x19 | 0x1A | 0x1B | 0x1D | 0x2D => undefined(esr),
        _ => park::fault(cpu, park::Reason::UnhandledClass),
    }
}

/// An access that stage 2 does not map: an emulated frame, or nothing.
#[inline(never)]
fn data_abort<const INJECTED: bool>(cpu: &'static PerCpu, esr: u64) {
    if !syndrome::is_translation_fault(esr) {
        return refuse(cpu, esr);
    }
    let Some(access) = syndrome::data_access(esr) else { return refuse(cpu, esr) };
    let ipa = syndrome::ipa(mrs!("hpfar_el2"), mrs!("far_el2"));
    let write = access.write.then(|| syndrome::truncate(access, cpu.register(access.register)));
    match emulate::<INJECTED>(cpu, ipa, access.size, write) {
        // The guest executes the same instruction again, and takes its interrupts in between.
        Outcome::Abort if cpu.again.take() => {}
        Outcome::Abort => refuse(cpu, esr),
        Outcome::Handled(value) => {
            if !access.write {
                cpu.set_register(access.register, syndrome::extend(access, value));
            }
            advance(esr);
        }
    }
}

/// The emulated frames, the distributor first.
#[inline(always)]
fn emulate<const INJECTED: bool>(cpu: &'static PerCpu, ipa: u64, size: u8, write: Option<u64>) -> Outcome {
    let offset = ipa.wrapping_sub(cpu.gicd_ipa.0);
    if offset < u64::from(dist::FRAME_SIZE) {
        let access = Access { offset: offset as u32, size, write };
        if INJECTED {
            return inject::distributor(cpu, access);
        }
        match dist::access(&cpu.view, &cpu.distributor.0, access) {
            // Of a GICv2 the window is shorter, and what lies behind it may be something else.
            Outcome::Abort if offset >= u64::from(dist2::FRAME_SIZE) && cpu.gicv2.is_some() => {}
            outcome => return outcome,
        }
    }
    let offset = ipa.wrapping_sub(cpu.plan().header.gicr_ipa.0);
    if offset < u64::from(cpu.domain().vcpu_count) * u64::from(redist::STRIDE) {
        let access = Access { offset: offset as u32, size, write };
        return if INJECTED { inject::redistributor(cpu, access) } else { redistributor(cpu, access) };
    }
    let offset = ipa.wrapping_sub(cpu.domain().vuart_ipa.0);
    if cpu.domain().flags & DomainFlags::CONSOLE != 0 && offset < va::PAGE {
        let outcome = console::access(cpu, Access { offset: offset as u32, size, write });
        cpu.again.set(outcome.is_none());
        return outcome.unwrap_or(Outcome::Abort);
    }
    if let Some(gic) = &cpu.gicv2
        && let Some(outcome) = inject2::distributor(cpu, gic, ipa, size, write)
    {
        return outcome;
    }
    if let Some(view) = pci::view(cpu.plan()) {
        match pci::access(cpu, view, ipa, size, write) {
            Outcome::Abort => {}
            outcome => return outcome,
        }
    }
    watchdog::access(cpu, ipa, size, write)
}

#[inline(never)]
fn redistributor(cpu: &PerCpu, access: Access) -> Outcome {
    redist::access(&cpu.view, |vcpu| Some(cpu.redistributor_of(vcpu)?.0), access)
}

/// MSR, MRS, SYS.
#[inline(never)]
fn system_register(cpu: &'static PerCpu, esr: u64) {
    let access = syndrome::sys_access(esr);
    let value = match (policy(access.reg, access.read), access.read) {
        (Policy::Constant(value), _) => value,
        (Policy::Id(reg), true) => {
            let index = u64::from(reg.crm.clamp(1, 7) - 1) * 8 + u64::from(reg.op2 & 7);
            idreg::filter(reg, super::read_id(index), cpu.domain().flags)
        }
        (Policy::Undefined | Policy::Id(_), _) => return undefined(esr),
    };
    if access.read {
        cpu.set_register(access.register, value);
    }
    advance(esr);
}

/// Steps over the trapped instruction.
#[inline(always)]
fn advance(esr: u64) {
    msr!("elr_el2", mrs!("elr_el2").wrapping_add(syndrome::instruction_bytes(esr)));
    let spsr = mrs!("spsr_el2");
    let stepped = syndrome::stepped(spsr);
    if stepped != spsr {
        msr!("spsr_el2", stepped);
    }
}

/// Not granted: a synchronous external abort in the guest, or the end where it comes from the guest's own vectors. Also
/// where a revoked stage 2 shows.
#[inline(never)]
fn refuse(cpu: &'static PerCpu, esr: u64) {
    if !cpu.state.is_running() {
        park::stand_by(cpu);
    }
    let (pc, far, spsr) = (mrs!("elr_el2"), mrs!("far_el2"), mrs!("spsr_el2"));
    if syndrome::from_el1(spsr) && pc.wrapping_sub(mrs!("vbar_el1")) < 0x800 {
        park::fault(cpu, park::Reason::VectorAbort);
    }
    if let Some(held_back) = cpu.log.permit() {
        let (domain, vcpu) = (cpu.id.0, cpu.vcpu as u32);
        if held_back != 0 {
            defmt::warn!("domain {=u16} vcpu {=u32}: {=u32} records held back", domain, vcpu, held_back);
        }
        defmt::warn!(
            "refused domain {=u16} vcpu {=u32}: pc {=u64:#x} esr {=u64:#x} far {=u64:#x} hpfar {=u64:#x}",
            domain,
            vcpu,
            pc,
            esr,
            far,
            if syndrome::hpfar_valid(esr) { mrs!("hpfar_el2") } else { 0 }
        );
    }
    msr!("far_el1", far);
    inject(syndrome::external_abort(esr, spsr, mrs!("sctlr_el1")));
}

#[inline(never)]
fn undefined(esr: u64) {
    inject(syndrome::undefined(esr, mrs!("spsr_el2"), mrs!("sctlr_el1")));
}

/// Makes the guest take an exception to EL1 at the trapped instruction.
fn inject(exception: Injection) {
    msr!("esr_el1", exception.esr);
    msr!("elr_el1", mrs!("elr_el2"));
    msr!("spsr_el1", mrs!("spsr_el2"));
    msr!("elr_el2", mrs!("vbar_el1").wrapping_add(exception.vector));
    msr!("spsr_el2", exception.spsr);
}

/// A physical FIQ: EL2's own.
#[unsafe(no_mangle)]
extern "C" fn trap_fiq(cpu: &'static PerCpu) {
    serve(cpu);
    if !cpu.state.is_running() {
        park::stand_by(cpu);
    }
}

/// Serves one of EL2's interrupts, if one is pending. One per call: another FIQ brings the next. Answers whether it was the
/// kick: the state that it announces is looked at by the caller.
pub(crate) fn serve(cpu: &'static PerCpu) -> bool {
    let taken = match &cpu.gicv2 {
        Some(gic) => gic.acknowledge(),
        None => gicv3::acknowledge().map(|intid| intid.0),
    };
    taken.is_some_and(|taken| serve_taken(cpu, taken))
}

/// The same with one that has been acknowledged as `taken`. It ends it.
#[inline(never)]
pub(super) fn serve_taken(cpu: &'static PerCpu, taken: u32) -> bool {
    let plan = cpu.plan();
    let intid = if cpu.gicv2.is_some() { IntId(taken & 0x3FF) } else { IntId(taken) };
    let kicked = intid == plan.header.kick_sgi;
    if kicked {
    } else if intid == gicv3::HYP_TIMER {
        let now = console::now();
        // Who waits looks at it anyway, once awake.
        cpu.deadlines.take(Duty::Restart, now);
        watchdog::look(cpu, now);
        console::timer(cpu, now);
    } else if intid == plan.header.console_intid {
        console::receive(cpu);
    } else if let Some(view) = pci::view(plan).filter(|view| smmu::interrupts(Some(view)).contains(&intid)) {
        smmu::serve(cpu, view);
    } else {
        if let Some(gic) = &cpu.gicv2 {
            gic.disable(intid);
        } else if intid.is_spi() {
            cpu.distributor.disable(intid);
        } else {
            cpu.redistributor.disable(intid);
        }
        defmt::warn!("unexpected interrupt {=u32} of EL2 on CPU {=u16}, disabled", intid.0, cpu.index.0);
    }
    match &cpu.gicv2 {
        Some(gic) => gic.end(taken),
        None => gicv3::end(intid),
    }
    kicked
}

/// Sleeps for the guest until an interrupt is pending, its own or EL2's.
pub(crate) fn doze(cpu: &'static PerCpu) {
    // What waits in a list register would not wake EL2, which has no virtual interrupts.
    let Some(gic) = &cpu.gicv2 else {
        if !(cpu.is_injected() && inject::is_pending(cpu)) {
            gicv3::sleep();
        }
        return;
    };
    if cpu.is_injected() {
        if !inject2::is_pending(cpu, gic) {
            gic.look_again();
            cortex_a::asm::barrier::dsb(cortex_a::asm::barrier::SY);
            cortex_a::asm::wfi();
        }
        return;
    }
    let kept = gic.borrow();
    cortex_a::asm::barrier::dsb(cortex_a::asm::barrier::SY);
    cortex_a::asm::wfi();
    if gic.is_own_pending() {
        serve(cpu);
    }
    gic.give_back(&kept);
}

/// The same where interrupts are injected: the kick may also say that list registers hold what is not wanted any more.
#[unsafe(no_mangle)]
extern "C" fn trap_fiq_injected(cpu: &'static PerCpu) {
    trap_fiq(cpu);
    inject::kicked(cpu);
}

/// A physical SError is charged to the domain of the CPU that takes it (invariant I04). EL2 keeps SErrors masked, so one
/// that comes while it works is taken here too, at the next ERET.
#[unsafe(no_mangle)]
extern "C" fn trap_serror(cpu: &'static PerCpu) {
    park::fault(cpu, park::Reason::SystemError);
}

/// An exception taken from EL2 itself. `cpu` is the CPU's own, on a fresh stack; none before it has been set up. Before
/// any guest runs it ends the boot, later it costs the domain this CPU worked for; while that fails too, the CPU.
#[unsafe(no_mangle)]
extern "C" fn trap_own(cpu: Option<&'static PerCpu>, kind: u64) -> ! {
    let before = cpu.map_or_else(state::count_own_exception, |cpu| cpu.failures.replace(cpu.failures.get() + 1));
    if before > 1 || !state::is_open_to_guests() && before > 0 {
        firmware::power_off_or_sleep(!state::is_open_to_guests());
    }
    if let Some(cpu) = cpu {
        cpu.log.last_words(true);
    }
    if before == 0 {
        let (pc, esr, far) = (mrs!("elr_el2"), mrs!("esr_el2"), mrs!("far_el2"));
        defmt::error!("exception {=u64} in EL2: pc {=u64:#x} esr {=u64:#x} far {=u64:#x}", kind, pc, esr, far);
    }
    match cpu {
        Some(cpu) if state::is_open_to_guests() => park::fault(cpu, park::Reason::Hypervisor),
        _ => crate::boot::refuse(),
    }
}
