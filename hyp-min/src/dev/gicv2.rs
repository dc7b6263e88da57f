//! The physical GICv2 (IHI 0048): brought from any state to the plan's. A CPU's interface is its guest's while that runs, and
//! EL2's own while none does.
//!
//! There is one group that non-secure software sees, which bit 0 of both CTLR registers enables; where there are no Security
//! Extensions it is Group 0, signalled as IRQ. Guests' priorities are 0x80 and below, EL2's own 0, so that EL2 closes the
//! guest's interrupts with the priority mask.

use super::gicv3::{
    GICD_CTLR, GICD_TYPER, GUEST_PRIORITY, HYP_TIMER, ICACTIVER, ICENABLER, ICFGR, ICPENDR, IGROUPR, IPRIORITYR,
    ISENABLER,
};
use super::mmio::Mmio;
use cofferdam_plan::{Domain, Header, HeaderFlags, IntId, Plan, va};

const ITARGETSR: u32 = 0x800;
const SGIR: u32 = 0xF00;
/// Four words, a byte for each SGI (4.3.17).
const CPENDSGIR: u32 = 0xF10;
const ICPIDR2: u32 = 0xFE8;

const GICC_CTLR: u32 = 0x00;
const GICC_PMR: u32 = 0x04;
const GICC_BPR: u32 = 0x08;
const GICC_IAR: u32 = 0x0C;
const GICC_EOIR: u32 = 0x10;
const GICC_HPPIR: u32 = 0x18;
/// GICC_APR0 to 3 and GICC_NSAPR0 to 3.
const GICC_APR: u32 = 0xD0;
const APRS: u32 = 8;
const GICC_IIDR: u32 = 0xFC;

const GICH_HCR: u32 = 0x000;
const GICH_VTR: u32 = 0x004;
const GICH_VMCR: u32 = 0x008;
const GICH_APR: u32 = 0x0F0;
const GICH_LR: u32 = 0x100;

/// Closes what has a guest's priority.
const EL2_ONLY: u32 = 0x80;

/// What a guest has in its CPU interface, while EL2 borrows it.
pub(crate) struct Kept {
    control: u32,
    mask: u32,
    active: [u32; APRS as usize],
}

/// One CPU's view of the GICv2: its banked registers come with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gic {
    gicd: Mmio,
    gicc: Mmio,
    gich: Mmio,
    kick: IntId,
}

impl Gic {
    /// The plan's, `None` where it has a GICv3.
    pub(crate) fn of(header: &Header) -> Option<Self> {
        (header.flags & HeaderFlags::GICV2 != 0).then(|| Self {
            gicd: Mmio::new(header.gicd_va),
            gicc: Mmio::new(header.gicc_va),
            gich: Mmio::new(header.gicc_va + va::PAGE),
            kick: header.kick_sgi,
        })
    }

    /// Architecture version by GICD_ICPIDR2 (4.3.18) and by GICC_IIDR (4.4.14), and whether GICH answers. `None` where nothing
    /// does.
    pub(crate) fn architecture(&self) -> Option<(u32, u32, bool)> {
        let distributor = self.gicd.probe(ICPIDR2)? >> 4 & 0xF;
        let interface = self.gicc.probe(GICC_IIDR)? >> 16 & 0xF;
        Some((distributor, interface, self.gich.probe(GICH_VTR).is_some()))
    }

    /// This CPU's bit in GICD_ITARGETSR: its byte of INTID 0. A GIC with one CPU has none (4.3.12).
    pub(crate) fn target(&self) -> u32 {
        let one = self.gicd.load(GICD_TYPER) >> 5 & 7 == 0;
        if one { 1 } else { self.gicd.load(ITARGETSR) & 0xFF }
    }

    /// Every SPI disabled, at the guests' priority, to nobody; owned ones to their owner.
    pub(crate) fn set_up_distributor(&self, plan: &Plan<'_>) {
        self.gicd.store(GICD_CTLR, 0);
        for word in 1..(self.gicd.load(GICD_TYPER) & 0x1F) + 1 {
            self.gicd.store(ICENABLER + word * 4, u32::MAX);
            self.gicd.store(ICPENDR + word * 4, u32::MAX);
            self.gicd.store(ICACTIVER + word * 4, u32::MAX);
            self.gicd.store(IGROUPR + word * 4, 0);
            for quad in 0..8 {
                self.gicd.store(IPRIORITYR + word * 32 + quad * 4, GUEST_PRIORITY);
                self.gicd.store(ITARGETSR + word * 32 + quad * 4, 0);
            }
        }
        for (word, config) in (2..).zip(plan.icfgr) {
            self.gicd.store(ICFGR + word * 4, *config);
        }
        for spi in plan.spis.iter().filter(|spi| spi.intid.is_spi()) {
            self.gicd.store8(ITARGETSR + spi.intid.0, spi.router as u8);
        }
        self.gicd.store(GICD_CTLR, 1);
    }

