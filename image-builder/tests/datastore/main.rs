//! `image-builder datastore` as people use it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn output(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_image-builder"))
            .arg("datastore")
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(!output.status.success(), "{arguments:?} went well");
        String::from_utf8(output.stderr).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.run(arguments)).unwrap()
    }
}

/// A disk's content with islands of data.
fn content(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (island, start) in (0..size - 70_000).step_by(size / 7).enumerate() {
        for (step, byte) in bytes[start + 777 * island..][..60_000].iter_mut().enumerate() {
            *byte = (step * 31 + island * 7) as u8 | 1;
        }
    }
    bytes
}

fn qemu_img(folder: &Path, arguments: &[&str]) -> Option<String> {
    match Command::new("qemu-img").args(arguments).current_dir(folder).output() {
        Ok(output) => {
            assert!(
                output.status.success(),
                "qemu-img {arguments:?}: {}",
                String::from_utf8_lossy(&output.stdout)
            );
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(_) => {
            println!("qemu-img is not installed; the comparison with it is left out");
            None
        }
    }
}

#[test]
fn files_and_folders_come_out_as_they_went_in() {
    let bench = Bench::new();
    bench.run(&["create", "a.img", "--size", "32MiB", "--gpt", "--label", "main"]);
    fs::write(bench.path("in"), content(300_000)).unwrap();
    bench.run(&["mkdir", "a.img", "iso"]);
    bench.run(&["write", "a.img", "iso/file", "in"]);
    bench.run(&["read", "a.img", "iso/file", "out"]);
    assert_eq!(fs::read(bench.path("out")).unwrap(), content(300_000));
    fs::write(bench.path("in"), b"short").unwrap();
    bench.run(&["write", "a.img", "iso/file", "in"]);
    assert_eq!(bench.run(&["read", "a.img", "iso/file"]), "short");
    bench.run(&["rename", "a.img", "iso/file", "file"]);
    assert_eq!(bench.json(&["list", "a.img", "--json"])[0]["name"], "file");
    assert_eq!(bench.json(&["info", "a.img", "--json"])["label"], "main");
    bench.run(&["remove", "a.img", "iso"]);
    assert!(bench.refused(&["read", "a.img", "iso/file"]).contains("there is no iso/file"));
    assert!(bench.refused(&["create", "a.img"]).contains("--force"));
    bench.run(&["check", "a.img"]);
}

#[test]
fn images_of_all_formats_come_out_as_they_went_in() {
    let bench = Bench::new();
    let disk = content(5 << 20);
    fs::write(bench.path("disk.raw"), &disk).unwrap();
    bench.run(&["create", "a.img", "--size", "64MiB"]);
    bench.run(&["import", "a.img", "disk.raw", "disk"]);
    for format in ["raw", "qcow2", "vmdk"] {
        let file = format!("out.{format}");
        bench.run(&["export", "a.img", "disk", &file, "--format", format]);
        bench.run(&["import", "a.img", &file, format, "--checksums"]);
        bench.run(&["export", "a.img", format, "back.raw"]);
        assert!(fs::read(bench.path("back.raw")).unwrap() == disk, "{format}");
        if let Some(text) = qemu_img(bench.folder.path(), &["compare", "-f", "raw", "-F", format, "disk.raw", &file]) {
            assert!(text.contains("identical"));
        }
        if format != "raw" {
            qemu_img(bench.folder.path(), &["check", &file]);
        }
    }
    bench.run(&["check", "a.img", "--data"]);
}

#[test]
fn images_made_by_qemu_are_read() {
    let bench = Bench::new();
    let disk = content(5 << 20);
    fs::write(bench.path("disk.raw"), &disk).unwrap();
    bench.run(&["create", "a.img", "--size", "64MiB"]);
    let kinds: [&[&str]; 6] = [
        &["-O", "qcow2"],
        &["-O", "qcow2", "-c"],
        &["-O", "qcow2", "-o", "compat=0.10,cluster_size=4096"],
        &["-O", "qcow2", "-c", "-o", "cluster_size=2M"],
        &["-O", "vmdk"],
        &["-O", "vmdk", "-o", "subformat=streamOptimized"],
    ];
    for (number, kind) in kinds.iter().enumerate() {
        let arguments: Vec<&str> = ["convert", "-f", "raw"]
            .into_iter()
            .chain(kind.iter().copied())
            .chain(["disk.raw", "image"])
            .collect();
        if qemu_img(bench.folder.path(), &arguments).is_none() {
            return;
        }
        bench.run(&["import", "a.img", "image", &number.to_string()]);
        bench.run(&["export", "a.img", &number.to_string(), "back.raw"]);
        assert!(fs::read(bench.path("back.raw")).unwrap() == disk, "{kind:?}");
    }
}

#[test]
fn images_that_are_cut_off_or_damaged_are_refused() {
    let bench = Bench::new();
    fs::write(bench.path("disk.raw"), content(1 << 20)).unwrap();
    bench.run(&["create", "a.img", "--size", "64MiB"]);
    bench.run(&["import", "a.img", "disk.raw", "disk"]);
    for format in ["qcow2", "vmdk"] {
        let file = format!("out.{format}");
        bench.run(&["export", "a.img", "disk", &file, "--format", format]);
        let good = fs::read(bench.path(&file)).unwrap();
        fs::write(bench.path("cut"), &good[..300]).unwrap();
        assert!(bench.refused(&["import", "a.img", "cut", "x"]).contains("error"));
        // Nothing in the header makes the reader panic or ask for much memory.
        for at in 4..104 {
            let mut bytes = good.clone();
            bytes[at] ^= 0xff;
            fs::write(bench.path("damaged"), &bytes).unwrap();
            let output = bench.output(&["import", "a.img", "damaged", "x", "--format", format]);
            assert!(
                !String::from_utf8_lossy(&output.stderr).contains("panicked"),
                "byte {at} of {format}"
            );
            let _ = bench.output(&["remove", "a.img", "x"]);
        }
    }
}

#[test]
fn disks_are_grown_snapshot_reverted_and_cloned() {
    let bench = Bench::new();
    bench.run(&["create", "a.img", "--size", "64MiB"]);
    fs::write(bench.path("one"), content(2 << 20)).unwrap();
    bench.run(&["import", "a.img", "one", "disk"]);
    bench.run(&["snapshot", "create", "a.img", "disk", "first"]);
    bench.run(&["disk-grow", "a.img", "disk", "--size", "4MiB"]);
    assert_eq!(bench.json(&["info", "a.img", "disk", "--json"])["size"], 4 << 20);
    assert_eq!(bench.run(&["changes", "a.img", "disk", "first"]), "");
    bench.run(&["clone", "a.img", "disk", "first", "clone"]);
    bench.run(&["snapshot", "revert", "a.img", "disk", "first"]);
    bench.run(&["snapshot", "remove", "a.img", "disk", "first"]);
    for disk in ["disk", "clone"] {
        bench.run(&["export", "a.img", disk, "out"]);
        assert!(fs::read(bench.path("out")).unwrap() == content(2 << 20));
    }
    assert!(
        bench
            .refused(&["disk-create", "a.img", "thick", "--size", "1GiB", "--thick"])
            .contains("full")
    );
    bench.run(&["remove", "a.img", "disk"]);
    bench.run(&["check", "a.img"]);
}

#[test]
fn a_datastore_grows_with_its_image_and_shrinks_to_what_is_in_use() {
    let bench = Bench::new();
    bench.run(&["create", "a.img", "--size", "32MiB"]);
    fs::write(bench.path("one"), content(2 << 20)).unwrap();
    bench.run(&["import", "a.img", "one", "disk"]);
    fs::File::options()
        .write(true)
        .open(bench.path("a.img"))
        .unwrap()
        .set_len(400 << 20)
        .unwrap();
    bench.run(&["resize", "a.img"]);
    assert_eq!(bench.json(&["info", "a.img", "--json"])["size"], 400 << 20);
    bench.run(&["check", "a.img"]);
    bench.run(&["resize", "a.img", "--size", "128MiB"]);
    bench.run(&["resize", "a.img", "--size", "300MiB"]);
    bench.run(&["check", "a.img"]);
    assert!(
        bench
            .refused(&["resize", "a.img", "--size", "5600KiB"])
            .contains("cannot be smaller")
    );
    bench.run(&["export", "a.img", "disk", "out"]);
    assert!(fs::read(bench.path("out")).unwrap() == content(2 << 20));
}

#[test]
fn damage_is_found_and_mended() {
    let bench = Bench::new();
    bench.run(&["create", "a.img", "--size", "32MiB"]);
    fs::write(bench.path("one"), content(2 << 20)).unwrap();
    bench.run(&["import", "a.img", "one", "disk", "--checksums"]);
    // A byte of the disk's data.
    let mut image = fs::read(bench.path("a.img")).unwrap();
    let needle: Vec<u8> = content(2 << 20)[8192..8256].to_vec();
    let at = image.windows(64).position(|window| window == needle).unwrap();
    image[at] ^= 1;
    fs::write(bench.path("a.img"), &image).unwrap();
    bench.run(&["check", "a.img"]);
    assert!(bench.refused(&["check", "a.img", "--data"]).contains("repair"));
    assert!(bench.refused(&["export", "a.img", "disk", "out"]).contains("damaged"));
    assert!(bench.run(&["repair", "a.img", "--data"]).contains("2 problems mended"));
    bench.run(&["check", "a.img", "--data"]);
    bench.run(&["export", "a.img", "disk", "out"]);
}

#[test]
fn a_folder_is_written_with_everything_in_it() {
    let bench = Bench::new();
    bench.run(&["create", "a.img", "--size", "64MiB"]);
    let folder = bench.path("in");
    fs::create_dir_all(folder.join("deep/er")).unwrap();
    fs::write(folder.join("one"), "1").unwrap();
    fs::write(folder.join("deep/er/two"), "22").unwrap();
    for _ in 0..2 {
        bench.run(&["write", "a.img", "copy", "in"]);
    }
    bench.run(&["read", "a.img", "copy/deep/er/two", "out"]);
    assert_eq!(fs::read(bench.path("out")).unwrap(), b"22");
    bench.run(&["read", "a.img", "copy/one", "out"]);
    assert_eq!(fs::read(bench.path("out")).unwrap(), b"1");
    bench.run(&["check", "a.img"]);
}
