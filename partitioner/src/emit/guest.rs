//! The device tree a guest is given: its own CPUs, memory, interrupt controller, console and devices, and nothing else.
//!
//! Devices keep the board's properties as far as they mean something to the guest: what refers to a node the guest does
//! not have is left out.

use super::fdt::Fdt;
use super::overlay::Merge;
use super::reader::Base;
use super::supplies;
use crate::layout::PMU_PPI;
use crate::lent::{Full, Lent};
use crate::model::{Board, DeviceGrant, Domain, GicFrames, Layout};
use crate::pci::model::Settlement;
use crate::resolve::space::interface_size;
use crate::resolve::{Decided, GICD_SIZE, GICR_SIZE, PAGE};
use cofferdam_plan::{IntId, WATCHDOG_FUNCTION};

/// Phandle of the virtual interrupt controller.
pub(super) const GIC: u32 = 1;
/// GIC specifier, third cell (Linux, arm,gic-v3.yaml).
const EDGE: u32 = 1;
const LEVEL: u32 = 4;

/// What a guest's tree is made of.
pub(crate) struct Guest<'g, 'a, 'l> {
    pub(crate) board: &'g Board<'a>,
    pub(crate) layout: &'g Layout<'a, 'l>,
    pub(crate) domain: &'g Domain<'a>,
    pub(crate) decided: &'g Decided,
    /// Its index.
    pub(crate) id: usize,
    /// Where some domain has PCI functions.
    pub(crate) pci: Option<&'g Settlement>,
}

impl<'a> Guest<'_, 'a, '_> {
    /// Writes the tree into `bytes` and returns its length. `scratch` is for names, and for a tree with an overlay as it was
    /// without. The same decisions give the same bytes.
    pub(crate) fn write(&self, bytes: &mut [u8], scratch: &mut [u8]) -> Result<usize, Full> {
        let Some(overlay) = self.domain.overlay else { return self.generate(Fdt::new(bytes, scratch)) };
        let (strings, base) = scratch.split_at_mut(scratch.len() / 4);
        let len = self.generate(Fdt::new(base, strings)).map_err(|_| Full(Lent::Bytes))?;
        let mut fdt = Fdt::new(bytes, strings);
        Merge { guest: self, base: Base::new(base.get(..len).unwrap_or(&[])), overlay }.write(&mut fdt);
        fdt.finish()
    }

    fn generate(&self, mut fdt: Fdt<'_>) -> Result<usize, Full> {
        fdt.begin(format_args!(""));
        fdt.number("#address-cells", 2);
        fdt.number("#size-cells", 2);
        fdt.strings("compatible", &["cofferdam,domain"]);
        fdt.strings("model", &[self.domain.name]);
        fdt.number("interrupt-parent", GIC);
        if crate::cells::is_coherent(self.board.tree.root()) {
            fdt.flag("dma-coherent");
        }
        self.aliases(&mut fdt);
        self.chosen(&mut fdt);
        self.memory(&mut fdt);
        self.cpus(&mut fdt);
        fdt.begin(format_args!("psci"));
        fdt.strings("compatible", &["arm,psci-1.0", "arm,psci-0.2"]);
        fdt.strings("method", &["hvc"]);
        fdt.end();
        self.timer(&mut fdt);
        self.counters(&mut fdt);
        self.interrupt_controller(&mut fdt);
        self.console(&mut fdt);
        self.watchdog(&mut fdt);
        self.supplies(&mut fdt);
        for device in self.devices().iter().filter(|device| device.function.is_none()) {
            self.device(device, &mut fdt);
        }
        self.host_bridge(&mut fdt);
        fdt.end();
        fdt.finish()
    }

    /// The domain's watchdog, where it has whole seconds: what Linux' driver can be told.
    fn watchdog(&self, fdt: &mut Fdt<'_>) {
        let seconds = self.domain.lifecycle.watchdog_ms / 1000;
        if let Some((page, intid)) = self.decided.watchdog {
            fdt.begin(format_args!("watchdog@{page:x}"));
            fdt.strings("compatible", &["arm,sbsa-gwdt"]);
            fdt.property("reg", |fdt| {
                for frame in [page, page + PAGE] {
                    fdt.cells2(frame);
                    fdt.cells2(PAGE);
                }
            });
            fdt.property("interrupts", |fdt| interrupt(fdt, intid, false));
            // What the driver asks for where nobody tells it: all there is.
            fdt.number("timeout-sec", seconds);
            fdt.end();
        } else if seconds != 0 {
            fdt.begin(format_args!("watchdog"));
            fdt.strings("compatible", &["arm,smc-wdt"]);
            fdt.number("arm,smc-id", WATCHDOG_FUNCTION);
            fdt.end();
        }
    }

    pub(super) fn devices(&self) -> &[DeviceGrant<'a>] {
        self.layout.devices.get(self.domain.devices.clone()).unwrap_or(&[])
    }

