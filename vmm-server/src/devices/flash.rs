//! The part of a guest's flash memory that it can write: the variables of UEFI. It takes the commands of Intel's flash chips (CFI, command set 0001) that OVMF uses, byte by byte, as QEMU's `pflash` does.
//!
//! The guest reads flash memory without exits, so what stands there is what it reads. Only its writes come here, and a status is shown by standing where the command was written until the next one.

use super::chipset::{Chipset, Console};
use crate::apic::{Interrupts, Kick};
use crate::memory::GuestMemory;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Bytes that are erased, and kept, at once.
pub const BLOCK: u64 = 4096;
/// Longest writable part.
const MOST: u64 = 1 << 20;
/// What the volume of the variables begins with, behind 16 zeroes (`gEfiSystemNvDataFvGuid`, little-endian).
const VOLUME: [u8; 16] = [
    0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50,
];
/// Commands.
const ARRAY: u8 = 0xff;
const STATUS: u8 = 0x70;
const CLEAR_STATUS: u8 = 0x50;
const PROGRAM: [u8; 2] = [0x10, 0x40];
const ERASE: u8 = 0x20;
const CONFIRM: u8 = 0xd0;
/// Status: ready; an erasure or a command failed.
const READY: u8 = 0x80;
const FAILED: u8 = 0x30;

/// What the next write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Next {
    Command,
    Byte,
    Confirmation,
}

/// The writable part.
#[derive(Clone, Debug)]
pub struct Flash {
    /// Guest-physical address.
    start: u64,
    length: u64,
    next: Next,
    status: u8,
    /// Where a status is shown, and what belongs there.
    shown: Option<(u64, u8)>,
    /// A bit for each block that was changed since it was taken.
    changed: Vec<u64>,
    /// Somebody keeps what was changed.
    kept: bool,
    /// Commands after which blocks waited to be kept, and how many of them need not wait any more.
    asked: u64,
    done: u64,
}

/// How long the writable part of an image that begins so is, a number of blocks; `None`: it has none, or not at its beginning.
#[must_use]
pub fn variables(head: &[u8]) -> Option<u64> {
    // The header of a firmware volume (PI 1.7, volume 3, 3.2.1).
    let header: &[u8; 44] = head.first_chunk()?;
    let length = u64::from_le_bytes(*header[32..].first_chunk()?);
    let is_it = header[16..32] == VOLUME && header[40..44] == *b"_FVH";
    (is_it && (BLOCK..=MOST).contains(&length) && length.is_multiple_of(BLOCK)).then_some(length)
}

impl Flash {
    /// A part of `length` bytes from `start` on, as an image's beginning said.
    #[must_use]
    pub fn new(start: u64, length: u64) -> Self {
        Self {
            start,
            length,
            next: Next::Command,
            status: READY,
            shown: None,
            changed: alloc::vec![0; (length / BLOCK).div_ceil(64) as usize],
            kept: false,
            asked: 0,
            done: 0,
        }
    }

    /// Bytes of it.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Whether somebody keeps what is changed: commands wait for that.
    pub const fn set_kept(&mut self, kept: bool) {
        self.kept = kept;
    }

    /// Commands so far after which blocks waited to be kept.
    #[must_use]
    pub const fn asked(&self) -> u64 {
        self.asked
    }

    /// What waited after the first `asked` of them is kept.
    pub fn set_done(&mut self, asked: u64) {
        self.done = self.done.max(asked);
    }

    /// Whether the command of that number is over.
    #[must_use]
    pub const fn is_done(&self, number: u64) -> bool {
        !self.kept || self.done >= number
    }

    /// All of it is to be kept.
    pub fn mark_all(&mut self) {
        for block in 0..self.length / BLOCK {
            self.mark(self.start + block * BLOCK);
        }
    }

    /// Power-on state: waits for a command. What stands in it stays.
    pub fn reset(&mut self, memory: &GuestMemory) {
        self.hide(memory);
        self.next = Next::Command;
        self.status = READY;
    }

    fn show(&mut self, address: u64, memory: &GuestMemory) {
        if let Some([byte]) = memory.read(address) {
            self.shown = Some((address, byte));
            // It was read there a moment ago.
            let _ = memory.write_slice(address, &[self.status]);
        }
    }

