//! Links the guests with the unikernel's script; some start at a first instruction of their own.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    println!("cargo:rustc-link-arg-bins=-Tunikernel.ld");
    println!("cargo:rustc-link-arg-bins=-zmax-page-size=4096");
    let own_starts =
        [("bench", "bench"), ("clean", "first"), ("again", "first"), ("preload", "preload"), ("firmware", "firmware")];
    for (program, start) in own_starts {
        println!("cargo:rustc-link-arg-bin={program}=--entry={start}_start");
    }
}
