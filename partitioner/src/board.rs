//! The board's facts, from its standard nodes.
//!
//! One function per kind of node, in the order of [`Board`]'s fields. A fact that is missing stays missing: whether that
//! is an error depends on what the layout asks for, and is said there. It must not know domains.

mod cpus;
mod gic;
mod memory;
mod services;
mod uarts;

pub(crate) use cpus::is_cpu;
pub(crate) use memory::is_memory;
pub(crate) use uarts::follow;

use crate::arch::{self, Arch};
use crate::cells::target;
use crate::codes;
use crate::devices;
use crate::model::{Board, Carveout};
use crate::pci;
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property, Tree};
use heapless::Vec;

/// Reads the board's facts from `tree`. What is wrong goes to `diagnostics`; the rest is filled in as far as it is right.
pub fn read<'a>(tree: Tree<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> Board<'a> {
    let arch = architecture(tree, diagnostics);
    let cpus = cpus::read(tree, diagnostics);
    let ram = memory::ram(tree, diagnostics);
    let reserved = memory::reserved(tree, diagnostics);
    let gic = gic::read(tree, &cpus, diagnostics);
    let (console, log) = uarts::read(tree, arch, diagnostics);
    let mut board = Board {
        arch,
        tree,
        cpus,
        ram,
        reserved,
        forbidden: Vec::new(),
        resets: Vec::new(),
        pci: pci::host::read(tree, diagnostics),
        gic,
        console,
        log,
        psci: services::psci(tree, arch, diagnostics),
        timer: services::timer(tree, arch, diagnostics),
    };
    cpus::check_reach(&board, diagnostics);
    for controller in devices::reset_controllers(tree) {
        push(&mut board.resets, controller, controller, "lines that reset it", diagnostics);
    }
    if let Some(host) = &board.pci {
        pci::check::board(host, diagnostics);
    }
    services::forbidden(&mut board, diagnostics);
    board
}

/// The architecture whose interrupt controller the tree's root names as interrupt parent, or has.
fn architecture<'a>(tree: Tree<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> &'static dyn Arch {
    let named = tree.root().property("interrupt-parent");
    let root = named.and_then(|p| p.cells()?.next()).and_then(|cell| target(tree, &cell));
    let known = root.and_then(arch::of_controller).or_else(|| tree.nodes().find_map(arch::of_controller));
    known.unwrap_or_else(|| {
        let span = named.map_or(tree.root().span(), Property::value_span);
        let message = "the board's root interrupt controller is none that tells its architecture";
        let help = "aarch64 boards have \"arm,gic-v3\" or \"arm,gic-400\", x86_64 boards \"intel,ce4100-ioapic\"";
        diagnostics.push(Diagnostic::new(codes::UNKNOWN_ARCHITECTURE, span, message).help(help));
        &arch::Aarch64
    })
}

/// Appends to a board table, or says that it is full.
fn push<'a, T, const N: usize>(
    list: &mut Vec<T, N>,
    value: T,
    node: Node<'a>,
    what: &'static str,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    if list.push(value).is_err() {
        let message = "this board has more {0} than the {1} the plan can hold";
        let d = Diagnostic::new(codes::CAPACITY, node.span(), message);
        diagnostics.push(d.args(&[Arg::Text(what), Arg::Number(N as u64)]));
    }
}

/// A carve-out for every physical range of `node`'s `reg`.
fn carve<'a, const N: usize>(
    list: &mut Vec<Carveout<'a>, N>,
    node: Node<'a>,
    what: &'static str,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    for (region, reg) in crate::address::memory(node) {
        push(list, Carveout { region, node, span: reg.span }, node, what, diagnostics);
    }
}
