//! What firmware boots from, as it is told by [`crate::devices::fw_cfg`]: paths of Open Firmware, one a line, as QEMU writes them (SeaBIOS `src/boot.c`, OVMF `QemuBootOrderLib`).

use crate::devices::ahci;
use crate::devices::fw_cfg::FwCfg;
use crate::devices::pci::{FIRST_DEVICE, MAX_DEVICES};
use alloc::format;
use alloc::string::String;

/// Something to boot from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The CD-ROM drive.
    Cdrom,
    /// A disk, by its number.
    Disk(u8),
    /// A network card, by its number.
    Nic(u8),
}

/// What is said about booting.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order<'o> {
    /// In this order; empty: as the firmware likes.
    pub devices: &'o [Device],
    /// How long a menu is offered, in milliseconds; 0: not at all.
    pub menu_ms: u16,
    /// Disks of the machine, which stand on the bus before its network cards.
    pub disks: usize,
    /// The disks behind the host adapter for SATA, in the order of its ports from 1 on.
    pub ahci: &'o [u8],
    /// Network cards.
    pub nics: usize,
}

impl Order<'_> {
    /// Tells firmware.
    pub fn describe(&self, fw_cfg: &mut FwCfg) {
        if !self.devices.is_empty() {
            let mut text: String = self.devices.iter().filter_map(|device| self.path(*device)).collect();
            // The last line ends with the text.
            text.pop();
            text.push('\0');
            fw_cfg.add("bootorder", text.as_bytes());
        }
        if self.menu_ms > 0 {
            fw_cfg.offer_menu();
            fw_cfg.add("etc/boot-menu-wait", &self.menu_ms.to_le_bytes());
        }
    }

    /// The line of a device; `None`: the machine does not have it.
    fn path(&self, device: Device) -> Option<String> {
        let slot = |number: u8, first: usize, count: usize| {
            let place = first + usize::from(number);
            (usize::from(number) < count && place < MAX_DEVICES).then(|| usize::from(FIRST_DEVICE) + place)
        };
        Some(match device {
            Device::Cdrom => format!("/pci@i0cf8/pci8086,2922@{:x},{:x}/drive@0/disk@0\n", ahci::PLACE.0, ahci::PLACE.1),
            Device::Disk(number) if self.ahci.contains(&number) => {
                let port = 1 + self.ahci.iter().position(|disk| *disk == number)?;
                let (slot, function) = ahci::PLACE;
                format!("/pci@i0cf8/pci8086,2922@{slot:x},{function:x}/drive@{port:x}/disk@0\n")
            }
            Device::Disk(number) => format!("/pci@i0cf8/scsi@{:x}/disk@0,0\n", slot(number, 0, self.disks)?),
            Device::Nic(number) => format!("/pci@i0cf8/ethernet@{:x}/ethernet-phy@0\n", slot(number, self.disks, self.nics)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn file(order: &Order<'_>, name: &[u8]) -> Option<Vec<u8>> {
        let mut fw_cfg = FwCfg::new(1);
        order.describe(&mut fw_cfg);
        let mut read = |item: u16, length: usize| -> Vec<u8> {
            fw_cfg.write(0x510, 2, item.into());
            (0..length).map(|_| fw_cfg.read(0x511, 1) as u8).collect()
        };
        let directory = read(0x19, 4 + 4 * 64);
        let entry = directory[4..].chunks(64).find(|entry| entry[8..].starts_with(name))?;
        let length = u32::from_be_bytes(*entry.first_chunk().unwrap());
        Some(read(u16::from_be_bytes([entry[4], entry[5]]), length as usize))
    }

    #[test]
    fn devices_have_the_paths_that_firmware_looks_for() {
        let order = Order {
            devices: &[Device::Cdrom, Device::Disk(1), Device::Disk(2), Device::Nic(0), Device::Nic(1)],
            menu_ms: 1500,
            disks: 2,
            ahci: &[],
            nics: 1,
        };
        let paths = b"/pci@i0cf8/pci8086,2922@1f,2/drive@0/disk@0\n/pci@i0cf8/scsi@3/disk@0,0\n/pci@i0cf8/ethernet@4/ethernet-phy@0\0";
        assert_eq!(file(&order, b"bootorder\0").unwrap(), paths);
        assert_eq!(file(&order, b"etc/boot-menu-wait\0").unwrap(), [0xdc, 5]);
        let mixed = Order { ahci: &[1], ..order };
        let text = file(&mixed, b"bootorder\0").unwrap();
        assert!(text.windows(41).any(|text| text == b"/pci@i0cf8/pci8086,2922@1f,2/drive@1/disk"));
        assert!(text.ends_with(b"/pci@i0cf8/ethernet@4/ethernet-phy@0\0"), "its place stays empty");
        assert_eq!(file(&Order::default(), b"bootorder\0"), None);
        assert_eq!(file(&Order::default(), b"etc/boot-menu-wait\0"), None);
    }

    proptest! {
        #[test]
        fn only_what_is_there_is_named(numbers in prop::collection::vec((any::<bool>(), any::<u8>()), 1..16), disks in 0usize..30, nics in 0usize..30) {
            let devices: Vec<_> = numbers.iter().map(|(disk, number)| if *disk { Device::Disk(*number) } else { Device::Nic(*number) }).collect();
            let order = Order { devices: &devices, menu_ms: 0, disks, ahci: &[], nics };
            let text = String::from_utf8(file(&order, b"bootorder\0").unwrap()).unwrap();
            let there = devices.iter().filter(|device| match **device {
                Device::Cdrom => true,
                Device::Disk(number) => usize::from(number) < disks.min(MAX_DEVICES),
                Device::Nic(number) => usize::from(number) < nics && usize::from(number) + disks < MAX_DEVICES,
            }).count();
            prop_assert_eq!(text.matches("/pci@i0cf8/").count(), there);
            prop_assert!(text.ends_with('\0'));
        }
    }
}
