//! The interrupts of a node: which controller, which specifier, which line.
//!
//! It walks as the Devicetree Specification 0.4, 2.4, says, and decodes specifiers of the GIC and of the I/O APIC. What
//! an interrupt means to a domain is decided elsewhere.

use crate::cells::{MAX_ENTRY, count, span_of, target};
use crate::codes;
use cofferdam_dts::{Arg, Cell, Diagnostic, Diagnostics, Node, Property, Span};
use cofferdam_plan::IntId;
use heapless::Vec;

/// Most interrupts of one node that are looked at.
pub const MAX_INTERRUPTS: usize = 64;

/// One specifier and its controller.
#[derive(Clone, Debug)]
pub struct Specifier<'a> {
    /// The interrupt controller or nexus it speaks to.
    pub controller: Node<'a>,
    /// Its cells.
    pub cells: Vec<Cell, MAX_ENTRY>,
    /// Where it is written.
    pub span: Span,
}

/// Why the interrupts of a node cannot be read.
#[derive(Clone, Copy, Debug)]
pub enum Unread<'a> {
    /// Nothing on the way to the root says which controller it is.
    NoParent(Span),
    /// This node is named as interrupt parent and is no interrupt controller.
    NotAController(Span, Node<'a>),
    /// The property is not a whole number of specifiers of this controller.
    Length(Span, Node<'a>),
    /// More than [`MAX_INTERRUPTS`].
    TooMany(Span),
}

/// The specifiers of `node`, from `interrupts-extended` or `interrupts`.
///
/// # Errors
/// The first thing that makes them unreadable.
pub fn of<'a>(node: Node<'a>) -> Result<Vec<Specifier<'a>, MAX_INTERRUPTS>, Unread<'a>> {
    let mut found = Vec::new();
    if let Some(list) = node.property("interrupts-extended") {
        let mut cells = list.cells().into_iter().flatten();
        while let Some(first) = cells.next() {
            let controller = target(node.tree(), &first).ok_or(Unread::NoParent(first.span))?;
            let len = width(controller, first.span)?;
            let spec: Vec<Cell, MAX_ENTRY> = cells.by_ref().take(len).collect();
            if spec.len() != len {
                return Err(Unread::Length(first.span, controller));
            }
            let span = spec.last().map_or(first.span, |last| first.span.to(last.span));
            push(&mut found, Specifier { controller, cells: spec, span })?;
        }
    } else if let Some(list) = node.property("interrupts").filter(|list| !list.is_empty()) {
        let controller = parent(node, list)?;
        let len = width(controller, list.span())?;
        let total = list.cells().map_or(1, Iterator::count);
        if list.cells().is_none() || total % len != 0 {
            return Err(Unread::Length(list.value_span(), controller));
        }
        for cells in crate::cells::groups(list, len) {
            let span = span_of(&cells);
            push(&mut found, Specifier { controller, cells, span })?;
        }
    }
    Ok(found)
}

fn push<'a>(list: &mut Vec<Specifier<'a>, MAX_INTERRUPTS>, new: Specifier<'a>) -> Result<(), Unread<'a>> {
    let span = new.span;
    list.push(new).map_err(|_| Unread::TooMany(span))
}

/// `#interrupt-cells` of a controller, 1 to [`MAX_ENTRY`].
fn width(controller: Node<'_>, span: Span) -> Result<usize, Unread<'_>> {
    match count(controller, "#interrupt-cells", 0) {
        cells @ 1..=MAX_ENTRY => Ok(cells),
        _ => Err(Unread::NotAController(span, controller)),
    }
}

/// The interrupt parent of `node`: upwards, through `interrupt-parent` where there is one, to the first node with
/// `#interrupt-cells`.
fn parent<'a>(node: Node<'a>, interrupts: Property<'a>) -> Result<Node<'a>, Unread<'a>> {
    let mut at = node;
    // Each step goes up or ends, so the tree's depth bounds the walk.
    loop {
        if let Some(link) = at.property("interrupt-parent") {
            let cell = link.cells().and_then(|mut cells| cells.next());
            let found = cell.and_then(|cell| target(node.tree(), &cell));
            let found = found.ok_or(Unread::NoParent(link.span()))?;
            return width(found, link.value_span()).map(|_| found);
        }
        at = at.parent().ok_or(Unread::NoParent(interrupts.span()))?;
        if at.property("#interrupt-cells").is_some() {
            return Ok(at);
        }
    }
}

