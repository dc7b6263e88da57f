//! The physical GICv3 (IHI 0069): brought from any state to the plan's, and EL2's own Group 0 interrupts.
//!
//! Guests' interrupts are Group 1 at priority 0x80 (their 0); EL2's own are Group 0 at 0x00, so that nothing a guest
//! acknowledges holds them off.
#![allow(unsafe_code)] // CPU interface registers

use super::mmio::Mmio;
use super::smmu;
use crate::arch::aarch64::registers::{barrier, mrs, msr};
use crate::pci;
use cofferdam_plan::{Domain, HeaderFlags, IntId, Plan};

pub(super) const GICD_CTLR: u32 = 0x0000;
pub(super) const GICD_TYPER: u32 = 0x0004;
pub(super) const IGROUPR: u32 = 0x0080;
pub(super) const ISENABLER: u32 = 0x0100;
pub(super) const ICENABLER: u32 = 0x0180;
pub(crate) const ISPENDR: u32 = 0x0200;
pub(super) const ICPENDR: u32 = 0x0280;
pub(super) const ISACTIVER: u32 = 0x0300;
pub(super) const ICACTIVER: u32 = 0x0380;
pub(super) const IPRIORITYR: u32 = 0x0400;
pub(super) const ICFGR: u32 = 0x0C00;
/// GICD_ICENABLER<n>E.
const ICENABLER_E: u32 = 0x1400;
const IROUTER: u32 = 0x6000;
const GICD_PIDR2: u32 = 0xFFE8;
const GICR_CTLR: u32 = 0x0000;
const GICR_TYPER: u32 = 0x0008;
const GICR_WAKER: u32 = 0x0014;
const GICR_PROPBASER: u32 = 0x0070;
const GICR_PENDBASER: u32 = 0x0078;
/// SGI frame, from the start of the RD frame.
const SGI_FRAME: u32 = 0x1_0000;

const CTLR_GROUP0: u32 = 1 << 0;
const CTLR_GROUP1: u32 = 1 << 1;
const CTLR_ARE: u32 = 1 << 4;
const CTLR_DS: u32 = 1 << 6;
const CTLR_RWP: u32 = 1 << 31;
/// GICR_CTLR.EnableLPIs.
const CTLR_ENABLE_LPIS: u32 = 1 << 0;
/// GICR_CTLR.RWP.
const GICR_CTLR_RWP: u32 = 1 << 3;
/// GICR_PENDBASER.PTZ: the table is zeroes. Reads as zero.
const PTZ: u64 = 1 << 62;
const WAKER_SLEEP: u32 = 1 << 1;
const WAKER_ASLEEP: u32 = 1 << 2;

/// ICC_CTLR_EL1.EOImode: ICC_EOIR<n>_EL1 drops the priority, ICC_DIR_EL1 deactivates (IHI 0069, 12.2.6).
const EOI_MODE: u64 = 1 << 1;
/// Physical priority of a guest's 0: 0x80 | p >> 1.
pub(super) const GUEST_PRIORITY: u32 = 0x8080_8080;
/// EL2's physical timer (BSA, PPI assignments), for what a CPU has to do later (`deadline.rs`).
pub(crate) const HYP_TIMER: IntId = IntId(26);
/// The list registers' maintenance interrupt (the same place), EL2's where interrupts are injected.
pub(crate) const MAINTENANCE: IntId = IntId(25);
/// Reads of a status bit before the hardware counts as broken.
const POLLS: u32 = 1_000_000;

/// Words of extended SPIs (INTID 4096 and up) by GICD_TYPER: ESPI, ESPI_range (IHI 0069, 12.9.38).
const fn extended_spi_words(typer: u32) -> u32 {
    if typer & 1 << 8 == 0 { 0 } else { (typer >> 27) + 1 }
}
const _: () = assert!(extended_spi_words(31 << 27) == 0);
const _: () = assert!(extended_spi_words(1 << 8) == 1 && extended_spi_words(31 << 27 | 1 << 8) == 32);

