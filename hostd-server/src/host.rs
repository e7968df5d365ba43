//! What hostd asks of the rest of the host. The host implements it with messages to other servers, tests and the developer's machine with a simulation.
//!
//! Things are named as the servers name them; object identifiers such as `vm-12` are hostd's alone. Sizes are bytes.

pub use crate::model::{DiskController, NicModel};
use crate::{future::LocalFuture, http::BodySource};
use alloc::{boxed::Box, string::String, vec::Vec};
use core::task::{Context, Poll};
pub use tessera_vswitch::{Mirror, Security, Shaping, Teaming};

/// Why something could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no such thing.
    NotFound,
    /// There is one already.
    Exists,
    /// It is in use, or in a state that forbids it.
    Busy,
    /// No room, or no memory.
    NoSpace,
    /// It cannot be as it was asked for.
    Invalid,
    /// This host cannot do that.
    Unsupported,
    /// The server that does it does not answer now.
    Unavailable,
    /// It was tried and went wrong.
    Failed,
}

/// A failure and what to tell about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostError {
    /// Kind.
    pub failure: Failure,
    /// What happened to what, a sentence.
    pub message: String,
}

impl HostError {
    /// A failure with its sentence.
    pub fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self {
            failure,
            message: message.into(),
        }
    }
}

/// What a host answers, when it does.
pub type Reply<'a, T> = LocalFuture<'a, Result<T, HostError>>;

/// The machine.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// Product's version.
    pub version: String,
    /// What tells this build from others.
    pub build: String,
    /// Maker of the machine.
    pub vendor: String,
    /// Its model.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// Model of the processors.
    pub cpu_model: String,
    /// Sockets.
    pub sockets: u32,
    /// Cores.
    pub cores: u32,
    /// Processors as the kernel counts them.
    pub threads: u32,
    /// Clock rate in MHz.
    pub cpu_mhz: u32,
    /// `VT-x` or `AMD-V`.
    pub virtualization: String,
    /// Memory.
    pub memory: u64,
    /// Name and state (`green`, `yellow`, `red`, `gray`) of each sensor.
    pub sensors: Vec<(String, String, String)>,
}

/// What is used now. Ticks and counts only grow; rates are made of differences.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Memory in use.
    pub memory: u64,
    /// Processor time used by everything, in microseconds, all processors together.
    pub cpu_us: u64,
    /// Milliseconds since power-on.
    pub uptime_ms: u64,
    /// Of each server.
    pub servers: Vec<ServerUsage>,
    /// Of each running machine.
    pub vms: Vec<VmUsage>,
    /// Bytes read and written by all disks.
    pub disk: (u64, u64),
    /// Bytes received and sent by all network cards.
    pub network: (u64, u64),
}

/// What a server uses.
#[derive(Clone, Debug, Default)]
pub struct ServerUsage {
    /// Name.
    pub name: String,
    /// Processor time in microseconds.
    pub cpu_us: u64,
    /// Memory.
    pub memory: u64,
    /// It is part of a machine, whose own counters tell more.
    pub of_vm: bool,
}

/// What a machine uses.
#[derive(Clone, Debug, Default)]
pub struct VmUsage {
    /// Name.
    pub name: String,
    /// Processor time in microseconds, guest and exits.
    pub cpu_us: u64,
    /// Memory that the guest touched.
    pub memory: u64,
    /// Bytes read and written.
    pub disk: (u64, u64),
    /// Bytes received and sent.
    pub network: (u64, u64),
    /// Exits.
    pub exits: u64,
    /// Milliseconds since its start.
    pub uptime_ms: u64,
}

/// A server's state.
#[derive(Clone, Debug, Default)]
pub struct ServerFacts {
    /// Name.
    pub name: String,
    /// `starting`, `running`, `waiting` or `ended`.
    pub state: String,
    /// The machine that it belongs to.
    pub vm: Option<String>,
    /// How often it was started again.
    pub restarts: u32,
    /// Threads.
    pub threads: u32,
    /// Memory.
    pub memory: u64,
    /// Why it last ended; empty if it never did.
    pub last_end: String,
}

/// A named endpoint between servers: who may call whom.
#[derive(Clone, Debug, Default)]
pub struct EndpointFacts {
    /// Its interface.
    pub interface: String,
    /// Who calls.
    pub from: String,
    /// Who serves.
    pub to: String,
    /// Calls since the start.
    pub calls: u64,
}

