//! What a datastore does when nothing goes wrong.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Waker};
use tessera_block::{BlockDevice, MemoryDevice, block_on};
use tessera_datastore::{DiskOptions, Error, Extent, FormatOptions, Kind, MountOptions, Store, Translated};

fn device() -> MemoryDevice {
    MemoryDevice::new(512, (64 << 20) / 512)
}

fn format(device: MemoryDevice) -> Store<MemoryDevice> {
    block_on(Store::format(
        device,
        &FormatOptions {
            label: "test".into(),
            ..FormatOptions::default()
        },
    ))
    .unwrap()
}

fn remount(store: Store<MemoryDevice>) -> Store<MemoryDevice> {
    block_on(Store::mount(store.into_device(), MountOptions::default())).unwrap()
}

#[test]
fn files_folders_and_disks_are_there_after_a_mount() {
    let store = format(device());
    store.create_folder("iso", 5).unwrap();
    let file = store.create_file("iso/a.iso", 6).unwrap();
    let content: Vec<u8> = (0..3_000_000_u32).map(|byte| (byte * 7 % 251) as u8).collect();
    block_on(store.write(file, 0, &content)).unwrap();
    let disk = store
        .create_disk(
            "vm.disk",
            &DiskOptions {
                size: 10 << 30,
                uuid: [7; 16],
                ..DiskOptions::default()
            },
        )
        .unwrap();
    block_on(store.write(disk, (9 << 30) + 512, &[3; 5000])).unwrap();
    assert!(matches!(store.create_file("iso/a.iso", 0), Err(Error::Exists(_))));
    assert!(matches!(block_on(store.remove("iso")), Err(Error::NotEmpty(_))));
    block_on(store.flush()).unwrap();
    let store = remount(store);
    let info = store.lookup("iso/a.iso").unwrap();
    assert_eq!((info.kind, info.size), (Kind::File, 3_000_000));
    let mut back = vec![0; content.len()];
    block_on(store.read(info.id, 0, &mut back)).unwrap();
    assert!(back == content);
    let mut back = vec![9; 6000];
    block_on(store.read(store.lookup("/vm.disk").unwrap().id, 9 << 30, &mut back)).unwrap();
    assert!(
        back[..512].iter().all(|&byte| byte == 0)
            && back[512..5512].iter().all(|&byte| byte == 3)
            && back[5512..].iter().all(|&byte| byte == 0)
    );
    assert_eq!(
        store.list("").unwrap().iter().map(|info| info.name.as_str()).collect::<Vec<_>>(),
        ["iso", "vm.disk"]
    );
}

#[test]
fn a_sequential_write_is_one_extent_and_then_translated_at_once() {
    let store = format(device());
    let disk = store
        .create_disk(
            "d",
            &DiskOptions {
                size: 16 << 20,
                ..DiskOptions::default()
            },
        )
        .unwrap();
    let mut extents = Vec::new();
    assert_eq!(store.translate_write(disk, 0, 4096, &mut extents).unwrap(), Translated::NeedsWork);
    let ticket = block_on(store.prepare_write(disk, 0, 8 << 20, &mut extents)).unwrap();
    assert_eq!(extents.len(), 1);
    // Not written yet, so it still reads as zeroes.
    let mut before = Vec::new();
    let Translated::Ready(read) = store.translate_read(disk, 0, 4096, &mut before).unwrap() else {
        panic!("not in memory")
    };
    assert_eq!(
        before,
        [Extent {
            sector: None,
            length: 4096
        }]
    );
    store.finish(read, true);
    store.finish(ticket, true);
    let mut after = Vec::new();
    let Translated::Ready(write) = store.translate_write(disk, 512, 128 << 10, &mut after).unwrap() else {
        panic!("not in place")
    };
    assert_eq!(
        after,
        [Extent {
            sector: extents[0].sector.map(|sector| sector + 1),
            length: 128 << 10
        }]
    );
    store.finish(write, true);
}

/// `valgrind --tool=callgrind --toggle-collect='*measured*'` on the test's executable tells how many instructions this takes.
#[inline(never)]
fn measured_mount(device: MemoryDevice) -> Store<MemoryDevice> {
    block_on(Store::mount(device, MountOptions::default())).unwrap()
}

