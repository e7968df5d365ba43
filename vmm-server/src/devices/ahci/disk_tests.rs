//! A driver's view of a hard disk, with a server behind it that keeps the disk in memory.

use super::super::{ADDRESS, Ahci};
use super::*;
use crate::apic::routing::tests::Kicks;
use crate::devices::pci::Board as Kind;
use crate::devices::virtio::driver::{self, tests::Device as Queue};
use crate::devices::virtio::{DeviceConfig, VirtioPci};
use crate::memory::tests::ram;
use proptest::prelude::*;
use tessera_virtqueue::Segment;

const LIST: u32 = 0x1000;
const RECEIVED: u32 = 0x1400;
const TABLES: u32 = 0x8000;
const TABLE: u32 = 0x2000;
const BUFFER: u64 = 0x6_0000;
const QUEUE: u64 = 0x20_0000;
const SECTORS: u64 = 1000;
/// Its registers, at port 1.
const PORT: u32 = 0x180;

/// Serves the queue.
struct Server {
    queue: Queue,
    disk: Vec<u8>,
    /// Kinds of the requests, in order.
    seen: Vec<u32>,
}

impl Server {
    fn act(&mut self, memory: &GuestMemory, segments: &[Segment]) -> u8 {
        let word = |address| memory.read_u32(address).unwrap();
        let header = segments[0].address;
        let (kind, sector) = (word(header), u64::from(word(header + 8)));
        self.seen.push(kind);
        let data = &segments[1..segments.len() - 1];
        let mut place = (sector * SECTOR) as usize;
        if kind == DISCARD {
            let (sector, count) = (word(data[0].address) as usize, word(data[0].address + 8) as usize);
            self.disk[sector * 512..(sector + count) * 512].fill(0);
            return 0;
        }
        for segment in data {
            let Some(part) = self.disk.get_mut(place..place + segment.length as usize) else {
                return 1;
            };
            let done = match kind {
                READ => memory.write_slice(segment.address, part),
                WRITE => memory.read_slice(segment.address, part),
                _ => return 2,
            };
            done.unwrap();
            place += segment.length as usize;
        }
        0
    }
}

struct Board {
    ahci: Ahci,
    memory: GuestMemory,
    devices: Vec<VirtioPci>,
    to: Interrupts<Kicks>,
    server: Option<Server>,
}

fn config(read_only: bool) -> DeviceConfig {
    let mut config = block::config(&block::Disk {
        sectors: SECTORS,
        block_size: 512,
        read_only,
        discard: true,
        queues: 1,
        segments: 126,
    });
    config.hide();
    config
}

impl Board {
    fn new(read_only: bool) -> Self {
        let seat = Seat {
            place: 0,
            serial: "S1".into(),
            queue: QUEUE,
        };
        let mut board = Self {
            ahci: Ahci::new(Kind::Plain, None, vec![seat]),
            memory: ram(&[4 << 20]),
            devices: vec![VirtioPci::new(2, 0xc000, 0xc000_0000, 8, config(read_only))],
            to: Interrupts::new(1, Kicks::default()),
            server: None,
        };
        board.ahci.function().write(1, u32::MAX, 7);
        board.start();
        board
    }

    fn start(&mut self) {
        for (offset, value) in [(0, LIST), (8, RECEIVED), (0x10, u32::MAX), (0x14, u32::MAX), (0x18, 0x11)] {
            self.write(PORT + offset, value);
        }
        self.write(8, u32::MAX);
        self.write(4, 2);
    }

    fn read(&self, offset: u32) -> u32 {
        self.ahci.range_read(u64::from(ADDRESS + offset), 4).unwrap() as u32
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.ahci.range_write(u64::from(ADDRESS + offset), 4, value.into()).unwrap();
        self.ahci.run(&self.memory, &mut self.devices, &self.to);
    }

