//! What a plan with PCI demands of the board: without it, a plan could not be proven.

use super::capability::PROPERTY;
use super::host::is_host;
use super::model::{Mode, PciFunction, PciHost, Settlement, Space};
use super::settle::Owners;
use super::{lines, policy, smmu};
use crate::address;
use crate::board::is_memory;
use crate::cells::is_live;
use crate::codes;
use crate::model::{Board, Layout};
use crate::resolve::PAGE;
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node};
use cofferdam_plan::pci::ECAM_SIZE;

/// Bits of the largest stream ID or DeviceID: a table of one level has 4 MiB then.
const ID_BITS: u32 = 16;
/// LPIs that interrupt IDs of 15 bits and a command queue of 1 MiB hold.
const MAX_LPIS: u32 = 24_576;

/// Of the host bridge, its SMMU, and the functions that domains have.
pub(super) fn of_board<'a>(
    board: &Board<'a>,
    layout: &Layout<'a, '_>,
    host: &PciHost<'a>,
    owners: &Owners,
    out: &mut Diagnostics<'_, 'a>,
) {
    windows(board, host, out);
    for (owner, function) in owners.iter().zip(&host.functions) {
        if owner.is_none() && function.node.property("vendor-id").is_none() {
            let message = "{0} has no `vendor-id`, and stands on the buses of functions that domains have";
            let d = Diagnostic::new(codes::PCI_IDS, function.node.span(), message).args(&[Arg::Node(function.node)]);
            out.push(
                d.help("give it as configuration space has it: what nobody has is silenced by it; or disable the node"),
            );
        }
    }
    let held = owners.iter().zip(&host.functions).find_map(|(owner, function)| {
        let owner = owner.filter(|_| function.stream.is_some())?;
        Some((function.node, owner.span))
    });
    if let Some((node, span)) = held {
        smmu::demands(board, host, node, span, out);
        smmu::streams(host, owners, out);
        smmu_lines(layout, host, out);
    }
    smmu::coherence(host, owners, out);
    unknown_bridges(board, host, owners, out);
    ids(host, out);
    foreign_ids(board, host, owners, out);
    for (owner, function) in owners.iter().zip(&host.functions) {
        if let (Some(_), Some((capability, other))) = (owner, policy::crowded(function)) {
            let message = if other.offset == capability.offset {
                "the capability at {1} of {0} ends beyond its part of configuration space"
            } else {
                "the capability at {1} of {0} reaches into the one at {2}, or there are two where there is one"
            };
            let args = [Arg::Node(function.node), Arg::Hex(capability.offset.into()), Arg::Hex(other.offset.into())];
            let d = Diagnostic::new(codes::CAPABILITIES, capability.span, message).args(&args);
            let d = if other.offset == capability.offset { d } else { d.also(other.span, "the other one") };
            out.push(d.help("<offset dword0 dword1 dword2> for each, as `cargo xtask import lspci` writes them"));
        }
    }
}

