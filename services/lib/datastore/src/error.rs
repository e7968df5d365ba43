//! What can go wrong, and what to do then.

use alloc::string::String;
use core::fmt;
use tessera_block::IoError;

/// Why a datastore did not do what it was asked to. Unless it says otherwise, nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The device failed.
    Io {
        /// What was being done.
        doing: &'static str,
        /// How it failed.
        error: IoError,
    },
    /// There is not enough space.
    NoSpace {
        /// Bytes that were asked for.
        needed: u64,
        /// Bytes that may still be given out.
        available: u64,
    },
    /// There is no datastore on the device.
    NotADatastore,
    /// The datastore's format is of another version.
    Version(u32),
    /// The device or partition is smaller than the datastore on it, or than one can be.
    TooSmall {
        /// Bytes there must be.
        needed: u64,
        /// Bytes there are.
        found: u64,
    },
    /// What was read is not what was written.
    Damaged {
        /// What it belongs to.
        what: &'static str,
        /// The block of the datastore, 4096 bytes each.
        block: u64,
    },
    /// There is nothing of this name, or number.
    NotFound(String),
    /// The name is taken.
    Exists(String),
    /// The name cannot be one.
    InvalidName(String),
    /// It is not of the kind that the operation is for.
    WrongKind {
        /// What was named.
        name: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// The folder has something in it.
    NotEmpty(String),
    /// The range reaches past the end.
    OutOfRange {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
        /// Bytes that there are.
        size: u64,
    },
    /// Offset and length are no multiples of the device's sectors.
    Misaligned {
        /// Bytes of a sector.
        sector: u32,
    },
    /// The size is one that the format has no room for, or that the operation does not take.
    BadSize {
        /// What was asked for, in bytes.
        size: u64,
        /// What a size must be.
        why: &'static str,
    },
    /// The datastore was mounted read-only, or what would be written is a snapshot.
    ReadOnly,
    /// An earlier write of metadata failed, so nothing more can be written until the datastore is mounted anew.
    Failed,
    /// The object is being used in a way that rules this out.
    Busy(String),
    /// Changes since then are not known: the disk was reverted, or did not exist.
    ChangeUnknown {
        /// The change id that was given.
        id: u64,
        /// The oldest one that is known.
        oldest: u64,
    },
    /// There are as many objects as there can be, or as there is memory for.
    TooMany,
    /// Shrinking would cut off what is in use.
    InUse {
        /// Bytes that the datastore must keep.
        needed: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, error } => write!(f, "{doing}: {error}"),
            Self::NoSpace { needed, available } => write!(
                f,
                "the datastore is full: {needed} bytes were needed, {available} can be given out: remove snapshots, disks or files, or make the datastore larger; the guest can go on then"
            ),
            Self::NotADatastore => write!(
                f,
                "there is no datastore here: make one with `datastore create`, or name the partition that has one"
            ),
            Self::Version(version) => write!(
                f,
                "the datastore has version {version} of the format, which this program does not know: use a newer one"
            ),
            Self::TooSmall { needed, found } => write!(
                f,
                "{found} bytes are too few for the datastore, which needs {needed}: give it a larger device, or the whole one"
            ),
            Self::Damaged { what, block } => write!(
                f,
                "{what} at block {block} is damaged: run `datastore check`, then `datastore repair`, and look at the disk's health"
            ),
            Self::NotFound(name) => write!(f, "there is no {name}: `datastore list` shows what there is"),
            Self::Exists(name) => write!(f, "{name} is there already: choose another name, or remove it first"),
            Self::InvalidName(name) => write!(
                f,
                "{name:?} cannot be a name: use 1 to 255 bytes without slashes and control characters, not . or .."
            ),
            Self::WrongKind { name, expected } => write!(f, "{name} is no {expected}: name one that is"),
            Self::NotEmpty(name) => write!(f, "{name} is not empty: remove what is in it first"),
            Self::OutOfRange { offset, length, size } => write!(
                f,
                "{length} bytes at {offset} reach past the end at {size}: ask for less, or grow it first"
            ),
            Self::Misaligned { sector } => write!(f, "offset and length must be multiples of {sector} bytes, the device's sectors"),
            Self::BadSize { size, why } => write!(f, "{size} bytes are no possible size: {why}"),
            Self::ReadOnly => write!(
                f,
                "it is read-only: mount the datastore for writing; a snapshot is never written, clone it instead"
            ),
            Self::Failed => write!(
                f,
                "writing the datastore's metadata failed before, so nothing more is written: mend the device and mount the datastore again; what was flushed is there"
            ),
            Self::Busy(name) => write!(f, "{name} is in use: stop what uses it, or wait"),
            Self::ChangeUnknown { id, oldest } => write!(
                f,
                "changes since {id} are not known, the oldest known id is {oldest}: copy the whole disk once"
            ),
            Self::TooMany => write!(
                f,
                "there are more files, folders, disks and snapshots than the format or the memory for them allows: remove some, with `image-builder datastore remove` where it cannot be mounted any more, or give the storage server more `heap` in the manifest"
            ),
            Self::InUse { needed } => write!(
                f,
                "the datastore cannot be smaller than {needed} bytes, because there is data up to there: move or remove disks first"
            ),
        }
    }
}

impl core::error::Error for Error {}

impl Error {
    /// For `map_err` on device calls.
    pub(crate) fn io(doing: &'static str) -> impl Fn(IoError) -> Self {
        move |error| Self::Io { doing, error }
    }
}
