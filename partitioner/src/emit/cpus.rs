//! `/cpus` of a guest's tree: its vCPUs, and of caches and topology what the board says of the CPUs they run on.

use super::copied::phandle;
use super::fdt::Fdt;
use super::guest::Guest;
use crate::cells::target;
use cofferdam_dts::{Node, Property};

/// vCPU *n* has this phandle plus *n*.
const VCPU: u32 = 0x10;
/// What of a CPU holds for its vCPU.
const CPU: &[&str] = &[
    "capacity-dmips-mhz",
    "i-cache-size",
    "i-cache-sets",
    "i-cache-line-size",
    "i-cache-block-size",
    "d-cache-size",
    "d-cache-sets",
    "d-cache-line-size",
    "d-cache-block-size",
];
/// What a cache behind them says of itself.
const CACHE: &[&str] =
    &["compatible", "cache-level", "cache-unified", "cache-size", "cache-sets", "cache-line-size", "cache-block-size"];
/// Most levels of cache that are followed.
const LEVELS: usize = 8;

impl<'a> Guest<'_, 'a, '_> {
    pub(super) fn cpus(&self, fdt: &mut Fdt<'_>) {
        fdt.begin(format_args!("cpus"));
        fdt.number("#address-cells", 1);
        fdt.number("#size-cells", 0);
        let map = self.board.tree.by_path("/cpus/cpu-map").filter(|map| self.maps(*map));
        if let Some(map) = map {
            fdt.begin(format_args!("cpu-map"));
            self.topology(map, fdt);
            fdt.end();
        }
        for (vcpu, node) in self.nodes().enumerate() {
            fdt.begin(format_args!("cpu@{vcpu:x}"));
            fdt.strings("device_type", &["cpu"]);
            if let Some(compatible) = node.property("compatible") {
                fdt.property("compatible", |fdt| compatible.strings().for_each(|(text, _)| fdt.text(text)));
            }
            fdt.number("reg", vcpu as u32);
            fdt.strings("enable-method", &["psci"]);
            copy(node, CPU, fdt);
            if map.is_some() {
                fdt.number("phandle", VCPU + vcpu as u32);
            }
            fdt.end();
        }
        let caches = self.board.tree.nodes().filter(|node| self.nodes().any(|cpu| behind(cpu).any(|c| c == *node)));
        for (index, cache) in caches.enumerate() {
            fdt.begin(format_args!("cache-{index}"));
            copy(cache, CACHE, fdt);
            fdt.number("phandle", phandle(cache));
            fdt.end();
        }
        fdt.end();
    }

    /// The board's nodes of the domain's CPUs, in the order of its vCPUs.
    fn nodes(&self) -> impl Iterator<Item = Node<'a>> {
        self.domain.cpus.iter().filter_map(|cpu| self.board.cpus.get(cpu.value)).map(|cpu| cpu.node)
    }

    /// The vCPU a leaf of the board's map stands for.
    fn vcpu(&self, leaf: Node<'a>) -> Option<u32> {
        let cell = leaf.property("cpu").and_then(Property::cells)?.next()?;
        let cpu = target(self.board.tree, &cell)?;
        self.nodes().position(|node| node == cpu).map(|vcpu| vcpu as u32)
    }

    /// Whether a part of the board's map has a CPU of the domain.
    fn maps(&self, part: Node<'a>) -> bool {
        self.vcpu(part).is_some() || part.children().any(|child| self.maps(child))
    }

    /// The parts of the map that have CPUs of the domain, numbered from 0 again (Linux, cpu/cpu-topology.txt).
    fn topology(&self, part: Node<'a>, fdt: &mut Fdt<'_>) {
        let kind = |node: Node<'a>| node.name().trim_end_matches(|c: char| c.is_ascii_digit());
        for child in part.children().filter(|child| self.maps(*child)) {
            let before = part.children().take_while(|other| *other != child);
            let number = before.filter(|other| kind(*other) == kind(child) && self.maps(*other)).count();
            fdt.begin(format_args!("{}{number}", kind(child)));
            if let Some(vcpu) = self.vcpu(child) {
                fdt.number("cpu", VCPU + vcpu);
            }
            self.topology(child, fdt);
            fdt.end();
        }
    }
}

/// The caches behind a CPU or a cache, the next one first.
fn behind<'a>(node: Node<'a>) -> impl Iterator<Item = Node<'a>> {
    let next = |node: &Node<'a>| {
        let cell = node.property("next-level-cache").and_then(Property::cells)?.next()?;
        target(node.tree(), &cell)
    };
    core::iter::successors(next(&node), next).take(LEVELS)
}

fn copy(node: Node<'_>, names: &[&str], fdt: &mut Fdt<'_>) {
    for property in names.iter().filter_map(|name| node.property(name)) {
        fdt.property(property.name(), |fdt| fdt.values(property, phandle, |_, _| ()));
    }
    if let Some(cache) = behind(node).next() {
        fdt.number("next-level-cache", phandle(cache));
    }
}
