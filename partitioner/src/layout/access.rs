//! `access`: which devices a domain gets, and what of the machine that is.
//!
//! Two passes. [`request`] decides for each reference whether it can be granted at all and to whom; [`describe`] collects
//! registers, ports and interrupts, when all owners are known.

use super::{class, functions, interrupts, owners::Owners, ports, words};
use crate::address::{self, Located, Lost};
use crate::board::{is_cpu, is_memory};
use crate::cells::{self, is_function, is_pci, target};
use crate::codes;
use crate::devices;
use crate::lent::{Full, List};
use crate::model::{Board, DeviceGrant, DeviceInterrupt, DeviceRegion, Domain, PortGrant};
use cofferdam_dts::{Arg, Cell, Diagnostic, Diagnostics, Node, Property, Span};
use cofferdam_plan::{Ipa, PaRegion};
use core::ops::Range;

/// What is collected for all domains.
pub(super) struct Lists<'m, 'a> {
    pub(super) devices: List<'m, DeviceGrant<'a>>,
    pub(super) regions: List<'m, DeviceRegion>,
    pub(super) interrupts: List<'m, DeviceInterrupt>,
    pub(super) ports: List<'m, PortGrant>,
    pub(super) owners: Owners<'m>,
}

/// The references of a property, with the nodes they lead to.
pub(super) fn references<'a>(property: Option<Property<'a>>) -> impl Iterator<Item = (Cell, Node<'a>)> {
    let property = property.and_then(|p| Some((p.node().tree(), p.cells()?)));
    property.into_iter().flat_map(|(tree, cells)| cells.filter_map(move |cell| Some((cell, target(tree, &cell)?))))
}

/// Pass 1: grants of one domain, in order, and their owners. Returns its part of the list.
pub(super) fn request<'a>(
    board: &Board<'a>,
    domain: usize,
    node: Node<'a>,
    lists: &mut Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<Range<usize>, Full> {
    let first = lists.devices.len();
    for (cell, device) in references(node.property("access")) {
        if let Some(refused) = refuse(board, node, device, &cell) {
            diagnostics.push(refused);
            continue;
        }
        let before = lists.devices.len();
        let conflict = if is_function(device) {
            functions::expand(board, domain, node, device, cell.span, lists, diagnostics)?
        } else {
            expand(device, domain, cell.span, None, lists)?
        };
        if let Some((at, owner)) = conflict {
            diagnostics.push(taken(node, domain, device, &cell, at, owner, lists));
            for grant in before..lists.devices.len() {
                lists.owners.take_back(lists.devices[grant].node, before);
            }
            lists.devices.truncate(before);
        }
    }
    class::needless(board, node, diagnostics);
    Ok(first..lists.devices.len())
}

/// Gives `node` and everything enabled below it to the domain: one grant for each device the CPU reaches, and for `node`
/// itself. What is reached through such a device only (on an I2C bus, say) belongs to its grant.
///
/// Returns the first node that has an owner already, with its grant.
fn expand<'a>(
    node: Node<'a>,
    domain: usize,
    span: Span,
    parent: Option<usize>,
    lists: &mut Lists<'_, 'a>,
) -> Result<Option<(Node<'a>, usize)>, Full> {
    let mapped = cells::reg(node).any(|reg| address::locate(node, &reg).is_ok());
    let index = parent.filter(|_| !mapped).unwrap_or(lists.devices.len());
    if index == lists.devices.len() {
        lists.devices.push(DeviceGrant { domain, node, span, ..DeviceGrant::default() })?;
    }
    if let Err(owner) = lists.owners.give(node, index) {
        return Ok(Some((node, owner)));
    }
    for child in node.children().filter(|child| child.is_enabled()) {
        if let Some(conflict) = expand(child, domain, span, Some(index), lists)? {
            return Ok(Some(conflict));
        }
    }
    Ok(None)
}

