//! The driver side of a queue (virtio 1.2, 2.7) in RAM that is reserved from the guest: with it the monitor's model of another kind of controller asks a server for what the guest asks it for. What the guest names of its own
//! RAM goes into the descriptors as it is, so nothing is copied.
//!
//! Each request in flight has one of [`SLOTS`] slots with an indirect table, its header and its status of its own, and its number is the descriptor's. The guest could write to all of it: what is read back names a slot
//! that is in flight, or is passed over.

use super::{QueueConfig, feature};
use crate::memory::GuestMemory;
use core::sync::atomic::{Ordering, fence};
use tessera_virtqueue::GuestMemory as Words;

/// Most requests in flight: the size of the queue.
pub const SLOTS: u8 = 32;
/// Most pieces of data of one request, as the disks' server takes them.
pub const MAX_PIECES: usize = 126;
/// Most bytes that are sent before the data: a header, and a range.
pub const MAX_HEADER: usize = 32;
/// A request that ended: its slot, its status (0 is success), and the bytes that the device says it wrote.
pub type Ended = (u8, u8, u32);
/// Bytes of RAM that a queue takes.
pub const LENGTH: u64 = TABLES + TABLE * SLOTS as u64;
/// Features that the driver wants.
pub const FEATURES: u64 = feature::VERSION_1 | feature::INDIRECT;

// Where things are in the queue's RAM.
const AVAILABLE: u64 = 0x200;
const USED: u64 = 0x280;
/// For each slot: header, status.
const HEADERS: u64 = 0x400;
const HEADER: u64 = 0x40;
const STATUS: u64 = MAX_HEADER as u64;
const TABLES: u64 = 0x1000;
/// A table has header, range, data and status.
const TABLE: u64 = 16 * (MAX_PIECES as u64 + 3).next_multiple_of(8);

// Flags of descriptors.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Flag of the used ring: the device wants no notifications.
const NO_NOTIFY: u16 = 1;
/// What stands in a status that nobody wrote.
const NO_STATUS: u8 = 0xff;

/// A queue.
#[derive(Clone, Debug)]
pub struct Driver {
    base: u64,
    /// Index of the next request that is made available.
    next: u16,
    /// Index of the next used element that is looked at.
    seen: u16,
    /// A bit for each slot in flight.
    in_flight: u32,
}

/// Address, bytes and flags of pieces that the device writes or reads.
fn pieces(data: &[(u64, u32)], device_writes: bool) -> impl Iterator<Item = (u64, u32, u16)> {
    let direction = if device_writes { WRITE } else { 0 };
    data.iter().map(move |(address, length)| (*address, *length, direction))
}

impl Driver {
    /// Lays an empty queue out in [`LENGTH`] bytes at `base`, aligned to a page. `None`: they are not RAM.
    #[must_use]
    pub fn new(memory: &GuestMemory, base: u64) -> Option<Self> {
        memory.clear(base, LENGTH)?;
        Some(Self {
            base,
            next: 0,
            seen: 0,
            in_flight: 0,
        })
    }

    /// The first slot that is free.
    #[must_use]
    pub const fn free(&self) -> Option<u8> {
        match self.in_flight.trailing_ones() as u8 {
            SLOTS => None,
            slot => Some(slot),
        }
    }

    /// Where it is, as a device's registers have it.
    #[must_use]
    pub const fn queue(&self) -> QueueConfig {
        QueueConfig {
            size: SLOTS as u16,
            enabled: true,
            vector: super::registers::NO_VECTOR,
            descriptors: self.base,
            available: self.base + AVAILABLE,
            used: self.base + USED,
        }
    }

    const fn table(base: u64, slot: u8) -> u64 {
        base + TABLES + TABLE * slot as u64
    }

    const fn header(&self, slot: u8) -> u64 {
        self.base + HEADERS + HEADER * slot as u64
    }

    /// Whether a slot's request is in flight.
    #[must_use]
    pub const fn is_in_flight(&self, slot: u8) -> bool {
        self.in_flight >> (slot % SLOTS) & 1 != 0
    }

