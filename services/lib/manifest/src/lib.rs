//! The boot manifest: which servers there are, from which programs, with which capabilities, priorities and memory. It is the system's
//! security policy: what a server was not given here, it cannot reach.
//!
//! `image-builder` writes it from `system.toml`; init decodes it; nobody else sees it. A server gets its own part as a [`StartInfo`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod passthrough;

pub use passthrough::{MAX_PASSED, PassedFunction, PciWhich};

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};
pub use tessera_proto::vm_manager::{BootDevice, MAX_BOOT_ORDER, WatchdogAction};
use tessera_vswitch::Switch;

/// Changes when an old reader could misunderstand a new manifest.
pub const MANIFEST_VERSION: u32 = 6;

/// Everything init needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// Product name and version, for banners.
    pub product: String,
    /// Programs in the bundle.
    pub programs: Vec<Program>,
    /// Other files in the bundle (guest kernels, initial RAM disks).
    pub files: Vec<File>,
    /// Named endpoints; init creates them before any server, and they outlive the servers.
    pub endpoints: Vec<String>,
    /// Servers in start order. Those with `per_vm` are templates, instantiated for each virtual machine that is started.
    pub servers: Vec<Server>,
    /// Virtual machines known from the start.
    pub vms: Vec<Vm>,
    /// Virtual switches; none: whoever drives the network cards makes what is usual.
    pub switches: Vec<Switch>,
}

/// A program, laid out in the bundle as it will stand in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Name that servers refer to.
    pub name: String,
    /// Entry point.
    pub entry: u64,
    /// Loadable segments.
    pub segments: Vec<ProgramSegment>,
}

/// A segment of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramSegment {
    /// Page-aligned address.
    pub address: u64,
    /// Page-aligned offset in the bundle.
    pub offset: u64,
    /// Bytes from the bundle, a multiple of the page size (0 for pure zero memory).
    pub file_length: u64,
    /// Bytes in memory, a multiple of the page size, not below `file_length`; the rest is zero.
    pub memory_length: u64,
    /// `tessera_abi::object::Rights` bits. Segments without the write right are mapped from the bundle itself and shared by all instances.
    pub rights: u8,
}

/// A file in the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Name.
    pub name: String,
    /// Page-aligned offset in the bundle.
    pub offset: u64,
    /// Exact length; the last page is padded with zeros.
    pub length: u64,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Name; instances of a template are called `name.vm`.
    pub name: String,
    /// Program.
    pub program: String,
    /// Instantiated for each virtual machine instead of at boot.
    pub per_vm: bool,
    /// Priority of its first thread and upper bound for the others, 0 to 63.
    pub priority: u8,
    /// Weight among its equals (100: normal).
    pub weight: u32,
    /// Budget in microseconds per period; 0: unlimited.
    pub budget_us: u64,
    /// Period in microseconds.
    pub period_us: u64,
    /// Processor of its first thread; `None`: init spreads them.
    pub cpu: Option<u32>,
    /// The first thread uses no FPU (`thread::NO_FPU`).
    pub no_fpu: bool,
    /// Bytes of heap, mapped from the start at `HEAP_BASE`.
    pub heap: u64,
    /// The same for the instances of machines with a display.
    pub screen_heap: u64,
    /// Bytes of the first thread's stack.
    pub stack: u64,
    /// Bytes of `Untyped` for what the server makes by itself (threads, reply objects, vCPUs).
    pub untyped: u64,
    /// As much more for each virtual processor of an instance's machine.
    pub vcpu_untyped: u64,
    /// Most bytes that init lends the server for its devices to work in.
    pub device_memory: u64,
    /// Slots of the capability table, a power of two.
    pub slots: u32,
    /// What happens when it ends.
    pub restart: Restart,
    /// What it may reach.
    pub grants: Vec<Grant>,
    /// Words that the program understands, handed over in `StartInfo`.
    pub arguments: Vec<String>,
}

/// What happens when a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restart {
    /// It is started again, with back-off when it ends often.
    Always,
    /// It stays ended.
    Never,
}

/// One thing a server may reach, under the name by which its program asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Name in `StartInfo`.
    pub name: String,
    /// What it is.
    pub resource: Resource,
}