/// The message that `at`, which is `device` or below it, belongs to the grant `owner`.
fn taken<'a>(
    node: Node<'a>,
    domain: usize,
    device: Node<'a>,
    cell: &Cell,
    at: Node<'a>,
    owner: usize,
    lists: &Lists<'_, 'a>,
) -> Diagnostic<'a> {
    let other = &lists.devices[owner];
    // What the other reference named: the topmost node that came by it.
    let same = |n: &Node<'a>| lists.owners.of(*n).is_some_and(|grant| lists.devices[grant].span == other.span);
    let root = other.node.ancestors().take_while(same).last().unwrap_or(other.node);
    let mut domains = node.parent().into_iter().flat_map(Node::children).filter(|n| n.is_enabled());
    let owner_node = domains.nth(other.domain).unwrap_or(node);
    let args =
        [Arg::Text(node.name()), Arg::Node(device), Arg::Text(owner_node.name()), Arg::Node(root), Arg::Node(at)];
    let d = if other.domain == domain {
        Diagnostic::new(codes::DEVICE_TWICE, cell.span, "domain `{0}` is given {4} twice")
            .help("name it once; a bus comes with its devices")
    } else if root == device {
        let message = "domains `{0}` and `{2}` both ask for {1}: a device has one owner";
        Diagnostic::new(codes::DEVICE_TWICE, cell.span, message).help("take it out of one of the two")
    } else {
        let message = if at == device {
            "domain `{0}` asks for {1}, but its bus {3} and all below it belong to domain `{2}`"
        } else {
            "domain `{0}` asks for the bus {1}, but {4} below it belongs to domain `{2}`"
        };
        Diagnostic::new(codes::BUS_SPLIT, cell.span, message)
            .help("grant the bus's devices one by one instead of the bus")
    };
    d.args(&args).also(other.span, "first granted here")
}

/// Why `device` cannot be granted to anybody, where it cannot.
fn refuse<'a>(board: &Board<'a>, domain: Node<'a>, device: Node<'a>, cell: &Cell) -> Option<Diagnostic<'a>> {
    let args = [Arg::Text(domain.name()), Arg::Node(device)];
    let error =
        |code, message| Diagnostic::new(code, cell.span, message).args(&args).also(device.span(), "{1} is here");
    let top = core::iter::once(device).chain(device.ancestors()).take_while(|n| n.parent().is_some()).last();
    let special = ["aliases", "chosen", "cpus", "domains", "reserved-memory"];
    if top.is_none_or(|top| special.contains(&top.name()) || is_memory(top)) || is_cpu(device) {
        return Some(
            error(codes::NOT_A_DEVICE, "domain `{0}` asks for {1}, which is no device")
                .help("name a device or a bus of the board"),
        );
    }
    if let Some(uart) = [board.console, board.log].into_iter().flatten().find(|uart| uart.node == device) {
        let message = "domain `{0}` asks for {1}, which is the hypervisor's own UART";
        let d = error(codes::UART_TWICE, message);
        let own_console = board.console.is_some_and(|console| console.node == uart.node);
        return Some(d.help(if own_console {
            "write console; to get a virtual UART on it, or let stdout-path lead to another one"
        } else {
            "give the log another UART, or none"
        }));
    }
    if devices::is_iommu(device) {
        let d =
            error(codes::IOMMU_GRANTED, "domain `{0}` asks for {1}, an IOMMU: it decides what every device may reach");
        return Some(d.help("leave it out; the hypervisor drives it"));
    }
    let mut path = core::iter::once(device).chain(device.ancestors());
    if let Some((_, what)) = path.find_map(|n| Some((n, devices::forbidden(n).filter(|_| !is_pci(n) || n == device)?)))
    {
        let message = "domain `{0}` asks for {1}, which is part of {2}: no domain may have it";
        let d = error(codes::FORBIDDEN_DEVICE, message).args(&[args[0], args[1], Arg::Text(what)]);
        return Some(d.help("leave it out; domains get what they need of it by emulation"));
    }
    let reserved = |n: Node<'a>| n.property("status").and_then(Property::string).is_some_and(|s| s == "reserved");
    let secure =
        |n: Node<'a>| n.property("secure-status").and_then(Property::string) == Some("okay") && !n.is_enabled();
    let mut path = core::iter::once(device).chain(device.ancestors());
    if let Some(owner) = path.find(|n| reserved(*n) || secure(*n)) {
        let d = error(codes::FIRMWARE_DEVICE, "domain `{0}` asks for {1}, which belongs to firmware");
        let place = owner.property("status").map_or(owner.span(), Property::span);
        return Some(d.also(place, "the board says so here").help("leave it out; only firmware may use it"));
    }
    let mut path = core::iter::once(device).chain(device.ancestors());
    if let Some(off) = path.find(|n| !n.is_enabled()) {
        let d = error(codes::DEVICE_DISABLED, "domain `{0}` asks for {1}, which is disabled");
        let place = off.property("status").map_or(off.span(), Property::span);
        let d = d.also(place, "the board disables it here");
        return Some(
            d.help("if the device is there and usable, enable it in the layout: &label { status = \"okay\"; };"),
        );
    }
    None
}

