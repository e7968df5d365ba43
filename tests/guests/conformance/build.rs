//! Links the guest as a flat Multiboot kernel, and nothing that is built for the host.

fn main() {
    println!("cargo:rerun-if-changed=guest.ld");
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR for build scripts");
        for argument in [
            &format!("-T{folder}/guest.ld"),
            "--oformat=binary",
            "--build-id=none",
            "-znoexecstack",
        ] {
            println!("cargo:rustc-link-arg-bins={argument}");
        }
    }
}
