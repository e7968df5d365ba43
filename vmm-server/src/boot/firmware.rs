//! A guest that begins with firmware, as a PC does: the image is its flash memory, which ends at 4 GiB, and the end of it is seen below 1 MiB, too. Firmware finds disks and kernels by itself; what it cannot
//! find out about the machine it asks [`crate::devices::fw_cfg`].

use super::file::{File, Part};
use super::order::Order;
use super::{LoadError, Start, layout, smbios};
use crate::acpi;
use crate::devices::fw_cfg::FwCfg;
use crate::devices::{power, uart};
use crate::memory::{FLASH_END, GuestMemory};
use alloc::vec::Vec;

/// Address of the first instruction.
pub const ENTRY: u64 = FLASH_END - 16;
/// Longest image in bytes.
pub const MOST: u64 = 8 << 20;
/// Its length is a multiple of this.
const STEP: u64 = 64 << 10;
/// Bytes of it that are seen below 1 MiB.
const SHADOW: u64 = 128 << 10;
/// RAM ends below: the window to configuration space, where SeaBIOS and OVMF put it, and devices follow.
pub const RAM_END: u64 = 0xb000_0000;
/// For each sleep state from S0 on: 0x80, it can be had, and the value of its sleep type (QEMU `hw/i386/fw_cfg.c`).
const SLEEP_STATES: [u8; 6] = [0x80, 0, 0, 0x80 | power::SLEEP_RAM as u8, 0, 0x80 | power::SLEEP_OFF as u8];
/// Least RAM.
const LEAST: u64 = 16 << 20;

/// Whether a file can be flash memory of a machine with `memory` bytes of RAM.
///
/// # Errors
/// What is wrong.
pub fn check(file: &dyn File, memory: u64) -> Result<(), LoadError> {
    let length = file.length();
    if length == 0 || !length.is_multiple_of(STEP) || length > MOST {
        return Err(LoadError::Firmware(MOST));
    }
    if memory < LEAST + length {
        return Err(LoadError::TooSmall(LEAST + length));
    }
    if memory > RAM_END {
        return Err(LoadError::TooLarge);
    }
    Ok(())
}

/// Fills the flash memory, but for its first `kept` bytes: what the guest wrote there stays.
///
/// # Errors
/// If it is not good or cannot be read.
pub fn load(memory: &GuestMemory, file: &dyn File, kept: u64) -> Result<Start, LoadError> {
    check(file, memory.end())?;
    let length = file.length();
    memory.clear_below(layout::BIOS_END).ok_or(LoadError::TooSmall(LEAST + length))?;
    let kept = kept.min(length);
    let code = Part {
        offset: kept,
        length: length - kept,
    };
    file.load(memory, memory.flash() + kept, code).ok_or(LoadError::File)?;
    let shadow = SHADOW.min(length);
    let part = Part {
        offset: length - shadow,
        length: shadow,
    };
    file.load(memory, layout::BIOS_END - shadow, part).ok_or(LoadError::File)?;
    Ok(Start::Firmware)
}

/// What the firmware of the machine `name` is told. `rom` is the graphics card's own firmware, or empty.
#[must_use]
pub fn describe(name: &str, memory: &GuestMemory, vcpus: usize, rom: &[u8], order: &Order<'_>) -> FwCfg {
    let mut fw_cfg = FwCfg::new(vcpus);
    order.describe(&mut fw_cfg);
    if !rom.is_empty() && memory.has_hole() {
        // Found by the card's identity, as if it were in its ROM (SeaBIOS, `lookup_hardcode`).
        fw_cfg.add("pci1234,1111.rom", rom);
    }
    fw_cfg.add("etc/e820", &memory_map(memory));
    // SeaBIOS shows its screen on the serial port, too.
    fw_cfg.add("etc/sercon-port", &u64::from(uart::PORT).to_le_bytes());
    fw_cfg.add("etc/system-states", &SLEEP_STATES);
    let tables = acpi::for_loader(vcpus, memory.has_hole());
    fw_cfg.add(acpi::ROOT_FILE, &tables.root);
    fw_cfg.add(acpi::TABLES_FILE, &tables.tables);
    fw_cfg.add("etc/table-loader", &tables.script);
    let smbios = smbios::describe(name, vcpus, memory.usable_end());
    fw_cfg.add(smbios::ANCHOR_FILE, &smbios.anchor);
    fw_cfg.add(smbios::TABLES_FILE, &smbios.tables);
    fw_cfg
}

