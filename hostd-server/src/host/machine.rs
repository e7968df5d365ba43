//! Virtual machines: how they are made up, how they are, their consoles and screens.

use crate::model::{DiskController, NicModel};
use alloc::{string::String, vec::Vec};
use core::task::{Context, Poll};

/// Where a guest's kernel or file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the image.
    Image(String),
    /// In a datastore, at a path.
    Store(String, String),
}

/// What a machine without a kernel begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestFirmware {
    /// A PC's BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// What a machine's watchdog does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watchdog {
    /// It resets the machine.
    Reset,
    /// It switches it off.
    PowerOff,
}

/// A disk of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// Datastore.
    pub store: String,
    /// Path of the virtual disk, or of a file (ISO) that is shown read-only.
    pub path: String,
    /// The guest may not write.
    pub read_only: bool,
    /// By what the guest reaches it. What is in a CD drive is always at the drive's own.
    pub controller: DiskController,
}

/// A network card of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicSpec {
    /// Port group.
    pub network: String,
    /// Address.
    pub mac: [u8; 6],
    /// Its link is up.
    pub connected: bool,
    /// What it is to the guest.
    pub model: NicModel,
}

/// How a machine is made up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmSpec {
    /// Name.
    pub name: String,
    /// RAM.
    pub memory: u64,
    /// Virtual processors.
    pub vcpus: u32,
    /// Weight of its vCPUs (shares).
    pub shares: u32,
    /// Least MHz it is to get.
    pub reservation_mhz: u32,
    /// Most MHz it may use.
    pub limit_mhz: Option<u32>,
    /// Firmware, which boots from disks and the CD drive; `None`: the kernel is loaded.
    pub firmware: Option<GuestFirmware>,
    /// Kernel, Multiboot kernel or boot sector, without firmware.
    pub kernel: Option<Place>,
    /// Initial RAM disk.
    pub initramfs: Option<Place>,
    /// The kernel's command line.
    pub command_line: String,
    /// Disks in order.
    pub disks: Vec<DiskSpec>,
    /// Network cards in order.
    pub nics: Vec<NicSpec>,
    /// CD in the drive.
    pub cdrom: Option<DiskSpec>,
    /// What its firmware boots from, in this order: `cdrom`, `disk`, `nic`, and `disk.1` for the second of its kind. Empty: as it likes.
    pub boot_order: Vec<String>,
    /// Milliseconds that its firmware offers a menu.
    pub boot_menu_ms: u16,
    /// Its watchdog; `None`: it has none.
    pub watchdog: Option<Watchdog>,
    /// Addresses of the PCI functions of the host that it has for itself.
    pub passthrough: Vec<String>,
}

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmRun {
    /// Off.
    Off,
    /// Running.
    On,
    /// Stopped between two instructions, its memory kept.
    Suspended,
    /// Its monitor failed.
    Failed,
}

/// A machine as the host sees it.
#[derive(Clone, Debug)]
pub struct VmFacts {
    /// Name.
    pub name: String,
    /// State.
    pub run: VmRun,
    /// It runs, but its guest put it to sleep, with its memory kept (ACPI S3).
    pub asleep: bool,
    /// Why it last ended; empty if it never did.
    pub reason: String,
    /// Guest's addresses, as its agent tells them; none without one.
    pub addresses: Vec<String>,
    /// Which start of the machine it runs since: another number for each. `None`: it is off.
    pub start: Option<u64>,
    /// How often its kernel said that it panicked, since that start.
    pub panics: u32,
    /// How often it did not come by at its watchdog in time, likewise. What a watchdog switched off keeps it until the next start.
    pub watchdog_timeouts: u32,
}

/// What to do to a machine's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmPower {
    /// Start.
    Start,
    /// As if its power failed.
    Stop,
    /// Ask the guest to shut down (ACPI).
    Shutdown,
    /// As if its reset button was pressed.
    Reset,
    /// Stop it and keep its memory.
    Suspend,
    /// Go on.
    Resume,
    /// Wakes its guest, which put it to sleep.
    Wake,
}

/// A serial console.
pub trait Console {
    /// Reads some of what the guest wrote, the scrollback first; 0: it ended.
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<usize>;
    /// Types bytes; how many were taken. 0: it ended.
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<usize>;
}

/// What somebody wants of a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScreenView {
    /// RFB 3.8, without a password.
    Rfb,
    /// A picture of now, in PNG.
    Picture {
        /// By how much it is made smaller, 1 to 8.
        divisor: u8,
    },
}
