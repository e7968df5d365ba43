//! Disks, as `storage` serves them to the debug shell and, later, to hostd.

use crate::{Page, declare::interface, wire};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Most bytes of one `read`.
pub const MAX_DATA: usize = 3072;

/// What a disk is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskState {
    /// It serves.
    Ready,
    /// There is a drive, but nothing in it.
    Empty,
    /// Its controller is being reset.
    Resetting,
    /// It does not do what it is asked any more.
    Failed,
    /// It was taken away.
    Gone,
}

/// What a disk has done since the server started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatistics {
    /// Reads.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes, discards and zeroing among them.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Of these, sectors that could not be read or written.
    pub media_errors: u64,
    /// Requests that took too long.
    pub timeouts: u64,
    /// Resets of the controller.
    pub resets: u64,
}

/// What the device tells of its condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskHealth {
    /// Temperature in degrees Celsius.
    pub temperature: Option<i16>,
    /// Share of its life that is used up, in per cent; may exceed 100.
    pub used_percent: Option<u8>,
    /// Hours that it was switched on.
    pub power_on_hours: Option<u64>,
    /// It warns of its own failure.
    pub failing: Option<bool>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskInfo {
    /// Name, such as `nvme0n1`.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// PCI function of its controller.
    pub address: String,
    /// Model, as the device tells it.
    pub model: String,
    /// Serial number, as the device tells it.
    pub serial: String,
    /// Revision of its firmware.
    pub firmware: String,
    /// State.
    pub state: DiskState,
    /// Bytes of a sector.
    pub sector_size: u32,
    /// Sectors.
    pub sectors: u64,
    /// It takes no writes.
    pub read_only: bool,
    /// It takes discards.
    pub discard: bool,
    /// It has a write cache: what is written is safe after a flush.
    pub write_cache: bool,
    /// Queues.
    pub queues: u16,
    /// Condition.
    pub health: DiskHealth,
    /// Statistics.
    pub statistics: DiskStatistics,
    /// The last error; empty if there was none.
    pub last_error: String,
}

/// Something that happened to a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskEvent {
    /// When, in milliseconds since the machine started.
    pub at: u64,
    /// What, as a sentence that goes on from the disk's name.
    pub text: String,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionInfo {
    /// Number, from 1 on.
    pub number: u32,
    /// First sector.
    pub first: u64,
    /// Sectors.
    pub sectors: u64,
    /// Type: a GUID, or the byte of an old partition table.
    pub kind: String,
    /// Name that was given to it.
    pub name: String,
}

/// Bytes of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskData {
    /// The bytes.
    #[serde(with = "wire::bytes")]
    pub data: Vec<u8>,
}

/// What a virtual machine did with a disk since this server or the machine started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestDiskStatistics {
    /// The machine.
    pub vm: String,
    /// Number of the disk.
    pub disk: u32,
    /// Requests to read, and bytes.
    pub reads: (u64, u64),
    /// Requests to write, discard or zero, and bytes of the first.
    pub writes: (u64, u64),
    /// Requests to flush.
    pub flushes: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Interrupts.
    pub interrupts: u64,
}

interface! {
    /// The disks of the machine.
    storage = 6;

    /// Disks, from the `first`th on.
    0 idempotent fn disks(first: u32) -> Page<DiskInfo>;
    /// Partitions of a disk, from the `first`th on.
    1 idempotent fn partitions(disk: &'a str, first: u32) -> Page<PartitionInfo>;
    /// Reads up to `length` bytes, at most 3072, from byte `offset` of sector `sector` on; fewer at the end of the disk.
    2 idempotent fn read(disk: &'a str, sector: u64, offset: u32, length: u32) -> DiskData;
    /// Fills `count` sectors from `sector` on with a pattern made of `seed` and each sector's number, and reads them back. Only where the manifest allows the server to
    /// destroy what is on disks.
    3 once fn exercise(disk: &'a str, sector: u64, count: u32, seed: u64) -> ();
    /// What virtual machines did with their disks, from the `first`th on.
    4 idempotent fn guest_disks(first: u32) -> Page<GuestDiskStatistics>;
    /// What happened to a disk lately, oldest first, from the `first`th on: changes of its state, warnings of the device, requests that failed in a new way. The last 64 of each controller are known.
    5 idempotent fn events(disk: &'a str, first: u32) -> Page<DiskEvent>;
}
