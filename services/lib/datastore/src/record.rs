//! What is known of a folder, file, disk or snapshot.

use alloc::string::String;

use crate::bytes::{put, u32_at, u64_at};
use crate::layout::{MAX_LEVELS, MAX_OBJECTS, MAX_SIZE, RECORD, ROOT_FOLDER, blocks, is_allocatable, levels};
use crate::pointer::Pointer;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Holds others by name.
    Folder,
    /// Bytes.
    File,
    /// A virtual disk.
    Disk,
    /// What a disk was at a moment.
    Snapshot,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Folder, Self::File, Self::Disk, Self::Snapshot];

    /// Its name in errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::File => "file",
            Self::Disk => "disk",
            Self::Snapshot => "snapshot",
        }
    }
}

/// Space for all that can be written is set aside.
pub const THICK: u8 = 1;
/// Each block of data has a checksum.
pub const CHECKSUMS: u8 = 2;
/// Removed; here as long as others share its blocks or they are not given back yet.
pub const DYING: u8 = 4;
/// Its blocks are being given back, or handed to the only one that shares them, from the start to `cursor`.
pub const REAPING: u8 = 8;
/// Changes are tracked across snapshots that come and go.
pub const TRACKED: u8 = 16;
const FLAGS: u8 = THICK | CHECKSUMS | DYING | REAPING | TRACKED;

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: Kind,
    /// [`THICK`] and so on.
    pub flags: u8,
    /// Levels of its tree.
    pub levels: u8,
    /// The folder that holds it; for a snapshot the disk that it is of; 0 for what is dying.
    pub parent: u32,
    /// The snapshot whose blocks it shares, or 0.
    pub origin: u32,
    /// Blocks born later than this generation are its own; those born until then are its origin's.
    pub shared: u64,
    /// Blocks born until this generation are written anew instead of in place, so that their birth tells that they changed. For a snapshot, the generation
    /// in which it was taken.
    pub tracked: u64,
    /// Changes are known since this generation.
    pub epoch: u64,
    /// Bytes.
    pub size: u64,
    /// Its topmost node.
    pub root: Pointer,
    /// Blocks of data that its tree leads to.
    pub mapped: u64,
    /// Those of them that are its own.
    pub owned: u64,
    /// Blocks before this one were given back already ([`REAPING`]).
    pub cursor: u64,
    /// Seconds since 1970.
    pub created: u64,
    /// Seconds since 1970.
    pub modified: u64,
    /// Tells disks apart, also after a restart.
    pub uuid: [u8; 16],
    /// What it is called.
    pub name: String,
}

impl Record {
    /// An empty object.
    pub fn new(kind: Kind, parent: u32, name: &str) -> Self {
        Self {
            kind,
            flags: 0,
            levels: 1,
            parent,
            origin: 0,
            shared: 0,
            tracked: 0,
            epoch: 0,
            size: 0,
            root: Pointer::default(),
            mapped: 0,
            owned: 0,
            cursor: 0,
            created: 0,
            modified: 0,
            uuid: [0; 16],
            name: name.into(),
        }
    }

    /// Whether a flag is set.
    pub const fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Writes it down; `bytes` are 512 zeroes.
    pub fn encode(&self, id: u32, bytes: &mut [u8]) {
        put(bytes, 0, &id.to_le_bytes());
        bytes[4] = Kind::ALL
            .iter()
            .position(|&kind| kind == self.kind)
            .map_or(0, |place| place as u8 + 1);
        bytes[5] = self.flags;
        bytes[6] = self.levels;
        bytes[7] = self.name.len() as u8;
        put(bytes, 8, &self.parent.to_le_bytes());
        put(bytes, 12, &self.origin.to_le_bytes());
        let words = [
            self.size,
            self.shared,
            self.tracked,
            self.epoch,
            self.mapped,
            self.owned,
            self.cursor,
            self.created,
            self.modified,
        ];
        for (place, word) in words.iter().enumerate() {
            put(bytes, 16 + 8 * place, &word.to_le_bytes());
        }
        put(bytes, 88, &self.root.bytes());
        put(bytes, 104, &self.uuid);
        put(bytes, 256, self.name.as_bytes());
    }

    /// Reads the record of object `id`; none where the place is free.
    ///
    /// # Errors
    /// `Err(())` where it makes no sense in a datastore of that generation and size.
    pub fn decode(id: u32, bytes: &[u8], generation: u64, total: u64, log_blocks: u32) -> Result<Option<Self>, ()> {
        if bytes.len() != RECORD {
            return Err(());
        }
        if bytes[4] == 0 {
            return Ok(None);
        }
        let kind = *Kind::ALL.get(usize::from(bytes[4]) - 1).ok_or(())?;
        let word = |place: usize| u64_at(bytes, 16 + 8 * place);
        let name = core::str::from_utf8(&bytes[256..256 + usize::from(bytes[7])]).map_err(drop)?;
        let record = Self {
            kind,
            flags: bytes[5],
            levels: bytes[6],
            parent: u32_at(bytes, 8),
            origin: u32_at(bytes, 12),
            size: word(0),
            shared: word(1),
            tracked: word(2),
            epoch: word(3),
            mapped: word(4),
            owned: word(5),
            cursor: word(6),
            created: word(7),
            modified: word(8),
            root: Pointer::read(bytes[88..104].as_array().ok_or(())?),
            uuid: *bytes[104..120].as_array().ok_or(())?,
            name: name.into(),
        };
        let named = is_name(name) || record.is(DYING) || (id == ROOT_FOLDER && name.is_empty());
        let sane = u32_at(bytes, 0) == id
            && record.flags & !FLAGS == 0
            && (record.is(DYING) || !record.is(REAPING))
            && (1..=MAX_LEVELS).contains(&record.levels)
            && record.parent < MAX_OBJECTS
            && record.origin < MAX_OBJECTS
            && record.size <= MAX_SIZE
            && record.levels >= levels(blocks(record.size))
            && record.shared <= generation
            && record.tracked <= generation
            && record.epoch <= generation
            && record.mapped <= total
            && record.owned <= record.mapped.max(total)
            && record.root.birth <= generation
            && (record.root.is_hole() || (kind != Kind::Folder && is_allocatable(record.root.block, total, log_blocks)))
            && named;
        if sane { Ok(Some(record)) } else { Err(()) }
    }
}

/// Whether something can be called this.
pub fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.chars().any(|character| character == '/' || character.is_control())
}
