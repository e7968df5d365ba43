//! A machine in memory for the tests of drivers: devices made of code, which behave, or do not.

use crate::{
    dma::DmaBuffer,
    function::Device,
    hardware::{Platform, Registers},
};
use alloc::{rc::Rc, vec::Vec};
use core::cell::{Cell, RefCell};

/// Random numbers (SplitMix64).
pub struct Random(Cell<u64>);

impl Random {
    /// Those that follow from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// Any number.
    pub fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let word = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number below `bound`; 0 below 1.
    pub fn below(&self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// Memory and clock. Time passes when a driver waits.
#[derive(Default)]
pub struct Machine {
    /// Where the next memory is said to be; 0: where it really is.
    next: Cell<u64>,
    /// Memory that was allocated.
    pub buffers: RefCell<Vec<DmaBuffer>>,
    /// The clock, in milliseconds.
    pub time: Cell<u64>,
    /// The driver let the device access memory.
    pub allowed: Cell<bool>,
}

impl Machine {
    /// With memory below 4 GiB.
    #[must_use]
    pub fn low() -> Self {
        Self {
            next: Cell::new(1 << 20),
            ..Self::default()
        }
    }

    /// The memory at a physical address, as far as it goes on; none outside of what was allocated.
    #[must_use]
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

    /// A number that a device reads.
    #[must_use]
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

    fn deny_memory_access(&self) {
        self.allowed.set(false);
    }
}

/// Registers that lie now and then, and scribble over memory.
pub struct Noisy {
    /// The device that behaves.
    pub inner: Rc<dyn Registers>,
    /// Where its memory is.
    pub machine: Rc<Machine>,
    /// What goes wrong.
    pub random: Random,
    /// One access in so many is wrong; 0: none.
    pub rate: Cell<u64>,
    /// It was pulled out.
    pub gone: Cell<bool>,
}

impl Noisy {
    /// One access of `rate` is wrong.
    #[must_use]
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
#[must_use]
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
