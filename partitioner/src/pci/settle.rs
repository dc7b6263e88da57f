//! From functions granted to functions settled: owner, place on the owner's bus, addresses, interrupts.

use super::bars::{self, NoRoom};
use super::demands;
use super::lines::{self, Silence};
use super::model::{Mode, PciHost, Settled, Settlement, Share, Space};
use crate::codes;
use crate::interrupts::{Line, Trigger};
use crate::model::{At, Board, Delivery, Layout};
use crate::resolve::lines::IntSet;
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Span};
use cofferdam_plan::IntId;
use cofferdam_plan::limits::MAX_FUNCTIONS;
use heapless::Vec;

/// Device numbers of one bus.
const DEVICES: u8 = 32;

/// The owner of each function, with the `access` cell that asked for it.
pub(super) type Owners = Vec<Option<At<usize>>, MAX_FUNCTIONS>;

/// Decides all there is to decide. `None` where no domain has functions, or after an error. Interrupts for messages are taken from
/// those not in `used`.
pub(crate) fn settle<'a>(
    board: &Board<'a>,
    layout: &Layout<'a, '_>,
    used: &mut IntSet,
    out: &mut Diagnostics<'_, 'a>,
) -> Option<Settlement> {
    let host = board.pci.as_ref()?;
    let mut owners: Owners = host.functions.iter().map(|_| None).collect();
    for (id, domain) in layout.domains.iter().enumerate() {
        for granted in layout.functions(domain) {
            if let Some(owner) = owners.get_mut(granted.value) {
                *owner = Some(At { value: id, span: granted.span });
            }
        }
    }
    owners.iter().flatten().next()?;
    let errors = out.errors();
    demands::of_board(board, layout, host, &owners, out);
    let owner = |index: usize| owners.get(index).copied().flatten();
    let places = match bars::place(host, &|index| owner(index).is_some()) {
        Ok(places) => Some(places),
        Err(no_room) => {
            // It may be for want of windows that can be used.
            if out.errors() == errors {
                out.push(does_not_fit(host, no_room));
            }
            None
        }
    };
    let mut settlement = Settlement::default();
    for (id, domain) in layout.domains.iter().enumerate() {
        let injected = domain.delivery == Delivery::Injected;
        let first = settlement.functions.len();
        for index in (0..host.functions.len()).filter(|index| owner(*index).is_some_and(|owner| owner.value == id)) {
            let Some(devfn) = place_on_bus(host, index) else {
                out.push(no_number(host, index));
                continue;
            };
            let stream = host.functions.get(index).is_some_and(|function| function.stream.is_some());
            let settled = Settled {
                function: index,
                owner: Some(id),
                devfn,
                mode: lines::mode(board, host, domain, index, injected),
                dma: stream || domain.trusted_dma.is_some(),
                reset: host.reset(index, &|other| owner(other).map(|owner| owner.value)).unwrap_or_default(),
                ..Settled::default()
            };
            // There is room for every function of the board.
            let _ = settlement.functions.push(settled);
        }
        let mine = settlement.functions.get_mut(first..).unwrap_or(&mut []);
        mine.sort_unstable_by_key(|settled| settled.devfn);
        for at in 0..mine.len() {
            let devfn = mine.get(at).map_or(0, |settled| settled.devfn);
            let siblings = mine.iter().filter(|other| other.devfn >> 3 == devfn >> 3).count() > 1;
            mine.iter_mut().skip(at).take(1).for_each(|settled| settled.siblings = siblings);
        }
        let spi_count = mine.iter().map(|settled| if let Mode::Msi(n) = settled.mode { n.into() } else { 0 }).sum();
        let mut share = Share { first, count: mine.len(), first_spi: IntId(0), spi_count };
        if spi_count != 0 {
            match lines::take(used, spi_count) {
                Some(spi) => share.first_spi = spi,
                None => out.push(no_interrupts(domain, spi_count)),
            }
        }
        let _ = settlement.shares.push(share);
    }
    pins(board, layout, host, &settlement, &owners, out);
    for bridges in [true, false] {
        for (index, function) in host.functions.iter().enumerate() {
            if owner(index).is_none() && function.bridge.is_some() == bridges {
                let _ = settlement.functions.push(Settled { function: index, ..Settled::default() });
            }
        }
    }
    demands::of_settlement(host, &settlement, out);
    let places = places?;
    for settled in &mut settlement.functions {
        settled.bars = places.bars.get(settled.function).copied().unwrap_or_default();
        settled.bridge = places.bridges.get(settled.function).copied().unwrap_or_default();
    }
    (out.errors() == errors).then_some(settlement)
}

