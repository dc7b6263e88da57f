//! What a plan demands of the SMMU: what the board's node says, and, where it gives them, the identification registers.
//!
//! Registers are those of IHI 0070, 6.3. At boot the hypervisor holds the machine's against the plan in any case; a board that has
//! them lets the compiler say so first.

use super::host::{Row, is_host, rows};
use super::model::{Idr, PciHost, Settlement, SmmuNode};
use super::settle::Owners;
use crate::cells::{count, is_coherent, is_live, target};
use crate::codes;
use crate::emit::area::{COMMANDS_LOG2, EVENTS_LOG2, LEAST_STREAM_BITS};
use crate::model::{Board, Layout};
use cofferdam_dts::{Arg, Code, Diagnostic, Diagnostics, Node, Span};
use cofferdam_plan::limits::MAX_DOMAINS;

/// Property of an SMMU's node: `<IDR0 IDR1 IDR5>`.
const IDR: &str = "cofferdam,idr";
/// IDR5.OAS (6.3.6): bits of output address.
const OAS: [u32; 8] = [32, 36, 40, 42, 44, 48, 52, 52];

/// A domain's VMID is its number plus one, and every SMMU has eight bits of them (6.3.1, VMID16).
const _: () = assert!(MAX_DOMAINS < 256);

/// The registers the board gives, where they can be read.
pub(super) fn idr(node: Node<'_>) -> Option<Idr> {
    let property = node.property(IDR)?;
    let mut cells = property.cells()?.map(|cell| cell.value as u32);
    let (idr0, idr1, idr5) = (cells.next()?, cells.next()?, cells.next()?);
    cells.next().is_none().then_some(Idr { idr0, idr1, idr5, span: property.value_span() })
}

/// Words of this product in the node of an SMMU.
pub(super) fn words<'a>(smmu: Node<'a>, out: &mut Diagnostics<'_, 'a>) {
    for property in smmu.properties().filter(|property| property.name().starts_with("cofferdam,")) {
        let args = [Arg::Node(smmu), Arg::Text(property.name())];
        if property.name() != IDR {
            let d = Diagnostic::new(codes::UNKNOWN_WORD, property.span(), "`{1}` is no word of an SMMU, {0}");
            out.push(d.args(&args).help("`cofferdam,idr` is the only one"));
        } else if idr(smmu).is_none() {
            let message = "`{1}` of {0} must be three cells: SMMU_IDR0, SMMU_IDR1 and SMMU_IDR5";
            let d = Diagnostic::new(codes::WRONG_TYPE, property.value_span(), message).args(&args);
            out.push(d.help("as read at byte offsets 0x0, 0x4 and 0x14 of its registers"));
        }
    }
}

/// Refuses an SMMU that EL2 could not rely on: `function` is behind it, `asked` for it.
pub(super) fn demands<'a>(
    board: &Board<'a>,
    host: &PciHost<'a>,
    function: Node<'a>,
    asked: Span,
    out: &mut Diagnostics<'_, 'a>,
) {
    let Some(smmu) = &host.smmu else { return };
    let mut uarts = [&board.console, &board.log].into_iter().flatten().filter(|uart| uart.intid.is_some());
    let (message, help) = if board.gic.is_some_and(|gic| gic.is_v2()) {
        let help = "functions that no SMMU stands in front of can be given to a domain with dma = \"trusted\"";
        (
            "{0} is behind {1}, of whose faults nobody would hear: beside guests with a GICv2, EL2 has no interrupts",
            help,
        )
    } else if smmu.event.is_none() || smmu.error.is_none() {
        let help = "give it `interrupts` and `interrupt-names` with \"eventq\" and \"gerror\", edge-triggered SPIs";
        ("{0} is behind {1}, of whose faults nobody would hear: it has no edge-triggered `eventq` and `gerror`", help)
    } else if smmu.event == smmu.error || uarts.any(|uart| [smmu.event, smmu.error].contains(&uart.intid)) {
        let help = "check its `interrupts`: each line is one thing's";
        ("{0} is behind {1}, whose interrupts are not two of its own", help)
    } else if !is_coherent(smmu.node) {
        let help = "if its accesses are coherent with the caches, say dma-coherent; others are not supported";
        (
            "{0} is behind {1}, which does not read memory through the caches, where the hypervisor writes its tables",
            help,
        )
    } else {
        return registers(smmu, function, asked, out);
    };
    let args = [Arg::Node(function), Arg::Node(smmu.node)];
    let d = Diagnostic::new(codes::SMMU_LACKS, asked, message).args(&args);
    out.push(d.also(smmu.node.span(), "the SMMU is here").help(help));
}

