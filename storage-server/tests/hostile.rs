//! Guests whose drivers break the rules of their disks: a million queues of chance, with headers and ranges of chance in them, and a driver that changes all of it while it is read.
//!
//! Whatever a driver does, the disk is asked only for what is that guest's memory and makes sense, the device writes nowhere else, gives back what it took, and stops with a reason; the
//! neighbour on the same disk goes on.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    pin::pin,
    ptr::NonNull,
    rc::Rc,
    sync::atomic::{AtomicBool, AtomicU16, Ordering},
    task::{Context, Poll, Waker},
};
use tessera_block::{Geometry, IoError};
use tessera_device::{DmaBuffer, testing::Random};
use tessera_storage::{
    controller::{Operation, Request, Segment},
    disk::Sink,
    guest::{Attachment, Backing, Device, MAX_SEGMENTS, Part, Ram, RamFrame},
};
use tessera_virtqueue::{Features, Layout, Record};

/// Bytes of each guest's memory, and of the guards before and behind it.
const LENGTH: u64 = 64 << 10;
const GUARD: usize = 4096;
const GUARDED: u8 = 0xa5;
/// Where devices find the two halves of the hostile guest's, and the neighbour's memory.
const PHYSICAL: [u64; 3] = [0x1000_0000, 0x2000_0000, 0x3000_0000];
/// Headers and ranges, and data. Before them are the queues, 2 KiB for each.
const HEADERS: u64 = 0x4000;
const DATA: u64 = 0x8000;
/// Sectors of the disk, and of its first part, which is the hostile guest's.
const SECTORS: u64 = 128;
const PART: u64 = 64;
const SECTOR: u64 = 512;
/// Flags of descriptors.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

struct Memory {
    all: DmaBuffer,
    memory: DmaBuffer,
    ram: Rc<Ram>,
}

impl Memory {
    fn new(physical: &[u64]) -> Self {
        let all = DmaBuffer::of_this_process(LENGTH as usize + 2 * GUARD);
        all.copy_in(0, &vec![GUARDED; all.length()]);
        let place = all.physical() + GUARD as u64;
        let memory = all.part(GUARD, LENGTH as usize).said_to_be_at(place);
        memory.clear(0, LENGTH as usize);
        let length = LENGTH / physical.len() as u64;
        let frames: Vec<RamFrame> = physical.iter().map(|&physical| RamFrame { length, physical }).collect();
        let base = NonNull::new(memory.physical() as *mut u8).unwrap();
        // SAFETY: this process's memory, which is never freed and holds no Rust object; the frames are as long together, and it is aligned to pages.
        let ram = Rc::new(unsafe { Ram::new(base, &frames) });
        Self { all, memory, ram }
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.copy_in(address as usize, bytes);
    }

    fn guards_are_whole(&self) -> bool {
        [0, GUARD + LENGTH as usize].into_iter().all(|place| {
            let mut bytes = [0; GUARD];
            self.all.copy_out(place, &mut bytes);
            bytes.iter().all(|byte| *byte == GUARDED)
        })
    }
}

type Job = (Rc<dyn Sink>, u64, Result<(), IoError>);

/// The disk that both use. What it is asked for is done at once and told later, in any order.
struct Disk {
    bytes: RefCell<Vec<u8>>,
    jobs: RefCell<Vec<Job>>,
    /// Where the two halves of the hostile guest's memory are, and the neighbour's.
    memories: RefCell<Vec<Rc<Memory>>>,
    asked: Cell<u64>,
}

impl Disk {
    /// The piece of memory that is the segment; it must be one guest's.
    fn memory(&self, segment: Segment) -> (Rc<Memory>, usize) {
        let memories = self.memories.borrow();
        let places = [(0, 0, LENGTH / 2), (0, LENGTH / 2, LENGTH / 2), (1, 0, LENGTH)];
        let found = PHYSICAL.iter().zip(places).find_map(|(base, (whose, start, length))| {
            let offset = segment.physical.checked_sub(*base)?;
            (segment.length > 0 && offset + u64::from(segment.length) <= length).then_some((whose, start + offset))
        });
        let (whose, address) = found.unwrap_or_else(|| panic!("{segment:?} is nobody's memory"));
        (memories[whose].clone(), address as usize)
    }

    fn complete(&self, which: usize) {
        let (sink, cookie, result) = self.jobs.borrow_mut().swap_remove(which);
        sink.completed(cookie, result);
    }
}

