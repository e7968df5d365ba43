//! Images for tests, built by image-builder from the project's `system.toml` or from one under `tests/systems`, with changes.

use crate::{Failure, Result, fail, systems::System};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

/// What to build.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Description of the system.
    pub system: System,
    /// `--set` arguments.
    pub sets: Vec<String>,
    /// Kernel command line, if not the description's own.
    pub command_line: Option<String>,
    /// Hybrid ISO instead of a disk image.
    pub iso: bool,
}

impl From<System> for Spec {
    fn from(system: System) -> Self {
        Self {
            system,
            sets: Vec::new(),
            command_line: None,
            iso: false,
        }
    }
}

impl Spec {
    /// Changes one value (`vm.debian.vcpus=2`).
    #[must_use]
    pub fn set(mut self, change: impl Into<String>) -> Self {
        self.sets.push(change.into());
        self
    }
}

/// Builds images, each once.
pub struct Images {
    root: PathBuf,
    builder: PathBuf,
    directory: PathBuf,
    built: Mutex<HashMap<Spec, Arc<Mutex<Option<PathBuf>>>>>,
}

impl Images {
    /// Finds image-builder: `TESSERA_IMAGE_BUILDER`, else beside this program. It takes kernel and servers from `TESSERA_PROGRAMS`, else from `build/programs`.
    pub fn new(root: &Path, directory: &Path) -> Result<Self> {
        let builder = match std::env::var_os("TESSERA_IMAGE_BUILDER") {
            Some(path) => PathBuf::from(path),
            None => std::env::current_exe()?.with_file_name("image-builder"),
        };
        if !builder.exists() {
            fail!(
                "{} does not exist: build it with `cargo build -p image-builder`, or run `make test`",
                builder.display()
            );
        }
        Ok(Self {
            root: root.into(),
            builder,
            directory: directory.into(),
            built: Mutex::default(),
        })
    }

    /// The image for `spec`. Two tests that want the same one wait for each other.
    pub fn get(&self, spec: &Spec) -> Result<PathBuf> {
        let (entry, number) = {
            let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
            let number = built.len();
            (Arc::clone(built.entry(spec.clone()).or_default()), number)
        };
        let mut entry = entry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &*entry {
            return Ok(path.clone());
        }
        let output = self.directory.join(format!("image-{number}"));
        let path = self.build(spec, &output)?;
        *entry = Some(path.clone());
        Ok(path)
    }

    /// The boot bundle alone: what is in an image beside the kernel.
    pub fn bundle(&self, spec: &Spec) -> Result<PathBuf> {
        self.make(spec, &self.directory.join("bundle"), "bundle", "bundle")
    }

    /// Runs `image-builder datastore`.
    pub fn datastore(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new(&self.builder).arg("datastore").args(arguments).output()?;
        if !output.status.success() {
            fail!(
                "image-builder datastore {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    fn build(&self, spec: &Spec, output: &Path) -> Result<PathBuf> {
        if spec.iso {
            self.make(spec, output, "iso", "iso")
        } else {
            self.make(spec, output, "disk", "img")
        }
    }

    fn make(&self, spec: &Spec, output: &Path, format: &str, wanted: &str) -> Result<PathBuf> {
        let _ = fs::remove_dir_all(output);
        fs::create_dir_all(output)?;
        let mut command = Command::new(&self.builder);
        let description = output.join("system.toml");
        fs::write(&description, spec.system.text())?;
        command
            .current_dir(&self.root)
            .args(["build", "--quiet"])
            .arg("--system")
            .arg(&description);
        command.arg("--output").arg(output).arg("--format").arg(format);
        if let Some(programs) = std::env::var_os("TESSERA_PROGRAMS") {
            command.arg("--programs").arg(programs);
        }
        for set in &spec.sets {
            command.arg("--set").arg(set);
        }
        if let Some(line) = &spec.command_line {
            command.arg("--command-line").arg(line);
        }
        let result = command.output()?;
        if !result.status.success() {
            fail!(
                "image-builder failed on {} {:?}: {}",
                description.display(),
                spec.sets,
                String::from_utf8_lossy(&result.stderr).trim()
            );
        }
        fs::read_dir(output)?
            .filter_map(|e| e.ok().map(|e| e.path()))
            .find(|p| p.extension().is_some_and(|e| e == wanted))
            .ok_or_else(|| Failure::new(format!("image-builder wrote no .{wanted} file to {}", output.display())))
    }
}
