//! What a virtio block device tells of itself (virtio 1.2, 5.2): features and configuration space.

use super::{CONFIG_LENGTH, DeviceConfig, feature};

/// Most queues.
const MAX_QUEUES: u16 = 4;

/// Descriptors of a queue. Requests have none of their own tables, for a guest would allocate one for each of them (a fiftieth of what a small read costs it); so there is room for 15 of 128 KiB in single
/// pages, or for 170 of one page.
const QUEUE_SIZE: u16 = 512;

/// Kind of device.
const KIND: u16 = 2;
/// Mass storage controller, SCSI, as other monitors say for it; revision 1.
const CLASS: u32 = 0x0100_0001;

const SEG_MAX: u64 = 1 << 2;
const READ_ONLY: u64 = 1 << 5;
const BLOCK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const MULTIPLE_QUEUES: u64 = 1 << 12;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;
/// Most sectors of one discard or zeroing: 2 GiB.
const MAX_ZEROED: u32 = 1 << 22;

/// A disk, as its server describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// Bytes that are best read and written at once: a power of two from 512 to 64 KiB.
    pub block_size: u32,
    /// It takes no writes.
    pub read_only: bool,
    /// Discard is of use.
    pub discard: bool,
    /// Queues.
    pub queues: u16,
    /// Most buffers of data of one request.
    pub segments: u32,
}

/// The device for a disk.
#[must_use]
pub fn config(disk: &Disk) -> DeviceConfig {
    let queues = disk.queues.clamp(1, MAX_QUEUES);
    let mut features = feature::VERSION_1 | feature::EVENT_INDEX | SEG_MAX | BLOCK_SIZE | FLUSH;
    if queues > 1 {
        features |= MULTIPLE_QUEUES;
    }
    if disk.read_only {
        features |= READ_ONLY;
    } else {
        features |= WRITE_ZEROES | if disk.discard { DISCARD } else { 0 };
    }
    let block = disk.block_size.clamp(512, 1 << 16);
    let mut space = [0; CONFIG_LENGTH];
    let mut put = |offset: usize, bytes: &[u8]| space[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &disk.sectors.to_le_bytes());
    put(12, &disk.segments.to_le_bytes());
    put(20, &block.to_le_bytes());
    put(34, &queues.to_le_bytes());
    put(36, &MAX_ZEROED.to_le_bytes());
    put(40, &1u32.to_le_bytes());
    // Discards of whole blocks are of use.
    put(44, &(block / 512).to_le_bytes());
    put(48, &MAX_ZEROED.to_le_bytes());
    put(52, &1u32.to_le_bytes());
    // Zeroing may give the blocks back.
    put(56, &[1]);
    DeviceConfig {
        kind: KIND,
        class: CLASS,
        features,
        queues,
        queue_size: QUEUE_SIZE,
        space,
        local: false,
        hidden: false,
        writable: 0,
    }
}

/// The disk that a device was made for.
#[must_use]
pub fn disk(config: &DeviceConfig) -> Disk {
    let word = |at: usize| u32::from_le_bytes([config.space[at], config.space[at + 1], config.space[at + 2], config.space[at + 3]]);
    Disk {
        sectors: u64::from(word(0)) | u64::from(word(4)) << 32,
        block_size: word(20),
        read_only: config.features & READ_ONLY != 0,
        discard: config.features & DISCARD != 0,
        queues: config.queues,
        segments: word(12),
    }
}

/// The disk has another size now.
pub fn set_sectors(config: &mut DeviceConfig, sectors: u64) {
    config.space[..8].copy_from_slice(&sectors.to_le_bytes());
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn disk() -> Disk {
        Disk {
            sectors: 0x1234_5678_9abc,
            block_size: 4096,
            read_only: false,
            discard: true,
            queues: 4,
            segments: 126,
        }
    }

    #[test]
    fn offers_what_the_disk_can() {
        let all = config(&disk());
        assert_eq!(all.space[..8], 0x1234_5678_9abc_u64.to_le_bytes());
        assert_eq!((all.space[12], all.space[21], all.space[34], all.space[44]), (126, 0x10, 4, 8));
        assert_eq!(all.features & 0xffff_ffff, 0x2000_7244);
        assert_eq!(super::disk(&all), disk());
        let mut small = disk();
        (small.read_only, small.queues, small.block_size) = (true, 0, 0);
        let small = config(&small);
        assert_eq!(small.features & 0xffff_ffff, 0x2000_0264);
        assert_eq!((small.queues, small.space[21]), (1, 2));
        let mut resized = all;
        set_sectors(&mut resized, 7);
        assert_eq!((resized.space[0], &resized.space[8..]), (7, &all.space[8..]));
    }
}
