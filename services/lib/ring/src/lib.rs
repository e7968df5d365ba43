//! A byte ring in memory that two processes share: one writes, one reads, neither trusts the other.
//!
//! The memory starts with a [`HEADER`]-byte header, two free-running counters of bytes ever written and ever read, each in a cache line of its own; the rest is data, a power of two of bytes. A side believes its own
//! counter only as it remembers it, never as it stands in memory, and takes the other's as a hint: one that makes no sense means an empty or a full ring, never an access out of bounds. The peer can
//! garble the bytes, but that it can do anyway.
//!
//! A process that starts anew takes up the counters that it finds with [`Writer::attach`] and [`Reader::attach`], so a ring outlives its users. Memory that is all zero is an empty ring.
#![cfg_attr(not(test), no_std)]

use core::sync::atomic::Ordering;

#[cfg(not(loom))]
use core::sync::atomic::{AtomicU8, AtomicU64};
#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, AtomicU64};

/// Bytes of the header.
pub const HEADER: usize = 128;
/// Smallest memory that holds a ring: header and data of the same size.
pub const MIN_LENGTH: usize = 2 * HEADER;

/// The two counters, as they lie in memory.
#[repr(C, align(64))]
pub struct Header {
    written: AtomicU64,
    /// The reader's counter does not share a cache line with the writer's.
    #[cfg(not(loom))]
    padding: [u64; 7],
    read: AtomicU64,
    #[cfg(not(loom))]
    padding2: [u64; 7],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Header>() == HEADER);

/// Header and data of one ring.
#[derive(Clone, Copy)]
struct Memory<'a> {
    header: &'a Header,
    /// A power of two of bytes, which the other side may read or write at the same time.
    data: &'a [AtomicU8],
}

impl<'a> Memory<'a> {
    /// # Safety
    /// See [`Writer::attach`].
    #[cfg(not(loom))]
    unsafe fn new(base: *mut u8, length: usize) -> Option<Self> {
        if base.is_null() || !(base as usize).is_multiple_of(align_of::<Header>()) || length < MIN_LENGTH {
            return None;
        }
        let capacity = 1 << (length - HEADER).ilog2();
        // SAFETY: the caller says that the memory is there and is only accessed atomically; it is aligned and long enough, as was just checked, and every bit pattern is a valid counter and a valid byte.
        unsafe {
            Some(Self {
                header: &*base.cast(),
                data: core::slice::from_raw_parts(base.add(HEADER).cast(), capacity),
            })
        }
    }

    fn capacity(self) -> u64 {
        self.data.len() as u64
    }

    /// The byte that counter value `position` falls on.
    fn byte(self, position: u64) -> &'a AtomicU8 {
        // The mask keeps the index below the length, which is a power of two.
        &self.data[(position & (self.capacity() - 1)) as usize]
    }
}

/// The writing side.
pub struct Writer<'a> {
    memory: Memory<'a>,
    written: u64,
}

/// The reading side.
pub struct Reader<'a> {
    memory: Memory<'a>,
    read: u64,
}

