//! Virtual machines as a whole, served by init. Only servers to which the manifest grants it (`vm_manager` = use of `init`) are heard.

use crate::{
    Page,
    declare::interface,
    vm_memory::{DiskConfig, NicConfig},
    wire,
};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// What a virtual machine is doing, as far as init knows. Its VMM knows more, see `vm_control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmState {
    /// Not started, or ended in order.
    Stopped,
    /// Its VMM runs.
    Running,
    /// Its VMM failed; `reason` says why.
    Failed,
    /// Its state is in a file, and it can be resumed.
    Suspended,
}

/// A virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSummary {
    /// Name.
    pub name: String,
    /// State.
    pub state: VmState,
    /// RAM in bytes.
    pub memory: u64,
    /// Virtual processors.
    pub vcpus: u32,
    /// Host pages it takes beyond its RAM: VMM, VMX and their kernel objects. 0 if it does not run.
    pub overhead_pages: u64,
    /// How often it was started since boot.
    pub starts: u32,
    /// TSC of the last start.
    pub started_tsc: u64,
    /// Why it last ended; empty if it never did.
    pub reason: String,
}

/// A service of a virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmService {
    /// `vm_control`, served by its VMM.
    Control,
    /// `vm_console`, served by its VMX.
    Console,
}

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilePlace {
    /// In the image.
    Image {
        /// Its name in the manifest.
        name: String,
    },
    /// In a datastore.
    Store {
        /// The datastore.
        store: String,
        /// Path of the file in it.
        path: String,
    },
}

/// What firmware can boot from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootDevice {
    /// What is in the CD-ROM drive.
    Cdrom,
    /// A disk, by its number from 0 on.
    Disk(u8),
    /// The network, by a card's number from 0 on.
    Nic(u8),
}

impl BootDevice {
    /// The device of a word: `cdrom`, `disk`, `nic`, and `disk.1` or `nic.1` for the second of its kind.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let (kind, number) = match word.split_once('.') {
            Some((kind, number)) => (kind, Some(number.parse().ok()?)),
            None => (word, None),
        };
        match (kind, number) {
            ("cdrom", None) => Some(Self::Cdrom),
            ("disk", number) => Some(Self::Disk(number.unwrap_or(0))),
            ("nic", number) => Some(Self::Nic(number.unwrap_or(0))),
            _ => None,
        }
    }
}

/// What happens when a guest does not come by at its watchdog in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchdogAction {
    /// It is reset.
    Reset,
    /// It is switched off.
    PowerOff,
}

/// Most entries of a boot order.
pub const MAX_BOOT_ORDER: usize = 16;

/// What a virtual machine begins with, if not with a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Firmware {
    /// A PC's BIOS; it is the image's file `bios`.
    Bios,
    /// UEFI; it is the image's file `uefi`.
    Uefi,
}

/// How a virtual machine is made up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmConfig {
    /// Name, unique: letters, digits, `-`, `_` and `.`, at most [`MAX_NAME`].
    pub name: String,
    /// RAM in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// Virtual processors, 1 to 8.
    pub vcpus: u32,
    /// Weight of its vCPU threads among their equals, 1 to 10000 (100: normal).
    pub weight: u32,
    /// Budget of each vCPU in microseconds per period; 0: unlimited.
    pub budget_us: u64,
    /// Period in microseconds.
    pub period_us: u64,
    /// Firmware, which boots from disk or CD-ROM.
    pub firmware: Option<Firmware>,
    /// The kernel: a Linux bzImage, a Multiboot kernel or a boot sector. With firmware it is the firmware's file, whatever is said here.
    pub kernel: FilePlace,
    /// The initial RAM disk.
    pub initramfs: Option<FilePlace>,
    /// The kernel's command line.
    pub command_line: String,
    /// It has a screen, a keyboard, a mouse and a USB tablet.
    pub display: bool,
    /// What is in the CD-ROM drive, which a machine with firmware has.
    pub cdrom: Option<FilePlace>,
    /// Where the variables of its firmware are kept: a file in a datastore. Without, they last as long as the machine runs.
    pub variables: Option<FilePlace>,
    /// What its firmware boots from, in this order; empty: as the firmware likes. At most [`MAX_BOOT_ORDER`].
    #[serde(with = "wire::list")]
    pub boot_order: Vec<BootDevice>,
    /// How long its firmware offers a menu of what to boot from, in milliseconds; 0: not at all.
    pub boot_menu_ms: u16,
    /// What its watchdog does; none: it has no watchdog.
    pub watchdog: Option<WatchdogAction>,
    /// Disks, in the order in which the guest sees them.
    #[serde(with = "wire::list")]
    pub disks: Vec<DiskConfig>,
    /// Network cards, likewise.
    #[serde(with = "wire::list")]
    pub nics: Vec<NicConfig>,
    /// PCI functions of the host that it has for itself, by their addresses, such as `0000:03:00.0`.
    #[serde(with = "wire::list")]
    pub passthrough: Vec<String>,
}