    /// Lays a command out.
    fn prepare(&self, slot: u32, fis: [u8; 16], pieces: &[(u64, u32)]) {
        let (header, table) = (u64::from(LIST + 32 * slot), u64::from(TABLES + TABLE * slot));
        self.memory.write_u32(header, 5 | (pieces.len() as u32) << 16).unwrap();
        self.memory.write_u32(header + 4, 0).unwrap();
        self.memory.write_u32(header + 8, table as u32).unwrap();
        self.memory.write_slice(table, &fis).unwrap();
        for (entry, (address, length)) in (table + 0x80..).step_by(16).zip(pieces) {
            self.memory.write_slice(entry, &address.to_le_bytes()).unwrap();
            self.memory.write_u32(entry + 12, length - 1).unwrap();
        }
    }

    fn issue(&mut self, slot: u32, fis: [u8; 16], pieces: &[(u64, u32)]) {
        self.prepare(slot, fis, pieces);
        self.write(PORT + 0x38, 1 << slot);
    }

    /// Takes what was asked for, and answers it from the last to the first.
    fn serve(&mut self) {
        self.serve_with(|server, memory, segments| server.act(memory, segments));
    }

    fn serve_with(&mut self, mut act: impl FnMut(&mut Server, &GuestMemory, &[Segment]) -> u8) {
        loop {
            if let Service::Wanted { .. } = self.devices[0].registers().service() {
                let (_, queue) = self.devices[0].registers().used_queues()[0];
                let disk = self
                    .server
                    .take()
                    .map_or_else(|| (0..SECTORS * 512).map(|at| (at / 512) as u8).collect(), |server| server.disk);
                self.server = Some(Server {
                    queue: Queue::new(&queue, &self.memory),
                    disk,
                    seen: Vec::new(),
                });
                self.devices[0].served(&self.to);
            }
            let Some(server) = &mut self.server else { return };
            let mut taken: Vec<_> = core::iter::from_fn(|| server.queue.take(&self.memory)).collect();
            if taken.is_empty() {
                return;
            }
            while let Some((head, segments)) = taken.pop() {
                let status = act(server, &self.memory, &segments);
                server.queue.end(&self.memory, head, &segments, status);
            }
            self.ahci.run(&self.memory, &mut self.devices, &self.to);
        }
    }

    fn restart(&mut self) {
        self.write(PORT + 0x18, 0x10);
        self.serve();
        self.start();
    }

    fn task(&self) -> u32 {
        self.read(PORT + 0x20)
    }

    fn seen(&self) -> &[u32] {
        &self.server.as_ref().unwrap().seen
    }
}

fn fis(code: u8, features: u16, sector: u64, count: u16) -> [u8; 16] {
    let [a, b, c, d, e, f, ..] = sector.to_le_bytes();
    let ([low, high], [few, more]) = (features.to_le_bytes(), count.to_le_bytes());
    [0x27, 0x80, code, low, a, b, c, 0x40, d, e, f, high, few, more, 0, 0]
}