    fn hide(&mut self, memory: &GuestMemory) {
        if let Some((address, byte)) = self.shown.take() {
            // As above.
            let _ = memory.write_slice(address, &[byte]);
        }
    }

    fn mark(&mut self, address: u64) {
        let block = (address - self.start) / BLOCK;
        if let Some(word) = self.changed.get_mut((block / 64) as usize) {
            *word |= 1 << (block % 64);
        }
    }

    /// A write to flash memory, of which the lowest byte counts. Answers whether blocks wait to be kept, and the guest is through with its commands; the last of them is then the [`Self::asked`]th.
    pub fn write(&mut self, address: u64, value: u8, memory: &GuestMemory) -> bool {
        if !(self.start..self.start + self.length).contains(&address) {
            // The code cannot be written.
            return false;
        }
        self.hide(memory);
        match core::mem::replace(&mut self.next, Next::Command) {
            Next::Command => match value {
                STATUS => self.show(address, memory),
                CLEAR_STATUS => self.status = 0,
                ERASE => self.next = Next::Confirmation,
                _ if PROGRAM.contains(&value) => self.next = Next::Byte,
                ARRAY => {
                    let waits = self.changed.iter().any(|word| *word != 0);
                    self.asked += u64::from(waits);
                    return waits;
                }
                // What is not known is over at once.
                _ => (),
            },
            Next::Byte => {
                // It is inside of the flash memory.
                let _ = memory.write_slice(address, &[value]);
                self.mark(address);
                self.status |= READY;
                self.show(address, memory);
            }
            Next::Confirmation if value == CONFIRM => {
                let block = self.start + (address - self.start) / BLOCK * BLOCK;
                // As above.
                let _ = memory.write_slice(block, &[0xff; BLOCK as usize]);
                self.mark(block);
                self.status |= READY;
                self.show(address, memory);
            }
            Next::Confirmation => self.status |= READY | FAILED,
        }
        false
    }

    /// Takes a block that was changed: its offset and its bytes.
    pub fn take(&mut self, memory: &GuestMemory) -> Option<(u64, Vec<u8>)> {
        let word = self.changed.iter().position(|word| *word != 0)?;
        let bit = self.changed[word].trailing_zeros();
        self.changed[word] &= self.changed[word] - 1;
        let offset = (word as u64 * 64 + u64::from(bit)) * BLOCK;
        let mut bytes = alloc::vec![0; BLOCK as usize];
        memory.read_slice(self.start + offset, &mut bytes)?;
        if let Some((address, byte)) = self.shown
            && let Some(place) = bytes.get_mut(address.wrapping_sub(self.start + offset) as usize)
        {
            *place = byte;
        }
        Some((offset, bytes))
    }
}

/// The writable part of a suspended machine's flash memory. What stands in it is saved with the RAM, and was kept before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFlash {
    next: Next,
    status: u8,
    shown: Option<(u64, u8)>,
}

impl Flash {
    /// What the chip is at.
    #[must_use]
    pub const fn save(&self) -> SavedFlash {
        SavedFlash {
            next: self.next,
            status: self.status,
            shown: self.shown,
        }
    }

    /// Makes this chip what another was.
    pub fn restore(&mut self, saved: &SavedFlash) {
        self.next = saved.next;
        self.status = saved.status;
        let inside = |place: &(u64, u8)| (self.start..self.start + self.length).contains(&place.0);
        self.shown = saved.shown.filter(inside);
    }
}

impl<C: Console> Chipset<C> {
    /// Part of the flash memory can be written.
    pub fn add_flash(&mut self, flash: Flash) {
        self.flash = Some(flash);
    }

    /// That part.
    pub const fn flash(&mut self) -> Option<&mut Flash> {
        self.flash.as_mut()
    }

