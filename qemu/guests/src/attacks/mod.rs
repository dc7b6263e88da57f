//! The attacks, by name. Each runs alone in a scenario of its own (`qemu/tests/<name>.dts`).

mod calls;
mod delivery;
mod dma;
mod exceptions;
mod functions;
mod gic;
mod gicv2;
mod granted;
mod lifecycle;
mod lines;
mod memory;
mod mmio;
mod pci;
mod ports;
mod storms;
mod sysregs;
mod vcpus;

use crate::report::Report;
use unikernel::platform::platform;

/// One attack: it reports every probe.
pub type Attack = fn(&mut Report);

/// Name in the boot arguments, and what it does.
pub const ATTACKS: &[(&str, Attack)] = &[
    ("foreign-ram", memory::foreign_ram),
    ("hypervisor-ram", memory::hypervisor_ram),
    ("hole", memory::hole),
    ("edge", memory::edge),
    ("foreign-device", memory::foreign_device),
    ("hypervisor-uart", memory::hypervisor_uart),
    ("gic-windows", memory::gic_windows),
    ("foreign-spi", gic::foreign_spi),
    ("spi-route", gic::spi_route),
    ("lpi-tables", gic::lpi_tables),
    ("private-interrupts", gic::private_interrupts),
    ("foreign-sgi", gic::foreign_sgi),
    ("foreign-eoi", gic::foreign_eoi),
    ("never-ended", gic::never_ended),
    ("gicv2-windows", gicv2::windows),
    ("gicv2-foreign-spi", gicv2::foreign_spi),
    ("gicv2-spi-target", gicv2::spi_target),
    ("gicv2-private-interrupts", gicv2::private_interrupts),
    ("gicv2-foreign-sgi", gicv2::foreign_sgi),
    ("gicv2-foreign-eoi", gicv2::foreign_eoi),
    ("gicv2-interface", gicv2::interface),
    ("cpu-on", calls::cpu_on),
    ("unknown-calls", calls::unknown_calls),
    ("unknown-sysregs", sysregs::unknown),
    ("debug", sysregs::debug),
    ("timers", sysregs::timers),
    ("sve", granted::sve),
    ("pmu", granted::pmu),
    ("debug-granted", granted::debug),
    ("granted-restart", granted::restart),
    ("shown-features", granted::shown),
    ("set-way", sysregs::set_way),
    ("id-registers", sysregs::id_registers),
    ("own-exceptions", exceptions::own),
    ("newer-cpu", exceptions::newer),
    ("zero-register", mmio::zero_register),
    ("no-syndrome", mmio::no_syndrome),
    ("sizes", mmio::sizes),
    ("fetch", mmio::fetch_from_device),
    ("walk", mmio::walk_in_device),
    ("pci-every-dword", pci::every_dword),
    ("pci-bars", pci::base_addresses),
    ("pci-foreign", pci::foreign),
    ("pci-requests", pci::requests),
    ("pci-config-storm", pci::config_storm),
    ("pci-reset", pci::reset),
    ("pci-bus-reset", functions::left_dirty),
    ("pci-race", functions::race),
    ("pci-wrong-board", functions::wrong_board),
    ("pci-io-ports", ports::io_ports),
    ("pci-absent", ports::absent),
    ("wfi-storm", storms::wfi),
    ("wfe-storm", storms::wfe),
    ("trap-storm", storms::traps),
    ("fault-storm", storms::faults),
    ("flood", storms::flood),
    ("prefix", storms::prefix),
    ("own-vector", storms::own_vector),
    ("cpu-storm", vcpus::cpu_storm),
    ("spin-off", vcpus::spin_off),
    ("mute-kick", vcpus::mute_kick),
    ("spin-park", vcpus::spin_park),
    ("last-off", calls::last_off),
    ("reset", calls::reset),
    ("reset2", calls::reset2),
    ("psci", calls::psci),
    ("firmware", calls::firmware),
    ("suspend", calls::suspend),
    ("deaf", storms::deaf),
    ("stuck-uart", storms::stuck_uart),
    ("files", memory::files),
    ("flash", memory::flash),
    ("pristine", lifecycle::pristine),
    ("spin-unpatted", lifecycle::spin_unpatted),
    ("sleep-unpatted", lifecycle::sleep_unpatted),
    ("watchdog-calls", lifecycle::watchdog_calls),
    ("watchdog-registers", lifecycle::watchdog_registers),
    ("pile-up", delivery::pile_up),
    ("never-ends", delivery::never_ends),
    ("states", delivery::states),
    ("spi-edge", lines::spi_edge),
    ("timer-channels", lines::timer_channels),
    ("urgency", delivery::urgency),
    ("cross", delivery::cross),
    ("sgi-storm", delivery::sgi_storm),
    ("senders", delivery::senders),
    ("every-register", delivery::every_register),
    ("dma-outside", dma::outside),
    ("dma-late", dma::late),
    ("dma-restart", dma::over_restarts),
    ("dma-flood", dma::flood),
    ("messages", dma::messages),
    ("messages-table", dma::table),
    ("messages-asleep", dma::asleep),
];

/// The boot argument `key=0x…`.
///
/// # Panics
/// Without it: the layout is wrong.
fn address(key: &str) -> u64 {
    let text = platform().argument(key).and_then(|text| text.strip_prefix("0x"));
    match text.map(|digits| u64::from_str_radix(digits, 16)) {
        Some(Ok(value)) => value,
        _ => panic!("the boot arguments have no {key}=0x…"),
    }
}