#[test]
fn a_driver_finds_the_disk() {
    let mut board = Board::new(false);
    assert_eq!(
        (
            board.read(0) & 31,
            board.read(0xc),
            board.read(PORT + 0x24),
            board.read(PORT + 0x28) & 0xf
        ),
        (1, 2, 0x0101, 3)
    );
    assert_eq!((board.read(0x100), board.read(0x124)), (0, 0), "no drive");
    board.issue(3, fis(0xec, 0, 0, 0), &[(BUFFER, 512)]);
    assert_eq!(
        (
            board.task(),
            board.read(PORT + 0x38),
            board.memory.read_u32(u64::from(LIST) + 3 * 32 + 4)
        ),
        (0x50, 0, Some(512))
    );
    assert_eq!(board.memory.read::<2>(BUFFER), Some([0x40, 0]));
    assert!(board.ahci.line_interrupt());
    assert_eq!(board.memory.read::<3>(u64::from(RECEIVED) + 0x40), Some([0x34, 0x40, 0x50]));
    // What it does not have.
    board.issue(0, fis(0xa1, 0, 0, 0), &[(BUFFER, 512)]);
    assert_eq!(
        (board.task(), board.read(PORT + 0x38), board.read(PORT + 0x10) >> 30),
        (0x451, 1, 1)
    );
    board.restart();
    for (code, features, sector, count, task, left) in [
        (0xe5, 0, 0, 0, 0x50, 0xff),
        (0xef, 3, 0, 0x45, 0x50, 0),
        (0xef, 5, 0, 0, 0x451, 0),
        (0xb0, 0xda, 0xc2_4f00, 0, 0x50, 0),
        (0xb0, 0xda, 0, 0, 0x451, 0),
        (0x42, 0, SECTORS - 1, 1, 0x50, 0),
        (0x42, 0, SECTORS, 1, 0x1051, 0),
    ] {
        board.issue(0, fis(code, features, sector, count), &[(BUFFER, 512)]);
        assert_eq!(board.task(), task, "{code:#x} {features:#x}");
        assert_eq!(board.memory.read::<1>(u64::from(RECEIVED) + 0x40 + 12), Some([left]));
        board.restart();
    }
    assert!(board.server.is_none(), "nobody was asked");
}

#[test]
fn sectors_go_there_and_back() {
    let mut board = Board::new(false);
    board.issue(0, fis(0x25, 0, 7, 2), &[(BUFFER, 512), (BUFFER + 0x1000, 512)]);
    assert_eq!(
        (board.read(PORT + 0x38), board.to.kicked().links()),
        (1, 1),
        "its server is asked for"
    );
    board.serve();
    assert_eq!((board.task(), board.read(PORT + 0x38)), (0x50, 0));
    assert_eq!(
        (board.memory.read(BUFFER), board.memory.read(BUFFER + 0x1000)),
        (Some([7]), Some([8]))
    );
    board.memory.write_slice(BUFFER, &[0xaa; 1024]).unwrap();
    board.issue(5, fis(0x35, 0, SECTORS - 2, 2), &[(BUFFER, 1024)]);
    board.serve();
    assert_eq!(board.server.as_ref().unwrap().disk[998 * 512..], [0xaa; 1024]);
    // 28 bits, of which the upper are in the device register; a count of 0 is 256.
    let mut narrow = fis(0xc8, 0, 9, 0);
    board.issue(1, narrow, &[(BUFFER, 256 * 512)]);
    board.serve();
    assert_eq!((board.task(), board.memory.read(BUFFER + 255 * 512)), (0x50, Some([8])));
    narrow[7] = 0x41;
    board.issue(1, narrow, &[(BUFFER, 256 * 512)]);
    assert_eq!(board.task(), 0x1051, "behind the end");
    board.restart();
    board.issue(1, fis(0x25, 0, 0, 2), &[(BUFFER, 1022)]);
    assert_eq!(board.task(), 0x451, "there is no room");
    board.restart();
    board.issue(1, fis(0x25, 0, 0, 2), &[(BUFFER, 512), ((4 << 20) - 511, 512)]);
    assert_eq!(board.task(), 0x451, "there is no RAM");
    board.restart();
    assert_eq!(board.seen(), [READ, WRITE, READ]);
    // The server cannot.
    board.issue(1, fis(0x25, 0, 0, 1), &[(BUFFER, 512)]);
    board.serve_with(|_, _, _| 1);
    assert_eq!((board.task(), board.read(PORT + 0x10) >> 30 & 1), (0x4051, 1));
}

