//! Where things stand on the device. `docs/datastore.md` is this file in words; a change of either changes the format.

/// Bytes of a block, the unit of allocation.
pub const BLOCK: usize = 4096;
/// Bytes of a pointer.
pub const POINTER: usize = 16;
/// Pointers of a node.
pub const FANOUT: u64 = (BLOCK / POINTER) as u64;
/// Bits of a block's number that one level of a tree takes.
pub const FANOUT_BITS: u32 = FANOUT.trailing_zeros();
/// Blocks that one bitmap tells of.
pub const GROUP_BLOCKS: u64 = (BLOCK * 8) as u64;
/// Groups of a zone.
pub const ZONE_GROUPS: u64 = 512;
/// Blocks of a zone.
pub const ZONE_BLOCKS: u64 = ZONE_GROUPS * GROUP_BLOCKS;
/// Blocks of a superblock.
pub const SUPERBLOCK_BLOCKS: u64 = 4;
/// Where the superblocks stand: generation `g` is in slots `g % 2` and `g % 2 + 2`.
pub const SUPERBLOCK_SLOTS: [u64; 4] = [0, SUPERBLOCK_BLOCKS, MIRRORS, MIRRORS + SUPERBLOCK_BLOCKS];
/// The two slots of a zone's index, counted from the zone's start.
pub const ZONE_INDEX: u64 = 16;
/// The bitmaps of a zone's groups, two slots each.
pub const ZONE_BITMAPS: u64 = ZONE_INDEX + 2;
/// Blocks at a zone's start that hold no data.
pub const ZONE_HEADER: u64 = ZONE_BITMAPS + 2 * ZONE_GROUPS;
/// The second copies of the superblocks.
pub const MIRRORS: u64 = ZONE_HEADER;
/// The intent log, behind zone 0's header and the second superblocks.
pub const LOG: u64 = MIRRORS + 2 * SUPERBLOCK_BLOCKS;
/// Zones of the largest datastore, 64 TiB.
pub const MAX_ZONES: u64 = 1024;
/// Fewest blocks of a log.
pub const MIN_LOG: u32 = 4;
/// Blocks of a log at most.
pub const MAX_LOG: u32 = 16384;
/// Fewest blocks behind the log.
pub const MIN_DATA: u64 = 256;
/// Bytes of an object's record.
pub const RECORD: usize = 512;
/// Records of a block of the catalogue.
pub const RECORDS_PER_BLOCK: u32 = (BLOCK / RECORD) as u32;
/// Levels of the catalogue's tree.
pub const CATALOG_LEVELS: u8 = 2;
/// Objects of a datastore at most: what the catalogue's tree leads to.
pub const MAX_OBJECTS: u32 = (FANOUT * FANOUT) as u32 * RECORDS_PER_BLOCK;
/// Levels of a tree at most.
pub const MAX_LEVELS: u8 = 5;
/// Largest object in bytes: 64 TiB.
pub const MAX_SIZE: u64 = 64 << 40;
/// The catalogue's own number.
pub const CATALOG: u32 = 0;
/// The topmost folder's number.
pub const ROOT_FOLDER: u32 = 1;

/// Blocks at the start of a zone that are never given out.
pub const fn reserved(zone: u64, log_blocks: u32) -> u64 {
    if zone == 0 { LOG + log_blocks as u64 } else { ZONE_HEADER }
}

/// Whether a block may hold data or a node.
pub const fn is_allocatable(block: u64, total: u64, log_blocks: u32) -> bool {
    block < total && block % ZONE_BLOCKS >= reserved(block / ZONE_BLOCKS, log_blocks)
}

/// The block of a zone's index.
pub const fn index_block(zone: u64, slot: u8) -> u64 {
    zone * ZONE_BLOCKS + ZONE_INDEX + slot as u64
}

/// The block of a group's bitmap.
pub const fn bitmap_block(group: u64, slot: u8) -> u64 {
    group / ZONE_GROUPS * ZONE_BLOCKS + ZONE_BITMAPS + 2 * (group % ZONE_GROUPS) + slot as u64
}

/// Levels of a tree that reaches `blocks` blocks.
pub const fn levels(blocks: u64) -> u8 {
    let mut levels = 1;
    while levels < MAX_LEVELS && blocks > 1 << (FANOUT_BITS * levels as u32) {
        levels += 1;
    }
    levels
}

/// Blocks of `bytes` bytes, rounded up.
pub const fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK as u64)
}
