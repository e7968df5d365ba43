//! Partition tables: those that are whole are read, damaged and hostile ones refused.

use proptest::prelude::*;
use tessera_block::{BlockDevice, MemoryDevice, block_on};
use tessera_datastore::gpt::{self, GptError};

const SECTORS: u64 = 4096;

/// CRC-32, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ ((crc & 1) * 0xedb8_8320))
    })
}

fn header(at: u64, entries_at: u64, entries: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    let mut put = |place: usize, bytes: &[u8]| header[place..place + bytes.len()].copy_from_slice(bytes);
    put(0, b"EFI PART");
    put(8, &0x10000_u32.to_le_bytes());
    put(12, &92_u32.to_le_bytes());
    put(24, &at.to_le_bytes());
    put(32, &(SECTORS - at).to_le_bytes());
    put(40, &34_u64.to_le_bytes());
    put(48, &(SECTORS - 34).to_le_bytes());
    put(72, &entries_at.to_le_bytes());
    put(80, &128_u32.to_le_bytes());
    put(84, &128_u32.to_le_bytes());
    put(88, &crc(entries).to_le_bytes());
    let sum = crc(&header[..92]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    header
}

fn disk(partitions: &[(u64, u64)]) -> MemoryDevice {
    let device = MemoryDevice::new(512, SECTORS);
    let mut entries = vec![0; 128 * 128];
    for (entry, (first, last)) in entries.chunks_mut(128).zip(partitions) {
        entry[..16].copy_from_slice(&gpt::DATASTORE_TYPE);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
        entry[56..58].copy_from_slice(b"d\0");
    }
    block_on(device.write(1, &header(1, 2, &entries))).unwrap();
    block_on(device.write(2, &entries)).unwrap();
    block_on(device.write(SECTORS - 33, &entries)).unwrap();
    block_on(device.write(SECTORS - 1, &header(SECTORS - 1, SECTORS - 33, &entries))).unwrap();
    device
}

#[test]
fn a_table_and_its_copy_are_read() {
    let device = disk(&[(40, 99), (100, 4000)]);
    let table = block_on(gpt::read(&device)).unwrap();
    assert_eq!(
        table
            .partitions
            .iter()
            .map(|entry| (entry.number, entry.first, entry.sectors, entry.name.as_str()))
            .collect::<Vec<_>>(),
        [(1, 40, 60, "d"), (2, 100, 3901, "d")]
    );
    assert!(!table.from_backup);
    block_on(device.write(1, &[0; 512])).unwrap();
    assert!(block_on(gpt::read(&device)).unwrap().from_backup);
    block_on(device.write(SECTORS - 1, &[0; 512])).unwrap();
    assert_eq!(block_on(gpt::read(&device)), Err(GptError::Missing));
}

#[test]
fn partitions_that_overlap_or_reach_outside_are_refused() {
    for partitions in [
        &[(40, 99), (99, 200)][..],
        &[(33, 99)],
        &[(40, SECTORS)],
        &[(50, 40)],
        &[(40, u64::MAX)],
    ] {
        assert!(
            matches!(block_on(gpt::read(&disk(partitions))), Err(GptError::Damaged(_))),
            "{partitions:?}"
        );
    }
}

proptest! {
    /// Whatever is in the header, with a checksum that holds: an answer, and partitions that are on the disk.
    #[test]
    fn hostile_headers_get_an_answer(changes in prop::collection::vec((8..92_usize, any::<u8>()), 1..6), first in 0..SECTORS, last in 0..SECTORS) {
        let device = disk(&[(first, last)]);
        let mut bytes = vec![0; 512];
        block_on(device.read(1, &mut bytes)).unwrap();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes[16..20].fill(0);
        let length = (u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize).min(512);
        let sum = crc(&bytes[..length]);
        bytes[16..20].copy_from_slice(&sum.to_le_bytes());
        block_on(device.write(1, &bytes)).unwrap();
        if let Ok(table) = block_on(gpt::read(&device)) {
            prop_assert!(table.partitions.iter().all(|entry| entry.sectors > 0 && entry.first + entry.sectors <= SECTORS));
        }
    }
}
