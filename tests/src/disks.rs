//! Disk images that a test makes.

use crate::{Failure, Result};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// Images made so far: a case that runs on both emulators at once has one for each.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A sparse image that is gone with this value.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// An empty one of `size` bytes; `name` is for people.
    pub fn empty(folder: &Path, name: &str, size: u64) -> Result<Self> {
        let scratch = Self::named(folder, name)?;
        let file = File::create(&scratch.path).map_err(|e| Failure::new(format!("cannot write {}: {e}", scratch.path.display())))?;
        file.set_len(size)?;
        Ok(scratch)
    }

    /// A copy.
    pub fn copy(folder: &Path, name: &str, image: &Path) -> Result<Self> {
        let scratch = Self::named(folder, name)?;
        // The tool keeps holes, and shares blocks where the file system can.
        let status = std::process::Command::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .args([image, &scratch.path])
            .status()?;
        if status.success() {
            Ok(scratch)
        } else {
            Err(Failure::new(format!(
                "cannot copy {} to {}: cp ended with {status}",
                image.display(),
                scratch.path.display()
            )))
        }
    }

    fn named(folder: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self {
            path: folder.join(format!(
                "{}-{}-{}.img",
                name.replace('/', "-"),
                std::process::id(),
                MADE.fetch_add(1, Ordering::Relaxed)
            )),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover only costs disk space.
        let _ = fs::remove_file(&self.path);
    }
}
