//! One domain node: name, CPUs, images, flags. Its memory and devices have files of their own.

use super::{features, files, lifecycle, memory, schema, words};
use crate::board::is_cpu;
use crate::cells::{self, target};
use crate::codes;
use crate::model::{At, Board, Delivery, Domain};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property, Span, Value, ValueKind};
use cofferdam_plan::Ipa;
use cofferdam_plan::limits::{MAX_CPUS, MAX_NAME, MAX_VCPUS};
use core::ops::RangeInclusive;
use heapless::Vec;

/// Prefixes the hypervisor itself writes on the console.
const RESERVED: &[&str] = &["hyp", "hypervisor"];

/// Reads one domain node. `devices` and `ports` are left empty.
pub(super) fn read<'a>(board: &Board<'a>, node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> Domain<'a> {
    schema(node, "cofferdam,domain", diagnostics);
    words::check(node, words::DOMAIN, diagnostics);
    name(node, diagnostics);
    for child in node.children().filter(|child| words::CHILDREN.iter().all(|(word, _)| *word != child.base_name())) {
        words::unknown(node, child.span(), child.name(), words::CHILDREN, diagnostics);
    }
    for needed in ["cpus", "kernel"] {
        if node.property(needed).is_none() {
            let d = Diagnostic::new(codes::MISSING, node.span(), "domain `{0}` has no `{1}`");
            let d = d.args(&[Arg::Text(node.name()), Arg::Text(needed)]);
            diagnostics.push(d.help("every domain needs cpus = <&…>; kernel = \"…\"; and a memory@… node"));
        }
    }
    given_tree(node, diagnostics);
    let text = |name: &str| {
        let property = node.property(name)?;
        Some(At { value: property.string()?, span: property.value_span() })
    };
    let address = |name: &str| {
        let property = node.property(name)?;
        Some(At { value: Ipa(property.number()?), span: property.value_span() })
    };
    let cpus = cpus(board, node, diagnostics);
    let (features, pmu) = features::read(board, node, &cpus, diagnostics);
    let (console, output_only) = console(board, node, diagnostics);
    Domain {
        name: node.name(),
        node,
        cpus,
        memory: memory::read(node, diagnostics),
        files: files::read(node, diagnostics),
        kernel: text("kernel"),
        initrd: text("initrd"),
        dtb: text("dtb"),
        bootargs: text("bootargs"),
        // As many bytes as a random number generator is seeded with at least.
        rng_seed: seed(node, "rng-seed", 32..=512, "one string of 32 to 512 bytes, as in [01 23 …]", diagnostics),
        kaslr_seed: seed(node, "kaslr-seed", 8..=8, "one string of 8 bytes, as in [01 23 …]", diagnostics),
        overlay: node.child("overlay").filter(|overlay| overlay.is_enabled()),
        load: address("load"),
        entry: address("entry"),
        dtb_load: address("dtb-load"),
        initrd_load: address("initrd-load"),
        console,
        output_only,
        features,
        pmu,
        scrub_at_boot: scrub(node, diagnostics),
        lifecycle: lifecycle::read(node, diagnostics),
        asked: super::delivery::asked(node, diagnostics),
        delivery: Delivery::Direct,
        trusted_dma: trusted_dma(node, diagnostics),
        devices: 0..0,
        ports: 0..0,
    }
}

fn name<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let name = node.name();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.len() > MAX_NAME || !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(plain) {
        let message = "`{0}` cannot be the name of a domain";
        let d = Diagnostic::new(codes::BAD_NAME, node.span(), message)
            .args(&[Arg::Text(name), Arg::Number(MAX_NAME as u64)]);
        diagnostics.push(d.help("a letter, then letters, digits, '-' or '_', at most {1} in all, no unit address"));
    } else if RESERVED.contains(&name) {
        let d = Diagnostic::new(codes::RESERVED_NAME, node.span(), "`{0}` is the hypervisor's own name on the console");
        diagnostics.push(d.args(&[Arg::Text(name)]).help("call the domain something else"));
    }
}

