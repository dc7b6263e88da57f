//! What the verifier finds in a tree with an overlay, as an error of the layout: the overlay promises what is not granted.

use crate::codes;
use crate::model::{Domain, Layout};
use cofferdam_dts::{Arg, Diagnostic, Node, Property, Span};
use cofferdam_verify::Finding;

/// The diagnostic for a finding in the device tree of a domain with an overlay.
pub(crate) fn of<'a>(layout: &Layout<'a, '_>, finding: &Finding) -> Option<Diagnostic<'a>> {
    let with = |id: cofferdam_plan::DomainId| {
        let domain: &Domain<'a> = layout.domains.get(usize::from(id.0))?;
        Some((domain.name, domain.overlay?))
    };
    let (name, span, message, second, help) = match *finding {
        Finding::DtbRegion { domain, ipa } => {
            let (name, overlay) = with(domain)?;
            let at = place(overlay, &["reg"], ipa.base.0);
            let message = "the overlay of domain `{0}` promises {1}, which the domain is not granted";
            let help = "an overlay describes, it grants nothing: use memory@… nodes and `access`, or take it out";
            (name, at, message, Arg::Range(ipa.base.0, ipa.size), help)
        }
        Finding::DtbInterrupt { domain, intid } => {
            let (name, overlay) = with(domain)?;
            let number = if intid.is_spi() { intid.0 - 32 } else { intid.0.saturating_sub(16) };
            let at = place(overlay, &["interrupts", "interrupts-extended"], number.into());
            let message = "the overlay of domain `{0}` promises interrupt {1}, which the domain is not granted";
            let help = "an overlay describes, it grants nothing: grant the device by `access`, or take it out";
            (name, at, message, Arg::Number(intid.0.into()), help)
        }
        Finding::DtbCpus { domain, .. } | Finding::DtbCpu { domain, .. } => {
            let (name, overlay) = with(domain)?;
            let at = overlay.child("cpus").unwrap_or(overlay).span();
            let message = "with its overlay, the device tree of domain `{0}` has other CPUs than the domain";
            (name, at, message, Arg::None, "CPUs are granted by `cpus`")
        }
        Finding::DtbUnreadable { domain, why } => {
            let (name, overlay) = with(domain)?;
            let message = "with its overlay, the device tree of domain `{0}` {1}";
            (
                name,
                overlay.span(),
                message,
                Arg::Text(why),
                "mend the overlay: it cannot be read as a device tree any more",
            )
        }
        _ => return None,
    };
    Some(Diagnostic::new(codes::OVERLAY_PROMISE, span, message).args(&[Arg::Text(name), second]).help(help))
}

/// The property called one of `names` at or below `node` that has `number` in it, else the node itself.
fn place(node: Node<'_>, names: &[&str], number: u64) -> Span {
    find(node, names, number).map_or(node.span(), Property::value_span)
}

fn find<'a>(node: Node<'a>, names: &[&str], number: u64) -> Option<Property<'a>> {
    let mut own = names.iter().filter_map(|name| node.property(name));
    let says = |property: &Property<'a>| {
        property.cells().is_some_and(|mut cells| cells.any(|cell| cell.value == number & 0xFFFF_FFFF))
    };
    own.find(says).or_else(|| node.children().find_map(|child| find(child, names, number)))
}
