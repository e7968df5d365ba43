//! What firmware asks about the machine: QEMU's firmware configuration device (QEMU `docs/specs/fw_cfg.rst`), at ports 0x510 to 0x51b, and the memory sizes that a PC keeps beside its clock.

use super::power::Request;
use crate::memory::GuestMemory;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Selects an item, 16 bits.
pub const SELECTOR: u16 = 0x510;
/// The next byte of the item.
const DATA: u16 = 0x511;
/// Address of a transfer: upper half, then lower half, big-endian; the latter starts it.
const ADDRESS: u16 = 0x514;
/// Last port.
pub const LAST: u16 = 0x51b;
/// Items whose numbers are fixed.
const SIGNATURE: u16 = 0;
const FEATURES: u16 = 1;
const PROCESSORS: u16 = 5;
const MOST_PROCESSORS: u16 = 0x0f;
const BOOT_MENU: u16 = 0x0e;
const DIRECTORY: u16 = 0x19;
/// First number of a file.
const FIRST_FILE: u16 = 0x20;
/// Longest name of a file, without the zero behind it.
const NAME: usize = 55;
/// What a transfer is to do.
const ERROR: u32 = 1;
const READ: u32 = 2;
const SKIP: u32 = 4;
const SELECT: u32 = 8;
const WRITE: u32 = 16;
/// Most bytes of one transfer: nothing here is longer.
const MOST: u32 = 1 << 20;

/// Something that can be asked for.
#[derive(Clone, Debug)]
struct Item {
    number: u16,
    data: Vec<u8>,
}

/// The device.
#[derive(Clone, Debug)]
pub struct FwCfg {
    items: Vec<Item>,
    files: u16,
    selected: u16,
    offset: u32,
    address: u64,
}

/// A length as 32 bits: nothing here is longer.
fn short(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Where the guest is reading.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    selected: u16,
    offset: u32,
    address: u64,
}

impl FwCfg {
    /// Where the guest is reading.
    #[must_use]
    pub const fn place(&self) -> Place {
        Place {
            selected: self.selected,
            offset: self.offset,
            address: self.address,
        }
    }

    /// It goes on reading there.
    pub const fn set_place(&mut self, place: &Place) {
        self.selected = place.selected;
        self.offset = place.offset;
        self.address = place.address;
    }