/// Device and function on the guest's one bus: its own on the root bus; behind bridges, function 0 of the device that no function of
/// the board's root bus has, in the order of the board. The same in every layout.
fn place_on_bus(host: &PciHost<'_>, index: usize) -> Option<u8> {
    let function = host.functions.get(index)?;
    if function.above.is_none() {
        return Some(function.bdf.0 as u8);
    }
    let is_endpoint =
        |index: &usize| host.functions.get(*index).is_some_and(|f| f.above.is_some() && f.bridge.is_none());
    let before = (0..index).filter(is_endpoint).count();
    let on_root = |device: &u8| host.functions.iter().any(|f| f.above.is_none() && (f.bdf.0 as u8) >> 3 == *device);
    let device = (1..DEVICES).filter(|device| !on_root(device)).nth(before)?;
    Some(device << 3)
}

fn does_not_fit<'a>(host: &PciHost<'a>, no_room: NoRoom) -> Diagnostic<'a> {
    let function = host.functions.get(no_room.function);
    let node = function.map_or(host.node, |function| function.node);
    let spec = no_room.bar.and_then(|bar| function?.bars.get(bar).copied().flatten());
    let span = spec.map_or(node.span(), |spec| spec.span);
    let message = match no_room.bar {
        Some(_) => "no window of {0} has room for BAR {1} of {2}, {3} at a multiple of its size",
        None => "no window of {0} has room for the {3} that functions behind {2} need",
    };
    let memory = || host.windows.iter().filter(|window| window.space != Space::Io);
    let help = if no_room.bar.is_none() && no_room.size > 1 << 32 {
        "a bridge is given 4 GiB at most: grant fewer functions behind it, or set a smaller size for their BARs"
    } else if spec.is_some_and(|spec| !spec.prefetchable)
        && memory().next().is_some()
        && memory().all(|window| window.prefetchable)
    {
        "this BAR is not prefetchable, and all windows are: describe one that is not, if there is one (0x02000000 or 0x03000000)"
    } else {
        "a 32-bit BAR must lie below 4 GiB; grant fewer functions, or check `ranges`"
    };
    let args =
        [Arg::Node(host.node), Arg::Number(no_room.bar.unwrap_or(0) as u64), Arg::Node(node), Arg::Bytes(no_room.size)];
    let d = Diagnostic::new(codes::BAR_PLACE, span, message).args(&args);
    let ranges = host.node.property("ranges").map_or(host.node.span(), |ranges| ranges.value_span());
    d.also(ranges, "its windows").help(help)
}

fn no_number<'a>(host: &PciHost<'a>, index: usize) -> Diagnostic<'a> {
    let node = host.functions.get(index).map_or(host.node, |function| function.node);
    let message =
        "no device number of a guest's bus is left for {0}: the root bus and functions before it have all {1}";
    Diagnostic::new(codes::CAPACITY, node.span(), message)
        .args(&[Arg::Node(node), Arg::Number(u64::from(DEVICES) - 1)])
        .help("disable functions that nobody needs")
}

fn no_interrupts<'a>(domain: &crate::model::Domain<'a>, count: u32) -> Diagnostic<'a> {
    let message = "domain `{0}` needs {1} interrupts in a row for the messages of its functions; so many are not free";
    Diagnostic::new(codes::NO_FREE_SPI, domain.node.span(), message)
        .args(&[Arg::Text(domain.name), Arg::Number(count.into())])
        .help("give it fewer functions or CPUs, or `delivery = \"direct\"`: then they use their pins")
}

