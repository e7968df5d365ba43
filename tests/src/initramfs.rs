//! Initial RAM disks for guests: a `cpio` archive in the "newc" format (Linux Documentation/driver-api/early-userspace/buffer-format.rst), the same bytes each time.

use crate::{Failure, Result, elf};
use std::{fs, path::Path};

/// Names under which busybox is called in the guest.
const APPLETS: [&str; 53] = [
    "sh",
    "mount",
    "umount",
    "chroot",
    "switch_root",
    "insmod",
    "blockdev",
    "sync",
    "echo",
    "cat",
    "grep",
    "sed",
    "awk",
    "ls",
    "dd",
    "free",
    "nproc",
    "sleep",
    "poweroff",
    "reboot",
    "halt",
    "uname",
    "dmesg",
    "true",
    "false",
    "test",
    "expr",
    "seq",
    "tr",
    "cut",
    "wc",
    "head",
    "hexdump",
    "tail",
    "date",
    "ps",
    "kill",
    "setsid",
    "cttyhack",
    "devmem",
    "taskset",
    "arp",
    "arping",
    "httpd",
    "ifconfig",
    "ip",
    "nc",
    "ping",
    "ping6",
    "udhcpc",
    "vconfig",
    "wget",
    "which",
];

/// Drivers of paravirtual devices on PCI, in the order in which they are loaded. Since 6.1.192 virtio needs virtio_ring; before, neither needed the other.
const VIRTIO_PCI: [&str; 5] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
];
/// What a paravirtual disk needs beside.
const VIRTIO_DISK: [&str; 1] = ["virtio_blk"];
/// What a paravirtual network card needs beside.
const VIRTIO_CARD: [&str; 3] = ["failover", "net_failover", "virtio_net"];

/// Drivers of a paravirtual network card and what they need, in the order in which they are loaded.
#[must_use]
pub fn virtio_card() -> Vec<&'static str> {
    [&VIRTIO_PCI[..], &VIRTIO_CARD].concat()
}

/// Drivers of a disk behind a SATA host adapter and of what Debian has on it, likewise. They name no modules for checksums, which they ask for by another way.
const AHCI_MODULES: [&str; 18] = [
    "scsi_common",
    "scsi_mod",
    "crct10dif_common",
    "crct10dif_generic",
    "crc-t10dif",
    "crc64",
    "crc64_rocksoft_generic",
    "crc64-rocksoft",
    "t10-pi",
    "sd_mod",
    "libata",
    "libahci",
    "ahci",
    "crc16",
    "crc32c_generic",
    "mbcache",
    "jbd2",
    "ext4",
];

/// Drivers of a USB controller, of pointers behind it and at the keyboard controller, and what programs read events by, likewise.
const USB_MODULES: [&str; 9] = [
    "usb-common",
    "usbcore",
    "xhci-hcd",
    "xhci-pci",
    "hid",
    "hid-generic",
    "usbhid",
    "evdev",
    "psmouse",
];

/// A driver of a network card that a PC has.
const PC_NET_MODULES: [&str; 1] = ["e1000e"];

/// Linux' packet generator, drivers of VLANs, and of the devices that each machine has.
const NET_MODULES: [&str; 9] = [
    "pktgen",
    "llc",
    "stp",
    "garp",
    "mrp",
    "8021q",
    "virtio-rng",
    "virtio_console",
    "virtio_balloon",
];

/// Builds an archive.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.inode += 1;
        let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        let fields = [
            self.inode,
            mode,
            0, // user
            0, // group
            links,
            0, // modification time: fixed, so that two builds are the same
            content.len() as u32,
            0,
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0, // checksum, not used by this format
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// A folder.
    pub fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, (0, 0), &[]);
    }

    /// An executable file.
    pub fn program(&mut self, name: &str, content: &[u8]) {
        self.entry(name, 0o100_755, (0, 0), content);
    }

    /// A symbolic link.
    pub fn link(&mut self, name: &str, target: &str) {
        self.entry(name, 0o120_777, (0, 0), target.as_bytes());
    }

    /// A character device.
    pub fn character_device(&mut self, name: &str, major: u32, minor: u32) {
        self.entry(name, 0o020_600, (major, minor), &[]);
    }

    /// Ends the archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Failure::new(format!("cannot read {}: {e} (run `make setup`)", path.display())))
}