/// The same by its registers.
fn registers<'a>(smmu: &SmmuNode<'a>, function: Node<'a>, asked: Span, out: &mut Diagnostics<'_, 'a>) {
    let Some(Idr { idr0, idr1, idr5, span }) = smmu.idr else { return };
    let needs: [(bool, Code, &'static str, &'static str); 8] = [
        (
            idr0 & 1 != 0,
            codes::NO_STAGE_2,
            "{0} is behind {1}, which has no stage 2 (IDR0.S2P = 0): it cannot hold a function to a domain's RAM",
            "in QEMU, -M virt-9.2 and later have it; else: dma = \"trusted\"; and direct-map; memory",
        ),
        (
            idr0 & 1 << 3 != 0 && idr5 & 1 << 4 != 0 && idr0 >> 21 & 3 != 3,
            codes::SMMU_TABLES,
            "{0} is behind {1}, which does not walk the domain's tables: little-endian AArch64 ones of 4 KiB (IDR0.TTF, IDR0.TTENDIAN, IDR5.GRAN4K)",
            "check `cofferdam,idr`; such an SMMU is not supported",
        ),
        (
            idr0 >> 24 & 3 != 2,
            codes::SMMU_LACKS,
            "{0} is behind {1}, where every fault stalls (IDR0.STALL_MODEL = 2): one function could fill it for all",
            "check `cofferdam,idr`; such an SMMU is not supported",
        ),
        (
            idr0 & 1 << 4 != 0,
            codes::COHERENCE,
            "{0} is behind {1}, which says dma-coherent, but by its registers it is not (IDR0.COHACC = 0)",
            "check `cofferdam,idr`; an SMMU that is not coherent is not supported",
        ),
        (
            idr1 >> 29 & 3 == 0,
            codes::SMMU_SIZES,
            "{0} is behind {1}, whose tables or queues are where the implementation has put them (IDR1.TABLES_PRESET, QUEUES_PRESET)",
            "check `cofferdam,idr`; such an SMMU is not supported",
        ),
        (
            idr1 >> 21 & 0x1F >= COMMANDS_LOG2,
            codes::SMMU_SIZES,
            "{0} is behind {1}, whose command queue is too small for a page of commands (IDR1.CMDQS)",
            "check `cofferdam,idr`: 8 or more",
        ),
        (
            idr1 >> 16 & 0x1F >= EVENTS_LOG2,
            codes::SMMU_SIZES,
            "{0} is behind {1}, whose event queue is too small for a page of events (IDR1.EVENTQS)",
            "check `cofferdam,idr`: 7 or more",
        ),
        (
            idr1 & 0x3F >= LEAST_STREAM_BITS,
            codes::SMMU_SIZES,
            "{0} is behind {1}, which has fewer stream IDs than the smallest stream table (IDR1.SIDSIZE)",
            "check `cofferdam,idr`: 6 or more",
        ),
    ];
    for (_, code, message, help) in needs.iter().filter(|(met, ..)| !met) {
        let args = [Arg::Node(function), Arg::Node(smmu.node)];
        let d = Diagnostic::new(*code, asked, message).args(&args).also(span, "its registers");
        out.push(d.help(help));
    }
}

/// Whether the SMMU has no such stream ID, as far as the board says.
pub(super) fn is_beyond(host: &PciHost<'_>, stream: u32) -> bool {
    let idr = host.smmu.and_then(|smmu| smmu.idr);
    idr.is_some_and(|idr| stream.checked_shr(idr.idr1 & 0x3F).unwrap_or(0) != 0)
}

/// Refuses functions with a stream ID that the SMMU does not have: it would end what they do, whatever the plan says.
pub(super) fn streams<'a>(host: &PciHost<'a>, owners: &Owners, out: &mut Diagnostics<'_, 'a>) {
    let Some((smmu, idr)) = host.smmu.and_then(|smmu| Some((smmu, smmu.idr?))) else { return };
    for (owner, function) in owners.iter().zip(&host.functions) {
        let (Some(owner), Some(stream)) = (owner, function.stream.filter(|stream| is_beyond(host, *stream))) else {
            continue;
        };
        let message = "{0} has stream ID {1}, but {2} has {3} bits of them";
        let bits = Arg::Number((idr.idr1 & 0x3F).into());
        let args = [Arg::Node(function.node), Arg::Hex(stream.into()), Arg::Node(smmu.node), bits];
        let d = Diagnostic::new(codes::STREAM_BEYOND, owner.span, message).args(&args);
        let map = host.node.property("iommu-map").map_or(host.node.span(), |map| map.value_span());
        let d = d.also(map, "by this map").also(idr.span, "IDR1.SIDSIZE, in the second of these");
        out.push(d.help("check `iommu-map` of the host bridge"));
    }
}

