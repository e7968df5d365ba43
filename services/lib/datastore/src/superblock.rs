//! The root of everything, written last.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::bytes::{checksum_without, put, u32_at, u64_at};
use crate::error::Error;
use crate::layout::{
    BLOCK, CATALOG_LEVELS, GROUP_BLOCKS, LOG, MAX_LOG, MAX_OBJECTS, MAX_ZONES, MIN_DATA, MIN_LOG, SUPERBLOCK_BLOCKS, ZONE_BLOCKS,
    is_allocatable,
};
use crate::pointer::Pointer;

/// First bytes of a superblock.
pub const MAGIC: &[u8; 8] = b"TessData";
/// The version of the format that is written.
pub const VERSION: u32 = 1;
/// Bytes of a superblock.
pub const SIZE: usize = SUPERBLOCK_BLOCKS as usize * BLOCK;
/// Bytes of a label at most.
pub const MAX_LABEL: usize = 95;
const ZONES: usize = 4096;

/// Where a zone's index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// The index block's checksum.
    pub crc: u32,
    /// Which of the two index blocks; none where nothing of the zone was ever given out.
    pub slot: Option<u8>,
}

/// What a superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Tells datastores apart.
    pub uuid: [u8; 16],
    /// The commit that wrote it.
    pub generation: u64,
    /// Blocks of the datastore.
    pub blocks: u64,
    /// Blocks of the intent log.
    pub log_blocks: u32,
    /// One above the highest number of an object.
    pub objects: u32,
    /// Levels of the catalogue's tree.
    pub levels: u8,
    /// The catalogue's topmost node.
    pub catalog: Pointer,
    /// Seconds since 1970 when it was made.
    pub created: u64,
    /// What people call it.
    pub label: String,
    /// The zones' indexes.
    pub zones: Vec<Zone>,
}

/// Zones of a datastore of `blocks` blocks.
pub const fn zones(blocks: u64) -> u64 {
    blocks.div_ceil(ZONE_BLOCKS)
}

/// Groups of a datastore of `blocks` blocks.
pub const fn groups(blocks: u64) -> u64 {
    blocks.div_ceil(GROUP_BLOCKS)
}

impl Superblock {
    /// Writes it down.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 12, &VERSION.to_le_bytes());
        put(&mut bytes, 16, &self.uuid);
        put(&mut bytes, 32, &self.generation.to_le_bytes());
        put(&mut bytes, 40, &self.blocks.to_le_bytes());
        put(&mut bytes, 48, &self.log_blocks.to_le_bytes());
        put(&mut bytes, 52, &self.objects.to_le_bytes());
        put(&mut bytes, 56, &self.catalog.bytes());
        bytes[72] = self.levels;
        put(&mut bytes, 80, &self.created.to_le_bytes());
        bytes[96] = self.label.len() as u8;
        put(&mut bytes, 97, self.label.as_bytes());
        for (number, zone) in self.zones.iter().enumerate() {
            put(&mut bytes, ZONES + 8 * number, &zone.crc.to_le_bytes());
            bytes[ZONES + 8 * number + 4] = zone.slot.map_or(0xff, |slot| slot);
        }
        let crc = checksum_without(&bytes, 8);
        put(&mut bytes, 8, &crc.to_le_bytes());
        bytes
    }

    /// Reads one; `device_blocks` is how large the device is.
    ///
    /// # Errors
    /// [`Error::NotADatastore`] where there is none or a torn one; [`Error::Version`]; [`Error::TooSmall`]; [`Error::Damaged`] where the checksum
    /// holds and the content makes no sense.
    pub fn decode(bytes: &[u8], block: u64, device_blocks: u64) -> Result<Self, Error> {
        if bytes.len() != SIZE || &bytes[..8] != MAGIC || u32_at(bytes, 8) != checksum_without(bytes, 8) {
            return Err(Error::NotADatastore);
        }
        if u32_at(bytes, 12) != VERSION {
            return Err(Error::Version(u32_at(bytes, 12)));
        }
        let damaged = Error::Damaged {
            what: "the superblock",
            block,
        };
        let blocks = u64_at(bytes, 40);
        let log_blocks = u32_at(bytes, 48);
        let catalog = Pointer::read(bytes[56..72].as_array().ok_or(damaged.clone())?);
        let (objects, levels, generation) = (u32_at(bytes, 52), bytes[72], u64_at(bytes, 32));
        let sane = zones(blocks) <= MAX_ZONES
            && (MIN_LOG..=MAX_LOG).contains(&log_blocks)
            && blocks >= LOG + u64::from(log_blocks) + MIN_DATA
            && objects <= MAX_OBJECTS
            && levels == CATALOG_LEVELS
            && (1..1 << 48).contains(&generation)
            && catalog.birth <= generation
            && (catalog.is_hole() || is_allocatable(catalog.block, blocks, log_blocks))
            && usize::from(bytes[96]) <= MAX_LABEL;
        if !sane {
            return Err(damaged);
        }
        if blocks > device_blocks {
            return Err(Error::TooSmall {
                needed: blocks.saturating_mul(BLOCK as u64),
                found: device_blocks.saturating_mul(BLOCK as u64),
            });
        }
        let mut list = Vec::new();
        for number in 0..zones(blocks) as usize {
            let slot = match bytes[ZONES + 8 * number + 4] {
                slot @ 0..=1 => Some(slot),
                0xff => None,
                _ => return Err(damaged),
            };
            list.push(Zone {
                crc: u32_at(bytes, ZONES + 8 * number),
                slot,
            });
        }
        Ok(Self {
            uuid: *bytes[16..32].as_array().ok_or(damaged)?,
            generation,
            blocks,
            log_blocks,
            objects,
            levels,
            catalog,
            created: u64_at(bytes, 80),
            label: String::from_utf8_lossy(&bytes[97..97 + usize::from(bytes[96])]).to_string(),
            zones: list,
        })
    }
}
