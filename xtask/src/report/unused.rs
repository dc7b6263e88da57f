//! RAM that neither the hypervisor nor a reservation nor a domain has.
//!
//! It stands in the report and is no diagnostic: nearly every layout leaves some, and a note on all of them says nothing.

use super::facts::Table;
use cofferdam_plan::audit::{fact, grant};
use cofferdam_plan::{AuditView, Pa, PaRegion};

/// Ranges of the board's RAM that nobody has, ascending.
pub(super) fn table(audit: &AuditView<'_>) -> Table {
    let facts = |kind| audit.facts.iter().filter(move |entry| entry.kind == kind).map(|entry| entry.region);
    let ram = audit.grants.iter().filter(|entry| entry.kind == grant::RAM).map(|entry| entry.pa);
    let mut taken: Vec<PaRegion> = facts(fact::RESERVED).chain(facts(fact::HYPERVISOR)).chain(ram).collect();
    taken.sort_by_key(|region| region.base);
    let mut rows = Vec::new();
    for bank in facts(fact::RAM) {
        for free in gaps(bank, &taken) {
            rows.push(vec![free.to_string(), format!("{} KiB", free.size >> 10)]);
        }
    }
    Table { title: "RAM nobody has".into(), heads: vec!["range", "size"], rows }
}

/// What of `bank` is in none of `taken`, which is sorted.
fn gaps(bank: PaRegion, taken: &[PaRegion]) -> Vec<PaRegion> {
    let mut free = Vec::new();
    let mut at = bank.base.0;
    for region in taken.iter().filter(|region| region.overlaps(&bank)) {
        if region.base.0 > at {
            free.push(PaRegion { base: Pa(at), size: region.base.0 - at });
        }
        at = at.max(region.end().0);
    }
    if at < bank.end().0 {
        free.push(PaRegion { base: Pa(at), size: bank.end().0 - at });
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_is_left() {
        let region = |base, size| PaRegion { base: Pa(base), size };
        let taken = [region(0, 8), region(0x10, 0x20), region(0x18, 4), region(0x38, 0x100)];
        assert_eq!(gaps(region(4, 0x3C), &taken), [region(8, 8), region(0x30, 8)]);
        assert_eq!(gaps(region(0x200, 16), &taken), [region(0x200, 16)]);
    }
}