/// What a grant gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// The right to receive on the named endpoint: the server provides this service.
    Provide {
        /// Endpoint.
        endpoint: String,
    },
    /// The right to call the named endpoint, badged with the server's number.
    Use {
        /// Endpoint; `init` is init's own.
        endpoint: String,
    },
    /// A range of I/O ports.
    IoPorts {
        /// First port.
        first: u16,
        /// Number of ports.
        count: u32,
    },
    /// An interrupt line (global system interrupt; 0 to 15: ISA line).
    Irq {
        /// Line.
        line: u32,
    },
    /// Device registers.
    Mmio {
        /// Physical address, page-aligned.
        address: u64,
        /// Length in bytes, a multiple of the page size.
        length: u64,
    },
    /// Memory that the server shares with another one. It is init's: neither takes it from the other by ending, and what stands in it outlives both. The other finds it as the grant
    /// `shared.N.NAME`, N being this server's number.
    Share {
        /// The other server.
        server: String,
        /// Length in bytes, a multiple of the page size.
        length: u64,
    },
    /// A file of the bundle, read-only.
    File {
        /// Name.
        file: String,
    },
    /// The kernel's log, panic record and trace rings, read-only.
    KernelLog,
    /// The `Trace` capability: event mask, statistics of processors, restart of the machine.
    Trace,
    /// `IrqControl` to read statistics of interrupts (no right to take one).
    IrqStatistics,
    /// Every PCI function of a class: its registers, ports and interrupts, as [`StartDevice`]s. Configuration space stays init's.
    Pci {
        /// Class.
        class: PciClass,
    },
}

/// A class of PCI functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PciClass {
    /// Base class 1: disks.
    Storage,
    /// Base class 2: network cards.
    Network,
}

impl PciClass {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Storage, Self::Network];

    /// The base class (PCI Code and ID Assignment 1.11).
    #[must_use]
    pub const fn base(self) -> u8 {
        match self {
            Self::Storage => 1,
            Self::Network => 2,
        }
    }

    /// As it is written in `system.toml`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Network => "network",
        }
    }
}

/// A virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// Name, unique.
    pub name: String,
    /// RAM in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// Virtual processors, 1 to 8.
    pub vcpus: u32,
    /// Firmware that it begins with, if no kernel is booted directly.
    pub firmware: Option<Firmware>,
    /// File with the kernel, or with the firmware.
    pub kernel: GuestFile,
    /// File with the initial RAM disk.
    pub initramfs: Option<GuestFile>,
    /// Kernel command line.
    pub command_line: String,
    /// It has a screen, a keyboard and a mouse.
    pub display: bool,
    /// File that is in its CD-ROM drive; it has one if there is firmware.
    pub cdrom: Option<GuestFile>,
    /// Where the variables of its firmware are kept, in a datastore.
    pub variables: Option<GuestFile>,
    /// What its firmware boots from, in this order; empty: as the firmware likes. At most [`MAX_BOOT_ORDER`].
    pub boot_order: Vec<BootDevice>,
    /// How long its firmware offers a menu of what to boot from, in milliseconds; 0: not at all.
    pub boot_menu_ms: u16,
    /// What its watchdog does; none: it has no watchdog.
    pub watchdog: Option<WatchdogAction>,
    /// Start at boot.
    pub autostart: bool,
    /// Weight of its vCPU threads among their equals.
    pub weight: u32,
    /// Budget of each vCPU in microseconds per period; 0: unlimited.
    pub budget_us: u64,
    /// Period in microseconds.
    pub period_us: u64,
    /// Its disks, in the order in which the guest sees them; at most [`MAX_DISKS`].
    pub disks: Vec<VmDisk>,
    /// Its network cards, in the order in which the guest sees them; at most [`MAX_NICS`].
    pub nics: Vec<VmNic>,
    /// PCI functions of the host that it has for itself; at most [`MAX_PASSED`]. No server gets them.
    pub passthrough: Vec<PassedFunction>,
}

/// Firmware of a virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Firmware {
    /// A PC's BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

impl Firmware {
    /// Name of the file in the bundle that holds it.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }
}

/// Most network cards of one virtual machine.
pub const MAX_NICS: usize = 8;

/// What a network card is to a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NicModel {
    /// A virtio network device.
    #[default]
    Virtio,
    /// Intel's 82574L, which every PC's system has a driver for.
    E1000e,
}

/// A network card of a virtual machine. Whoever serves it learns this from init; the machine's own servers only name its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmNic {
    /// Name of the port group that it is connected to.
    pub port_group: String,
    /// Its address: no group address, not all zero.
    pub mac: [u8; 6],
    /// What it is to the guest.
    pub model: NicModel,
}

