//! How many instructions a machine in QEMU has executed: what the plugin of tests/counter writes.

use crate::{Failure, Result};
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// A running count.
#[derive(Debug)]
pub struct Counter {
    file: File,
}

impl Counter {
    /// The plugin: `TESSERA_COUNTER`, else beside this program.
    pub fn plugin() -> Result<PathBuf> {
        let path = match std::env::var_os("TESSERA_COUNTER") {
            Some(path) => PathBuf::from(path),
            None => std::env::current_exe()?.with_file_name("libtessera_counter.so"),
        };
        if path.exists() {
            Ok(path)
        } else {
            Err(Failure::new(format!(
                "{} does not exist: build it with `cargo build --release -p tessera-counter`, or run `make bench`",
                path.display()
            )))
        }
    }

    /// Opens what the plugin of a running QEMU writes.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))?;
        Ok(Self { file })
    }

    /// Where [`Self::keep`] puts counts of blocks: `TESSERA_PROFILE`, a folder; none: they are not counted.
    pub fn profile() -> Option<PathBuf> {
        std::env::var_os("TESSERA_PROFILE").map(PathBuf::from)
    }

    /// Copies what was counted so far, block by block, under this name into the folder for profiles, if there is one. Two of these, one less the other, say where the instructions went.
    pub fn keep(&self, name: &str) -> Result<()> {
        /// The file begins with a page for the totals; each block has 48 bytes after it.
        const HEAD: u64 = 4096;
        const BLOCK: u64 = 48;
        let Some(folder) = Self::profile() else { return Ok(()) };
        let mut number = [0; 8];
        self.file.read_exact_at(&mut number, 8)?;
        let mut bytes = vec![0; usize::try_from(HEAD + BLOCK * u64::from_le_bytes(number)).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(std::fs::write(folder.join(name), bytes)?)
    }

    /// Instructions executed so far, by all processors.
    pub fn instructions(&self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Instructions executed when the machine next does nothing but keep its clocks going.
    pub fn when_idle(&self) -> Result<u64> {
        /// An idle host with an idle guest executes a tenth of this in the time, a busy one ten times as many.
        const IDLE: u64 = 2_000_000;
        let mut before = self.instructions()?;
        loop {
            thread::sleep(Duration::from_millis(250));
            let now = self.instructions()?;
            if now - before < IDLE {
                return Ok(now);
            }
            before = now;
        }
    }
}