impl Backing for Disk {
    fn geometry(&self) -> Geometry {
        Geometry {
            sector_size: SECTOR as u32,
            sectors: SECTORS,
            max_transfer: 1 << 20,
            discard: true,
            write_cache: true,
            read_only: false,
        }
    }

    fn sector_size(&self) -> u32 {
        SECTOR as u32
    }

    fn submit(&self, request: &Request<'_>, sink: &Rc<dyn Sink>, cookie: u64) {
        self.asked.set(self.asked.get() + 1);
        assert!(request.segments.len() <= MAX_SEGMENTS + 8);
        let checked = self.geometry().check(request.sector, request.sectors);
        if checked.is_ok() {
            let mut bytes = self.bytes.borrow_mut();
            let place = (request.sector * SECTOR) as usize..((request.sector + request.sectors) * SECTOR) as usize;
            match request.operation {
                Operation::Flush => {}
                Operation::Discard | Operation::WriteZeroes => bytes[place].fill(0),
                Operation::Read | Operation::Write => {
                    assert_eq!(request.bytes(), request.sectors * SECTOR);
                    let mut left = &mut bytes[place];
                    for segment in request.segments {
                        let (memory, address) = self.memory(*segment);
                        let (part, rest) = left.split_at_mut(segment.length as usize);
                        if request.operation == Operation::Read {
                            memory.memory.copy_in(address, part);
                        } else {
                            memory.memory.copy_out(address, part);
                        }
                        left = rest;
                    }
                }
            }
        }
        self.jobs.borrow_mut().push((sink.clone(), cookie, checked));
    }
}

fn descriptor(address: u64, length: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&length.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}

/// A value that is likely to be near some edge.
fn edge(random: &Random) -> u64 {
    match random.below(8) {
        0 => random.next(),
        1 => u64::MAX - random.below(64),
        2 => LENGTH - random.below(64),
        3 => LENGTH + random.below(64),
        4 => random.below(256),
        _ => random.below(LENGTH),
    }
}

/// Part of a request that may be good, or nonsense; `place` in a chain decides what is likely.
fn hostile_descriptor(random: &Random, size: u16, index: u64) -> [u8; 16] {
    let next = if random.below(16) == 0 {
        random.below(size.into())
    } else {
        (index + 1) % u64::from(size)
    } as u16;
    if random.below(24) == 0 {
        let length = match random.below(6) {
            0 => random.next() as u32,
            1 => 16 * random.below(200) as u32,
            2 => u32::MAX - random.below(4) as u32,
            _ => random.below(2048) as u32,
        };
        let flags = match random.below(6) {
            0 => random.next() as u16,
            1 | 2 => INDIRECT,
            3 => WRITE,
            _ => NEXT | if random.below(3) == 0 { WRITE } else { 0 },
        };
        let next = if random.below(8) == 0 { random.next() as u16 } else { next };
        let mask = if random.below(2) == 0 { !15 } else { u64::MAX };
        return descriptor(edge(random) & mask, length, flags, next);
    }
    let (header, range) = (HEADERS + 16 * random.below(48), HEADERS + 16 * (48 + random.below(16)));
    // Sectors of data, mostly behind headers and queues; what is read elsewhere changes those.
    let data = if random.below(32) == 0 { 0 } else { DATA } + SECTOR * random.below((LENGTH - DATA) / SECTOR - 8);
    let length = SECTOR as u32 * (1 + random.below(8) as u32);
    match index % 3 {
        0 => descriptor(header, 16, NEXT, next),
        1 => match random.below(8) {
            0 => descriptor(range, 16, NEXT, next),
            1 => descriptor(data, 1, WRITE, 0),
            2 | 3 => descriptor(data, length, NEXT, next),
            _ => descriptor(data, length, NEXT | WRITE, next),
        },
        _ => descriptor(HEADERS + 0x2000 + random.below(64), 1, WRITE, 0),
    }
}