/// The CPUs of a domain. Whether each is in one domain only is checked when all domains are known.
fn cpus<'a>(board: &Board<'a>, node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> Vec<At<usize>, MAX_VCPUS> {
    let mut list: Vec<At<usize>, MAX_VCPUS> = Vec::new();
    let Some(property) = node.property("cpus") else { return list };
    let mut cells = property.cells().into_iter().flatten().peekable();
    if property.is_empty() || property.cells().is_some() && cells.peek().is_none() {
        let d = Diagnostic::new(codes::CPU_COUNT, property.span(), "domain `{0}` has no CPU")
            .args(&[Arg::Text(node.name())]);
        diagnostics.push(d.help("name at least one: cpus = <&cpu0>;"));
    }
    for cell in cells {
        let Some(found) = target(board.tree, &cell) else { continue };
        let args = [Arg::Text(node.name()), Arg::Node(found)];
        let index = board.cpus.iter().position(|cpu| cpu.node == found);
        let Some(index) = index.filter(|_| is_cpu(found)) else {
            let d = Diagnostic::new(codes::NOT_A_CPU, cell.span, "`cpus` of domain `{0}` names {1}, which is no CPU");
            diagnostics.push(d.args(&args).also(found.span(), "{1} is here").help("name nodes /cpus/cpu@…"));
            continue;
        };
        if !cells::is_live(found) {
            let d = Diagnostic::new(codes::NOT_A_CPU, cell.span, "`cpus` of domain `{0}` names {1}, which is disabled");
            diagnostics.push(d.args(&args).also(found.span(), "{1} is here").help("name another CPU"));
        }
        startable(board, found, cell.span, diagnostics);
        if list.push(At { value: index, span: cell.span }).is_err() {
            let message = "domain `{0}` has more CPUs than the {1} one SGI can reach";
            let d = Diagnostic::new(codes::CPU_COUNT, cell.span, message);
            let args = [Arg::Text(node.name()), Arg::Number(MAX_VCPUS as u64)];
            diagnostics.push(d.args(&args).help("split it into two domains"));
            break;
        }
    }
    let kind = |cpu: &At<usize>| board.cpus[cpu.value].node.property("compatible").and_then(|p| p.strings().next());
    for other in list.iter().skip(1) {
        let (Some(first), Some(kind_of_other)) = (list.first(), kind(other)) else { break };
        if kind(first).is_some_and(|(name, _)| name != kind_of_other.0) {
            let message =
                "domain `{0}` mixes {1} (`{2}`) with {3} (`{4}`): an operating system cannot move work between them";
            let nodes = [board.cpus[first.value].node, board.cpus[other.value].node];
            let names = [kind(first).map_or("", |k| k.0), kind_of_other.0];
            let args = [
                Arg::Text(node.name()),
                Arg::Node(nodes[0]),
                Arg::Text(names[0]),
                Arg::Node(nodes[1]),
                Arg::Text(names[1]),
            ];
            let d = Diagnostic::new(codes::MIXED_CPUS, other.span, message).args(&args);
            diagnostics.push(d.also(first.span, "{1} is named here").help("give each kind of CPU a domain of its own"));
            break;
        }
    }
    list
}

/// Whether the hypervisor can start this CPU.
fn startable<'a>(board: &Board<'a>, cpu: Node<'a>, span: Span, diagnostics: &mut Diagnostics<'_, 'a>) {
    if !board.arch.hypervisor_supported() {
        return;
    }
    let method = cpu.property("enable-method");
    let name = method.and_then(|method| method.strings().next()).map(|(name, _)| name);
    if name != Some("psci") {
        let message = "{0} is started by `{1}`, which the hypervisor cannot do";
        let d = Diagnostic::new(codes::ENABLE_METHOD, span, message);
        let d = d.args(&[Arg::Node(cpu), Arg::Text(name.unwrap_or("nothing"))]);
        let place = method.map_or(cpu.span(), Property::value_span);
        diagnostics
            .push(d.also(place, "the board says so here").help("only enable-method = \"psci\" is supported so far"));
    }
}

