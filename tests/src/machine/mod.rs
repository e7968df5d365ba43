//! An emulated machine, its serial ports in our hands: QEMU, which emulates AMD-V, or Bochs, which emulates VT-x.

pub mod bochs;
mod connect;
mod counter;
mod disks;
mod nics;
mod qemu;

pub use counter::Counter;
pub use disks::{Bus, Disk, Monitor};
pub use nics::{Forward, Model, Network, Nic};
pub use qemu::ovmf;

use crate::{Failure, Result, serial::Serial};
use std::{
    fmt,
    path::{Path, PathBuf},
    process::Child,
    time::Instant,
};

/// Firmware that starts the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS, or the BIOS of Bochs.
    Bios,
    /// OVMF; QEMU alone.
    Uefi,
}

/// Whose IOMMU a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iommu {
    /// Intel's VT-d, as QEMU has it by default: addresses of 39 bits, tables of 3 levels.
    Vtd,
    /// The same with addresses of 48 bits, that remembers what it did not find, and could remap interrupts.
    VtdWide,
    /// AMD-Vi.
    Amd,
}

/// What emulates the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Emulator {
    /// QEMU: a processor with AMD-V.
    Qemu,
    /// Bochs: a processor with VT-x, five to ten times as slow.
    Bochs,
}

impl Emulator {
    /// Both, in the order in which results are shown.
    pub const ALL: [Self; 2] = [Self::Qemu, Self::Bochs];

    /// Why it cannot be used here, if it cannot.
    #[must_use]
    pub fn lacks(self) -> Option<String> {
        match self {
            Self::Qemu => None,
            Self::Bochs => bochs::Program::find().err().map(|failure| failure.0),
        }
    }
}

impl fmt::Display for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Qemu => "QEMU",
            Self::Bochs => "Bochs",
        })
    }
}

/// What the machine is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the test, for the log files.
    pub name: String,
    /// What emulates it.
    pub emulator: Emulator,
    /// Disk image, ISO (`.iso`), or Linux kernel (for the harness's own tests; QEMU alone).
    pub boot: PathBuf,
    /// Firmware.
    pub firmware: Firmware,
    /// Processors.
    pub cpus: u32,
    /// RAM in MiB.
    pub memory: u32,
    /// One instruction is one TSC tick, and each run is like the last. QEMU runs all processors on one host thread for it; Bochs always does, and repeats runs of one
    /// processor alone.
    pub icount: bool,
    /// Executed instructions are counted, which needs the plugin of tests/counter; QEMU alone. Time goes as with `icount`, but what a disk takes it takes by the host's clock: a
    /// machine that waits must not run through its timers.
    pub counted: bool,
    /// QEMU runs its processors by turns on one thread, but by the clock of the machine that it runs on; Bochs always does. Where its processors run side by side, one that loads
    /// the state of its FPU damages the first one's when that enters or leaves a guest.
    pub turns: bool,
    /// A second serial port, on which test servers report.
    pub second_port: bool,
    /// The machine may restart itself; else a restart ends it.
    pub restarts: bool,
    /// Its IOMMU, and disks that go through it; QEMU alone.
    pub iommu: Option<Iommu>,
    /// Disks beside the one that it boots from.
    pub disks: Vec<Disk>,
    /// Network cards.
    pub nics: Vec<Nic>,
    /// Features that its processors lack, by the emulator's names.
    pub lacks: Vec<&'static str>,
    /// Another BIOS than the emulator's; Bochs alone.
    pub bios: Option<PathBuf>,
    /// QEMU's monitor can be used.
    pub monitor: bool,
    /// What its clock says when it starts; else what this machine's says.
    pub date: Option<Date>,
    /// More arguments for QEMU.
    pub extra: Vec<String>,
}

/// A date, in each emulator's words.
#[derive(Clone, Copy, Debug)]
pub struct Date {
    /// As QEMU takes it, UTC.
    pub text: &'static str,
    /// In seconds since 1970.
    pub seconds: u64,
}

impl Date {
    /// Long past, for hosts whose clock is to be put right.
    pub const PAST: Self = Self {
        text: "2026-01-01T00:00:00",
        seconds: 1_767_225_600,
    };
}

impl Config {
    /// Two processors, 2 GiB, BIOS.
    #[must_use]
    pub fn new(name: &str, emulator: Emulator, boot: &Path) -> Self {
        Self {
            name: name.into(),
            emulator,
            boot: boot.into(),
            firmware: Firmware::Bios,
            cpus: 2,
            memory: 2048,
            icount: false,
            date: None,
            counted: false,
            turns: false,
            second_port: false,
            restarts: false,
            iommu: None,
            disks: Vec::new(),
            nics: Vec::new(),
            lacks: Vec::new(),
            bios: None,
            monitor: false,
            extra: Vec::new(),
        }
    }

    /// The name as log files have it: those of the two emulators stand side by side.
    fn file_stem(&self) -> String {
        let name = self.name.replace('/', "-");
        match self.emulator {
            Emulator::Qemu => name,
            Emulator::Bochs => format!("{name}.bochs"),
        }
    }
}

/// A running machine. It ends with this value, and with this process.
pub struct Machine {
    process: Process,
    /// COM1.
    pub serial: Serial,
    /// COM2.
    pub second: Option<Serial>,
    /// QEMU's monitor.
    pub monitor: Option<Monitor>,
    counter: Option<Counter>,
}

impl Machine {
    /// Starts the machine; logs go to `logs`, and every wait ends at `deadline`.
    pub fn start(config: &Config, logs: &Path, deadline: Instant) -> Result<Self> {
        let started = match config.emulator {
            Emulator::Qemu => qemu::start(config, logs)?,
            Emulator::Bochs => bochs::start(config, logs)?,
        };
        let stem = config.file_stem();
        let open = |name: &str, line: Line, log: &str| {
            Serial::new(name, line.reader, line.writer, &logs.join(log), deadline).map(|s| s.with_emulator_log(logs.join(&started.log)))
        };
        let second = started
            .second
            .map(|line| open("second serial port", line, &format!("{stem}.com2.log")));
        Ok(Self {
            process: started.process,
            serial: open("serial", started.first, &format!("{stem}.log"))?,
            second: second.transpose()?,
            monitor: started.monitor,
            counter: started.counter,
        })
    }

    /// The count of its instructions.
    pub fn counter(&self) -> Result<&Counter> {
        self.counter
            .as_ref()
            .ok_or_else(|| Failure::new("this machine was started without counting its instructions"))
    }

    /// The second serial port.
    pub fn com2(&mut self) -> Result<&mut Serial> {
        self.second
            .as_mut()
            .ok_or_else(|| Failure::new("this machine was started without a second serial port"))
    }

    /// Whether the emulator still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.0.try_wait(), Ok(None))
    }
}

/// A serial line of a machine that was just started.
pub struct Line {
    /// What the machine sends.
    pub reader: Box<dyn std::io::Read + Send>,
    /// What it receives.
    pub writer: Box<dyn std::io::Write + Send>,
}

/// An emulator that was just started.
pub struct Started {
    /// Its process.
    pub process: Process,
    /// COM1.
    pub first: Line,
    /// COM2.
    pub second: Option<Line>,
    /// QEMU's monitor.
    pub monitor: Option<Monitor>,
    /// What it executed.
    pub counter: Option<Counter>,
    /// Name of the log in which it says why it ended.
    pub log: String,
}

/// The emulator's process, which ends with this value.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then both calls have nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
