//! A device in memory, for tests.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use core::cell::{Cell, RefCell};

use crate::{BlockDevice, Geometry, IoError};

/// Bytes that are kept together. What was never written takes no memory, so that a test can have a device of terabytes.
const CHUNK: u64 = 64 << 10;

/// A device in memory, which starts with zeroes. Sectors can be made bad and the device be pulled out, to see what is made of it.
#[derive(Clone, Debug)]
pub struct MemoryDevice {
    geometry: Geometry,
    chunks: RefCell<BTreeMap<u64, Box<[u8]>>>,
    bad: RefCell<BTreeSet<u64>>,
    gone: Cell<bool>,
    /// Transfers and flushes so far.
    counts: Cell<Counts>,
}

/// What a [`MemoryDevice`] was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Writes, with those of zeroes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Discards.
    pub discards: u64,
}

impl MemoryDevice {
    /// A device of `sectors` sectors of `sector_size` bytes, writable, with discard and a write cache.
    ///
    /// # Panics
    /// When the sector size is no power of two from 512 to 64 KiB.
    pub fn new(sector_size: u32, sectors: u64) -> Self {
        assert!(
            sector_size.is_power_of_two() && (512..=CHUNK as u32).contains(&sector_size),
            "no sector size: {sector_size}"
        );
        Self {
            geometry: Geometry {
                sector_size,
                sectors,
                max_transfer: 1 << 20,
                discard: true,
                write_cache: true,
                read_only: false,
            },
            chunks: RefCell::default(),
            bad: RefCell::default(),
            gone: Cell::new(false),
            counts: Cell::default(),
        }
    }

    /// The same content with other abilities.
    pub fn with_geometry(mut self, change: impl FnOnce(&mut Geometry)) -> Self {
        change(&mut self.geometry);
        self
    }

    /// Makes a sector unreadable and unwritable, or good again.
    pub fn set_bad(&self, sector: u64, bad: bool) {
        if bad {
            self.bad.borrow_mut().insert(sector);
        } else {
            self.bad.borrow_mut().remove(&sector);
        }
    }

    /// Pulls the device out, or puts it back.
    pub fn set_gone(&self, gone: bool) {
        self.gone.set(gone);
    }

    /// What it was asked for since it was made or `reset_counts` was called.
    pub fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// Counts from zero again.
    pub fn reset_counts(&self) {
        self.counts.set(Counts::default());
    }

    /// Bytes of memory that hold content.
    pub fn used_memory(&self) -> u64 {
        self.chunks.borrow().len() as u64 * CHUNK
    }

    fn count(&self, what: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        what(&mut counts);
        self.counts.set(counts);
    }

    fn reachable(&self, sector: u64, count: u64) -> Result<(), IoError> {
        if self.gone.get() {
            return Err(IoError::Gone);
        }
        match self.bad.borrow().range(sector..sector + count).next() {
            Some(&sector) => Err(IoError::Media { sector }),
            None => Ok(()),
        }
    }

    /// Calls `each` with the chunk's number, the first byte in it, and the range of the request that lies in it.
    fn pieces(&self, sector: u64, length: usize, mut each: impl FnMut(u64, usize, core::ops::Range<usize>)) {
        let start = sector * u64::from(self.geometry.sector_size);
        let mut done = 0;
        while done < length {
            let at = start + done as u64;
            let within = (at % CHUNK) as usize;
            let now = (CHUNK as usize - within).min(length - done);
            each(at / CHUNK, within, done..done + now);
            done += now;
        }
    }

    fn zero(&self, sector: u64, count: u64) {
        let size = u64::from(self.geometry.sector_size);
        let (start, end) = (sector * size, (sector + count) * size);
        let mut chunks = self.chunks.borrow_mut();
        for (&number, chunk) in chunks.range_mut(start / CHUNK..end.div_ceil(CHUNK)) {
            let from = start.max(number * CHUNK) - number * CHUNK;
            let to = end.min((number + 1) * CHUNK) - number * CHUNK;
            chunk[from as usize..to as usize].fill(0);
        }
    }
}

impl BlockDevice for MemoryDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    async fn read(&self, sector: u64, buffer: &mut [u8]) -> Result<(), IoError> {
        let count = self.geometry.check_buffer(sector, buffer.len())?;
        self.reachable(sector, count)?;
        self.count(|counts| counts.reads += 1);
        let chunks = self.chunks.borrow();
        self.pieces(sector, buffer.len(), |number, within, range| match chunks.get(&number) {
            Some(chunk) => buffer[range.clone()].copy_from_slice(&chunk[within..within + range.len()]),
            None => buffer[range].fill(0),
        });
        Ok(())
    }

    async fn write(&self, sector: u64, data: &[u8]) -> Result<(), IoError> {
        let count = self.geometry.check_write(sector, data.len())?;
        self.reachable(sector, count)?;
        self.count(|counts| counts.writes += 1);
        let mut chunks = self.chunks.borrow_mut();
        self.pieces(sector, data.len(), |number, within, range| {
            let chunk = chunks.entry(number).or_insert_with(|| vec![0; CHUNK as usize].into_boxed_slice());
            chunk[within..within + range.len()].copy_from_slice(&data[range]);
        });
        Ok(())
    }

    async fn flush(&self) -> Result<(), IoError> {
        if self.gone.get() {
            return Err(IoError::Gone);
        }
        self.count(|counts| counts.flushes += 1);
        Ok(())
    }

    async fn discard(&self, sector: u64, count: u64) -> Result<(), IoError> {
        if !self.geometry.discard {
            return Err(IoError::Unsupported);
        }
        self.geometry.check(sector, count)?;
        if self.geometry.read_only {
            return Err(IoError::ReadOnly);
        }
        self.reachable(sector, count)?;
        self.count(|counts| counts.discards += 1);
        self.zero(sector, count);
        Ok(())
    }

    async fn write_zeroes(&self, sector: u64, count: u64) -> Result<(), IoError> {
        self.geometry.check(sector, count)?;
        if self.geometry.read_only {
            return Err(IoError::ReadOnly);
        }
        self.reachable(sector, count)?;
        self.count(|counts| counts.writes += 1);
        self.zero(sector, count);
        Ok(())
    }
}
