//! What changes at run time: per domain its state and console, for all the count of those that have ended.
//!
//! All of it is atomics in memory that starts as zeroes; whatever a guest does, no CPU waits here without a bound.
#![allow(unsafe_code)] // the domains' areas and the plan's place

use crate::arch::aarch64::clear_memory;
use cofferdam_plan::limits::{MAX_DOMAINS, MAX_VCPUS};
use cofferdam_plan::{Domain, Plan, va};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use hyp_min::vdev::console::{INPUT, OUTPUT};
use hyp_min::vdev::dist;
use hyp_min::vdev::lock::FlagLock;
use hyp_min::vdev::ring::Ring;
use hyp_min::vdev::vuart::Vuart;

/// [`DomainState::status`]: vCPUs may run.
pub(crate) const RUNNING: u32 = 0;
/// [`DomainState::status`]: it has turned itself off.
pub(crate) const OFF: u32 = 1;
/// [`DomainState::status`]: a fault has parked it.
pub(crate) const PARKED: u32 = 2;

/// States of a vCPU, see [`Vcpu::state`]. Zero is off.
pub(crate) mod vcpu {
    /// Waits in EL2 for CPU_ON.
    pub(crate) const OFF: u32 = 0;
    /// A caller of CPU_ON is writing entry and context.
    pub(crate) const CLAIMED: u32 = 1;
    /// Entry and context are there; the vCPU has not seen them yet.
    pub(crate) const READY: u32 = 2;
    /// In the guest.
    pub(crate) const ON: u32 = 3;
}

/// One vCPU's power state.
#[repr(C)]
pub(crate) struct Vcpu {
    /// See [`vcpu`].
    pub(crate) state: AtomicU32,
    /// Where it starts.
    pub(crate) entry: AtomicU64,
    /// Its x0.
    pub(crate) context: AtomicU64,
}

/// One domain's run-time state, in its area. See [`prepare`].
#[repr(C)]
pub(crate) struct DomainState {
    /// [`RUNNING`], then once [`OFF`] or [`PARKED`].
    pub(crate) status: AtomicU32,
    /// CNTVOFF_EL2 of every vCPU: what the system counter was when the domain started. Written by the CPU that starts vCPU 0.
    pub(crate) time_offset: AtomicU64,
    /// The virtual distributor's own bits.
    pub(crate) dist: dist::State,
    /// The vCPUs.
    pub(crate) vcpus: [Vcpu; MAX_VCPUS],
    /// The virtual UART. Its lock also makes the output ring's producer one.
    pub(crate) vuart: FlagLock<Vuart>,
    /// Console input waits here: UART interrupt → virtual UART.
    pub(crate) input: Ring<INPUT>,
    /// A guest has found its transmit FIFO full and may wait for the interrupt that says it is not.
    pub(crate) output_was_full: AtomicBool,
    /// Console output waits here: virtual UART → multiplexer.
    pub(crate) output: Ring<OUTPUT>,
}
const _: () = assert!(size_of::<DomainState>() <= va::DOMAIN_AREA as usize);
const _: () = assert!(va::DOMAIN_AREA.is_multiple_of(64));

/// The state of `domain`, in its area.
pub(crate) fn state_of(domain: &Domain) -> &'static DomainState {
    let place = domain.area_va as usize as *const DomainState;
    // SAFETY: the plan's area for this domain, mapped and writable for all CPUs, zeroed before any other CPU starts; every
    // field allows sharing.
    unsafe { &*place }
}

/// Brings the state of `domain` to what it is before the first start. Boot CPU only, before any other CPU runs.
pub(crate) fn prepare(domain: &Domain) {
    let area = domain.area_va as usize as *mut DomainState;
    // SAFETY: the plan's area for this domain, 4 KiB aligned and writable; no reference to it exists yet. Zeroes are a
    // valid value of every field but `vuart`, which is written next.
    unsafe { clear_memory(area.cast(), (size_of::<DomainState>() as u64).next_multiple_of(64)) };
    // SAFETY: inside the area.
    let vuart = unsafe { &raw mut (*area).vuart };
    // SAFETY: as above.
    unsafe { vuart.write(FlagLock::new(Vuart::new())) };
}

static PLAN: Place = Place(core::cell::UnsafeCell::new(None));
static UP: AtomicBool = AtomicBool::new(false);
/// Domains that have ended.
static ENDED: AtomicU32 = AtomicU32::new(0);
/// Those of them that a fault has parked.
static FAULTED: AtomicU32 = AtomicU32::new(0);

struct Place(core::cell::UnsafeCell<Option<Plan<'static>>>);
// SAFETY: written once by the boot CPU before `UP` is set, which happens before any other CPU starts; read only after.
unsafe impl Sync for Place {}

/// Keeps the plan. Boot CPU only, once, before any other CPU runs.
pub(crate) fn keep(plan: Plan<'static>) -> &'static Plan<'static> {
    let place = PLAN.0.get();
    // SAFETY: no other CPU runs and no reference has been given out.
    unsafe { place.write(Some(plan)) };
    UP.store(true, Ordering::Release);
    // SAFETY: never written again.
    match unsafe { &*place } {
        Some(plan) => plan,
        None => crate::arch::aarch64::firmware::power_off(),
    }
}

/// The plan that [`keep`] has kept.
pub(crate) fn plan() -> Option<&'static Plan<'static>> {
    if !UP.load(Ordering::Acquire) {
        return None;
    }
    let place = PLAN.0.get();
    // SAFETY: it has been written and is not written again.
    unsafe { (*place).as_ref() }
}

static GUESTS: AtomicBool = AtomicBool::new(false);
static FAILING: AtomicU32 = AtomicU32::new(0);

/// The machine is as planned: from now on a fault costs one domain, not the boot.
pub(crate) fn open_to_guests() {
    GUESTS.store(true, Ordering::Release);
}

/// Whether [`open_to_guests`] has been called.
pub(crate) fn is_open_to_guests() -> bool {
    GUESTS.load(Ordering::Acquire)
}

/// Counts exceptions taken from EL2 itself. Answers how many there have been before.
pub(crate) fn count_own_exception() -> u32 {
    FAILING.fetch_add(1, Ordering::AcqRel)
}

/// Counts a domain's end. Answers whether it was the last of `all`.
pub(crate) fn count_end(parked: bool, all: usize) -> bool {
    if parked {
        FAULTED.fetch_add(1, Ordering::Relaxed);
    }
    ENDED.fetch_add(1, Ordering::AcqRel) as usize + 1 >= all.min(MAX_DOMAINS)
}

/// Domains that a fault has parked.
pub(crate) fn parked() -> u32 {
    FAULTED.load(Ordering::Relaxed)
}
