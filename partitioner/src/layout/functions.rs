//! PCI functions of `access`: one grant each, a bridge standing for every function behind it.
//!
//! A bridge itself is nobody's: the hypervisor programs it.

use super::access::Lists;
use super::words;
use crate::cells::{self, is_function, is_live, target};
use crate::codes;
use crate::lent::Full;
use crate::model::{Board, DeviceGrant, Domain, PortGrant};
use crate::pci;
use crate::pci::function::{PHYSICAL, ROM};
use crate::pci::host::through;
use crate::pci::model::{PciFunction, PciHost, Reset, Space};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property, Span};

/// Gives the function `device`, or every function behind the bridge `device`, to the domain of `node`.
///
/// Returns the first node that has an owner already, with its grant.
pub(super) fn expand<'a>(
    board: &Board<'a>,
    domain: usize,
    node: Node<'a>,
    device: Node<'a>,
    span: Span,
    lists: &mut Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<Option<(Node<'a>, usize)>, Full> {
    let args = [Arg::Text(node.name()), Arg::Node(device)];
    if let Some(physical) = device.property(PHYSICAL) {
        diagnostics.push(virtual_function(node, device, physical, span));
        return Ok(None);
    }
    let found = board.pci.as_ref().and_then(|host| Some((host, host.index_of(device)?)));
    let Some((host, named)) = found else {
        let message = "domain `{0}` asks for {1}, which is behind a PCI host bridge this version does not drive";
        let d = Diagnostic::new(codes::NOT_SUPPORTED_YET, span, message).args(&args).also(device.span(), "{1} is here");
        diagnostics.push(d.help("one host bridge with `compatible` = \"pci-host-ecam-generic\" is driven"));
        return Ok(None);
    };
    let is_bridge = host.functions[named].bridge.is_some();
    let mut none = true;
    for (index, function) in host.functions.iter().enumerate() {
        let below = is_bridge && function.bridge.is_none() && host.bridges_above(index).any(|above| above == named);
        if index != named && !below || is_bridge && index == named {
            continue;
        }
        none = false;
        let grant = lists.devices.len();
        let function_grant =
            DeviceGrant { domain, node: function.node, span, function: Some(index), ..Default::default() };
        lists.devices.push(function_grant)?;
        if let Some(owner) = give(function.node, grant, lists) {
            return Ok(Some((function.node, owner)));
        }
    }
    if none {
        let d = Diagnostic::new(
            codes::NOT_A_DEVICE,
            span,
            "domain `{0}` asks for {1}, a bridge with no function behind it",
        );
        let d = d.args(&args).also(device.span(), "{1} is here");
        diagnostics.push(d.help("describe what is behind it, each function by a node below the bridge's"));
    }
    Ok(None)
}

/// A virtual function is made by the driver of the physical one, at run time: it is not there when domains start.
fn virtual_function<'a>(domain: Node<'a>, device: Node<'a>, physical: Property<'a>, span: Span) -> Diagnostic<'a> {
    let cell = physical.cells().and_then(|mut cells| cells.next());
    let of = cell.and_then(|cell| target(domain.tree(), &cell)).unwrap_or(device);
    let message =
        "domain `{0}` asks for {1}, a virtual function of {2}: it is there only while a driver of {2} keeps it there";
    let d = Diagnostic::new(codes::VIRTUAL_FUNCTION, span, message);
    let d = d.args(&[Arg::Text(domain.name()), Arg::Node(device), Arg::Node(of)]).also(device.span(), "{1} is here");
    d.help("give the physical function whole: {2}; a domain finds it without SR-IOV")
}

/// Gives a function's node and what describes it further to `grant`. Returns who has it already.
fn give<'a>(node: Node<'a>, grant: usize, lists: &mut Lists<'_, 'a>) -> Option<usize> {
    if let Err(owner) = lists.owners.give(node, grant) {
        return Some(owner);
    }
    node.children()
        .filter(|child| child.is_enabled() && !is_function(*child))
        .find_map(|child| give(child, grant, lists))
}