    fn chosen(&self, fdt: &mut Fdt<'_>) {
        fdt.begin(format_args!("chosen"));
        if let Some(args) = self.domain.bootargs {
            fdt.strings("bootargs", &[args.value]);
        }
        self.stdout(fdt);
        for (name, seed) in [("rng-seed", self.domain.rng_seed), ("kaslr-seed", self.domain.kaslr_seed)] {
            seed.inspect(|seed| fdt.property(name, |fdt| fdt.bytes(seed)));
        }
        if let Some((start, end)) = self.decided.initrd {
            fdt.property("linux,initrd-start", |fdt| fdt.cells2(start));
            fdt.property("linux,initrd-end", |fdt| fdt.cells2(end));
        }
        self.fixed_bases(fdt);
        fdt.end();
    }

    fn memory(&self, fdt: &mut Fdt<'_>) {
        for memory in self.domain.memory.iter().filter(|memory| !memory.hidden) {
            fdt.begin(format_args!("memory@{:x}", memory.ipa.base.0));
            fdt.strings("device_type", &["memory"]);
            fdt.property("reg", |fdt| {
                fdt.cells2(memory.ipa.base.0);
                fdt.cells2(memory.ipa.size);
            });
            fdt.end();
        }
    }

    /// Only the two timers a guest has, by name: the list without names starts with the secure one.
    fn timer(&self, fdt: &mut Fdt<'_>) {
        let Some(timer) = &self.board.timer else { return };
        fdt.begin(format_args!("timer"));
        fdt.strings("compatible", &["arm,armv8-timer"]);
        fdt.property("interrupts", |fdt| {
            for intid in [timer.physical, timer.virt] {
                self.ppi(fdt, intid);
            }
        });
        fdt.strings("interrupt-names", &["phys", "virt"]);
        if let Some(frequency) = timer.frequency {
            fdt.number("clock-frequency", frequency);
        }
        fdt.flag("always-on");
        fdt.end();
    }

    /// The performance counters, by the names the board has for them: Linux' driver goes by those.
    fn counters(&self, fdt: &mut Fdt<'_>) {
        let Some(pmu) = self.domain.pmu else { return };
        fdt.begin(format_args!("pmu"));
        if let Some(compatible) = pmu.property("compatible") {
            fdt.property("compatible", |fdt| compatible.strings().for_each(|(text, _)| fdt.text(text)));
        }
        fdt.property("interrupts", |fdt| self.ppi(fdt, PMU_PPI));
        fdt.end();
    }

    /// A PPI, level-sensitive. A GICv2 is told which CPUs have it (bits 15:8; Linux, arm,gic.yaml).
    fn ppi(&self, fdt: &mut Fdt<'_>, intid: IntId) {
        let is_v2 = self.board.gic.is_some_and(|gic| gic.is_v2());
        let cpus = if is_v2 { (1 << self.domain.cpus.len()) - 1 } else { 0 };
        for cell in [1, intid.0.saturating_sub(16), cpus << 8 | LEVEL] {
            fdt.cell(cell);
        }
    }

    fn interrupt_controller(&self, fdt: &mut Fdt<'_>) {
        let Some(gic) = &self.board.gic else { return };
        fdt.begin(format_args!("interrupt-controller@{:x}", gic.gicd.base.0));
        match gic.frames {
            GicFrames::V3 { .. } => fdt.strings("compatible", &["arm,gic-v3"]),
            // What the emulated distributor says it is (GICD_IIDR).
            GicFrames::V2 { .. } => fdt.strings("compatible", &["arm,gic-400"]),
        }
        fdt.number("#address-cells", 0);
        fdt.number("#interrupt-cells", 3);
        fdt.flag("interrupt-controller");
        fdt.property("reg", |fdt| {
            let (gicd_size, frame, size) = match gic.frames {
                GicFrames::V3 { gicr } => (GICD_SIZE, gicr, GICR_SIZE * self.domain.cpus.len() as u64),
                GicFrames::V2 { gicc, .. } => (PAGE, gicc, interface_size(self.domain)),
            };
            fdt.cells2(gic.gicd.base.0);
            fdt.cells2(gicd_size);
            fdt.cells2(frame.base.0);
            fdt.cells2(size);
        });
        fdt.number("phandle", GIC);
        fdt.end();
        self.frame(fdt);
    }

    fn console(&self, fdt: &mut Fdt<'_>) {
        let Some((page, intid)) = self.decided.vuart else { return };
        fdt.begin(format_args!("serial@{page:x}"));
        fdt.strings("compatible", &["arm,pl011", "arm,primecell"]);
        fdt.property("reg", |fdt| {
            fdt.cells2(page);
            fdt.cells2(PAGE);
        });
        fdt.property("interrupts", |fdt| interrupt(fdt, intid, false));
        fdt.property("clocks", |fdt| {
            fdt.cell(supplies::fixed(supplies::CONSOLE));
            fdt.cell(supplies::fixed(supplies::CONSOLE));
        });
        fdt.strings("clock-names", &["uartclk", "apb_pclk"]);
        fdt.end();
    }
}

/// One specifier of the virtual interrupt controller.
pub(super) fn interrupt(fdt: &mut Fdt<'_>, intid: IntId, edge: bool) {
    let (kind, number) = if intid.is_spi() { (0, intid.0 - 32) } else { (1, intid.0.saturating_sub(16)) };
    fdt.cell(kind);
    fdt.cell(number);
    fdt.cell(if edge { EDGE } else { LEVEL });
}
