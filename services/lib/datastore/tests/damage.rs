//! Damaged and hostile images: mounting, checking and repairing never panic, never go on for ever, and repairing leaves nothing to be found.

use proptest::prelude::*;
use std::sync::OnceLock;
use tessera_block::{BlockDevice, MemoryDevice, block_on};
use tessera_datastore::{CheckOptions, DiskOptions, FormatOptions, Kind, MountOptions, Store, check, repair};

const BYTES: u64 = 8 << 20;
const BLOCK: u64 = 4096;
const OPTIONS: CheckOptions = CheckOptions {
    data: true,
    cache: 1 << 20,
};

/// A datastore with some of everything, as bytes.
fn image() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let options = FormatOptions {
            log_blocks: Some(16),
            label: "damaged".into(),
            uuid: [9; 16],
            ..FormatOptions::default()
        };
        let store = block_on(Store::format(MemoryDevice::new(512, BYTES / 512), &options)).unwrap();
        store.create_folder("folder", 1).unwrap();
        for number in 0..20 {
            let file = store.create_file(&format!("folder/file {number}"), 2).unwrap();
            block_on(store.write(file, 0, &vec![number as u8; 9000])).unwrap();
        }
        let disk = store
            .create_disk(
                "disk",
                &DiskOptions {
                    size: 4 << 20,
                    ..DiskOptions::default()
                },
            )
            .unwrap();
        let checked = store
            .create_disk(
                "checked",
                &DiskOptions {
                    size: 1 << 20,
                    checksums: true,
                    ..DiskOptions::default()
                },
            )
            .unwrap();
        block_on(store.write(checked, 4096, &[5; 100_000])).unwrap();
        for step in 0..4_u64 {
            block_on(store.write(disk, step * 300_000, &[step as u8 + 1; 200_000])).unwrap();
            block_on(store.create_snapshot(disk, &format!("snapshot {step}"), 3)).unwrap();
        }
        let snapshots = store.snapshots(disk).unwrap();
        store.clone_snapshot(snapshots[1].id, "clone", [2; 16], 4).unwrap();
        store.remove_snapshot(snapshots[2].id).unwrap();
        block_on(store.reclaim(1)).unwrap();
        block_on(store.sync()).unwrap();
        block_on(store.write(disk, 2_000_000, &[8; 50_000])).unwrap();
        block_on(store.discard(disk, 0, 100_000)).unwrap();
        block_on(store.flush()).unwrap();
        let device = store.into_device();
        let mut bytes = vec![0; BYTES as usize];
        block_on(device.read(0, &mut bytes)).unwrap();
        bytes
    })
}

fn device(bytes: &[u8]) -> MemoryDevice {
    let device = MemoryDevice::new(512, BYTES / 512);
    block_on(device.write(0, bytes)).unwrap();
    device
}

#[derive(Clone, Debug)]
enum Damage {
    /// Other bytes at a place.
    Bytes(u64, Vec<u8>),
    /// A block of zeroes.
    Zero(u64),
    /// A block that is what another one is.
    Copy(u64, u64),
    /// A superblock with other bytes and a checksum that holds.
    Superblock(u64, Vec<u8>),
    /// A sector that cannot be read.
    Bad(u64),
}

fn block() -> impl Strategy<Value = u64> {
    // Superblocks, index and bitmaps, the log, and what follows it, where most of the content is.
    prop_oneof![0..8_u64, 16..20_u64, 1042..1066_u64, 1066..1500_u64]
}

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..9);
    prop_oneof![
        4 => (block(), 0..BLOCK - 16, bytes()).prop_map(|(block, at, bytes)| Damage::Bytes(block * BLOCK + at, bytes)),
        2 => block().prop_map(Damage::Zero),
        2 => (block(), block()).prop_map(|(from, to)| Damage::Copy(from, to)),
        3 => (12..128_u64, bytes()).prop_map(|(at, bytes)| Damage::Superblock(at, bytes)),
        1 => (block(), 0..8_u64).prop_map(|(block, sector)| Damage::Bad(block * 8 + sector)),
    ]
}

/// CRC-32C, bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ ((crc & 1) * 0x82f6_3b78))
    })
}

