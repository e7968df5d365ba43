//! What every test gets: images to boot, machines to boot them on, a watchdog.

use crate::{
    Result,
    cases::has_guests,
    image::{Images, Spec},
    machine::{Config, Emulator, Firmware, Machine, ovmf},
    shell::Host,
    systems::System,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Shared by all tests of a run.
pub struct Environment {
    /// The project's root.
    pub root: PathBuf,
    /// Where logs go.
    pub logs: PathBuf,
    /// Image cache.
    pub images: Images,
    /// Watchdogs are multiplied by this (`TESSERA_WATCHDOG_FACTOR`), for slow or busy machines.
    pub patience: u32,
    /// Tests that repeat something do it often (`TESSERA_LONG`).
    pub long: bool,
}

impl Environment {
    /// Prepares `build/test-logs` and `build/test-images`.
    pub fn new() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .map_or_else(PathBuf::new, Path::to_path_buf);
        let logs = root.join("build/test-logs");
        fs::create_dir_all(&logs)?;
        let images = Images::new(&root, &root.join("build/test-images").join(std::process::id().to_string()))?;
        let patience = std::env::var("TESSERA_WATCHDOG_FACTOR")
            .ok()
            .and_then(|v| v.parse().ok())
            .unwrap_or(1);
        Ok(Self {
            root,
            logs,
            images,
            patience,
            long: std::env::var_os("TESSERA_LONG").is_some(),
        })
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        // Images are large and quickly made; a leftover only costs disk space.
        let _ = fs::remove_dir_all(self.root.join("build/test-images").join(std::process::id().to_string()));
    }
}

/// One test's view.
pub struct Context<'a> {
    /// What all tests share.
    pub environment: &'a Environment,
    /// The test's name.
    pub name: &'a str,
    /// What its machines are emulated by.
    pub emulator: Emulator,
    /// When its watchdog bites.
    pub deadline: Instant,
}

impl<'a> Context<'a> {
    /// Starts the watchdog.
    #[must_use]
    pub fn new(environment: &'a Environment, name: &'a str, emulator: Emulator, limit: Duration) -> Self {
        Self {
            environment,
            name,
            emulator,
            deadline: Instant::now() + limit * environment.patience,
        }
    }

    /// The delivered system.
    pub fn product(&self) -> Result<System> {
        Ok(System::product(&self.environment.root)?)
    }

    /// A machine for an image; change it before [`Self::start`].
    pub fn config(&self, spec: &Spec) -> Result<Config> {
        let image = self.environment.images.get(spec)?;
        Ok(Config {
            turns: has_guests(self.name),
            ..Config::new(self.name, self.emulator, &image)
        })
    }

    /// Starts a machine.
    pub fn start(&self, config: &Config) -> Result<Machine> {
        let mut machine = Machine::start(config, &self.environment.logs, self.deadline)?;
        machine.serial.fatal("kernel panic on processor");
        machine.serial.fatal("Kernel panic - not syncing");
        Ok(machine)
    }

    /// Builds the image, starts the machine and waits for the debug shell.
    pub fn boot(&self, spec: &Spec, change: impl FnOnce(&mut Config)) -> Result<Host> {
        let mut config = self.config(spec)?;
        change(&mut config);
        Host::new(self.start(&config)?)
    }

    /// Why a test that needs this firmware has to be skipped, if it has to.
    #[must_use]
    pub fn lacks(&self, firmware: Firmware) -> Option<&'static str> {
        (firmware == Firmware::Uefi && ovmf().is_none()).then_some("OVMF is not installed (Debian package ovmf)")
    }

    /// A file that `make setup` or the build makes, or why it is missing.
    pub fn guest_file(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.environment.root.join("build/guests").join(name);
        if path.exists() {
            Ok(path)
        } else {
            Err(format!("{} is missing: run `make setup`", path.display()))
        }
    }
}
