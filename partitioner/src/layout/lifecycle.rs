//! What becomes of a domain that faults, resets or turns itself off, and how often it may start again.
//!
//! Everything is decided here: the hypervisor finds one byte per kind of end in the plan. A device keeps its state over a
//! restart, and nothing generic could reset it, so what is not known to be set up afresh by every driver is told.

use super::words;
use crate::codes;
use crate::devices;
use crate::model::{Delivery, DeviceGrant, Domain, Lifecycle};
use cofferdam_dts::{Arg, Diagnostic, Diagnostics, Node, Property};
use cofferdam_plan::{Policy, RESTART_PERIOD_S};

/// Restarts within the period where the layout says nothing.
const DEFAULT_LIMIT: u32 = 10;
/// Most that can be asked for.
const MOST: u64 = 65_535;
/// Times between two pats that can be asked for: the look at them comes four times as often.
const WATCHDOG_MS: core::ops::RangeInclusive<u64> = 100..=3_600_000;
/// Least of it where a driver counts in seconds.
const FRAMES_MS: u64 = 1000;

/// Reads the words of one domain.
pub(super) fn read<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> Lifecycle {
    let mut of = |name| node.property(name).map_or(Policy::HALT, |property| policy(property, diagnostics));
    let (on_fault, on_reset, on_off) = (of("on-fault"), of("on-reset"), of("on-off"));
    let restarts = [on_fault, on_reset, on_off].contains(&Policy::RESTART);
    let mut limit = DEFAULT_LIMIT;
    if let Some(property) = node.property("restart-limit")
        && let Some(asked) = property.number()
    {
        let args = [Arg::Text(node.name()), Arg::Number(asked), Arg::Number(MOST), Arg::Number(RESTART_PERIOD_S)];
        limit = asked.clamp(1, MOST) as u32;
        if u64::from(limit) != asked {
            let message = "`restart-limit` of domain `{0}` is {1}, which is not between 1 and {2}";
            let d = Diagnostic::new(codes::LIFECYCLE_RANGE, property.value_span(), message);
            diagnostics
                .push(d.args(&args).help("it counts restarts within {3} seconds; leave out the policies to have none"));
        } else if !restarts {
            let message = "domain `{0}` has a `restart-limit`, but nothing makes it restart";
            let d = Diagnostic::new(codes::NEEDLESS_LIMIT, property.span(), message).args(&args);
            diagnostics.push(d.help("add on-fault, on-reset or on-off = \"restart\", or take the limit out"));
        }
    }
    let watchdog_ms = watchdog(node, diagnostics);
    let watchdog_frames = frames(node, watchdog_ms, diagnostics);
    let restart_limit = if restarts { limit } else { 0 };
    Lifecycle { on_fault, on_reset, on_off, restart_limit, watchdog_ms, watchdog_frames }
}

/// Whether the domain's watchdog has registers. Their driver thinks in whole seconds, so there must be one.
fn frames<'a>(node: Node<'a>, watchdog_ms: u32, diagnostics: &mut Diagnostics<'_, 'a>) -> bool {
    let Some(property) = node.property("watchdog") else { return false };
    match property.string() {
        Some("arm,sbsa-gwdt") => {}
        Some("arm,smc-wdt") | None => return false,
        Some(_) => {
            words::wrong_type(property, "`arm,smc-wdt` or `arm,sbsa-gwdt`", diagnostics);
            return false;
        }
    }
    let args = [Arg::Text(node.name()), Arg::Number(watchdog_ms.into()), Arg::Number(FRAMES_MS)];
    let least = u32::try_from(FRAMES_MS).unwrap_or(u32::MAX);
    if watchdog_ms < least {
        let message = if watchdog_ms == 0 {
            "domain `{0}` says what its `watchdog` looks like, but has none"
        } else {
            "the `arm,sbsa-gwdt` of domain `{0}` is to be patted every {1} ms, but its drivers count whole seconds"
        };
        let d = Diagnostic::new(codes::LIFECYCLE_RANGE, property.span(), message).args(&args);
        diagnostics.push(d.help("add `watchdog-ms` of {2} or more"));
    }
    true
}

fn watchdog<'a>(node: Node<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> u32 {
    let Some(property) = node.property("watchdog-ms") else { return 0 };
    let Some(asked) = property.number() else { return 0 };
    if !WATCHDOG_MS.contains(&asked) {
        let message = "`watchdog-ms` of domain `{0}` is {1}, which is not between {2} and {3}";
        let d = Diagnostic::new(codes::LIFECYCLE_RANGE, property.value_span(), message);
        let (least, most) = (Arg::Number(*WATCHDOG_MS.start()), Arg::Number(*WATCHDOG_MS.end()));
        let d = d.args(&[Arg::Text(node.name()), Arg::Number(asked), least, most]);
        diagnostics
            .push(d.help("it is the longest time between two pats, in milliseconds; leave it out to have no watchdog"));
    }
    asked.clamp(*WATCHDOG_MS.start(), *WATCHDOG_MS.end()) as u32
}

/// A watchdog must work against the domain it watches, so a CPU looks after it, by EL2's timer, that the domain cannot keep from
/// doing so: another's, or its own where its interrupts are injected.
pub(super) fn watchdogs_have_a_watcher<'a>(domains: &[Domain<'a>], diagnostics: &mut Diagnostics<'_, 'a>) {
    if let [domain] = domains
        && domain.delivery == Delivery::Direct
        && let Some(property) = domain.node.property("watchdog-ms")
    {
        let message = "nobody could look after the watchdog of domain `{0}`: it has the only CPUs";
        let d = Diagnostic::new(codes::NO_WATCHER, property.span(), message).args(&[Arg::Text(domain.name)]);
        let help = "with direct delivery a guest can keep every interrupt from its own CPUs; say delivery = \"injected\", or add a domain, however small";
        diagnostics.push(d.help(help));
    }
}

fn policy<'a>(property: Property<'a>, diagnostics: &mut Diagnostics<'_, 'a>) -> u8 {
    match property.string() {
        Some("halt") | None => Policy::HALT,
        Some("restart") => Policy::RESTART,
        Some("reboot-board") => Policy::REBOOT_BOARD,
        Some(_) => {
            words::wrong_type(property, "`restart`, `halt` or `reboot-board`", diagnostics);
            Policy::HALT
        }
    }
}

/// Warns of devices that go into a domain's next run as its last one has left them.
pub(super) fn devices_keep_their_state<'a>(
    domain: &Domain<'a>,
    granted: &[DeviceGrant<'a>],
    diagnostics: &mut Diagnostics<'_, 'a>,
) {
    if !domain.lifecycle.restarts() {
        return;
    }
    for device in granted.iter().filter(|device| !device.regions.is_empty() && !devices::starts_anywhere(device.node)) {
        let message =
            "domain `{0}` restarts, but nothing resets {1}: its next run finds the device as the last one left it";
        let d = Diagnostic::new(codes::KEEPS_STATE, device.span, message);
        let d = d.args(&[Arg::Text(domain.name), Arg::Node(device.node)]).also(device.node.span(), "{1} is here");
        diagnostics.push(d.help("see to it that the guest's driver resets it first, or use on-… = \"reboot-board\""));
    }
}
