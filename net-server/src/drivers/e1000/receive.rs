//! A ring of buffers to receive into: legacy descriptors (8254x manual, 3.2.3), or advanced ones with one buffer (82576 datasheet, 7.1.5).

use super::registers::{queue, receive_queue};
use crate::drivers::frame::{Received, SHORTEST};
use crate::nic::Sink;
use crate::packet::Offload;
use alloc::{string::String, vec::Vec};
use core::sync::atomic::{Ordering, fence};
use tessera_device::{
    DmaBuffer, Segment,
    hardware::{Platform, Registers},
};

/// Bytes of a buffer.
pub const BUFFER: u32 = 2048;
/// Buffers of a queue.
const COUNT: u16 = 256;
/// Bytes of a descriptor.
const DESCRIPTOR: usize = 16;
/// Buffers of the longest frame that a card takes, 16 KiB.
const MOST: usize = 8;

/// What a card wrote into a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrote {
    length: u32,
    last: bool,
    broken: bool,
    verified: bool,
    vlan: Option<u16>,
}

/// The second half of a descriptor; `None`: the card has not written it.
pub fn decode(advanced: bool, word: u64) -> Option<Wrote> {
    let (status, errors, length) = if advanced {
        (word as u32 & 0xf_ffff, (word >> 24) as u8, (word >> 32) as u16)
    } else {
        ((word >> 32) as u32 & 0xff, (word >> 40) as u8, word as u16)
    };
    if status & 1 == 0 {
        return None;
    }
    // Bits of the errors: 5 checksum of TCP or UDP, 6 of IP, others: of the frame. Bit 2 of the status: nothing was checked.
    let checked = status & 1 << 2 == 0 && status & (1 << 4 | 1 << 5) != 0;
    Some(Wrote {
        length: length.into(),
        last: status & 1 << 1 != 0,
        broken: errors & 0x97 != 0,
        verified: checked && errors & 0x60 == 0,
        vlan: (status & 1 << 3 != 0).then_some((word >> 48) as u16),
    })
}

/// What was received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets that were broken.
    pub errors: u64,
}

/// The ring.
pub struct Receiver {
    advanced: bool,
    /// First register.
    base: u64,
    ring: DmaBuffer,
    buffers: DmaBuffer,
    /// The next that the card writes, and what it was told last.
    next: u16,
    tail: u16,
    /// Pieces of the frame at hand, and whether it is thrown away.
    pieces: Vec<Segment>,
    length: u32,
    bad: bool,
}

impl Receiver {
    /// Memory for queue `number`.
    pub fn new(advanced: bool, platform: &dyn Platform, number: u16) -> Result<Self, String> {
        let allocate = |bytes: usize| platform.allocate(bytes).ok_or(crate::drivers::NO_MEMORY);
        Ok(Self {
            advanced,
            base: receive_queue(advanced, number),
            ring: allocate(usize::from(COUNT) * DESCRIPTOR)?,
            buffers: allocate(usize::from(COUNT) * BUFFER as usize)?,
            next: 0,
            tail: 0,
            // As many as ever stand there: nothing is allocated for a frame. A tag that is taken out makes one more.
            pieces: Vec::with_capacity(MOST + 1),
            length: 0,
            bad: false,
        })
    }

    fn renew(&self, index: u16) {
        let at = usize::from(index) * DESCRIPTOR;
        let physical = self.buffers.physical() + u64::from(index) * u64::from(BUFFER);
        self.ring.write(at, physical);
        self.ring.write(at + 8, 0u64);
    }

    /// Hands it to a card that was reset. It gets buffers by [`Self::start`].
    pub fn reset(&mut self, registers: &dyn Registers) {
        for index in 0..COUNT {
            self.renew(index);
        }
        (self.next, self.tail, self.length, self.bad) = (0, 0, 0, false);
        self.pieces.clear();
        registers.write64(self.base + queue::BASE, self.ring.physical());
        registers.write32(self.base + queue::LENGTH, u32::from(COUNT) * DESCRIPTOR as u32);
        if self.advanced {
            // One buffer for each descriptor, its size in KiB; with several queues a full one must not hold up the others.
            registers.write32(self.base + queue::SPLIT, BUFFER >> 10 | 1 << 25 | 1 << 31);
        }
        registers.write32(self.base + queue::HEAD, 0);
        registers.write32(self.base + queue::TAIL, 0);
        if self.advanced {
            registers.write32(self.base + queue::CONTROL, queue::ENABLE);
        }
    }