/// Most bytes of a machine's name.
pub const MAX_NAME: usize = 64;

/// A PCI function of the host that a machine has for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedInfo {
    /// What the manifest says.
    pub wanted: String,
    /// Where it is on the host's bus; empty: there is none.
    pub address: String,
    /// Vendor and device.
    pub identity: (u16, u16),
    /// Base class, sub-class, programming interface.
    pub class: (u8, u8, u8),
}

/// A PCI function of the host, which is no bridge, and whether a machine can have it for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFunction {
    /// Segment, bus, device and function, such as `0000:03:00.0`.
    pub address: String,
    /// Vendor and device.
    pub identity: (u16, u16),
    /// Base class, sub-class, programming interface.
    pub class: (u8, u8, u8),
    /// An IOMMU confines it to the memory of whoever has it.
    pub confined: bool,
    /// It can raise no interrupts but its own.
    pub remapped: bool,
    /// The server that drives it; empty: none.
    pub server: String,
    /// The running machine that has it; empty: none.
    pub machine: String,
    /// It is kept for machines: no server gets it.
    pub kept: bool,
    /// Other functions of its device: a machine has to have them too.
    #[serde(with = "wire::list")]
    pub together: Vec<String>,
    /// Why no machine can have it; empty: one can.
    pub problem: String,
}

interface! {
    /// Makes, lists, starts and stops virtual machines, and connects to them.
    vm_manager = 3;

    /// Virtual machines, from the `first`th on.
    0 idempotent fn list(first: u32) -> Page<VmSummary>;
    /// Starts a machine that is stopped, or has one that is suspended go on, as `resume` does.
    1 once fn start(name: &'a str) -> ();
    /// Ends a running machine at once, as if its power failed, and takes back its memory. One that is suspended is stopped then, as if its power had failed: its state is given up. Whoever asks removes the file (`state_file`); while it is there yet, the next start does.
    2 once fn stop(name: &'a str) -> ();
    /// Gives an Endpoint on which to call a service of the machine. It stays good when the serving process is restarted, and dies with the machine.
    3 idempotent fn connect(name: &'a str, service: VmService) gives 1 -> ();
    /// How a machine is made up.
    4 idempotent fn config(name: &'a str) -> VmConfig;
    /// Makes a machine, which is stopped. init forgets it when the host restarts: whoever manages the machines keeps them.
    5 once fn create(config: VmConfig) -> ();
    /// Makes a stopped machine up anew, maybe under another name.
    6 once fn configure(name: &'a str, config: VmConfig) -> ();
    /// Forgets a stopped machine. Its disks stay.
    7 once fn remove(name: &'a str) -> ();
    /// Signals the Notification that comes along whenever a machine is made, changed, removed, starts or ends; replaces the caller's earlier one.
    8 idempotent fn follow() takes 1 -> ();
    /// Says what is in the CD-ROM drive of a machine with firmware, also while it runs; its monitor is told by `vm_media.change`.
    9 idempotent fn set_medium(name: &'a str, medium: Option<FilePlace>) -> ();
    /// Says in which file of a datastore the machine's state is, or is to be when its monitor is told to suspend it (`vm_control.suspend`).
    10 idempotent fn set_state_file(name: &'a str, file: Option<FilePlace>) -> ();
    /// Starts a machine that does not run with the state that is in its file. The file is removed before the guest goes on, unless it is to be kept: then whoever asks makes sure that the disks are what they were.
    11 once fn resume(name: &'a str, keep: bool) -> ();
    /// The file that a suspended machine goes on from and that is removed then, as far as is known; none: it is not suspended, or the file stays.
    12 idempotent fn state_file(name: &'a str) -> Option<FilePlace>;
    /// PCI functions of the host that a machine has for itself.
    13 idempotent fn passthrough(name: &'a str) -> Vec<PassedInfo>;
    /// PCI functions of the host but for bridges, from the `first`th on.
    14 idempotent fn functions(first: u32) -> Page<HostFunction>;
    /// Keeps a function that a machine is made up with for machines, until none is: no server gets it at its next start, and one that drives it is started again at once, without it. Whoever asks makes sure that nothing uses the function by way of that server.
    15 idempotent fn keep_function(address: &'a str) -> ();
}