#[test]
fn many_pieces_become_several_requests() {
    let mut board = Board::new(false);
    // 300 pieces of 2 KiB less 2 and 2 bytes: no request of 126 ends with a sector's end.
    let pieces: Vec<_> = (0..300u64)
        .map(|at| (BUFFER + 4096 * at, if at % 2 == 0 { 510 } else { 514 }))
        .collect();
    board.issue(0, fis(0x25, 0, 0, 300), &pieces);
    board.serve();
    assert_eq!((board.task(), board.seen()), (0x50, &[READ; 3][..]));
    let mut read = Vec::new();
    for (address, length) in &pieces {
        let start = read.len();
        read.resize(start + *length as usize, 0);
        board.memory.read_slice(*address, &mut read[start..]).unwrap();
    }
    assert!(read == board.server.as_ref().unwrap().disk[..300 * 512]);
    let tiny: Vec<_> = (0..256u64).map(|at| (BUFFER + 4096 * at, 2)).collect();
    board.issue(0, fis(0x25, 0, 0, 1), &tiny);
    assert_eq!(board.task(), 0x451);
}

#[test]
fn queued_commands_go_together() {
    let mut board = Board::new(false);
    for slot in [2, 9] {
        board.prepare(
            slot,
            fis(0x60, 1, 20 + u64::from(slot), 0),
            &[(BUFFER + 512 * u64::from(slot), 512)],
        );
        board.write(PORT + 0x34, 1 << slot);
        board.write(PORT + 0x38, 1 << slot);
    }
    assert_eq!((board.read(PORT + 0x38), board.read(PORT + 0x34)), (0, 0x204), "both are taken");
    // One that is not queued waits for them.
    board.issue(0, fis(0xea, 0, 0, 0), &[]);
    assert_eq!(board.read(PORT + 0x38), 1);
    board.serve();
    assert_eq!((board.read(PORT + 0x38), board.read(PORT + 0x34)), (0, 0));
    assert_eq!(board.seen(), [READ, READ, FLUSH]);
    assert_eq!(
        (board.memory.read(BUFFER + 1024), board.memory.read(BUFFER + 9 * 512)),
        (Some([22]), Some([29]))
    );
    assert_eq!(board.memory.read(u64::from(RECEIVED) + 0x58), Some([0xa1, 0x40, 0x50, 0]));
    // Past the cache: what was written is made safe.
    let mut safe = fis(0x61, 1, 5, 0);
    safe[7] |= 0x80;
    board.prepare(1, safe, &[(BUFFER, 512)]);
    board.write(PORT + 0x34, 2);
    board.write(PORT + 0x38, 2);
    board.serve();
    assert_eq!((board.seen()[3..].to_vec(), board.read(PORT + 0x34)), (vec![WRITE, FLUSH], 0));
    // One fails: its bit stays, and the log tells which it was.
    board.prepare(4, fis(0x60, 1, 77, 0), &[(BUFFER, 512)]);
    board.write(PORT + 0x34, 1 << 4);
    board.write(PORT + 0x38, 1 << 4);
    board.serve_with(|_, _, _| 1);
    assert_eq!(
        (board.task(), board.read(PORT + 0x34), board.read(PORT + 0x10) >> 30),
        (0x4051, 1 << 4, 1)
    );
    board.restart();
    assert_eq!(board.read(PORT + 0x34), 0);
    board.issue(0, fis(0x2f, 0, 0x10, 1), &[(BUFFER, 512)]);
    assert_eq!((board.task(), board.memory.read(BUFFER)), (0x50, Some([4, 0, 0x51, 0x40, 77])));
}

#[test]
fn without_a_cache_writes_are_safe() {
    let mut board = Board::new(false);
    board.issue(0, fis(0xef, 0x82, 0, 0), &[]);
    board.issue(0, fis(0x35, 0, 1, 1), &[(BUFFER, 512)]);
    board.serve();
    assert_eq!(board.seen(), [WRITE, FLUSH]);
    let mut board = Board::new(true);
    board.issue(0, fis(0x35, 0, 1, 1), &[(BUFFER, 512)]);
    assert_eq!(board.task(), 0x451, "it is not to be written");
}