/// What must be known of every function, whoever finds it, to be sure at boot that it is the one described.
const IDENTITY: [&str; 4] = ["vendor-id", "device-id", "class-code", "revision-id"];

/// Checks each function that is granted, for itself. What two of them do to each other is in `isolation`.
pub(super) fn check<'a>(
    board: &Board<'a>,
    domains: &[Domain<'a>],
    lists: &Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    let Some(host) = &board.pci else { return };
    for grant in lists.devices.iter() {
        let (Some(domain), Some(index)) = (domains.get(grant.domain), grant.function) else { continue };
        let Some(function) = host.functions.get(index) else { continue };
        identified(host, domain, grant, index, diagnostics);
        first_function(host, domain, grant, function, lists, diagnostics);
        if board.arch.hypervisor_supported() {
            held_back(host, domain, grant, function, diagnostics);
            let first = domain.devices.clone().find(|at| lists.devices.get(*at).is_some_and(|d| d.function.is_some()));
            if first.and_then(|at| lists.devices.get(at)).is_some_and(|d| d.function == grant.function) {
                reaches(host, domain, grant, diagnostics);
            }
            resets(host, domain, grant, index, lists, diagnostics);
        }
    }
    if !board.arch.io_ports_supported() {
        domains.iter().for_each(|domain| io_bars_hidden(board, host, domain, lists, diagnostics));
    }
}

/// A function and the bridges above it say who they are.
fn identified<'a>(
    host: &PciHost<'a>,
    domain: &Domain<'a>,
    grant: &DeviceGrant<'a>,
    index: usize,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    for one in core::iter::once(index).chain(host.bridges_above(index)) {
        let Some(node) = host.functions.get(one).map(|function| function.node) else { continue };
        let Some(missing) = IDENTITY.iter().find(|name| node.property(name).is_none()) else { continue };
        let message = "domain `{0}` asks for {1}, but {2} has no `{3}`: whether the function found at boot is the one meant could not be told";
        let d = Diagnostic::new(codes::PCI_IDS, grant.span, message);
        let args = [Arg::Text(domain.name), Arg::Node(grant.node), Arg::Node(node), Arg::Text(missing)];
        let d = d.args(&args).also(node.span(), "{2} is here");
        diagnostics.push(d.help("give it as configuration space has it; `cargo xtask import lspci` writes the node"));
    }
}

/// Whoever looks for functions looks at function 0 of a device first.
fn first_function<'a>(
    host: &PciHost<'a>,
    domain: &Domain<'a>,
    grant: &DeviceGrant<'a>,
    function: &PciFunction<'a>,
    lists: &Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    if function.above.is_some() || function.bdf.0 & 7 == 0 {
        // Behind bridges, functions get places of their own on the domain's bus.
        return;
    }
    let zero = host.functions.iter().find(|other| other.bdf.0 == function.bdf.0 & !7);
    let Some(zero) = zero.filter(|zero| lists.owners.of(zero.node).is_none()) else { return };
    let message =
        "domain `{0}` asks for {1}, but not for function 0 of the device, {2}: its operating system would not find it";
    let d = Diagnostic::new(codes::NO_FUNCTION_ZERO, grant.span, message);
    let d = d.args(&[Arg::Text(domain.name), Arg::Node(grant.node), Arg::Node(zero.node)]);
    diagnostics.push(d.also(zero.node.span(), "{2} is here").help("grant {2} too"));
}

/// Vendor and device ID of Intel's 82540EM, which QEMU calls `e1000`.
const E1000: u32 = 0x100E_8086;

