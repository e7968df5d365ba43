//! A queue of buffers to receive into. Each is one descriptor; a packet may lie in several of them (virtio 1.2, 5.1.6.3.1).

use super::header;
use crate::drivers::frame::{Received, SHORTEST};
use crate::nic::Sink;
use crate::packet::LONGEST;
use alloc::{string::String, vec, vec::Vec};
use tessera_device::{
    DmaBuffer, Segment,
    hardware::Platform,
    virtio::{Broken, Configuration, Ring, flags},
};

/// Bytes of a buffer: a frame with a header, and a packet of 64 KiB in 33 of them.
pub const BUFFER: u32 = 2048;
/// Buffers of a queue.
const QUEUE_SIZE: u16 = 256;

/// What was received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets without sense.
    pub errors: u64,
}

/// The queue.
pub struct Receiver {
    ring: Ring,
    buffers: DmaBuffer,
    /// Whether the device has a buffer.
    given: Vec<bool>,
    /// Pieces of the packet at hand, and their buffers.
    pieces: Vec<Segment>,
    heads: Vec<u16>,
}

impl Receiver {
    /// Makes the queue with a number.
    pub fn new(configuration: &Configuration, platform: &dyn Platform, number: u16) -> Result<Self, String> {
        let ring = Ring::new(configuration, platform, number, QUEUE_SIZE)?;
        let count = usize::from(ring.size());
        let buffers = platform.allocate(count * BUFFER as usize).ok_or(crate::drivers::NO_MEMORY)?;
        Ok(Self {
            ring,
            buffers,
            given: vec![false; count],
            // As many as ever stand there: nothing is allocated for a packet. A tag that is taken out makes one more.
            pieces: Vec::with_capacity(count + 1),
            heads: Vec::with_capacity(count),
        })
    }

    /// Hands it to a device that was reset, which has no buffers yet.
    pub fn reset(&mut self, configuration: &Configuration, accepted: u64, vector: Option<u16>) -> Result<(), String> {
        self.ring.reset(configuration, accepted, vector)?;
        for buffer in 0..self.ring.size() {
            let physical = self.buffers.physical() + u64::from(buffer) * u64::from(BUFFER);
            self.ring.describe(buffer, physical, BUFFER, flags::WRITE, 0);
            self.ring.offer(buffer);
        }
        self.given.fill(true);
        Ok(())
    }

    /// Shows the device the buffers that it may fill again.
    pub fn publish(&mut self, configuration: &Configuration) {
        self.ring.publish(configuration);
    }

    /// Takes at most `budget` packets. Answers how many.
    pub fn received(&mut self, budget: u32, mergeable: bool, count: &mut Count, sink: &mut dyn Sink) -> Result<u32, Broken> {
        let mut left = self.ring.look()?;
        let mut taken = 0;
        while left > 0 && taken < budget {
            left -= self.packet(left, mergeable, count, sink)?;
            taken += 1;
        }
        Ok(taken)
    }

    /// Takes a packet, of at most `left` buffers. Answers how many it had.
    fn packet(&mut self, left: u16, mergeable: bool, count: &mut Count, sink: &mut dyn Sink) -> Result<u16, Broken> {
        self.pieces.clear();
        self.heads.clear();
        let first = self.piece(header::LENGTH)?;
        let words = [0, 4, 8].map(|offset| self.buffers.read::<u32>(usize::from(first) * BUFFER as usize + offset));
        // Without the feature the number of buffers may be anything.
        let buffers = if mergeable { (words[2] >> 16) as u16 } else { 1 };
        if buffers == 0 || buffers > left {
            return Err(Broken);
        }
        for _ in 1..buffers {
            self.piece(0)?;
        }
        let length = self.pieces.iter().map(|piece| piece.length).sum::<u32>();
        let head = self.pieces.first().map_or(0, |piece| piece.length);
        self.pieces.retain(|piece| piece.length > 0);
        let decoded = header::decode(words, length).filter(|_| head >= SHORTEST && length <= LONGEST);
        match decoded {
            Some((offload, _)) => {
                count.packets += 1;
                count.bytes += u64::from(length);
                let (frame, vlan) = Received::new(&self.buffers, &mut self.pieces, length, offload, None);
                sink.received(&frame, vlan);
            }
            None => count.errors += 1,
        }
        for head in &self.heads {
            self.given[usize::from(*head)] = true;
            self.ring.offer(*head);
        }
        Ok(buffers)
    }

    /// Takes a buffer, whose packet begins `skip` bytes behind its start.
    fn piece(&mut self, skip: u32) -> Result<u16, Broken> {
        let used = self.ring.take().ok_or(Broken)?;
        let given = self.given.get_mut(used.head as usize).ok_or(Broken)?;
        if !core::mem::take(given) || used.length < skip || used.length > BUFFER {
            return Err(Broken);
        }
        self.heads.push(used.head as u16);
        self.pieces.push(Segment {
            physical: self.buffers.physical() + u64::from(used.head) * u64::from(BUFFER) + u64::from(skip),
            length: used.length - skip,
        });
        Ok(used.head as u16)
    }

    /// Wants an interrupt at the next packet. Answers whether there is one already.
    pub fn listen(&mut self) -> bool {
        self.ring.interrupt(Some(0));
        self.ring.look().is_ok_and(|new| new > 0)
    }

    /// Wants no interrupts.
    pub fn ignore(&self) {
        self.ring.interrupt(None);
    }
}