/// A driver's set-up, and what it put into its queues.
fn hostile_attachment(memory: &Memory, random: &Random) -> Attachment {
    for place in 0..64 {
        if random.below(8) != 0 {
            continue;
        }
        let kind = [0, 0, 0, 1, 1, 4, 8, 11, 13, random.next()][random.below(10) as usize] as u32;
        let sector = if random.below(8) == 0 { random.next() } else { random.below(PART) };
        let mut header = [0; 16];
        if place < 48 {
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[8..].copy_from_slice(&sector.to_le_bytes());
        } else {
            // A range: sector, sectors, flags.
            header[..8].copy_from_slice(&sector.to_le_bytes());
            header[8..12].copy_from_slice(&(edge(random) as u32).to_le_bytes());
            header[12] = random.below(3) as u8;
        }
        memory.put(HEADERS + 16 * place, &header);
    }
    let mut attachment = Attachment {
        features: Features {
            indirect: random.below(4) != 0,
            event_index: random.below(2) == 0,
        },
        ..Attachment::default()
    };
    for (number, place) in (0..).zip(&mut attachment.queues) {
        if random.below(4) != 0 {
            *place = Some(hostile_queue(memory, number, random));
        }
    }
    attachment
}

fn hostile_queue(memory: &Memory, number: u64, random: &Random) -> Layout {
    let size = 1 << random.below(6);
    let base = 0x800 * number;
    let mut layout = Layout {
        size,
        descriptors: base,
        available: base + 0x400,
        used: base + 0x600,
    };
    if random.below(64) == 0 {
        match random.below(4) {
            0 => layout.size = random.next() as u16,
            1 => layout.descriptors = edge(random),
            2 => layout.available = edge(random),
            _ => layout.used = edge(random),
        }
    }
    for index in 0..u64::from(size) {
        memory.put(base + 16 * index, &hostile_descriptor(random, size, index));
        let head = match random.below(64) {
            0 => random.next(),
            1..4 => random.below(size.into()),
            _ => index % u64::from(size / 3).max(1) * 3,
        } as u16;
        memory.put(base + 0x400 + 4 + 2 * index, &head.to_le_bytes());
    }
    let ahead = if random.below(64) == 0 {
        random.next()
    } else {
        random.below(u64::from(size).div_ceil(3) + 1)
    };
    memory.put(base + 0x402, &(ahead as u16).to_le_bytes());
    layout
}

fn records() -> [&'static Record; 4] {
    std::array::from_fn(|_| &*Box::leak(Box::new(Record::new())))
}

/// Both guests, and their disk.
struct Bench {
    memory: Rc<Memory>,
    device: Rc<Device>,
    disk: Rc<Disk>,
    neighbour: Rc<Memory>,
    good: Rc<Device>,
    turns: Cell<u16>,
}

impl Bench {
    fn new() -> Self {
        let (memory, neighbour) = (Rc::new(Memory::new(&PHYSICAL[..2])), Rc::new(Memory::new(&PHYSICAL[2..])));
        let disk = Rc::new(Disk {
            bytes: RefCell::new(vec![0; (SECTORS * SECTOR) as usize]),
            jobs: RefCell::default(),
            memories: RefCell::new(vec![memory.clone(), neighbour.clone()]),
            asked: Cell::new(0),
        });
        let part = |first| -> Rc<dyn Backing> { Rc::new(Part::new(disk.clone(), first, PART)) };
        let device = Device::new(memory.ram.clone(), part(0), false, "HOSTILE", records());
        let good = Device::new(neighbour.ram.clone(), part(PART), false, "GOOD", records());
        let mut attachment = Attachment::default();
        attachment.queues[0] = Some(Layout {
            size: 8,
            descriptors: 0,
            available: 0x400,
            used: 0x600,
        });
        good.attach(&attachment, false).unwrap();
        Self {
            memory,
            device,
            disk,
            neighbour,
            good,
            turns: Cell::new(0),
        }
    }

