//! Disks of an emulated machine beside the one that it boots from, and QEMU's monitor, through which they are taken away.

use super::Emulator;
use crate::{Failure, Result, fail};
use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What a disk is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// An NVMe controller.
    Nvme,
    /// A virtio block device.
    Virtio,
    /// A port of the AHCI controller.
    Ahci,
    /// As a CD-ROM in a drive at a port of the AHCI controller.
    Cd,
    /// The IDE controller; Bochs alone.
    Ata,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What it is attached to.
    pub bus: Bus,
    /// Its content. What the machine writes is written there, unless it vanishes.
    pub path: PathBuf,
    /// What the machine writes is gone with the machine.
    pub vanishes: bool,
    /// Serial number.
    pub serial: String,
    /// It can be taken away (NVMe).
    pub removable: bool,
    /// A sector that can be neither read nor written.
    pub bad_sector: Option<u64>,
}

impl Disk {
    /// A disk that works.
    #[must_use]
    pub fn new(bus: Bus, path: &Path, serial: &str) -> Self {
        Self {
            bus,
            path: path.into(),
            vanishes: false,
            serial: serial.into(),
            removable: false,
            bad_sector: None,
        }
    }

    /// A disk that works, on the bus that the emulator has: NVMe on QEMU, IDE on Bochs.
    #[must_use]
    pub fn usual(emulator: Emulator, path: &Path, serial: &str) -> Self {
        let bus = match emulator {
            Emulator::Qemu => Bus::Nvme,
            Emulator::Bochs => Bus::Ata,
        };
        Self::new(bus, path, serial)
    }

    /// What the host calls number `number` of [`Self::usual`]: Bochs' first one is the disk that the machine boots from.
    #[must_use]
    pub fn usual_name(emulator: Emulator, number: usize) -> String {
        match emulator {
            Emulator::Qemu => format!("nvme{number}"),
            Emulator::Bochs => format!("ata{}", number + 1),
        }
    }

    /// QEMU's arguments for disk number `number`; `ports` counts the ports of the AHCI controller. `iommu`: the machine has one.
    pub(super) fn qemu(&self, number: usize, iommu: bool, ports: &mut u32, logs: &Path, stem: &str) -> Result<Vec<String>> {
        let mut file = self.path.display().to_string();
        if let Some(sector) = self.bad_sector {
            let rules = logs.join(format!("{stem}.disk{number}.blkdebug"));
            let mut text = String::new();
            for event in ["read_aio", "write_aio"] {
                text.push_str(&format!(
                    "[inject-error]\nevent = \"{event}\"\nerrno = \"5\"\nsector = \"{sector}\"\n"
                ));
            }
            fs::write(&rules, text)?;
            file = format!("blkdebug:{}:{file}", rules.display());
        }
        let snapshot = if self.vanishes { "on" } else { "off" };
        let medium = if self.bus == Bus::Cd {
            ",media=cdrom,readonly=on"
        } else {
            ",discard=unmap"
        };
        let mut arguments = vec![
            "-drive".to_owned(),
            format!("file={file},format=raw,if=none,id=drive{number},snapshot={snapshot}{medium}"),
        ];
        let serial = &self.serial;
        let mut port = || {
            *ports += 1;
            *ports
        };
        let device = match self.bus {
            Bus::Nvme if self.removable => {
                // Pulled out by PCI Express's own hot-plugging, without ACPI.
                arguments.extend(["-global".to_owned(), "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off".to_owned()]);
                arguments.extend([
                    "-device".to_owned(),
                    format!("pcie-root-port,id=port{number},chassis={}", number + 1),
                ]);
                format!("nvme,serial={serial},bus=port{number}")
            }
            Bus::Nvme => format!("nvme,serial={serial}"),
            // Older devices of this kind go past an IOMMU.
            Bus::Virtio if iommu => format!("virtio-blk-pci,serial={serial},disable-legacy=on,iommu_platform=on"),
            Bus::Virtio => format!("virtio-blk-pci,serial={serial}"),
            Bus::Ahci => format!("ide-hd,serial={serial},bus=ide.{}", port()),
            Bus::Cd => format!("ide-cd,serial={serial},bus=ide.{}", port()),
            Bus::Ata => fail!("QEMU's machine has no IDE controller: attach the disk to AHCI"),
        };
        arguments.extend(["-device".to_owned(), format!("{device},id=disk{number},drive=drive{number}")]);
        Ok(arguments)
    }
}

/// Lines of Bochs' configuration.
pub(super) fn bochs(disks: &[Disk], logs: &Path, stem: &str) -> Result<String> {
    let mut text = String::new();
    let places = ["ata0-slave", "ata1-master", "ata1-slave"];
    for (disk, place) in disks.iter().zip(places) {
        if disk.bus != Bus::Ata || disk.bad_sector.is_some() {
            fail!("Bochs has disks at its IDE controller alone, and they work");
        }
        let mode = if disk.vanishes {
            format!("volatile, journal=\"{}\"", logs.join(format!("{stem}.{place}.writes")).display())
        } else {
            "flat".into()
        };
        text.push_str(&format!(
            "{place}: type=disk, mode={mode}, path=\"{}\", model=\"{}\"\n",
            disk.path.display(),
            disk.serial
        ));
    }
    if disks.len() > 1 {
        text.push_str("ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15\n");
    }
    if disks.len() > places.len() {
        fail!("Bochs has room for {} more disks", places.len());
    }
    Ok(text)
}

/// QEMU's monitor.
pub struct Monitor {
    path: PathBuf,
}

impl Monitor {
    /// A monitor on a socket that QEMU makes.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Gives a command and returns what it answers, up to the next prompt.
    pub fn command(&self, line: &str) -> Result<String> {
        const PROMPT: &[u8] = b"(qemu) ";
        let mut stream = UnixStream::connect(&self.path).map_err(|e| Failure::new(format!("QEMU's monitor: {e}")))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(format!("{line}\n").as_bytes())?;
        let (mut text, end) = (Vec::new(), Instant::now() + Duration::from_secs(20));
        let prompts = |text: &[u8]| text.windows(PROMPT.len()).filter(|window| *window == PROMPT).count();
        while prompts(&text) < 2 {
            let mut bytes = [0; 4096];
            match stream.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => text.extend_from_slice(&bytes[..count]),
                Err(_) if Instant::now() < end => {}
                Err(error) => fail!("QEMU's monitor does not answer to `{line}`: {error}"),
            }
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