/// A file that a machine is started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestFile {
    /// In the bundle.
    Image(String),
    /// In a datastore.
    Store {
        /// The datastore.
        store: String,
        /// Path of the file in it.
        path: String,
    },
}

/// Most disks of one virtual machine.
pub const MAX_DISKS: usize = 8;

/// What a guest reaches a disk by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskController {
    /// A virtio block device of its own.
    #[default]
    Virtio,
    /// A port of a SATA host adapter, which every PC's system has a driver for.
    Ahci,
}

/// A disk of a virtual machine. Whoever serves it learns this from init; the machine's own servers only name its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmDisk {
    /// Where its bytes are.
    pub backing: DiskBacking,
    /// The guest cannot write it.
    pub read_only: bool,
    /// Serial number that the guest sees, up to 20 bytes of ASCII; empty: none.
    pub serial: String,
    /// What the guest reaches it by.
    pub controller: DiskController,
}

/// Where a disk's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskBacking {
    /// A disk of the host, or a partition of it.
    Device {
        /// Its name, such as `nvme0`.
        device: String,
        /// Number of the partition from 1 on; 0: the whole disk.
        partition: u32,
    },
    /// A virtual disk in a datastore.
    Store {
        /// The datastore.
        store: String,
        /// Path of the disk in it.
        disk: String,
    },
}

/// Bit in the badge of fault messages to init, beside the server's number.
pub const FAULT_BADGE: u64 = 1 << 32;

/// Slots that every server finds filled.
pub mod slots {
    /// The server's own CNode.
    pub const CNODE: u32 = 1;
    /// Its AddressSpace.
    pub const ADDRESS_SPACE: u32 = 2;
    /// Its first Thread.
    pub const THREAD: u32 = 3;
    /// Its `Untyped`, if the manifest gives one.
    pub const UNTYPED: u32 = 4;
    /// init's Endpoint, badged with the server's number: log lines, exit, panic reports, faults.
    pub const INIT: u32 = 5;
    /// The first thread's SchedContext.
    pub const SCHED_CONTEXT: u32 = 6;
    /// A Reply for the first thread.
    pub const REPLY: u32 = 7;
    /// A Notification for the first thread, bound to it (all rights, no badge).
    pub const NOTIFICATION: u32 = 8;
    /// init's Endpoint once more, as the fault handler of the server's threads: its badge is the server's number with [`super::FAULT_BADGE`], so that no message can be taken for a fault.
    pub const FAULT: u32 = 9;
    /// Grants stand from here on.
    pub const GRANTS: u32 = 16;
}

/// What a server is told at its start; postcard, at `tessera_abi::layout::START_INFO`, after its length as a `u64`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartInfo {
    /// Server name.
    pub name: String,
    /// Its number: the badge of its calls to init.
    pub id: u64,
    /// How often it was started before.
    pub restarts: u32,
    /// Length of the heap at `HEAP_BASE`.
    pub heap: u64,
    /// First slot that is free for the server's own use, to the end of the table.
    pub first_free_slot: u32,
    /// Slots of the table.
    pub slots: u32,
    /// TSC ticks per second.
    pub tsc_hz: u64,
    /// TSC when the machine was entered by the kernel: time 0 of logs.
    pub boot_tsc: u64,
    /// Seconds since 1970 at `boot_tsc`.
    pub wall_clock: u64,
    /// Processors of the machine.
    pub cpus: u32,
    /// The first thread's priority.
    pub priority: u8,
    /// What was granted.
    pub grants: Vec<StartGrant>,
    /// Words from the manifest.
    pub arguments: Vec<String>,
    /// For servers of a virtual machine.
    pub vm: Option<StartVm>,
    /// PCI functions that were granted.
    pub devices: Vec<StartDevice>,
    /// Virtual switches, for the server that drives network cards.
    pub switches: Vec<Switch>,
}

/// A PCI function that the server holds. It answers to its registers, and accesses no memory before the server has reset it and asked init for that (`init.bus_master`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartDevice {
    /// Name of the grant.
    pub grant: String,
    /// Segment, bus, device and function, such as `0000:00:1f.2`.
    pub address: String,
    /// The first 256 bytes of its configuration space when it was granted.
    pub configuration: Vec<u8>,
    /// Its ranges of addresses, without what raises its interrupts.
    pub ranges: Vec<StartRange>,
    /// Its interrupts: entry `n` of a table of messages signals the `n`th. Empty: it has to be polled.
    pub interrupts: Vec<StartInterrupt>,
}

