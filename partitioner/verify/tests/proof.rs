//! The hand-written plan is proven; then each single change is found by name.

mod common;

use cofferdam_verify::Refusal;
use common::*;

#[test]
fn the_sound_plan_is_proven() {
    let (result, findings) = Build::two().blob().verify();
    assert_eq!(findings, []);
    let proof = result.expect("no findings, so a proof");
    assert_eq!(proof.domains, 2);
    assert!(proof.leaves > 100 && proof.tables > 6, "{proof:?}");
}

#[test]
fn too_little_scratch_is_named() {
    let blob = Build::two().blob();
    let needed = cofferdam_verify::scratch_words(blob.bytes());
    let mut scratch = vec![0; needed - 1];
    let result = cofferdam_verify::verify(blob.bytes(), &mut scratch, &mut |_| ());
    assert_eq!(result, Err(Refusal::Scratch(needed)));
}