/// Refuses, of domains that reach memory through the SMMU, addresses it cannot put out. `bits` is what the plan's tables have.
pub(crate) fn reach<'a>(
    board: &Board<'a>,
    layout: &Layout<'a, '_>,
    settlement: Option<&Settlement>,
    bits: u32,
    out: &mut Diagnostics<'_, 'a>,
) {
    let (Some(host), Some(settlement)) = (&board.pci, settlement) else { return };
    let Some((smmu, idr)) = host.smmu.and_then(|smmu| Some((smmu, smmu.idr?))) else { return };
    let held = settlement.functions.iter().find_map(|settled| {
        let function = host.functions.get(settled.function).filter(|function| function.stream.is_some())?;
        Some((function.node, layout.domains.get(settled.owner?)?))
    });
    let most = OAS.get(idr.idr5 as usize & 7).copied().unwrap_or(0);
    let Some((function, domain)) = held.filter(|_| most < bits) else { return };
    let message = "{0} of domain `{1}` is behind {2}, which puts out addresses of {3} bits (IDR5.OAS); tables of this layout have {4}";
    let [most, bits] = [most, bits].map(|n| Arg::Number(n.into()));
    let args = [Arg::Node(function), Arg::Text(domain.name), Arg::Node(smmu.node), most, bits];
    let d = Diagnostic::new(codes::SMMU_TABLES, domain.node.span(), message).args(&args);
    out.push(
        d.also(idr.span, "its registers").help(
            "the CPU's and the SMMU's tables are one: guest and physical addresses, RAM and devices, must fit both",
        ),
    );
}

/// Refuses a function whose node says other things of its coherence than the host bridge: its domain is shown the bridge alone.
pub(super) fn coherence<'a>(host: &PciHost<'a>, owners: &Owners, out: &mut Diagnostics<'_, 'a>) {
    let of_host = is_coherent(host.node);
    for (owner, function) in owners.iter().zip(&host.functions) {
        let Some(owner) = owner.filter(|_| is_coherent(function.node) != of_host) else { continue };
        let (message, help) = if of_host {
            let help =
                "take dma-noncoherent out of {0}, or dma-coherent out of {1}; then drivers clean the caches for all";
            ("{0} says that it is not coherent with the caches, and its host bridge {1} that all behind it is", help)
        } else {
            let help = "if all behind {1} is coherent, say so there: dma-coherent; else take it out of {0}";
            ("{0} says that it is coherent with the caches, and its host bridge {1} that nothing behind it is", help)
        };
        let d = Diagnostic::new(codes::COHERENCE, owner.span, message);
        let d = d.args(&[Arg::Node(function.node), Arg::Node(host.node)]).also(function.node.span(), "{0} is here");
        out.push(d.also(host.node.span(), "{1} is here").help(help));
    }
}

/// Masters beside the functions on the driven host bridge that have, at the same controller, an ID of theirs: the node that says so,
/// with the place. `through` is `iommu-map` or `msi-map`, `by` the property of nodes without such a map.
///
/// Masks of other maps (`iommu-map-mask`) are not looked at: IDs that a masked bus never sends count as sent.
pub(super) fn foreign<'a>(
    host: &PciHost<'a>,
    controller: Node<'a>,
    id: u32,
    through: &'static str,
    by: &'static str,
) -> Option<(Node<'a>, Span)> {
    let mut others = host.node.tree().nodes().filter(|node| *node != host.node && is_live(*node));
    others.find_map(|node| {
        let has = |row: Row<'_>| row.target == controller && id.checked_sub(row.base).is_some_and(|at| at < row.len);
        let map = node.property(through);
        if let Some(map) = map.filter(|_| rows(node, through).any(has)) {
            return Some((node, map.value_span()));
        }
        // Without a map a host bridge's DeviceIDs are its requester IDs, all of them (Linux, pci-msi.txt).
        let all = is_host(node) && by == "msi-parent";
        if all && map.is_some() {
            return None;
        }
        let property = node.property(by)?;
        let mut cells = property.cells()?;
        while let Some(cell) = cells.next() {
            // What leads nowhere has been reported; nothing is known of the cells behind it.
            let Some(target) = target(node.tree(), &cell) else { continue };
            let width = if by == "iommus" { "#iommu-cells" } else { "#msi-cells" };
            let mut own = cells.by_ref().take(count(target, width, 0));
            let first = own.next();
            own.for_each(drop);
            if target != controller {
                continue;
            }
            if all && id <= 0xFFFF {
                return Some((node, property.value_span()));
            }
            if let Some(cell) = first.filter(|cell| cell.value == u64::from(id)) {
                return Some((node, cell.span));
            }
        }
        None
    })
}
