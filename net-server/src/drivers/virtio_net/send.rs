//! A queue of packets to send. Each packet is one indirect descriptor, whose number is that of its slot: a header and a table.

use super::header;
use crate::drivers::frame::{ADDRESSES, SHORTEST, TAG, behind, tagged};
use crate::nic::Refused;
use crate::packet::{LONGEST, Packet};
use alloc::{string::String, vec, vec::Vec};
use tessera_device::{
    DmaBuffer,
    hardware::Platform,
    virtio::{Broken, Configuration, DESCRIPTOR, Ring, flags},
};

/// Pieces of a packet.
pub const MAX_SEGMENTS: usize = 32;
/// Packets that a queue holds at most.
const QUEUE_SIZE: u16 = 256;
/// Bytes of a slot: its header with addresses and a tag behind it (28), and its table.
const SLOT: usize = 32 + (MAX_SEGMENTS + 1) * DESCRIPTOR;

/// A free slot.
const FREE: u64 = u64::MAX;

/// The queue.
pub struct Sender {
    ring: Ring,
    slots: DmaBuffer,
    free: Vec<u16>,
    /// Whose packet a slot holds, and its length in the upper half; or [`FREE`].
    flying: Vec<u64>,
    /// What was taken when it was last looked whether it goes on, and since when.
    seen: (u16, u64),
}

impl Sender {
    /// Makes the queue with a number.
    pub fn new(configuration: &Configuration, platform: &dyn Platform, number: u16) -> Result<Self, String> {
        let ring = Ring::new(configuration, platform, number, QUEUE_SIZE)?;
        let count = usize::from(ring.size());
        let slots = platform.allocate(count * SLOT).ok_or(crate::drivers::NO_MEMORY)?;
        Ok(Self {
            ring,
            slots,
            free: Vec::new(),
            flying: vec![FREE; count],
            seen: (0, 0),
        })
    }

    /// Hands it to a device that was reset; nothing is in flight.
    pub fn reset(&mut self, configuration: &Configuration, accepted: u64, vector: Option<u16>) -> Result<(), String> {
        self.ring.reset(configuration, accepted, vector)?;
        self.free.clear();
        self.free.extend((0..self.ring.size()).rev());
        self.flying.fill(FREE);
        self.seen = (0, 0);
        for slot in 0..self.ring.size() {
            let table = self.slots.physical() + (usize::from(slot) * SLOT + 32) as u64;
            self.ring.describe(slot, table, 0, flags::INDIRECT, 0);
        }
        Ok(())
    }

    /// Puts a packet in.
    pub fn add(&mut self, packet: &dyn Packet, vlan: Option<u16>, tag: u32) -> Result<(), Refused> {
        let length = packet.length();
        let segments = packet.segments().ok_or(Refused::Impossible)?;
        if !(SHORTEST..=LONGEST).contains(&length) {
            return Err(Refused::Impossible);
        }
        // Behind the addresses there may be the rest of the first piece.
        if segments.len() > MAX_SEGMENTS {
            return Err(Refused::Unfit);
        }
        let slot = self.free.pop().ok_or(Refused::Full)?;
        let at = usize::from(slot) * SLOT;
        let (mut first, mut skip, mut shift) = (header::LENGTH, 0, 0);
        if let Some(vlan) = vlan {
            self.slots.copy_in(at + header::LENGTH as usize, &tagged(packet, vlan));
            first += ADDRESSES + TAG;
            (skip, shift) = (ADDRESSES, TAG as u16);
        }
        let [one, two, three] = header::encode(&packet.offload(), shift);
        self.slots.write(at, one);
        self.slots.write(at + 4, two);
        self.slots.write(at + 8, three);
        let table = at + 32;
        self.describe(table, 0, self.slots.physical() + at as u64, first, false);
        let mut count = 1;
        // Not `behind` for all: most packets have one piece and no tag.
        if skip == 0 {
            for segment in segments {
                self.describe(table, count, segment.physical, segment.length, count == segments.len());
                count += 1;
            }
        } else {
            let pieces = behind(segments, skip).count();
            for segment in behind(segments, skip) {
                self.describe(table, count, segment.physical, segment.length, count == pieces);
                count += 1;
            }
        }
        self.ring.set_length(slot, (count * DESCRIPTOR) as u32);
        self.flying[usize::from(slot)] = u64::from(tag) | u64::from(length) << 32;
        self.ring.offer(slot);
        Ok(())
    }

    fn describe(&self, table: usize, index: usize, physical: u64, length: u32, last: bool) {
        let at = table + index * DESCRIPTOR;
        let flags = if last { 0 } else { u64::from(flags::NEXT) };
        self.slots.write(at, physical);
        self.slots.write(at + 8, u64::from(length) | flags << 32 | (index as u64 + 1) << 48);
    }

    /// Shows the device what was put in.
    pub fn publish(&mut self, configuration: &Configuration) {
        self.ring.publish(configuration);
    }

    /// Tells of each packet that was sent: tag and length.
    pub fn sent(&mut self, each: &mut dyn FnMut(u32, u32)) -> Result<(), Broken> {
        if self.ring.look()? == 0 {
            return Ok(());
        }
        while let Some(used) = self.ring.take() {
            let place = self
                .flying
                .get_mut(used.head as usize)
                .filter(|place| **place != FREE)
                .ok_or(Broken)?;
            let packet = core::mem::replace(place, FREE);
            self.free.push(used.head as u16);
            each(packet as u32, (packet >> 32) as u32);
        }
        Ok(())
    }

    /// Wants an interrupt when what is in flight is mostly sent. Answers whether something was sent already.
    pub fn listen(&mut self) -> bool {
        let flying = self.ring.with_device();
        if flying == 0 {
            return false;
        }
        let after = flying - flying / 4 - 1;
        self.ring.interrupt(Some(after));
        self.ring.look().is_ok_and(|new| new > after)
    }

    /// Wants no interrupts.
    pub fn ignore(&self) {
        self.ring.interrupt(None);
    }

    /// Milliseconds since it went on last, while it has something to do.
    pub fn stands_since(&mut self, now: u64) -> u64 {
        let taken = self.ring.taken();
        if self.ring.with_device() == 0 || taken != self.seen.0 {
            self.seen = (taken, now);
        }
        now.saturating_sub(self.seen.1)
    }

    /// Forgets all packets. The device was reset, or is gone.
    pub fn drain(&mut self, each: &mut dyn FnMut(u32)) {
        for (slot, place) in self.flying.iter_mut().enumerate() {
            if *place != FREE {
                each(*place as u32);
                *place = FREE;
                self.free.push(slot as u16);
            }
        }
    }
}