    /// Tells of `vcpus` processors, and of no files yet.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        let vcpus = (vcpus as u16).to_le_bytes();
        let item = |number, data: &[u8]| Item { number, data: data.into() };
        Self {
            items: Vec::from([
                item(SIGNATURE, b"QEMU"),
                // The ports, and transfers to memory.
                item(FEATURES, &[3, 0, 0, 0]),
                item(PROCESSORS, &vcpus),
                item(MOST_PROCESSORS, &vcpus),
                item(DIRECTORY, &[0; 4]),
            ]),
            files: 0,
            selected: 0,
            offset: 0,
            address: 0,
        }
    }

    /// Has firmware offer a menu of what to boot from.
    pub fn offer_menu(&mut self) {
        self.items.push(Item {
            number: BOOT_MENU,
            data: Vec::from([1, 0]),
        });
    }

    /// Adds a file. Names are of at most 55 bytes.
    pub fn add(&mut self, name: &str, data: &[u8]) {
        let number = FIRST_FILE + self.files;
        self.files += 1;
        let mut entry = [0; 64];
        entry[..4].copy_from_slice(&short(data.len()).to_be_bytes());
        entry[4..6].copy_from_slice(&number.to_be_bytes());
        let length = name.len().min(NAME);
        entry[8..8 + length].copy_from_slice(&name.as_bytes()[..length]);
        if let Some(directory) = self.items.iter_mut().find(|item| item.number == DIRECTORY) {
            directory.data[..4].copy_from_slice(&u32::from(self.files).to_be_bytes());
            directory.data.extend_from_slice(&entry);
        }
        self.items.push(Item { number, data: data.into() });
    }

    /// Power-on state.
    pub const fn reset(&mut self) {
        self.selected = 0;
        self.offset = 0;
        self.address = 0;
    }

    const fn select(&mut self, number: u16) {
        self.selected = number;
        self.offset = 0;
    }

    /// What is left of the selected item.
    fn rest(&self) -> &[u8] {
        let item = self.items.iter().find(|item| item.number == self.selected);
        item.and_then(|item| item.data.get(self.offset as usize..)).unwrap_or_default()
    }

    /// Reads `width` bytes at a port.
    pub fn read(&mut self, port: u16, width: u8) -> u32 {
        match port {
            DATA => {
                let byte = self.rest().first().copied().unwrap_or(0);
                self.offset = self.offset.saturating_add(1);
                byte.into()
            }
            SELECTOR => self.selected.into(),
            // "QEMU CFG": transfers are possible.
            ADDRESS if width == 4 => u32::from_le_bytes(*b"QEMU"),
            0x518 if width == 4 => u32::from_le_bytes(*b" CFG"),
            _ => 0,
        }
    }

    /// Writes; a transfer is asked for with the answer.
    pub fn write(&mut self, port: u16, width: u8, value: u32) -> Option<Request> {
        match (port, width) {
            (SELECTOR, 2) => self.select(value as u16),
            (ADDRESS, 4) => self.address = u64::from(value.swap_bytes()) << 32,
            (0x518, 4) => {
                self.address |= u64::from(value.swap_bytes());
                return Some(Request::Transfer);
            }
            _ => (),
        }
        None
    }

    /// Carries out the transfer that was asked for. Its description says afterwards how it went.
    pub fn transfer(&mut self, memory: &GuestMemory) {
        let address = core::mem::take(&mut self.address);
        let Some(description) = memory.read::<16>(address) else { return };
        let [control, length] = [0, 4].map(|at| {
            let bytes = [0, 1, 2, 3].map(|i| description[at + i]);
            u32::from_be_bytes(bytes)
        });
        let target = u64::from_be_bytes([8, 9, 10, 11, 12, 13, 14, 15].map(|i| description[i]));
        if control & SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let done = match control & (READ | WRITE | SKIP) {
            0 => Some(()),
            SKIP => {
                self.offset = self.offset.saturating_add(length);
                Some(())
            }
            READ if length <= MOST => self.copy(memory, target, length),
            // Nothing here can be written.
            _ => None,
        };
        let answer: u32 = if done.is_some() { 0 } else { ERROR };
        // It was read from there a moment ago.
        let _ = memory.write_slice(address, &answer.to_be_bytes());
    }

    /// Copies out of the selected item; zeros behind its end.
    fn copy(&mut self, memory: &GuestMemory, target: u64, length: u32) -> Option<()> {
        let rest = self.rest();
        let there = short(rest.len()).min(length);
        memory.contains(target, length.into()).then_some(())?;
        memory.write_slice(target, &rest[..there as usize])?;
        memory.clear(target + u64::from(there), (length - there).into())?;
        self.offset = self.offset.saturating_add(length);
        Some(())
    }
}