    /// This CPU's SGIs and PPIs disabled, at the guests' priority; nothing virtual. A kick that has come stays.
    pub(crate) fn set_up_cpu(&self) {
        self.gicd.store(ICENABLER, u32::MAX);
        self.gicd.store(ICPENDR, u32::MAX);
        self.gicd.store(ICACTIVER, u32::MAX);
        self.gicd.store(IGROUPR, 0);
        for quad in 0..8 {
            self.gicd.store(IPRIORITYR + quad * 4, GUEST_PRIORITY);
        }
        for sgi in (0..16).filter(|sgi| *sgi != self.kick.0) {
            self.gicd.store8(CPENDSGIR + sgi, 0xFF);
        }
        self.gicd.store8(IPRIORITYR + (self.kick.0 & 0xF), 0);
        self.gicd.store8(IPRIORITYR + HYP_TIMER.0, 0);
        self.gich.store(GICH_HCR, 0);
        self.gich.store(GICH_VMCR, 0);
        self.gich.store(GICH_APR, 0);
        for list in 0..(self.gich.load(GICH_VTR) & 0x3F) + 1 {
            self.gich.store(GICH_LR + list * 4, 0);
        }
    }

    /// From now on the CPU interface is EL2's: nothing of the guest's is signalled or active.
    pub(crate) fn take(&self) {
        self.reset_interface();
        self.gicd.store(ISENABLER, self.own());
        self.gicc.store(GICC_PMR, EL2_ONLY);
        self.gicc.store(GICC_CTLR, 1);
    }

    /// From now on it is the guest's, as after reset. EL2's interrupts are off, a kick that came is forgotten.
    pub(crate) fn give(&self) {
        self.reset_interface();
        self.gicd.store(ICENABLER, self.own());
        self.gicd.store(ICPENDR, HYP_TIMER.bit());
        self.gicd.store8(CPENDSGIR + (self.kick.0 & 0xF), 0xFF);
    }

    /// Opens the guest's interface to all priorities and to EL2's own interrupts, for a while in which it does not run. Nothing it
    /// has active, or has made to look active, holds them off.
    pub(crate) fn borrow(&self) -> Kept {
        let register = |register: u32| self.gicc.load(register);
        let kept = Kept {
            control: register(GICC_CTLR),
            mask: register(GICC_PMR),
            active: core::array::from_fn(|n| register(GICC_APR + n as u32 * 4)),
        };
        for register in 0..APRS {
            self.gicc.store(GICC_APR + register * 4, 0);
        }
        self.gicd.store(ISENABLER, self.own());
        self.gicc.store(GICC_PMR, 0xFF);
        self.gicc.store(GICC_CTLR, 1);
        kept
    }

    /// As it was before [`Gic::borrow`].
    pub(crate) fn give_back(&self, kept: &Kept) {
        self.gicd.store(ICENABLER, self.own());
        for (register, active) in (0..APRS).zip(kept.active) {
            self.gicc.store(GICC_APR + register * 4, active);
        }
        self.gicc.store(GICC_PMR, kept.mask);
        self.gicc.store(GICC_CTLR, kept.control);
    }

    /// Whether an interrupt of EL2 is the highest pending.
    pub(crate) fn is_own_pending(&self) -> bool {
        let intid = IntId(self.gicc.load(GICC_HPPIR) & 0x3FF);
        intid.0 < 32 && intid.bit() & self.own() != 0
    }

    /// The SPIs of `domain` as [`Gic::set_up_distributor`] has left them. A line that a device holds is pending again at once,
    /// disabled. While no vCPU of the domain runs.
    pub(crate) fn reset_domain(&self, plan: &Plan<'_>, domain: &Domain) {
        for spi in plan.spis.iter().filter(|spi| domain.owns(spi.intid) && spi.intid.is_spi()) {
            for clear in [ICENABLER, ICPENDR, ICACTIVER] {
                self.gicd.store(clear + spi.intid.word() as u32 * 4, spi.intid.bit());
            }
            self.gicd.store8(IPRIORITYR + spi.intid.0, GUEST_PRIORITY as u8);
            self.gicd.store8(ITARGETSR + spi.intid.0, spi.router as u8);
        }
    }

    fn reset_interface(&self) {
        self.gicc.store(GICC_CTLR, 0);
        self.gicc.store(GICC_PMR, 0);
        self.gicc.store(GICC_BPR, 0);
        for register in 0..APRS {
            self.gicc.store(GICC_APR + register * 4, 0);
        }
    }

    fn own(&self) -> u32 {
        self.kick.bit() | HYP_TIMER.bit()
    }

    /// Acknowledges EL2's highest pending interrupt: the value that ends it, INTID in bits 9:0.
    pub(crate) fn acknowledge(&self) -> Option<u32> {
        let value = self.gicc.load(GICC_IAR);
        cortex_a::asm::barrier::dsb(cortex_a::asm::barrier::SY);
        (value & 0x3FF < 1020).then_some(value)
    }

    /// Ends it.
    pub(crate) fn end(&self, value: u32) {
        self.gicc.store(GICC_EOIR, value);
    }

    /// Sends an SGI: `value` as `dist2::kick` gives it. What was stored before is seen by who takes it.
    pub(crate) fn send(&self, value: u32) {
        cortex_a::asm::barrier::dsb(cortex_a::asm::barrier::ISHST);
        self.gicd.store(SGIR, value);
    }

    /// Stops an interrupt nobody expected.
    pub(crate) fn disable(&self, intid: IntId) {
        self.gicd.store(ICENABLER + intid.word() as u32 * 4, intid.bit());
    }
}
