//! The device against a driver, over a disk in memory that completes when it is told to.

use super::device::MAX_QUEUES;
use super::*;
use crate::controller::{Operation, Request};
use crate::disk::Sink;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::ptr::NonNull;
use std::rc::Rc;
use tessera_block::{Geometry, IoError, block_on};
use tessera_virtqueue::{Features, GuestMemory, Layout, Record};

/// Two frames of 1 MiB that are not neighbours in physical memory.
const FRAME: u64 = 1 << 20;
const PHYSICAL: [u64; 2] = [0x8000_0000, 0x4000_0000];
const SECTORS: u64 = 256;
const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const ZERO: u32 = 13;

fn ram() -> Rc<Ram> {
    let bytes = Box::leak(vec![0u64; 2 * FRAME as usize / 8].into_boxed_slice());
    let frames = PHYSICAL.map(|physical| RamFrame { length: FRAME, physical });
    // SAFETY: leaked, aligned to 8, reached through this alone.
    #[allow(unsafe_code)]
    Rc::new(unsafe { Ram::new(NonNull::from(&mut bytes[0]).cast(), &frames) })
}

fn guest_address(physical: u64) -> u64 {
    let frame = PHYSICAL
        .iter()
        .position(|base| (*base..base + FRAME).contains(&physical))
        .expect("inside RAM");
    frame as u64 * FRAME + physical - PHYSICAL[frame]
}

pub(super) type Job = (Rc<dyn Sink>, u64, Result<(), IoError>);

/// A disk in memory. What it was given is done at once and told later.
pub(super) struct Memory {
    ram: Rc<Ram>,
    bytes: RefCell<Vec<u8>>,
    sector_size: u32,
    pub(super) jobs: RefCell<VecDeque<Job>>,
    failure: Cell<Option<IoError>>,
    flushes: Cell<u32>,
}

impl Memory {
    fn new(ram: &Rc<Ram>, sector_size: u32) -> Rc<Self> {
        Rc::new(Self {
            ram: ram.clone(),
            bytes: RefCell::new(vec![0; SECTORS as usize * 512]),
            sector_size,
            jobs: RefCell::default(),
            failure: Cell::new(None),
            flushes: Cell::new(0),
        })
    }

    pub(super) fn complete(&self, which: usize) {
        let job = self.jobs.borrow_mut().remove(which);
        if let Some((sink, cookie, result)) = job {
            sink.completed(cookie, result);
        }
    }

    fn complete_all(&self) {
        while !self.jobs.borrow().is_empty() {
            self.complete(0);
        }
    }
}

impl Backing for Memory {
    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            sector_size: self.sector_size,
            sectors: SECTORS * 512 / u64::from(self.sector_size),
            max_transfer: 1 << 20,
            discard: true,
            write_cache: true,
            read_only: false,
        }
    }

    fn submit(&self, request: &Request<'_>, sink: &Rc<dyn Sink>, cookie: u64) {
        let size = u64::from(self.sector_size);
        let result = match self.failure.get() {
            Some(error) => Err(error),
            None => self.geometry().check(request.sector, request.sectors),
        };
        if result.is_ok() {
            let mut at = (request.sector * size) as usize;
            let mut bytes = self.bytes.borrow_mut();
            let length = (request.sectors * size) as usize;
            match request.operation {
                Operation::Flush => self.flushes.set(self.flushes.get() + 1),
                Operation::Discard | Operation::WriteZeroes => bytes[at..at + length].fill(0),
                Operation::Read | Operation::Write => {
                    assert_eq!(request.bytes(), length as u64);
                    for segment in request.segments {
                        let address = guest_address(segment.physical);
                        let part = &mut bytes[at..at + segment.length as usize];
                        let done = if request.operation == Operation::Read {
                            self.ram.copy_in(address, part)
                        } else {
                            self.ram.copy_out(address, part)
                        };
                        done.expect("inside RAM");
                        at += segment.length as usize;
                    }
                }
            }
        }
        self.jobs.borrow_mut().push_back((sink.clone(), cookie, result));
    }
}

#[derive(Clone, Default)]
pub(super) struct Bell(pub(super) Rc<Cell<u32>>);

impl Signal for Bell {
    fn signal(&self) {
        self.0.set(self.0.get() + 1);
    }
}