fn damaged(list: &[Damage]) -> MemoryDevice {
    let mut bytes = image().to_vec();
    let mut bad = Vec::new();
    for damage in list {
        match damage {
            Damage::Bytes(at, new) => bytes[*at as usize..][..new.len()].copy_from_slice(new),
            Damage::Zero(block) => bytes[(*block * BLOCK) as usize..][..BLOCK as usize].fill(0),
            Damage::Copy(from, to) => bytes.copy_within((from * BLOCK) as usize..((from + 1) * BLOCK) as usize, (to * BLOCK) as usize),
            Damage::Superblock(at, new) => {
                for slot in [0, 4, 1042, 1046] {
                    let superblock = &mut bytes[slot * BLOCK as usize..][..16384];
                    superblock[*at as usize..][..new.len()].copy_from_slice(new);
                    superblock[8..12].fill(0);
                    let crc = checksum(superblock);
                    superblock[8..12].copy_from_slice(&crc.to_le_bytes());
                }
            }
            Damage::Bad(sector) => bad.push(*sector),
        }
    }
    let device = device(&bytes);
    bad.iter().for_each(|sector| device.set_bad(*sector, true));
    device
}

/// Reads all that can be found.
fn read_all<D: BlockDevice>(store: &Store<D>, folder: &str) {
    for info in store.list(folder).unwrap_or_default() {
        let path = format!("{folder}/{}", info.name);
        if info.kind == Kind::Folder {
            read_all(store, &path);
        }
        let mut ids = vec![info.id];
        ids.extend(store.snapshots(info.id).unwrap_or_default().iter().map(|snapshot| snapshot.id));
        for id in ids {
            let mut buffer = vec![0; 1 << 16];
            for step in 0..store.info(id).map_or(0, |info| info.size.min(8 << 20)) >> 16 {
                let _ = block_on(store.read(id, step << 16, &mut buffer));
            }
        }
    }
}

#[test]
fn an_image_without_damage_has_no_problems() {
    let report = block_on(check(device(image()), OPTIONS, |_, _| {})).unwrap();
    assert_eq!((report.count, report.problems), (0, vec![]));
    assert!(report.verified > 20);
}

#[test]
fn a_superblock_that_knows_of_fewer_objects_is_mended() {
    for objects in 0..32 {
        let device = damaged(&[Damage::Superblock(52, vec![objects])]);
        block_on(repair(&device, OPTIONS, |_, _| {})).unwrap();
        let again = block_on(check(&device, OPTIONS, |_, _| {})).unwrap();
        assert_eq!((again.count, &again.problems), (0, &vec![]), "{objects} objects");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn damage_is_told_and_mended(list in prop::collection::vec(damage(), 1..6)) {
        let device = damaged(&list);
        if let Ok(store) = block_on(Store::mount(&device, MountOptions { cache: 1 << 20, read_only: true, ..MountOptions::default() })) {
            read_all(&store, "");
        }
        let _ = block_on(check(&device, OPTIONS, |_, _| {}));
        let bad = list.iter().any(|damage| matches!(damage, Damage::Bad(_)));
        // Where no superblock is left there is nothing to begin with, and what cannot be written cannot be mended.
        match block_on(repair(&device, OPTIONS, |_, _| {})) {
            Ok(_) => {
                let again = block_on(check(&device, OPTIONS, |_, _| {}));
                prop_assert!(bad || matches!(&again, Ok(report) if report.count == 0), "{again:#?}");
                let store = block_on(Store::mount(&device, MountOptions { cache: 1 << 20, read_only: false, ..MountOptions::default() }));
                prop_assert!(bad || store.is_ok(), "{:?}", store.err());
                if let Ok(store) = store {
                    read_all(&store, "");
                    let _ = store.create_file("new", 0).map(|file| block_on(store.write(file, 0, &[1; 10_000])));
                    let _ = block_on(store.sync());
                }
            }
            Err(error) => prop_assert!(bad || list.iter().any(|damage| matches!(damage, Damage::Superblock(..) | Damage::Copy(..) | Damage::Zero(_) | Damage::Bytes(..))), "{error}"),
        }
    }
}

#[test]
fn a_disk_that_is_gone_is_told_and_nothing_is_lost() {
    let device = device(image());
    {
        let store = block_on(Store::mount(&device, MountOptions::default())).unwrap();
        let disk = store.lookup("disk").unwrap().id;
        device.set_gone(true);
        assert!(block_on(store.write(disk, 3_000_000, &[1; 8192])).is_err());
        assert!(block_on(store.flush()).is_err());
        assert!(block_on(store.create_snapshot(disk, "late", 0)).is_err());
    }
    device.set_gone(false);
    let report = block_on(check(&device, OPTIONS, |_, _| {})).unwrap();
    assert_eq!((report.count, report.problems), (0, vec![]));
}
