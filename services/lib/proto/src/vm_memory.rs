//! The RAM of virtual machines for servers that serve their devices. init lends it, so that a machine's own servers cannot take it away while it is used.

use crate::{Page, declare::interface, vm_manager::FilePlace, wire};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Where a virtual disk's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskPlace {
    /// A disk of the host, or a partition of it.
    Device {
        /// Its name.
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

/// What a guest reaches a disk by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskController {
    /// A virtio block device of its own.
    Virtio,
    /// A port of a SATA host adapter (AHCI).
    Ahci,
}

/// A virtual disk, as the machine's configuration has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskConfig {
    /// Where its bytes are.
    pub place: DiskPlace,
    /// The guest cannot write it.
    pub read_only: bool,
    /// Serial number; empty: none.
    pub serial: String,
    /// What the guest reaches it by.
    pub controller: DiskController,
}

/// What a network card is to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NicModel {
    /// A virtio network device.
    Virtio,
    /// Intel's 82574L.
    E1000e,
}

/// A virtual network card, as the machine's configuration has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicConfig {
    /// Name of the port group that it is connected to.
    pub port_group: String,
    /// Its address.
    pub mac: [u8; 6],
    /// What it is to the guest.
    pub model: NicModel,
}

/// What a server keeps in a state frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateKind {
    /// How far it is with the queues of the machine's disks.
    Disks,
    /// The same of its network cards.
    Nics,
}

impl StateKind {
    /// Pages of the state frame for each device: a record for each of a disk's four queues, or for each of a network card's nine with what its driver asked for.
    #[must_use]
    pub const fn pages(self) -> usize {
        match self {
            Self::Disks => 5,
            Self::Nics => 10,
        }
    }
}

/// A running machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Its number, which no other start of a machine has.
    pub machine: u64,
    /// Name.
    pub name: String,
    /// RAM in bytes.
    pub memory: u64,
    /// Video RAM in bytes, which is in a suspended machine's state as if it came behind the RAM; 0: the machine has no screen.
    pub video: u64,
    /// Frames that the RAM consists of.
    pub frames: u32,
    /// Its disks.
    #[serde(with = "wire::list")]
    pub disks: Vec<DiskConfig>,
    /// Its kernel, its initial RAM disk, what is in its CD-ROM drive, its state and the variables of its firmware, where they are in a datastore.
    #[serde(with = "wire::list")]
    pub files: Vec<Option<FilePlace>>,
    /// Its network cards.
    #[serde(with = "wire::list")]
    pub nics: Vec<NicConfig>,
}

/// A frame of a machine's RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryFrame {
    /// Guest-physical address of its first byte.
    pub address: u64,
    /// Bytes.
    pub length: u64,
}

/// A machine whose RAM the caller holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loan {
    /// The machine.
    pub machine: u64,
    /// It has ended, and waits for its RAM.
    pub ending: bool,
}

interface! {
    /// Lends the RAM of virtual machines to servers to which the manifest grants it (`guests` = use of `init`).
    vm_memory = 7;

    /// The running machine that a server belongs to, by the server's number (the badge of its calls).
    0 idempotent fn machine(server: u64) -> MachineConfig;
    /// Borrows a machine's RAM: it stays where it is until `release` or the caller's end, even if the machine ends. The Notification is signalled when that happens.
    1 idempotent fn borrow_memory(machine: u64) takes 1 -> ();
    /// Gives a frame of borrowed RAM, by its number from 0 on.
    2 idempotent fn frame(machine: u64, number: u32) gives 1 -> MemoryFrame;
    /// Gives a state frame of the machine, which keeps what the borrower writes there for its successor; all zero at the machine's start. Each belongs to the server that takes it first.
    3 idempotent fn state(machine: u64, kind: StateKind) gives 1 -> ();
    /// Gives RAM back. The caller has unmapped it, and no device works in it any more.
    4 idempotent fn release(machine: u64) -> ();
    /// What the caller has borrowed, from the `first`th on.
    5 idempotent fn loans(first: u32) -> Page<Loan>;
    /// A datastore that was just opened has a file with the state of the suspended machine `name`.
    6 idempotent fn found_state(name: &'a str, file: FilePlace) -> ();
    /// Gives a piece of the video RAM of a machine whose RAM the caller has borrowed. With `make` one is made that is not there yet, all zero; without it that is `NotFound`. It goes with the RAM.
    7 idempotent fn video(machine: u64, piece: u32, make: bool) gives 1 -> ();
}