fn layout(queue: usize) -> Layout {
    let base = 0x1_0000 * (queue as u64 + 1);
    Layout {
        size: 64,
        descriptors: base,
        available: base + 0x1000,
        used: base + 0x2000,
    }
}

/// A driver of one queue.
pub(super) struct Driver {
    ram: Rc<Ram>,
    pub(super) layout: Layout,
    pub(super) available: u16,
    pub(super) seen: u16,
    next: u16,
}

impl Driver {
    pub(super) fn new(ram: &Rc<Ram>, queue: usize) -> Self {
        Self {
            ram: ram.clone(),
            layout: layout(queue),
            available: 0,
            seen: 0,
            next: 0,
        }
    }

    /// Puts a request together: header, buffers of data (address, length, writable), status byte at `status`.
    pub(super) fn offer(&mut self, kind: u32, sector: u64, data: &[(u64, u32, bool)], status: u64) -> u16 {
        let header = status + 16;
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        self.ram.copy_in(header, &bytes).unwrap();
        self.ram.copy_in(status, &[0xff]).unwrap();
        let mut all = vec![(header, 16, false)];
        all.extend_from_slice(data);
        all.push((status, 1, true));
        self.chain(&all)
    }

    fn chain(&mut self, all: &[(u64, u32, bool)]) -> u16 {
        let head = self.next % 64;
        for (place, (address, length, writable)) in all.iter().enumerate() {
            let index = self.next % 64;
            self.next = self.next.wrapping_add(1);
            let more = place + 1 < all.len();
            let flags = u16::from(more) | if *writable { 2 } else { 0 };
            let at = self.layout.descriptors + 16 * u64::from(index);
            self.ram.copy_in(at, &address.to_le_bytes()).unwrap();
            self.ram.copy_in(at + 8, &length.to_le_bytes()).unwrap();
            self.ram.copy_in(at + 12, &flags.to_le_bytes()).unwrap();
            self.ram.copy_in(at + 14, &(self.next % 64).to_le_bytes()).unwrap();
        }
        let place = self.layout.available + 4 + 2 * u64::from(self.available % 64);
        self.ram.write_u16(place, head).unwrap();
        self.available = self.available.wrapping_add(1);
        self.ram.write_u16(self.layout.available + 2, self.available).unwrap();
        head
    }

    pub(super) fn reap(&mut self) -> Vec<(u16, u32)> {
        let index = self.ram.read_u16(self.layout.used + 2).unwrap();
        let mut all = vec![];
        while self.seen != index {
            let mut element = [0; 8];
            let at = self.layout.used + 4 + 8 * u64::from(self.seen % 64);
            self.ram.copy_out(at, &mut element).unwrap();
            let [a, b, _, _, length @ ..] = element;
            all.push((u16::from_le_bytes([a, b]), u32::from_le_bytes(length)));
            self.seen = self.seen.wrapping_add(1);
        }
        all
    }

    fn status(&self, at: u64) -> u8 {
        let mut byte = [0];
        self.ram.copy_out(at, &mut byte).unwrap();
        byte[0]
    }
}

