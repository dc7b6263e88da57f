//! PCI in a guest's tree: one host bridge at the board's address, whose one bus has the domain's functions and nothing else, and
//! the frame its functions send messages to.

use super::fdt::Fdt;
use super::guest::{GIC, Guest, interrupt};
use crate::cells::is_coherent;
use crate::pci::model::{Mode, PciHost, Settled, Share, Space, Window};
use crate::resolve::PAGE;
use cofferdam_plan::Pa;
use cofferdam_plan::pci::ECAM_SIZE;

/// Phandle of the frame.
const FRAME: u32 = 2;

impl<'a> Guest<'_, 'a, '_> {
    /// Host bridge, functions and share of the domain, where it has any.
    fn pci(&self) -> Option<(&PciHost<'a>, &[Settled], Share)> {
        let (host, settlement) = self.board.pci.as_ref().zip(self.pci)?;
        let functions = settlement.functions_of(self.id);
        (!functions.is_empty()).then(|| (host, functions, settlement.share(self.id)))
    }

    /// Whether the domain has a frame.
    pub(super) fn has_frame(&self) -> bool {
        self.pci().is_some_and(|(host, _, share)| share.spi_count != 0 && host.its.is_some())
    }

    /// The frame (Linux, arm,gic.yaml: GICv2m), whose numbers are INTIDs. Behind the interrupt controller, where Linux looks from
    /// there on; not in it, because the binding of a GICv3 knows no such child.
    pub(super) fn frame(&self, fdt: &mut Fdt<'_>) {
        let Some((host, _, share)) = self.pci().filter(|_| self.has_frame()) else { return };
        let Some(its) = &host.its else { return };
        fdt.begin(format_args!("v2m@{:x}", its.doorbell()));
        fdt.strings("compatible", &["arm,gic-v2m-frame"]);
        fdt.flag("msi-controller");
        fdt.property("reg", |fdt| {
            fdt.cells2(its.doorbell());
            fdt.cells2(PAGE);
        });
        fdt.number("arm,msi-base-spi", share.first_spi.0);
        fdt.number("arm,msi-num-spis", share.spi_count);
        fdt.number("phandle", FRAME);
        fdt.end();
    }

    /// In `/chosen`: base addresses are where they are.
    pub(super) fn fixed_bases(&self, fdt: &mut Fdt<'_>) {
        if self.pci().is_some() {
            fdt.number("linux,pci-probe-only", 1);
        }
    }

    /// The host bridge.
    pub(super) fn host_bridge(&self, fdt: &mut Fdt<'_>) {
        let Some((host, functions, _)) = self.pci() else { return };
        fdt.begin(format_args!("pcie@{:x}", host.ecam.base.0));
        fdt.strings("compatible", &["pci-host-ecam-generic"]);
        fdt.strings("device_type", &["pci"]);
        fdt.property("reg", |fdt| {
            fdt.cells2(host.ecam.base.0);
            fdt.cells2(ECAM_SIZE);
        });
        fdt.number("#address-cells", 3);
        fdt.number("#size-cells", 2);
        fdt.property("bus-range", |fdt| fdt.cells2(0));
        fdt.property("ranges", |fdt| {
            for window in host.windows.iter().filter(|window| window.space != Space::Io) {
                ranges(host, functions, window, fdt);
            }
        });
        let pins = || functions.iter().filter(|settled| matches!(settled.mode, Mode::Intx(_)));
        if pins().next().is_some() {
            fdt.number("#interrupt-cells", 1);
            fdt.property("interrupt-map-mask", |fdt| [0xFF00, 0, 0, 7].iter().for_each(|cell| fdt.cell(*cell)));
            fdt.property("interrupt-map", |fdt| {
                for settled in pins() {
                    self.pin(host, settled, fdt);
                }
            });
        }
        if self.has_frame() {
            fdt.number("msi-parent", FRAME);
        }
        if is_coherent(host.node) {
            fdt.flag("dma-coherent");
        } else if is_coherent(self.board.tree.root()) {
            // As the tree's root says otherwise.
            fdt.flag("dma-noncoherent");
        }
        fdt.end();
    }

    /// A row of `interrupt-map`.
    fn pin(&self, host: &PciHost<'_>, settled: &Settled, fdt: &mut Fdt<'_>) {
        let Mode::Intx(intid) = settled.mode else { return };
        let pin = host.functions.get(settled.function).map_or(0, |function| function.pin);
        for cell in [u32::from(settled.devfn) << 8, 0, 0, pin.into(), GIC] {
            fdt.cell(cell);
        }
        interrupt(fdt, intid, false);
    }
}

/// A window of the host bridge, whole, where functions of the domain have registers in it, at the same addresses on the bus.
///
/// It describes the bus; what the CPU reaches of it is in stage 2. Firmware that places base address registers by itself, although
/// they stay where they are, has the room for it that it has on the board.
fn ranges(host: &PciHost<'_>, functions: &[Settled], window: &Window, fdt: &mut Fdt<'_>) {
    let places = functions.iter().filter_map(|settled| Some((host.functions.get(settled.function)?, settled.bars)));
    let mut bars = places.flat_map(|(function, bars)| function.bars.into_iter().zip(bars));
    if !bars.any(|(spec, place)| spec.is_some() && place != 0 && window.pa.contains(Pa(place))) {
        return;
    }
    // Space code and prefetchable bit of IEEE 1275 PCI, 2.2.1.1.
    let space = if window.space == Space::Memory64 { 3 } else { 2 };
    fdt.cell(space << 24 | u32::from(window.prefetchable) << 30);
    fdt.cells2(window.bus);
    fdt.cells2(window.pa.base.0);
    fdt.cells2(window.pa.size);
}
