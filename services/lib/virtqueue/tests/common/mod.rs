//! Guest memory for tests, and a driver.
#![allow(dead_code, reason = "each test uses a part")]

use std::cell::{Cell, RefCell};
use tessera_virtqueue::{GuestMemory, Layout};

/// A small, fast generator of pseudo-random numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// RAM from guest-physical address 0. `hurt` is called before each read, and may change it, as a guest on another processor does.
pub struct Ram<F: FnMut(&[Cell<u8>])> {
    pub bytes: Vec<Cell<u8>>,
    pub hurt: RefCell<F>,
    pub reads: Cell<u64>,
    /// Writes until the process "ends": that one, and none after it, is done. Odd: the last one is done and still reported as failed.
    pub writes_left: Cell<u64>,
}

pub fn quiet(length: usize) -> Ram<impl FnMut(&[Cell<u8>])> {
    Ram::new(length, |_: &[Cell<u8>]| ())
}

impl<F: FnMut(&[Cell<u8>])> Ram<F> {
    pub fn new(length: usize, hurt: F) -> Self {
        Self {
            bytes: vec![Cell::new(0); length],
            hurt: RefCell::new(hurt),
            reads: Cell::new(0),
            writes_left: Cell::new(u64::MAX),
        }
    }

    pub fn put(&self, address: u64, bytes: &[u8]) {
        for (cell, byte) in self.bytes[address as usize..].iter().zip(bytes) {
            cell.set(*byte);
        }
    }

    pub fn get<const N: usize>(&self, address: u64) -> [u8; N] {
        std::array::from_fn(|i| self.bytes[address as usize + i].get())
    }

    fn read<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        self.reads.set(self.reads.get() + 1);
        if !address.is_multiple_of(N as u64) || !self.contains(address, N as u64) {
            return None;
        }
        (self.hurt.borrow_mut())(&self.bytes);
        Some(self.get(address))
    }

    fn write(&self, address: u64, bytes: &[u8], alignment: u64) -> Option<()> {
        if !address.is_multiple_of(alignment) || !self.contains(address, bytes.len() as u64) {
            return None;
        }
        let left = self.writes_left.get();
        self.writes_left.set(left.saturating_sub(2));
        if left == 0 {
            return None;
        }
        self.put(address, bytes);
        (left != 1).then_some(())
    }
}

impl<F: FnMut(&[Cell<u8>])> GuestMemory for Ram<F> {
    fn contains(&self, address: u64, length: u64) -> bool {
        address.checked_add(length).is_some_and(|end| end <= self.bytes.len() as u64)
    }
    fn read_u16(&self, address: u64) -> Option<u16> {
        self.read(address).map(u16::from_le_bytes)
    }
    fn read_u64(&self, address: u64) -> Option<u64> {
        self.read(address).map(u64::from_le_bytes)
    }
    fn write_u16(&self, address: u64, value: u16) -> Option<()> {
        self.write(address, &value.to_le_bytes(), 2)
    }
    fn write_pair(&self, address: u64, first: u32, second: u32) -> Option<()> {
        let both = u64::from(first) | u64::from(second) << 32;
        self.write(address, &both.to_le_bytes(), 4)
    }
}

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub fn descriptor(address: u64, length: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&length.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}

/// A queue of that size at fixed places; the rest of 64 KiB, from 0x8000 on, is for buffers.
pub fn layout(size: u16) -> Layout {
    Layout {
        size,
        descriptors: 0x1000,
        available: 0x3000,
        used: 0x4000,
    }
}

/// The driver's side, as simple as can be.
pub struct Driver {
    pub layout: Layout,
    pub available: u16,
    pub seen: u16,
    pub free: Vec<u16>,
    /// Heads with their descriptors, as far as the device has them.
    pub out: Vec<(u16, Vec<u16>)>,
}

impl Driver {
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            available: 0,
            seen: 0,
            free: (0..layout.size).collect(),
            out: vec![],
        }
    }

    /// Offers a chain of these buffers (address, length, writable); false if descriptors are short.
    pub fn offer<F: FnMut(&[Cell<u8>])>(&mut self, ram: &Ram<F>, buffers: &[(u64, u32, bool)]) -> Option<u16> {
        if self.free.len() < buffers.len() {
            return None;
        }
        let used: Vec<u16> = self.free.drain(..buffers.len()).collect();
        for (place, (address, length, writable)) in buffers.iter().enumerate() {
            let next = used.get(place + 1);
            let flags = if *writable { WRITE } else { 0 } | if next.is_some() { NEXT } else { 0 };
            let at = self.layout.descriptors + 16 * u64::from(used[place]);
            ram.put(at, &descriptor(*address, *length, flags, next.copied().unwrap_or(0xffff)));
        }
        let head = used[0];
        self.out.push((head, used));
        self.publish(ram, head);
        Some(head)
    }

    pub fn publish<F: FnMut(&[Cell<u8>])>(&mut self, ram: &Ram<F>, head: u16) {
        let place = u64::from(self.available % self.layout.size);
        ram.put(self.layout.available + 4 + 2 * place, &head.to_le_bytes());
        self.available = self.available.wrapping_add(1);
        ram.put(self.layout.available + 2, &self.available.to_le_bytes());
    }

    /// Takes what was returned: head and length.
    pub fn reap<F: FnMut(&[Cell<u8>])>(&mut self, ram: &Ram<F>) -> Vec<(u16, u32)> {
        let index = u16::from_le_bytes(ram.get(self.layout.used + 2));
        let mut all = vec![];
        while self.seen != index {
            let at = self.layout.used + 4 + 8 * u64::from(self.seen % self.layout.size);
            let head = u32::from_le_bytes(ram.get(at)) as u16;
            let place = self
                .out
                .iter()
                .position(|(known, _)| *known == head)
                .expect("returned what was not out");
            self.free.extend(self.out.swap_remove(place).1);
            all.push((head, u32::from_le_bytes(ram.get(at + 4))));
            self.seen = self.seen.wrapping_add(1);
        }
        all
    }
}
