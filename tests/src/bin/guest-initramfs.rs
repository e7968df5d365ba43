//! Writes the initial RAM disk that the test guests boot.
#![forbid(unsafe_code)]

use clap::Parser;
use std::{path::PathBuf, process::ExitCode};
use tessera_tests::{Failure, initramfs};

/// Makes a deterministic initial RAM disk from busybox and the scripts of tests/guests/initramfs.
#[derive(Parser)]
struct Arguments {
    /// Where to write it.
    #[arg(long, default_value = "build/guests/initramfs.cpio")]
    output: PathBuf,
    /// A static busybox.
    #[arg(long, default_value = "/bin/busybox")]
    busybox: PathBuf,
    /// Folder with `init` and `tests/`.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/guests/initramfs"))]
    scripts: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let written = initramfs::build(&arguments.busybox, &arguments.scripts).and_then(|bytes| {
        if let Some(parent) = arguments.output.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&arguments.output, &bytes).map_err(|e| Failure::new(format!("cannot write {}: {e}", arguments.output.display())))?;
        Ok(bytes.len())
    });
    match written {
        Ok(length) => {
            println!("{}: {} KiB", arguments.output.display(), length / 1024);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
