//! Names the linker script of the bare-metal kernel, so that cargo links again when it changes.

use std::env;
use std::path::Path;

fn main() {
    let var = |name| env::var(name).unwrap_or_default();
    println!("cargo::rerun-if-changed=build.rs");
    if var("CARGO_CFG_TARGET_OS") != "none" {
        return;
    }
    let target = match &*var("CARGO_CFG_TARGET_ARCH") {
        "x86_64" => "x86_64-q35",
        "aarch64" => "aarch64-virt",
        _ => return,
    };
    let script =
        Path::new(&var("CARGO_MANIFEST_DIR")).join("../targets").join(target).join("kernel.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rustc-link-arg-bins=-T{}", script.display());
    // No PIE whatever the relocation model: the image is linked where it runs.
    println!("cargo::rustc-link-arg-bins=--no-pie");
    println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
}
