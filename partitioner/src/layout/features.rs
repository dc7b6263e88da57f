//! What of its CPUs a domain is granted beyond the ordinary: `sve`, `pmu`, `debug`.
//!
//! Whether a CPU can have it is asked of its `compatible` as far as that tells; the hypervisor asks the CPU itself at boot.

use crate::cells;
use crate::codes;
use crate::interrupts::{self, Line};
use crate::model::{At, Board};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property};
use cofferdam_plan::{DomainFlags, IntId};

/// The words and their bits.
const WORDS: [(&str, u32); 3] = [("sve", DomainFlags::SVE), ("pmu", DomainFlags::PMU), ("debug", DomainFlags::DEBUG)];
/// Cores without SVE, by their manuals (ID_AA64PFR0_EL1.SVE = 0).
const NO_SVE: &[&str] = &[
    "arm,cortex-a35",
    "arm,cortex-a53",
    "arm,cortex-a55",
    "arm,cortex-a57",
    "arm,cortex-a65",
    "arm,cortex-a65ae",
    "arm,cortex-a72",
    "arm,cortex-a73",
    "arm,cortex-a75",
    "arm,cortex-a76",
    "arm,cortex-a77",
    "arm,cortex-a78",
    "arm,cortex-a78ae",
    "arm,cortex-x1",
    "arm,neoverse-e1",
    "arm,neoverse-n1",
];
/// Cores whose counters go on in EL2: PMUv3 before FEAT_PMUv3p1, so no MDCR_EL2.HPMD (DDI 0487, D24.3).
const COUNTS_EL2: &[&str] = &["arm,cortex-a35", "arm,cortex-a53", "arm,cortex-a57", "arm,cortex-a72", "arm,cortex-a73"];
/// The interrupt of performance counters (Arm BSA 1.0, PPI assignments): the one the verifier lets a domain have.
pub(crate) const PMU_PPI: IntId = IntId(23);

/// What `node`, whose CPUs are `cpus`, asks for and can have; and the node of its performance counters.
pub(super) fn read<'a>(
    board: &Board<'a>,
    node: Node<'a>,
    cpus: &[At<usize>],
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> (u32, Option<Node<'a>>) {
    let asked = WORDS.iter().filter_map(|(word, bit)| Some((node.property(word)?, word, bit)));
    if !board.arch.cpu_grants_supported() {
        for (property, word, _) in asked {
            let message = "domain `{0}` asks for `{1}`, which {2} does not have";
            let d = Diagnostic::new(codes::NOT_ON_THIS_ARCHITECTURE, property.span(), message);
            let d = d.args(&[Arg::Text(node.name()), Arg::Text(word), Arg::Text(board.arch.name())]);
            diagnostics.push(d.help("leave it out"));
        }
        return (0, None);
    }
    let features = asked.fold(0, |flags, (_, _, bit)| flags | bit);
    let cpu = cpus.first().and_then(|cpu| board.cpus.get(cpu.value)).map(|cpu| cpu.node);
    if let (Some(sve), Some(cpu)) = (node.property("sve"), cpu)
        && NO_SVE.iter().any(|core| cpu.is_compatible(core))
    {
        let d = Diagnostic::new(codes::FEATURE_ABSENT, sve.span(), "domain `{0}` asks for SVE, which {1} has not got");
        let d = d.args(&[Arg::Text(node.name()), Arg::Node(cpu)]).also(cpu.span(), "{1} is here");
        diagnostics.push(d.help("leave `sve` out, or correct the CPU's `compatible`"));
    }
    let (Some(pmu), Some(cpu)) = (node.property("pmu"), cpu) else { return (features, None) };
    let counters = counters(board, cpu);
    if counters.is_none() {
        let message =
            "domain `{0}` asks for the performance counters of {1}, but the board describes none with interrupt PPI 7";
        let d = Diagnostic::new(codes::FEATURE_ABSENT, pmu.span(), message);
        let d = d.args(&[Arg::Text(node.name()), Arg::Node(cpu)]).also(cpu.span(), "{1} is here");
        diagnostics.push(d.help(
            "leave `pmu` out, or add to the board: pmu { compatible = \"arm,armv8-pmuv3\"; interrupts = <1 7 4>; };",
        ));
    } else if COUNTS_EL2.iter().any(|core| cpu.is_compatible(core)) {
        let message = "the performance counters of {1} also count what the hypervisor does for domain `{0}`";
        let d = Diagnostic::new(codes::COUNTS_EL2, pmu.span(), message);
        let d = d.args(&[Arg::Text(node.name()), Arg::Node(cpu)]).also(cpu.span(), "{1} is here");
        diagnostics.push(d.help("leave `pmu` out where its guest must not see that"));
    }
    (features, counters)
}

/// The board's node of the counters of `cpu`: its core's own, or one for any core; only with the interrupt it must have.
fn counters<'a>(board: &Board<'a>, cpu: Node<'a>) -> Option<Node<'a>> {
    let core = cpu.property("compatible").and_then(|names| names.strings().next()).map_or("", |(name, _)| name);
    let is_own = |name: &str| name.strip_suffix("-pmu").is_some_and(|start| start == core);
    let usable = |node: &Node<'a>| {
        let lines = interrupts::of(*node).unwrap_or_default();
        cells::is_live(*node) && lines.iter().any(|line| interrupts::gic(&line.cells) == Line::PerCpu(PMU_PPI))
    };
    let names = |node: Node<'a>| node.property("compatible").into_iter().flat_map(Property::strings);
    let find = |right: &dyn Fn(Node<'a>) -> bool| board.tree.nodes().find(|node| usable(node) && right(*node));
    find(&|node| names(node).any(|(name, _)| is_own(name)))
        .or_else(|| find(&|node| node.is_compatible("arm,armv8-pmuv3")))
}
