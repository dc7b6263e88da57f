//! PCI functions of `access`: one grant each, a bridge standing for every function behind it.
//!
//! A bridge itself is nobody's: the hypervisor programs it.

use super::access::Lists;
use crate::cells::is_function;
use crate::codes;
use crate::lent::Full;
use crate::model::{Board, DeviceGrant};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Span};

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

/// Gives a function's node and what describes it further to `grant`. Returns who has it already.
fn give<'a>(node: Node<'a>, grant: usize, lists: &mut Lists<'_, 'a>) -> Option<usize> {
    if let Err(owner) = lists.owners.give(node, grant) {
        return Some(owner);
    }
    node.children()
        .filter(|child| child.is_enabled() && !is_function(*child))
        .find_map(|child| give(child, grant, lists))
}
