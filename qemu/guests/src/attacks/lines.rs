//! Kinds of lines: the two timers of EL1, and an SPI with edges. Interrupts are taken by hand, with PSTATE.I set.

use super::delivery::{GICD, ICENABLER, ISENABLER, ISPENDR, set};
use crate::deaf::interface;
use crate::interface::{SPURIOUS, end, settle, take};
use crate::probe::{load32, store32};
use crate::report::Report;
use unikernel::platform::platform;
use unikernel::{clock, cpu, irq, read_sysreg, write_sysreg};

/// Both timers of EL1 tell by an interrupt of their own (BSA, PPI assignments: 27 and 30), and only when they are due.
pub(super) fn timer_channels(report: &mut Report) {
    cpu::mask();
    macro_rules! channel {
        ($name:literal, $intid:literal, $counter:literal, $compare:literal, $control:literal) => {
            irq::enable($intid);
            write_sysreg!($compare, read_sysreg!($counter) + 3600 * clock::frequency());
            write_sysreg!($control, 1);
            report.equal(concat!($name, ", not due"), take(), SPURIOUS);
            write_sysreg!($compare, read_sysreg!($counter));
            settle();
            report.equal(concat!($name, ", due"), take(), $intid);
            write_sysreg!($control, 0);
            end($intid);
            report.equal("  and over", take(), SPURIOUS);
        };
    }
    channel!("virtual timer", 27, "cntvct_el0", "cntv_cval_el0", "cntv_ctl_el0");
    channel!("physical timer", 30, "cntpct_el0", "cntp_cval_el0", "cntp_ctl_el0");
}

/// An SPI that the board says is edge-triggered (the scenario says it of the GPIO controller's): nothing holds it, every edge counts,
/// one that comes while it is active comes after it. Its trigger is the board's.
pub(super) fn spi_edge(report: &mut Report) {
    cpu::mask();
    let Some(spi) = platform().device("arm,pl061", 0).and_then(|device| device.intid) else {
        return report.check("the GPIO controller has an interrupt", false, "none");
    };
    let config = GICD + 0xC00 + u64::from(spi / 16) * 4;
    let trigger = || load32(config, 0).map(|fields| fields >> (spi % 16 * 2) & 3);
    report.value("it is edge-triggered", trigger(), 2);
    let _ = store32(config, 0);
    report.value("and stays so", trigger(), 2);
    irq::enable(spi);
    let number = u64::from(spi);
    report.equal("nothing comes by itself", take(), SPURIOUS);
    set(spi, ISPENDR);
    report.equal("an edge comes", take(), number);
    set(spi, ISPENDR);
    report.equal("the next one waits for the end", take(), SPURIOUS);
    end(number);
    if interface().is_some() {
        // As in `states`: QEMU's GICv2 waits for a write to a physical register.
        set(spi, ISENABLER);
    }
    report.equal("and comes then", take(), number);
    end(number);
    report.equal("but once", take(), SPURIOUS);
    set(spi, ICENABLER);
    set(spi, ISPENDR);
    report.equal("a disabled one does not come", take(), SPURIOUS);
    set(spi, ISENABLER);
    report.equal("and is kept", take(), number);
    end(number);
    report.equal("nothing is left", take(), SPURIOUS);
}