#[test]
fn ranges_are_given_back() {
    let mut board = Board::new(false);
    for (at, (sector, count)) in (BUFFER..).step_by(8).zip([(3u64, 2u64), (0, 0), (10, 1)]) {
        board.memory.write_slice(at, &(sector | count << 48).to_le_bytes()).unwrap();
    }
    board.issue(0, fis(6, 1, 0, 1), &[(BUFFER, 512)]);
    board.serve();
    assert_eq!((board.task(), board.seen()), (0x50, &[DISCARD, DISCARD][..]));
    let disk = &board.server.as_ref().unwrap().disk;
    assert_eq!([2, 3, 4, 5, 9, 10, 11].map(|sector| disk[sector * 512]), [2, 0, 0, 5, 9, 0, 11]);
    board.memory.write_slice(BUFFER, &(SECTORS | 1 << 48).to_le_bytes()).unwrap();
    board.issue(0, fis(6, 1, 0, 1), &[(BUFFER, 512)]);
    assert_eq!(board.task(), 0x1051);
}

#[test]
fn what_is_under_way_when_the_list_stops_is_not_told_of() {
    let mut board = Board::new(false);
    board.issue(0, fis(0x25, 0, 1, 1), &[(BUFFER, 512)]);
    board.write(PORT + 0x18, 0x10);
    assert_eq!(
        (board.read(PORT + 0x18) >> 15 & 1, board.read(PORT + 0x38)),
        (1, 0),
        "it runs until nothing is moved"
    );
    board.start();
    // Its slot is not free before.
    board.issue(0, fis(0x25, 0, 2, 1), &[(BUFFER + 512, 512)]);
    board.issue(0, fis(0x25, 0, 2, 1), &[(BUFFER + 512, 512)]);
    board.serve();
    assert_eq!((board.task(), board.read(PORT + 0x38), board.seen()), (0x50, 0, &[READ, READ][..]));
    assert_eq!(board.memory.read(BUFFER + 512), Some([2]));
    board.write(PORT + 0x18, 0x10);
    assert_eq!(board.read(PORT + 0x18) >> 15 & 1, 0);
    // The same at a reset of the adapter.
    board.start();
    board.issue(0, fis(0x25, 0, 1, 1), &[(BUFFER, 512)]);
    board.write(4, 1);
    assert_eq!(board.read(4) & 1, 1);
    board.serve();
    assert_eq!((board.read(4) & 1, board.read(PORT + 0x10)), (0, 0));
}

#[test]
fn a_command_of_a_suspended_machine_is_begun_again() {
    let mut board = Board::new(false);
    board.issue(0, fis(0xef, 0x82, 0, 0), &[]);
    board.prepare(2, fis(0x60, 1, 22, 0), &[(BUFFER, 512)]);
    board.write(PORT + 0x34, 4);
    board.write(PORT + 0x38, 4);
    let (ahci, device) = (board.ahci.save(), board.devices[0].save());
    let memory = core::mem::replace(&mut board.memory, ram(&[4 << 20]));
    let mut other = Board::new(false);
    other.memory = memory;
    assert!(other.ahci.is_like(&ahci) && other.devices[0].is_like(&device));
    other.ahci.restore(&ahci);
    other.devices[0].restore(&device);
    other.ahci.run(&other.memory, &mut other.devices, &other.to);
    other.serve();
    assert_eq!((other.read(PORT + 0x34), other.memory.read(BUFFER)), (0, Some([22])));
    other.issue(0, fis(0x35, 0, 1, 1), &[(BUFFER, 512)]);
    other.serve();
    assert_eq!(other.seen(), [READ, WRITE, FLUSH], "the cache is off yet");
    let two = Ahci::new(Kind::Plain, Some(None), Vec::new());
    assert!(!two.is_like(&ahci));
}

#[test]
fn a_disk_that_nobody_serves_fails() {
    let mut board = Board::new(false);
    board.issue(0, fis(0x25, 0, 1, 1), &[(BUFFER, 512)]);
    board.devices[0].broken(&board.to);
    board.ahci.run(&board.memory, &mut board.devices, &board.to);
    assert_eq!((board.task(), board.read(PORT + 0x10) >> 30), (0x451, 1));
    board.start();
    board.restart();
    board.issue(0, fis(0xec, 0, 0, 0), &[(BUFFER, 512)]);
    assert_eq!(board.task(), 0x451);
}

