//! Interrupts as the architecture has them, whichever way they come: urgency, states, masks, vCPUs that disable each other's;
//! and guests that pile them up (I43, I46). Most of it takes interrupts by hand, with PSTATE.I set.

use crate::deaf::interface;
use crate::interface::{SPURIOUS, acknowledge, end, mask, post, post_others, running, send, settle, take};
use crate::probe::{Outcome, load32, store8, store32, store64};
use crate::report::Report;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use core::time::Duration;
use unikernel::platform::platform;
use unikernel::{clock, cpu, irq, psci, read_sysreg, write_sysreg};

pub(super) const GICD: u64 = 0x0800_0000;
const GICR: u64 = 0x080A_0000;
const STRIDE: u64 = 0x2_0000;
/// The SGI frame of vCPU 0.
const SGI: u64 = GICR + 0x1_0000;
pub(super) const ISENABLER: u64 = 0x100;
pub(super) const ICENABLER: u64 = 0x180;
pub(super) const ISPENDR: u64 = 0x200;
const ICPENDR: u64 = 0x280;
const ISACTIVER: u64 = 0x300;
const ICACTIVER: u64 = 0x380;
/// SGIs a domain may use.
const SGIS: u64 = 15;
const LENGTH: Duration = Duration::from_millis(1500);

/// The frame and word that hold `intid`.
fn place(intid: u32) -> u64 {
    if intid < 32 && interface().is_none() { SGI } else { GICD + u64::from(intid / 32) * 4 }
}

fn bit(intid: u32) -> u64 {
    1 << (intid % 32)
}

fn state(intid: u32, register: u64) -> Outcome {
    load32(place(intid) + register, 0).map(|value| value >> (intid % 32) & 1)
}

pub(super) fn set(intid: u32, register: u64) {
    let _ = store32(place(intid) + register, bit(intid));
    settle();
}

/// More interrupts pending than there are list registers, the least urgent first: each comes once, in order of urgency.
pub(super) fn pile_up(report: &mut Report) {
    let timer = u64::from(platform().timer.unwrap_or(27));
    cpu::mask();
    // Sixteen levels, the lowest of which is masked always (IHI 0069, 4.8.1).
    let sgis = 0..SGIS - 1;
    for intid in sgis.clone() {
        irq::set_priority(intid as u32, (0xE0 - intid * 0x10) as u8);
        irq::enable(intid as u32);
    }
    irq::set_priority(timer as u32, 0);
    for round in 0..100 {
        sgis.clone().for_each(send);
        write_sysreg!("cntv_cval_el0", 0);
        write_sysreg!("cntv_ctl_el0", 1);
        settle();
        let wanted = [timer].into_iter().chain(sgis.clone().rev());
        for want in wanted {
            let got = take();
            write_sysreg!("cntv_ctl_el0", 0);
            if got != want {
                return report.check("in order of urgency", false, format_args!("{got} for {want} in round {round}"));
            }
            end(got);
        }
    }
    report.check("in order of urgency, a hundred times", true, "");
    report.equal("nothing is left", take(), SPURIOUS);
}

/// Takes whatever comes and never ends it, for as long as a storm lasts; ends everything then, and gets the rest.
pub(super) fn never_ends(report: &mut Report) {
    cpu::mask();
    for intid in 0..SGIS {
        irq::set_priority(intid as u32, (0xE0 - intid * 0x10) as u8);
        irq::enable(intid as u32);
    }
    let (mut taken, mut count, mut seen) = ([0; 64], 0, 0u64);
    let stop = clock::ticks() + clock::to_ticks(LENGTH);
    while clock::ticks() < stop {
        for intid in 0..SGIS {
            post(intid, 1);
            let got = acknowledge();
            if got != SPURIOUS && count < taken.len() {
                taken[count] = got;
                count += 1;
                seen |= 1 << got;
            }
        }
    }
    report.check("some were taken", count >= 4, count);
    taken[..count].iter().rev().for_each(|intid| end(*intid));
    report.equal("nothing is running", running(), 0xFF);
    for _ in 0..2 * SGIS {
        let got = take();
        if got != SPURIOUS {
            seen |= 1 << got;
            end(got);
        }
    }
    report.equal("all have come", seen, (1 << SGIS) - 1);
    report.equal("nothing is left", take(), SPURIOUS);
}

