//! Virtual machines.
use super::{
    host::Health,
    text::{
        BootDevice, CommandLine, Few, GuestName, Id, Ipv4, Mac, NewPassword, Notes, PciAddress, Ranged, SshKey, StoragePath, UserData,
        UserName, VmName,
    },
};
use alloc::{string::String, vec::Vec};

/// Memory of a machine: 16 MiB to 1 TiB.
pub type Memory = Ranged<16_777_216, 1_099_511_627_776>;
/// Size of a disk: 1 MiB to 16 TiB.
pub type DiskSize = Ranged<1_048_576, 17_592_186_044_416>;
/// Virtual processors.
pub type Vcpus = Ranged<1, 8>;
/// Shares: 1000 is normal.
pub type Shares = Ranged<1, 100_000>;
/// PCI functions of the host that a machine has for itself; as many as a monitor can show its guest.
pub type Passthrough = Few<PciAddress, 4>;
/// Clock rate.
pub type Mhz = Ranged<0, 1_000_000>;

model! {
    /// Power.
    #[derive(Copy, Eq)]
    pub enum PowerState {
        /// Off.
        PoweredOff,
        /// On.
        PoweredOn,
        /// Its memory is kept, it does not run.
        Suspended,
    }

    /// How its guest is.
    #[derive(Copy, Eq)]
    pub enum GuestState {
        /// It does not run.
        NotRunning,
        /// It runs.
        Running,
        /// It put the machine to sleep, with its memory kept (ACPI S3): `start` wakes it.
        Standby,
    }

    /// What a machine starts from.
    #[derive(Copy, Eq)]
    pub enum Firmware {
        /// A kernel that is loaded into its memory.
        Direct,
        /// A PC's BIOS, which starts what is on its disks or in its CD drive.
        Bios,
        /// UEFI firmware, which does the same.
        Uefi,
    }

    /// How it starts.
    pub struct Boot {
        /// What it starts from.
        pub firmware: Firmware,
        /// Kernel, with `direct`.
        pub kernel: Option<StoragePath>,
        /// Initial RAM disk.
        pub initramfs: Option<StoragePath>,
        /// The kernel's command line.
        pub command_line: Option<CommandLine>,
        /// What the firmware boots from, in this order; left out or empty: as it likes.
        pub order: Option<Few<BootDevice, 16>>,
        /// Seconds that the firmware offers a menu of what to boot from; left out or 0: not at all.
        pub menu_seconds: Option<Ranged<0, 60>>,
    }

    /// What happens to a machine that something went wrong in.
    #[derive(Copy, Eq, Default)]
    pub enum IncidentAction {
        /// Nothing. As its watchdog's: it has none.
        #[default]
        None,
        /// It is reset.
        Reset,
        /// It is switched off.
        PowerOff,
    }

    /// What went wrong in a machine.
    #[derive(Copy, Eq)]
    pub enum VmAlarmKind {
        /// Its kernel said that it panicked.
        GuestPanicked,
        /// It did not come by at its watchdog in time.
        WatchdogExpired,
    }

    /// An alarm of a machine. It stays until somebody clears it or the machine starts anew.
    pub struct VmAlarm {
        /// What went wrong.
        pub kind: VmAlarmKind,
        /// How often.
        pub count: u32,
        /// When it was last seen.
        pub time: String,
    }

    /// By what a guest reaches a disk.
    #[derive(Copy, Eq, Default)]
    pub enum DiskController {
        /// A virtio block device.
        #[default]
        Virtio,
        /// A SATA host adapter (AHCI), for systems without a driver of virtio; slower.
        Ahci,
    }

    /// What a network card is to a guest.
    #[derive(Copy, Eq, Default)]
    pub enum NicModel {
        /// A virtio network card.
        #[default]
        Virtio,
        /// Intel's 82574L, for systems without a driver of virtio; slower.
        E1000e,
    }

    /// A disk of a machine.
    pub struct VmDisk {
        /// Number.
        pub id: String,
        /// Its datastore.
        pub datastore: String,
        /// Path in it.
        pub path: String,
        /// Size.
        pub size: u64,
        /// The guest may not write.
        pub read_only: bool,
        /// By what the guest reaches it.
        #[serde(default)]
        pub controller: DiskController,
    }

    /// A network card of a machine.
    pub struct VmNic {
        /// Number.
        pub id: String,
        /// Its port group.
        pub network: String,
        /// Address.
        pub mac: String,
        /// Its link is up.
        pub connected: bool,
        /// What it is to the guest.
        #[serde(default)]
        pub model: NicModel,
    }

    /// How a machine is made up.
    pub struct VmConfig {
        /// Name.
        pub name: String,
        /// Guest operating system.
        pub guest_os: String,
        /// Virtual processors.
        pub vcpus: u32,
        /// Memory.
        pub memory: u64,
        /// Shares.
        pub cpu_shares: u32,
        /// Least that it gets.
        pub cpu_reservation_mhz: u32,
        /// Most that it may use.
        pub cpu_limit_mhz: Option<u32>,
        /// Disks.
        pub disks: Vec<VmDisk>,
        /// Network cards.
        pub nics: Vec<VmNic>,
        /// PCI functions of the host that it has for itself.
        #[serde(default)]
        pub passthrough: Vec<String>,
        /// What is in the CD drive.
        pub cdrom: Option<String>,
        /// How it starts.
        pub boot: Boot,
        /// What its watchdog does.
        #[serde(default)]
        pub watchdog: IncidentAction,
        /// What happens when its kernel says that it panicked.
        #[serde(default)]
        pub on_panic: IncidentAction,
        /// It starts with the host.
        pub autostart: bool,
        /// Notes.
        pub notes: String,
    }

    /// What a machine uses.
    pub struct VmUsage {
        /// Processors.
        pub cpu_mhz: f64,
        /// Memory.
        pub memory: u64,
        /// Space of its disks.
        pub disk_bytes: u64,
        /// Seconds since its start.
        pub uptime_seconds: u64,
    }

    /// A machine.
    pub struct Vm {
        /// Identifier.
        pub id: String,
        /// Power.
        pub power_state: PowerState,
        /// How its guest is.
        pub guest_state: GuestState,
        /// Health.
        pub health: Health,
        /// What went wrong in it.
        pub alarms: Vec<VmAlarm>,
        /// Configuration.
        pub config: VmConfig,
        /// Usage.
        pub usage: VmUsage,
        /// Addresses of the guest, as its agent (qemu-guest-agent) tells them.
        pub addresses: Vec<String>,
        /// Snapshots.
        pub snapshot_count: u32,
    }

    /// A disk that a machine is to have: a new one with `size`, or an existing one with `path`.
    pub struct DiskInput {
        /// One that the machine has.
        pub id: Option<Id>,
        /// Datastore.
        pub datastore: Id,
        /// Path of an existing disk.
        pub path: Option<super::text::FilePath>,
        /// Size of a new one; larger than before: it grows.
        pub size: Option<DiskSize>,
        /// The guest may not write.
        pub read_only: Option<bool>,
        /// Space for all of a new one is set aside.
        pub thick: Option<bool>,
        /// By what the guest reaches it; left out: as before, a new one by virtio.
        pub controller: Option<DiskController>,
    }

    /// A network card that a machine is to have.
    pub struct NicInput {
        /// One that the machine has.
        pub id: Option<Id>,
        /// Port group.
        pub network: Id,
        /// Address; left out: one is made.
        pub mac: Option<Mac>,
        /// Its link is up.
        pub connected: Option<bool>,
        /// What it is to the guest; left out: as before, a new one virtio.
        pub model: Option<NicModel>,
    }

    /// A machine to make.
    pub struct VmCreate {
        /// Name.
        pub name: VmName,
        /// Guest operating system, such as `debian12`.
        pub guest_os: Option<Id>,
        /// Virtual processors.
        pub vcpus: Vcpus,
        /// Memory, rounded up to 2 MiB.
        pub memory: Memory,
        /// Shares.
        pub cpu_shares: Option<Shares>,
        /// Least that it gets.
        pub cpu_reservation_mhz: Option<Mhz>,
        /// Most that it may use.
        pub cpu_limit_mhz: Option<Mhz>,
        /// Disks.
        #[serde(default)]
        pub disks: Few<DiskInput, 8>,
        /// Network cards.
        #[serde(default)]
        pub nics: Few<NicInput, 8>,
        /// PCI functions of the host that it has for itself.
        #[serde(default)]
        pub passthrough: Passthrough,
        /// What is in the CD drive.
        pub cdrom: Option<StoragePath>,
        /// How it starts.
        pub boot: Boot,
        /// What its watchdog does. Default: none, it has no watchdog.
        pub watchdog: Option<IncidentAction>,
        /// What happens when its kernel says that it panicked. Default: nothing but an event.
        pub on_panic: Option<IncidentAction>,
        /// It starts with the host.
        pub autostart: Option<bool>,
        /// Notes.
        pub notes: Option<Notes>,
    }

    /// A change of a machine; what is left out stays.
    pub struct VmPatch {
        /// Name.
        pub name: Option<VmName>,
        /// Guest operating system.
        pub guest_os: Option<Id>,
        /// Virtual processors.
        pub vcpus: Option<Vcpus>,
        /// Memory.
        pub memory: Option<Memory>,
        /// Shares.
        pub cpu_shares: Option<Shares>,
        /// Least that it gets.
        pub cpu_reservation_mhz: Option<Mhz>,
        /// Most that it may use; null: no limit.
        #[serde(default, deserialize_with = "super::text::given", skip_serializing_if = "Option::is_none")]
        pub cpu_limit_mhz: Option<Option<Mhz>>,
        /// All its disks from now on; what is missing is taken out and its file stays.
        pub disks: Option<Few<DiskInput, 8>>,
        /// All its network cards.
        pub nics: Option<Few<NicInput, 8>>,
        /// All PCI functions of the host that it has for itself.
        pub passthrough: Option<Passthrough>,
        /// What is in the CD drive; null: nothing.
        #[serde(default, deserialize_with = "super::text::given", skip_serializing_if = "Option::is_none")]
        pub cdrom: Option<Option<StoragePath>>,
        /// How it starts.
        pub boot: Option<Boot>,
        /// What its watchdog does.
        pub watchdog: Option<IncidentAction>,
        /// What happens when its kernel says that it panicked.
        pub on_panic: Option<IncidentAction>,
        /// It starts with the host.
        pub autostart: Option<bool>,
        /// Notes.
        pub notes: Option<Notes>,
    }

    /// A machine whose configuration file is to be taken in.
    pub struct VmRegister {
        /// `vm.json` of a machine in a datastore.
        pub path: StoragePath,
    }

    /// What a guest's cloud-init is told at its first start: an account, or user-data of one's own.
    pub struct Seed {
        /// The guest's name.
        pub host_name: GuestName,
        /// An account that may do everything.
        pub user: Option<UserName>,
        /// Keys with which it is logged in to by SSH.
        #[serde(default)]
        pub ssh_keys: Few<SshKey, 16>,
        /// Its password; the image has only a hash of it. SSH takes it where there is no key. Left out: the account has none.
        pub password: Option<NewPassword>,
        /// The first card's address; left out: DHCP gives it one.
        pub network: Option<SeedNetwork>,
        /// User-data as cloud-init takes it, instead of an account.
        pub user_data: Option<UserData>,
    }

    /// A guest's address.
    pub struct SeedNetwork {
        /// Address.
        pub address: Ipv4,
        /// Bits of its network.
        pub prefix_length: Ranged<1, 32>,
        /// Gateway.
        pub gateway: Option<Ipv4>,
        /// Name servers.
        #[serde(default)]
        pub name_servers: Few<Ipv4, 3>,
    }

    /// A clone to make.
    pub struct CloneRequest {
        /// Its name.
        pub name: VmName,
    }

    /// A snapshot to take.
    pub struct SnapshotCreate {
        /// Name.
        pub name: super::text::Name,
        /// Description.
        pub description: Option<Notes>,
        /// With the memory of the running machine.
        pub with_memory: Option<bool>,
        /// The guest's agent brings its file systems to rest meanwhile; not with memory, of which they are a part.
        pub quiesce: Option<bool>,
    }

    /// A snapshot.
    pub struct Snapshot {
        /// Identifier.
        pub id: String,
        /// Name.
        pub name: String,
        /// Description.
        pub description: String,
        /// When it was taken.
        pub created: String,
        /// Space.
        pub size: u64,
        /// With memory.
        pub with_memory: bool,
        /// The machine goes on from here.
        pub current: bool,
        /// Snapshots that were taken after it.
        pub children: Vec<Snapshot>,
    }

    /// Machines that start with the host, in this order.
    pub struct Autostart {
        /// They are started.
        pub enabled: bool,
        /// Seconds between two.
        pub delay_seconds: Ranged<0, 3600>,
        /// Machines.
        pub order: Few<Id, 256>,
    }
}
