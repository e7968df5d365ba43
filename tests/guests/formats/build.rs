//! Links each guest as a flat file at its own address, and nothing that is built for the host.

fn main() {
    println!("cargo:rerun-if-changed=boot-sector.ld");
    println!("cargo:rerun-if-changed=multiboot.ld");
    println!("cargo:rerun-if-changed=screen.ld");
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR for build scripts");
    for name in ["boot-sector", "multiboot", "screen"] {
        for argument in [
            &format!("-T{folder}/{name}.ld"),
            "--oformat=binary",
            "--build-id=none",
            "-znoexecstack",
        ] {
            println!("cargo:rustc-link-arg-bin={name}-guest={argument}");
        }
    }
}