/// What is wrong with the row of `interrupt-map` that the pin of a function comes to, where it comes to one.
fn wrong_line<'a>(board: &Board<'a>, host: &PciHost<'a>, index: usize, asked: Span) -> Option<Diagnostic<'a>> {
    let function = host.functions.get(index)?;
    let (line, span) = lines::route(board, host, index)?;
    let (code, message, help) = match line {
        Line::Shared(_, Trigger::Level) => return None,
        Line::Shared(..) => {
            let message = "the pin of {0} goes by `interrupt-map` of {1} to an interrupt that is no level, active high: every pin is one";
            (codes::BAD_TRIGGER, message, "the third cell of its interrupt is 4 (level high)")
        }
        _ => {
            let message = "the pin of {0} goes by `interrupt-map` of {1} to an interrupt that no pin can have";
            (codes::INTERRUPT_NUMBER, message, "type 0 (SPI) with a number up to 987")
        }
    };
    let d = Diagnostic::new(code, span, message).args(&[Arg::Node(function.node), Arg::Node(host.node)]);
    Some(d.also(asked, "granted here").help(help))
}

/// What is said of a function without an interrupt, where its pin ends, and the way out: {0} of domain {1}, behind {2}.
fn polled<'a>(
    board: &Board<'a>,
    host: &PciHost<'a>,
    index: usize,
    name: &'a str,
    span: Span,
) -> Option<Diagnostic<'a>> {
    let function = host.functions.get(index)?;
    let pin = "give {3}, or let it be polled";
    let (message, help) = match lines::silence(board, host, function) {
        Silence::Direct => (
            "{0} of domain `{1}` has no interrupt: with `delivery = \"direct\"` it sends no messages, and its pin leads nowhere",
            "leave `delivery` out, then it sends messages; or give {3}; or let it be polled",
        ),
        Silence::Map => (
            "{0} of domain `{1}` has no interrupt: `msi-map` of {2} leads its messages to no ITS, and its pin leads nowhere",
            "give {2} an `msi-map` with a row for it, or {3}, or let it be polled",
        ),
        Silence::Stream => (
            "{0} of domain `{1}` has no interrupt: `iommu-map` of {2} has no row for it, so it sends no messages, and its pin leads nowhere",
            "give `iommu-map` a row for it, or {3}, or let it be polled",
        ),
        Silence::Controller => (
            "{0} of domain `{1}` has no interrupt: the board's interrupt controller takes no messages, and its pin leads nowhere",
            pin,
        ),
        Silence::Maintenance => (
            "{0} of domain `{1}` has no interrupt: the board's interrupt controller has no maintenance interrupt, by which messages are brought, and its pin leads nowhere",
            "give the controller PPI 9 as `interrupts`, or {3}, or let it be polled",
        ),
        Silence::None => ("{0} of domain `{1}` has no interrupt: it sends no messages, and its pin leads nowhere", pin),
    };
    let map = host.node.property("interrupt-map").map(|map| map.value_span());
    let at_host = lines::at_host(host, index);
    let pin = Arg::Text(match (at_host, map) {
        (None, _) => "the function `interrupts` (1 is pin A) and the host bridge an `interrupt-map` with a row for it",
        (Some(_), None) => "the host bridge an `interrupt-map`",
        (Some(_), Some(_)) => "`interrupt-map` such a row",
    });
    let d = Diagnostic::new(codes::NO_INTERRUPT, span, message).also(function.node.span(), "it is here").help(help);
    let args = [Arg::Node(function.node), Arg::Text(name), Arg::Node(host.node), pin];
    let Some(((bdf, number), map)) = at_host.zip(map) else { return Some(d.args(&args)) };
    let letter = ["INTA", "INTB", "INTC", "INTD"].get(number as usize).copied().unwrap_or_default();
    let d = d.args(&[args[0], args[1], args[2], args[3], Arg::Text(letter), Arg::Function(bdf.0)]);
    Some(d.also(map, "its pin comes to {4} of {5}, and no row leads from there to the interrupt controller"))
}