/// Where a PC's setup says how much memory there is: index and value of bytes beside the clock, for `memory` bytes below 4 GiB.
pub fn setup_memory(memory: u64) -> impl Iterator<Item = (u8, u8)> {
    let kibibytes = (memory.saturating_sub(1 << 20) >> 10).min(0xffff) as u16;
    let blocks = (memory.saturating_sub(16 << 20) >> 16).min(0xffff) as u16;
    let [low, high] = kibibytes.to_le_bytes();
    let [block_low, block_high] = blocks.to_le_bytes();
    // 640 KiB of conventional memory; order of booting where nothing else says it: hard disk, CD-ROM.
    [
        (0x15, 0x80),
        (0x16, 0x02),
        (0x17, low),
        (0x18, high),
        (0x30, low),
        (0x31, high),
        (0x34, block_low),
        (0x35, block_high),
        (0x3d, 0x32),
    ]
    .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::ram;
    use proptest::prelude::*;

    fn device() -> FwCfg {
        let mut device = FwCfg::new(3);
        device.add("etc/e820", &[1, 2, 3, 4, 5]);
        device.add("opt/other", b"other");
        device
    }

    fn bytes(device: &mut FwCfg, number: u16, count: usize) -> std::vec::Vec<u8> {
        device.write(SELECTOR, 2, number.into());
        (0..count).map(|_| device.read(DATA, 1) as u8).collect()
    }

    fn transfer(device: &mut FwCfg, memory: &GuestMemory, control: u32, length: u32, target: u64) -> u32 {
        let mut description = control.to_be_bytes().to_vec();
        description.extend(length.to_be_bytes());
        description.extend(target.to_be_bytes());
        memory.write_slice(0x100, &description).unwrap();
        assert_eq!(device.write(ADDRESS, 4, 0), None);
        assert_eq!(device.write(0x518, 4, 0x100u32.swap_bytes()), Some(Request::Transfer));
        device.transfer(memory);
        u32::from_be_bytes(memory.read(0x100).unwrap())
    }

    #[test]
    fn items_and_files_byte_by_byte() {
        let mut device = device();
        assert_eq!(bytes(&mut device, SIGNATURE, 6), b"QEMU\0\0");
        assert_eq!(bytes(&mut device, PROCESSORS, 2), [3, 0]);
        let directory = bytes(&mut device, DIRECTORY, 4 + 128);
        assert_eq!(directory[..4], [0, 0, 0, 2]);
        assert_eq!(directory[4..10], [0, 0, 0, 5, 0, 0x20]);
        assert_eq!(&directory[12..21], b"etc/e820\0");
        assert_eq!(bytes(&mut device, 0x21, 5), b"other");
        assert_eq!(bytes(&mut device, 0x1234, 2), [0, 0]);
        assert_eq!((device.read(ADDRESS, 4), device.read(0x518, 4)), (0x554d_4551, 0x4746_4320));
    }

    #[test]
    fn items_and_files_by_transfer() {
        let (mut device, memory) = (device(), ram(&[0x1000]));
        assert_eq!(transfer(&mut device, &memory, 0x20 << 16 | SELECT | READ, 3, 0x200), 0);
        assert_eq!(memory.read(0x200), Some([1, 2, 3]));
        memory.write_slice(0x300, &[9; 8]).unwrap();
        assert_eq!(transfer(&mut device, &memory, READ, 4, 0x300), 0);
        assert_eq!(memory.read(0x300), Some([4, 5, 0, 0, 9]));
        assert_eq!(transfer(&mut device, &memory, 0x21 << 16 | SELECT | SKIP, 2, 0), 0);
        assert_eq!(transfer(&mut device, &memory, READ, 1, 0x300), 0);
        assert_eq!(memory.read(0x300), Some([b'h']));
        assert_eq!(transfer(&mut device, &memory, READ, 0x1000, 0x300), ERROR, "outside of RAM");
        assert_eq!(transfer(&mut device, &memory, WRITE, 1, 0x300), ERROR);
        assert_eq!(transfer(&mut device, &memory, READ, u32::MAX, 0), ERROR);
    }

    proptest! {
        #[test]
        fn survives_anything(operations in prop::collection::vec((any::<bool>(), SELECTOR..=LAST, prop::sample::select(&[1u8, 2, 4]), any::<u32>()), 1..200), content in prop::collection::vec(any::<u8>(), 4096)) {
            let (mut device, memory) = (device(), ram(&[4096]));
            memory.write_slice(0, &content).unwrap();
            for (write, port, width, value) in operations {
                // Half of the transfers are where there is RAM.
                let value = if value & 1 == 0 { (value & 0xfff).swap_bytes() } else { value };
                if !write { device.read(port, width); } else if device.write(port, width, value).is_some() { device.transfer(&memory); }
            }
        }
    }
}