/// Bus addresses are guest addresses are physical ones: refuses a host bridge that translates, and windows or configuration space of
/// which pages cannot be given out: not whole, or something else too.
fn windows<'a>(board: &Board<'a>, host: &PciHost<'a>, out: &mut Diagnostics<'_, 'a>) {
    let mut memory = host.windows.iter().filter(|window| window.space != Space::Io);
    for window in memory.by_ref().filter(|window| window.bus != window.pa.base.0) {
        let message =
            "the host bridge {0} shows bus address {1} at {2}: functions behind it cannot be given to domains";
        let args = [Arg::Node(host.node), Arg::Hex(window.bus), Arg::Hex(window.pa.base.0)];
        let d = Diagnostic::new(codes::TRANSLATING_BRIDGE, window.span, message).args(&args);
        out.push(d.help("only windows whose bus addresses are physical addresses are supported"));
    }
    if !host.ecam.base.0.is_multiple_of(ECAM_SIZE) {
        let message = "configuration space of {0} is at {1}, which is no multiple of 1 MiB: guests could not be shown theirs there";
        let d = Diagnostic::new(codes::HOST_RANGES, host.node.span(), message);
        out.push(d.args(&[Arg::Node(host.node), Arg::Hex(host.ecam.base.0)]).help("check `reg` of the host bridge"));
    }
    for (index, window) in host.windows.iter().enumerate() {
        let args = [Arg::Node(host.node), Arg::Range(window.pa.base.0, window.pa.size)];
        // Of an I/O window nobody is given a page.
        if window.space != Space::Io && (window.pa.is_empty() || !window.pa.is_aligned(PAGE)) {
            let message = "the window {1} of {0} is not whole pages of 4 KiB";
            let d = Diagnostic::new(codes::HOST_RANGES, window.span, message).args(&args);
            out.push(d.help("round its address and size to 0x1000"));
            continue;
        }
        if let Some(other) = host.windows.iter().take(index).find(|other| other.pa.overlaps(&window.pa)) {
            let message = "the window {1} of {0} overlaps another one";
            let d = Diagnostic::new(codes::HOST_RANGES, window.span, message).args(&args);
            out.push(d.also(other.span, "the other one").help("check `ranges` of the host bridge"));
        }
        // Of other host bridges `forbidden` has the windows too.
        let mut others = board.forbidden.iter().filter(|taken| taken.node != host.node && is_host(taken.node));
        if let Some(other) = others.find(|other| other.region.overlaps(&window.pa)) {
            let message = "the window {1} of {0} overlaps one of {2}";
            let d = Diagnostic::new(codes::HOST_RANGES, window.span, message);
            let d = d.args(&[args[0], args[1], Arg::Node(other.node)]).also(other.span, "that one");
            out.push(d.help("check `ranges` of the host bridges"));
            continue;
        }
        let is_domain = |node: Node<'a>| node.ancestors().chain([node]).any(|n| n.name() == "domains");
        // In RAM, it has been reported as such.
        let nodes = board.tree.nodes().filter(|node| is_live(*node) && !is_domain(*node) && !is_memory(*node));
        let mut ranges = nodes.flat_map(|node| address::memory(node).map(move |(region, _)| (node, region)));
        if let Some((node, region)) = ranges.find(|(_, region)| region.overlaps(&window.pa)) {
            let message = "the window {1} of {0} overlaps {2} at {3}";
            let args = [args[0], args[1], Arg::Node(node), Arg::Range(region.base.0, region.size)];
            let d = Diagnostic::new(codes::HOST_RANGES, window.span, message).args(&args);
            out.push(d.also(node.span(), "{2} is here").help("check `ranges` of the host bridge"));
        }
    }
}

/// Refuses devices of domains on the SMMU's lines.
fn smmu_lines<'a>(layout: &Layout<'a, '_>, host: &PciHost<'a>, out: &mut Diagnostics<'_, 'a>) {
    let Some(smmu) = &host.smmu else { return };
    for grant in layout.devices {
        let lines = layout.interrupts.get(grant.interrupts.clone()).unwrap_or(&[]);
        let Some(line) = lines.iter().find(|line| [smmu.event, smmu.error].contains(&Some(line.intid))) else {
            continue;
        };
        let message = "{0} shares interrupt {1} with {2}, which is the hypervisor's";
        let args = [Arg::Node(grant.node), Arg::Number(line.intid.0.into()), Arg::Node(smmu.node)];
        let d = Diagnostic::new(codes::HYPERVISOR_LINE, grant.span, message).args(&args);
        out.push(
            d.also(line.span, "this interrupt")
                .also(smmu.node.span(), "{2} is here")
                .help("check the board's interrupts"),
        );
    }
}

/// Refuses bridges without capabilities above functions whose IDs the SMMU or the ITS goes by: one to conventional PCI would send for them.
fn unknown_bridges<'a>(board: &Board<'a>, host: &PciHost<'a>, owners: &Owners, out: &mut Diagnostics<'_, 'a>) {
    if out.errors() != 0 {
        return;
    }
    let unknown = |bridge: &PciFunction<'a>| bridge.bridge.is_some() && bridge.node.property(PROPERTY).is_none();
    for (index, bridge) in host.functions.iter().enumerate().filter(|(_, bridge)| unknown(bridge)) {
        let below = owners.iter().zip(&host.functions).enumerate().find_map(|(at, (owner, function))| {
            let counts = function.stream.is_some() || lines::can_send(board, host, function);
            let owner = owner.filter(|_| counts && host.bridges_above(at).any(|above| above == index))?;
            Some((function.node, owner.span))
        });
        let Some((node, span)) = below else { continue };
        let message = "{0} is behind {1}, of which the board gives no capabilities: whether what it does comes under its own ID is not known";
        let d = Diagnostic::new(codes::UNKNOWN_BRIDGE, span, message);
        let d = d.args(&[Arg::Node(node), Arg::Node(bridge.node)]).also(bridge.node.span(), "{1} is here");
        out.push(d.help("give {1} its `cofferdam,capabilities`; `cargo xtask import lspci` writes them"));
    }
}