/// The way out where the pin of {0}, of domain {1}, ends on the line of something else's.
fn shared(silence: Silence) -> &'static str {
    match silence {
        Silence::Direct => {
            "leave `delivery = \"direct\"` of domain `{1}` out: then {0} sends messages; or give both to one domain"
        }
        Silence::Map => {
            "{0} sends messages where `msi-map` of {5} has a row for it that leads to an ITS; or give both to one domain"
        }
        Silence::Stream => "{0} sends messages where `iommu-map` of {5} has a row for it; or give both to one domain",
        Silence::Maintenance => {
            "{0} sends messages where the interrupt controller has PPI 9 as `interrupts`; or give both to one domain"
        }
        Silence::Controller | Silence::None => {
            "pins of functions four slots apart end on one line, and {0} cannot send messages here: give both to one domain"
        }
    }
}

/// Pins: the line each ends on is its owner's alone, and not the hypervisor's. A function without messages and without a line is
/// none a driver can use.
fn pins<'a>(
    board: &Board<'a>,
    layout: &Layout<'a, '_>,
    host: &PciHost<'a>,
    settlement: &Settlement,
    owners: &Owners,
    out: &mut Diagnostics<'_, 'a>,
) {
    for (at, settled) in settlement.functions.iter().enumerate() {
        let (Some(function), Some(id)) = (host.functions.get(settled.function), settled.owner) else { continue };
        let span = owners.get(settled.function).copied().flatten().map_or(function.node.span(), |owner| owner.span);
        let name = layout.domains.get(id).map_or("", |domain| domain.name);
        let intid = match settled.mode {
            Mode::Intx(intid) => intid,
            Mode::Msi(_) => continue,
            Mode::None if let Some(wrong) = wrong_line(board, host, settled.function, span) => {
                out.push(wrong);
                continue;
            }
            // Where more is wrong, this may follow from it.
            Mode::None if out.errors() != 0 => continue,
            Mode::None => {
                polled(board, host, settled.function, name, span).into_iter().for_each(|d| out.push(d));
                continue;
            }
        };
        let line = Arg::Number(u64::from(intid.0 - IntId::FIRST_SPI.0));
        let uarts = [&board.console, &board.log].into_iter().flatten().filter(|uart| uart.intid == Some(intid));
        let smmu = host.smmu.filter(|smmu| [smmu.event, smmu.error].contains(&Some(intid)));
        if let Some(taken) = uarts.map(|uart| uart.node).chain(smmu.map(|smmu| smmu.node)).next() {
            let message = "the pin of {0} is SPI {1}, which is that of {2}: the hypervisor's own";
            let d = Diagnostic::new(codes::HYPERVISOR_LINE, span, message);
            let d = d.args(&[Arg::Node(function.node), line, Arg::Node(taken)]).also(taken.span(), "{2} is here");
            out.push(d.help("check `interrupt-map` of the host bridge"));
            continue;
        }
        let other =
            settlement.functions.iter().take(at).find(|other| other.owner != Some(id) && other.mode == settled.mode);
        let functions = other.and_then(|other| Some((host.functions.get(other.function)?.node, other.owner?)));
        let devices = layout.devices.iter().filter(|device| device.domain != id).find(|device| {
            let lines = layout.interrupts.get(device.interrupts.clone()).unwrap_or(&[]);
            lines.iter().any(|line| line.intid == intid)
        });
        if let Some((node, owner)) = functions.or(devices.map(|device| (device.node, device.domain))) {
            let message = "{0} of domain `{1}` and {2} of domain `{3}` share interrupt SPI {4}";
            let theirs = layout.domains.get(owner).map_or("", |domain| domain.name);
            let args = [
                Arg::Node(function.node),
                Arg::Text(name),
                Arg::Node(node),
                Arg::Text(theirs),
                line,
                Arg::Node(host.node),
            ];
            let d = Diagnostic::new(codes::SHARED_LINE, span, message).args(&args).also(node.span(), "{2} is here");
            out.push(d.help(shared(lines::silence(board, host, function))));
        }
    }
}