/// Pass 2: registers, ports and interrupts of a domain's grants.
pub(super) fn describe<'a>(
    board: &Board<'a>,
    domain: &Domain<'a>,
    lists: &mut Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<(), Full> {
    let mut empty = true;
    for index in domain.devices.clone() {
        let grant = lists.devices[index].clone();
        let (regions, lines, port) = (lists.regions.len(), lists.interrupts.len(), lists.ports.len());
        let errors = diagnostics.errors();
        below(index, grant.node, lists, &mut |node, lists| {
            if grant.function.is_some() || !class::check(board, domain, &grant, node, lists, diagnostics) {
                return Ok(());
            }
            registers(board, domain, &grant, node, lists, diagnostics)?;
            interrupts::collect(board, domain, &grant, node, lists, diagnostics)
        })?;
        functions::ports(board, domain, &grant, lists, diagnostics)?;
        let (all_regions, all_lines) = (lists.regions.len(), lists.interrupts.len());
        let something =
            all_regions > regions || all_lines > lines || lists.ports.len() > port || grant.function.is_some();
        empty &= !something && diagnostics.errors() == errors;
        lists.devices[index].regions = regions..all_regions;
        lists.devices[index].interrupts = lines..all_lines;
        // The grants of one reference stand in a row.
        let last = domain.devices.end == index + 1 || lists.devices[index + 1].span != grant.span;
        if last && core::mem::replace(&mut empty, true) {
            let mut cells = references(domain.node.property("access"));
            let node = cells.find(|(cell, _)| cell.span == grant.span).map_or(grant.node, |(_, node)| node);
            let message = "domain `{0}` asks for {1}, which has neither registers nor interrupts";
            let d = Diagnostic::new(codes::NOT_A_DEVICE, grant.span, message);
            let d = d.args(&[Arg::Text(domain.name), Arg::Node(node)]).also(node.span(), "{1} is here");
            diagnostics.push(d.help("name a device or a bus of the board"));
        }
    }
    moved(domain, lists, diagnostics);
    Ok(())
}

