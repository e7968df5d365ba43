extern crate std;

use super::*;
use alloc::format;
use proptest::prelude::*;
use std::{fs, process::Command};

fn word(bytes: &[u8], at: usize) -> u32 {
    let little = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(little, u32::from_be_bytes(bytes[at + 4..at + 8].try_into().unwrap()));
    little
}

/// Names by Rock Ridge, and bytes, of the files in the root.
fn read(image: &[u8]) -> Vec<(String, Vec<u8>)> {
    let volume = &image[DESCRIPTOR * SECTOR..][..SECTOR];
    assert_eq!(&volume[..7], b"\x01CD001\x01");
    assert_eq!(word(volume, 80) as usize * SECTOR, image.len());
    let folder = &image[word(volume, 156 + 2) as usize * SECTOR..][..word(volume, 156 + 10) as usize];
    let mut files = Vec::new();
    let mut at = 0;
    while folder[at] != 0 {
        let record = &folder[at..at + usize::from(folder[at])];
        at += record.len();
        assert!(record.len().is_multiple_of(2));
        let name = usize::from(record[32]);
        let mut extensions = &record[33 + name + usize::from(name.is_multiple_of(2))..];
        while extensions.len() >= 4 {
            let (entry, rest) = extensions.split_at(usize::from(extensions[2]));
            if entry.starts_with(b"NM") {
                let data = &image[word(record, 2) as usize * SECTOR..][..word(record, 10) as usize];
                files.push((String::from_utf8(entry[5..].to_vec()).unwrap(), data.to_vec()));
            }
            extensions = rest;
        }
    }
    files
}

#[test]
fn what_does_not_fit_is_refused() {
    let file = |short, name| File { short, name, data: b"x" };
    assert!(image("cidata", &[file("B", "b"), file("A", "a")]).is_none(), "not in order");
    assert!(image(&"x".repeat(33), &[]).is_none());
    let long = "x".repeat(64);
    assert!(image("cidata", &[file("A", long.as_str())]).is_none());
    assert!(image("cidata", &[file("A", "a"); 9]).is_none());
}

#[test]
fn xorriso_reads_it() {
    let files = [
        File {
            short: "META_DAT.",
            name: "meta-data",
            data: b"one",
        },
        File {
            short: "USER_DAT.",
            name: "user-data",
            data: &[7; 5000],
        },
    ];
    let folder = std::env::temp_dir().join(format!("tessera-seed-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("seed.iso");
    fs::write(&path, image("cidata", &files).unwrap()).unwrap();
    let out = folder.join("out");
    let run = Command::new("xorriso")
        .args(["-osirrox", "on", "-indev"])
        .arg(&path)
        .args(["-pvd_info", "-extract", "/"])
        .arg(&out)
        .output();
    // A machine without it has the test below.
    if let Ok(output) = run {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{said}");
        assert!(said.contains("cidata"), "{said}");
        for file in files {
            assert_eq!(fs::read(out.join(file.name)).unwrap(), file.data, "{said}");
        }
        Command::new("chmod").args(["-R", "u+w"]).arg(&folder).status().unwrap();
    }
    fs::remove_dir_all(&folder).unwrap();
}

proptest! {
    #[test]
    fn what_is_written_is_read(contents in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..5000), "[a-z-]{1,58}"), 0..=MOST)) {
        let shorts: Vec<String> = (0..contents.len()).map(|number| format!("FILE{number}.")).collect();
        let files: Vec<File<'_>> = contents.iter().zip(&shorts).map(|((data, name), short)| File { short, name, data }).collect();
        // Long names of many files are too much for one sector.
        if let Some(image) = image("cidata", &files) {
            let expected: Vec<_> = contents.iter().map(|(data, name)| (name.clone(), data.clone())).collect();
            prop_assert_eq!(read(&image), expected);
        } else {
            prop_assert!(contents.iter().map(|(_, name)| name.len()).sum::<usize>() > 100);
        }
    }
}
