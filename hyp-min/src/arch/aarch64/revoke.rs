//! Takes a domain's memory away from all its CPUs at once, and gives it back: what must work against the guest.
//!
//! Nobody can mask it: each CPU comes to EL2 at its next fetch. Who does it and why, it does not know.
#![allow(unsafe_code)] // the stage-2 root, TLB maintenance

use super::registers::mrs;
use cofferdam_plan::Domain;
use core::arch::asm;

/// Entries of the largest root there is: sixteen concatenated tables (DDI 0487, D8.2.2).
const MOST_ENTRIES: u32 = 16 * 512;

/// The valid bit of a descriptor (DDI 0487, D8.3). Without it the walker looks at nothing else.
const VALID: u64 = 1;

/// Makes every entry of the domain's stage-2 root invalid and flushes every CPU's TLBs under its VMID. Valid to invalid only: no
/// break-before-make (DDI 0487, D8.17). The rest of each entry stays for [`restore`].
pub(super) fn revoke(domain: &Domain) {
    change_root(domain, |entry| entry & !VALID);
    // Maintenance is by the VMID in VTTBR_EL2, which may be another domain's here. Its root leads nowhere by now, so nothing
    // can be walked with this CPU's EL1 registers under that VMID. The size of the root is VTCR_EL2's: it changes second and
    // comes back first, so that the domain of this CPU is never walked by another's.
    let (own, own_control) = (mrs!("vttbr_el2"), mrs!("vtcr_el2"));
    // SAFETY: no guest runs on this CPU until both have their own values again.
    unsafe {
        asm!("dsb ish", "msr vttbr_el2, {}", "isb", "msr vtcr_el2, {}", "isb", in(reg) domain.vttbr, in(reg) domain.vtcr, options(nostack, preserves_flags))
    };
    // The event is for a CPU that sleeps in WFE, where no interrupt may reach it.
    // SAFETY: maintenance of this domain's translations; EL2's own are another regime.
    unsafe { asm!("tlbi vmalls12e1is", "dsb ish", "sev", options(nostack, preserves_flags)) };
    // SAFETY: what was there before.
    unsafe {
        asm!("msr vtcr_el2, {}", "isb", "msr vttbr_el2, {}", "isb", in(reg) own_control, in(reg) own, options(nostack, preserves_flags))
    };
}

/// Makes the root's entries valid again: exactly those that were (a plan has no invalid entry that is not zero). While every
/// CPU of the domain is in EL2.
pub(super) fn restore(domain: &Domain) {
    change_root(domain, |entry| if entry == 0 { 0 } else { entry | VALID });
    cortex_a::asm::barrier::dsb(cortex_a::asm::barrier::ISHST);
}

fn change_root(domain: &Domain, change: impl Fn(u64) -> u64) {
    let root = domain.root_va as usize as *mut u64;
    for entry in 0..domain.root_entries.min(MOST_ENTRIES) as usize {
        // SAFETY: `root_entries` of the plan lie in the root table, mapped writable at `root_va` for this purpose.
        let place = unsafe { root.add(entry) };
        // SAFETY: as above; walkers on other CPUs read single-copy atomically.
        let value = unsafe { place.read_volatile() };
        // SAFETY: as above.
        unsafe { place.write_volatile(change(value)) };
    }
}
