//! `/cpus`: which CPUs there are and what their affinities are.

use super::push;
use crate::cells;
use crate::codes;
use crate::model::{Board, BoardCpu};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property, Tree};
use cofferdam_plan::Mpidr;
use cofferdam_plan::limits::MAX_CPUS;
use heapless::Vec;

/// Whether `node` describes a CPU.
pub(crate) fn is_cpu(node: Node<'_>) -> bool {
    let below_cpus = node.parent().is_some_and(|p| p.name() == "cpus" && p.ancestors().count() == 1);
    let by_type = node.property("device_type").and_then(Property::string) == Some("cpu");
    below_cpus && (by_type || node.base_name() == "cpu")
}

pub(super) fn read<'a>(tree: Tree<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> Vec<BoardCpu<'a>, MAX_CPUS> {
    let mut cpus: Vec<BoardCpu<'a>, MAX_CPUS> = Vec::new();
    let nodes = tree.by_path("/cpus").into_iter().flat_map(Node::children).filter(|node| is_cpu(*node));
    for node in nodes {
        // With two address cells the first is MPIDR[39:32], the second MPIDR[23:0] (Linux arm/cpus.yaml).
        let Some(reg) = cells::reg(node).next() else {
            let d = Diagnostic::new(codes::MISSING, node.span(), "{0} has no `reg`: its affinity is not known");
            diagnostics.push(d.args(&[Arg::Node(node)]).help("give its MPIDR affinity: reg = <0>;"));
            continue;
        };
        let mpidr = Mpidr::from_raw(reg.address.low);
        if mpidr.0 != reg.address.low || mpidr.aff0() > 15 {
            let message = "{0} has affinity {1}, which one SGI target list cannot reach";
            let d = Diagnostic::new(codes::BAD_AFFINITY, reg.span, message);
            let d = d.args(&[Arg::Node(node), Arg::Hex(reg.address.low)]);
            diagnostics.push(
                d.help("Aff0, the low byte, is at most 15; only the bits of MPIDR_EL1's affinity fields may be set"),
            );
        }
        if let Some(twin) = cpus.iter().find(|cpu| cpu.mpidr == mpidr) {
            let d = Diagnostic::new(codes::BAD_AFFINITY, reg.span, "{0} and {1} have the same affinity {2}");
            let d = d.args(&[Arg::Node(node), Arg::Node(twin.node), Arg::Hex(mpidr.0)]);
            diagnostics
                .push(d.also(twin.node.span(), "{1} is here").help("give each CPU its own MPIDR affinity in `reg`"));
        }
        push(&mut cpus, BoardCpu { node, mpidr }, node, "CPUs", diagnostics);
    }
    if cpus.is_empty() {
        let d = Diagnostic::new(codes::MISSING, tree.root().span(), "the board has no CPU below /cpus");
        diagnostics.push(d.help("describe each CPU by a node: cpu@0 { device_type = \"cpu\"; reg = <0>; };"));
    }
    cpus
}

/// Physical address bits of cores whose manual fixes them (ID_AA64MMFR0_EL1.PARange).
const PA_BITS: &[(&str, u32)] = &[
    ("arm,cortex-a35", 40),
    ("arm,cortex-a53", 40),
    ("arm,cortex-a55", 40),
    ("arm,cortex-a57", 44),
    ("arm,cortex-a72", 44),
    ("arm,cortex-a73", 40),
    ("arm,cortex-a75", 44),
    ("arm,cortex-a76", 40),
    ("arm,cortex-a78", 40),
    ("arm,neoverse-n1", 48),
    ("arm,neoverse-v1", 48),
    ("arm,neoverse-n2", 48),
];

/// RAM must lie where every CPU can address it.
pub(super) fn check_reach<'a>(board: &Board<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let bits =
        |cpu: &BoardCpu<'a>| PA_BITS.iter().find(|(name, _)| cpu.node.is_compatible(name)).map(|(_, bits)| *bits);
    let Some((cpu, bits)) = board.cpus.iter().filter_map(|cpu| Some((cpu, bits(cpu)?))).min_by_key(|(_, bits)| *bits)
    else {
        return;
    };
    for bank in board.ram.iter().filter(|bank| bank.value.end().0 > 1 << bits) {
        let message = "RAM {0} ends beyond the {1} address bits of {2}";
        let d = Diagnostic::new(codes::BEYOND_CPU, bank.span, message);
        let range = Arg::Range(bank.value.base.0, bank.value.size);
        let d = d.args(&[range, Arg::Number(bits.into()), Arg::Node(cpu.node)]).also(cpu.node.span(), "{2} is here");
        diagnostics.push(d.help("check the cells of `reg`, or the CPU's `compatible`"));
    }
}
