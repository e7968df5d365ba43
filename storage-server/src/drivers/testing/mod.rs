//! A machine in memory for the drivers' tests: devices made of code, which behave, or do not.

use super::Device;
use crate::controller::{Controller, Operation, Refused, Request, Segment};
use core::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use tessera_block::IoError;
use tessera_device::dma::DmaBuffer;
use tessera_device::hardware::{Platform, Registers};

/// Random numbers (SplitMix64).
pub struct Random(Cell<u64>);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    pub fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let word = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    pub fn below(&self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// Memory and clock. Time passes when a driver waits.
#[derive(Default)]
pub struct Machine {
    /// Where the next memory is said to be; 0: where it really is.
    next: Cell<u64>,
    pub buffers: RefCell<Vec<DmaBuffer>>,
    pub time: Cell<u64>,
    pub allowed: Cell<bool>,
}

impl Machine {
    /// With memory below 4 GiB.
    pub fn low() -> Self {
        Self {
            next: Cell::new(1 << 20),
            ..Self::default()
        }
    }

    /// The memory at a physical address, as far as it goes on; none outside of what was allocated.
    pub fn memory(&self, physical: u64) -> Option<DmaBuffer> {
        let buffers = self.buffers.borrow();
        let found = buffers
            .iter()
            .find(|one| physical >= one.physical() && physical < one.physical() + one.length() as u64)?;
        Some(found.part((physical - found.physical()) as usize, usize::MAX))
    }

    /// Copies what a device reads. Zeros outside.
    pub fn load(&self, physical: u64, bytes: &mut [u8]) {
        match self.memory(physical) {
            Some(memory) => memory.copy_out(0, bytes),
            None => bytes.fill(0),
        }
    }

    pub fn word(&self, physical: u64) -> u64 {
        let mut bytes = [0; 8];
        self.load(physical, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Copies what a device writes. Devices may access memory only when the driver has said so.
    pub fn store(&self, physical: u64, bytes: &[u8]) {
        assert!(self.allowed.get(), "the device accesses memory before it may");
        if let Some(memory) = self.memory(physical) {
            memory.copy_in(0, bytes);
        }
    }

    /// Changes a random word of random memory.
    fn scribble(&self, random: &Random) {
        let buffers = self.buffers.borrow();
        if let Some(buffer) = buffers.get(random.below(buffers.len() as u64) as usize) {
            let place = random.below(buffer.length() as u64 / 4) as usize * 4;
            buffer.write(place, random.next() as u32);
        }
    }
}

impl Platform for Machine {
    fn allocate(&self, bytes: usize) -> Option<DmaBuffer> {
        let bytes = bytes.next_multiple_of(4096);
        let mut buffer = DmaBuffer::of_this_process(bytes);
        if self.next.get() > 0 {
            buffer = buffer.said_to_be_at(self.next.get());
            self.next.set(self.next.get() + bytes as u64);
        }
        self.buffers.borrow_mut().push(buffer.clone());
        Some(buffer)
    }

    fn now(&self) -> u64 {
        self.time.get()
    }

    fn pause(&self, milliseconds: u64) {
        self.time.set(self.time.get() + milliseconds.max(1));
    }

    fn allow_memory_access(&self) -> Result<(), &'static str> {
        self.allowed.set(true);
        Ok(())
    }
}

/// What a disk holds.
pub struct Medium {
    pub bytes: RefCell<Vec<u8>>,
    /// Sectors that cannot be read or written.
    pub bad: Cell<Option<u64>>,
}

/// Sectors of a model's disk.
pub const SECTORS: u64 = 4096;

impl Medium {
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            bytes: RefCell::new(vec![0; SECTORS as usize * 512]),
            bad: Cell::new(None),
        })
    }

    /// Moves bytes between the medium and memory: pieces of address and length. False: a sector is bad, or there is none.
    pub fn transfer(&self, machine: &Machine, sector: u64, pieces: &[(u64, u64)], writes: bool) -> bool {
        let length: u64 = pieces.iter().map(|piece| piece.1).sum();
        let end = sector.saturating_add(length / 512);
        if end > SECTORS || self.bad.get().is_some_and(|bad| (sector..end).contains(&bad)) {
            return false;
        }
        let mut medium = self.bytes.borrow_mut();
        let mut at = sector as usize * 512;
        for (physical, length) in pieces {
            let part = &mut medium[at..at + *length as usize];
            if writes {
                machine.load(*physical, part);
            } else {
                machine.store(*physical, part);
            }
            at += *length as usize;
        }
        true
    }

    pub fn zero(&self, sector: u64, sectors: u64) -> bool {
        let end = sector.saturating_add(sectors);
        let fits = end <= SECTORS;
        if fits {
            self.bytes.borrow_mut()[sector as usize * 512..end as usize * 512].fill(0);
        }
        fits
    }
}

