//! Devices in memory and windows of them.

use proptest::prelude::*;
use tessera_block::{BlockDevice, IoError, MemoryDevice, Partition, block_on};

const SECTORS: u64 = 300;

#[derive(Clone, Debug)]
enum Operation {
    Write(u64, u64, u8),
    Zero(u64, u64),
    Read(u64, u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    let range = || (0..SECTORS + 20, 0..SECTORS);
    prop_oneof![
        (range(), any::<u8>()).prop_map(|((sector, count), byte)| Operation::Write(sector, count, byte)),
        range().prop_map(|(sector, count)| Operation::Zero(sector, count)),
        range().prop_map(|(sector, count)| Operation::Read(sector, count)),
    ]
}

proptest! {
    /// A window behaves as a device of its own, and the sectors around it keep what they had.
    #[test]
    fn a_partition_is_a_device_of_its_own(operations in prop::collection::vec(operation(), 1..40), first in 0..200_u64) {
        let device = MemoryDevice::new(512, SECTORS + 400);
        block_on(device.write(0, &vec![0xee; (SECTORS as usize + 400) * 512])).unwrap();
        let partition = Partition::new(&device, first, SECTORS).unwrap();
        let mut model = vec![0xee_u8; SECTORS as usize * 512];
        for operation in operations {
            match operation {
                Operation::Write(sector, count, byte) => {
                    let result = block_on(partition.write(sector, &vec![byte; count as usize * 512]));
                    prop_assert_eq!(result.is_ok(), sector + count <= SECTORS);
                    if result.is_ok() {
                        model[sector as usize * 512..][..count as usize * 512].fill(byte);
                    }
                }
                Operation::Zero(sector, count) => {
                    let result = block_on(partition.write_zeroes(sector, count));
                    prop_assert_eq!(result.is_ok(), sector + count <= SECTORS);
                    if result.is_ok() {
                        model[sector as usize * 512..][..count as usize * 512].fill(0);
                    }
                }
                Operation::Read(sector, count) => {
                    let mut buffer = vec![0; count as usize * 512];
                    if block_on(partition.read(sector, &mut buffer)).is_ok() {
                        prop_assert_eq!(&buffer[..], &model[sector as usize * 512..][..count as usize * 512]);
                    } else {
                        prop_assert!(sector + count > SECTORS);
                    }
                }
            }
        }
        let mut all = vec![0; (SECTORS as usize + 400) * 512];
        block_on(device.read(0, &mut all)).unwrap();
        let (start, end) = (first as usize * 512, (first + SECTORS) as usize * 512);
        prop_assert!(all[..start].iter().chain(&all[end..]).all(|&byte| byte == 0xee));
        prop_assert_eq!(&all[start..end], &model[..]);
    }
}

#[test]
fn sectors_and_lengths_that_wrap_are_refused() {
    let device = MemoryDevice::new(512, 8);
    assert!(matches!(block_on(device.discard(u64::MAX, 2)), Err(IoError::OutOfRange { .. })));
    assert!(matches!(
        block_on(device.write_zeroes(1, u64::MAX)),
        Err(IoError::OutOfRange { .. })
    ));
    assert!(matches!(
        block_on(device.write(0, &[0; 100])),
        Err(IoError::Misaligned {
            length: 100,
            sector_size: 512
        })
    ));
    assert!(matches!(Partition::new(&device, u64::MAX, 2), Err(IoError::OutOfRange { .. })));
}

#[test]
fn errors_of_a_partition_name_its_own_sectors() {
    let device = MemoryDevice::new(512, 64);
    let partition = Partition::new(&device, 16, 32).unwrap();
    device.set_bad(20, true);
    assert_eq!(block_on(partition.read(0, &mut [0; 8 * 512])), Err(IoError::Media { sector: 4 }));
    device.set_gone(true);
    assert_eq!(block_on(partition.flush()), Err(IoError::Gone));
}

#[test]
fn a_large_device_takes_the_memory_of_what_was_written() {
    let device = MemoryDevice::new(4096, 1 << 30);
    block_on(device.write((1 << 30) - 1, &[7; 4096])).unwrap();
    let mut buffer = [0; 4096];
    block_on(device.read((1 << 30) - 1, &mut buffer)).unwrap();
    assert_eq!(buffer, [7; 4096]);
    assert!(device.used_memory() <= 64 << 10);
}