    /// The guest wrote to its flash memory. Answers the number of the command that the guest goes on after, when what it changed is kept.
    pub fn flash_write<K: Kick>(&mut self, address: u64, value: u8, memory: &GuestMemory, to: &Interrupts<K>) -> Option<u64> {
        let flash = self.flash.as_mut()?;
        if !flash.write(address, value, memory) {
            return None;
        }
        to.wake_link();
        flash.kept.then_some(flash.asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{FLASH_END, tests::ram};
    use proptest::prelude::*;

    const LENGTH: u64 = 4 * BLOCK;

    fn board() -> (Flash, GuestMemory, u64) {
        let mut memory = ram(&[1 << 20]);
        memory.set_flash(64 << 10);
        let start = memory.flash();
        memory.write_slice(start, &[0xaa; LENGTH as usize]).unwrap();
        (Flash::new(start, LENGTH), memory, start)
    }

    #[test]
    fn volumes_of_variables_are_known() {
        let mut head = [0; 64];
        head[16..32].copy_from_slice(&VOLUME);
        head[32..40].copy_from_slice(&0x2_0000u64.to_le_bytes());
        head[40..44].copy_from_slice(b"_FVH");
        assert_eq!(variables(&head), Some(0x2_0000));
        assert_eq!(variables(&head[..43]), None);
        head[32] = 1;
        assert_eq!(variables(&head), None, "no number of blocks");
        head[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(variables(&head), None);
        assert_eq!(variables(&[0; 64]), None);
    }

    #[test]
    fn ovmf_takes_it_for_flash_memory() {
        // QemuFlashDetected in OvmfPkg/QemuFlashFvbServicesRuntimeDxe/QemuFlash.c
        let (mut flash, memory, at) = board();
        let mut probe = |command: u8| {
            flash.write(at, command, &memory);
            memory.read::<1>(at).unwrap()[0]
        };
        assert_ne!(probe(CLEAR_STATUS), CLEAR_STATUS, "it would be RAM");
        assert_eq!(probe(STATUS), 0, "it would be ROM");
        assert_eq!(probe(ARRAY), 0xaa);
    }

    #[test]
    fn bytes_are_programmed_and_blocks_erased() {
        let (mut flash, memory, start) = board();
        let at = start + BLOCK + 5;
        assert_eq!(flash.take(&memory), None);
        for (address, value) in [(at, 0x10), (at, 0x12), (at + 1, 0x40), (at + 1, 0x34)] {
            assert!(!flash.write(address, value, &memory));
        }
        assert!(flash.is_done(1), "nobody keeps it, so nobody waits");
        flash.set_kept(true);
        assert!(flash.write(at, ARRAY, &memory));
        assert_eq!(flash.asked(), 1);
        assert!(!flash.is_done(1));
        flash.set_done(1);
        assert!(flash.is_done(1));
        assert_eq!(memory.read(at), Some([0x12, 0x34, 0xaa]));
        let (offset, bytes) = flash.take(&memory).unwrap();
        assert_eq!((offset, &bytes[4..8]), (BLOCK, &[0xaa, 0x12, 0x34, 0xaa][..]));
        assert_eq!(flash.take(&memory), None);
        flash.write(at, ERASE, &memory);
        flash.write(at, CONFIRM, &memory);
        let (offset, bytes) = flash.take(&memory).unwrap();
        assert_eq!(
            (offset, bytes),
            (BLOCK, std::vec![0xff; BLOCK as usize]),
            "the status is no part of it"
        );
        flash.reset(&memory);
        assert_eq!(memory.read(at - 6), Some([0xaa]), "the block before is as it was");
        assert_eq!(memory.read(at), Some([0xff]));
        flash.write(at, ERASE, &memory);
        flash.write(at, ARRAY, &memory);
        assert_eq!(flash.take(&memory), None, "without confirmation nothing is erased");
    }

    proptest! {
        #[test]
        fn nothing_else_is_written(operations in prop::collection::vec((0..LENGTH * 2, prop::sample::select(&[0xffu8, 0x70, 0x50, 0x10, 0x20, 0xd0, 7])), 0..300)) {
            let (mut flash, memory, start) = board();
            let before: [u8; 64] = memory.read(FLASH_END - 64).unwrap();
            for (offset, value) in operations {
                flash.write(start + offset, value, &memory);
                if let Some((offset, bytes)) = flash.take(&memory) {
                    prop_assert!(offset + bytes.len() as u64 <= LENGTH);
                }
            }
            flash.reset(&memory);
            prop_assert_eq!(memory.read(FLASH_END - 64), Some(before));
            let mut behind = std::vec![0; BLOCK as usize];
            memory.read_slice(start + LENGTH, &mut behind).unwrap();
            prop_assert!(behind.iter().all(|byte| *byte == 0));
        }
    }
}
