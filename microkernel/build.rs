//! Passes the linker script to the kernel's binary, and to nothing that is built for the host.

fn main() {
    println!("cargo:rerun-if-changed=kernel.ld");
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR for build scripts");
        for argument in [&format!("-T{folder}/kernel.ld"), "-zmax-page-size=4096", "-znoexecstack", "--build-id=none"] {
            println!("cargo:rustc-link-arg-bins={argument}");
        }
    }
}