/// Words of private interrupts by the low half of GICR_TYPER: PPInum, where 0 is none extended (IHI 0069, 12.11.35).
const fn private_words(typer: u32) -> u32 {
    let extended = typer >> 27;
    if extended < 3 { 1 + extended } else { 1 }
}
const _: () = assert!(private_words(0) == 1 && private_words(1 << 27) == 2 && private_words(2 << 27 | 1) == 3);

/// The distributor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distributor(pub(crate) Mmio);

impl Distributor {
    /// The one at EL2 virtual address `base`.
    pub(crate) const fn new(base: u64) -> Self {
        Self(Mmio::new(base))
    }

    /// GICD_PIDR2.ArchRev: 3 or 4 for GICv3 and v4. `None` where nothing answers.
    pub(crate) fn architecture(&self) -> Option<u32> {
        Some(self.0.probe(GICD_PIDR2)? >> 4 & 0xF)
    }

    /// Words of 32 INTIDs that exist: GICD_TYPER.ITLinesNumber + 1.
    pub(crate) fn words(&self) -> u32 {
        (self.0.load(GICD_TYPER) & 0x1F) + 1
    }

    /// GICD_CTLR.DS: one security state, both groups are EL2's.
    pub(crate) fn is_single_state(&self) -> bool {
        self.0.load(GICD_CTLR) & CTLR_DS != 0
    }

    /// Every SPI disabled, extended ones too, Group 1, at the guests' priority; owned ones routed; EL2's own Group 0. False where the
    /// hardware does not finish.
    pub(crate) fn set_up(&self, plan: &Plan<'_>) -> bool {
        let header = plan.header;
        let group0 = header.flags & HeaderFlags::GROUP0 != 0;
        // ARE stays as it is: clearing it is UNPREDICTABLE (IHI 0069, GICD_CTLR).
        self.0.store(GICD_CTLR, self.0.load(GICD_CTLR) & CTLR_ARE);
        if !self.is_settled() {
            return false;
        }
        self.0.store(GICD_CTLR, CTLR_ARE);
        // INTIDs 1020 to 1023 are not interrupts; their bits in the last word are reserved and ignore writes.
        for word in 1..self.words() {
            self.0.store(ICENABLER + word * 4, u32::MAX);
            self.0.store(ICPENDR + word * 4, u32::MAX);
            self.0.store(ICACTIVER + word * 4, u32::MAX);
            self.0.store(IGROUPR + word * 4, u32::MAX);
            for quad in 0..8 {
                self.0.store(IPRIORITYR + word * 32 + quad * 4, GUEST_PRIORITY);
            }
        }
        // No plan knows extended SPIs; a loader may.
        for word in 0..extended_spi_words(self.0.load(GICD_TYPER)) {
            self.0.store(ICENABLER_E + word * 4, u32::MAX);
        }
        for (word, config) in (2..).zip(plan.icfgr) {
            self.0.store(ICFGR + word * 4, *config);
        }
        for spi in plan.spis.iter().filter(|spi| spi.intid.is_spi()) {
            self.0.store64(IROUTER + spi.intid.0 * 8, spi.router);
        }
        if !self.is_settled() {
            return false;
        }
        let [event, error] = smmu::interrupts(pci::view(plan));
        if let (true, Some(cpu)) = (group0, plan.cpus.get(usize::from(header.housekeeping_cpu.0))) {
            for own in [header.console_intid, event, error].into_iter().filter(|own| own.is_spi()) {
                let group = IGROUPR + own.word() as u32 * 4;
                self.0.store(group, self.0.load(group) & !own.bit());
                self.0.store8(IPRIORITYR + own.0, 0);
                self.0.store64(IROUTER + own.0 * 8, cpu.mpidr.0);
                self.0.store(ISENABLER + own.word() as u32 * 4, own.bit());
            }
        }
        let groups = if group0 { CTLR_GROUP0 | CTLR_GROUP1 } else { CTLR_GROUP1 };
        self.0.store(GICD_CTLR, CTLR_ARE | groups);
        self.is_settled()
    }