    /// The neighbour writes a sector and finds it on its part of the disk.
    fn neighbour_goes_on(&self) {
        let turn = self.turns.replace(self.turns.get().wrapping_add(1));
        let sector = u64::from(turn) % PART;
        let data: Vec<u8> = (0..SECTOR).map(|byte| (byte as u16 ^ turn) as u8).collect();
        let mut header = [0; 16];
        header[0] = 1;
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.neighbour.put(HEADERS, &header);
        self.neighbour.put(DATA, &data);
        let chain = [(HEADERS, 16, NEXT), (DATA, SECTOR as u32, NEXT), (HEADERS + 16, 1, WRITE)];
        for (index, (address, length, flags)) in (0u16..).zip(chain) {
            self.neighbour
                .put(16 * u64::from(index), &descriptor(address, length, flags, index + 1));
        }
        self.neighbour.put(HEADERS + 16, &[0xff]);
        self.neighbour.put(0x400 + 4 + 2 * u64::from(turn % 8), &[0, 0]);
        self.neighbour.put(0x402, &turn.wrapping_add(1).to_le_bytes());
        let before = self.disk.jobs.borrow().len();
        self.good.run();
        assert_eq!(self.disk.jobs.borrow().len(), before + 1);
        self.disk.complete(before);
        self.good.settle(0);
        assert_eq!(self.good.take_broken(), None);
        let mut status = [0xff];
        self.neighbour.memory.copy_out(HEADERS as usize + 16, &mut status);
        let at = ((PART + sector) * SECTOR) as usize;
        assert_eq!(status, [0]);
        assert!(
            self.disk.bytes.borrow()[at..at + SECTOR as usize] == data[..],
            "the neighbour's sector"
        );
    }
}

/// What was seen in a run; a run that saw little says little.
#[derive(Default)]
struct Seen {
    queues: u64,
    broken: BTreeMap<String, u64>,
}

/// Serves a driver that did its worst, until it is reset.
fn serve(bench: &Bench, random: &Random, seen: &mut Seen) {
    let device = &bench.device;
    for _ in 0..1 + random.below(4) {
        device.run();
        while random.below(4) != 0 && !bench.disk.jobs.borrow().is_empty() {
            let count = bench.disk.jobs.borrow().len() as u64;
            bench.disk.complete(random.below(count) as usize);
        }
        device.settle(0);
        if let Some(reason) = device.take_broken() {
            let rule = reason.split_once(": ").map_or(&*reason, |(_, rule)| rule);
            // Without its numbers.
            let rule: String = rule.chars().filter(|letter| !letter.is_ascii_hexdigit()).collect();
            *seen.broken.entry(rule).or_default() += 1;
            let asked = bench.disk.asked.get();
            device.run();
            assert_eq!(bench.disk.asked.get(), asked, "a broken device goes on: {reason}");
            break;
        }
    }
    if random.below(4) == 0 {
        bench.neighbour_goes_on();
    }
    // The reset waits for what is in flight, and for nothing else.
    let mut context = Context::from_waker(Waker::noop());
    let mut stop = pin!(device.stop());
    let outcome = stop.as_mut().poll(&mut context);
    assert_eq!(outcome.is_pending(), !bench.disk.jobs.borrow().is_empty());
    while !bench.disk.jobs.borrow().is_empty() {
        bench.disk.complete(0);
    }
    if outcome.is_pending() {
        assert_eq!(stop.as_mut().poll(&mut context), Poll::Ready(()));
    }
    assert!(!device.is_attached());
}

/// Attaches drivers until they had so many queues.
fn run(bench: &Bench, queues: u64, seed: u64) -> Seen {
    let random = Random::new(seed);
    let mut seen = Seen::default();
    while seen.queues < queues {
        let attachment = hostile_attachment(&bench.memory, &random);
        seen.queues += attachment.queues.iter().flatten().count() as u64;
        match bench.device.attach(&attachment, random.below(8) == 0) {
            Ok(()) => serve(bench, &random, &mut seen),
            Err(violation) => {
                let rule = format!("attach {:?}", std::mem::discriminant(&violation));
                *seen.broken.entry(rule).or_default() += 1;
                assert!(!bench.device.is_attached());
            }
        }
        assert!(bench.memory.guards_are_whole(), "the device wrote outside of the guest's memory");
    }
    bench.neighbour_goes_on();
    seen
}

#[test]
fn a_million_queues() {
    let bench = Bench::new();
    let seen = run(&bench, 1_000_000, 0x7e5_5e7a);
    let statistics = bench.device.statistics();
    println!("{} requests to the disk, {statistics:?}, {:?}", bench.disk.asked.get(), seen.broken);
    // Otherwise the queues were not hostile, or not good, enough to say anything.
    assert!(statistics.reads.0 > 50_000 && statistics.writes.0 > 20_000 && statistics.errors > 10_000);
    assert!(seen.broken.len() >= 14, "{:?}", seen.broken);
}