/// Pending, active, enabled: an SPI without a wire, an SGI, the timer.
pub(super) fn states(report: &mut Report) {
    cpu::mask();
    let Some(spi) = platform().console.and_then(|device| device.intid) else {
        return report.check("console has an interrupt", false, "none");
    };
    // Of a GICv2's SGIs pending states are not to be set.
    let both = [("SPI", spi), ("SGI", 5)];
    for (what, intid) in both.into_iter().take(if interface().is_some() { 1 } else { 2 }) {
        irq::enable(intid);
        let mut holds = true;
        let mut expect = |step: &str, pending: u64, active: u64| {
            let got = (state(intid, ISPENDR), state(intid, ISACTIVER));
            if holds && got != (Ok(pending), Ok(active)) {
                holds = false;
                unikernel::println!("{what} {step}: {} {}", got.0.unwrap_or(9), got.1.unwrap_or(9));
            }
        };
        let number = u64::from(intid);
        expect("at rest", 0, 0);
        set(intid, ISPENDR);
        expect("pending", 1, 0);
        set(intid, ICENABLER);
        expect("disabled", 1, 0);
        let masked = take();
        set(intid, ISENABLER);
        expect("enabled", 1, 0);
        let first = take();
        expect("taken", 0, 1);
        set(intid, ISPENDR);
        expect("taken and pending", 1, 1);
        end(first);
        expect("ended", 1, 0);
        set(intid, ICPENDR);
        expect("cleared", 0, 0);
        let cleared = take();
        set(intid, ISPENDR);
        let second = take();
        set(intid, ICACTIVER);
        expect("active no more", 0, 0);
        end(second);
        set(intid, ISPENDR);
        let third = take();
        end(third);
        expect("at the end", 0, 0);
        report.check(what, holds, "a wrong state");
        let got = [masked, first, cleared, second, third];
        report.check("  is taken when it should be", got == [SPURIOUS, number, SPURIOUS, number, number], got[0]);
    }
    let timer = platform().timer.unwrap_or(27);
    write_sysreg!("cntv_cval_el0", 0);
    write_sysreg!("cntv_ctl_el0", 1);
    settle();
    report.value("the timer is pending", state(timer, ISPENDR), 1);
    report.value("  and not active", state(timer, ISACTIVER), 0);
    set(timer, ICENABLER);
    write_sysreg!("cntv_ctl_el0", 0);
    settle();
    report.value("a line that falls is not pending", state(timer, ISPENDR), 0);
    set(timer, ISENABLER);
    report.equal("  and does not come", take(), SPURIOUS);
    write_sysreg!("cntv_ctl_el0", 1);
    settle();
    report.equal("it comes", take(), u64::from(timer));
    end(u64::from(timer));
    if interface().is_some() {
        // QEMU (10.0, hw/intc/arm_gic.c, gic_complete_irq) looks at the lines again when a physical register is written, not
        // when a virtual end has ended a physical interrupt.
        set(timer, ISENABLER);
    }
    report.equal("a line that stays comes again", take(), u64::from(timer));
    write_sysreg!("cntv_ctl_el0", 0);
    end(u64::from(timer));
    report.equal("and not once more", take(), SPURIOUS);
}

/// ICC_PMR_EL1 masks, a more urgent interrupt preempts, ICC_RPR_EL1 tells (I46). With injected delivery only.
pub(super) fn urgency(report: &mut Report) {
    cpu::mask();
    for (intid, priority) in [(1, 0x40), (2, 0xA0)] {
        irq::set_priority(intid, priority);
        irq::enable(intid);
    }
    mask(0x80);
    send(2);
    send(1);
    report.equal("the urgent one passes the mask", take(), 1);
    report.equal("it runs", running(), 0x40);
    end(1);
    report.equal("the other does not", take(), SPURIOUS);
    mask(0xFF);
    report.equal("unless the mask is open", take(), 2);
    send(2);
    report.equal("it does not preempt itself", take(), SPURIOUS);
    send(1);
    report.equal("the urgent one does", take(), 1);
    end(1);
    report.equal("the first one runs again", running(), 0xA0);
    end(2);
    report.equal("its second one comes", take(), 2);
    end(2);
    report.equal("nothing runs", running(), 0xFF);
    mask(0);
    send(1);
    report.equal("PMR = 0 masks everything", take(), SPURIOUS);
    mask(0xFF);
    report.equal("which then comes", take(), 1);
    end(1);
}

static GO: AtomicU32 = AtomicU32::new(0);
static TOOK: AtomicU32 = AtomicU32::new(0);
static STOP: AtomicBool = AtomicBool::new(false);
static COUNTS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