proptest! {
    #[test]
    fn cutting_loses_nothing(pieces in prop::collection::vec((0u64..1 << 30, 1u64..3000), 1..400)) {
        let mut pieces = pieces;
        let bytes: u64 = pieces.iter().map(|(_, length)| length).sum();
        if !bytes.is_multiple_of(SECTOR) {
            pieces.push((7, SECTOR - bytes % SECTOR));
        }
        let each = |pieces: &[(u64, u64)]| -> Vec<u64> { pieces.iter().flat_map(|(address, length)| *address..address + length).collect() };
        if let Some(steps) = cut(true, 5, pieces.clone()) {
            let (mut all, mut next) = (Vec::new(), 5);
            for step in steps {
                let Step::Move { sector, pieces, write: true } = step else { panic!() };
                prop_assert!(pieces.len() <= MAX_PIECES && sector == next);
                let bytes: u64 = pieces.iter().map(|(_, length)| u64::from(*length)).sum();
                prop_assert!(bytes > 0 && bytes.is_multiple_of(SECTOR));
                next += bytes / SECTOR;
                all.extend(pieces.iter().map(|(address, length)| (*address, u64::from(*length))));
            }
            prop_assert!(each(&all) == each(&pieces));
        }
    }

    #[test]
    fn survives_anything(
        lists in prop::collection::vec(any::<u8>(), 0x400),
        commands in prop::collection::vec((0u32..32, prop::sample::select(&[0x25u8, 0x35, 0x60, 0x61, 0x06, 0xea, 0xec, 0xef, 0x2f, 0xb0]), any::<u16>(), 0..SECTORS + 5, 0u16..300, prop::collection::vec((any::<u64>(), 1u32..5000), 0..4)), 1..20),
        operations in prop::collection::vec((0u8..6, 0u32..0x200, any::<u32>(), prop::sample::select(&[1u8, 2, 4, 8])), 1..100),
    ) {
        let mut board = Board::new(false);
        board.memory.write_slice(LIST.into(), &lists).unwrap();
        let mut commands = commands.into_iter();
        for (kind, offset, value, width) in operations {
            match kind {
                0 => { let _ = board.ahci.range_read(u64::from(ADDRESS + offset), width); }
                1 => {
                    board.ahci.range_write(u64::from(ADDRESS + offset), width, value.into());
                    board.ahci.run(&board.memory, &mut board.devices, &board.to);
                }
                2 => board.serve(),
                // The guest writes to the queue itself, and its server gives up.
                3 if value % 16 == 0 => {
                    board.memory.write_slice(QUEUE + u64::from(value >> 4) % driver::LENGTH / 8 * 8, &value.to_le_bytes()).unwrap();
                    board.devices[0].broken(&board.to);
                    board.ahci.run(&board.memory, &mut board.devices, &board.to);
                    board.server = None;
                }
                _ => if let Some((slot, code, features, sector, count, pieces)) = commands.next() {
                    let pieces: Vec<_> = pieces.iter().map(|(address, length)| (BUFFER + address % 0x10_0000, *length)).collect();
                    board.prepare(slot, fis(code, features, sector, count), &pieces);
                    if features & 1 != 0 {
                        board.write(PORT + 0x34, 1 << slot);
                    }
                    board.write(PORT + 0x38, 1 << slot);
                }
            }
        }
        // After a reset it works.
        if !board.devices[0].registers().is_broken() {
            board.write(4, 1);
            board.serve();
            board.start();
            board.issue(0, fis(0x25, 0, 7, 1), &[(BUFFER, 512)]);
            board.serve();
            prop_assert_eq!(board.task(), 0x50);
        }
    }
}