/// A visit of one node of a grant.
type Visit<'v, 'm, 'a> = &'v mut dyn FnMut(Node<'a>, &mut Lists<'m, 'a>) -> Result<(), Full>;

/// Runs `visit` on the nodes of one grant: `node` and what is below it and has no grant of its own.
fn below<'m, 'a>(
    grant: usize,
    node: Node<'a>,
    lists: &mut Lists<'m, 'a>,
    visit: Visit<'_, 'm, 'a>,
) -> Result<(), Full> {
    visit(node, lists)?;
    for child in node.children() {
        if lists.owners.of(child) == Some(grant) {
            below(grant, child, lists, visit)?;
        }
    }
    Ok(())
}

/// The registers of one node of a grant.
fn registers<'a>(
    board: &Board<'a>,
    domain: &Domain<'a>,
    grant: &DeviceGrant<'a>,
    node: Node<'a>,
    lists: &mut Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<(), Full> {
    let args = [Arg::Text(domain.name), Arg::Node(node)];
    for reg in cells::reg(node) {
        match address::locate(node, &reg) {
            Ok(Located::Memory(pa)) if !pa.is_empty() => {
                if in_ram(board, domain, grant, node, pa, diagnostics)
                    || is_forbidden(board, domain, grant, node, pa, reg.span, diagnostics)
                {
                    continue;
                }
                lists.regions.push(DeviceRegion { pa, ipa: Ipa(pa.base.0), span: reg.span })?;
            }
            Ok(Located::Memory(_)) => {}
            Ok(Located::Ports { first, count }) => {
                ports::device(board, domain, grant, node, &reg, first, count, &mut lists.ports, diagnostics)?;
            }
            Err(Lost::Beyond) => {
                let message = "{1} of domain `{0}` ends beyond {2}-bit physical addresses";
                let d = Diagnostic::new(codes::BEYOND_ADDRESSES, reg.span, message);
                diagnostics.push(d.args(&[args[0], args[1], Arg::Number(address::PA_BITS.into())]));
            }
            // The registers of a device on an I2C bus are reached through the bus's controller, granted with it.
            Err(Lost::At(bus)) if bus == grant.node || bus.ancestors().any(|n| n == grant.node) => {}
            Err(Lost::At(bus)) if bus.property("reg").is_some() && bus.property("ranges").is_none() => {
                let message = "domain `{0}` asks for {1}, which is reached through {2} only";
                let d = Diagnostic::new(codes::BUS_SPLIT, grant.span, message);
                let d = d.args(&[args[0], args[1], Arg::Node(bus)]).also(bus.span(), "{2} is here");
                diagnostics.push(d.help("grant {2}: a bus comes with its devices"));
            }
            Err(Lost::At(bus)) => {
                let message = "{1} has no address the CPU can use: {2} does not pass it on";
                let d = Diagnostic::new(codes::UNTRANSLATABLE, grant.span, message);
                let place = bus.property("ranges").map_or(bus.span(), Property::value_span);
                let d = d
                    .args(&[args[0], args[1], Arg::Node(bus)])
                    .also(reg.span, "this is not passed on")
                    .also(place, "by {2}");
                diagnostics.push(d.help("add the address to `ranges` of {2} (empty: same addresses on both sides)"));
            }
        }
    }
    Ok(())
}

/// Whether device registers lie in RAM, which is reported.
fn in_ram<'a>(
    board: &Board<'a>,
    domain: &Domain<'a>,
    grant: &DeviceGrant<'a>,
    node: Node<'a>,
    pa: PaRegion,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> bool {
    let Some(bank) = board.ram.iter().find(|bank| bank.value.overlaps(&pa)) else { return false };
    let message = "the registers of {1}, {2}, lie in RAM";
    let d = Diagnostic::new(codes::REGISTERS_IN_RAM, grant.span, message);
    let args = [Arg::Text(domain.name), Arg::Node(node), Arg::Range(pa.base.0, pa.size)];
    let d = d.args(&args).also(bank.span, "this bank").also(node.span(), "{1} is here");
    diagnostics.push(d.help("give memory to a domain by a memory@… node"));
    true
}

/// Whether device registers are, at other names, those nobody may have, which is reported.
fn is_forbidden<'a>(
    board: &Board<'a>,
    domain: &Domain<'a>,
    grant: &DeviceGrant<'a>,
    node: Node<'a>,
    pa: PaRegion,
    span: Span,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> bool {
    let Some(taken) = board.forbidden.iter().find(|taken| taken.region.overlaps(&pa)) else { return false };
    let message = "domain `{0}` asks for {1}, whose registers {2} are those of {3}: no domain may have them";
    let d = Diagnostic::new(codes::FORBIDDEN_DEVICE, grant.span, message);
    let args = [Arg::Text(domain.name), Arg::Node(node), Arg::Range(pa.base.0, pa.size), Arg::Node(taken.node)];
    diagnostics.push(d.args(&args).also(span, "these registers").also(taken.span, "{3} is here").help("leave it out"));
    true
}

/// `reg-ipa`: reference and guest address, one entry per register range that moves.
fn moved<'a>(domain: &Domain<'a>, lists: &mut Lists<'_, 'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    const SHAPE: &str = "a list of <&device address>, the address in #address-cells cells";
    let Some(property) = domain.node.property("reg-ipa") else { return };
    let width = cells::address_cells(domain.node);
    let total = property.cells().map_or(0, Iterator::count);
    if property.cells().is_none() || total % (width + 1) != 0 {
        return words::wrong_type(property, SHAPE, diagnostics);
    }
    for (position, entry) in cells::groups(property, width + 1).enumerate() {
        let Some(device) = entry.first().and_then(|cell| target(domain.node.tree(), cell)) else {
            words::wrong_type(property, SHAPE, diagnostics);
            return;
        };
        let same = |e: &heapless::Vec<Cell, { cells::MAX_ENTRY }>| {
            e.first().and_then(|cell| target(domain.node.tree(), cell)) == Some(device)
        };
        let earlier = cells::groups(property, width + 1).take(position).filter(same).count();
        let span = cells::span_of(&entry);
        let args = [Arg::Text(domain.name), Arg::Node(device), Arg::Number(earlier as u64 + 1)];
        let mut grants = domain.devices.clone().map(|i| &lists.devices[i]);
        let region = grants.find(|grant| grant.node == device).and_then(|grant| grant.regions.clone().nth(earlier));
        let Some(region) = region else {
            let message = "`reg-ipa` of domain `{0}` moves register range {2} of {1}, which the domain does not have";
            let d = Diagnostic::new(codes::REG_IPA, span, message).args(&args);
            diagnostics.push(d.help("name devices of `access`, as often as they have `reg` entries"));
            continue;
        };
        let ipa = cells::number(&entry[1..]);
        let region = &mut lists.regions[region];
        if (ipa ^ region.pa.base.0) & 0xFFF != 0 || ipa.checked_add(region.pa.size).is_none() {
            let message = "{1} at {2} cannot be moved to {3}: both must have the same place in their 4 KiB page";
            let d = Diagnostic::new(codes::REG_IPA, span, message);
            let d = d.args(&[args[0], args[1], Arg::Hex(region.pa.base.0), Arg::Hex(ipa)]);
            diagnostics.push(d.help("keep the low 12 bits"));
            continue;
        }
        region.ipa = Ipa(ipa);
    }
}