    /// The SPIs of `domain` as [`Distributor::set_up`] has left them. A line that a device holds is pending again at once,
    /// disabled. While no vCPU of the domain runs.
    pub(crate) fn reset_domain(&self, plan: &Plan<'_>, domain: &Domain) {
        for spi in plan.spis.iter().filter(|spi| domain.owns(spi.intid) && spi.intid.is_spi()) {
            let (word, bit) = (spi.intid.word() as u32 * 4, spi.intid.bit());
            self.0.store(ICENABLER + word, bit);
            self.0.store(ICPENDR + word, bit);
            self.0.store(ICACTIVER + word, bit);
            self.0.store8(IPRIORITYR + spi.intid.0, GUEST_PRIORITY as u8);
            self.0.store64(IROUTER + spi.intid.0 * 8, spi.router);
        }
    }

    fn is_settled(&self) -> bool {
        (0..POLLS).any(|_| self.0.load(GICD_CTLR) & CTLR_RWP == 0)
    }

    /// Stops an SPI of EL2.
    pub(crate) fn disable(&self, intid: IntId) {
        self.0.store(ICENABLER + intid.word() as u32 * 4, intid.bit());
    }

    /// Ends interrupts of word `word` that nobody will end otherwise; of a GICv2 word 0 is this CPU's own.
    pub(crate) fn deactivate(&self, word: u32, bits: u32) {
        self.0.store(ICACTIVER + word * 4, bits);
    }

    /// Drives the line of an SPI that has no wire.
    pub(crate) fn set_line(&self, intid: IntId, high: bool) {
        let register = if high { ISPENDR } else { ICPENDR };
        self.0.store(register + intid.word() as u32 * 4, intid.bit());
    }
}

/// One CPU's redistributor: RD frame, SGI frame 64 KiB above.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Redistributor(pub(crate) Mmio);

impl Redistributor {
    /// The one at EL2 virtual address `base`.
    pub(crate) const fn new(base: u64) -> Self {
        Self(Mmio::new(base))
    }

    /// The affinity it belongs to: GICR_TYPER bits 63:32. `None` where nothing answers.
    pub(crate) fn affinity(&self) -> Option<u32> {
        self.0.probe(GICR_TYPER + 4)
    }

    /// Whether it takes LPIs, and the number by which the ITS knows it: GICR_TYPER.PLPIS, Processor_Number.
    pub(crate) fn lpi_number(&self) -> Option<u32> {
        let typer = self.0.load(GICR_TYPER);
        (typer & 1 != 0).then_some(typer >> 8 & 0xFFFF)
    }

    /// Awake, and LPIs off. Once, by its own CPU. False where the hardware does not follow.
    pub(crate) fn wake(&self) -> bool {
        self.0.store(GICR_WAKER, self.0.load(GICR_WAKER) & !WAKER_SLEEP);
        if !(0..POLLS).any(|_| self.0.load(GICR_WAKER) & WAKER_ASLEEP == 0) {
            return false;
        }
        // LPIs that a loader has left on would go on writing their tables into RAM that is a guest's now. Where the hardware
        // does not let them be turned off again (IHI 0069, 12.11.2, EnableLPIs), this CPU cannot be used.
        self.0.store(GICR_CTLR, 0);
        (0..POLLS).any(|_| self.0.load(GICR_CTLR) & (CTLR_ENABLE_LPIS | GICR_CTLR_RWP) == 0)
    }

    /// LPIs on, for good, with these GICR_PROPBASER and GICR_PENDBASER. False where the hardware does not take them.
    pub(crate) fn enable_lpis(&self, [properties, pending]: [u64; 2]) -> bool {
        self.0.store64(GICR_PROPBASER, properties);
        self.0.store64(GICR_PENDBASER, pending);
        if self.0.load64(GICR_PROPBASER) != properties || self.0.load64(GICR_PENDBASER) | PTZ != pending | PTZ {
            return false;
        }
        self.0.store(GICR_CTLR, CTLR_ENABLE_LPIS);
        self.0.load(GICR_CTLR) & CTLR_ENABLE_LPIS != 0
    }

