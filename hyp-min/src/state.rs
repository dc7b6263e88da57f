//! What changes at run time: per domain its state and console, for all the count of those that have ended.
//!
//! All of it is atomics in memory that starts as zeroes; whatever a guest does, no CPU waits here without a bound.
#![allow(unsafe_code)] // the domains' areas and the plan's place

use crate::arch::aarch64::clear_memory;
use cofferdam_plan::limits::{MAX_DOMAINS, MAX_VCPUS};
use cofferdam_plan::pci::Pci;
use cofferdam_plan::{Domain, Plan, va};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use hyp_min::vdev::config;
use hyp_min::vdev::console::{INPUT, OUTPUT};
use hyp_min::vdev::dist;
use hyp_min::vdev::lock::FlagLock;
use hyp_min::vdev::ring::Ring;
use hyp_min::vdev::vuart::Vuart;

/// [`Status::is`]: vCPUs may run.
pub(crate) const RUNNING: u32 = 0;
/// [`Status::is`]: it has turned itself off.
pub(crate) const OFF: u32 = 1;
/// [`Status::is`]: a fault has parked it.
pub(crate) const PARKED: u32 = 2;
/// [`Status::is`]: it is about to start again; its CPUs come to EL2.
pub(crate) const RESTARTING: u32 = 3;
/// [`Status::is`]: its CPUs are in EL2, the first of them writes its memory.
pub(crate) const RELOADING: u32 = 4;
/// [`Status::is`]: a CPU has ended its run and is about to say what becomes of it.
pub(crate) const ENDING: u32 = 5;

/// Whether a domain runs, in the low bits, and which of its runs this is, above: so a CPU that comes late never takes one
/// restart for another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u32);

impl Status {
    const BITS: u32 = 3;

    /// [`RUNNING`], [`OFF`], [`PARKED`], [`RESTARTING`], [`RELOADING`] or [`ENDING`].
    pub(crate) const fn is(self) -> u32 {
        self.0 & ((1 << Self::BITS) - 1)
    }

    /// The same run in another state.
    const fn to(self, other: u32) -> Self {
        Self(self.0 >> Self::BITS << Self::BITS | other)
    }

    /// The next run.
    const fn next(self) -> Self {
        Self((self.0 >> Self::BITS).wrapping_add(1) << Self::BITS | RUNNING)
    }
}

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
    /// Injected delivery: another vCPU has disabled interrupts that may wait in this one's list registers.
    pub(crate) recheck: AtomicBool,
    /// Where it starts.
    pub(crate) entry: AtomicU64,
    /// Its x0.
    pub(crate) context: AtomicU64,
    /// The last restart ([`Status`]) for which its CPU has come to EL2 and reset what is its own.
    pub(crate) arrived: AtomicU32,
}

/// One domain's run-time state, in its area. See [`prepare`].
#[repr(C)]
pub(crate) struct DomainState {
    /// See [`Status`].
    status: AtomicU32,
    /// Counter value until which its CPUs may come when it starts again.
    pub(crate) patience: AtomicU64,
    /// Start of the period in which restarts are counted, and their number. Written by who has ended a run.
    counted_from: AtomicU64,
    restarts: AtomicU32,
    /// Its watchdog: the counter value until which it must be patted, 0 while nobody needs to; and the time from one pat to
    /// the next that the domain has chosen, in ticks, of which it gets no more than the plan allows.
    pub(crate) pat_until: AtomicU64,
    pub(crate) pat_every: AtomicU64,
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

impl DomainState {
    /// Its status now.
    pub(crate) fn status(&self) -> Status {
        Status(self.status.load(Ordering::Acquire))
    }

    /// Whether its vCPUs may run.
    pub(crate) fn is_running(&self) -> bool {
        self.status().is() == RUNNING
    }

    /// Whether it has ended for good.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.status().is(), OFF | PARKED)
    }

    /// From `from` to `to` in the same run. False where it was not `from`, or somebody else has been faster.
    pub(crate) fn change(&self, from: u32, to: u32) -> bool {
        let status = self.status();
        status.is() == from && self.exchange(status, status.to(to))
    }

    /// The run of `status` ends, if it is still this one.
    pub(crate) fn end_run(&self, status: Status) -> bool {
        status.is() == RUNNING && self.exchange(status, status.to(ENDING))
    }

    /// The next run begins. For the CPU that has brought it about. False where the domain has been parked meanwhile.
    pub(crate) fn begin_next_run(&self) -> bool {
        let status = self.status();
        status.is() == RELOADING && self.exchange(status, status.next())
    }

    fn exchange(&self, from: Status, to: Status) -> bool {
        self.status.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Counts a restart. Answers whether `limit` within `period` counter ticks allows it.
    pub(crate) fn count_restart(&self, now: u64, period: u64, limit: u32) -> bool {
        let before = self.restarts.load(Ordering::Relaxed);
        let anew = before == 0 || now.wrapping_sub(self.counted_from.load(Ordering::Relaxed)) >= period;
        let count = if anew { 1 } else { before.saturating_add(1) };
        if anew {
            self.counted_from.store(now, Ordering::Relaxed);
        }
        self.restarts.store(count, Ordering::Relaxed);
        count <= limit
    }
}

/// The state of `domain`, in its area.
pub(crate) fn state_of(domain: &Domain) -> &'static DomainState {
    let place = domain.area_va as usize as *const DomainState;
    // SAFETY: the plan's area for this domain, mapped and writable for all CPUs, zeroed before any other CPU starts; every
    // field allows sharing.
    unsafe { &*place }
}

/// The state of PCI function `index`.
pub(crate) fn config_state(pci: &Pci, index: usize) -> &'static config::State {
    let place = pci.state_va as usize as *const config::State;
    // SAFETY: the plan's page for as many functions as it has, zeroed, mapped and writable for all CPUs; every field allows sharing.
    let place = unsafe { place.add(index) };
    // SAFETY: as above.
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
