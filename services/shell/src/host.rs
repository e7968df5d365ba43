//! The system behind the shell, as commands see it. `main.rs` implements it over capabilities, tests in memory.

mod networks;

pub use networks::{NetworkChange, Networks};

use crate::shared::{LogText, TraceRing};
use alloc::{string::String, vec::Vec};
use tessera_abi::virt::VirtFeatures;
use tessera_proto::{
    CallError,
    datastore::{ChangedRanges, DatastoreInfo, EntryInfo, NewDisk},
    iommu::{DomainInfo, FaultInfo, IommuInfo},
    network::{Exercise, NicInfo},
    storage::{DiskEvent, DiskInfo, PartitionInfo},
    supervisor::{CapabilityInfo, EndpointInfo, LogChunk, MemoryInfo, PciFunction, ServerInfo, SystemInfo, ThreadInfo, WriteExecute},
    vm_console::ConsoleChunk,
    vm_control::{Registers, VcpuExits, VmInfo, VmMemory},
    vm_manager::{FilePlace, PassedInfo, VmConfig, VmSummary},
    vm_media::Medium,
    vm_screen::ScreenInfo,
};

/// What the system answers.
pub type Answer<T> = Result<T, CallError>;

/// The machine as the kernel sees it (`Trace` capability).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// `tessera_abi::boot::Features` bits in use.
    pub features: u64,
    /// TSC ticks per second.
    pub tsc_hz: u64,
    /// Processors.
    pub cpus: u32,
    /// Virtualisation: 0 none, 1 VT-x, 2 AMD-V.
    pub backend: u64,
    /// What the virtualisation hardware offers.
    pub virt_found: VirtFeatures,
    /// What of it is used.
    pub virt_used: VirtFeatures,
}

impl Machine {
    /// The virtualisation backend's name.
    #[must_use]
    pub const fn backend_name(&self) -> &'static str {
        match self.backend {
            0 => "none",
            1 => "VT-x",
            2 => "AMD-V",
            _ => "unknown",
        }
    }
}

/// Counters of a processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuCounters {
    /// APIC identity.
    pub apic: u32,
    /// Idle TSC ticks.
    pub idle: u64,
    /// Interrupts.
    pub interrupts: u64,
    /// Context switches.
    pub switches: u64,
    /// TSC of this answer.
    pub tsc: u64,
    /// TLB shoot-downs.
    pub shootdowns: u64,
}

/// An interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqCounters {
    /// In use.
    pub used: bool,
    /// Interrupts so far.
    pub count: u64,
    /// Line; `None` for a message-signalled one.
    pub line: Option<u32>,
    /// Processor that takes it.
    pub cpu: u32,
    /// Masked until acknowledged.
    pub masked: bool,
}

/// Stands for the kernel where `supervisor.check_wx` takes a server's number.
pub const KERNEL: u64 = u64::MAX;

/// How the machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Starts again.
    Reboot,
    /// Switches off.
    PowerOff,
    /// The kernel panics, so that its panic record can be looked at after the restart.
    Panic,
}

