//! A driver's view of the adapter and its drive.

use super::command::SECTOR;
use super::port::FAILED;
use super::*;
use crate::apic::routing::tests::Kicks;
use crate::memory::tests::ram;
use proptest::prelude::*;
use std::vec::Vec;

const LIST: u32 = 0x1000;
const RECEIVED: u32 = 0x1400;
const TABLE: u32 = 0x1800;
const BUFFER: u32 = 0x4000;

struct Board {
    ahci: Ahci,
    memory: GuestMemory,
    to: Interrupts<Kicks>,
}

impl Board {
    fn new(bytes: Option<u64>) -> Self {
        let mut board = Self {
            ahci: Ahci::new(crate::devices::pci::Board::Q35, Some(bytes), Vec::new()),
            memory: ram(&[64 << 10]),
            to: Interrupts::new(1, Kicks::default()),
        };
        board.ahci.function().write(1, u32::MAX, 7);
        for (offset, value) in [(0x100, LIST), (0x108, RECEIVED), (0x114, u32::MAX), (0x04, 2), (0x118, 0x11)] {
            board.write(offset, value);
        }
        board
    }

    fn read(&self, offset: u32) -> u32 {
        self.ahci.range_read(u64::from(ADDRESS + offset), 4).unwrap() as u32
    }

    fn write(&mut self, offset: u32, value: u32) -> bool {
        self.ahci.range_write(u64::from(ADDRESS + offset), 4, value.into()).unwrap()
    }

    /// Issues a command with room for `room` bytes.
    fn issue(&mut self, code: u8, packet: &[u8], room: u32) -> Option<Job> {
        self.memory.write_slice(LIST.into(), &[0x25, 0, 1, 0, 0xff, 0, 0, 0]).unwrap();
        self.memory.write_slice(u64::from(LIST) + 8, &TABLE.to_le_bytes()).unwrap();
        self.memory.clear(TABLE.into(), 0x100).unwrap();
        self.memory.write_slice(TABLE.into(), &[0x27, 0x80, code]).unwrap();
        self.memory.write_slice(u64::from(TABLE) + 0x40, packet).unwrap();
        self.memory.write_slice(u64::from(TABLE) + 0x80, &BUFFER.to_le_bytes()).unwrap();
        self.memory.write_slice(u64::from(TABLE) + 0x8c, &(room - 1).to_le_bytes()).unwrap();
        assert!(self.write(0x138, 1));
        self.ahci.take(&self.memory)
    }

    fn moved(&self) -> u32 {
        self.memory.read_u32(u64::from(LIST) + 4).unwrap()
    }

    /// The next command may come: as a driver does after an error.
    fn restart(&mut self) {
        for (offset, value) in [(0x118, 0x10), (0x110, u32::MAX), (0x08, 1), (0x118, 0x11)] {
            self.write(offset, value);
        }
    }

    fn sense(&mut self) -> (u8, u8) {
        self.restart();
        assert_eq!(self.issue(0xa0, &[3, 0, 0, 0, 18], 18), None);
        let data = self.memory.read::<18>(BUFFER.into()).unwrap();
        (data[2], data[12])
    }
}

#[test]
fn a_driver_finds_the_drive() {
    let mut board = Board::new(Some(10 * SECTOR));
    assert_eq!((board.read(0x0c), board.read(0x124), board.read(0x128) & 0xf), (1, 0xeb14_0101, 3));
    assert_eq!(board.issue(0xec, &[], 512), None);
    assert_eq!(board.read(0x120) & 0xff, 0x51, "it is no disk");
    assert_eq!(board.read(0x110) & FAILED, FAILED);
    assert_eq!(board.read(0x138), 1, "a failed command stays");
    board.restart();
    assert_eq!(board.read(0x138), 0);
    assert!(!board.ahci.line_interrupt());
    assert_eq!(board.issue(0xa1, &[], 512), None);
    assert_eq!((board.read(0x120), board.read(0x138), board.moved()), (0x50, 0, 512));
    assert!(board.ahci.line_interrupt());
    assert_eq!(board.memory.read::<2>(BUFFER.into()), Some([0xc0, 0x85]));
    assert_eq!(board.memory.read::<8>(u64::from(BUFFER) + 54), Some(*b"ETSSRE A"));
    assert_eq!(board.memory.read::<3>(u64::from(RECEIVED) + 0x40), Some([0x34, 0x40, 0x50]));
    board.write(0x110, 1);
    board.write(0x08, 1);
    assert!(!board.ahci.line_interrupt());
}

#[test]
fn sectors_are_read_by_others() {
    let mut board = Board::new(Some(9 * SECTOR + 1));
    board.issue(0xa0, &[0x25], 8);
    assert_eq!(board.memory.read::<8>(BUFFER.into()), Some([0, 0, 0, 9, 0, 0, 8, 0]));
    let job = board.issue(0xa0, &[0x28, 0, 0, 0, 0, 3, 0, 0, 2], 4096).unwrap();
    assert_eq!((job.offset, &job.pieces[..]), (3 * SECTOR, &[(u64::from(BUFFER), 4096)][..]));
    assert_eq!(board.read(0x138), 1);
    assert!(!board.ahci.has_work(), "one at a time");
    board.ahci.finish(&job, Outcome::Done, &board.memory, &board.to);
    assert_eq!((board.read(0x138), board.moved()), (0, 4096));
    let job = board.issue(0xa0, &[0xa8, 0, 0, 0, 0, 9, 0, 0, 0, 1], 2048).unwrap();
    board.ahci.finish(&job, Outcome::Failed, &board.memory, &board.to);
    assert_eq!(board.sense(), (3, 0x11));
    assert_eq!(board.issue(0xa0, &[0x28, 0, 0, 0, 0, 9, 0, 0, 2], 4096), None);
    assert_eq!(board.sense(), (5, 0x21), "behind the end");
    // What was void when it ended changes nothing.
    let job = board.issue(0xa0, &[0x28, 0, 0, 0, 0, 3, 0, 0, 2], 4096).unwrap();
    board.restart();
    board.ahci.finish(&job, Outcome::Done, &board.memory, &board.to);
    assert_eq!(board.read(0x110), 0);
}

