//! Datastores, what is in them, and the disks that they are on.

use super::HostError;
use alloc::string::String;
use core::task::{Context, Poll};

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
