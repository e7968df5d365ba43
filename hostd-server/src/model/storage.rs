//! Storage.
use super::{
    host::Health,
    text::{FilePath, Id, Name},
};
use alloc::string::String;

model! {
    /// A datastore.
    pub struct Datastore {
        /// Identifier.
        pub id: String,
        /// Name.
        pub name: String,
        /// How it is laid out.
        pub kind: String,
        /// Size.
        pub capacity: u64,
        /// Free.
        pub free: u64,
        /// What all disks and files would take if they were full.
        pub provisioned: u64,
        /// The drive it is on.
        pub device: String,
        /// It can be used.
        pub accessible: bool,
        /// Why not; empty if it can.
        pub problem: String,
    }

    /// A datastore to make. What is on the drive is lost.
    pub struct DatastoreCreate {
        /// Name.
        pub name: Name,
        /// Drive.
        pub device: Id,
    }

    /// Kind of an entry.
    #[derive(Copy, Eq)]
    pub enum FileKind {
        /// Folder.
        Folder,
        /// File.
        File,
        /// Virtual disk.
        Disk,
        /// CD or DVD.
        Iso,
        /// Kernel or RAM disk.
        Kernel,
        /// Log.
        Log,
    }

    /// An entry of a folder.
    pub struct DatastoreFile {
        /// Name.
        pub name: String,
        /// Path in the datastore.
        pub path: String,
        /// Kind, guessed from the name.
        pub kind: FileKind,
        /// Size.
        pub size: u64,
        /// Space it takes.
        pub allocated: u64,
        /// Last change.
        pub modified: String,
    }

    /// A path.
    pub struct PathRequest {
        /// Path in the datastore.
        pub path: FilePath,
    }

    /// From here to there.
    pub struct MoveRequest {
        /// From.
        pub from: FilePath,
        /// To.
        pub to: FilePath,
    }

    /// What an upload has come to.
    pub struct Uploaded {
        /// Path.
        pub path: String,
        /// Bytes that are there and safe.
        pub size: u64,
        /// All of it is there.
        pub complete: bool,
    }

    /// A disk drive.
    pub struct StorageDevice {
        /// Identifier.
        pub id: String,
        /// Name.
        pub name: String,
        /// Model.
        pub model: String,
        /// Kind.
        pub kind: String,
        /// Size.
        pub size: u64,
        /// Bytes of a sector.
        pub sector_size: u32,
        /// Health.
        pub health: Health,
        /// The datastore that is on it.
        pub datastore: Option<String>,
    }
}
