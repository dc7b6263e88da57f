//! Hands the linker what the image needs: the script, the address from the plan crate, defmt's sections, a build ID.
//!
//! Only for the bare-metal target; on a host the program is an empty `main`.

fn main() {
    println!("cargo:rerun-if-changed=hyp-min.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    // Which records exist is part of the binary, not of the builder's environment.
    println!("cargo:rustc-env=DEFMT_LOG=info");
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| String::from("."));
    let address = format!("--defsym=HYP_VA={:#x}", cofferdam_plan::va::HYP_VA);
    let script = format!("-T{folder}/hyp-min.ld");
    for argument in [&address, &script, "-Tdefmt.x", "--build-id=sha1", "--gc-sections", "-zmax-page-size=4096"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