/// Does something while another thread goes on changing words of the guest's memory: `change` is called over and over with a writer of a word at an address.
fn beside(bench: &Bench, change: impl Fn(&dyn Fn(u64, u16)) + Send, work: impl FnOnce()) {
    let address = bench.memory.memory.physical() as usize;
    let over = AtomicBool::new(false);
    /// Ends the other thread, also when this one fails.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let over = &over;
        scope.spawn(move || {
            let write = |at: u64, value: u16| {
                assert!(at.is_multiple_of(2) && at < LENGTH);
                let place = (address + at as usize) as *mut u16;
                // SAFETY: inside of the guest's memory, which is never freed and no Rust object, aligned; the device reads it as memory that somebody else changes.
                unsafe { AtomicU16::from_ptr(place) }.store(value, Ordering::Relaxed);
            };
            while !over.load(Ordering::Relaxed) {
                change(&write);
            }
        });
        let _over = Over(over);
        work();
    });
}

#[test]
fn a_driver_that_changes_everything_while_it_is_read() {
    let bench = Bench::new();
    let random = Random::new(3);
    let change = move |write: &dyn Fn(u64, u16)| {
        // Queues and headers more often than data.
        let end = if random.below(4) == 0 { LENGTH } else { HEADERS + 1024 };
        let value = if random.below(2) == 0 { random.below(64) } else { random.next() };
        write(2 * random.below(end / 2), value as u16);
    };
    beside(&bench, change, || {
        let seen = run(&bench, 100_000, 11);
        assert!(
            bench.device.statistics().reads.0 > 1000 && seen.broken.len() >= 8,
            "{:?}",
            seen.broken
        );
    });
}

/// One word of a good request is made bad and good again all the time, so that it is often another when it is used than when it was checked, if it is read twice.
#[test]
fn a_word_that_changes_between_check_and_use() {
    // A header, one buffer, a status: place, good value, bad value.
    const WORDS: [(u64, u16, u16); 11] = [
        (0x402, 1, 0x8001),
        (0x404, 0, 7),
        (0x10 + 2, 0, 1),
        (0x10 + 6, 0, 0xffff),
        (0x10 + 8, 512, 4096),
        (0x10 + 10, 0, 0xffff),
        (0x10 + 12, NEXT | WRITE, INDIRECT),
        (0x10 + 14, 2, 9),
        (0x20 + 2, 0, 1),
        (HEADERS, 0, 1),
        (HEADERS + 8, 0, 0xffff),
    ];
    const ROUNDS: u64 = 40_000;
    let bench = Bench::new();
    let word = std::sync::atomic::AtomicUsize::new(0);
    let change = |write: &dyn Fn(u64, u16)| {
        let (place, good, bad) = WORDS[word.load(Ordering::Relaxed)];
        for _ in 0..16 {
            write(place, bad);
            write(place, good);
        }
    };
    let attach = || {
        let mut attachment = Attachment::default();
        attachment.features.indirect = true;
        attachment.queues[0] = Some(Layout {
            size: 8,
            descriptors: 0,
            available: 0x400,
            used: 0x600,
        });
        bench.device.attach(&attachment, false)
    };
    let mut served = [0u64; 3];
    beside(&bench, change, || {
        for round in 0..ROUNDS {
            word.store((round * WORDS.len() as u64 / ROUNDS) as usize, Ordering::Relaxed);
            let chain = [(HEADERS, 16, NEXT), (DATA, 512, NEXT | WRITE), (HEADERS + 16, 1, WRITE)];
            for (index, (address, length, flags)) in (0u16..).zip(chain) {
                bench
                    .memory
                    .put(16 * u64::from(index), &descriptor(address, length, flags, index + 1));
            }
            bench.memory.put(HEADERS, &[0; 16]);
            bench.memory.put(0x400, &[0, 0, 1, 0, 0, 0]);
            let asked = bench.disk.asked.get();
            attach().unwrap();
            while !bench.disk.jobs.borrow().is_empty() {
                bench.disk.complete(0);
            }
            let outcome = match (bench.device.take_broken(), bench.disk.asked.get() - asked) {
                (Some(_), _) => 1,
                (None, 0) => 2,
                (None, _) => 0,
            };
            served[outcome] += 1;
            let mut context = Context::from_waker(Waker::noop());
            assert!(pin!(bench.device.stop()).as_mut().poll(&mut context).is_ready());
            assert!(bench.memory.guards_are_whole());
        }
    });
    // Both were seen, so the word was good and bad. How often is up to the machine's other load.
    assert!(served[0] > 1000 && served[1] + served[2] > 0, "{served:?}");
    bench.neighbour_goes_on();
}
