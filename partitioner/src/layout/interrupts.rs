//! Interrupts of granted devices: each line has one owner, and a trigger the controller can do.

use super::access::Lists;
use crate::arch;
use crate::codes;
use crate::interrupts::{self, Line, Trigger};
use crate::lent::Full;
use crate::model::{Board, DeviceGrant, DeviceInterrupt, Domain};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node};
use cofferdam_plan::IntId;

/// Collects the interrupts of one node of a grant.
pub(super) fn collect<'a>(
    board: &Board<'a>,
    domain: &Domain<'a>,
    grant: &DeviceGrant<'a>,
    node: Node<'a>,
    lists: &mut Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<(), Full> {
    let specifiers = match interrupts::of(node) {
        Ok(list) => list,
        Err(why) => {
            interrupts::report(node, why, diagnostics);
            return Ok(());
        }
    };
    for specifier in &specifiers {
        let controller = specifier.controller;
        let root = arch::of_controller(controller).is_some();
        let owner = lists.owners.of(controller).map(|index| lists.devices[index].domain);
        let args = [Arg::Text(domain.name), Arg::Node(node), Arg::Node(controller)];
        if !root && owner == Some(grant.domain) {
            if controller.property("interrupt-map").is_some() {
                let message = "domain `{0}` asks for {1}, whose interrupts go through the `interrupt-map` of {2}: that is not supported yet";
                let d = Diagnostic::new(codes::NOT_SUPPORTED_YET, grant.span, message).args(&args);
                let help = "write the interrupt of the map's controller into {1}: interrupts-extended = <&… …>;";
                diagnostics.push(d.also(specifier.span, "this interrupt").help(help));
            }
            continue;
        }
        if !root {
            let message = "domain `{0}` asks for {1}, whose interrupts go through {2}, which it does not have";
            let d = Diagnostic::new(codes::FOREIGN_CONTROLLER, grant.span, message).args(&args);
            diagnostics.push(d.also(specifier.span, "this interrupt").help("grant {2} too"));
            continue;
        }
        let gic = board.gic.is_some_and(|gic| gic.node == controller);
        let line = if gic { interrupts::gic(&specifier.cells) } else { interrupts::ioapic(&specifier.cells) };
        match line {
            Line::Shared(_, Trigger::Impossible) => {
                let message = "{1} has an interrupt with a trigger the interrupt controller cannot do";
                let d = Diagnostic::new(codes::BAD_TRIGGER, specifier.span, message).args(&args);
                diagnostics.push(d.help("the third cell is 1 (rising edge) or 4 (level high)"));
            }
            Line::Shared(intid, trigger) => {
                let edge = trigger == Trigger::Edge;
                lists.interrupts.push(DeviceInterrupt { intid, edge, span: specifier.span })?;
            }
            Line::PerCpu(_) => {
                let message = "domain `{0}` asks for {1}, which has a per-CPU interrupt: it comes with the CPU, not with a device";
                let d = Diagnostic::new(codes::PER_CPU_INTERRUPT, grant.span, message).args(&args);
                let d = d.also(specifier.span, "this interrupt");
                diagnostics.push(d.help("leave it out: timers come with the CPUs, performance counters by `pmu;`"));
            }
            Line::OutOfRange | Line::BadType => {
                let message = "{1} has an interrupt that {2} cannot have";
                let d = Diagnostic::new(codes::INTERRUPT_NUMBER, specifier.span, message).args(&args);
                diagnostics
                    .push(d.help("type 0 (SPI) with a number up to 987, or type 1 (PPI) with a number up to 15"));
            }
        }
    }
    Ok(())
}

/// One line, one owner: no two domains, and none of the hypervisor's.
pub(super) fn check_owners<'a>(
    board: &Board<'a>,
    domains: &[Domain<'a>],
    lists: &Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    // First grant and position of each INTID; an index fits, for the lists are shorter than the tree.
    let mut first: [Option<(u32, u32)>; IntId::LAST_SPI.0 as usize + 1] = [None; IntId::LAST_SPI.0 as usize + 1];
    let own = [board.console, board.log];
    for (index, grant) in lists.devices.iter().enumerate() {
        let Some(domain) = domains.get(grant.domain) else { continue };
        for position in grant.interrupts.clone() {
            let line = lists.interrupts[position];
            let number = Arg::Number(line.intid.0.into());
            if let Some(uart) = own.iter().flatten().find(|uart| uart.intid == Some(line.intid)) {
                let message = "{1} of domain `{0}` shares interrupt {2} with {3}, the hypervisor's own UART";
                let d = Diagnostic::new(codes::HYPERVISOR_LINE, grant.span, message).also(line.span, "this interrupt");
                let args = [Arg::Text(domain.name), Arg::Node(grant.node), number, Arg::Node(uart.node)];
                diagnostics.push(d.args(&args).help("leave {1} out, or give the console another UART"));
            }
            let Some(slot) = first.get_mut(line.intid.0 as usize) else { continue };
            let Some((other, at)) = *slot else {
                *slot = Some((index as u32, position as u32));
                continue;
            };
            let (other, before) = (&lists.devices[other as usize], lists.interrupts[at as usize]);
            let args = [Arg::Node(grant.node), Arg::Node(other.node), number, Arg::Text(domain.name)];
            if other.domain != grant.domain {
                let message = "{0} of domain `{3}` and {1} of domain `{4}` share interrupt {2}: a line has one owner";
                let d = Diagnostic::new(codes::SHARED_LINE, grant.span, message);
                let owner = domains.get(other.domain).map_or(Arg::None, |d| Arg::Text(d.name));
                let d = d.args(&[args[0], args[1], args[2], args[3], owner]);
                let d =
                    d.also(line.span, "this interrupt").also(before.span, "and this").also(other.span, "granted here");
                diagnostics.push(d.help("give both devices to one domain"));
            } else if before.edge != line.edge {
                let message = "{0} and {1} share interrupt {2} and disagree on its trigger";
                let d = Diagnostic::new(codes::BAD_TRIGGER, line.span, message).args(&args);
                diagnostics.push(d.also(before.span, "the other one").help("one line is edge or level for everybody"));
            }
        }
    }
}
