//! A split virtqueue with requests of the block device (virtio 1.2, 2.7 and 5.2.6). Each request is one indirect descriptor, so the number of a descriptor is the number of a request.

use crate::controller::Segment;
use alloc::{string::String, vec::Vec};
use core::sync::atomic::{Ordering, fence};
use tessera_device::dma::DmaBuffer;
use tessera_device::hardware::Platform;
use tessera_device::virtio::Configuration;

/// Segments of a request's memory.
pub const MAX_SEGMENTS: usize = 62;
/// Bytes of a request's indirect table: header, segments, status.
const TABLE: usize = (MAX_SEGMENTS + 2) * 16;
/// Bytes of a request's header (16), status (1 at 16) and range to discard or zero (16 at 32).
const HEADER: usize = 64;
/// Descriptor flags: there is a next one, the device writes, it names a table.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Flag of the used ring: the device wants no notification.
const NO_NOTIFY: u16 = 1;
/// What the status byte is before the device writes it.
const UNTOUCHED: u8 = 0xff;

/// The device broke the rules of the queue.
#[derive(Debug)]
pub struct Broken;

/// All requests are in use.
#[derive(Debug)]
pub struct Full;

/// A request in flight.
#[derive(Clone, Copy, Debug)]
pub struct InFlight {
    /// Whose it is.
    pub tag: u32,
    /// First sector, in units of 512 bytes.
    pub sector: u64,
    since: u64,
}

/// The queue.
pub struct Queue {
    number: u16,
    size: u16,
    rings: DmaBuffer,
    tables: DmaBuffer,
    headers: DmaBuffer,
    place: u64,
    free: Vec<u16>,
    flying: Vec<Option<InFlight>>,
    available: u16,
    used: u16,
}

impl Queue {
    fn available_at(&self) -> usize {
        usize::from(self.size) * 16
    }

    fn used_at(&self) -> usize {
        (self.available_at() + 6 + usize::from(self.size) * 2).next_multiple_of(4)
    }

    /// Makes queue `number` with up to `most` requests and hands it to the device.
    ///
    /// # Errors
    /// The device has no such queue, or there is no memory.
    pub fn new(
        configuration: &Configuration,
        platform: &dyn Platform,
        number: u16,
        most: u16,
        vector: Option<u16>,
    ) -> Result<Self, String> {
        let offered = configuration.select(number);
        if offered == 0 {
            return Err(alloc::format!("it has no queue {number}"));
        }
        // A power of two (2.7).
        let size = 1 << offered.min(most).ilog2();
        let count = usize::from(size);
        let memory = |bytes: usize| {
            platform
                .allocate(bytes)
                .ok_or("there is no memory for its queues: raise `device-memory` of the storage server")
        };
        let mut queue = Self {
            number,
            size,
            rings: memory(count * 16 + 6 + count * 2 + 4 + 6 + count * 8)?,
            tables: memory(count * TABLE)?,
            headers: memory(count * HEADER)?,
            place: 0,
            free: Vec::new(),
            flying: alloc::vec![None; count],
            available: 0,
            used: 0,
        };
        queue.reset(configuration, vector)?;
        Ok(queue)
    }

    /// Hands it to a device that was reset.
    ///
    /// # Errors
    /// The device does not take it.
    pub fn reset(&mut self, configuration: &Configuration, vector: Option<u16>) -> Result<(), String> {
        if configuration.select(self.number) < self.size {
            return Err(alloc::format!("queue {} is smaller than before", self.number));
        }
        self.rings.clear(0, self.rings.length());
        self.free = (0..self.size).rev().collect();
        self.flying.fill(None);
        (self.available, self.used) = (0, 0);
        let base = self.rings.physical();
        let addresses = [base, base + self.available_at() as u64, base + self.used_at() as u64];
        self.place = configuration.enable(self.size, vector, addresses)?;
        Ok(())
    }

