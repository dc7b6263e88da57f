//! `/aliases` and `stdout-path`: the board's names for what the domain has, and one for every UART.

use super::fdt::Fdt;
use super::guest::Guest;
use crate::board::follow;
use cofferdam_dts::{Node, Property};

/// Linux warns where some UARTs have an alias and others not; numbers beyond this many are not given.
const UARTS: u32 = 64;

impl<'a> Guest<'_, 'a, '_> {
    pub(super) fn aliases(&self, fdt: &mut Fdt<'_>) {
        let console = self.decided.vuart.map(|(page, _)| page);
        if console.is_none() && self.kept().next().is_none() && self.unnamed().next().is_none() {
            return;
        }
        fdt.begin(format_args!("aliases"));
        if let Some(page) = console {
            fdt.property("serial0", |fdt| serial(fdt, page));
        }
        for (alias, node) in self.kept() {
            fdt.property(alias.name(), |fdt| {
                self.path(node, fdt);
                fdt.bytes(&[0]);
            });
        }
        let mut number = 0;
        for node in self.unnamed() {
            while number < UARTS && self.is_taken(number) {
                number += 1;
            }
            let mut name = heapless::String::<16>::new();
            // `serial` and two digits fit.
            let _ = core::fmt::write(&mut name, format_args!("serial{number}"));
            fdt.property(&name, |fdt| {
                self.path(node, fdt);
                fdt.bytes(&[0]);
            });
            number += 1;
        }
        fdt.end();
    }

    /// Where the guest's own messages go: its virtual console, else the first UART it was given.
    pub(super) fn stdout(&self, fdt: &mut Fdt<'_>) {
        let first = self.uarts().next();
        if let Some((page, _)) = self.decided.vuart {
            fdt.property("stdout-path", |fdt| serial(fdt, page));
        } else if let Some(node) = first {
            fdt.property("stdout-path", |fdt| {
                self.path(node, fdt);
                fdt.bytes(&[0]);
            });
        }
    }

    /// The board's aliases of what is in the guest's tree. `serial0` is the virtual console's, where there is one.
    fn kept(&self) -> impl Iterator<Item = (Property<'a>, Node<'a>)> {
        let taken = self.decided.vuart.is_some();
        let all = self.board.tree.by_path("/aliases").into_iter().flat_map(Node::properties);
        let named = all.filter(move |alias| alias.name() != "phandle" && !(taken && alias.name() == "serial0"));
        named.filter_map(|alias| Some((alias, follow(alias)?))).filter(|(_, node)| self.has(*node))
    }

    fn uarts(&self) -> impl Iterator<Item = Node<'a>> {
        let nodes = self.devices().iter().map(|device| device.node);
        nodes.filter(|node| matches!(node.base_name(), "serial" | "uart") && self.has(*node))
    }

    /// UARTs none of these aliases leads to.
    fn unnamed(&self) -> impl Iterator<Item = Node<'a>> {
        self.uarts()
            .filter(|uart| self.kept().all(|(alias, node)| node != *uart || !alias.name().starts_with("serial")))
    }

    fn is_taken(&self, number: u32) -> bool {
        let is_it = |name: &str| name.strip_prefix("serial").and_then(|n| n.parse::<u32>().ok()) == Some(number);
        number == 0 && self.decided.vuart.is_some() || self.kept().any(|(alias, _)| is_it(alias.name()))
    }
}

/// The virtual console's path.
fn serial(fdt: &mut Fdt<'_>, page: u64) {
    // Writing to a tree never fails.
    let _ = core::fmt::write(fdt, format_args!("/serial@{page:x}\0"));
}
