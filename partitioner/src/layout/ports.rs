//! I/O ports: `io-ports`, ISA devices of `access`, `io-bars`. Whether there are any is the architecture's answer, given
//! here, at the line that asks.

use super::words;
use crate::cells::{self, Reg};
use crate::codes;
use crate::front::Sorted;
use crate::lent::{Full, Lent, List};
use crate::model::{Board, DeviceGrant, Domain, PortGrant};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Span};

/// Ports of an architecture that has them.
const PORTS: u64 = 0x1_0000;

/// `io-ports` and `io-bars` of one domain.
pub(super) fn requested<'a>(
    board: &Board<'a>,
    domain: usize,
    node: Node<'a>,
    ports: &mut List<'_, PortGrant>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<(), Full> {
    let supported = board.arch.io_ports_supported();
    let args = [Arg::Text(node.name()), Arg::Text(board.arch.name())];
    if let Some(bars) = node.property("io-bars").filter(|_| !supported) {
        let message = "domain `{0}` demands a PCI function's I/O BAR, but {1} has no I/O ports";
        let d = Diagnostic::new(codes::IO_BAR_WITHOUT_PORTS, bars.span(), message).args(&args);
        diagnostics
            .push(d.help("leave it out: the I/O BAR stays unassigned, and drivers use the function's memory BARs"));
    }
    let Some(list) = node.property("io-ports") else { return Ok(()) };
    if !supported {
        let message = "domain `{0}` asks for I/O ports, but {1} has none";
        let d = Diagnostic::new(codes::PORTS_WITHOUT_PORTS, list.span(), message).args(&args);
        let help = "describe the device by registers in memory and grant it by `access`; a PCI device is used through its memory BARs";
        diagnostics.push(d.help(help));
        return Ok(());
    }
    if list.cells().is_none_or(|cells| cells.count() % 2 != 0) {
        words::wrong_type(list, "pairs of <first-port count>", diagnostics);
    }
    for pair in cells::groups(list, 2) {
        let span = cells::span_of(&pair);
        add(domain, node, pair[0].value, pair[1].value, span, span, ports, diagnostics)?;
    }
    Ok(())
}

/// The ports of an ISA device that is granted by `access`.
#[expect(clippy::too_many_arguments, reason = "the parties of one diagnostic")]
pub(super) fn device<'a>(
    board: &Board<'a>,
    domain: &Domain<'a>,
    grant: &DeviceGrant<'a>,
    node: Node<'a>,
    reg: &Reg,
    first: u64,
    count: u64,
    ports: &mut List<'_, PortGrant>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<(), Full> {
    if board.arch.io_ports_supported() {
        return add(grant.domain, domain.node, first, count, grant.span, reg.span, ports, diagnostics);
    }
    let message = "domain `{0}` asks for {1}, whose registers are I/O ports {2}, but {3} has no I/O ports";
    let d = Diagnostic::new(codes::NOT_ON_THIS_ARCHITECTURE, grant.span, message);
    let args = [Arg::Text(domain.name), Arg::Node(node), Arg::Range(first, count), Arg::Text(board.arch.name())];
    let d = d.args(&args).also(reg.span, "these ports");
    diagnostics.push(d.help("if the board maps them into memory, describe the device there, by its address in memory"));
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the parties of one diagnostic")]
fn add<'a>(
    domain: usize,
    node: Node<'a>,
    first: u64,
    count: u64,
    span: Span,
    range: Span,
    ports: &mut List<'_, PortGrant>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<(), Full> {
    let last = first.checked_add(count).and_then(|end| end.checked_sub(1)).filter(|last| *last < PORTS && count > 0);
    let Some(last) = last else {
        let message =
            "domain `{0}` asks for {2} I/O ports from {1}: ports go from 0x0 to 0xffff, and a range has at least one";
        let d = Diagnostic::new(codes::PORT_RANGE, range, message);
        let d = d.args(&[Arg::Text(node.name()), Arg::Hex(first), Arg::Number(count)]);
        diagnostics.push(d.help("write <first-port count>"));
        return Ok(());
    };
    ports.push(PortGrant { domain, first: first as u16, last: last as u16, span })
}

/// One port, one owner.
pub(super) fn check_owners<'a>(
    domains: &[Domain<'a>],
    ports: &[PortGrant],
    sort: &mut [Sorted],
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<(), Full> {
    let sorted = sort.get_mut(..ports.len()).ok_or(Full(Lent::Sort))?;
    for (index, (slot, port)) in sorted.iter_mut().zip(ports).enumerate() {
        *slot = Sorted { first: port.first.into(), last: port.last.into(), node: 0, grant: index as u32 };
    }
    sorted.sort_unstable();
    let mut widest: Option<Sorted> = None;
    for entry in sorted.iter() {
        if let Some(before) = widest.filter(|before| entry.first <= before.last) {
            let (a, b) = (&ports[before.grant as usize], &ports[entry.grant as usize]);
            if a.domain != b.domain {
                let (mine, other) = if a.domain < b.domain { (b, a) } else { (a, b) };
                let name = |p: &PortGrant| domains.get(p.domain).map_or(Arg::None, |d| Arg::Text(d.name));
                let first = mine.first.max(other.first);
                let count = u64::from(mine.last.min(other.last) - first) + 1;
                let message = "domains `{0}` and `{1}` both ask for I/O ports {2}: a port has one owner";
                let d = Diagnostic::new(codes::PORT_TWICE, mine.span, message);
                let d = d.args(&[name(mine), name(other), Arg::Range(first.into(), count)]);
                diagnostics.push(d.also(other.span, "first asked for here").help("take them out of one of the two"));
            }
        }
        if widest.is_none_or(|before| entry.last > before.last) {
            widest = Some(*entry);
        }
    }
    Ok(())
}
