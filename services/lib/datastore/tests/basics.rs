//! What a datastore does when nothing goes wrong.

use tessera_block::{MemoryDevice, block_on};
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