/// A capability of a server.
#[derive(Clone, Debug, Default)]
pub struct CapabilityFacts {
    /// Name under which it was granted; empty: the server made it.
    pub name: String,
    /// Kind of object.
    pub kind: String,
    /// Rights, as letters.
    pub rights: String,
    /// Number of the object: equal for capabilities to the same object.
    pub object: u64,
    /// Size in the object's unit: pages, ports, slots.
    pub size: u64,
}

/// A line of the log.
#[derive(Clone, Debug, Default)]
pub struct LogFacts {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// Server.
    pub source: String,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// Text.
    pub message: String,
}

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

/// A PCI function of the host, which is no bridge.
#[derive(Clone, Debug, Default)]
pub struct FunctionFacts {
    /// Address, such as `0000:03:00.0`.
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
    /// No server gets it any more.
    pub kept: bool,
    /// Other functions of its device.
    pub together: Vec<String>,
    /// Why no machine can have it; empty: one can.
    pub problem: String,
    /// What the host uses it for, which it does not give up; empty: nothing.
    pub used: String,
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

/// What to do to the host's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPower {
    /// Start again.
    Reboot,
    /// Switch off.
    Shutdown,
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

/// A datastore.
#[derive(Clone, Debug, Default)]
pub struct StoreFacts {
    /// Name.
    pub name: String,
    /// Disk it is on.
    pub device: String,
    /// Size.
    pub capacity: u64,
    /// Free.
    pub free: u64,
    /// What all disks and files would take if they were full.
    pub provisioned: u64,
    /// Why it cannot be used; empty if it can.
    pub problem: String,
}

/// Kind of an entry of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Folder.
    Folder,
    /// File.
    File,
    /// Virtual disk.
    Disk,
}

/// An entry of a folder.
#[derive(Clone, Debug)]
pub struct EntryFacts {
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: EntryKind,
    /// Size; of a disk, what is provisioned.
    pub size: u64,
    /// What it takes.
    pub allocated: u64,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
}

/// A file being written.
pub trait FileSink {
    /// Writes some of `bytes`; how many were taken.
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, HostError>>;
    /// Ready when everything that was written is safe.
    fn poll_sync(&mut self, context: &mut Context<'_>) -> Poll<Result<(), HostError>>;
}

/// A disk drive of the host.
#[derive(Clone, Debug, Default)]
pub struct DeviceFacts {
    /// Name.
    pub name: String,
    /// Model.
    pub model: String,
    /// Kind: driver or bus.
    pub kind: String,
    /// Size.
    pub size: u64,
    /// Bytes of a sector.
    pub sector_size: u32,
    /// `green`, `yellow`, `red` or `gray`.
    pub health: String,
}

/// A virtual switch.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SwitchSpec {
    /// Name.
    pub name: String,
    /// Largest packet.
    pub mtu: u32,
    /// Network cards of the host that are its uplinks.
    pub uplinks: Vec<String>,
    /// The rest of what it says; what is set without stays as it is.
    #[serde(default)]
    pub policies: Option<SwitchPolicies>,
}

/// What a switch says about the ports of its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SwitchPolicies {
    /// What they may do.
    pub security: Security,
    /// Their limits.
    pub shaping: Shaping,
    /// Their uplinks.
    pub teaming: Teaming,
    /// Ports that are watched.
    pub mirrors: Vec<Mirror>,
}

/// What a port group has of its own; `None`: its switch's.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GroupPolicies {
    /// Limits of its ports.
    pub shaping: Option<Shaping>,
    /// Their uplinks.
    pub teaming: Option<Teaming>,
}

/// A port group.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortGroupSpec {
    /// Name.
    pub name: String,
    /// Its switch.
    pub switch: String,
    /// VLAN; 0: untagged, 4095: all, tagged.
    pub vlan: u16,
    /// Its ports see everything.
    pub promiscuous: bool,
    /// Guests may change their address.
    pub mac_changes: bool,
    /// Guests may send from others' addresses.
    pub forged_transmits: bool,
    /// The rest of what it says; what is set without stays as it is.
    #[serde(default)]
    pub policies: Option<GroupPolicies>,
}

