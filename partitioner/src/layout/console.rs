//! Who reads what is typed on the console, and how another is chosen: `input` and `console-escape` of `/domains`.

use super::words;
use crate::cells::target;
use crate::codes;
use crate::model::{Board, Domain};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property};

/// Ctrl-O: no terminal program, and neither QEMU nor a shell's line editor in common use, takes it for itself.
const DEFAULT_ESCAPE: u8 = 0x0F;
/// Control characters that people and terminals send all the time: backspace, tab, LF, CR, ESC.
const IN_USE: [u64; 5] = [0x08, 0x09, 0x0A, 0x0D, 0x1B];

/// Index of the domain that has the input after boot: the one `input` names, else the first with a console.
pub(super) fn input<'a>(
    board: &Board<'a>,
    node: Option<Node<'a>>,
    domains: &[Domain<'a>],
    diagnostics: &mut Diagnostics<'_, 'a>,
) -> Option<usize> {
    let reads = |domain: &Domain<'a>| domain.console.is_some() && !domain.output_only;
    let first = domains.iter().position(reads);
    let Some(property) = node.and_then(|node| node.property("input")) else { return first };
    let mut cells = property.cells()?;
    let (Some(cell), None) = (cells.next(), cells.next()) else {
        words::wrong_type(property, "one reference, as in <&control>", diagnostics);
        return first;
    };
    let Some(found) = target(board.tree, &cell) else { return first };
    let reader = domains.iter().position(|domain| domain.node == found && reads(domain));
    if reader.is_none() {
        let d = Diagnostic::new(
            codes::NO_READER,
            cell.span,
            "`input` names {0}, which is no domain that can read a console",
        );
        let d = d.args(&[Arg::Node(found)]).also(found.span(), "{0} is here");
        diagnostics
            .push(d.help("name a domain that has `console;`, or leave `input` out: the first such domain reads"));
    }
    reader.or(first)
}

/// `console-escape`: 0 turns the chord off. `reader` is the domain that has the input after boot.
pub(super) fn escape<'a>(node: Option<Node<'a>>, reader: Option<usize>, diagnostics: &mut Diagnostics<'_, 'a>) -> u8 {
    let property = node.and_then(|node| node.property("console-escape"));
    let Some((property, number)) = property.and_then(|property| Some((property, Property::number(property)?))) else {
        return DEFAULT_ESCAPE;
    };
    if number != 0 && reader.is_none() {
        let message = "`console-escape` has no effect: no domain reads the console";
        let d = Diagnostic::new(codes::NEEDLESS_ESCAPE, property.span(), message);
        diagnostics.push(d.help("give a domain `console;`, or take the word out"));
    }
    match u8::try_from(number) {
        Ok(byte) if byte < 0x20 && !IN_USE.contains(&number) => byte,
        _ => {
            let expected =
                "0 for none, or a control character from 0x01 to 0x1f that is not backspace, tab, LF, CR or ESC";
            words::wrong_type(property, expected, diagnostics);
            DEFAULT_ESCAPE
        }
    }
}