/// I/O BARs where there are no I/O ports: a function of nothing else cannot work, beside memory BARs they are left alone. The latter
/// is said once for a domain, and of a function with a driver that wants its ports for itself.
fn io_bars_hidden<'a>(
    board: &Board<'a>,
    host: &PciHost<'a>,
    domain: &Domain<'a>,
    lists: &Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    // The first such function, how many more, and the first of them.
    let mut noted: Option<(Diagnostic<'a>, u64, Option<Node<'a>>)> = None;
    let arch = Arg::Text(board.arch.name());
    for grant in domain.devices.clone().filter_map(|at| lists.devices.get(at)) {
        let Some(function) = grant.function.and_then(|index| host.functions.get(index)) else { continue };
        let bars = || function.bars.iter().take(ROM).flatten();
        let Some(io) = bars().find(|bar| bar.space == Space::Io) else { continue };
        let args = [Arg::Text(domain.name), Arg::Node(grant.node), arch];
        if bars().all(|bar| bar.space == Space::Io) {
            let message = "domain `{0}` asks for {1}, which is reached by I/O ports only, and {2} has no I/O ports: it could never work";
            let d = Diagnostic::new(codes::ONLY_IO_BARS, grant.span, message).args(&args);
            let d = d.also(io.span, "its only way in");
            diagnostics.push(d.help("leave it out; use a device with registers in memory"));
        } else if function.id == E1000 {
            let message = "{1} of domain `{0}` has an I/O BAR, and {2} has no I/O ports: the BAR stays unassigned and hidden, and Linux' driver fails";
            let d = Diagnostic::new(codes::IO_BAR_HIDDEN, grant.span, message).args(&args).also(io.span, "this BAR");
            diagnostics.push(d.help("Linux' `e1000` resets this card, an 82540EM, through ports; drivers that use the memory BAR work. In QEMU, take `e1000e`"));
        } else if let Some((d, more, second)) = noted.take() {
            noted = Some((d.also(grant.span, "and this one"), more + 1, second.or(Some(grant.node))));
        } else {
            let message = "{1} of domain `{0}` has an I/O BAR, and {2} has no I/O ports: the BAR stays unassigned and hidden, the memory BARs work";
            noted = Some((Diagnostic::new(codes::IO_BAR_HIDDEN, grant.span, message).args(&args), 0, None));
        }
    }
    let Some((mut d, more, second)) = noted else { return };
    d.message = match more {
        0 => d.message,
        1 => {
            "{1} and {3} of domain `{0}` have I/O BARs, and {2} has no I/O ports: they stay unassigned and hidden, the memory BARs work"
        }
        _ => {
            "{1} and {4} more functions of domain `{0}` have I/O BARs, and {2} has no I/O ports: they stay unassigned and hidden, the memory BARs work"
        }
    };
    let [name, first, arch, ..] = d.args;
    diagnostics.push(d.args(&[name, first, arch, second.map_or(Arg::None, Arg::Node), Arg::Number(more)]));
}

/// An SMMU stands in front of the function, or the domain is trusted.
fn held_back<'a>(
    host: &PciHost<'a>,
    domain: &Domain<'a>,
    grant: &DeviceGrant<'a>,
    function: &PciFunction<'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    // Of a map that cannot be read, whether it has a row is not known.
    let unread = diagnostics.iter().any(|d| d.code == codes::IOMMU_MAP);
    if function.stream.is_some() || domain.trusted_dma.is_some() || unread {
        return;
    }
    let message = "domain `{0}` asks for {1}, which may read and write memory by itself, and no SMMU holds it back";
    let d = Diagnostic::new(codes::NO_IOMMU, grant.span, message);
    let rid = host.index_of(grant.node).map_or(function.bdf, |index| host.requester(index));
    let map = host.node.property("iommu-map").map(Property::value_span);
    let behind = through(host.node, "iommu-map", rid).map(|(node, _)| node);
    let driven = host.smmu.map_or(host.node, |smmu| smmu.node);
    let args = [Arg::Text(domain.name), Arg::Node(grant.node), Arg::Node(host.node)];
    let d = d.args(&[
        args[0],
        args[1],
        args[2],
        behind.map_or(Arg::None, Arg::Node),
        Arg::Node(driven),
        Arg::Function(rid.0),
    ]);
    let d = match (map, behind) {
        (None, _) => d.also(host.node.span(), "{2} has no `iommu-map`"),
        (Some(map), None) => d.also(map, "no row is for its requester ID, {5}"),
        (Some(map), Some(behind)) if !behind.is_compatible("arm,smmu-v3") => {
            d.also(map, "the row for it leads to {3}, which is no \"arm,smmu-v3\"")
        }
        (Some(map), Some(behind)) if host.smmu.is_some() && driven != behind && is_live(behind) => {
            d.also(map, "the row for it leads to {3}, but the one SMMU that is driven is {4}")
        }
        (Some(map), Some(_)) => {
            d.also(map, "the row for it leads to {3}, which is disabled or has less than 128 KiB of registers")
        }
    };
    diagnostics.push(d.help(
        "describe the SMMU: iommu-map in {2}; or, if this domain may reach all of memory: dma = \"trusted\"; and direct-map; memory",
    ));
}

