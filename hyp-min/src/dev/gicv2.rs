//! The physical GICv2 (IHI 0048): brought from any state to the plan's. A CPU's interface is its guest's while that runs, and
//! EL2's own while none does; where interrupts are injected it is EL2's all the time.
//!
//! There is one group that non-secure software sees, which bit 0 of both CTLR registers enables; where there are no Security
//! Extensions it is Group 0, signalled as IRQ. Guests' priorities are 0x80 and below, EL2's own 0, so that EL2 closes the
//! guest's interrupts with the priority mask.

use super::gicv3::{
    GICD_CTLR, GICD_TYPER, GUEST_PRIORITY, HYP_TIMER, ICACTIVER, ICENABLER, ICFGR, ICPENDR, IGROUPR, IPRIORITYR,
    ISACTIVER, ISENABLER, MAINTENANCE,
};
use super::mmio::Mmio;
use cofferdam_plan::{Domain, Header, HeaderFlags, IntId, NO_INTID, Plan, va};
use hyp_min::vdev::inject::{Entry, MOST, Until};

const ITARGETSR: u32 = 0x800;
const SGIR: u32 = 0xF00;
/// Four words, a byte for each SGI (4.3.17).
const CPENDSGIR: u32 = 0xF10;
/// The same to set them (4.3.17).
const SPENDSGIR: u32 = 0xF20;
const ICPIDR2: u32 = 0xFE8;

const GICC_CTLR: u32 = 0x00;
const GICC_PMR: u32 = 0x04;
const GICC_BPR: u32 = 0x08;
pub(crate) const GICC_IAR: u32 = 0x0C;
pub(crate) const GICC_EOIR: u32 = 0x10;
pub(crate) const GICC_RPR: u32 = 0x14;
const GICC_HPPIR: u32 = 0x18;
/// GICC_APR0 to 3 and GICC_NSAPR0 to 3.
const GICC_APR: u32 = 0xD0;
const APRS: u32 = 8;
const GICC_IIDR: u32 = 0xFC;
/// GICC_CTLR: the one group there is; GICC_EOIR drops the priority, GICC_DIR deactivates (EOImodeNS, 4.4.1).
const ENABLE: u32 = 1 << 0;
const EOI_MODE: u32 = 1 << 9;

const GICH_HCR: u32 = 0x000;
const GICH_VTR: u32 = 0x004;
const GICH_VMCR: u32 = 0x008;
/// List registers whose interrupt has ended and that have asked to be told.
const GICH_EISR: u32 = 0x020;
/// List registers that hold nothing.
pub(crate) const GICH_ELRSR: u32 = 0x030;
const GICH_APR: u32 = 0x0F0;
pub(crate) const GICH_LR: u32 = 0x100;
// GICH_HCR (5.3.1): virtual interface on, underflow, no interrupt pending.
const EN: u32 = 1 << 0;
const UIE: u32 = 1 << 1;
const NPIE: u32 = 1 << 3;
// GICH_LR (5.3.8). Group 0, which GICC_CTLR bit 0 enables: as a guest with direct delivery finds it.
const HW: u32 = 1 << 31;
const ACTIVE: u32 = 1 << 29;
const PENDING: u32 = 1 << 28;
const PRIORITY_SHIFT: u32 = 23;
/// Of an SGI; of others the physical INTID begins at bit 10.
const EOI: u32 = 1 << 19;
const SOURCE_SHIFT: u32 = 10;

/// Closes what has a guest's priority.
pub(crate) const EL2_ONLY: u32 = 0x80;

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
    /// GICC_DIR's page, in a plan with injected delivery.
    dir: Mmio,
    kick: IntId,
}

