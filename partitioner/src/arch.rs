//! What the compiler must know of an architecture. One trait, one implementation each.
//!
//! `io_ports_supported` is why this product exists: the question "does this architecture have I/O ports?" is asked here,
//! once, at build time, instead of by a hypercall on the target. No other file compares architectures by name.

use cofferdam_dts::Node;

/// An architecture the compiler knows.
pub trait Arch: Sync {
    /// Its name, as Rust and Linux spell it.
    fn name(&self) -> &'static str;
    /// Whether the CPU has an I/O port address space of its own.
    fn io_ports_supported(&self) -> bool;
    /// Whether `sve`, `pmu` and `debug` mean something there.
    fn cpu_grants_supported(&self) -> bool;
    /// Whether there is a hypervisor to build an image with.
    fn hypervisor_supported(&self) -> bool;
    /// `compatible` strings of the interrupt controllers that are the root of interrupts on this architecture.
    fn root_controllers(&self) -> &'static [&'static str];
}

/// 64-bit Arm.
pub struct Aarch64;

impl Arch for Aarch64 {
    fn name(&self) -> &'static str {
        "aarch64"
    }
    /// Load and store are all there is: no IN, no OUT, and a PCI host's I/O window is plain memory.
    fn io_ports_supported(&self) -> bool {
        false
    }
    fn cpu_grants_supported(&self) -> bool {
        true
    }
    fn hypervisor_supported(&self) -> bool {
        true
    }
    fn root_controllers(&self) -> &'static [&'static str] {
        &["arm,gic-v3", "arm,gic-400", "arm,cortex-a15-gic", "arm,cortex-a7-gic", "arm,cortex-a9-gic", "arm,gic-v5"]
    }
}

/// 64-bit x86: the compiler's side only.
pub struct X86_64;

impl Arch for X86_64 {
    fn name(&self) -> &'static str {
        "x86_64"
    }
    /// IN and OUT reach 64 Ki ports; VMX and SVM take a permission bitmap of one bit each.
    fn io_ports_supported(&self) -> bool {
        true
    }
    fn cpu_grants_supported(&self) -> bool {
        false
    }
    fn hypervisor_supported(&self) -> bool {
        false
    }
    fn root_controllers(&self) -> &'static [&'static str] {
        &["intel,ce4100-ioapic", "intel,ce4100-lapic"]
    }
}

/// The architectures, in the order they are tried.
pub static ALL: [&dyn Arch; 2] = [&Aarch64, &X86_64];

/// The architecture whose root interrupt controller `controller` is.
pub fn of_controller(controller: Node<'_>) -> Option<&'static dyn Arch> {
    ALL.into_iter().find(|arch| arch.root_controllers().iter().any(|c| controller.is_compatible(c)))
}