/// `dma-ranges` of the host bridge: what its functions reach, under which addresses. Said once for each domain.
fn reaches<'a>(
    host: &PciHost<'a>,
    domain: &Domain<'a>,
    grant: &DeviceGrant<'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    let Some(ranges) = host.node.property("dma-ranges").filter(|ranges| !ranges.is_empty()) else { return };
    let args = [Arg::Text(domain.name), Arg::Node(grant.node), Arg::Node(host.node)];
    if let Some(moved) = cells::windows(host.node, "dma-ranges").find(|range| range.child.low != range.parent.low) {
        let message = "domain `{0}` asks for {1}, but `dma-ranges` of {2} gives memory other addresses on the bus: that is not supported yet";
        let d = Diagnostic::new(codes::NOT_SUPPORTED_YET, grant.span, message).args(&args).also(moved.span, "here");
        diagnostics.push(d.help("leave it out; functions must see memory at the CPU's addresses"));
        return;
    }
    let holds = |base: u64, size: u64| {
        cells::windows(host.node, "dma-ranges").any(|range| {
            base.checked_sub(range.parent.low).is_some_and(|offset| offset < range.size && size <= range.size - offset)
        })
    };
    let Some(memory) = domain.memory.iter().find(|memory| !holds(memory.ipa.base.0, memory.ipa.size)) else { return };
    let message = "{1} of domain `{0}` does not reach all of its RAM: `dma-ranges` of {2} leaves this out";
    let d = Diagnostic::new(codes::DMA_REACH, memory.span, message).args(&args);
    let d = d.also(ranges.value_span(), "what functions reach").also(grant.span, "granted here");
    diagnostics.push(d.help("give the domain RAM at guest addresses inside `dma-ranges`"));
}

/// A function goes into the next run reset, or as the last one left it.
fn resets<'a>(
    host: &PciHost<'a>,
    domain: &Domain<'a>,
    grant: &DeviceGrant<'a>,
    index: usize,
    lists: &Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    let owner = |index: usize| {
        let grant = lists.owners.of(host.functions.get(index)?.node)?;
        lists.devices.get(grant).map(|grant| grant.domain)
    };
    let other = match host.reset(index, &owner) {
        _ if !domain.lifecycle.restarts() => return,
        Ok(Reset::None) => None,
        Ok(_) => return,
        Err(other) => host.functions.get(other),
    };
    let node = other.map_or(grant.node, |other| other.node);
    let message = match other {
        None => {
            "domain `{0}` restarts, but {1} has no function-level reset and no port of its own: its next run finds the function as the last one left it, bus mastering off"
        }
        Some(_) => {
            "domain `{0}` restarts, but {1} has no function-level reset, and its bus cannot be reset, for {2} is behind the same port: its next run finds the function as the last one left it, bus mastering off"
        }
    };
    let d = Diagnostic::new(codes::NO_RESET, grant.span, message);
    let d = d.args(&[Arg::Text(domain.name), Arg::Node(grant.node), Arg::Node(node)]);
    let d = d.also(node.span(), if other.is_some() { "{2} is here" } else { "{1} is here" });
    diagnostics.push(d.help("see to it that the guest's driver resets it first, or use on-… = \"reboot-board\""));
}