/// Part of the addresses to which a PCI function answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRange {
    /// Number of the base address register.
    pub bar: u8,
    /// Slot with the Frame or the IoPorts; 0: none. For a function that a virtual machine has, this is how long the register's whole range is, whose parts follow.
    pub slot: u32,
    /// I/O ports instead of memory.
    pub ports: bool,
    /// First port; else where in the register's range this part begins, in bytes.
    pub start: u64,
    /// Length in ports or bytes.
    pub length: u64,
    /// Where in the Frame it begins: less than a page.
    pub offset: u64,
}

/// An interrupt of a PCI function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartInterrupt {
    /// Slot with the Irq.
    pub slot: u32,
    /// It is a message, which need not be acknowledged.
    pub message: bool,
}

/// A granted capability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartGrant {
    /// Name.
    pub name: String,
    /// Slot.
    pub slot: u32,
    /// Bytes, where the capability is memory; else 0.
    pub length: u64,
}

/// A virtual machine, as its VMM and VMX see it. The VMM finds these grants beside those of the template, by name: `ram.N` (frames that together are the RAM, in order), `kernel`,
/// `initramfs`, `control` (endpoint to receive on), `console.output` and `console.input` (ring frames, see `tessera_ring`), `vmx.signal` and `vmm.signal` (Notifications that
/// say that a ring changed: the VMM signals the first and waits on the second). VMX gets the console grants and its own `control`.
/// Both find what makes a screen, if the machine has one, under the names of `tessera_screen`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartVm {
    /// The machine.
    pub config: Vm,
    /// Processors that vCPU threads should run on, one for each vCPU.
    pub cpus: Vec<u32>,
    /// Priority of the vCPU threads.
    pub vcpu_priority: u8,
    /// What its guest begins with.
    pub begin: Begin,
}

/// What the guest of a machine that is started begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Begin {
    /// Where it was suspended, if there is a file with that state; else anew.
    AsFound,
    /// Anew. A file with the state of a suspended machine is removed first, for it was given up.
    Anew,
    /// The state in the file that init was told, or else in the one that is found.
    State {
        /// The file stays.
        keep: bool,
    },
}

/// What a monitor ends with when its machine's state is in its file.
pub const SUSPENDED: i32 = 17;

impl Manifest {
    /// The manifest's bytes in the bundle.
    ///
    /// # Errors
    /// None that a manifest can cause; the encoder's type allows them.
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }

    /// Reads a manifest; `None` if the bytes are not exactly one of this version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match postcard::take_from_bytes::<Self>(bytes) {
            Ok((manifest, [])) if manifest.version == MANIFEST_VERSION => Some(manifest),
            _ => None,
        }
    }
}

impl StartInfo {
    /// The start information's bytes, without their length.
    ///
    /// # Errors
    /// None that start information can cause; the encoder's type allows them.
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }

    /// Reads start information; `None` if the bytes are not exactly one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match postcard::take_from_bytes(bytes) {
            Ok((info, [])) => Some(info),
            _ => None,
        }
    }

    /// The `heap` field alone, for a program that has no heap yet to decode the rest into.
    #[must_use]
    pub fn heap_of(bytes: &[u8]) -> Option<u64> {
        // The fields before `heap`, in order.
        let ((_name, _id, _restarts, heap), _) = postcard::take_from_bytes::<(&str, u64, u32, u64)>(bytes).ok()?;
        Some(heap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heap_is_found_without_decoding_the_rest() {
        let info = StartInfo {
            name: "storage".into(),
            id: 7,
            restarts: 300,
            heap: 0x12_3000,
            slots: 256,
            ..StartInfo::default()
        };
        let bytes = info.encode().unwrap();
        assert_eq!(StartInfo::heap_of(&bytes), Some(0x12_3000));
        assert_eq!(StartInfo::decode(&bytes), Some(info));
        assert_eq!(StartInfo::decode(&bytes[..bytes.len() - 1]), None);
    }

    #[test]
    fn a_manifest_of_another_version_is_refused() {
        let manifest = Manifest {
            version: MANIFEST_VERSION + 1,
            ..Manifest::default()
        };
        assert_eq!(Manifest::decode(&manifest.encode().unwrap()), None);
    }
}