/// Random bytes for `/chosen`, as many as `sizes` allows.
fn seed<'a>(
    node: Node<'a>,
    word: &str,
    sizes: RangeInclusive<usize>,
    wanted: &'static str,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Option<&'a [u8]> {
    let property = node.property(word)?;
    match property.values() {
        [Value { kind: ValueKind::Bytes(bytes), .. }] if sizes.contains(&bytes.len()) => Some(bytes),
        _ => {
            words::wrong_type(property, wanted, diagnostics);
            None
        }
    }
}

/// Words that say something of the generated tree say nothing of one the layout brings.
fn given_tree<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let Some(dtb) = node.property("dtb") else { return };
    let words =
        ["bootargs", "rng-seed", "kaslr-seed"].into_iter().filter_map(|word| Some((word, node.property(word)?.span())));
    let overlay = node.child("overlay").map(|overlay| ("overlay", overlay.span()));
    for (word, span) in words.chain(overlay) {
        let message = "`{1}` of domain `{0}` is for the generated device tree, but `dtb` brings another one";
        let d = Diagnostic::new(codes::WITH_GIVEN_TREE, span, message);
        let d = d.args(&[Arg::Text(node.name()), Arg::Text(word)]).also(dtb.span(), "this replaces the generated tree");
        diagnostics.push(d.help("put it into the tree of `dtb`, or leave `dtb` out"));
    }
}

/// `console`: its place, and whether it is for output only.
fn console<'a>(board: &Board<'a>, node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> (Option<Span>, bool) {
    let Some(property) = node.property("console") else { return (None, false) };
    let output_only = property.string() == Some("output");
    if !property.is_empty() && !output_only {
        words::wrong_type(property, "a flag or `output`", diagnostics);
    }
    if board.console.is_none() {
        let message =
            "domain `{0}` asks for a console, but the board has no UART for it that the hypervisor has a driver for";
        let d = Diagnostic::new(codes::NO_CONSOLE, property.span(), message).args(&[Arg::Text(node.name())]);
        diagnostics.push(d.help("let stdout-path in /chosen of the board lead to an \"arm,pl011\""));
    }
    (Some(property.span()), output_only)
}

/// `dma = "trusted"`, where it stands.
fn trusted_dma<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> Option<Span> {
    let property = node.property("dma")?;
    if property.string()? != "trusted" {
        words::wrong_type(
            property,
            "`trusted`; without the word an IOMMU stands in front of every device",
            diagnostics,
        );
        return None;
    }
    Some(property.span())
}

/// Whether RAM is scrubbed before the first entry too.
fn scrub<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> bool {
    let scrub = node.property("scrub");
    match scrub.and_then(Property::string) {
        Some("boot") => true,
        Some("restart") | None => false,
        Some(_) => {
            if let Some(scrub) = scrub {
                words::wrong_type(scrub, "`restart` or `boot`", diagnostics);
            }
            false
        }
    }
}

/// A CPU belongs to one domain, once.
pub(super) fn check_cpus<'a>(board: &Board<'a>, domains: &[Domain<'a>], diagnostics: &mut Diagnostics<'_, 'a>) {
    let mut owners: [Option<(Node<'a>, Span)>; MAX_CPUS] = [None; MAX_CPUS];
    for domain in domains {
        for cpu in &domain.cpus {
            let Some(slot) = owners.get_mut(cpu.value) else { continue };
            let Some((owner, span)) = *slot else {
                *slot = Some((domain.node, cpu.span));
                continue;
            };
            let twice = owner == domain.node;
            let message = if twice {
                "domain `{0}` names {1} twice"
            } else {
                "domains `{0}` and `{2}` both name {1}: a CPU has one owner"
            };
            let args = [Arg::Text(domain.name), Arg::Node(board.cpus[cpu.value].node), Arg::Text(owner.name())];
            let d = Diagnostic::new(codes::CPU_TWICE, cpu.span, message).args(&args);
            diagnostics.push(d.also(span, "first named here").help("take it out of one of the two"));
        }
    }
}
