//! Datastores and what is in them, as `storage` serves them to the debug shell and, later, to hostd. What an operation changed is safe when it has answered.

use crate::{Page, declare::interface, wire};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Most bytes of one `read` or `write`.
pub const MAX_DATA: usize = 3072;
/// Most ranges of one `changed`.
pub const MAX_RANGES: usize = 128;

/// A datastore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatastoreInfo {
    /// Name.
    pub name: String,
    /// The disk that it is on.
    pub disk: String,
    /// The partition from 1 on; 0: the whole disk.
    pub partition: u32,
    /// Bytes.
    pub size: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that can still be given out.
    pub available: u64,
    /// Bytes that are set aside for thick disks.
    pub reserved: u64,
    /// Bytes that all disks and files would have if they were full.
    pub provisioned: u64,
    /// It is time to make space.
    pub near_full: bool,
    /// Why it cannot be used; empty if it can.
    pub trouble: String,
}

/// What something in a datastore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// Holds others by name.
    Folder,
    /// Bytes.
    File,
    /// A virtual disk.
    Disk,
    /// What a disk was at a moment.
    Snapshot,
}

/// Something in a datastore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryInfo {
    /// Its number, which it keeps until it is removed.
    pub id: u32,
    /// What it is.
    pub kind: EntryKind,
    /// Name.
    pub name: String,
    /// Bytes; for a disk, what is provisioned.
    pub size: u64,
    /// Bytes of space that it takes.
    pub used: u64,
    /// Those of them that it shares with snapshots or clones.
    pub shared: u64,
    /// Space for all of it is set aside.
    pub thick: bool,
    /// Data has checksums.
    pub checksums: bool,
    /// Seconds since 1970.
    pub modified: u64,
    /// The snapshot that it goes on from.
    pub origin: Option<u32>,
}

/// What a new disk is to be like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDisk {
    /// Bytes.
    pub size: u64,
    /// Set space for all of it aside.
    pub thick: bool,
    /// Keep a checksum of each block.
    pub checksums: bool,
}

/// Bytes of a file or disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileData {
    /// The bytes.
    #[serde(with = "wire::bytes")]
    pub data: Vec<u8>,
}

/// Parts of a disk that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedRanges {
    /// First byte and length of each, in order.
    #[serde(with = "wire::list")]
    pub ranges: Vec<(u64, u64)>,
    /// Where to go on; `None` at the end.
    pub next: Option<u64>,
}

interface! {
    /// Datastores and what is in them.
    datastore = 9;

    /// Datastores, from the `first`th on.
    0 idempotent fn list(first: u32) -> Page<DatastoreInfo>;
    /// What is in a folder, from the `first`th on by name.
    1 idempotent fn browse(store: &'a str, folder: &'a str, first: u32) -> Page<EntryInfo>;
    /// What is known of a file, folder or disk.
    2 idempotent fn stat(store: &'a str, path: &'a str) -> EntryInfo;
    /// Makes a folder.
    3 once fn create_folder(store: &'a str, path: &'a str) -> ();
    /// Makes an empty file.
    4 once fn create_file(store: &'a str, path: &'a str) -> ();
    /// Makes a virtual disk that reads as zeros.
    5 once fn create_disk(store: &'a str, path: &'a str, options: NewDisk) -> ();
    /// Makes a disk larger, also while a guest uses it.
    6 idempotent fn grow_disk(store: &'a str, path: &'a str, size: u64) -> ();
    /// Gives something another name, or another folder.
    7 once fn rename(store: &'a str, from: &'a str, to: &'a str) -> ();
    /// Removes a file, an empty folder, or a disk with its snapshots, unless it is in use.
    8 once fn remove(store: &'a str, path: &'a str) -> ();
    /// Reads up to `length` bytes, at most 3072; fewer at the end.
    9 idempotent fn read(store: &'a str, path: &'a str, offset: u64, length: u32) -> FileData;
    /// Writes at most 3072 bytes to a file, which grows if need be. They are safe after `sync`. Answers the number of the server's life, for that.
    10 idempotent fn write(store: &'a str, path: &'a str, offset: u64, data: &'a [u8]) -> u64;
    /// Makes everything safe that was written in life `life` of the server. If that is over (`BadState`), what was not safe yet is lost and has to be written again.
    11 idempotent fn sync(store: &'a str, life: u64) -> ();
    /// Snapshots of a disk, oldest first, from the `first`th on.
    12 idempotent fn snapshots(store: &'a str, disk: &'a str, first: u32) -> Page<EntryInfo>;
    /// Takes a snapshot of a disk, also while a guest uses it.
    13 once fn create_snapshot(store: &'a str, disk: &'a str, name: &'a str) -> ();
    /// Removes a snapshot; what only it needed is given back.
    14 once fn remove_snapshot(store: &'a str, disk: &'a str, name: &'a str) -> ();
    /// Makes a disk what it was when a snapshot was taken, unless a guest uses it.
    15 once fn revert(store: &'a str, disk: &'a str, name: &'a str) -> ();
    /// Makes a new disk that goes on from a snapshot and shares its blocks.
    16 once fn clone_snapshot(store: &'a str, disk: &'a str, name: &'a str, path: &'a str) -> ();
    /// The number to give to `changed` later, to hear what changed from now on.
    17 idempotent fn change_id(store: &'a str, disk: &'a str) -> u64;
    /// What of a disk changed since a number was given out, from byte `from` on.
    18 idempotent fn changed(store: &'a str, disk: &'a str, since: u64, from: u64) -> ChangedRanges;
    /// Reads a part of a file or disk into the memory that the caller shares with the server (`buffer` in the manifest), from byte `at` of it on. Answers how many bytes there
    /// were: fewer at the end.
    20 idempotent fn fetch(store: &'a str, path: &'a str, offset: u64, length: u32, at: u32) -> u32;
    /// Writes a part of that memory to a file, which grows if need be. It is safe after `sync`. Answers the number of the server's life, for that.
    21 idempotent fn put(store: &'a str, path: &'a str, offset: u64, length: u32, at: u32) -> u64;
    /// Makes a datastore on a disk without a partition table (`partition` 0) or on a partition. WHAT IS THERE IS LOST.
    19 once fn format(disk: &'a str, partition: u32, label: &'a str) -> ();
}