/// The ports of a function's I/O BARs, where there are ports.
pub(super) fn ports<'a>(
    board: &Board<'a>,
    domain: &Domain<'a>,
    grant: &DeviceGrant<'a>,
    lists: &mut Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<(), Full> {
    let Some((host, index)) = board.pci.as_ref().zip(grant.function) else { return Ok(()) };
    let Some(function) = host.functions.get(index).filter(|_| board.arch.io_ports_supported()) else { return Ok(()) };
    for (bar, spec) in function.bars.iter().enumerate() {
        let Some(spec) = spec.filter(|spec| spec.space == Space::Io) else { continue };
        let last =
            pci::ports::place(host, index, bar).and_then(|first| Some((first, (first + spec.size).checked_sub(1)?)));
        let range = last.and_then(|(first, last)| Some((u16::try_from(first).ok()?, u16::try_from(last).ok()?)));
        if let Some((first, last)) = range {
            lists.ports.push(PortGrant { domain: grant.domain, first, last, span: grant.span })?;
            continue;
        }
        let message = "domain `{0}` asks for {1}, and the I/O window of {2} has no room for its I/O BAR {3} of {4}";
        let d = Diagnostic::new(codes::IO_WINDOW, grant.span, message);
        let [bar, size] = [Arg::Number(bar as u64), Arg::Bytes(spec.size)];
        let d = d.args(&[Arg::Text(domain.name), Arg::Node(grant.node), Arg::Node(host.node), bar, size]);
        let place = host.io_window().map_or(host.node.span(), |window| window.span);
        diagnostics.push(
            d.also(spec.span, "this BAR")
                .also(place, "the window, if any")
                .help("give the host bridge an I/O window of the ports firmware leaves it: ranges = <0x01000000 …>"),
        );
    }
    Ok(())
}

/// `io-bars` where there are ports: each must be an I/O BAR of a function the domain has. It comes with the function.
pub(super) fn io_bars<'a>(
    board: &Board<'a>,
    domain: usize,
    node: Node<'a>,
    lists: &Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    let Some(list) = node.property("io-bars").filter(|_| board.arch.io_ports_supported()) else { return };
    if list.cells().is_none_or(|cells| cells.count() % 2 != 0) {
        return words::wrong_type(list, "a list of <&function number>", diagnostics);
    }
    for pair in cells::groups(list, 2) {
        let [reference, number] = pair.as_slice() else { continue };
        let Some(device) = target(board.tree, reference) else { continue };
        let grant = lists.owners.of(device).and_then(|grant| lists.devices.get(grant));
        let mine = grant.filter(|grant| grant.domain == domain && grant.node == device);
        let function = mine.and_then(|grant| board.pci.as_ref()?.functions.get(grant.function?));
        let bar = function.and_then(|function| *function.bars.get(usize::try_from(number.value).ok()?)?);
        if bar.is_some_and(|bar| bar.space == Space::Io) {
            continue;
        }
        let message = if function.is_some() {
            "`io-bars` of domain `{0}` names BAR {2} of {1}, which is no I/O BAR"
        } else {
            "`io-bars` of domain `{0}` names {1}, which is no PCI function of the domain"
        };
        let d = Diagnostic::new(codes::NOT_AN_IO_BAR, cells::span_of(&pair), message);
        let d = d.args(&[Arg::Text(node.name()), Arg::Node(device), Arg::Number(number.value)]);
        diagnostics.push(
            d.also(device.span(), "{1} is here")
                .help("name functions of `access`, each with the number of an I/O BAR, 0 to 5"),
        );
    }
}