/// vCPU 1 takes one interrupt by hand each time it is asked to.
fn taker() {
    cpu::mask();
    let mut done = 0;
    while !STOP.load(SeqCst) {
        if GO.load(SeqCst) != done {
            TOOK.store(acknowledge() as u32, SeqCst);
            let took = TOOK.load(SeqCst);
            if u64::from(took) != SPURIOUS {
                end(u64::from(took));
            }
            done += 1;
            GO.store(done | 1 << 31, SeqCst);
            while GO.load(SeqCst) >> 31 != 0 {
                cpu::relax();
            }
        }
        cpu::relax();
    }
}

/// Asks vCPU 1 what it can take.
fn elsewhere() -> u64 {
    let turn = GO.load(SeqCst) + 1;
    GO.store(turn, SeqCst);
    while GO.load(SeqCst) >> 31 == 0 {
        cpu::relax();
    }
    GO.store(turn, SeqCst);
    u64::from(TOOK.load(SeqCst))
}

/// An interrupt of another vCPU: pended, disabled, enabled, routed away from here.
pub(super) fn cross(report: &mut Report) {
    let Some(spi) = platform().console.and_then(|device| device.intid) else {
        return report.check("console has an interrupt", false, "none");
    };
    let number = u64::from(spi);
    let route = |vcpu| {
        let _ = match interface() {
            None => store64(GICD + 0x6000 + number * 8, vcpu),
            Some(_) => store8(GICD + 0x800 + number, 1 << vcpu),
        };
        settle();
    };
    // Without the timer: its interrupt would be in the way.
    let pause = || {
        let stop = clock::ticks() + clock::to_ticks(Duration::from_millis(20));
        while clock::ticks() < stop {
            cpu::relax();
        }
    };
    // What waits at the other is taken back by that one, when its CPU is given time.
    let given_back = || {
        pause();
        let stop = clock::ticks() + clock::to_ticks(Duration::from_secs(2));
        while (state(spi, ISPENDR), state(spi, ISACTIVER)) != (Ok(1), Ok(0)) && clock::ticks() < stop {
            cpu::relax();
        }
    };
    irq::enable(spi);
    let started = psci::start(1, taker).is_ok();
    report.check("vCPU 1 runs", started, "an error");
    pause();
    cpu::mask();
    route(1);
    set(spi, ISPENDR);
    pause();
    report.equal("it came to vCPU 1 only", take(), SPURIOUS);
    set(spi, ICENABLER);
    given_back();
    report.equal("disabled from here, it is not to be had there", elsewhere(), SPURIOUS);
    report.value("  but pending", state(spi, ISPENDR), 1);
    report.value("  and not active", state(spi, ISACTIVER), 0);
    set(spi, ISENABLER);
    pause();
    report.equal("enabled, it is", elsewhere(), number);
    set(spi, ISPENDR);
    pause();
    set(spi, ICENABLER);
    given_back();
    route(0);
    set(spi, ISENABLER);
    report.equal("routed here it comes here", take(), number);
    end(number);
    report.equal("and not there", elsewhere(), SPURIOUS);
    if interface().is_some() {
        STOP.store(true, SeqCst);
        return;
    }
    // The other's SGI 3, by its redistributor.
    let frame = SGI + STRIDE;
    let _ = store32(frame + ISENABLER, 1 << 3);
    let _ = store32(frame + ISPENDR, 1 << 3);
    pause();
    let _ = store32(frame + ICENABLER, 1 << 3);
    pause();
    report.equal("an SGI disabled from here", elsewhere(), SPURIOUS);
    let _ = store32(frame + ISENABLER, 1 << 3);
    pause();
    report.equal("and enabled", elsewhere(), 3);
    STOP.store(true, SeqCst);
}

fn count(_: u32) {
    COUNTS[cpu::index()].fetch_add(1, SeqCst);
}

fn storm() {
    (0..SGIS as u32).for_each(irq::enable);
    let stop = clock::ticks() + clock::to_ticks(LENGTH);
    let frame = if interface().is_some() { GICD } else { SGI + STRIDE * (1 - cpu::index() as u64) };
    while clock::ticks() < stop {
        for intid in 0..SGIS {
            post(intid, 3);
            post_others(intid);
        }
        // Of the other vCPU, which has to give back what is disabled; of a GICv2 one's own.
        let _ = store32(frame + ICENABLER, 0x7FFF);
        let _ = store32(frame + ISENABLER, 0x7FFF);
    }
}