/// A port of a switch.
#[derive(Clone, Debug, Default)]
pub struct PortFacts {
    /// Name.
    pub name: String,
    /// Who is there.
    pub kind: PortKind,
    /// The switch.
    pub switch: String,
    /// The port group; an uplink has none.
    pub group: Option<String>,
    /// VLAN; 0: untagged, 4095: all, tagged.
    pub vlan: u16,
    /// The address in use.
    pub mac: String,
    /// Link.
    pub link_up: bool,
    /// Nothing goes in or out: it uses an address that it must not have.
    pub blocked: bool,
    /// The uplink that it uses now.
    pub uplink: Option<String>,
    /// Frames and bytes that came from it.
    pub received: (u64, u64),
    /// Frames and bytes that it was given.
    pub sent: (u64, u64),
    /// Frames for many, of both.
    pub multicast: u64,
    /// Names of the reasons why frames were dropped, the same in words, and how many.
    pub dropped: Vec<(String, String, u64)>,
}

/// Who is at a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortKind {
    /// A machine.
    #[default]
    Machine,
    /// A server of the host.
    Host,
    /// A network card of the host.
    Uplink,
}

/// A recording of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureFacts {
    /// Number.
    pub id: u32,
    /// The port.
    pub port: String,
    /// Bytes of each frame that are kept.
    pub snap: u32,
    /// Bytes that wait to be read.
    pub waiting: u32,
    /// Frames that were recorded.
    pub frames: u64,
    /// Frames that found no room.
    pub lost: u64,
    /// It goes on.
    pub running: bool,
}

/// A network card of the host.
#[derive(Clone, Debug, Default)]
pub struct NicFacts {
    /// Name.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// Address.
    pub mac: String,
    /// Link.
    pub link_up: bool,
    /// Speed in Mbit/s; 0 unknown.
    pub speed_mbps: u32,
}

/// The host's own network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceSpec {
    /// Name, such as `vmk0`.
    pub name: String,
    /// Port group.
    pub port_group: String,
    /// Address.
    pub mac: String,
    /// Gets its addresses by DHCP.
    pub dhcp: bool,
    /// IPv4 address: set, or got.
    pub ipv4: Option<String>,
    /// Its network mask.
    pub netmask: Option<String>,
    /// Router.
    pub gateway: Option<String>,
    /// IPv6 addresses.
    pub ipv6: Vec<String>,
}

/// Names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsSpec {
    /// The host's name.
    pub host_name: String,
    /// Its domain.
    pub domain: String,
    /// Servers, as addresses.
    pub servers: Vec<String>,
    /// Domains that are tried.
    pub search: Vec<String>,
    /// Servers and domains come by DHCP.
    pub dhcp: bool,
}

/// Time servers and what they say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeFacts {
    /// The clock follows the servers.
    pub synchronized: bool,
    /// How far the clock was off at the last answer, in microseconds.
    pub offset_us: Option<i64>,
    /// The server that was heard last.
    pub server: Option<String>,
    /// How fast the clock runs, in parts per billion.
    pub drift_ppb: Option<i64>,
}

/// The host's certificate.
#[derive(Clone, Debug, Default)]
pub struct CertificateFacts {
    /// Subject.
    pub subject: String,
    /// Issuer.
    pub issuer: String,
    /// Milliseconds since 1970.
    pub not_before_ms: u64,
    /// Milliseconds since 1970.
    pub not_after_ms: u64,
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub fingerprint: String,
    /// It vouches for itself.
    pub self_signed: bool,
}

/// How the line begins that shows the first password on the host's console, and nowhere else.
pub const FIRST_PASSWORD: &str = "Log in as root with the password ";

/// Everything that hostd asks of the host.
pub trait Host {
    /// The machine.
    fn facts(&self) -> Reply<'_, HostFacts>;
    /// What is used now.
    fn usage(&self) -> Reply<'_, Usage>;
    /// Switches the host off, or starts it again.
    fn host_power(&self, action: HostPower) -> Reply<'_, ()>;

    /// Servers.
    fn servers(&self) -> Reply<'_, Vec<ServerFacts>>;
    /// Who calls whom.
    fn endpoints(&self) -> Reply<'_, Vec<EndpointFacts>>;
    /// A server's capabilities.
    fn capabilities<'a>(&'a self, server: &'a str) -> Reply<'a, Vec<CapabilityFacts>>;
    /// Starts a server again.
    fn restart_server<'a>(&'a self, server: &'a str) -> Reply<'a, ()>;
    /// The newest lines of the log, oldest first, of one server or (empty) of all.
    fn log<'a>(&'a self, source: &'a str, most: usize) -> Reply<'a, Vec<LogFacts>>;
    /// What the image is made of: component, version, licence.
    fn licences(&self) -> Reply<'_, Vec<(String, String, String)>>;

