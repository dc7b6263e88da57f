//! What one CPU knows: its guest's registers, its place in the plan, its own buffers.
//!
//! It lies at the upper end of the CPU's area; the stack grows down from it. Cells throughout: only this CPU reaches it,
//! through a shared reference, so that the log and a trap may hold it at once.
#![allow(unsafe_code)] // places itself in the CPU's area

use super::{firmware, registers::mrs};
use crate::deadline::Deadlines;
use crate::dev::gicv2::Gic;
use crate::dev::gicv3::{Distributor, Redistributor};
use crate::dev::its;
use crate::log::Buffer;
use crate::pci;
use crate::state::{DomainState, state_of};
use cofferdam_plan::{CpuIndex, Domain, DomainFlags, DomainId, Ipa, NO_WINDOW, Plan, va};
use core::cell::Cell;
use hyp_min::vdev::View;
use hyp_min::vdev::psci::Mitigations;
use hyp_min::vdev::sgi::Targets;

/// See the file's header. vectors.S knows that `x` comes first.
#[repr(C, align(16))]
pub(crate) struct PerCpu {
    /// x0 to x30 of the guest while it is trapped; index 31 is XZR and stays 0.
    x: [Cell<u64>; 32],
    /// ICH_ELRSR_EL2, or GICH_ELRSR0, while all list registers are empty, where interrupts are injected. vectors.S looks at it.
    lists: u32,
    /// Number of LPIs that this CPU takes, and where the SPI of each stands in the plan. vectors.S looks at them.
    lpi_count: u32,
    lpis: usize,
    /// Index in the plan's CPUs.
    pub(crate) index: CpuIndex,
    /// The domain this CPU belongs to.
    pub(crate) id: DomainId,
    /// Its vCPU number there.
    pub(crate) vcpu: usize,
    /// EL2 address of a GICv2's CPU interface, for vectors.S.
    gicc: u64,
    /// Where the guest's accesses to the distributor are looked for first: nowhere where a GICv2's are injected.
    pub(crate) gicd_ipa: Ipa,
    /// The domain for the virtual interrupt controller.
    pub(crate) view: View<'static>,
    /// The domain's run-time state.
    pub(crate) state: &'static DomainState,
    /// Its vCPUs as SGI targets.
    pub(crate) targets: Targets,
    /// The physical distributor.
    pub(crate) distributor: Distributor,
    /// What the firmware has said about this CPU.
    pub(crate) mitigations: Mitigations,
    /// This CPU's physical redistributor, of a GICv3.
    pub(crate) redistributor: Redistributor,
    /// The physical GICv2 where there is no GICv3.
    pub(crate) gicv2: Option<Gic>,
    /// Log frame being built, and this domain's allowance of records.
    pub(crate) log: Buffer,
    /// What this CPU has to do later.
    pub(crate) deadlines: Deadlines,
    /// The access that is being emulated has had no effect and is to be made again.
    pub(crate) again: Cell<bool>,
    /// Exceptions taken from EL2 itself.
    pub(crate) failures: Cell<u32>,
}

const _: () = assert!(core::mem::offset_of!(PerCpu, x) == 0);
/// Where vectors.S finds `lists`, and what it needs of an LPI: `lpi_count`, `lpis`, the distributor's address.
pub(super) const LISTS: usize = core::mem::offset_of!(PerCpu, lists);
pub(super) const LPI_COUNT: usize = core::mem::offset_of!(PerCpu, lpi_count);
pub(super) const LPIS: usize = core::mem::offset_of!(PerCpu, lpis);
pub(super) const DISTRIBUTOR: usize = core::mem::offset_of!(PerCpu, distributor.0.base);
/// The same of `gicc`.
pub(super) const GICC: usize = core::mem::offset_of!(PerCpu, gicc);
const _: () = assert!(size_of::<PerCpu>() + 0x1400 <= va::CPU_AREA as usize, "5 KiB of stack remain");

