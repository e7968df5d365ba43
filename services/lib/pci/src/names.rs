//! Names of the common classes and vendors, for people.

use crate::Class;

/// What a class is called (PCI Code and ID Assignment 1.11).
#[must_use]
pub const fn class_name(class: Class) -> &'static str {
    match (class.base, class.sub, class.interface) {
        (0x01, 0x00, _) => "SCSI controller",
        (0x01, 0x01, _) => "IDE controller",
        (0x01, 0x04, _) => "RAID controller",
        (0x01, 0x06, 0x01) => "AHCI controller",
        (0x01, 0x06, _) => "SATA controller",
        (0x01, 0x07, _) => "SAS controller",
        (0x01, 0x08, 0x02) => "NVMe controller",
        (0x01, ..) => "storage controller",
        (0x02, 0x00, _) => "Ethernet controller",
        (0x02, ..) => "network controller",
        (0x03, 0x00, _) => "VGA controller",
        (0x03, ..) => "display controller",
        (0x04, 0x03, _) => "audio device",
        (0x04, ..) => "multimedia device",
        (0x05, ..) => "memory controller",
        (0x06, 0x00, _) => "host bridge",
        (0x06, 0x01, _) => "ISA bridge",
        (0x06, 0x04, _) => "PCI bridge",
        (0x06, ..) => "bridge",
        (0x07, 0x00, _) => "serial port",
        (0x07, ..) => "communication device",
        (0x08, 0x06, _) => "IOMMU",
        (0x08, ..) => "system device",
        (0x0c, 0x03, 0x30) => "USB controller (xHCI)",
        (0x0c, 0x03, 0x20) => "USB controller (EHCI)",
        (0x0c, 0x03, _) => "USB controller",
        (0x0c, 0x05, _) => "SMBus controller",
        (0x0c, ..) => "serial bus controller",
        (0x0d, ..) => "wireless controller",
        (0x10, ..) => "encryption controller",
        (0x12, ..) => "accelerator",
        (0x00, 0x01, _) => "VGA device",
        _ => "device",
    }
}

/// Who made it, where the name is common.
#[must_use]
pub const fn vendor_name(vendor: u16) -> Option<&'static str> {
    Some(match vendor {
        0x1000 => "Broadcom/LSI",
        0x1002 | 0x1022 => "AMD",
        0x104c => "Texas Instruments",
        0x10de => "NVIDIA",
        0x10ec => "Realtek",
        0x1106 => "VIA",
        0x1179 | 0x1e0f => "Kioxia",
        0x1234 => "QEMU/Bochs VGA",
        0x126f => "Silicon Motion",
        0x1344 => "Micron",
        0x144d => "Samsung",
        0x14e4 => "Broadcom",
        0x15ad => "VMware",
        0x15b3 => "Mellanox",
        0x15b7 => "SanDisk",
        0x1912 => "Renesas",
        0x1987 => "Phison",
        0x1af4 => "virtio",
        0x1b21 => "ASMedia",
        0x1b36 => "QEMU",
        0x1b4b => "Marvell",
        0x1bb1 => "Seagate",
        0x1c5c => "SK hynix",
        0x1cc1 => "ADATA",
        0x1d0f => "Amazon",
        0x2646 => "Kingston",
        0x8086 | 0x8087 => "Intel",
        0xc0a9 => "Crucial",
        _ => return None,
    })
}