#[test]
fn media_come_and_go() {
    let mut board = Board::new(None);
    board.issue(0xa0, &[0x00], 8);
    assert_eq!(board.sense(), (2, 0x3a));
    board.ahci.change_medium(Some(SECTOR));
    board.issue(0xa0, &[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8], 8);
    assert_eq!(board.memory.read::<6>(BUFFER.into()), Some([0, 6, 4, 0x10, 2, 2]));
    board.issue(0xa0, &[0x00], 8);
    assert_eq!(board.sense(), (6, 0x28));
    board.issue(0xa0, &[0x43, 2, 0, 0, 0, 0, 0, 0, 20], 20);
    assert_eq!(board.read(0x120), 0x50);
    assert_eq!(
        board.memory.read::<4>(u64::from(BUFFER) + 8),
        Some([0, 0, 2, 0]),
        "two seconds before the first track"
    );
}

#[test]
fn the_guest_opens_the_tray() {
    let mut board = Board::new(Some(SECTOR));
    board.issue(0xa0, &[0x1e, 0, 0, 0, 1], 8);
    assert_eq!(board.ahci.medium(), (Some(SECTOR), true));
    board.issue(0xa0, &[0x1b, 0, 0, 0, 2], 8);
    assert_eq!(board.sense(), (5, 0x53), "it is locked");
    board.issue(0xa0, &[0x1e], 8);
    board.issue(0xa0, &[0x1b, 0, 0, 0, 2], 8);
    assert_eq!(board.ahci.medium(), (None, false));
    board.issue(0xa0, &[0x00], 8);
    assert_eq!(board.sense(), (2, 0x3a), "there is no medium");
    board.issue(0xa0, &[0x1b, 0, 0, 0, 3], 8);
    board.issue(0xa0, &[0x00], 8);
    assert_eq!(board.sense(), (6, 0x28), "it came back");
    board.issue(0xa0, &[0x1b, 0, 0, 0, 2], 8);
    board.ahci.reset();
    assert_eq!(board.ahci.medium(), (Some(SECTOR), false), "the tray closes with the power");
}

#[test]
fn what_is_read_while_the_medium_changes_ends() {
    let mut board = Board::new(Some(2 * SECTOR));
    let job = board.issue(0xa0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1], 2048).unwrap();
    board.ahci.change_medium(None);
    board.ahci.finish(&job, Outcome::Failed, &board.memory, &board.to);
    assert_eq!(board.read(0x120) & 1, 1);
    assert_eq!(board.sense(), (3, 0x11));
}

#[test]
fn data_goes_where_there_is_ram_only() {
    let mut board = Board::new(Some(10 * SECTOR));
    let job = board.issue(0xa0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1], 2048);
    assert!(job.is_some());
    board.restart();
    board
        .memory
        .write_slice(u64::from(LIST) + 8, &0xffff_ff80u32.to_le_bytes())
        .unwrap();
    board.write(0x138, 1);
    assert_eq!(board.ahci.take(&board.memory), None);
    assert_eq!(board.read(0x120) & 1, 1);
}

proptest! {
    #[test]
    fn survives_anything(
        content in prop::collection::vec(any::<u8>(), 0x1000),
        operations in prop::collection::vec((0u8..4, 0u32..0x1000, any::<u32>(), prop::sample::select(&[1u8, 2, 4, 8])), 1..100),
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 16), 1..20),
    ) {
        let mut board = Board::new(Some(100 * SECTOR));
        board.memory.write_slice(LIST.into(), &content).unwrap();
        let mut jobs: Vec<Job> = Vec::new();
        for (kind, offset, value, width) in operations {
            match kind {
                0 => {
                    let _ = board.ahci.range_read(u64::from(ADDRESS + offset), width);
                }
                1 => { board.ahci.range_write(u64::from(ADDRESS + (offset & 0x1ff)), width, value.into()); }
                2 => jobs.extend(board.ahci.take(&board.memory)),
                _ => {
                    if let Some(job) = jobs.pop() {
                        for (address, length) in &job.pieces {
                            prop_assert!(board.memory.contains(*address, *length));
                        }
                        board.ahci.finish(&job, Outcome::Done, &board.memory, &board.to);
                    }
                }
            }
        }
        let mut board = Board::new(Some(100 * SECTOR));
        for packet in packets {
            board.restart();
            if let Some(job) = board.issue(0xa0, &packet, 0x8000) {
                prop_assert!(job.offset + u64::from(job.bytes()) <= 100 * SECTOR);
                board.ahci.finish(&job, Outcome::Done, &board.memory, &board.to);
            }
        }
    }
}
