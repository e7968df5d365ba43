//! The limit on what a datastore knows of its objects.

use proptest::prelude::*;
use tessera_block::{MemoryDevice, block_on};
use tessera_datastore::{CheckOptions, DiskOptions, Error, FormatOptions, Memory, MountOptions, Store, check};

fn device() -> MemoryDevice {
    MemoryDevice::new(512, (64 << 20) / 512)
}

fn format(memory: &Memory) -> Store<MemoryDevice> {
    let options = FormatOptions {
        memory: memory.clone(),
        ..FormatOptions::default()
    };
    block_on(Store::format(device(), &options)).unwrap()
}

fn mount(device: MemoryDevice, memory: &Memory) -> Result<Store<MemoryDevice>, Error> {
    let options = MountOptions {
        memory: memory.clone(),
        ..MountOptions::default()
    };
    block_on(Store::mount(device, options))
}

/// Makes files until there is no room for more.
fn fill(store: &Store<MemoryDevice>) -> usize {
    (0..)
        .find(|number| match store.create_file(&format!("file {number}"), 1) {
            Ok(_) => false,
            Err(Error::TooMany) => true,
            Err(error) => panic!("{error}"),
        })
        .unwrap()
}

#[test]
fn nothing_is_made_that_could_not_be_mounted() {
    const BYTES: usize = 100_000;
    let memory = Memory::limited(BYTES);
    let store = format(&memory);
    let count = fill(&store);
    assert!((BYTES / 512..BYTES / 256).contains(&count), "{count} files");
    assert_eq!(store.create_folder("folder", 1), Err(Error::TooMany));
    assert_eq!(
        store.create_disk(
            "disk",
            &DiskOptions {
                size: 1 << 20,
                ..DiskOptions::default()
            }
        ),
        Err(Error::TooMany)
    );
    assert_eq!(store.rename("file 0", &"long".repeat(60)), Err(Error::TooMany));
    assert!(store.lookup("file 0").is_ok());
    block_on(store.sync()).unwrap();
    let device = store.into_device();
    assert_eq!(memory.left(), BYTES);
    let store = mount(device, &memory).unwrap();
    assert_eq!(store.list("").unwrap().len(), count);
    // What is removed makes room.
    block_on(store.remove("file 7")).unwrap();
    while block_on(store.reclaim(16)).unwrap() {}
    store.create_folder("folder", 1).unwrap();
    assert_eq!(store.create_folder("more", 1), Err(Error::TooMany));
    block_on(store.sync()).unwrap();
    let device = store.into_device();
    let error = mount(device, &Memory::limited(BYTES - 512)).err().unwrap();
    assert_eq!(error, Error::TooMany);
    assert!(error.to_string().contains("heap"), "{error}");
}

#[test]
fn datastores_share_what_there_is() {
    let memory = Memory::limited(50_000);
    let one = format(&memory);
    let two = format(&memory);
    for number in 0..50 {
        one.create_file(&format!("{number}"), 1).unwrap();
    }
    let before = fill(&two);
    assert_eq!(one.create_file("one more", 1), Err(Error::TooMany));
    drop(one);
    assert_eq!(two.create_file(&format!("file {before}"), 1).map(drop), Ok(()));
}

#[test]
fn a_check_has_no_limit_and_tells_what_a_host_needs() {
    let memory = Memory::limited(60_000);
    let store = format(&memory);
    fill(&store);
    block_on(store.sync()).unwrap();
    let taken = 60_000 - memory.left() as u64;
    let report = block_on(check(store.into_device(), CheckOptions::default(), |_, _| {})).unwrap();
    assert_eq!((report.count, report.memory), (0, taken));
}

#[test]
fn parts_of_a_folder_are_all_of_it() {
    let store = format(&Memory::default());
    for number in 0..25 {
        store.create_file(&format!("{number:02}"), 1).unwrap();
    }
    let parts: Vec<_> = (0..4).flat_map(|part| store.list_part("", part * 7, 7).unwrap()).collect();
    assert_eq!(parts, store.list("").unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is done, a mount needs what is taken already, so that it never fails for want of memory; and all of it comes back.
    #[test]
    fn a_mount_takes_what_was_taken(bytes in 3_000usize..12_000, steps in prop::collection::vec((0u8..8, 0u8..6, 1usize..60), 1..40)) {
        let memory = Memory::limited(bytes);
        let store = format(&memory);
        let known = |result: Result<(), Error>| {
            prop_assert!(!matches!(result, Err(Error::Damaged { .. } | Error::Io { .. } | Error::NoSpace { .. })), "{result:?}");
            Ok(())
        };
        for (what, which, length) in steps {
            let name = format!("disk {which}");
            let id = store.lookup(&name).map(|info| info.id).unwrap_or(99);
            let snapshot = store.snapshots(id).ok().and_then(|list| list.first().map(|info| info.id));
            known(match what {
                0 => store.create_disk(&name, &DiskOptions { size: 1 << 20, ..DiskOptions::default() }).map(drop),
                1 => block_on(store.create_snapshot(id, &"s".repeat(length), 1)).map(drop),
                2 => snapshot.map_or(Ok(()), |snapshot| block_on(store.revert(id, snapshot))),
                3 => snapshot.map_or(Ok(()), |snapshot| store.remove_snapshot(snapshot)),
                4 => block_on(store.remove(&name)),
                5 => store.rename(&name, &"r".repeat(length)),
                6 => snapshot.map_or(Ok(()), |snapshot| store.clone_snapshot(snapshot, &"c".repeat(length), [1; 16], 1).map(drop)),
                _ => block_on(store.reclaim(1)).map(drop),
            })?;
        }
        block_on(store.sync()).unwrap();
        let left = memory.left();
        let device = store.into_device();
        prop_assert_eq!(memory.left(), bytes);
        let exactly = Memory::limited(bytes - left);
        let store = mount(device, &exactly);
        prop_assert!(store.is_ok(), "{:?}", store.err());
        prop_assert_eq!(exactly.left(), 0);
    }
}