/// A program. A dynamic one would find no libraries in the guest.
fn read_static(path: &Path, hint: &str) -> Result<Vec<u8>> {
    let program = read(path)?;
    if elf::is_dynamic(&program) {
        return Err(Failure::new(format!("{} is not a static program: {hint}", path.display())));
    }
    Ok(program)
}

/// An archive with busybox and its first program.
pub fn begin(busybox: &Path, init: &[u8]) -> Result<Archive> {
    let program = read_static(busybox, "install Debian's busybox-static")?;
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "proc", "root", "sys", "tmp"] {
        archive.directory(directory);
    }
    archive.character_device("dev/console", 5, 1);
    archive.character_device("dev/null", 1, 3);
    archive.program("bin/busybox", &program);
    for applet in APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    archive.program("init", init);
    Ok(archive)
}

fn add_modules(archive: &mut Archive, from: &Path, modules: &[&str]) -> Result<()> {
    archive.directory("modules");
    for module in modules {
        let file = format!("{module}.ko");
        archive.program(&format!("modules/{file}"), &read(&from.join(&file))?);
    }
    Ok(())
}

/// The RAM disk of guests without a disk: busybox, the `init` and test scripts of `scripts`, and for those with network cards the kernel's drivers, out of
/// a folder, and a program that loads them.
pub fn build(busybox: &Path, scripts: &Path, network: Option<(&Path, &Path)>) -> Result<Vec<u8>> {
    let mut archive = begin(busybox, &read(&scripts.join("init"))?)?;
    if let Some((modules, load)) = network {
        add_modules(&mut archive, modules, &[&virtio_card()[..], &NET_MODULES].concat())?;
        archive.program("bin/netload", &read_static(load, "run `make guests`")?);
    }
    archive.directory("tests");
    let mut tests: Vec<_> = fs::read_dir(scripts.join("tests"))?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .collect();
    tests.sort();
    for path in tests {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        archive.program(&format!("tests/{name}"), &read(&path)?);
    }
    Ok(archive.finish())
}

/// What `init` is to load.
fn list(archive: &mut Archive, name: &str, modules: &[&str]) {
    archive.program(&format!("modules/{name}"), modules.join("\n").as_bytes());
}

/// The RAM disk of guests that run from a disk: busybox, the `init` of `scripts`, and the kernel's drivers of disks and network cards out of `modules`.
pub fn build_for_disk(busybox: &Path, scripts: &Path, modules: &Path) -> Result<Vec<u8>> {
    let mut archive = begin(busybox, &read(&scripts.join("init"))?)?;
    let all = [&VIRTIO_PCI[..], &VIRTIO_DISK, &VIRTIO_CARD, &NET_MODULES].concat();
    add_modules(&mut archive, modules, &all)?;
    list(&mut archive, "disk", &[&VIRTIO_PCI[..], &VIRTIO_DISK].concat());
    list(&mut archive, "net", &VIRTIO_CARD);
    Ok(archive.finish())
}

/// The same for disks, network cards and pointers as PCs have them; `None`: the drivers are not in `modules`.
pub fn build_for_pc(busybox: &Path, scripts: &Path, modules: &Path) -> Result<Option<Vec<u8>>> {
    let all = [&AHCI_MODULES[..], &PC_NET_MODULES, &USB_MODULES].concat();
    if !all.iter().all(|module| modules.join(format!("{module}.ko")).exists()) {
        return Ok(None);
    }
    let mut archive = begin(busybox, &read(&scripts.join("init"))?)?;
    add_modules(&mut archive, modules, &all)?;
    list(&mut archive, "disk", &AHCI_MODULES);
    list(&mut archive, "net", &PC_NET_MODULES);
    list(&mut archive, "usb", &USB_MODULES);
    Ok(Some(archive.finish()))
}

/// An archive of modules alone, for behind another.
pub fn modules(from: &Path, modules: &[&str]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    add_modules(&mut archive, from, modules)?;
    Ok(archive.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_is_aligned_and_repeats() {
        let make = || {
            let mut archive = Archive::default();
            archive.directory("bin");
            archive.program("bin/x", b"abc");
            archive.link("bin/y", "x");
            archive.finish()
        };
        let bytes = make();
        assert_eq!(bytes, make());
        assert_eq!(bytes.len() % 512, 0);
        assert!(bytes.starts_with(b"070701"));
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 4);
        assert!(text.contains("TRAILER!!!"));
    }
}
