//! PSCI, the architected timer, and the registers nobody may be given.

use super::carve;
use crate::address::{self, Located, Lost};
use crate::arch::Arch;
use crate::cells::{Window, is_live, is_pci, windows};
use crate::codes;
use crate::devices;
use crate::interrupts::{self, Line};
use crate::model::{Board, Carveout, Conduit, Timer};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Property, Tree};
use cofferdam_plan::{IntId, Pa, PaRegion};

/// `compatible` strings of PSCI 0.2 and later; earlier ones number their functions as they like.
const PSCI: &[&str] = &["arm,psci-1.0", "arm,psci-0.2"];

/// How firmware is called.
pub(super) fn psci<'a>(
    tree: Tree<'a>,
    arch: &'static dyn Arch,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Option<Conduit> {
    if !arch.hypervisor_supported() {
        return None;
    }
    let help = "the hypervisor calls firmware by SMC: method = \"smc\";";
    let Some(node) = tree.nodes().find(|node| is_live(*node) && PSCI.iter().any(|c| node.is_compatible(c))) else {
        let message =
            "the board has no \"arm,psci-1.0\" node: no second CPU can be started, and the board cannot be turned off";
        diagnostics.push(Diagnostic::new(codes::NO_PSCI, tree.root().span(), message).help(help));
        return None;
    };
    let method = node.property("method");
    match method.and_then(Property::string) {
        Some("smc") => Some(Conduit::Smc),
        other => {
            let span = method.map_or(node.span(), Property::value_span);
            let message = "{0} says method `{1}`: started at EL2 the hypervisor has nobody to call that way";
            let d = Diagnostic::new(codes::NO_PSCI, span, message);
            diagnostics.push(d.args(&[Arg::Node(node), Arg::Text(other.unwrap_or(""))]).help(help));
            (other == Some("hvc")).then_some(Conduit::Hvc)
        }
    }
}

/// The PPIs of `arm,armv8-timer`, by `interrupt-names` or in the binding's order.
pub(super) fn timer<'a>(
    tree: Tree<'a>,
    arch: &'static dyn Arch,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Option<Timer> {
    let found = tree.nodes().find(|node| is_live(*node) && node.is_compatible("arm,armv8-timer"));
    if found.is_none() && arch.hypervisor_supported() {
        let message = "the board has no \"arm,armv8-timer\" node: which interrupts its timers have is not known";
        let help = "timer { compatible = \"arm,armv8-timer\"; interrupts = …; }: Secure, physical, virtual, EL2";
        diagnostics.push(Diagnostic::new(codes::MISSING, tree.root().span(), message).help(help));
    }
    let node = found?;
    let specifiers = match interrupts::of(node) {
        Ok(list) => list,
        Err(why) => {
            interrupts::report(node, why, diagnostics);
            return None;
        }
    };
    let names = node.property("interrupt-names");
    let ppi = |name: &str, position: usize| -> Option<IntId> {
        let at = names.map_or(Some(position), |names| names.strings().position(|(n, _)| n == name))?;
        match interrupts::gic(&specifiers.get(at)?.cells) {
            Line::PerCpu(intid) => Some(intid),
            _ => None,
        }
    };
    let frequency = node.property("clock-frequency").and_then(Property::number).and_then(|f| u32::try_from(f).ok());
    match (ppi("phys", 1), ppi("virt", 2), ppi("hyp-phys", 3)) {
        (Some(physical), Some(virt), Some(hypervisor)) => Some(Timer { physical, virt, hypervisor, frequency }),
        _ => {
            let span = node.property("interrupts").map_or(node.span(), Property::value_span);
            let message = "{0} does not name the PPIs of the EL1 physical, EL1 virtual and EL2 timers";
            let d = Diagnostic::new(codes::BAD_SPECIFIER, span, message).args(&[Arg::Node(node)]);
            diagnostics.push(d.help("four PPIs in this order: Secure physical, physical, virtual, EL2 physical"));
            None
        }
    }
}

/// Fills [`Board::forbidden`]: interrupt controllers, IOMMUs, PCI hosts with their windows, timer frames, debug, and
/// the hypervisor's UARTs.
pub(super) fn forbidden<'a>(board: &mut Board<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    const WHAT: &str = "register ranges of interrupt controllers, IOMMUs and PCI hosts";
    let own = [board.console, board.log];
    for node in board.tree.nodes().filter(|node| is_live(*node)) {
        let mine = own.iter().flatten().any(|uart| uart.node == node);
        let pci_host = is_pci(node) && !node.parent().is_some_and(is_pci);
        if mine || devices::forbidden(node).is_some() || devices::is_iommu(node) {
            carve(&mut board.forbidden, node, WHAT, diagnostics);
        }
        if !pci_host {
            continue;
        }
        // Where there are I/O ports, an I/O window holds ports, not memory.
        let ports = board.arch.io_ports_supported();
        let io = |window: &Window| window.child.space >> 24 & 3 == 1;
        for window in windows(node, "ranges").filter(|window| !(ports && io(window))) {
            let region = match node.parent().map(|bus| address::from_bus(bus, window.parent, window.size)) {
                Some(Ok(Located::Memory(region))) => Some(region),
                // Behind a bus that does not say so, it is taken to lie at its own address.
                Some(Err(Lost::At(_))) => PaRegion::new(Pa(window.parent.low), window.size),
                // Reported by `shape`.
                _ => None,
            };
            if let Some(region) = region {
                let entry = Carveout { region, node, span: window.span };
                super::push(&mut board.forbidden, entry, node, WHAT, diagnostics);
            }
        }
    }
    for taken in &board.forbidden {
        let Some(bank) = board.ram.iter().find(|bank| bank.value.overlaps(&taken.region)) else { continue };
        let message = "{0} has {1}, which lies in RAM";
        let d = Diagnostic::new(codes::REGISTERS_IN_RAM, taken.span, message);
        let d = d.args(&[Arg::Node(taken.node), Arg::Range(taken.region.base.0, taken.region.size)]);
        diagnostics.push(d.also(bank.span, "this bank").help("check `reg` and `ranges` of {0}, and the RAM"));
    }
}