/// Both vCPUs send each other and themselves SGIs as fast as they can, and disable each other's.
pub(super) fn sgi_storm(report: &mut Report) {
    for intid in 0..SGIS as u32 {
        let _ = irq::register(intid, count);
    }
    let started = psci::start(1, || {
        storm();
        STOP.store(true, SeqCst);
    });
    report.check("vCPU 1 runs", started.is_ok(), "an error");
    storm();
    while !STOP.load(SeqCst) {
        cpu::relax();
    }
    for (vcpu, taken) in COUNTS.iter().enumerate() {
        let taken = taken.load(SeqCst);
        report.check(["vCPU 0 got thousands", "vCPU 1 got thousands"][vcpu], taken > 1000, taken);
    }
}

/// vCPU 1 sends SGI 4 each time it is asked to.
fn sender() {
    cpu::mask();
    while !STOP.load(SeqCst) {
        if GO.swap(0, SeqCst) != 0 {
            post(4, 1);
            TOOK.store(1, SeqCst);
        }
        cpu::relax();
    }
}

/// From a GICv2: the same SGI from two vCPUs is two interrupts, which come one after the other with their senders.
pub(super) fn senders(report: &mut Report) {
    cpu::mask();
    irq::enable(4);
    report.check("vCPU 1 runs", psci::start(1, sender).is_ok(), "an error");
    let other = || {
        TOOK.store(0, SeqCst);
        GO.store(1, SeqCst);
        while TOOK.load(SeqCst) == 0 {
            cpu::relax();
        }
        let stop = clock::ticks() + clock::to_ticks(Duration::from_millis(2));
        while clock::ticks() < stop {
            cpu::relax();
        }
    };
    for round in 0..100 {
        // Here: 4 from vCPU 0, from vCPU 1, from vCPU 1 again while the first is handled.
        send(4);
        other();
        let first = take();
        other();
        let early = acknowledge();
        end(first);
        let second = take();
        other();
        end(second);
        let third = take();
        end(third);
        let rest = take();
        let senders = (first >> 10) + (second >> 10);
        let all = [first & 0x3FF, second & 0x3FF, third].map(|taken| taken & 0x3FF);
        // The last one is of vCPU 1, whose second came with its first where that had not been taken yet.
        if all != [4; 3] || senders != 1 || third != (4 | 1 << 10) || (early, rest) != (SPURIOUS, SPURIOUS) {
            let got = format_args!("{first:#x} {early:#x} {second:#x} {third:#x} {rest:#x} in round {round}");
            return report.check("each comes with its sender", false, got);
        }
    }
    report.check("each comes with its sender, a hundred times", true, "");
    STOP.store(true, SeqCst);
}

/// Writes every word of the distributor and of its redistributors, and every register of the CPU interface.
pub(super) fn every_register(report: &mut Report) {
    cpu::mask();
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    // Both pages of a GICv2's interface: with direct delivery the second one is not there.
    let other = interface().map_or(GICR..GICR + STRIDE, |gicc| gicc..gicc + 0x2000);
    for round in 0..3u64 {
        for at in (GICD..GICD + 0x1_0000).chain(other.clone()).step_by(4) {
            random = random.rotate_left(13).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ at;
            let _ = store32(at, [u64::MAX, 0, random][round as usize]);
            if at % 0x40 == 0 {
                let _ = store8(at, random);
            }
        }
        let values = [0, u64::MAX, random];
        for value in values.into_iter().filter(|_| interface().is_none()) {
            write_sysreg!("icc_pmr_el1", value);
            write_sysreg!("icc_bpr0_el1", value);
            write_sysreg!("icc_bpr1_el1", value);
            write_sysreg!("icc_ctlr_el1", value);
            write_sysreg!("icc_igrpen0_el1", value);
            write_sysreg!("icc_igrpen1_el1", value);
            write_sysreg!("icc_ap0r0_el1", value);
            write_sysreg!("icc_ap1r0_el1", value);
            write_sysreg!("icc_sre_el1", value);
            write_sysreg!("icc_sgi0r_el1", value);
            write_sysreg!("icc_sgi1r_el1", value);
            write_sysreg!("icc_asgi1r_el1", value);
            // No INTID of an LPI: with direct delivery this is the machine's own register, and QEMU (10.0, hw/intc/
            // arm_gicv3_cpuif.c, icc_deactivate_irq) does not look whether there is such an LPI before it clears its bit.
            write_sysreg!("icc_eoir0_el1", value & 0x1FFF);
            write_sysreg!("icc_eoir1_el1", value & 0x1FFF);
            write_sysreg!("icc_dir_el1", value & 0x1FFF);
            let _ = read_sysreg!("icc_iar0_el1") | read_sysreg!("icc_iar1_el1");
        }
    }
    report.check("every register written", true, "");
}