/// Refuses two functions with one stream ID or DeviceID, whoever has them: what one does would be held against, or let through for,
/// the other. Functions of two domains have been refused before.
fn ids<'a>(host: &PciHost<'a>, out: &mut Diagnostics<'_, 'a>) {
    if out.errors() != 0 {
        return;
    }
    for (at, function) in host.functions.iter().enumerate() {
        let mut before = host.functions.iter().take(at);
        let twin = before.find_map(|other| {
            if function.stream.is_some() && other.stream == function.stream {
                return Some((other, codes::STREAM_TWICE, "stream ID", function.stream));
            }
            let same = function.device_id.is_some() && other.device_id == function.device_id;
            same.then_some((other, codes::DEVICE_ID_TWICE, "DeviceID", function.device_id))
        });
        if let Some((other, code, what, id)) = twin {
            let message = "{0} and {1} have one {2}, {3}: nothing can tell what one does from what the other does";
            let id = Arg::Hex(id.unwrap_or(0).into());
            let args = [Arg::Node(function.node), Arg::Node(other.node), Arg::Text(what), id];
            let d =
                Diagnostic::new(code, function.node.span(), message).args(&args).also(other.node.span(), "{1} is here");
            let alias = host.index_of(other.node).is_some_and(|other| host.requester(other) == host.requester(at));
            return out.push(d.help(if alias {
                "a bridge to conventional PCI speaks for both, under one ID: one function behind it can be driven; disable the others"
            } else {
                "check `iommu-map` and `msi-map` of the host bridge"
            }));
        }
    }
}

/// Refuses functions of domains with a stream ID or DeviceID that something besides the functions of this host bridge has too: nobody
/// decides what that does, and it would reach the domain's RAM, or raise its interrupts.
fn foreign_ids<'a>(board: &Board<'a>, host: &PciHost<'a>, owners: &Owners, out: &mut Diagnostics<'_, 'a>) {
    for (owner, function) in owners.iter().zip(&host.functions) {
        let Some(owner) = owner else { continue };
        let stream = function.stream.zip(host.smmu).and_then(|(id, smmu)| {
            let (node, span) = smmu::foreign(host, smmu.node, id, "iommu-map", "iommus")?;
            Some((node, span, codes::STREAM_TWICE, "stream ID", id))
        });
        let sends = function.device_id.zip(host.its).filter(|_| lines::can_send(board, host, function));
        let device = sends.and_then(|(id, its)| {
            let (node, span) = smmu::foreign(host, its.node, id, "msi-map", "msi-parent")?;
            Some((node, span, codes::DEVICE_ID_TWICE, "DeviceID", id))
        });
        for (node, span, code, what, id) in stream.into_iter().chain(device) {
            let message = "{0} has {2} {3}, and so has what {1} speaks for: what that does would count as the domain's";
            let args = [Arg::Node(function.node), Arg::Node(node), Arg::Text(what), Arg::Hex(id.into())];
            let d = Diagnostic::new(code, owner.span, message).args(&args).also(span, "here");
            out.push(d.help("each has IDs of its own: check the maps; disable {1} if it is not there"));
        }
    }
}

/// Refuses more IDs and messages than there is a plan for.
pub(super) fn of_settlement<'a>(host: &PciHost<'a>, settlement: &Settlement, out: &mut Diagnostics<'_, 'a>) {
    let owned = || settlement.functions.iter().filter(|settled| settled.owner.is_some());
    for function in owned().filter_map(|settled| host.functions.get(settled.function)) {
        let stream = function.stream.filter(|stream| !smmu::is_beyond(host, *stream));
        let highest = stream.max(function.device_id).unwrap_or(0);
        if highest >> ID_BITS != 0 {
            let message = "{0} has stream ID or DeviceID {1}: tables are for {2} bits at most";
            let args = [Arg::Node(function.node), Arg::Hex(highest.into()), Arg::Number(ID_BITS.into())];
            let d = Diagnostic::new(codes::CAPACITY, function.node.span(), message).args(&args);
            out.push(d.help("check `iommu-map` and `msi-map` of the host bridge"));
        }
    }
    let senders = owned().filter(|settled| matches!(settled.mode, Mode::Msi(_)));
    let lpis: u32 = senders.filter_map(|settled| Some(settlement.share(settled.owner?).spi_count)).sum();
    if lpis > MAX_LPIS {
        let message =
            "functions behind {0} need {1} LPIs, one for each function and interrupt of its domain; a plan has {2}";
        let args = [Arg::Node(host.node), Arg::Number(lpis.into()), Arg::Number(MAX_LPIS.into())];
        let d = Diagnostic::new(codes::CAPACITY, host.node.span(), message).args(&args);
        out.push(d.help("give domains with many functions fewer CPUs, or delivery = \"direct\""));
    }
}
