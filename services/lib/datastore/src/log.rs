//! The intent log: what a flush has to make durable between two commits.

use alloc::vec::Vec;

use crate::bytes::{checksum_without, put, u16_at, u32_at, u64_at};
use crate::layout::{BLOCK, MAX_OBJECTS};
use crate::pointer::Block;

const MAGIC: u32 = u32::from_le_bytes(*b"TLog");
const HEADER: usize = 40;
const ENTRY: usize = 24;
/// Blocks with checksums that one entry can name.
pub const MAX_CHECKSUMS: usize = 512;

/// A change of an object since the last commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// These blocks of the object are at these of the device.
    Map {
        /// Whose blocks.
        object: u32,
        /// The first of them.
        block: u64,
        /// Where it is.
        at: u64,
        /// How many.
        count: u32,
        /// A checksum each, where the object has any.
        checksums: Vec<u32>,
    },
    /// These blocks of the object are a hole.
    Unmap {
        /// Whose blocks.
        object: u32,
        /// The first of them.
        block: u64,
        /// How many.
        count: u32,
    },
    /// The object has this many bytes.
    Size {
        /// Which object.
        object: u32,
        /// Bytes.
        size: u64,
    },
}

impl Entry {
    fn length(&self) -> usize {
        match self {
            Self::Map { checksums, .. } => ENTRY + 4 * checksums.len(),
            _ => ENTRY,
        }
    }

    fn write(&self, bytes: &mut [u8]) {
        let (kind, object, count, block, at) = match self {
            Self::Map {
                object,
                block,
                at,
                count,
                checksums,
            } => (if checksums.is_empty() { 1_u32 } else { 2 }, *object, *count, *block, *at),
            Self::Unmap { object, block, count } => (3, *object, *count, *block, 0),
            Self::Size { object, size } => (4, *object, 0, *size, 0),
        };
        // The kind stands above the object's 24 bits, the count above the block's 40.
        put(bytes, 0, &(kind << 24 | object).to_le_bytes());
        put(bytes, 4, &count.to_le_bytes());
        put(bytes, 8, &block.to_le_bytes());
        put(bytes, 16, &at.to_le_bytes());
        if let Self::Map { checksums, .. } = self {
            for (place, crc) in checksums.iter().enumerate() {
                put(bytes, ENTRY + 4 * place, &crc.to_le_bytes());
            }
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < ENTRY {
            return None;
        }
        let object = u32_at(bytes, 0) & 0xff_ffff;
        let count = u32_at(bytes, 4);
        let (block, at) = (u64_at(bytes, 8), u64_at(bytes, 16));
        if object >= MAX_OBJECTS {
            return None;
        }
        match bytes[3] {
            1 => Some(Self::Map {
                object,
                block,
                at,
                count,
                checksums: Vec::new(),
            }),
            2 if (1..=MAX_CHECKSUMS).contains(&(count as usize)) => {
                let list = bytes.get(ENTRY..ENTRY + 4 * count as usize)?;
                Some(Self::Map {
                    object,
                    block,
                    at,
                    count,
                    checksums: list.as_chunks::<4>().0.iter().map(|crc| u32::from_le_bytes(*crc)).collect(),
                })
            }
            3 => Some(Self::Unmap { object, block, count }),
            4 => Some(Self::Size { object, size: block }),
            _ => None,
        }
    }
}

/// What makes a block of the log belong where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The commit that the log goes on from.
    pub generation: u64,
    /// Number of the block in the log.
    pub number: u32,
    /// Checksum of the block before; 0 for the first.
    pub previous: u32,
    /// First 8 bytes of the datastore's own number.
    pub datastore: u64,
}

/// Blocks that hold the entries, to be written from `place` on; and the place behind them.
pub fn encode(entries: &[Entry], mut place: Place) -> (Vec<Block>, Place) {
    let mut blocks = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let mut block = [0; BLOCK];
        let mut used = HEADER;
        let mut count = 0_u16;
        while let Some((entry, others)) = rest.split_first() {
            if used + entry.length() > BLOCK {
                break;
            }
            entry.write(&mut block[used..]);
            used += entry.length();
            count += 1;
            rest = others;
        }
        put(&mut block, 0, &MAGIC.to_le_bytes());
        put(&mut block, 8, &place.generation.to_le_bytes());
        put(&mut block, 16, &place.datastore.to_le_bytes());
        put(&mut block, 24, &place.number.to_le_bytes());
        put(&mut block, 28, &place.previous.to_le_bytes());
        put(&mut block, 32, &count.to_le_bytes());
        let crc = checksum_without(&block, 4);
        put(&mut block, 4, &crc.to_le_bytes());
        place.number += 1;
        place.previous = crc;
        blocks.push(block);
    }
    (blocks, place)
}

/// The entries of a block that belongs at `place`, and the place behind it; none where the log ends.
pub fn decode(block: &Block, place: Place) -> Option<(Vec<Entry>, Place)> {
    let crc = u32_at(block, 4);
    let belongs = u32_at(block, 0) == MAGIC
        && crc == checksum_without(block, 4)
        && u64_at(block, 8) == place.generation
        && u64_at(block, 16) == place.datastore
        && u32_at(block, 24) == place.number
        && u32_at(block, 28) == place.previous;
    if !belongs {
        return None;
    }
    let mut entries = Vec::new();
    let mut at = HEADER;
    for _ in 0..u16_at(block, 32) {
        let entry = Entry::read(block.get(at..)?)?;
        at += entry.length();
        entries.push(entry);
    }
    Some((
        entries,
        Place {
            number: place.number + 1,
            previous: crc,
            ..place
        },
    ))
}