    /// Adds a request. `device_writes` says which way its memory goes; `range` are the sectors to discard or zero.
    ///
    /// # Errors
    /// All requests are in use, or there are too many segments.
    #[allow(clippy::too_many_arguments, reason = "the parts of a request")]
    pub fn add(
        &mut self,
        kind: u32,
        sector: u64,
        segments: &[Segment],
        device_writes: bool,
        range: Option<(u64, u32)>,
        tag: u32,
        now: u64,
    ) -> Result<(), Full> {
        if segments.len() > MAX_SEGMENTS {
            return Err(Full);
        }
        let head = self.free.pop().ok_or(Full)?;
        let (table, header) = (usize::from(head) * TABLE, usize::from(head) * HEADER);
        self.headers.write(header, kind);
        self.headers.write(header + 4, 0u32);
        self.headers.write(header + 8, sector);
        self.headers.write(header + 16, UNTOUCHED);
        let mut count = 0;
        let mut describe = |physical: u64, length: u32, flags: u16, last: bool| {
            let at = table + count * 16;
            self.tables.write(at, physical);
            self.tables.write(at + 8, length);
            self.tables.write(at + 12, flags | if last { 0 } else { NEXT });
            self.tables.write(at + 14, count as u16 + 1);
            count += 1;
        };
        let physical = self.headers.physical() + header as u64;
        describe(physical, 16, 0, false);
        if let Some((first, sectors)) = range {
            self.headers.write(header + 32, first);
            self.headers.write(header + 40, sectors);
            self.headers.write(header + 44, 0u32);
            describe(physical + 32, 16, 0, false);
        }
        for segment in segments {
            describe(segment.physical, segment.length, if device_writes { WRITE } else { 0 }, false);
        }
        describe(physical + 16, 1, WRITE, true);
        let at = usize::from(head) * 16;
        self.rings.write(at, self.tables.physical() + table as u64);
        self.rings.write(at + 8, count as u32 * 16);
        self.rings.write(at + 12, INDIRECT);
        self.rings.write(at + 14, 0u16);
        let sector = range.map_or(sector, |(first, _)| first);
        self.flying[usize::from(head)] = Some(InFlight { tag, sector, since: now });
        let slot = self.available_at() + 4 + usize::from(self.available % self.size) * 2;
        self.rings.write(slot, head);
        self.available = self.available.wrapping_add(1);
        // Release: the device sees the request before it sees that there is one.
        fence(Ordering::Release);
        self.rings.write(self.available_at() + 2, self.available);
        Ok(())
    }

    /// Tells the device that there is something, unless it looks by itself.
    pub fn notify(&self, configuration: &Configuration) {
        // The device's wish is read after it could see the request (2.7.13): else both could wait for each other.
        fence(Ordering::SeqCst);
        if self.rings.read::<u16>(self.used_at()) & NO_NOTIFY == 0 {
            configuration.notify(self.place, self.number);
        }
    }

    /// Calls `done` for each completed request, with its status byte.
    ///
    /// # Errors
    /// The device completed what it was not given, or more than there was.
    pub fn completed(&mut self, done: &mut dyn FnMut(InFlight, u8)) -> Result<(), Broken> {
        let until = self.rings.read::<u16>(self.used_at() + 2);
        if until.wrapping_sub(self.used) > self.size {
            return Err(Broken);
        }
        // Acquire: the entries were written before their number.
        fence(Ordering::Acquire);
        while self.used != until {
            let entry = self.used_at() + 4 + usize::from(self.used % self.size) * 8;
            let head = self.rings.read::<u32>(entry) as usize;
            let request = self.flying.get_mut(head).and_then(Option::take).ok_or(Broken)?;
            let status = self.headers.read::<u8>(head * HEADER + 16);
            self.free.push(head as u16);
            self.used = self.used.wrapping_add(1);
            done(request, status);
        }
        Ok(())
    }

    /// Forgets all requests. The device was reset.
    pub fn drain(&mut self, each: &mut dyn FnMut(u32)) {
        for (head, place) in self.flying.iter_mut().enumerate() {
            if let Some(request) = place.take() {
                self.free.push(head as u16);
                each(request.tag);
            }
        }
    }

    /// When the oldest request was added.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.flying.iter().flatten().map(|request| request.since).min()
    }
}