pub(super) struct Bench {
    pub(super) ram: Rc<Ram>,
    pub(super) disk: Rc<Memory>,
    records: [&'static Record; MAX_QUEUES],
    pub(super) device: Rc<Device>,
    pub(super) bell: Bell,
}

pub(super) fn attachment() -> Attachment {
    Attachment {
        features: Features::default(),
        queues: [Some(layout(0)), Some(layout(1)), None, None],
    }
}

fn bench_of(sector_size: u32, read_only: bool) -> Bench {
    let ram = ram();
    let disk = Memory::new(&ram, sector_size);
    let records = [(); MAX_QUEUES].map(|()| &*Box::leak(Box::new(Record::new())));
    let device = Device::new(ram.clone(), disk.clone(), read_only, "SERIAL-7", records);
    let bell = Bell::default();
    device.set_signal(0, Box::new(bell.clone()));
    device.attach(&attachment(), false).unwrap();
    Bench {
        ram,
        disk,
        records,
        device,
        bell,
    }
}

pub(super) fn bench() -> Bench {
    bench_of(512, false)
}

impl Bench {
    /// One request; its status and what the device says it wrote.
    fn one(&self, driver: &mut Driver, kind: u32, sector: u64, data: &[(u64, u32, bool)]) -> (u8, u32) {
        let head = driver.offer(kind, sector, data, 0x8_0000);
        self.device.run();
        self.disk.complete_all();
        self.device.settle(0);
        let done = driver.reap();
        assert_eq!(done.len(), 1);
        assert_eq!(done[0].0, head);
        (driver.status(0x8_0000), done[0].1)
    }
}

#[test]
fn reads_and_writes_across_frames() {
    let it = bench();
    let mut driver = Driver::new(&it.ram, 0);
    let pattern: Vec<u8> = (0..2048u32).map(|place| (place * 7 % 251) as u8).collect();
    // The middle of the buffer is the border of the two frames.
    let buffer = FRAME - 1000;
    it.ram.copy_in(buffer, &pattern).unwrap();
    let data = [(buffer, 1024, false), (buffer + 1024, 1024, false)];
    assert_eq!(it.one(&mut driver, WRITE, 5, &data), (0, 1));
    assert_eq!(it.disk.bytes.borrow()[5 * 512..9 * 512], pattern);
    assert_eq!(it.one(&mut driver, READ, 5, &[(0x9_0000, 2048, true)]), (0, 2049));
    let mut back = vec![0; 2048];
    it.ram.copy_out(0x9_0000, &mut back).unwrap();
    assert_eq!(back, pattern);
    assert_eq!(it.bell.0.get(), 2);
    let statistics = it.device.statistics();
    assert_eq!((statistics.reads, statistics.writes, statistics.errors), ((1, 2048), (1, 2048), 0));
    assert_eq!(it.device.sectors(), SECTORS);
}

#[test]
fn everything_else_a_driver_asks() {
    let it = bench();
    let mut driver = Driver::new(&it.ram, 0);
    it.disk.bytes.borrow_mut().fill(9);
    assert_eq!(it.one(&mut driver, FLUSH, 0, &[]), (0, 1));
    assert_eq!(it.disk.flushes.get(), 1);
    assert_eq!(it.one(&mut driver, GET_ID, 0, &[(0x9_0000, 20, true)]), (0, 21));
    let mut id = [0xff; 20];
    it.ram.copy_out(0x9_0000, &mut id).unwrap();
    assert_eq!(&id, b"SERIAL-7\0\0\0\0\0\0\0\0\0\0\0\0");
    let range = |sector: u64, sectors: u32, flags: u32| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&sector.to_le_bytes());
        bytes[8..12].copy_from_slice(&sectors.to_le_bytes());
        bytes[12..].copy_from_slice(&flags.to_le_bytes());
        it.ram.copy_in(0xa_0000, &bytes).unwrap();
        [(0xa_0000, 16, false)]
    };
    assert_eq!(it.one(&mut driver, DISCARD, 0, &range(4, 2, 0)).0, 0);
    assert_eq!(it.one(&mut driver, ZERO, 0, &range(8, 1, 1)).0, 0);
    let zeros: Vec<usize> = it
        .disk
        .bytes
        .borrow()
        .chunks(512)
        .enumerate()
        .filter(|(_, sector)| sector[0] == 0)
        .map(|(place, _)| place)
        .collect();
    assert_eq!(zeros, [4, 5, 8]);
    assert_eq!(it.one(&mut driver, DISCARD, 0, &range(4, 2, 1)).0, 2, "a flag for zeroing");
    assert_eq!(it.one(&mut driver, ZERO, 0, &range(4, 2, 2)).0, 2);
    assert_eq!(it.one(&mut driver, ZERO, 0, &range(SECTORS - 1, 2, 0)).0, 1);
    assert_eq!(it.one(&mut driver, ZERO, 0, &range(u64::MAX, u32::MAX, 0)).0, 1);
    assert_eq!(it.one(&mut driver, DISCARD, 0, &[(0xa_0000, 32, false)]).0, 1, "two ranges");
    assert_eq!(it.one(&mut driver, 77, 0, &[]).0, 2);
}

