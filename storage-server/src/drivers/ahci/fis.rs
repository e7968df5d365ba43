//! Commands of ATA disks and CD-ROM drives, as frames (Serial ATA 3.x, 10.5.5) with their memory (AHCI 1.3.1, 4.2).

use crate::controller::{Operation, Segment};
use tessera_device::dma::DmaBuffer;

/// Bytes of a command header.
pub const HEADER: usize = 32;
/// Bytes of a command table: frame, packet, and as many pieces of memory as fit.
pub const TABLE: usize = 2048;
/// Pieces of memory of one command.
pub const MAX_PIECES: usize = (TABLE - PIECES) / 16;
/// Where the pieces begin in a table.
const PIECES: usize = 0x80;
/// Where the packet is in a table.
const PACKET: usize = 0x40;
/// Bytes of one piece at most.
const MAX_PIECE: u32 = 4 << 20;

/// ATA commands (ACS-3).
mod ata {
    pub const DATA_SET_MANAGEMENT: u8 = 0x06;
    pub const READ_DMA_EXT: u8 = 0x25;
    pub const WRITE_DMA_EXT: u8 = 0x35;
    pub const READ_FPDMA: u8 = 0x60;
    pub const WRITE_FPDMA: u8 = 0x61;
    pub const PACKET: u8 = 0xa0;
    pub const IDENTIFY_PACKET: u8 = 0xa1;
    pub const SMART: u8 = 0xb0;
    pub const READ_DMA: u8 = 0xc8;
    pub const WRITE_DMA: u8 = 0xca;
    pub const FLUSH: u8 = 0xe7;
    pub const FLUSH_EXT: u8 = 0xea;
    pub const IDENTIFY: u8 = 0xec;
}

/// A command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Command {
    opcode: u8,
    features: u16,
    address: u64,
    count: u16,
    device: u8,
    /// Memory goes to the device.
    pub writes: bool,
    /// It is queued: any number may be in flight.
    pub queued: bool,
    /// A packet for a CD-ROM drive.
    pub packet: Option<[u8; 12]>,
}

/// A disk's ways.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ways {
    /// Commands may be queued.
    pub queued: bool,
    /// Addresses have 48 bits.
    pub wide: bool,
}

impl Command {
    /// Identifies a disk, or a CD-ROM drive.
    pub fn identify(packet_device: bool) -> Self {
        Self {
            opcode: if packet_device { ata::IDENTIFY_PACKET } else { ata::IDENTIFY },
            ..Self::default()
        }
    }

    /// Asks for a disk's condition.
    pub fn smart() -> Self {
        Self {
            opcode: ata::SMART,
            features: 0xd0,
            address: 0xc2_4f00,
            ..Self::default()
        }
    }

    /// Asks whether a disk warns that it is failing: the frame that comes back says so.
    pub fn smart_status() -> Self {
        Self {
            features: 0xda,
            ..Self::smart()
        }
    }

    /// A packet; `read` bytes come back, or none.
    pub fn packet(packet: [u8; 12], reads: bool) -> Self {
        Self {
            opcode: ata::PACKET,
            // By DMA.
            features: u16::from(reads),
            packet: Some(packet),
            ..Self::default()
        }
    }

    /// A request to a disk; `tag` is the number of its slot.
    pub fn disk(operation: Operation, sector: u64, sectors: u64, ways: Ways, tag: u32) -> Option<Self> {
        // 0 stands for the most that the field can say.
        let count = sectors as u16;
        let writes = operation == Operation::Write;
        Some(match operation {
            Operation::Read | Operation::Write if ways.queued => Self {
                opcode: if writes { ata::WRITE_FPDMA } else { ata::READ_FPDMA },
                features: count,
                address: sector,
                count: (tag as u16) << 3,
                device: 0x40,
                writes,
                queued: true,
                packet: None,
            },
            Operation::Read | Operation::Write if ways.wide => Self {
                opcode: if writes { ata::WRITE_DMA_EXT } else { ata::READ_DMA_EXT },
                address: sector,
                count,
                device: 0x40,
                writes,
                ..Self::default()
            },
            Operation::Read | Operation::Write => Self {
                opcode: if writes { ata::WRITE_DMA } else { ata::READ_DMA },
                address: sector & 0xff_ffff,
                count: count & 0xff,
                device: 0x40 | (sector >> 24 & 15) as u8,
                writes,
                ..Self::default()
            },
            Operation::Flush => Self {
                opcode: if ways.wide { ata::FLUSH_EXT } else { ata::FLUSH },
                device: 0x40,
                ..Self::default()
            },
            // One block of ranges.
            Operation::Discard => Self {
                opcode: ata::DATA_SET_MANAGEMENT,
                features: 1,
                count: 1,
                device: 0x40,
                writes: true,
                ..Self::default()
            },
            Operation::WriteZeroes => return None,
        })
    }

