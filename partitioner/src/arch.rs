//! What the compiler must know of an architecture. One trait, one implementation each.
//!
//! `io_ports_supported` is why this product exists: the question "does this architecture have I/O ports?" is asked here,
//! once, at build time, instead of by a hypercall on the target.

/// An architecture the compiler knows.
pub trait Arch: Sync {
    /// Its name, as Rust and Linux spell it.
    fn name(&self) -> &'static str;
    /// Whether the CPU has an I/O port address space of its own.
    fn io_ports_supported(&self) -> bool;
    /// Whether there is a hypervisor to build an image with.
    fn hypervisor_supported(&self) -> bool;
}