#[test]
fn requests_without_sense_fail_and_nothing_else_does() {
    let it = bench();
    let mut driver = Driver::new(&it.ram, 0);
    let buffer = 0x9_0000;
    for (kind, sector, data) in [
        (READ, 0, vec![]),
        (READ, 0, vec![(buffer, 100, true)]),
        (READ, 0, vec![(buffer, 512, false)]),
        (READ, 0, vec![(buffer, 512, false), (buffer, 512, true)]),
        (READ, SECTORS, vec![(buffer, 512, true)]),
        (READ, u64::MAX, vec![(buffer, 512, true)]),
        (WRITE, 0, vec![(buffer, 512, true)]),
        (GET_ID, 0, vec![]),
        (ZERO, 0, vec![(buffer, 8, false)]),
    ] {
        assert_eq!(it.one(&mut driver, kind, sector, &data), (1, 1), "{kind} {sector} {data:?}");
    }
    it.disk.failure.set(Some(IoError::Media { sector: 3 }));
    assert_eq!(it.one(&mut driver, READ, 0, &[(buffer, 512, true)]), (1, 1));
    it.disk.failure.set(Some(IoError::Unsupported));
    assert_eq!(it.one(&mut driver, READ, 0, &[(buffer, 512, true)]), (2, 1));
    it.disk.failure.set(None);
    assert_eq!(it.one(&mut driver, READ, 0, &[(buffer, 512, true)]), (0, 513));
    // A header in two buffers is as good, and so is a status behind data.
    it.ram.copy_in(0xa_0000, &[0; 16]).unwrap();
    driver.chain(&[(0xa_0000, 3, false), (0xa_0003, 13, false), (buffer, 513, true)]);
    it.device.run();
    it.disk.complete_all();
    assert_eq!(driver.reap()[0].1, 513);
    assert_eq!(driver.status(buffer + 512), 0);
    assert_eq!(it.device.take_broken(), None);
}

#[test]
fn a_disk_that_is_only_read_is_not_written() {
    let it = bench_of(512, true);
    let mut driver = Driver::new(&it.ram, 0);
    assert_eq!(it.one(&mut driver, WRITE, 0, &[(0x9_0000, 512, false)]).0, 1);
    it.ram.copy_in(0xa_0000, &[0; 16]).unwrap();
    assert_eq!(it.one(&mut driver, ZERO, 0, &[(0xa_0000, 16, false)]).0, 1);
    assert_eq!(it.one(&mut driver, READ, 0, &[(0x9_0000, 512, true)]).0, 0);
    assert_eq!(it.one(&mut driver, FLUSH, 0, &[]).0, 0);
}

#[test]
fn larger_sectors_below() {
    let it = bench_of(4096, false);
    let mut driver = Driver::new(&it.ram, 0);
    assert_eq!(it.device.sectors(), SECTORS);
    it.ram.copy_in(0x9_0000, &[5; 4096]).unwrap();
    assert_eq!(it.one(&mut driver, WRITE, 8, &[(0x9_0000, 4096, false)]).0, 0);
    assert_eq!(it.disk.bytes.borrow()[4096..8192], [5; 4096]);
    assert_eq!(it.one(&mut driver, WRITE, 8, &[(0x9_0000, 512, false)]).0, 1);
    assert_eq!(it.one(&mut driver, WRITE, 4, &[(0x9_0000, 4096, false)]).0, 1);
}

#[test]
fn a_part_stays_within_its_bounds() {
    let ram = ram();
    let disk = Memory::new(&ram, 512);
    let part: Rc<dyn Backing> = Rc::new(Part::new(disk.clone(), 100, 50));
    assert_eq!(part.geometry().sectors, 50);
    assert_eq!(Part::new(disk.clone(), 250, 50).geometry().sectors, 6);
    assert_eq!(Part::new(disk.clone(), 300, 50).geometry().sectors, 0);
    let records = [(); MAX_QUEUES].map(|()| &*Box::leak(Box::new(Record::new())));
    let device = Device::new(ram.clone(), part, false, "", records);
    device.attach(&attachment(), false).unwrap();
    let mut driver = Driver::new(&ram, 0);
    ram.copy_in(0x9_0000, &[3; 1024]).unwrap();
    driver.offer(WRITE, 49, &[(0x9_0000, 512, false)], 0x8_0000);
    driver.offer(WRITE, 49, &[(0x9_0000, 1024, false)], 0x8_1000);
    driver.offer(WRITE, u64::MAX, &[(0x9_0000, 512, false)], 0x8_2000);
    driver.offer(FLUSH, 0, &[], 0x8_3000);
    device.run();
    disk.complete_all();
    let statuses = [0x8_0000, 0x8_1000, 0x8_2000, 0x8_3000].map(|at| driver.status(at));
    assert_eq!(statuses, [0, 1, 1, 0]);
    let written: Vec<usize> = disk
        .bytes
        .borrow()
        .chunks(512)
        .enumerate()
        .filter(|(_, it)| it[0] != 0)
        .map(|(at, _)| at)
        .collect();
    assert_eq!(written, [149]);
}