    /// SGIs and PPIs (extended ones too) disabled, Group 1, at the guests' priority; EL2's own (with `kick`) Group 0 and
    /// enabled; with `injected` the maintenance interrupt, more urgent than any guest's. False where Group 0 is not EL2's.
    pub(crate) fn set_up(&self, kick: Option<IntId>, injected: bool) -> bool {
        let own = kick.map_or(0, |kick| kick.bit() | HYP_TIMER.bit());
        for word in 0..private_words(self.0.load(GICR_TYPER)) {
            self.0.store(SGI_FRAME + ICENABLER + word * 4, u32::MAX);
        }
        self.0.store(SGI_FRAME + ICPENDR, u32::MAX);
        self.0.store(SGI_FRAME + ICACTIVER, u32::MAX);
        self.0.store(SGI_FRAME + IGROUPR, !own);
        for quad in 0..8 {
            self.0.store(SGI_FRAME + IPRIORITYR + quad * 4, GUEST_PRIORITY);
        }
        if let Some(kick) = kick {
            self.0.store8(SGI_FRAME + IPRIORITYR + (kick.0 & 0xF), 0);
            self.0.store8(SGI_FRAME + IPRIORITYR + HYP_TIMER.0, 0);
            self.0.store(SGI_FRAME + ISENABLER, own);
        }
        if injected {
            self.0.store8(SGI_FRAME + IPRIORITYR + MAINTENANCE.0, 0);
            self.0.store(SGI_FRAME + ISENABLER, MAINTENANCE.bit());
        }
        self.0.load(SGI_FRAME + IGROUPR) & own == 0
    }

    /// Makes an SGI or PPI pending.
    pub(crate) fn pend(&self, intid: IntId) {
        self.0.store(SGI_FRAME + ISPENDR, intid.bit());
    }

    /// Ends SGIs and PPIs that nobody will end otherwise.
    pub(crate) fn deactivate(&self, bits: u32) {
        self.0.store(SGI_FRAME + ICACTIVER, bits);
    }

    /// Stops an SGI or PPI of EL2.
    pub(crate) fn disable(&self, intid: IntId) {
        self.0.store(SGI_FRAME + ICENABLER, intid.bit());
    }
}

/// The CPU interface as the guest finds it: priorities open, one step EOI, nothing active, Group 1 closed; Group 0 open
/// for EL2 where it has it (IHI 0069, 12.2). Where the firmware has it (`group0` false), its registers may trap to EL3 and
/// are left alone. Where interrupts are `injected` it is EL2's: Group 1 open, and ending one takes two steps.
pub(crate) fn cpu_interface(group0: bool, injected: bool) {
    msr!("icc_pmr_el1", 0xFF);
    msr!("icc_ctlr_el1", if injected { EOI_MODE } else { 0 });
    if group0 {
        msr!("icc_bpr0_el1", 0);
    }
    msr!("icc_bpr1_el1", 0);
    clear_active(group0);
    msr!("icc_igrpen1_el1", u64::from(injected));
    if group0 {
        msr!("icc_igrpen0_el1", 1);
    }
    barrier();
}

/// Nothing is active on this CPU any more, whatever a guest has written or not ended. `group0` as for [`cpu_interface`].
pub(crate) fn clear_active(group0: bool) {
    let priority_bits = (mrs!("icc_ctlr_el1") >> 8 & 7) + 1;
    if group0 {
        msr!("icc_ap0r0_el1", 0);
        if priority_bits >= 6 {
            msr!("icc_ap0r1_el1", 0);
        }
        if priority_bits >= 7 {
            msr!("icc_ap0r2_el1", 0);
            msr!("icc_ap0r3_el1", 0);
        }
    }
    msr!("icc_ap1r0_el1", 0);
    if priority_bits >= 6 {
        msr!("icc_ap1r1_el1", 0);
    }
    if priority_bits >= 7 {
        msr!("icc_ap1r2_el1", 0);
        msr!("icc_ap1r3_el1", 0);
    }
}