impl Writer<'_> {
    /// Takes up the writing side where the last writer stopped. `None` if the memory is too short or not aligned to 64 bytes.
    ///
    /// # Safety
    /// `base` points at `length` bytes of mapped memory that stay mapped as long as the writer lives. Nobody in this process accesses them other than through this crate, and there is one writer at a time.
    #[cfg(not(loom))]
    #[must_use]
    pub unsafe fn attach(base: *mut u8, length: usize) -> Option<Self> {
        // SAFETY: the caller's.
        let memory = unsafe { Memory::new(base, length) }?;
        // Acquire: a former writer's bytes precede its counter.
        let written = memory.header.written.load(Ordering::Acquire);
        Some(Self { memory, written })
    }

    /// Bytes that the ring holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.data.len()
    }

    /// Bytes that could be written now.
    #[must_use]
    pub fn room(&self) -> usize {
        // Acquire: pairs with the reader's Release, so that its reading of the bytes that are now overwritten is over.
        let used = self.written.wrapping_sub(self.memory.header.read.load(Ordering::Acquire));
        // A reader that claims to be ahead of the writer, or further behind than the ring is long, leaves no room.
        self.memory.capacity().saturating_sub(used) as usize
    }

    /// Writes as much of `bytes` as there is room for and returns how much that was.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        for (offset, byte) in bytes[..count].iter().enumerate() {
            // Relaxed: the counter's Release below publishes them all.
            self.memory
                .byte(self.written.wrapping_add(offset as u64))
                .store(*byte, Ordering::Relaxed);
        }
        self.written = self.written.wrapping_add(count as u64);
        // Release: the bytes are there before the counter says so.
        self.memory.header.written.store(self.written, Ordering::Release);
        count
    }

    /// Whether the reader has taken everything that was written.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.room() == self.capacity()
    }
}

impl Reader<'_> {
    /// Takes up the reading side where the last reader stopped. `None` if the memory is too short or not aligned to 64 bytes.
    ///
    /// # Safety
    /// As [`Writer::attach`], for the reader.
    #[cfg(not(loom))]
    #[must_use]
    pub unsafe fn attach(base: *mut u8, length: usize) -> Option<Self> {
        // SAFETY: the caller's.
        let memory = unsafe { Memory::new(base, length) }?;
        // Relaxed: the reader's own counter; nothing hangs on it.
        let read = memory.header.read.load(Ordering::Relaxed);
        Some(Self { memory, read })
    }

    /// Bytes that the ring holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.data.len()
    }

    /// Bytes that could be read now.
    #[must_use]
    pub fn available(&self) -> usize {
        // Acquire: pairs with the writer's Release, so that the bytes are there.
        let available = self.memory.header.written.load(Ordering::Acquire).wrapping_sub(self.read);
        // A writer that claims more than fits is not believed.
        if available > self.memory.capacity() {
            0
        } else {
            available as usize
        }
    }

    /// Reads what is there, as far as it fits into `buffer`, and returns how much that was.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.available());
        for (offset, byte) in buffer[..count].iter_mut().enumerate() {
            // Relaxed: `available` acquired them.
            *byte = self.memory.byte(self.read.wrapping_add(offset as u64)).load(Ordering::Relaxed);
        }
        self.read = self.read.wrapping_add(count as u64);
        // Release: the bytes are read before the writer may overwrite them.
        self.memory.header.read.store(self.read, Ordering::Release);
        count
    }

    /// The counter of the next byte to be read: bytes ever read, which also names a place in the stream.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.read
    }

    /// Copies what stands `offset` bytes behind the next byte to be read, without reading it, and returns how much that was.
    #[must_use]
    pub fn peek(&self, offset: usize, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.available().saturating_sub(offset));
        for (index, byte) in buffer[..count].iter_mut().enumerate() {
            // Relaxed: `available` acquired them.
            *byte = self
                .memory
                .byte(self.read.wrapping_add((offset + index) as u64))
                .load(Ordering::Relaxed);
        }
        count
    }

    /// Gives up to `count` bytes back to the writer unread and returns how many that were.
    pub fn skip(&mut self, count: usize) -> usize {
        let count = count.min(self.available());
        self.read = self.read.wrapping_add(count as u64);
        // Release: whatever was peeked at is read before the writer may overwrite it.
        self.memory.header.read.store(self.read, Ordering::Release);
        count
    }

    /// After the writer's counter stopped to make sense (a garbled ring): skips to it, losing what was in between. Returns whether that was needed.
    pub fn resynchronise(&mut self) -> bool {
        let written = self.memory.header.written.load(Ordering::Acquire);
        let garbled = written.wrapping_sub(self.read) > self.memory.capacity();
        if garbled {
            self.read = written;
            self.memory.header.read.store(written, Ordering::Release);
        }
        garbled
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod model;