#[test]
fn a_broken_rule_stops_the_device_until_it_is_attached_anew() {
    let it = bench();
    let mut driver = Driver::new(&it.ram, 0);
    driver.offer(READ, 0, &[(0x9_0000, 512, true)], 0x8_0000);
    it.device.run();
    driver.chain(&[(u64::MAX, 512, false)]);
    it.device.run();
    assert!(it.device.take_broken().unwrap().contains("queue 0: a buffer of 512 bytes"));
    assert_eq!(it.device.take_broken(), None, "told once");
    driver.offer(READ, 0, &[(0x9_0000, 512, true)], 0x8_1000);
    it.device.run();
    it.disk.complete_all();
    assert_eq!(driver.reap().len(), 1, "what was in flight comes back, nothing new is begun");
    block_on(it.device.stop());
    assert!(!it.device.is_attached());
    it.ram.write_u16(layout(0).available + 2, 0).unwrap();
    it.device.attach(&attachment(), false).unwrap();
    let mut driver = Driver::new(&it.ram, 0);
    assert_eq!(it.one(&mut driver, READ, 0, &[(0x9_0000, 512, true)]).0, 0);
    // No place for the status.
    driver.chain(&[(0x9_0000, 512, false)]);
    it.device.run();
    assert!(it.device.take_broken().unwrap().contains("status"));
}

#[test]
fn more_buffers_than_announced_are_refused() {
    let it = bench();
    let mut driver = Driver::new(&it.ram, 0);
    // By an indirect table of 200 buffers of a sector.
    it.device
        .attach(
            &Attachment {
                features: Features {
                    indirect: true,
                    event_index: false,
                },
                ..attachment()
            },
            false,
        )
        .unwrap();
    let table = 0xb_0000;
    for index in 0..202u64 {
        let (address, length, flags): (u64, u32, u16) = match index {
            0 => (0xa_0000, 16, 1),
            201 => (0x8_0000, 1, 2),
            _ => (0x9_0000, 512, 3),
        };
        it.ram.copy_in(table + 16 * index, &address.to_le_bytes()).unwrap();
        it.ram.copy_in(table + 16 * index + 8, &length.to_le_bytes()).unwrap();
        it.ram.copy_in(table + 16 * index + 12, &flags.to_le_bytes()).unwrap();
        it.ram.copy_in(table + 16 * index + 14, &(index as u16 + 1).to_le_bytes()).unwrap();
    }
    driver.chain(&[(table, 202 * 16, false)]);
    it.ram.copy_in(layout(0).descriptors + 12, &4u16.to_le_bytes()).unwrap();
    it.device.run();
    assert_eq!((driver.reap().len(), driver.status(0x8_0000)), (1, 1));
    assert_eq!(it.device.take_broken(), None);
}

#[test]
fn stopping_waits_for_what_is_in_flight() {
    let it = bench();
    let mut driver = Driver::new(&it.ram, 0);
    driver.offer(READ, 0, &[(0x9_0000, 512, true)], 0x8_0000);
    it.device.run();
    let mut stop = Box::pin(it.device.stop());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(stop.as_mut().poll(&mut context).is_pending());
    driver.offer(READ, 0, &[(0x9_0000, 512, true)], 0x8_1000);
    it.device.run();
    assert_eq!(it.disk.jobs.borrow().len(), 1, "nothing new");
    it.disk.complete_all();
    assert!(stop.as_mut().poll(&mut context).is_ready());
}

#[test]
fn a_storm_of_requests_leaves_turns_to_others() {
    let it = bench();
    let mut driver = Driver::new(&it.ram, 0);
    // 64 heads, each done as it is offered: the queue never runs dry by itself.
    for _ in 0..64 {
        driver.chain(&[(0x9_0000, 16, false), (0x9_0100, 1, true)]);
        driver.next = driver.next.wrapping_sub(1);
    }
    it.device.run();
    assert!(it.device.has_more() || it.device.take_broken().is_some());
}