    /// The frame: host to device, with a new command.
    fn frame(&self) -> [u8; 20] {
        let address = self.address.to_le_bytes();
        let [features, features_high] = self.features.to_le_bytes();
        let [count, count_high] = self.count.to_le_bytes();
        [
            0x27,
            0x80,
            self.opcode,
            features,
            address[0],
            address[1],
            address[2],
            self.device,
            address[3],
            address[4],
            address[5],
            features_high,
            count,
            count_high,
            0,
            0,
            0,
            0,
            0,
            0,
        ]
    }

    /// Writes header and table for the command. `segments`: at most [`MAX_PIECES`].
    pub fn write(&self, header: &DmaBuffer, table: &DmaBuffer, segments: &[Segment]) {
        table.copy_in(0, &self.frame());
        if let Some(packet) = &self.packet {
            table.copy_in(PACKET, packet);
            table.write(PACKET + 12, 0u32);
        }
        for (index, segment) in segments.iter().take(MAX_PIECES).enumerate() {
            let at = PIECES + index * 16;
            table.write(at, segment.physical);
            table.write(at + 8, 0u32);
            table.write(at + 12, segment.length - 1);
        }
        self.write_header(header, table.physical(), segments.len().min(MAX_PIECES));
    }

    /// Writes the command anew, with the memory that it has.
    pub fn rewrite(&self, header: &DmaBuffer, table: &DmaBuffer) {
        let pieces = (header.read::<u32>(0) >> 16) as usize;
        table.copy_in(0, &self.frame());
        self.write_header(header, table.physical(), pieces);
    }

    fn write_header(&self, header: &DmaBuffer, table: u64, pieces: usize) {
        // Length of the frame in double words; bit 5: packet; bit 6: write.
        let flags = 5 | u32::from(self.packet.is_some()) << 5 | u32::from(self.writes) << 6;
        header.write(0, flags | (pieces as u32) << 16);
        header.write(4, 0u32);
        header.write(8, table);
    }
}

/// Whether memory can be named: whole words, in few enough pieces.
pub fn fits(segments: &[Segment]) -> bool {
    let good = |segment: &Segment| segment.physical.is_multiple_of(2) && segment.length.is_multiple_of(2) && segment.length <= MAX_PIECE;
    segments.len() <= MAX_PIECES && segments.iter().all(good)
}

/// Sectors that one range of a TRIM has at most, and ranges of one block.
const TRIM_SECTORS: u64 = 0xffff;
const TRIM_RANGES: u64 = 64;

/// Sectors that one TRIM takes at most.
pub const MAX_TRIM: u64 = TRIM_SECTORS * TRIM_RANGES;

/// Writes the block of ranges of a TRIM (ACS-3, 7.5).
pub fn write_ranges(block: &DmaBuffer, mut sector: u64, mut sectors: u64) {
    block.clear(0, 512);
    for range in 0..TRIM_RANGES as usize {
        let count = sectors.min(TRIM_SECTORS);
        block.write(range * 8, if count == 0 { 0 } else { sector | count << 48 });
        sector += count;
        sectors -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_are_as_the_standard_draws_them() {
        let ways = Ways { queued: true, wide: true };
        let read = Command::disk(Operation::Read, 0x0605_0403_0201, 0x1234, ways, 5).unwrap();
        assert_eq!(read.frame()[..14], [0x27, 0x80, 0x60, 0x34, 1, 2, 3, 0x40, 4, 5, 6, 0x12, 0x28, 0]);
        let old = Command::disk(Operation::Write, 0x0b01_0203, 256, Ways::default(), 0).unwrap();
        assert_eq!(old.frame()[..14], [0x27, 0x80, 0xca, 0, 3, 2, 1, 0x4b, 0, 0, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn ranges_cover_what_is_discarded(first in 0u64..1 << 40, sectors in 1..=MAX_TRIM) {
            let block = DmaBuffer::of_this_process(512);
            write_ranges(&block, first, sectors);
            let mut next = first;
            for range in 0..64 {
                let entry = block.read::<u64>(range * 8);
                if entry >> 48 != 0 {
                    prop_assert_eq!(entry & 0xffff_ffff_ffff, next);
                    next += entry >> 48;
                }
            }
            prop_assert_eq!(next, first + sectors);
        }
    }
}