    /// PCI functions but for bridges.
    fn functions(&self) -> Reply<'_, Vec<FunctionFacts>>;

    /// Machines that the host knows.
    fn vms(&self) -> Reply<'_, Vec<VmFacts>>;
    /// How a machine that the host knows is made up.
    fn vm_spec<'a>(&'a self, name: &'a str) -> Reply<'a, VmSpec>;
    /// Makes a machine known, or makes a stopped one up anew. It is stopped.
    fn define_vm<'a>(&'a self, old_name: Option<&'a str>, spec: &'a VmSpec) -> Reply<'a, ()>;
    /// Puts something into the drive of a machine with firmware, or takes out what is there, also while it runs.
    fn change_medium<'a>(&'a self, name: &'a str, medium: Option<DiskSpec>) -> Reply<'a, ()>;
    /// Forgets a stopped machine.
    fn forget_vm<'a>(&'a self, name: &'a str) -> Reply<'a, ()>;
    /// Starts, stops, …
    fn vm_power<'a>(&'a self, name: &'a str, action: VmPower) -> Reply<'a, ()>;
    /// Its serial console.
    fn vm_console<'a>(&'a self, name: &'a str) -> Reply<'a, Box<dyn Console>>;
    /// Its screen: bytes of RFB both ways, or those of a picture.
    fn vm_screen<'a>(&'a self, name: &'a str, view: ScreenView) -> Reply<'a, Box<dyn Console>>;
    /// Presses keys together (make codes of scan code set 1, a prefix E0 as upper byte), then types a text, at its keyboard.
    fn vm_type<'a>(&'a self, name: &'a str, keys: &'a [u16], text: &'a str) -> Reply<'a, ()>;
    /// Has the guest's agent bring its file systems to rest, so that their disks are as after an unmount, or let them go on.
    fn vm_freeze<'a>(&'a self, name: &'a str, frozen: bool) -> Reply<'a, ()>;
    /// Writes a running machine's memory and devices' state into a file. It is suspended afterwards; then [`Host::restore_vm`] has it go on.
    fn save_vm<'a>(&'a self, name: &'a str, store: &'a str, path: &'a str) -> Reply<'a, ()>;
    /// Makes a stopped machine go on from such a file.
    fn restore_vm<'a>(&'a self, name: &'a str, store: &'a str, path: &'a str) -> Reply<'a, ()>;

    /// Disk drives.
    fn devices(&self) -> Reply<'_, Vec<DeviceFacts>>;
    /// Datastores.
    fn stores(&self) -> Reply<'_, Vec<StoreFacts>>;
    /// Makes a datastore on a drive. What is on it is lost.
    fn create_store<'a>(&'a self, device: &'a str, name: &'a str) -> Reply<'a, ()>;
    /// Has a datastore use all of its drive.
    fn grow_store<'a>(&'a self, name: &'a str) -> Reply<'a, ()>;
    /// Removes a datastore and all that is in it.
    fn remove_store<'a>(&'a self, name: &'a str) -> Reply<'a, ()>;
    /// What is in a folder, by name.
    fn browse<'a>(&'a self, store: &'a str, folder: &'a str) -> Reply<'a, Vec<EntryFacts>>;
    /// What is known of an entry.
    fn stat<'a>(&'a self, store: &'a str, path: &'a str) -> Reply<'a, EntryFacts>;
    /// Makes a folder.
    fn create_folder<'a>(&'a self, store: &'a str, path: &'a str) -> Reply<'a, ()>;
    /// Gives an entry another name or folder.
    fn rename<'a>(&'a self, store: &'a str, from: &'a str, to: &'a str) -> Reply<'a, ()>;
    /// Removes a file, an empty folder, or a disk with its snapshots.
    fn remove<'a>(&'a self, store: &'a str, path: &'a str) -> Reply<'a, ()>;
    /// Reads a file, or the contents of a disk, from `offset` on; `length` bytes or to the end.
    fn read_file<'a>(&'a self, store: &'a str, path: &'a str, offset: u64, length: Option<u64>) -> Reply<'a, Box<dyn BodySource>>;
    /// Writes a file from `offset` on, which is not past its end; it is made if `offset` is 0, and then what was there is replaced.
    fn write_file<'a>(&'a self, store: &'a str, path: &'a str, offset: u64) -> Reply<'a, Box<dyn FileSink>>;
    /// Makes a virtual disk.
    fn create_disk<'a>(&'a self, store: &'a str, path: &'a str, size: u64, thick: bool) -> Reply<'a, ()>;
    /// Makes a disk larger.
    fn grow_disk<'a>(&'a self, store: &'a str, path: &'a str, size: u64) -> Reply<'a, ()>;
    /// Takes a snapshot of a disk.
    fn snapshot_disk<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str) -> Reply<'a, ()>;
    /// Removes a snapshot.
    fn remove_snapshot<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str) -> Reply<'a, ()>;
    /// Makes a disk what it was.
    fn revert_disk<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str) -> Reply<'a, ()>;
    /// Makes a disk that goes on from a snapshot.
    fn clone_disk<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str, to: &'a str) -> Reply<'a, ()>;

    /// Network cards.
    fn nics(&self) -> Reply<'_, Vec<NicFacts>>;
    /// Virtual switches.
    fn switches(&self) -> Reply<'_, Vec<SwitchSpec>>;
    /// Makes a switch, or changes the one of that name.
    fn set_switch<'a>(&'a self, name: &'a str, spec: &'a SwitchSpec) -> Reply<'a, ()>;
    /// Removes a switch without port groups.
    fn remove_switch<'a>(&'a self, name: &'a str) -> Reply<'a, ()>;
    /// Port groups.
    fn port_groups(&self) -> Reply<'_, Vec<PortGroupSpec>>;
    /// Makes a port group, or changes the one of that name.
    fn set_port_group<'a>(&'a self, name: &'a str, spec: &'a PortGroupSpec) -> Reply<'a, ()>;
    /// Removes a port group that nothing is connected to.
    fn remove_port_group<'a>(&'a self, name: &'a str) -> Reply<'a, ()>;
    /// Ports of all switches.
    fn ports(&self) -> Reply<'_, Vec<PortFacts>>;
    /// Recordings of ports.
    fn captures(&self) -> Reply<'_, Vec<CaptureFacts>>;
    /// Begins one of a port that keeps up to `snap` bytes of each frame; its number.
    fn start_capture<'a>(&'a self, port: &'a str, snap: u32) -> Reply<'a, u32>;
    /// What there is of its file (pcapng) from byte `from` on, all or a part. What lies before is forgotten.
    fn read_capture(&self, id: u32, from: u64) -> Reply<'_, Vec<u8>>;
    /// Ends one; its file can still be read.
    fn stop_capture(&self, id: u32) -> Reply<'_, ()>;
    /// Forgets one.
    fn remove_capture(&self, id: u32) -> Reply<'_, ()>;
    /// The host's own interfaces.
    fn interfaces(&self) -> Reply<'_, Vec<InterfaceSpec>>;
    /// Changes an interface of the host a moment later, so that the answer gets to whoever asked; connections may end. If nobody who may log in is heard within a minute then,
    /// it becomes what it was. Of `ipv6`, those with a slash are set by hand.
    fn set_interface<'a>(&'a self, spec: &'a InterfaceSpec) -> Reply<'a, ()>;
    /// Somebody who is logged in was heard: the host can be reached as it is.
    fn reached(&self) {}
    /// Sets name and resolver.
    fn set_dns<'a>(&'a self, spec: &'a DnsSpec) -> Reply<'a, ()>;
    /// Addresses of a name.
    fn resolve<'a>(&'a self, name: &'a str) -> Reply<'a, Vec<String>>;
    /// Sets the time servers; none: the clock runs free.
    fn set_time_servers<'a>(&'a self, servers: &'a [String]) -> Reply<'a, ()>;
    /// What the time servers say.
    fn time(&self) -> Reply<'_, TimeFacts>;
    /// The certificate.
    fn certificate(&self) -> Reply<'_, CertificateFacts>;
    /// Replaces certificate chain and key, both PEM.
    fn set_certificate<'a>(&'a self, chain: &'a str, key: &'a str) -> Reply<'a, ()>;
    /// Makes a new certificate of the host's own with this host name and the present addresses.
    fn renew_certificate<'a>(&'a self, name: &'a str) -> Reply<'a, ()>;
    /// Writes to the host's own console.
    fn announce(&self, line: &str);
}
