//! What two PCI functions of different domains do to each other: shared IDs, shared devices, bridges that pass requests on
//! between their ports.

use super::access::Lists;
use super::class;
use crate::codes;
use crate::model::{Board, DeviceGrant, Domain, Placement};
use crate::pci::capability::{Kind, Port};
use crate::pci::model::{PciFunction, PciHost};
use cofferdam_dts::{Arg, Code, Diagnostic, Diagnostics};

/// Access control services that together keep requests from turning round below the SMMU: source validation, request and
/// completion redirect, upstream forwarding (PCI Express Base 5.0, 6.12.1.1).
const ACS: u16 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4;

/// Holds every two functions of different domains against each other.
pub(super) fn check<'a>(
    board: &Board<'a>,
    domains: &[Domain<'a>],
    lists: &Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    let Some(host) = &board.pci else { return };
    for (at, grant) in lists.devices.iter().enumerate() {
        let Some(index) = grant.function else { continue };
        // The first neighbour says it; others would only repeat it.
        for other in lists.devices.iter().take(at) {
            let Some(other_index) = other.function.filter(|_| other.domain != grant.domain) else { continue };
            if let Some((code, message, help)) = meet(host, index, other_index) {
                report(host, domains, grant, other, code, message, help, diagnostics);
                break;
            }
        }
    }
}

/// How the functions at `a` and `b` can reach or forge each other past the SMMU.
fn meet(host: &PciHost<'_>, a: usize, b: usize) -> Option<(Code, &'static str, &'static str)> {
    let (one, two) = (host.functions.get(a)?, host.functions.get(b)?);
    if one.stream.is_some() && one.stream == two.stream {
        let message = "{1} of domain `{0}` and {3} of domain `{2}` have one stream ID: the SMMU cannot tell them apart";
        return Some((codes::STREAM_TWICE, message, "give both to one domain, or check `iommu-map`"));
    }
    if one.device_id.is_some() && one.device_id == two.device_id {
        let message =
            "{1} of domain `{0}` and {3} of domain `{2}` have one DeviceID: the ITS cannot tell their MSIs apart";
        return Some((codes::DEVICE_ID_TWICE, message, "give both to one domain, or check `msi-map`"));
    }
    if let Some(bridge) = group(host, a).filter(|bridge| group(host, b) == Some(*bridge)) {
        let conventional = matches!(host.functions.get(bridge)?.port(), None | Some(Port::Conventional));
        let help = "give all functions behind it to one domain";
        return Some(if conventional {
            let message = "{1} of domain `{0}` and {3} of domain `{2}` are behind one bridge to conventional PCI, {4}, which speaks for both";
            (codes::BRIDGE_SPLIT, message, help)
        } else {
            let message = "{1} of domain `{0}` and {3} of domain `{2}` reach each other through {4}, which has no access control services";
            (codes::GROUP_SPLIT, message, help)
        });
    }
    let one_device = one.bdf.0 >> 3 == two.bdf.0 >> 3;
    if one_device && !(redirects(one) && redirects(two)) {
        let message = "{1} of domain `{0}` and {3} of domain `{2}` are functions of one device without access control services: inside it they may reach each other";
        return Some((codes::DEVICE_SPLIT, message, "give all functions of the device to one domain"));
    }
    None
}

/// Whether requests between functions of its device go up to the SMMU.
fn redirects(function: &PciFunction<'_>) -> bool {
    function
        .find(|kind| if let Kind::Acs { offers } = kind { Some(offers) } else { None })
        .is_some_and(|acs| acs & 1 << 2 != 0)
}

/// The topmost bridge above a function through which it can reach what else is behind that bridge.
fn group(host: &PciHost<'_>, index: usize) -> Option<usize> {
    host.bridges_above(index).filter(|bridge| host.functions.get(*bridge).is_some_and(|b| !isolates(b))).last()
}

/// Whether a bridge sends what comes from below up, all of it, under the requester's own ID.
fn isolates(bridge: &PciFunction<'_>) -> bool {
    let acs = bridge.find(|kind| if let Kind::Acs { offers } = kind { Some(offers) } else { None }).unwrap_or(0);
    match bridge.port() {
        // Its downstream ports decide.
        Some(Port::Upstream) => true,
        Some(Port::Root | Port::Downstream) => acs & ACS == ACS,
        _ => false,
    }
}

#[expect(clippy::too_many_arguments, reason = "the parties of one diagnostic")]
fn report<'a>(
    host: &PciHost<'a>,
    domains: &[Domain<'a>],
    grant: &DeviceGrant<'a>,
    other: &DeviceGrant<'a>,
    code: Code,
    message: &'static str,
    help: &'static str,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    let name = |grant: &DeviceGrant<'a>| domains.get(grant.domain).map_or(Arg::None, |domain| Arg::Text(domain.name));
    let bridge = grant.function.and_then(|index| group(host, index)).and_then(|bridge| host.functions.get(bridge));
    let bridge = bridge.map(|bridge| bridge.node);
    let args = [name(grant), Arg::Node(grant.node), name(other), Arg::Node(other.node)];
    let args = [args[0], args[1], args[2], args[3], bridge.map_or(Arg::None, Arg::Node)];
    let d = Diagnostic::new(code, grant.span, message).args(&args).also(other.span, "granted here");
    let d = if let Some(bridge) = bridge { d.also(bridge.span(), "{4} is here") } else { d };
    diagnostics.push(d.help(help));
}

/// `dma = "trusted"`: needed by something, and the device sees memory where the guest does.
pub(super) fn trust<'a>(
    board: &Board<'a>,
    domains: &[Domain<'a>],
    lists: &Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    for domain in domains {
        let Some(span) = domain.trusted_dma else { continue };
        let devices = lists.devices.get(domain.devices.clone()).unwrap_or(&[]);
        let free = |grant: &&DeviceGrant<'a>| match grant.function {
            Some(index) => {
                board.pci.as_ref().and_then(|host| host.functions.get(index)).is_some_and(|f| f.stream.is_none())
            }
            None => class::masters(board, grant.node),
        };
        let Some(device) = devices.iter().find(free) else {
            let message =
                "domain `{0}` is trusted with DMA, but an IOMMU stands in front of all its devices, or they have none";
            let d = Diagnostic::new(codes::NEEDLESS_TRUST, span, message).args(&[Arg::Text(domain.name)]);
            diagnostics.push(d.help("take it out"));
            continue;
        };
        for memory in domain.memory.iter().filter(|memory| !matches!(memory.placement, Placement::Direct(_))) {
            let message = "domain `{0}` is trusted with the DMA of {1}, which sees physical addresses, but this RAM is not where the guest sees it";
            let d = Diagnostic::new(codes::TRUSTED_ELSEWHERE, memory.span, message);
            let d = d.args(&[Arg::Text(domain.name), Arg::Node(device.node)]).also(span, "trusted here");
            diagnostics.push(d.help("give the domain RAM at its own address: direct-map; in every memory node"));
        }
    }
}