#[test]
fn a_tebibyte_with_ten_thousand_files_is_mounted_with_few_reads() {
    let device = MemoryDevice::new(4096, (1 << 40) / 4096);
    let store = block_on(Store::format(device, &FormatOptions::default())).unwrap();
    for folder in 0..10 {
        store.create_folder(&format!("folder {folder}"), 1).unwrap();
        for number in 0..1000 {
            let file = store.create_file(&format!("folder {folder}/file {number}"), 1).unwrap();
            block_on(store.write(file, 0, &[1; 5000])).unwrap();
        }
    }
    block_on(store.sync()).unwrap();
    let device = store.into_device();
    device.reset_counts();
    let store = measured_mount(device);
    // 1,251 tables of the catalogue, their tree, and little else.
    let counts = store.device().counts();
    assert!(counts.reads < 1400 && counts.writes < 20, "{counts:?}");
    assert_eq!(store.list("folder 7").unwrap().len(), 1000);
}

#[inline(never)]
fn measured_translations(store: &Store<MemoryDevice>, disk: u32, length: u64, extents: &mut Vec<Extent>) {
    for step in 0..1000_u64 {
        extents.clear();
        let Translated::Ready(ticket) = store.translate_read(disk, step * 4096, length, extents).unwrap() else {
            panic!("not in memory")
        };
        store.finish(ticket, true);
    }
}

#[inline(never)]
fn measured_long_translations(store: &Store<MemoryDevice>, disk: u32, length: u64, extents: &mut Vec<Extent>) {
    for step in 0..100_u64 {
        extents.clear();
        let Translated::Ready(ticket) = store.translate_write(disk, step << 14, length, extents).unwrap() else {
            panic!("not in memory")
        };
        store.finish(ticket, true);
    }
}

#[inline(never)]
fn measured_snapshot(store: &Store<MemoryDevice>, disk: u32) {
    block_on(store.create_snapshot(disk, "s", 0)).unwrap();
}

#[test]
fn a_snapshot_writes_as_little_of_a_large_disk_as_of_a_small_one() {
    let mut written = Vec::new();
    for mebibytes in [1_u64, 32] {
        let store = format(device());
        let disk = store
            .create_disk(
                "d",
                &DiskOptions {
                    size: 10 << 30,
                    ..DiskOptions::default()
                },
            )
            .unwrap();
        block_on(store.write(disk, 0, &vec![1; (mebibytes << 20) as usize])).unwrap();
        block_on(store.sync()).unwrap();
        let mut extents = Vec::new();
        if mebibytes > 8 {
            measured_translations(&store, disk, 4096, &mut extents);
            measured_long_translations(&store, disk, 128 << 10, &mut extents);
        }
        store.device().reset_counts();
        measured_snapshot(&store, disk);
        written.push(store.device().counts());
    }
    assert!(
        written[1].writes <= written[0].writes + 1 && written[1].reads <= written[0].reads + 2,
        "{written:?}"
    );
}

#[test]
fn a_part_of_a_block_is_not_written_over_a_write_to_another_part_of_it() {
    let store = format(device());
    let options = DiskOptions {
        size: 16 << 20,
        ..DiskOptions::default()
    };
    let disk = store.create_disk("d", &options).unwrap();
    block_on(store.write(disk, 0, &[1; 4096])).unwrap();
    // As a guest does: where its data goes is asked first, and the data follows.
    let mut extents = Vec::new();
    let Translated::Ready(ticket) = store.translate_write(disk, 0, 512, &mut extents).unwrap() else {
        panic!("the block is there");
    };
    {
        let mut zeroing = pin!(store.write_zeroes(disk, 512, 512));
        let mut context = Context::from_waker(Waker::noop());
        assert!(zeroing.as_mut().poll(&mut context).is_pending());
        block_on(store.device().write(extents[0].sector.unwrap(), &[2; 512])).unwrap();
        store.finish(ticket, true);
        block_on(zeroing).unwrap();
    }
    let mut block = [0; 4096];
    block_on(store.read(disk, 0, &mut block)).unwrap();
    let found: Vec<u8> = block.iter().step_by(512).copied().collect();
    assert_eq!(found, [2, 0, 1, 1, 1, 1, 1, 1]);
}
