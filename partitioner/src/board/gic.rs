//! The interrupt controller: a GICv3, its distributor and redistributors.

use crate::address;
use crate::cells::{self, count};
use crate::codes;
use crate::interrupts::{self, Line};
use crate::model::{BoardCpu, Gic};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Tree};
use cofferdam_plan::PaRegion;

/// Bytes of a GICv3 distributor (IHI 0069, 12.8).
const GICD: u64 = 0x1_0000;
/// Bytes of a GICv3 redistributor: RD and SGI frame (IHI 0069, 12.10).
const GICR: u64 = 0x2_0000;
/// Controllers of the same family that this version does not drive.
const OTHERS: &[&str] = &["arm,gic-400", "arm,cortex-a15-gic", "arm,cortex-a7-gic", "arm,gic-v5"];

pub(super) fn read<'a>(
    tree: Tree<'a>,
    cpus: &[BoardCpu<'a>],
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Option<Gic<'a>> {
    let mut live = tree.nodes().filter(|node| cells::is_live(*node));
    let Some(node) = live.find(|node| node.is_compatible("arm,gic-v3")) else {
        let other = tree.nodes().find(|node| OTHERS.iter().any(|c| node.is_compatible(c)))?;
        let span = other.property("compatible").map_or(other.span(), |p| p.value_span());
        let message = "{0} is an interrupt controller this version does not drive";
        let d = Diagnostic::new(codes::GIC_VERSION, span, message).args(&[Arg::Node(other)]);
        diagnostics.push(d.help("only \"arm,gic-v3\" is driven so far"));
        return None;
    };
    for needed in ["interrupt-controller", "#interrupt-cells"] {
        if node.property(needed).is_none() {
            let message = "the interrupt controller {0} has no `{1}`";
            let d = Diagnostic::new(codes::NOT_A_CONTROLLER, node.span(), message);
            let help = "a GICv3 node has interrupt-controller; and #interrupt-cells = <3>;";
            diagnostics.push(d.args(&[Arg::Node(node), Arg::Text(needed)]).help(help));
            return None;
        }
    }
    let mut frames = address::memory(node);
    let (Some((gicd, _)), Some((gicr, gicr_reg))) = (frames.next(), frames.next()) else {
        let span = node.property("reg").map_or(node.span(), |p| p.value_span());
        let message = "{0} needs two `reg` entries: distributor and redistributors";
        diagnostics.push(Diagnostic::new(codes::REDISTRIBUTORS, span, message).args(&[Arg::Node(node)]));
        return None;
    };
    let stride = node.property("redistributor-stride").and_then(|p| p.number()).unwrap_or(GICR);
    let needed = stride.saturating_mul(cpus.len() as u64);
    if gicr.size < needed {
        let message = "the redistributors of {0} take {1}, but {2} CPUs need {3}";
        let d = Diagnostic::new(codes::REDISTRIBUTORS, gicr_reg.span, message);
        let args = [Arg::Node(node), Arg::Bytes(gicr.size), Arg::Number(cpus.len() as u64), Arg::Bytes(needed)];
        let several = count(node, "#redistributor-regions", 1) > 1;
        diagnostics.push(d.args(&args).help(if several {
            "only the first redistributor region is used so far: it must hold every CPU"
        } else {
            "give 128 KiB for each CPU"
        }));
    } else if stride != GICR {
        let span = node.property("redistributor-stride").map_or(node.span(), |p| p.value_span());
        let d = Diagnostic::new(codes::NOT_SUPPORTED_YET, span, "redistributors {0} apart are not supported yet");
        diagnostics.push(d.args(&[Arg::Bytes(stride)]).help("only 128 KiB apart, without VLPI frames"));
    }
    let gicd = PaRegion { size: gicd.size.min(GICD), ..gicd };
    Some(Gic { node, gicd, gicr, maintenance: maintenance(node) })
}

fn maintenance(node: Node<'_>) -> Option<cofferdam_plan::IntId> {
    match interrupts::of(node).ok()?.first().map(|spec| interrupts::gic(&spec.cells))? {
        Line::PerCpu(intid) => Some(intid),
        _ => None,
    }
}
