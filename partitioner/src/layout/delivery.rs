//! How interrupts reach a domain: direct wherever that is sound.
//!
//! On a GICv3 it always is: a CPU belongs to one domain, EL2's own interrupts are Group 0, and what must work against a
//! guest does not depend on them. So only the layout asks for injected delivery, for a guest that masks by priority or must
//! not reach foreign active states. And functions do that send messages: these arrive as LPIs, which EL2 turns into interrupts
//! the guest knows. A GICv2 with direct delivery leaves EL2 no interrupt on a CPU: there a domain whose CPU
//! has a duty of EL2's (what is typed, another's watchdog) gets injected delivery.

use super::words;
use crate::codes;
use crate::model::{At, Board, Delivery, DeviceGrant, Domain, Gic, GicFrames};
use crate::pci::lines;
use crate::resolve::{MAINTENANCE, PAGE};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Span};

/// `delivery`, where it is given.
pub(super) fn asked<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> Option<At<Delivery>> {
    let property = node.property("delivery")?;
    let value = match property.string()? {
        "direct" => Delivery::Direct,
        "injected" => Delivery::Injected,
        _ => {
            words::wrong_type(property, "`direct` or `injected`", diagnostics);
            return None;
        }
    };
    Some(At { value, span: property.value_span() })
}

/// Whether a function of `domain` sends messages, which has its part of `grants`.
fn sends(board: &Board<'_>, grants: &[DeviceGrant<'_>], domain: &Domain<'_>) -> bool {
    let sends = |grant: &DeviceGrant<'_>| {
        let host = board.pci.as_ref()?;
        Some(lines::can_send(board, host, host.functions.get(grant.function?)?))
    };
    let grants = grants.get(domain.devices.clone()).unwrap_or(&[]);
    grants.iter().any(|grant| sends(grant) == Some(true))
}

/// Decides for every domain, which has its part of `grants`. `input` is the one that has the console's input after boot, and its interrupt.
pub(super) fn decide<'a>(
    board: &Board<'a>,
    domains: &mut [Domain<'a>],
    grants: &[DeviceGrant<'a>],
    input: Option<usize>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    for domain in domains.iter_mut() {
        match domain.asked {
            Some(At { value: Delivery::Injected, span }) => inject(board, domain, span, diagnostics),
            None if sends(board, grants, domain) => inject(board, domain, domain.node.span(), diagnostics),
            _ => {}
        }
    }
    let Some(gic) = board.gic.as_ref().filter(|gic| gic.is_v2()) else { return };
    let takes_input = board.console.as_ref().is_some_and(|console| console.intid.is_some());
    if let Some((domain, span)) = input.and_then(|id| domains.get_mut(id)).filter(|_| takes_input).and_then(console) {
        match domain.asked {
            Some(At { value: Delivery::Direct, span: place }) => {
                let message = "domain `{0}` takes what is typed on the console, but {1} is a GICv2: with direct \
                               delivery every interrupt of its CPUs goes to the domain, and the hypervisor has none";
                let d = Diagnostic::new(codes::NO_INTERRUPT_FOR_EL2, place, message);
                let d = d
                    .args(&[Arg::Text(domain.name), Arg::Node(gic.node)])
                    .also(span, "console input is asked for here");
                diagnostics.push(d.help(
                    "leave `delivery` out, write console = \"output\", or let `input` of /domains name another domain",
                ));
            }
            _ => inject(board, domain, span, diagnostics),
        }
    }
    watchers(board, domains, diagnostics);
}

/// The domain with the place that asks for its console.
fn console<'d, 'a>(domain: &'d mut Domain<'a>) -> Option<(&'d mut Domain<'a>, Span)> {
    let span = domain.console?;
    Some((domain, span))
}

/// For each domain with a watchdog, one behind it in the layout's order and round its end, or it itself, has a CPU with EL2's
/// timer.
fn watchers<'a>(board: &Board<'a>, domains: &mut [Domain<'a>], diagnostics: &mut Diagnostics<'_, 'a>) {
    for watched in 0..domains.len() {
        let Some(watchdog) = domains.get(watched).and_then(|domain| domain.node.property("watchdog-ms")) else {
            continue;
        };
        let all = || (watched + 1..domains.len()).chain(0..=watched);
        let is_so = |id: usize, what: fn(&Domain<'a>) -> bool| domains.get(id).is_some_and(what);
        if all().any(|id| is_so(id, |domain| domain.delivery == Delivery::Injected)) {
            continue;
        }
        let free = all().find(|id| is_so(*id, |domain| domain.asked.is_none()));
        if let Some(domain) = free.and_then(|id| domains.get_mut(id)) {
            inject(board, domain, watchdog.span(), diagnostics);
        } else if let Some(domain) = domains.get(watched).filter(|_| domains.len() > 1) {
            // With one domain alone that is said of every board.
            let message = "nobody could look after the watchdog of domain `{0}`: with direct delivery from a GICv2 the \
                           domains leave the hypervisor no timer";
            let d = Diagnostic::new(codes::NO_WATCHER, watchdog.span(), message).args(&[Arg::Text(domain.name)]);
            diagnostics.push(d.help("leave `delivery` of one of them out, or make it \"injected\""));
        }
    }
}

/// `domain` gets injected delivery, because `span` asks for it or needs it. That takes the maintenance interrupt of the list
/// registers, and of a GICv2 GICC_DIR and its virtual counterpart, in the second pages.
fn inject<'a>(board: &Board<'a>, domain: &mut Domain<'a>, span: Span, diagnostics: &mut Diagnostics<'_, 'a>) {
    if domain.delivery == Delivery::Injected {
        return;
    }
    domain.delivery = Delivery::Injected;
    let Some(gic) = &board.gic else { return };
    let args = [Arg::Text(domain.name), Arg::Node(gic.node)];
    let mut refuse = |code, message, help| {
        let d = Diagnostic::new(code, span, message).args(&args).also(gic.node.span(), "{1} is here");
        diagnostics.push(d.help(help));
    };
    if gic.maintenance != Some(MAINTENANCE) {
        let message = "domain `{0}` gets injected delivery by this, but the maintenance interrupt of {1} is not PPI 9";
        refuse(codes::NO_MAINTENANCE, message, "let its `interrupts` name PPI 9, or do without");
    }
    if !has_second_pages(gic) {
        let message = "domain `{0}` gets injected delivery by this, but {1} has no second page of GICC or GICV";
        refuse(codes::GIC_FRAMES, message, "let its `reg` give each 8 KiB (0x2000), or do without");
    }
}

fn has_second_pages(gic: &Gic<'_>) -> bool {
    match gic.frames {
        GicFrames::V3 { .. } => true,
        GicFrames::V2 { gicc, gicv, .. } => gicc.size >= 2 * PAGE && gicv.size >= 2 * PAGE,
    }
}