/// What is to be changed in a datastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Change<'a> {
    /// Make a folder.
    Folder { store: &'a str, path: &'a str },
    /// Make a virtual disk.
    Disk { store: &'a str, path: &'a str, options: NewDisk },
    /// Make a disk larger.
    Grow { store: &'a str, path: &'a str, size: u64 },
    /// Rename or move.
    Move { store: &'a str, from: &'a str, to: &'a str },
    /// Remove.
    Remove { store: &'a str, path: &'a str },
    /// Take a snapshot.
    Snapshot { store: &'a str, disk: &'a str, name: &'a str },
    /// Remove a snapshot.
    Forget { store: &'a str, disk: &'a str, name: &'a str },
    /// Go back to a snapshot.
    Revert { store: &'a str, disk: &'a str, name: &'a str },
    /// Make a disk of a snapshot.
    Clone {
        store: &'a str,
        disk: &'a str,
        name: &'a str,
        path: &'a str,
    },
    /// Make a datastore.
    Format { disk: &'a str, partition: u32, label: &'a str },
}

impl Change<'_> {
    /// What it is, in the infinitive.
    #[must_use]
    pub const fn doing(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "make the folder",
            Self::Disk { .. } => "make the disk",
            Self::Grow { .. } => "make the disk larger",
            Self::Move { .. } => "move it",
            Self::Remove { .. } => "remove it",
            Self::Snapshot { .. } => "take the snapshot",
            Self::Forget { .. } => "remove the snapshot",
            Self::Revert { .. } => "go back to the snapshot",
            Self::Clone { .. } => "clone the snapshot",
            Self::Format { .. } => "make the datastore",
        }
    }
}

/// The running system. Whatever asks init, the kernel or a machine's servers answers their refusal, or that they cannot be reached, as an error.
#[allow(clippy::missing_errors_doc)]
pub trait Host: Networks {
    /// The present TSC.
    fn now(&mut self) -> u64;
    /// The shell's own server name.
    fn own_name(&self) -> &str;

    /// The machine and its software.
    fn system(&mut self) -> Answer<SystemInfo>;
    /// All servers.
    fn servers(&mut self) -> Answer<Vec<ServerInfo>>;
    /// Threads of a server.
    fn threads(&mut self, server: u64) -> Answer<Vec<ThreadInfo>>;
    /// Capabilities of a server.
    fn capabilities(&mut self, server: u64) -> Answer<Vec<CapabilityInfo>>;
    /// Named endpoints.
    fn endpoints(&mut self) -> Answer<Vec<EndpointInfo>>;
    /// PCI functions.
    fn pci(&mut self) -> Answer<Vec<PciFunction>>;
    /// `iommu.info`.
    fn iommu(&mut self) -> Answer<IommuInfo>;
    /// `iommu.domains`, all pages.
    fn iommu_domains(&mut self) -> Answer<Vec<DomainInfo>>;
    /// `iommu.faults`, all pages.
    fn iommu_faults(&mut self) -> Answer<Vec<FaultInfo>>;
    /// Disks.
    fn disks(&mut self) -> Answer<Vec<DiskInfo>>;
    /// Partitions of a disk.
    fn partitions(&mut self, disk: &str) -> Answer<Vec<PartitionInfo>>;
    /// What happened to a disk lately.
    fn disk_events(&mut self, disk: &str) -> Answer<Vec<DiskEvent>>;
    /// Bytes of a disk, `length` from byte `offset` of a sector on.
    fn disk_read(&mut self, disk: &str, sector: u64, offset: u32, length: u32) -> Answer<Vec<u8>>;
    /// Fills sectors with a pattern and reads them back.
    fn disk_exercise(&mut self, disk: &str, sector: u64, count: u32, seed: u64) -> Answer<()>;
    /// Datastores.
    fn datastores(&mut self) -> Answer<Vec<DatastoreInfo>>;
    /// What is in a folder of a datastore.
    fn datastore_browse(&mut self, store: &str, folder: &str) -> Answer<Vec<EntryInfo>>;
    /// What is known of something in a datastore.
    fn datastore_stat(&mut self, store: &str, path: &str) -> Answer<EntryInfo>;
    /// Snapshots of a disk, oldest first.
    fn datastore_snapshots(&mut self, store: &str, disk: &str) -> Answer<Vec<EntryInfo>>;
    /// A number to ask with later what changed.
    fn datastore_change_id(&mut self, store: &str, disk: &str) -> Answer<u64>;
    /// What changed since then, from a byte on.
    fn datastore_changed(&mut self, store: &str, disk: &str, since: u64, from: u64) -> Answer<ChangedRanges>;
    /// Changes something.
    fn datastore_change(&mut self, change: &Change<'_>) -> Answer<()>;
    /// Network cards.
    fn nics(&mut self) -> Answer<Vec<NicInfo>>;
    /// Has a card ask for addresses.
    fn nic_exercise(&mut self, nic: &str, rounds: u32) -> Answer<Exercise>;
    /// Where the memory is.
    fn memory(&mut self) -> Answer<MemoryInfo>;
    /// Ends a server.
    fn kill(&mut self, server: &str) -> Answer<()>;
    /// Starts a server anew.
    fn restart(&mut self, server: &str) -> Answer<()>;
    /// The log from a cursor on.
    fn log(&mut self, cursor: u64) -> Answer<LogChunk>;
    /// From now on, new log lines wake the terminal's wait.
    fn follow_log(&mut self) -> Answer<()>;

    /// Virtual machines.
    fn vms(&mut self) -> Answer<Vec<VmSummary>>;
    /// How one is made up.
    fn vm_config(&mut self, name: &str) -> Answer<VmConfig>;
    /// The PCI functions of the host that it has for itself.
    fn vm_passthrough(&mut self, name: &str) -> Answer<Vec<PassedInfo>>;
    /// Makes one.
    fn vm_create(&mut self, config: VmConfig) -> Answer<()>;
    /// Forgets one that is stopped.
    fn vm_remove(&mut self, name: &str) -> Answer<()>;
    /// Starts one.
    fn vm_start(&mut self, name: &str) -> Answer<()>;
    /// Ends one at once.
    fn vm_stop(&mut self, name: &str) -> Answer<()>;
    /// State of one from the inside.
    fn vm_info(&mut self, name: &str) -> Answer<VmInfo>;
    /// Exit counters.
    fn vm_exits(&mut self, name: &str, vcpu: u32) -> Answer<VcpuExits>;
    /// What it does with its memory.
    fn vm_memory(&mut self, name: &str) -> Answer<VmMemory>;
    /// Asks it to do without so many bytes of it.
    fn vm_set_balloon(&mut self, name: &str, bytes: u64) -> Answer<()>;
    /// Registers.
    fn vm_registers(&mut self, name: &str, vcpu: u32) -> Answer<Registers>;
    /// What is in its CD-ROM drive.
    fn vm_medium(&mut self, name: &str) -> Answer<Medium>;
    /// Puts something into the drive, or takes out what is there; `running`: its guest is told, too.
    fn vm_set_medium(&mut self, name: &str, medium: Option<FilePlace>, running: bool) -> Answer<()>;
    /// Has its state written to this file; it ends then.
    fn vm_suspend(&mut self, name: &str, file: FilePlace) -> Answer<()>;
    /// Has it go on with the state that was written.
    fn vm_resume(&mut self, name: &str) -> Answer<()>;
    /// Presses the reset button.
    fn vm_reset(&mut self, name: &str) -> Answer<()>;
    /// Presses the power button.
    fn vm_power_button(&mut self, name: &str) -> Answer<()>;
    /// Sends a non-maskable interrupt.
    fn vm_nmi(&mut self, name: &str, vcpu: u32) -> Answer<()>;
    /// What its screen shows.
    fn vm_screen(&mut self, name: &str) -> Answer<ScreenInfo>;
    /// Lines of text on its screen, from the `first`th on.
    fn vm_screen_text(&mut self, name: &str, first: u32) -> Answer<String>;
    /// Types at its keyboard; returns how many bytes were taken.
    fn vm_type(&mut self, name: &str, text: &str) -> Answer<u32>;

    /// Opens a machine's console, or attaches again to the open one; its output wakes the terminal's wait.
    fn console_open(&mut self, name: &str) -> Answer<()>;
    /// Output from a cursor on.
    fn console_read(&mut self, cursor: u64) -> Answer<ConsoleChunk>;
    /// Input; returns how many bytes were taken.
    fn console_write(&mut self, data: &[u8]) -> Answer<usize>;
    /// Closes it.
    fn console_close(&mut self);

    /// The machine as the kernel sees it.
    fn machine(&mut self) -> Answer<Machine>;
    /// Counters of a processor; `None` past the last.
    fn cpu(&mut self, cpu: u32) -> Answer<Option<CpuCounters>>;
    /// Counters of an interrupt; `None` past the last.
    fn irq(&mut self, index: u32) -> Answer<Option<IrqCounters>>;
    /// Looks for writable and executable pages in a server, or in the kernel ([`KERNEL`]).
    fn check_wx(&mut self, server: u64) -> Answer<WriteExecute>;
    /// Ends the machine.
    fn reset(&mut self, how: Reset) -> Answer<()>;
    /// Chooses the events that are recorded.
    fn trace_mask(&mut self, mask: u64) -> Answer<()>;
    /// A processor's trace ring; `None` if there is none or it was not granted.
    fn trace_ring(&self, cpu: u32) -> Option<TraceRing<'_>>;
    /// What the kernel printed; `None` if it was not granted.
    fn kernel_log(&self) -> Option<LogText<'_>>;
    /// What the last panic left; empty if there was none.
    fn panic_record(&self) -> String;
}
