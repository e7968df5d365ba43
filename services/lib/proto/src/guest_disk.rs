//! A virtual machine's disks, as its VMM reaches them. The VMM emulates the register file of a virtio block device; the queues behind it are served directly from the guest's memory.

use crate::datastore::FileData;
use crate::{declare::interface, guest_queues::GuestQueues};
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// Most queues of one disk.
pub const MAX_QUEUES: usize = 4;

/// What a disk is to its guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestDiskInfo {
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// Bytes that are best read and written at once: the sector of what is below.
    pub block_size: u32,
    /// It takes no writes.
    pub read_only: bool,
    /// Discard is of use.
    pub discard: bool,
    /// Queues that may be used.
    pub queues: u16,
    /// Most buffers of data of one request.
    pub segments: u32,
}

/// Something that a guest has to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestDiskEvent {
    /// A disk has another size.
    Resized {
        /// Number of the disk.
        disk: u32,
        /// Sectors of 512 bytes.
        sectors: u64,
    },
    /// The guest's driver broke a rule: the disk does nothing more until it is reset.
    Broken {
        /// Number of the disk.
        disk: u32,
        /// Which rule.
        reason: String,
    },
}

/// A file that a machine is started with or reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootFile {
    /// Its kernel.
    Kernel,
    /// Its initial RAM disk.
    Initramfs,
    /// What is in its CD-ROM drive.
    Cdrom,
    /// Its state.
    State,
    /// The variables of its firmware.
    Variables,
}

/// Most bytes of the variables of a machine's firmware.
pub const MAX_VARIABLES: u64 = 1 << 20;

/// Most bytes of one `read_file`.
pub const MAX_READ: usize = 3072;

/// The file that holds the machine's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateInfo {
    /// Bytes of the monitor's part.
    pub state: u64,
    /// Bytes of the file.
    pub length: u64,
}

interface! {
    /// A virtual machine's disks, for its VMM; each call is about the caller's own machine.
    guest_disk = 8;

    /// What a disk is.
    0 idempotent fn describe(disk: u32) -> GuestDiskInfo;
    /// Has a Notification signalled whenever a queue wants an interrupt; replaces an earlier one. Good until the disk is reset.
    1 idempotent fn interrupt(disk: u32, queue: u16) takes 1 -> ();
    /// Serves the queues of a disk, with the features that driver and device agreed on. `resume`: they were served before, by a server that ended; what was in flight is done again. Gives the Notification to signal when
    /// there is something in a queue.
    2 once fn attach(disk: u32, features: u64, queues: GuestQueues, resume: bool) gives 1 -> ();
    /// Stops serving a disk. Answers when nothing is in flight any more.
    3 idempotent fn reset(disk: u32) -> ();
    /// Waits until there is something to tell.
    4 once fn watch() -> GuestDiskEvent;
    /// Length in bytes of a file in a datastore that the machine is started with.
    5 idempotent fn file(file: BootFile) -> u64;
    /// Reads up to `length` bytes of it, at most [`MAX_READ`]; fewer at its end.
    6 idempotent fn read_file(file: BootFile, offset: u64, length: u32) -> FileData;
    /// Reads a part of it into the machine's RAM, at a guest-physical address.
    7 idempotent fn load_file(file: BootFile, offset: u64, length: u64, address: u64) -> ();
    /// Begins the file that holds the machine's state (`vm_manager.set_state_file`), in place of what is there; the monitor's part has `length` bytes with the CRC-32C `check`. Nothing is valid before `end_state`.
    8 once fn begin_state(length: u64, check: u32) -> ();
    /// Writes at most [`MAX_READ`] bytes of the monitor's part.
    9 idempotent fn write_state(offset: u64, data: &'a [u8]) -> ();
    /// Writes a piece of the machine's RAM, which is to stand still, behind the last one; in whole MiB.
    10 once fn save_memory(address: u64, length: u64) -> ();
    /// Finishes the file. It is safe when this answers, with its length.
    11 once fn end_state() -> u64;
    /// Removes what was written of a file that is not finished.
    12 idempotent fn abandon_state() -> ();
    /// Opens the file and checks all but the memory.
    13 idempotent fn open_state() -> StateInfo;
    /// Reads up to `length` bytes of the monitor's part, at most [`MAX_READ`].
    14 idempotent fn read_state(offset: u64, length: u32) -> FileData;
    /// Loads the machine's RAM, which is all zeros before, out of the file.
    15 idempotent fn load_memory() -> ();
    /// Removes the file: the machine goes on, so it is not what it was any more.
    16 idempotent fn remove_state() -> ();
    /// Writes a part of the variables of the machine's firmware into their file, at most [`MAX_READ`] bytes and up to [`MAX_VARIABLES`]. The `last` of several answers when all are safe; without it they are made safe when the machine ends.
    17 idempotent fn keep_variables(offset: u64, data: FileData, last: bool) -> ();
    /// Looks for the file with the state of this machine, should it be suspended: `NAME.vmss` in the datastores of its disks, or in all if none of its disks is in one. Without another file that init was told,
    /// `open_state` and the like are about this one. Refused if one of these datastores is not there.
    18 idempotent fn find_state() -> bool;
    /// Removes what `find_state` finds, unless it is the file that init was told. Safe when it answers.
    19 idempotent fn discard_state() -> ();
}