impl PerCpu {
    /// Writes this CPU's own from the plan. `index` is valid (boot.S has used it to find the stack).
    pub(crate) fn set_up(plan: &'static Plan<'static>, index: usize) -> Option<&'static Self> {
        let cpu = plan.cpus.get(index)?;
        let domain = plan.domains.get(usize::from(cpu.domain))?;
        let state = state_of(domain);
        let gicv2 = Gic::of(plan.header);
        // ICH_VTR_EL2.ListRegs is one less than their number (IHI 0069, 12.4.12).
        let injected = domain.flags & DomainFlags::INJECTED != 0;
        let lists = match &gicv2 {
            _ if !injected => 0,
            Some(gic) => gic.all_lists(),
            None => u32::MAX >> (31 - (mrs!("ich_vtr_el2") & 0xF)),
        };
        let lpis = its::of_cpu(plan, index).map_or(&[][..], |(_, lpis)| lpis);
        let place = (cpu.area_va + va::CPU_AREA) as usize - size_of::<Self>();
        let value = Self {
            x: [const { Cell::new(0) }; 32],
            lists,
            lpi_count: lpis.len() as u32,
            lpis: lpis.as_ptr() as usize,
            index: CpuIndex(index as u16),
            id: DomainId(cpu.domain),
            vcpu: usize::from(cpu.vcpu),
            gicc: plan.header.gicc_va,
            gicd_ipa: if injected && gicv2.is_some() { NO_WINDOW } else { plan.header.gicd_ipa },
            view: View { plan, domain, vcpu: usize::from(cpu.vcpu), dist: &state.dist },
            state,
            // A GICv2 has no system registers to send by.
            targets: if gicv2.is_some() { Targets::none() } else { Targets::new(plan, domain) },
            distributor: Distributor::new(plan.header.gicd_va),
            mitigations: firmware::mitigations(),
            redistributor: Redistributor::new(cpu.gicr_va),
            gicv2,
            log: Buffer::new(),
            deadlines: Deadlines::new(),
            again: Cell::new(false),
            failures: Cell::new(0),
        };
        let place = place as *mut Self;
        // SAFETY: the plan's area for this CPU: mapped, writable, its own, above the stack in use; the verifier proves
        // that areas do not overlap.
        unsafe { place.write(value) };
        // SAFETY: just written; nobody writes it as a whole again.
        Some(unsafe { &*place })
    }

    /// This CPU's own; before [`PerCpu::set_up`] there is none.
    pub(crate) fn current() -> Option<&'static Self> {
        let place = mrs!("tpidr_el2") as *const Self;
        // SAFETY: TPIDR_EL2 is 0 from the stub on; `registers::own` points it to this CPU's PerCpu once that is written.
        unsafe { place.as_ref() }
    }

    /// The domain's record.
    pub(crate) fn domain(&self) -> &'static Domain {
        self.view.domain
    }

    /// Whether its interrupts come by way of EL2.
    pub(crate) fn is_injected(&self) -> bool {
        self.domain().flags & DomainFlags::INJECTED != 0
    }

    /// How many list registers there are, where its interrupts come by way of EL2.
    pub(crate) fn lists(&self) -> u32 {
        self.lists.count_ones()
    }

    /// Whether LPIs come to this CPU.
    pub(crate) fn takes_lpis(&self) -> bool {
        pci::PRESENT && self.lpi_count != 0
    }

    /// The plan.
    pub(crate) fn plan(&self) -> &'static Plan<'static> {
        self.view.plan
    }

    /// The redistributor of the domain's vCPU `vcpu`.
    pub(crate) fn redistributor_of(&self, vcpu: usize) -> Option<Redistributor> {
        let index = self.plan().vcpus_of(self.domain())?.get(vcpu)?;
        Some(Redistributor::new(self.plan().cpus.get(usize::from(index.0))?.gicr_va))
    }

    /// A general-purpose register as an instruction names it: 31 reads as zero.
    #[inline(always)]
    pub(crate) fn register(&self, n: u8) -> u64 {
        self.x[usize::from(n & 31)].get()
    }

    /// Sets a general-purpose register; 31 is not one.
    #[inline(always)]
    pub(crate) fn set_register(&self, n: u8, value: u64) {
        if n < 31 {
            self.x[usize::from(n & 31)].set(value);
        }
    }
}