/// Registers that lie now and then, and scribble over memory.
pub struct Noisy {
    pub inner: Rc<dyn Registers>,
    pub machine: Rc<Machine>,
    pub random: Random,
    /// One access in so many is wrong; 0: none.
    pub rate: Cell<u64>,
    /// It was pulled out.
    pub gone: Cell<bool>,
}

impl Noisy {
    pub fn new(inner: Rc<dyn Registers>, machine: &Rc<Machine>, seed: u64, rate: u64) -> Rc<Self> {
        Rc::new(Self {
            inner,
            machine: machine.clone(),
            random: Random::new(seed),
            rate: Cell::new(rate),
            gone: Cell::new(false),
        })
    }

    /// It is pulled out.
    pub fn pull_out(&self) {
        self.rate.set(0);
        self.gone.set(true);
    }

    fn disturb(&self, value: u64) -> u64 {
        if self.gone.get() {
            return u64::MAX;
        }
        let rate = self.rate.get();
        if rate == 0 || self.random.below(rate) != 0 {
            return value;
        }
        match self.random.below(4) {
            0 => 0,
            1 => u64::MAX,
            2 => value ^ 1 << self.random.below(32),
            _ => self.random.next(),
        }
    }

    /// Whether a write arrives. Some do not, and some change memory as well.
    fn arrives(&self) -> bool {
        let rate = self.rate.get();
        if rate != 0 && self.random.below(rate) == 0 {
            self.machine.scribble(&self.random);
        }
        !self.gone.get() && (rate == 0 || self.random.below(rate) != 0)
    }
}

impl Registers for Noisy {
    fn read8(&self, offset: u64) -> u8 {
        self.disturb(self.inner.read8(offset).into()) as u8
    }
    fn read16(&self, offset: u64) -> u16 {
        self.disturb(self.inner.read16(offset).into()) as u16
    }
    fn read32(&self, offset: u64) -> u32 {
        self.disturb(self.inner.read32(offset).into()) as u32
    }
    fn write8(&self, offset: u64, value: u8) {
        if self.arrives() {
            self.inner.write8(offset, value);
        }
    }
    fn write16(&self, offset: u64, value: u16) {
        if self.arrives() {
            self.inner.write16(offset, value);
        }
    }
    fn write32(&self, offset: u64, value: u32) {
        if self.arrives() {
            self.inner.write32(offset, value);
        }
    }
}

/// No registers.
pub struct Nothing;

impl Registers for Nothing {
    fn read8(&self, _: u64) -> u8 {
        u8::MAX
    }
    fn read16(&self, _: u64) -> u16 {
        u16::MAX
    }
    fn read32(&self, _: u64) -> u32 {
        u32::MAX
    }
    fn write8(&self, _: u64, _: u8) {}
    fn write16(&self, _: u64, _: u16) {}
    fn write32(&self, _: u64, _: u32) {}
}

/// A device of one range of memory.
pub fn device(machine: &Rc<Machine>, configuration: Vec<u8>, bar: usize, registers: Rc<dyn Registers>) -> Device {
    let mut memory: [Option<Rc<dyn Registers>>; 6] = [const { None }; 6];
    memory[bar] = Some(registers);
    Device {
        configuration,
        memory,
        ports: [const { None }; 6],
        interrupts: 3,
        lines: 0,
        platform: machine.clone(),
    }
}

/// Carries one request out and answers how it ended.
pub fn run(controller: &mut dyn Controller, machine: &Machine, request: &Request<'_>) -> Result<(), IoError> {
    assert!(controller.fits(0, request), "{request:?}");
    match controller.submit(0, request, 7, machine.now()) {
        Ok(()) => {}
        Err(Refused::Error(error)) => return Err(error),
        Err(Refused::Full) => panic!("an idle controller is full"),
    }
    let mut result = None;
    for _ in 0..400 {
        controller.poll(&mut |tag, outcome| {
            assert_eq!(tag, 7);
            assert!(result.replace(outcome).is_none());
        });
        if let Some(result) = result {
            return result;
        }
        machine.pause(250);
        controller.watch(machine.now(), &mut |_, outcome| result = Some(outcome));
    }
    panic!("{request:?} never ends")
}

