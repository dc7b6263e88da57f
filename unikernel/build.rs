//! Hands the linker script to whoever links a guest.
//!
//! The examples here get `-T` from this script; a program in another crate names it in its own `build.rs`
//! (`cargo:rustc-link-arg-bins=-Tunikernel.ld`) and finds it through the search path set below.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=unikernel.ld");
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::copy("unikernel.ld", out.join("unikernel.ld")).expect("OUT_DIR is writable");
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rustc-link-arg-examples=-Tunikernel.ld");
    println!("cargo:rustc-link-arg-examples=-zmax-page-size=4096");
}