/// Entries of start, length and kind: RAM, and what is RAM and not to be used.
fn memory_map(memory: &GuestMemory) -> Vec<u8> {
    let entry = |(start, end, kind): (u64, u64, u32)| {
        let mut entry = Vec::from(start.to_le_bytes());
        entry.extend_from_slice(&(end - start).to_le_bytes());
        entry.extend_from_slice(&kind.to_le_bytes());
        entry
    };
    [
        (0, memory.usable_end(), super::MemoryKind::Ram as u32),
        (memory.usable_end(), memory.flash_backing(), super::MemoryKind::Reserved as u32),
        (memory.flash(), FLASH_END, super::MemoryKind::Reserved as u32),
    ]
    .into_iter()
    .filter(|(start, end, _)| start < end)
    .flat_map(entry)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::ram;

    fn image() -> Vec<u8> {
        (0..256u32 << 10).map(|i| (i >> 8) as u8 ^ i as u8).collect()
    }

    #[test]
    fn stands_at_both_places() {
        let mut memory = ram(&[16 << 20, 2 << 20]);
        memory.set_flash(256 << 10);
        let image = image();
        assert_eq!(load(&memory, &&image[..], 0), Ok(Start::Firmware));
        assert_eq!(memory.read::<16>(ENTRY), memory.read::<16>(0xf_fff0));
        let mut shadow = std::vec![0; 128 << 10];
        memory.read_slice(0xe_0000, &mut shadow).unwrap();
        assert_eq!(shadow, image[128 << 10..]);
        memory.write_slice(memory.flash(), &[1; 32]).unwrap();
        assert_eq!(load(&memory, &&image[..], 16), Ok(Start::Firmware));
        assert_eq!(memory.read(memory.flash()), Some([1; 16]), "what is kept");
        assert_eq!(
            memory.read::<16>(memory.flash() + 16),
            image[16..].first_chunk().copied(),
            "and what is not"
        );
        let map = memory_map(&memory);
        assert_eq!(map.len(), 40);
        assert_eq!(map[8..20], [0, 0, 0x1c, 1, 0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn a_screen_has_its_own_firmware() {
        let names = |screen: bool, rom: &[u8]| {
            let mut memory = ram(&[16 << 20]);
            if screen {
                memory.set_hole(0xa_0000, 0xc_0000);
            }
            let mut fw_cfg = describe("web", &memory, 1, rom, &Order::default());
            // The directory, byte by byte.
            fw_cfg.write(0x510, 2, 0x19);
            let directory: Vec<u8> = (0..1024).map(|_| fw_cfg.read(0x511, 1) as u8).collect();
            directory.windows(16).any(|window| window == b"pci1234,1111.rom")
        };
        assert!(names(true, &[0x55, 0xaa]));
        assert!(!names(false, &[0x55, 0xaa]) && !names(true, &[]));
    }

    #[test]
    fn lengths_are_checked() {
        let memory = ram(&[2 << 20]);
        let image = image();
        assert_eq!(load(&memory, &&image[1..], 0), Err(LoadError::Firmware(MOST)));
        assert_eq!(load(&memory, &&image[..0], 0), Err(LoadError::Firmware(MOST)));
        assert_eq!(load(&memory, &&image[..], 0), Err(LoadError::TooSmall((16 << 20) + (256 << 10))));
        assert_eq!(check(&&image[..], RAM_END + 1), Err(LoadError::TooLarge));
    }
}