proptest! {
    /// Requests complete in any order, the server is killed at any moment, and its successor goes on: every request is answered once, and what was written and told to be written is there.
    #[test]
    fn nothing_is_lost_over_the_servers_death(steps in prop::collection::vec((0u8..10, any::<u16>()), 1..200)) {
        let ram = ram();
        let disk = Memory::new(&ram, 512);
        let records = [(); MAX_QUEUES].map(|()| &*Box::leak(Box::new(Record::new())));
        let make = || Device::new(ram.clone(), disk.clone(), false, "", records);
        let mut device = make();
        device.attach(&attachment(), false).unwrap();
        let mut driver = Driver::new(&ram, 0);
        // Head to the sector and the byte that is written there.
        let mut open: HashMap<u16, (u64, u8)> = HashMap::new();
        let mut expected: HashMap<u64, u8> = HashMap::new();
        for (kind, value) in steps {
            match kind {
                0..=3 if open.len() < 16 => {
                    let sector = u64::from(value) % SECTORS;
                    // One writer for each sector at a time, as a file system would.
                    let free = !open.values().any(|(busy, _)| *busy == sector);
                    if free {
                        // Three descriptors for each of 16 requests, so that those in use stay.
                        let slot = (0..16).find(|slot| !open.contains_key(&(slot * 3))).unwrap();
                        driver.next = slot * 3;
                        let slot = u64::from(slot);
                        let buffer = 0x9_0000 + slot * 0x400;
                        ram.copy_in(buffer, &[value as u8; 512]).unwrap();
                        let head = driver.offer(WRITE, sector, &[(buffer, 512, false)], 0x6_0000 + slot * 0x40);
                        open.insert(head, (sector, value as u8));
                        device.run();
                    }
                }
                4..=7 => {
                    let jobs = disk.jobs.borrow().len();
                    if jobs > 0 {
                        disk.complete(value as usize % jobs);
                    }
                }
                8 => {
                    // The server dies: what it was working on is not told any more.
                    disk.jobs.borrow_mut().clear();
                    device = make();
                    device.attach(&attachment(), true).unwrap();
                }
                _ => {
                    for (head, _) in driver.reap() {
                        let (sector, byte) = open.remove(&head).expect("answered twice, or never asked");
                        expected.insert(sector, byte);
                    }
                }
            }
            prop_assert_eq!(device.take_broken(), None);
        }
        disk.jobs.borrow_mut().clear();
        device = make();
        device.attach(&attachment(), true).unwrap();
        disk.complete_all();
        for (head, _) in driver.reap() {
            let (sector, byte) = open.remove(&head).expect("answered twice, or never asked");
            expected.insert(sector, byte);
        }
        prop_assert!(open.is_empty(), "lost: {:?}", open);
        for (sector, byte) in expected {
            prop_assert_eq!(disk.bytes.borrow()[sector as usize * 512], byte);
        }
        prop_assert_eq!(device.statistics().errors, 0);
    }

    /// A guest that writes anything anywhere: no panic, and the disk is only asked for what is inside RAM.
    #[test]
    fn survives_any_guest(seed: u64, steps in prop::collection::vec((0u64..0x4_0000, any::<u64>()), 1..400)) {
        let it = bench();
        let mut driver = Driver::new(&it.ram, 0);
        for (number, (place, value)) in steps.into_iter().enumerate() {
            match (seed >> (number % 32)) % 4 {
                0 => { it.ram.copy_in(place & !7, &value.to_le_bytes()).unwrap(); }
                1 => { driver.offer(value as u32 % 14, value >> 40, &[(place, value as u32 % 4096, value & 1 == 0)], 0x8_0000); }
                2 => { let _ = it.ram.write_u16(layout(0).available + 2, driver.available.wrapping_add(value as u16 % 3)); }
                _ => it.disk.complete(0),
            }
            it.device.run();
            it.device.settle(0);
            if it.device.take_broken().is_some() {
                it.disk.complete_all();
                block_on(it.device.stop());
                it.ram.write_u16(layout(0).available + 2, 0).unwrap();
                it.ram.write_u16(layout(1).available + 2, 0).unwrap();
                it.device.attach(&attachment(), false).unwrap();
                driver = Driver::new(&it.ram, 0);
            }
        }
        it.disk.complete_all();
        block_on(it.device.stop());
        prop_assert!(it.records.iter().all(|record| record.in_flight() == 0));
    }
}