    /// Whether the card has enabled it.
    pub fn is_enabled(&self, registers: &dyn Registers) -> bool {
        !self.advanced || registers.read32(self.base + queue::CONTROL) & queue::ENABLE != 0
    }

    /// Gives the card all buffers but one: a full ring would look empty.
    pub fn start(&mut self, registers: &dyn Registers) {
        self.tail = COUNT - 1;
        fence(Ordering::Release);
        registers.write32(self.base + queue::TAIL, self.tail.into());
    }

    fn word(&self) -> u64 {
        self.ring.read(usize::from(self.next) * DESCRIPTOR + 8)
    }

    /// Whether something has arrived.
    pub fn has_work(&self) -> bool {
        decode(self.advanced, self.word()).is_some()
    }

    /// Takes at most `budget` frames. Answers how many.
    pub fn received(&mut self, budget: u32, count: &mut Count, sink: &mut dyn Sink) -> u32 {
        let (mut taken, mut looked) = (0, 0);
        // Once around the ring at most, whatever the card writes.
        while taken < budget && looked < COUNT {
            let Some(wrote) = decode(self.advanced, self.word()) else { break };
            // Acquire: what the card wrote before is there.
            fence(Ordering::Acquire);
            looked += 1;
            let index = self.next;
            self.next = (self.next + 1) % COUNT;
            self.piece(index, wrote);
            if !wrote.last {
                continue;
            }
            taken += 1;
            if self.bad || self.length < SHORTEST {
                count.errors += 1;
            } else {
                count.packets += 1;
                count.bytes += u64::from(self.length);
                let offload = Offload {
                    verified: wrote.verified,
                    ..Offload::default()
                };
                let (frame, vlan) = Received::new(&self.buffers, &mut self.pieces, self.length, offload, wrote.vlan);
                sink.received(&frame, vlan);
            }
            self.pieces.clear();
            (self.length, self.bad) = (0, false);
        }
        taken
    }

    fn piece(&mut self, index: u16, wrote: Wrote) {
        let first = self.pieces.is_empty();
        // The check sequence may have filled the last piece alone, and was taken off.
        if wrote.length == 0 && wrote.last && !first && !wrote.broken {
            return;
        }
        let fits = wrote.length > 0 && wrote.length <= BUFFER && self.pieces.len() < MOST;
        // The head of a frame stands in its first piece.
        if wrote.broken || !fits || first && wrote.length < SHORTEST {
            self.bad = true;
            return;
        }
        self.pieces.push(Segment {
            physical: self.buffers.physical() + u64::from(index) * u64::from(BUFFER),
            length: wrote.length,
        });
        self.length += wrote.length;
    }

    /// Gives the card again what was taken, but for the pieces of a frame that is not whole yet.
    pub fn give_back(&mut self, registers: &dyn Registers) {
        let held = self.pieces.len() as u16;
        // The last that the card may have: the one before the held pieces is left out, as in `start`.
        let tail = (self.next + 2 * COUNT - 1 - held) % COUNT;
        if tail == self.tail {
            return;
        }
        while self.tail != tail {
            // The one that was left out until now comes first.
            self.renew(self.tail);
            self.tail = (self.tail + 1) % COUNT;
        }
        // What was just reached stays out; its old content must not look like new.
        self.renew(self.tail);
        fence(Ordering::Release);
        registers.write32(self.base + queue::TAIL, self.tail.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_descriptors_say_the_same() {
        let expected = |length, last, broken, verified, vlan| {
            Some(Wrote {
                length,
                last,
                broken,
                verified,
                vlan,
            })
        };
        for (advanced, status, errors, length) in [(false, 32, 40, 0), (true, 0, 24, 32)] {
            let word = |bits: u64, wrong: u64, bytes: u64, tag: u64| bits << status | wrong << errors | bytes << length | tag << 48;
            assert_eq!(decode(advanced, word(0, 0xff, 60, 1)), None);
            assert_eq!(decode(advanced, word(1, 0, 2048, 1)), expected(2048, false, false, false, None));
            assert_eq!(decode(advanced, word(0x23, 0, 60, 1)), expected(60, true, false, true, None));
            assert_eq!(decode(advanced, word(0x2b, 0x20, 60, 7)), expected(60, true, false, false, Some(7)));
            assert_eq!(decode(advanced, word(0x03, 0x80, 60, 7)), expected(60, true, true, false, None));
        }
    }
}