/// A request's memory: whole pages but for the ends, in random pieces.
fn pieces(machine: &Machine, random: &Random, bytes: u64) -> (Vec<DmaBuffer>, Vec<Segment>) {
    let (mut buffers, mut segments, mut left) = (Vec::new(), Vec::new(), bytes);
    while left > 0 {
        let first = segments.is_empty();
        let offset = if first { random.below(8) * 512 } else { 0 };
        let room = (1 + random.below(3)) * 4096 - offset;
        let length = room.min(left);
        let buffer = machine
            .allocate((offset + length) as usize)
            .unwrap()
            .part(offset as usize, length as usize);
        segments.push(Segment {
            physical: buffer.physical(),
            length: length as u32,
        });
        buffers.push(buffer);
        left -= length;
    }
    (buffers, segments)
}

/// Writes and reads at random places, and compares with what was written.
pub fn keeps_what_is_written(controller: &mut dyn Controller, machine: &Machine, medium: &Medium, seed: u64) {
    let random = Random::new(seed);
    for _ in 0..30 {
        let sectors = 1 + random.below(100);
        let sector = random.below(SECTORS - sectors);
        let writes = random.below(2) == 0;
        let (buffers, segments) = pieces(machine, &random, sectors * 512);
        let mut written = Vec::new();
        for buffer in &buffers {
            let bytes: Vec<u8> = (0..buffer.length()).map(|_| random.next() as u8).collect();
            if writes {
                buffer.copy_in(0, &bytes);
            }
            written.extend(bytes);
        }
        let operation = if writes { Operation::Write } else { Operation::Read };
        let request = Request {
            operation,
            sector,
            sectors,
            segments: &segments,
        };
        assert_eq!(run(controller, machine, &request), Ok(()));
        let mut in_memory = Vec::new();
        for buffer in &buffers {
            let mut bytes = vec![0; buffer.length()];
            buffer.copy_out(0, &mut bytes);
            in_memory.extend(bytes);
        }
        let on_medium = medium.bytes.borrow()[sector as usize * 512..(sector + sectors) as usize * 512].to_vec();
        assert!(in_memory == on_medium, "{operation:?} of {sectors} sectors at {sector}");
        assert!(!writes || in_memory == written);
    }
    assert_eq!(run(controller, machine, &Request::FLUSH), Ok(()));
    medium.bad.set(Some(100));
    let memory = machine.allocate(4096).unwrap();
    let segments = [Segment {
        physical: memory.physical(),
        length: 4096,
    }];
    let bad = Request {
        operation: Operation::Read,
        sector: 96,
        sectors: 8,
        segments: &segments,
    };
    assert!(matches!(run(controller, machine, &bad), Err(IoError::Media { .. })));
    medium.bad.set(None);
    assert_eq!(run(controller, machine, &bad), Ok(()));
}

/// Whatever a device answers, each request ends exactly once, and at the latest when the device is gone, which `pull_out` sees to.
pub fn survives(
    start: impl FnOnce(&Device) -> Result<Box<dyn Controller>, String>,
    device: &Device,
    machine: &Machine,
    pull_out: &dyn Fn(),
) {
    let random = Random::new(machine.now());
    let Ok(mut controller) = start(device) else { return };
    let mut open: BTreeMap<u32, ()> = BTreeMap::new();
    let memory = machine.allocate(1 << 16).unwrap();
    for tag in 0..300u32 {
        let segments = [Segment {
            physical: memory.physical(),
            length: 4096 << (tag % 4),
        }];
        let operation = [Operation::Read, Operation::Write, Operation::Flush][tag as usize % 3];
        let request = if operation == Operation::Flush {
            Request::FLUSH
        } else {
            Request {
                operation,
                sector: u64::from(tag) % (SECTORS - 64),
                sectors: u64::from(segments[0].length) / 512,
                segments: &segments,
            }
        };
        for unit in 0..2 {
            let _ = controller.unit(unit);
        }
        if controller.fits(0, &request) && controller.submit(0, &request, tag, machine.now()).is_ok() {
            open.insert(tag, ());
        }
        let mut done = |tag: u32, _: Result<(), IoError>| assert!(open.remove(&tag).is_some(), "{tag} ends twice, or was never begun");
        controller.poll(&mut done);
        if tag % 7 == 0 {
            machine.pause(250 * (1 + random.below(8)));
            controller.watch(machine.now(), &mut done);
        }
    }
    pull_out();
    for _ in 0..400 {
        machine.pause(250);
        controller.watch(machine.now(), &mut |tag, _| {
            assert!(open.remove(&tag).is_some(), "{tag} ends twice")
        });
    }
    assert!(open.is_empty(), "requests that never end: {:?}", open.keys());
}
