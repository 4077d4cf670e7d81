//! Passes the linker script, by absolute path, when the loader itself is built.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=link.ld");
    let manifest = var("CARGO_MANIFEST_DIR").unwrap_or_default();
    if var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo::rustc-link-arg-bin=boot=-T{manifest}/link.ld");
        println!("cargo::rustc-link-arg-bin=boot=--no-dynamic-linker");
    }
}