impl Gic {
    /// The plan's, `None` where it has a GICv3.
    pub(crate) fn of(header: &Header) -> Option<Self> {
        (header.flags & HeaderFlags::GICV2 != 0).then(|| Self {
            gicd: Mmio::new(header.gicd_va),
            gicc: Mmio::new(header.gicc_va),
            gich: Mmio::new(header.gicc_va + va::PAGE),
            dir: Mmio::new(header.gicc_va + 2 * va::PAGE),
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

    /// Every SPI disabled, at the guests' priority, to nobody; owned ones to their owner; the console's to EL2.
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
        let console = plan.header.console_intid;
        let cpu = plan.cpus.get(usize::from(plan.header.housekeeping_cpu.0));
        if let (true, Some(cpu)) = (console != NO_INTID && console.is_spi(), cpu) {
            self.gicd.store8(IPRIORITYR + console.0, 0);
            self.gicd.store8(ITARGETSR + console.0, cpu.gicv2_target as u8);
            self.gicd.store(ISENABLER + console.word() as u32 * 4, console.bit());
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
        self.gicd.store8(IPRIORITYR + MAINTENANCE.0, 0);
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
        self.gich.store(GICH_HCR, 0);
        self.gicd.store(ISENABLER, self.own());
        self.gicc.store(GICC_PMR, EL2_ONLY);
        self.gicc.store(GICC_CTLR, ENABLE);
    }

    /// The guest gets a virtual CPU interface, as after reset; the physical one is EL2's, open to all interrupts.
    pub(crate) fn inject(&self) {
        self.reset_interface();
        self.gich.store(GICH_VMCR, 0);
        self.gich.store(GICH_APR, 0);
        self.listen(None);
        self.gicd.store(ISENABLER, self.own() | MAINTENANCE.bit());
        self.mask(None);
        self.gicc.store(GICC_CTLR, ENABLE | EOI_MODE);
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
        self.gicc.store(GICC_CTLR, ENABLE);
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

    #[inline(never)]
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
        self.drop_priority(value);
        if self.gicc.load(GICC_CTLR) & EOI_MODE != 0 {
            self.dir.store(0, value); // GICC_DIR
        }
    }

    /// The priority of the interrupt that was acknowledged last: 0x80 | p >> 1 for a guest's p.
    pub(crate) fn running_priority(&self) -> u32 {
        self.gicc.load(GICC_RPR)
    }

    /// Ends the interrupt of `value` with one step, of two where interrupts are injected.
    pub(crate) fn drop_priority(&self, value: u32) {
        self.gicc.store(GICC_EOIR, value);
    }

    /// The second step. Of an SGI, for every sender's.
    pub(crate) fn deactivate(&self, intid: IntId) {
        if intid.0 < 16 {
            self.gicd.store(ICACTIVER, intid.bit());
        } else {
            self.dir.store(0, intid.0);
        }
    }

    /// Lets through only what is more urgent than a guest's `priority`: EL2's own always. `None` lets all through.
    pub(crate) fn mask(&self, priority: Option<u8>) {
        self.gicc.store(GICC_PMR, priority.map_or(0xFF, |priority| 0x80 | u32::from(priority >> 1)));
    }

    /// Changes nothing. On QEMU 10.0 it takes a write for a line to be looked at whose interrupt the guest has just ended.
    pub(crate) fn look_again(&self) {
        self.gicc.store(GICC_PMR, self.gicc.load(GICC_PMR));
    }

    /// Has the list registers tell when there is room.
    pub(crate) fn listen(&self, until: Option<Until>) {
        let until = match until {
            None => 0,
            Some(Until::NonePending) => NPIE,
            Some(Until::AlmostEmpty) => UIE,
        };
        self.gich.store(GICH_HCR, EN | until);
    }

    /// Makes an SGI pending on this CPU, as if the CPU interfaces of `senders` had sent it.
    pub(crate) fn pend_sgi(&self, intid: IntId, senders: u8) {
        self.gicd.store8(SPENDSGIR + (intid.0 & 0xF), senders);
    }

    /// Number of list registers that are used (GICH_VTR, 5.3.2: one less than there are).
    pub(crate) fn lists(&self) -> u32 {
        ((self.gich.load(GICH_VTR) & 0x3F) + 1).min(MOST as u32)
    }

    /// GICH_ELRSR0 while all list registers are empty.
    pub(crate) fn all_lists(&self) -> u32 {
        u32::MAX >> (31 - (self.gich.load(GICH_VTR) & 0x3F).min(31))
    }

    /// Bit per list register that holds nothing.
    pub(crate) fn empty_lists(&self) -> u32 {
        self.gich.load(GICH_ELRSR) | self.gich.load(GICH_EISR)
    }

    /// Reads list register `n`.
    pub(crate) fn list(&self, n: u32) -> Entry {
        let value = self.gich.load(GICH_LR + (n & (MOST as u32 - 1)) * 4);
        Entry {
            intid: value & 0x3FF,
            priority: (value >> PRIORITY_SHIFT << 3) as u8,
            pending: value & PENDING != 0,
            active: value & ACTIVE != 0,
            source: if value & HW == 0 { (value >> SOURCE_SHIFT & 7) as u8 } else { 0 },
        }
    }

    /// Writes list register `n`. An SGI that is active physically is one that holds off another: its end is to be told.
    pub(crate) fn set_list(&self, n: u32, entry: Entry) {
        let id = entry.intid & 0x3FF;
        let mut value = u32::from(entry.priority >> 3) << PRIORITY_SHIFT | id;
        if entry.is_physical() {
            value |= HW | id << SOURCE_SHIFT;
        } else {
            value |= u32::from(entry.source & 7) << SOURCE_SHIFT;
            value |= if self.gicd.load(ISACTIVER) & IntId(id).bit() != 0 { EOI } else { 0 };
        }
        value |= if entry.pending { PENDING } else { 0 } | if entry.active { ACTIVE } else { 0 };
        let value = if value & (PENDING | ACTIVE) != 0 { value } else { 0 };
        self.gich.store(GICH_LR + (n & (MOST as u32 - 1)) * 4, value);
    }

    /// Lets come what waits for an SGI of the same number that the guest has ended by now.
    pub(crate) fn release_ended(&self) {
        let ended = self.gich.load(GICH_EISR);
        for n in (0..self.lists()).filter(|n| ended >> n & 1 != 0) {
            let entry = self.list(n);
            self.gich.store(GICH_LR + n * 4, 0);
            self.deactivate(IntId(entry.intid & 0xF));
        }
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
