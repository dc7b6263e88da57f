//! The interrupt controller: a GICv3 or GICv2 and its register frames.

use crate::address;
use crate::cells::{self, count};
use crate::codes;
use crate::interrupts::{self, Line};
use crate::model::{BoardCpu, Gic, GicFrames};
use crate::resolve::PAGE;
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Tree};
use cofferdam_plan::PaRegion;

/// Bytes of a GICv3 distributor (IHI 0069, 12.8).
const GICD: u64 = 0x1_0000;
/// Bytes of a GICv3 redistributor: RD and SGI frame (IHI 0069, 12.10).
const GICR: u64 = 0x2_0000;
/// GICv2 with virtualization, by `compatible`.
const V2: &[&str] = &["arm,gic-400", "arm,cortex-a15-gic"];
/// CPU interfaces a GICv2 can have (IHI 0048, 2.2).
const V2_CPUS: usize = 8;
/// Frames of a GICv2 in the order of its binding (Linux, arm,gic.yaml).
const V2_FRAMES: [&str; 4] = ["distributor", "CPU interface", "virtual interface control", "virtual CPU interface"];
/// Controllers of the same family that this version does not drive.
const OTHERS: &[&str] = &["arm,cortex-a7-gic", "arm,cortex-a9-gic", "arm,gic-v5"];
/// On the controller's node: WFI of domains with injected delivery comes to the hypervisor.
const TRAP_WFI: &str = "cofferdam,trap-wfi";

pub(super) fn read<'a>(
    tree: Tree<'a>,
    cpus: &[BoardCpu<'a>],
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Option<Gic<'a>> {
    let is_v2 = |node: Node<'_>| V2.iter().any(|c| node.is_compatible(c));
    let mut live = tree.nodes().filter(|node| cells::is_live(*node));
    let Some(node) = live.find(|node| node.is_compatible("arm,gic-v3") || is_v2(*node)) else {
        let other = tree.nodes().find(|node| OTHERS.iter().any(|c| node.is_compatible(c)))?;
        let message = "{0} is an interrupt controller this version does not drive";
        let d = Diagnostic::new(codes::GIC_VERSION, compatible(other), message).args(&[Arg::Node(other)]);
        diagnostics.push(d.help("\"arm,gic-v3\", \"arm,gic-400\" and \"arm,cortex-a15-gic\" are driven"));
        return None;
    };
    for needed in ["interrupt-controller", "#interrupt-cells"] {
        if node.property(needed).is_none() {
            let message = "the interrupt controller {0} has no `{1}`";
            let d = Diagnostic::new(codes::NOT_A_CONTROLLER, node.span(), message);
            let help = "a GIC node has interrupt-controller; and #interrupt-cells = <3>;";
            diagnostics.push(d.args(&[Arg::Node(node), Arg::Text(needed)]).help(help));
            return None;
        }
    }
    let trap_wfi = node.property(TRAP_WFI);
    if let Some(property) = trap_wfi.filter(|property| !property.is_empty()) {
        let d = Diagnostic::new(codes::WRONG_TYPE, property.value_span(), "`{0}` of {1} must be a flag");
        diagnostics.push(d.args(&[Arg::Text(TRAP_WFI), Arg::Node(node)]).label("this is a value"));
    }
    let unknown = |name: &str| name.starts_with("cofferdam,") && name != TRAP_WFI;
    for property in node.properties().filter(|property| unknown(property.name())) {
        let d =
            Diagnostic::new(codes::UNKNOWN_WORD, property.span(), "`{0}` is no word of an interrupt controller, {1}");
        let d = d.args(&[Arg::Text(property.name()), Arg::Node(node)]);
        diagnostics.push(d.help("`cofferdam,trap-wfi` is the only one"));
    }
    let gic = if is_v2(node) { v2(node, cpus, diagnostics) } else { v3(node, cpus, diagnostics) };
    gic.map(|gic| Gic { trap_wfi: trap_wfi.is_some(), ..gic })
}

fn compatible(node: Node<'_>) -> cofferdam_dts::Span {
    node.property("compatible").map_or(node.span(), |p| p.value_span())
}

fn v3<'a>(node: Node<'a>, cpus: &[BoardCpu<'a>], diagnostics: &mut Diagnostics<'_, 'a>) -> Option<Gic<'a>> {
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
    Some(Gic { node, gicd, frames: GicFrames::V3 { gicr }, maintenance: maintenance(node), trap_wfi: false })
}

fn v2<'a>(node: Node<'a>, cpus: &[BoardCpu<'a>], diagnostics: &mut Diagnostics<'_, 'a>) -> Option<Gic<'a>> {
    if cpus.len() > V2_CPUS {
        let message = "{0} is a GICv2, which has {1} CPU interfaces, but the board has {2} CPUs";
        let args = [Arg::Node(node), Arg::Number(V2_CPUS as u64), Arg::Number(cpus.len() as u64)];
        let d = Diagnostic::new(codes::GIC_VERSION, compatible(node), message).args(&args);
        diagnostics.push(d.help("check `compatible`, or take out the CPUs that are not there"));
        return None;
    }
    let mut found = heapless::Vec::<PaRegion, 4>::new();
    for ((region, reg), name) in address::memory(node).zip(V2_FRAMES) {
        if region.base.0 % PAGE != 0 || region.size < PAGE {
            let message = "the {1} of {0} at {2} is not a page of its own: it could not be given to a domain apart";
            let args = [Arg::Node(node), Arg::Text(name), Arg::Range(region.base.0, region.size)];
            let d = Diagnostic::new(codes::GIC_FRAMES, reg.span, message).args(&args);
            diagnostics.push(d.help("each frame of a GICv2 starts at a multiple of 4 KiB and has 4 KiB at least"));
            return None;
        }
        // There are no more than four names.
        found.push(region).ok()?;
    }
    let [gicd, gicc, gich, gicv] = found.as_slice() else {
        let span = node.property("reg").map_or(node.span(), |p| p.value_span());
        let message = "{0} has {1} `reg` entries of 4: a hypervisor needs its virtualization registers";
        let args = [Arg::Node(node), Arg::Number(found.len() as u64)];
        let d = Diagnostic::new(codes::GIC_FRAMES, span, message).args(&args);
        diagnostics.push(d.help("in this order: distributor, CPU interface, virtual interface control (GICH), GICV"));
        return None;
    };
    let gicd = PaRegion { size: PAGE, ..*gicd };
    let frames = GicFrames::V2 { gicc: *gicc, gich: *gich, gicv: *gicv };
    Some(Gic { node, gicd, frames, maintenance: maintenance(node), trap_wfi: false })
}

fn maintenance(node: Node<'_>) -> Option<cofferdam_plan::IntId> {
    match interrupts::of(node).ok()?.first().map(|spec| interrupts::gic(&spec.cells))? {
        Line::PerCpu(intid) => Some(intid),
        _ => None,
    }
}