/// Says why the interrupts of `node` cannot be read.
pub fn report<'a>(node: Node<'a>, why: Unread<'a>, diagnostics: &mut Diagnostics<'_, 'a>) {
    let diagnostic = match why {
        Unread::NoParent(span) => {
            let message = "{0} has interrupts, but nothing says which controller they go to";
            let d = Diagnostic::new(codes::BAD_SPECIFIER, span, message).args(&[Arg::Node(node)]);
            d.help("give it, or a node above it, interrupt-parent = <&gic>;")
        }
        Unread::NotAController(span, controller) => {
            let message = "the interrupts of {0} go to {1}, which is no interrupt controller";
            let d = Diagnostic::new(codes::NOT_A_CONTROLLER, span, message);
            let d = d.args(&[Arg::Node(node), Arg::Node(controller)]).also(controller.span(), "{1} is here");
            d.help("an interrupt controller has interrupt-controller; and #interrupt-cells, 1 to 16")
        }
        Unread::Length(span, controller) => {
            let message = "the interrupts of {0} are not whole specifiers: {1} wants {2} cells for each";
            let d = Diagnostic::new(codes::BAD_SPECIFIER, span, message);
            let cells = count(controller, "#interrupt-cells", 0) as u64;
            let d = d.args(&[Arg::Node(node), Arg::Node(controller), Arg::Number(cells)]);
            d.help("for a GIC: type (0 SPI, 1 PPI), number, trigger (1 rising edge, 4 level high)")
        }
        Unread::TooMany(span) => {
            let d = Diagnostic::new(codes::CAPACITY, span, "{0} has more than {1} interrupts");
            d.args(&[Arg::Node(node), Arg::Number(MAX_INTERRUPTS as u64)])
        }
    };
    diagnostics.push(diagnostic);
}

/// What a specifier says to a root interrupt controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// A shared interrupt; on x86_64 the number is the I/O APIC's input.
    Shared(IntId, Trigger),
    /// A per-CPU interrupt (PPI).
    PerCpu(IntId),
    /// A number the controller cannot have.
    OutOfRange,
    /// A type that no device has (an SGI, or an unknown one).
    BadType,
}

/// How an interrupt is signalled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// Rising edge.
    Edge,
    /// Level, active high.
    Level,
    /// Something the controller cannot do, or nothing.
    Impossible,
}

/// Decodes a specifier of a GIC (`arm,gic-v3` and `arm,gic-400` bindings: type, number, flags).
pub fn gic(cells: &[Cell]) -> Line {
    let [kind, number, flags, ..] = cells else { return Line::BadType };
    let number = u32::try_from(number.value).unwrap_or(u32::MAX);
    let trigger = match flags.value & 0xF {
        1 => Trigger::Edge,
        4 => Trigger::Level,
        _ => Trigger::Impossible,
    };
    match kind.value {
        // GICD_TYPER.ITLinesNumber can give 1020 INTIDs at most, so SPI 987 is the last (IHI 0069, 12.9.38).
        0 => IntId::spi(number).map_or(Line::OutOfRange, |intid| Line::Shared(intid, trigger)),
        1 => IntId::ppi(number).map_or(Line::OutOfRange, Line::PerCpu),
        _ => Line::BadType,
    }
}

/// Decodes a specifier of an I/O APIC (`intel,ce4100-ioapic` binding: input, sense).
pub fn ioapic(cells: &[Cell]) -> Line {
    let [input, sense, ..] = cells else { return Line::BadType };
    // Sense: 0 rising edge, 1 level low, 2 level high, 3 falling edge; an I/O APIC can do all of them.
    let trigger = if matches!(sense.value, 0 | 3) { Trigger::Edge } else { Trigger::Level };
    match u32::try_from(input.value) {
        Ok(input) if input < 240 => Line::Shared(IntId(input), trigger),
        _ => Line::OutOfRange,
    }
}
