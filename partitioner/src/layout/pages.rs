//! One 4 KiB page of device registers has one owner: the unit in which access is given must not hold two parties.

use super::access::Lists;
use crate::address;
use crate::board::is_memory;
use crate::cells::is_live;
use crate::codes;
use crate::devices;
use crate::front::Sorted;
use crate::lent::{Full, Lent};
use crate::model::{Board, Domain};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, NodeId};

const PAGE: u64 = 4096;
/// [`Sorted::grant`] of registers no domain has.
const NOBODY: u32 = u32::MAX;

/// Holds every page of granted registers against all registers of the board.
pub(super) fn check<'a>(
    board: &Board<'a>,
    domains: &[Domain<'a>],
    lists: &Lists<'_, 'a>,
    sort: &mut [Sorted],
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Result<(), Full> {
    forbidden(board, domains, lists, diagnostics);
    let mut len = 0;
    for node in board.tree.nodes().filter(|node| is_device(board, *node)) {
        for (region, _) in address::memory(node).filter(|(region, _)| !region.is_empty()) {
            let pages = region.widened(PAGE);
            let grant = lists.owners.of(node).map_or(NOBODY, |index| index as u32);
            let entry = Sorted { first: pages.base.0, last: pages.end().0 - 1, node: node.id().0, grant };
            *sort.get_mut(len).ok_or(Full(Lent::Sort))? = entry;
            len += 1;
        }
    }
    let sorted = &mut sort[..len];
    sorted.sort_unstable();
    let mut widest = Sorted::default();
    // A granted device with many neighbours that nobody has is told once.
    let mut told = NOBODY;
    for (n, entry) in sorted.iter().enumerate() {
        let against_nobody = entry.grant == NOBODY || widest.grant == NOBODY;
        let granted = entry.grant.min(widest.grant);
        if n > 0 && entry.first <= widest.last && !(against_nobody && granted == told) {
            report(board, domains, lists, &widest, entry, diagnostics);
            if against_nobody {
                told = granted;
            }
        }
        if n == 0 || entry.last > widest.last || entry.first > widest.last {
            widest = *entry;
        }
    }
    Ok(())
}

/// Whether `node`'s registers belong to somebody who is not already looked after elsewhere.
fn is_device<'a>(board: &Board<'a>, node: Node<'a>) -> bool {
    let top_level_only = node.ancestors().any(|n| ["cpus", "domains", "reserved-memory"].contains(&n.name()));
    let own = [board.console, board.log].iter().flatten().any(|uart| uart.node == node);
    let taken = own || devices::forbidden(node).is_some() || devices::is_iommu(node);
    node.property("reg").is_some() && !top_level_only && !is_memory(node) && !taken && is_live(node)
}

fn owner(lists: &Lists<'_, '_>, entry: &Sorted) -> Option<usize> {
    lists.devices.get(entry.grant as usize).map(|grant| grant.domain)
}

fn report<'a>(
    board: &Board<'a>,
    domains: &[Domain<'a>],
    lists: &Lists<'_, 'a>,
    a: &Sorted,
    b: &Sorted,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    let (first, second) = (owner(lists, a), owner(lists, b));
    if first == second {
        return;
    }
    // The later grant is the one to mend; somebody must own one of the two.
    let (mine, other) = match (first, second) {
        (Some(x), Some(y)) if x < y => (b, a),
        (None, _) => (b, a),
        _ => (a, b),
    };
    let Some(grant) = lists.devices.get(mine.grant as usize) else { return };
    let Some(domain) = domains.get(grant.domain) else { return };
    let node = |entry: &Sorted| board.tree.node(NodeId(entry.node));
    let page = other.first.max(mine.first);
    let owner = owner(lists, other).and_then(|index| domains.get(index));
    let owner_name = owner.map_or(Arg::None, |d| Arg::Text(d.name));
    let args =
        [Arg::Text(domain.name), Arg::Node(node(mine)), Arg::Range(page, PAGE), Arg::Node(node(other)), owner_name];
    let message = if owner.is_some() {
        "domain `{0}` asks for {1}, but its page {2} also holds {3}, which belongs to domain `{4}`"
    } else {
        "domain `{0}` asks for {1}, but its page {2} also holds {3}, which no domain has"
    };
    let d = Diagnostic::new(codes::SHARED_PAGE, grant.span, message).args(&args);
    let d = d.also(node(mine).span(), "{1} is here").also(node(other).span(), "{3} is here");
    let d = match lists.devices.get(other.grant as usize) {
        Some(other) => d.also(other.span, "granted here"),
        None => d,
    };
    diagnostics.push(d.help("access is given by pages of 4 KiB: grant all devices of the page to one domain"));
}

/// Granted registers against those nobody may have.
fn forbidden<'a>(
    board: &Board<'a>,
    domains: &[Domain<'a>],
    lists: &Lists<'_, 'a>,
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    for grant in lists.devices.iter() {
        let Some(domain) = domains.get(grant.domain) else { continue };
        for index in grant.regions.clone() {
            let pa = lists.regions[index].pa;
            let Some(taken) = board.forbidden.iter().find(|f| f.region.overlaps(&pa.widened(PAGE))) else { continue };
            let message = "domain `{0}` asks for {1}, but the page of its registers {2} also holds some of {3}, which no domain may have";
            let d = Diagnostic::new(codes::PAGE_WITH_HYPERVISOR, grant.span, message);
            let range = Arg::Range(pa.base.0, pa.size);
            let args = [Arg::Text(domain.name), Arg::Node(grant.node), range, Arg::Node(taken.node)];
            let d = d.args(&args).also(lists.regions[index].span, "these registers").also(taken.span, "{3} is here");
            diagnostics.push(d.help("leave it out"));
        }
    }
}
