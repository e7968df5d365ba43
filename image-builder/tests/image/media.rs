//! Whole images: what is in them, and that they are the same to the byte each time.

use image_builder::{
    bundle, disk,
    grub::Grub,
    iso,
    payload::Payload,
    program::PAGE,
    system::{Description, System},
};
use std::{
    io::{Cursor, Read},
    path::Path,
};
use tessera_abi::bundle::MAGIC;
use tessera_manifest::Manifest;

fn system(folder: &Path) -> System {
    Description::read(&folder.join("system.toml"), &[])
        .expect("readable")
        .finish()
        .expect("no mistake")
        .0
}

fn payload(folder: &Path, command_line: &str) -> Payload {
    let bundle = bundle::build(&system(folder), folder, &mut |_| {}).expect("bundle");
    Payload::new(
        "Test".into(),
        crate::common::program(),
        command_line.into(),
        bundle.bytes,
        "notices".into(),
    )
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Bytes of the bundle from `offset` on.
fn part(bytes: &[u8], offset: u64, length: u64) -> &[u8] {
    &bytes[offset as usize..(offset + length) as usize]
}

#[test]
fn the_bundle_holds_what_the_header_and_the_manifest_say() {
    let folder = crate::common::folder();
    let bundle = bundle::build(&system(folder.path()), folder.path(), &mut |_| {}).expect("bundle");
    let bytes = &bundle.bytes;
    assert_eq!(bytes[..8], MAGIC);
    assert_eq!(u32::from_le_bytes(bytes[8..12].try_into().expect("four")), tessera_abi::ABI_VERSION);
    assert_eq!(u32::from_le_bytes(bytes[12..16].try_into().expect("four")), 3);
    assert_eq!(word(bytes, 16), bytes.len() as u64);
    assert_eq!(word(bytes, 24), 0x40_1004);
    let manifest: Manifest = postcard::from_bytes(part(bytes, word(bytes, 32), word(bytes, 40))).expect("manifest");
    assert_eq!(manifest, bundle.manifest);
    // The root server's data segment: where it is mapped, and its zero-initialised memory included.
    let data = 48 + 2 * 32;
    assert_eq!(
        (word(bytes, data), word(bytes, data + 16), word(bytes, data + 24)),
        (0x40_3000, 12288, 3)
    );
    let content = part(bytes, word(bytes, data + 8), 12288);
    assert_eq!(&content[0x10..0x24], &[7; 20]);
    assert!(content[0x24..].iter().all(|&byte| byte == 0));
    // Files and programs.
    let file = &manifest.files[0];
    assert_eq!((file.name.as_str(), file.length, file.offset % PAGE), ("linux", 10_000, 0));
    assert!(part(bytes, file.offset, file.length).iter().all(|&byte| byte == 0x42));
    assert_eq!(
        manifest.programs.iter().map(|program| program.name.as_str()).collect::<Vec<_>>(),
        ["shell", "vmx", "vmm"]
    );
    for segment in manifest.programs.iter().flat_map(|program| &program.segments) {
        assert_eq!(
            (segment.offset % PAGE, segment.file_length % PAGE, segment.memory_length % PAGE),
            (0, 0, 0)
        );
        assert!(segment.offset + segment.file_length <= bytes.len() as u64);
    }
    // No two parts overlap.
    let mut parts: Vec<(u64, u64)> = (0..3)
        .map(|index| (word(bytes, 48 + index * 32 + 8), word(bytes, 48 + index * 32 + 16)))
        .collect();
    parts.extend(
        manifest
            .programs
            .iter()
            .flat_map(|program| &program.segments)
            .map(|segment| (segment.offset, segment.file_length)),
    );
    parts.push((file.offset, file.length));
    parts.push((word(bytes, 32), word(bytes, 40)));
    parts.push((0, PAGE));
    parts.sort_unstable();
    assert!(parts.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{parts:?}");
}

#[test]
fn missing_programs_and_files_are_named() {
    let folder = crate::common::folder();
    for (name, hint) in [("vmx", "make programs"), ("vmlinuz", "make setup")] {
        let path = folder.path().join(name);
        let old = std::fs::read(&path).expect("file");
        std::fs::remove_file(&path).expect("remove");
        let error = bundle::build(&system(folder.path()), folder.path(), &mut |_| {})
            .err()
            .expect("missing");
        let text = format!("{error:#}");
        assert!(text.contains(name) && text.contains(hint), "{text}");
        std::fs::write(&path, old).expect("restore");
    }
}

#[test]
fn a_disk_image_has_its_partitions_and_files_and_repeats() {
    let folder = crate::common::folder();
    let grub = Grub::find().expect("GRUB, which `make setup` installs");
    let payload_one = payload(folder.path(), "trace");
    let image = disk::build(&payload_one, &grub).expect("image");
    assert!(
        image == disk::build(&payload(folder.path(), "trace"), &Grub::find().expect("grub")).expect("again"),
        "two builds differ"
    );
    assert!(image != disk::build(&payload(folder.path(), "other"), &grub).expect("other"));

    let table = gpt::GptConfig::new()
        .open_from_device(Cursor::new(image.clone()))
        .expect("partition table");
    let partitions = table.partitions();
    assert_eq!(partitions.len(), 2);
    assert_eq!(partitions[&1].part_type_guid, gpt::partition_types::BIOS);
    assert_eq!(partitions[&2].part_type_guid, gpt::partition_types::EFI);
    assert_eq!(
        table.primary_header().expect("primary").crc32_parts,
        table.backup_header().expect("backup").crc32_parts
    );
    // The boot sector says where the core image begins, and the core image where it goes on.
    assert_eq!(word(&image, 0x5c), partitions[&1].first_lba);
    let core = partitions[&1].first_lba as usize * 512;
    assert_eq!(word(&image, core + 500), partitions[&1].first_lba + 1);
    assert_eq!(&image[510..512], &[0x55, 0xaa]);

    let (first, last) = (
        partitions[&2].first_lba as usize * 512,
        (partitions[&2].last_lba as usize + 1) * 512,
    );
    let system = fatfs::FileSystem::new(Cursor::new(image[first..last].to_vec()), fatfs::FsOptions::new()).expect("file system");
    assert_eq!(system.volume_id(), payload_one.volume_id());
    let read = |path: &str| {
        let mut bytes = Vec::new();
        system.root_dir().open_file(path).expect(path).read_to_end(&mut bytes).expect(path);
        bytes
    };
    assert!(read("tessera/bundle") == payload_one.bundle && read("tessera/kernel") == payload_one.kernel);
    assert!(
        String::from_utf8(read("boot/grub/grub.cfg"))
            .expect("text")
            .contains("multiboot2 /tessera/kernel 'trace'")
    );
    assert!(read("EFI/BOOT/BOOTX64.EFI").starts_with(b"MZ"));
    assert_eq!(read("NOTICE.txt"), b"notices");
}

#[test]
fn an_iso_repeats() {
    let folder = crate::common::folder();
    let grub = Grub::find().expect("GRUB, which `make setup` installs");
    let [one, two] = ["one.iso", "two.iso"].map(|name| folder.path().join(name));
    iso::build(&payload(folder.path(), ""), &grub, &one).expect("iso");
    // Time stamps have a resolution of one second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    iso::build(&payload(folder.path(), ""), &grub, &two).expect("iso");
    let (one, two) = (std::fs::read(one).expect("one"), std::fs::read(two).expect("two"));
    let differing = one.iter().zip(&two).position(|(one, two)| one != two);
    assert!(one == two, "first difference at {differing:x?}");
    assert_eq!(&one[0x8001..0x8006], b"CD001");
    assert_eq!(&one[510..512], &[0x55, 0xaa]);
}

#[test]
fn the_notices_of_guests_files_come_along() {
    let folder = crate::common::folder();
    std::fs::write(folder.path().join("copyright"), "licence of the guest").expect("notice");
    std::fs::write(folder.path().join("package"), "linux-image 1.2").expect("package");
    let text = image_builder::notices::media(&system(folder.path())).expect("notices");
    assert!(
        text.contains("licence of the guest") && text.contains("Debian's package linux-image 1.2") && text.contains("GNU GRUB"),
        "{text}"
    );
}