/// Sleeps until an interrupt is pending. What the guest has active, or has made to look active, holds none off meanwhile:
/// a sleeper that EL2's own interrupts could not wake could not be fetched either (invariant I42).
pub(crate) fn sleep() {
    let priority_bits = (mrs!("icc_ctlr_el1") >> 8 & 7) + 1;
    let active = mrs!("icc_ap1r0_el1");
    let mut more = [0; 3];
    if priority_bits >= 6 {
        more[0] = mrs!("icc_ap1r1_el1");
    }
    if priority_bits >= 7 {
        (more[1], more[2]) = (mrs!("icc_ap1r2_el1"), mrs!("icc_ap1r3_el1"));
    }
    let idle = active | more[0] | more[1] | more[2] == 0;
    if !idle {
        clear_active(false);
        barrier();
    }
    cortex_a::asm::barrier::dsb(cortex_a::asm::barrier::SY);
    cortex_a::asm::wfi();
    if idle {
        return;
    }
    msr!("icc_ap1r0_el1", active);
    if priority_bits >= 6 {
        msr!("icc_ap1r1_el1", more[0]);
    }
    if priority_bits >= 7 {
        msr!("icc_ap1r2_el1", more[1]);
        msr!("icc_ap1r3_el1", more[2]);
    }
    barrier();
}

/// No guest interrupt wakes this CPU any more.
pub(crate) fn close_guest_group() {
    msr!("icc_igrpen1_el1", 0);
    barrier();
}

/// From now on LPIs alone come, and wake this CPU: they are more urgent than any guest's interrupt.
pub(crate) fn messages_only() {
    mask(Some(0));
    msr!("icc_igrpen1_el1", 1);
    barrier();
}

/// Sends a Group 0 SGI: `value` as `Targets::kick` gives it. What was stored before is seen by who takes it.
pub(crate) fn send_group0(value: u64) {
    cortex_a::asm::barrier::dsb(cortex_a::asm::barrier::ISHST);
    msr!("S3_0_C12_C11_7", value); // ICC_SGI0R_EL1
    barrier();
}

/// Sends a Group 1 SGI: a value `Targets::expand` gives. The order of the guest's own stores is the guest's business.
#[inline(always)]
pub(crate) fn send_group1(value: u64) {
    msr!("S3_0_C12_C11_5", value); // ICC_SGI1R_EL1
}

/// Acknowledges EL2's highest pending interrupt.
pub(crate) fn acknowledge() -> Option<IntId> {
    let intid = mrs!("S3_0_C12_C8_0") & 0xFF_FFFF; // ICC_IAR0_EL1
    cortex_a::asm::barrier::dsb(cortex_a::asm::barrier::SY);
    (intid < 1020).then_some(IntId(intid as u32))
}

/// Acknowledges the highest pending Group 1 interrupt that is let through.
pub(crate) fn acknowledge_group1() -> Option<u32> {
    let intid = mrs!("S3_0_C12_C12_0") as u32 & 0xFF_FFFF; // ICC_IAR1_EL1
    cortex_a::asm::barrier::dsb(cortex_a::asm::barrier::SY);
    (!(1020..1024).contains(&intid)).then_some(intid)
}

/// Ends it.
pub(crate) fn end(intid: IntId) {
    msr!("S3_0_C12_C8_1", u64::from(intid.0)); // ICC_EOIR0_EL1
    if mrs!("icc_ctlr_el1") & EOI_MODE != 0 {
        deactivate(intid);
    }
    barrier();
}

/// The priority a guest has given the Group 1 interrupt that was acknowledged last, as its list register holds it.
pub(crate) fn running_priority() -> u8 {
    (mrs!("S3_0_C12_C11_3") << 1) as u8 // ICC_RPR_EL1: 0x80 | p >> 1
}

/// Lets others come while Group 1 interrupt `intid` is active: the first of the two steps.
pub(crate) fn drop_priority(intid: IntId) {
    msr!("S3_0_C12_C12_1", u64::from(intid.0)); // ICC_EOIR1_EL1
    barrier();
}

/// The second step. Only where interrupts are injected.
pub(crate) fn deactivate(intid: IntId) {
    msr!("S3_0_C12_C11_1", u64::from(intid.0)); // ICC_DIR_EL1
    barrier();
}

/// Lets through only what is more urgent than a guest's `priority`: EL2's own always. `None` lets all through.
pub(crate) fn mask(priority: Option<u8>) {
    msr!("icc_pmr_el1", priority.map_or(0xFF, |priority| 0x80 | u64::from(priority >> 1)));
    barrier();
}

/// Whether an FIQ waits for EL2 on this CPU: ISR_EL1.F.
pub(crate) fn is_fiq_pending() -> bool {
    mrs!("isr_el1") & 1 << 6 != 0
}
