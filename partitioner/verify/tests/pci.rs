//! The two domains with PCI functions: sound as they are, and one change each that the verifier must name.

mod common;

use cofferdam_verify::Refusal;
use common::*;

#[test]
fn the_plan_is_sound() {
    let (result, findings) = Build::pci().blob().verify();
    assert!(result.is_ok(), "{result:?} {findings:#?}");
    assert!(!matches!(result, Err(Refusal::Plan(_))));
}
