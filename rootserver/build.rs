//! Names the linker script of user programs when building for the guest.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../targets/common/user.ld");
        println!("cargo::rerun-if-changed={script}");
        println!("cargo::rustc-link-arg=-T{script}");
        println!("cargo::rustc-link-arg=-zmax-page-size=4096");
    }
}
