//! Writes the initial RAM disks that the test guests boot.
#![forbid(unsafe_code)]

use clap::Parser;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};
use tessera_tests::{Failure, Result, initramfs};

/// Makes deterministic initial RAM disks from busybox and the scripts of tests/guests: `initramfs.cpio` for guests without devices, `initramfs-net.cpio` for those with
/// network cards, `initramfs-disk.cpio` for those that run from a disk, `initramfs-pc.cpio` for those that find it behind a SATA host adapter.
#[derive(Parser)]
struct Arguments {
    /// Folder to write them to; it has the kernel's modules in `cloud/modules`.
    #[arg(long, default_value = "build/guests")]
    output: PathBuf,
    /// A static busybox.
    #[arg(long, default_value = "/bin/busybox")]
    busybox: PathBuf,
    /// The program that loads network cards, linked statically.
    #[arg(long, default_value = "target/release/netload")]
    netload: PathBuf,
    /// Folder with `initramfs` and `initramfs-disk`.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/guests"))]
    scripts: PathBuf,
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))?;
    println!("{}: {} KiB", path.display(), bytes.len() / 1024);
    Ok(())
}

fn make(arguments: &Arguments) -> Result<()> {
    let Arguments {
        output,
        busybox,
        netload,
        scripts,
    } = arguments;
    std::fs::create_dir_all(output)?;
    write(
        &output.join("initramfs.cpio"),
        &initramfs::build(busybox, &scripts.join("initramfs"), None)?,
    )?;
    let modules = output.join("cloud/modules");
    write(
        &output.join("initramfs-net.cpio"),
        &initramfs::build(busybox, &scripts.join("initramfs"), Some((&modules, netload)))?,
    )?;
    let disk = initramfs::build_for_disk(busybox, &scripts.join("initramfs-disk"), &output.join("cloud/modules"))?;
    write(&output.join("initramfs-disk.cpio"), &disk)?;
    let generic = output.join("generic/modules");
    match initramfs::build_for_pc(busybox, &scripts.join("initramfs-disk"), &generic)? {
        Some(disk) => write(&output.join("initramfs-pc.cpio"), &disk),
        None => {
            println!(
                "{}: drivers are missing, so there is no initramfs-pc.cpio: run `make setup`",
                generic.display()
            );
            Ok(())
        }
    }
}

fn main() -> ExitCode {
    match make(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