    /// Whether any is.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.in_flight != 0
    }

    /// The device is not served any more: nothing comes back.
    pub const fn forget(&mut self) {
        self.in_flight = 0;
    }

    /// Makes a request available: its header, and pieces of data (address and bytes) that the device writes or reads. `None`: the slot is in use, something is too long, or the queue's RAM is none.
    #[must_use]
    pub fn submit(&mut self, memory: &GuestMemory, slot: u8, header: &[u8], data: &[(u64, u32)], device_writes: bool) -> Option<()> {
        let place = self.put_header(memory, slot, header, data)?;
        memory.write_slice(place + STATUS, &[NO_STATUS])?;
        // The first 16 bytes stand alone, as every driver has them.
        let (first, rest) = (header.len().min(16) as u32, header.len().saturating_sub(16) as u32);
        let head = [(place, first, 0), (place + 16, rest, 0)];
        let status = (place + STATUS, 1, WRITE);
        self.publish(memory, slot, head.into_iter().chain(pieces(data, device_writes)).chain([status]))
    }

    /// Makes a packet available, as a network card's queues have it: its header and its data are all that there is. `None` as above.
    #[must_use]
    pub fn submit_packet(&mut self, memory: &GuestMemory, slot: u8, header: &[u8], data: &[(u64, u32)], device_writes: bool) -> Option<()> {
        let place = self.put_header(memory, slot, header, data)?;
        let head = [(place, header.len() as u32)];
        self.publish(memory, slot, pieces(&head, device_writes).chain(pieces(data, device_writes)))
    }

    /// Writes a header for what is to be submitted, if that fits and the slot is free; where it stands.
    fn put_header(&self, memory: &GuestMemory, slot: u8, header: &[u8], data: &[(u64, u32)]) -> Option<u64> {
        let fits = slot < SLOTS && !self.is_in_flight(slot) && header.len() <= MAX_HEADER && data.len() <= MAX_PIECES;
        fits.then_some(())?;
        let place = self.header(slot);
        memory.write_slice(place, header)?;
        Some(place)
    }

    fn publish(&mut self, memory: &GuestMemory, slot: u8, parts: impl Iterator<Item = (u64, u32, u16)>) -> Option<()> {
        let table = Self::table(self.base, slot);
        let mut count = 0;
        let mut parts = parts.filter(|(_, length, _)| *length > 0).peekable();
        while let Some((address, length, flags)) = parts.next() {
            let (more, next) = if parts.peek().is_some() { (NEXT, count as u16 + 1) } else { (0, 0) };
            Self::describe(memory, table + 16 * count, address, length, flags | more, next)?;
            count += 1;
        }
        let length = 16 * count as u32;
        Self::describe(memory, self.base + 16 * u64::from(slot), table, length, INDIRECT, 0)?;
        let element = self.base + AVAILABLE + 4 + 2 * u64::from(self.next % u16::from(SLOTS));
        memory.write_u16(element, slot.into())?;
        self.next = self.next.wrapping_add(1);
        // The request is seen before the index says that it is there.
        fence(Ordering::Release);
        memory.write_u16(self.base + AVAILABLE + 2, self.next)?;
        self.in_flight |= 1 << slot;
        Some(())
    }

    fn describe(memory: &GuestMemory, at: u64, address: u64, length: u32, flags: u16, next: u16) -> Option<()> {
        let rest = u64::from(length) | u64::from(flags) << 32 | u64::from(next) << 48;
        memory.write_slice(at, &address.to_le_bytes())?;
        memory.write_slice(at + 8, &rest.to_le_bytes())
    }

    /// Whether the device wants to be told of what was made available. Asked once after several requests.
    #[must_use]
    pub fn wants_notification(&self, memory: &GuestMemory) -> bool {
        // The index is seen before the device's wish is looked at, as the device has it the other way round.
        fence(Ordering::SeqCst);
        Words::read_u16(memory, self.base + USED).is_none_or(|flags| flags & NO_NOTIFY == 0)
    }

    /// Takes a request that ended. `None`: none has.
    #[must_use]
    pub fn ended(&mut self, memory: &GuestMemory) -> Option<Ended> {
        // No more than all of the ring: what is in it beyond that is no device's.
        for _ in 0..SLOTS {
            if self.in_flight == 0 || Words::read_u16(memory, self.base + USED + 2)? == self.seen {
                return None;
            }
            // The element is read behind the index.
            fence(Ordering::Acquire);
            let element = self.base + USED + 4 + 8 * u64::from(self.seen % u16::from(SLOTS));
            let (number, written) = (memory.read_u32(element)?, memory.read_u32(element + 4)?);
            self.seen = self.seen.wrapping_add(1);
            let Some(slot) = u8::try_from(number).ok().filter(|slot| *slot < SLOTS && self.is_in_flight(*slot)) else {
                continue;
            };
            self.in_flight &= !(1 << slot);
            let [status] = memory.read::<1>(self.header(slot) + STATUS)?;
            return Some((slot, status, written));
        }
        None
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::memory::tests::ram;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::vec::Vec;
    use tessera_virtqueue::{Features, Layout, Queue, Record, Segment};

    const BASE: u64 = 0x1_0000;

    /// The device's side.
    pub(crate) struct Device {
        queue: Queue,
        record: Box<Record>,
    }

    impl Device {
        pub(crate) fn new(config: &QueueConfig, memory: &GuestMemory) -> Self {
            let record = Box::new(Record::new());
            let layout = Layout {
                size: config.size,
                descriptors: config.descriptors,
                available: config.available,
                used: config.used,
            };
            let features = Features {
                indirect: true,
                event_index: false,
            };
            Self {
                queue: Queue::new(layout, features, memory, &record).unwrap(),
                record,
            }
        }

        /// The next request and its buffers.
        pub(crate) fn take(&mut self, memory: &GuestMemory) -> Option<(u16, Vec<Segment>)> {
            let head = self.queue.pop(memory, &self.record).unwrap()?;
            Some((head, self.queue.chain(memory, head).map(Result::unwrap).collect()))
        }

        /// The same, where a driver may have broken a rule.
        pub(crate) fn try_take(&mut self, memory: &GuestMemory) -> Option<(u16, Vec<Segment>)> {
            let head = self.queue.pop(memory, &self.record).ok()??;
            let segments = self.queue.chain(memory, head).collect::<Result<Vec<_>, _>>().ok()?;
            Some((head, segments))
        }

        pub(crate) fn try_finish(&mut self, memory: &GuestMemory, head: u16, written: u32) -> Option<()> {
            self.queue.push(memory, &self.record, head, written).ok()
        }

        pub(crate) fn finish(&mut self, memory: &GuestMemory, head: u16, written: u32) {
            self.queue.push(memory, &self.record, head, written).unwrap();
        }

        pub(crate) fn end(&mut self, memory: &GuestMemory, head: u16, segments: &[Segment], status: u8) {
            memory.write_slice(segments.last().unwrap().address, &[status]).unwrap();
            self.queue.push(memory, &self.record, head, 1).unwrap();
        }
    }

    #[test]
    fn a_device_sees_what_was_asked_for() {
        let memory = ram(&[256 << 10]);
        let mut driver = Driver::new(&memory, BASE).unwrap();
        let mut device = Device::new(&driver.queue(), &memory);
        let data: Vec<_> = (0..MAX_PIECES as u64).map(|piece| (0x1000 + 512 * piece, 512)).collect();
        for round in 0..100u8 {
            let slot = round % SLOTS;
            driver.submit(&memory, slot, &[round; 16], &data, true).unwrap();
            assert!(driver.submit(&memory, slot, &[], &[], true).is_none(), "it is in flight");
            driver.submit(&memory, (slot + 1) % SLOTS, &[round; 32], &data[..1], false).unwrap();
            assert!(driver.wants_notification(&memory));
            let (head, first) = device.take(&memory).unwrap();
            let (other, second) = device.take(&memory).unwrap();
            assert_eq!(
                (head, first.len(), first[1].writable, first[1].address),
                (u16::from(slot), MAX_PIECES + 2, true, 0x1000)
            );
            assert_eq!(memory.read(first[0].address), Some([round; 16]));
            assert_eq!((second.len(), second[1].length, second[2].writable), (4, 16, false));
            assert_eq!(driver.ended(&memory), None);
            // In any order.
            device.end(&memory, other, &second, 1);
            device.end(&memory, head, &first, 0);
            assert_eq!(driver.ended(&memory), Some(((slot + 1) % SLOTS, 1, 1)));
            assert_eq!(driver.ended(&memory), Some((slot, 0, 1)));
            assert_eq!(driver.ended(&memory), None);
        }
        assert!(Driver::new(&memory, 200 << 10).is_none());
    }

    proptest! {
        #[test]
        fn whatever_stands_there_names_a_slot_in_flight(content in prop::collection::vec(any::<u8>(), 0x1000), submit in prop::collection::vec(0u8..40, 0..40)) {
            let memory = ram(&[256 << 10]);
            let mut driver = Driver::new(&memory, BASE).unwrap();
            let mut in_flight = std::collections::BTreeSet::new();
            for slot in submit {
                if driver.submit(&memory, slot, &[0; 16], &[], true).is_some() {
                    prop_assert!(in_flight.insert(slot));
                }
            }
            memory.write_slice(BASE, &content).unwrap();
            while let Some((slot, ..)) = driver.ended(&memory) {
                prop_assert!(in_flight.remove(&slot));
            }
        }
    }
}
