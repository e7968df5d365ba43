//! Two rings of frames in memory that two processes share, one each way. Neither trusts the other.
//!
//! ```text
//!  half of the memory = 0: frames ever written (u32) | 64: frames ever read (u32) | 128: slots of SLOT bytes: length (u32), frame
//! ```
//!
//! A side believes its own counter only as it remembers it, and takes the other's as a hint: one that makes no sense is a full or an empty ring. Frames are copied out before they are looked at.

use core::sync::atomic::{Ordering, fence};
use tessera_device::DmaBuffer;

/// Bytes of a slot.
const SLOT: usize = 2048;
/// Longest frame.
pub const FRAME: usize = SLOT - 4;
const WRITTEN: usize = 0;
const READ: usize = 64;
const SLOTS: usize = 128;

/// Which of the two this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The server with the port: it sends in the first half.
    Client,
    /// The network server.
    Switch,
}

/// One way.
#[derive(Clone, Debug)]
struct Ring {
    memory: DmaBuffer,
    slots: u32,
    /// This side's counter.
    own: u32,
}

impl Ring {
    fn new(memory: DmaBuffer, own: usize) -> Option<Self> {
        let slots = memory.length().checked_sub(SLOTS)? / SLOT;
        let slots = 1 << u32::try_from(slots).ok()?.checked_ilog2()?;
        // The process that was here before left it there.
        let own = memory.read(own);
        Some(Self { memory, slots, own })
    }

    /// Where a frame stands.
    const fn slot(&self, number: u32) -> usize {
        SLOTS + (number % self.slots) as usize * SLOT
    }

    fn write(&mut self, frame: &[u8]) -> bool {
        let used = self.own.wrapping_sub(self.memory.read::<u32>(READ));
        if used >= self.slots || frame.is_empty() || frame.len() > FRAME {
            return false;
        }
        // Acquire: the reader is done with the slot that it gave back.
        fence(Ordering::Acquire);
        let slot = self.slot(self.own);
        self.memory.write(slot, frame.len() as u32);
        self.memory.copy_in(slot + 4, frame);
        self.own = self.own.wrapping_add(1);
        // Release: the frame is there before the counter says so.
        fence(Ordering::Release);
        self.memory.write(WRITTEN, self.own);
        true
    }

    fn read(&mut self, frame: &mut [u8]) -> Option<usize> {
        loop {
            let written: u32 = self.memory.read(WRITTEN);
            let there = written.wrapping_sub(self.own);
            if there == 0 {
                return None;
            }
            if there > self.slots {
                // The other side's counter makes no sense: what was there is lost.
                self.own = written;
                self.memory.write(READ, self.own);
                return None;
            }
            // Acquire: the frame is there, as the counter says.
            fence(Ordering::Acquire);
            let slot = self.slot(self.own);
            let length = self.memory.read::<u32>(slot) as usize;
            let fits = length > 0 && length <= FRAME.min(frame.len());
            if fits {
                self.memory.copy_out(slot + 4, &mut frame[..length]);
            }
            self.own = self.own.wrapping_add(1);
            // Release: the frame is copied before the writer may use the slot again.
            fence(Ordering::Release);
            self.memory.write(READ, self.own);
            if fits {
                return Some(length);
            }
        }
    }
}

/// Both ways.
#[derive(Clone, Debug)]
pub struct Rings {
    send: Ring,
    receive: Ring,
}

impl Rings {
    /// Takes up the rings where whoever was on this side before left them. `None`: the memory is too short. Memory that is all zero holds two empty rings.
    #[must_use]
    pub fn new(memory: &DmaBuffer, side: Side) -> Option<Self> {
        let half = memory.length() / 2;
        let (first, second) = (memory.part(0, half), memory.part(half, half));
        let (send, receive) = match side {
            Side::Client => (first, second),
            Side::Switch => (second, first),
        };
        Some(Self {
            send: Ring::new(send, WRITTEN)?,
            receive: Ring::new(receive, READ)?,
        })
    }

    /// Sends a frame. False: the other side is behind, or the frame is longer than [`FRAME`].
    pub fn send(&mut self, frame: &[u8]) -> bool {
        self.send.write(frame)
    }

    /// Copies the next frame into `frame`, which should have [`FRAME`] bytes, and answers its length.
    pub fn receive(&mut self, frame: &mut [u8]) -> Option<usize> {
        self.receive.read(frame)
    }

    /// Whether a frame could be sent now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.send.own.wrapping_sub(self.send.memory.read::<u32>(READ)) < self.send.slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::VecDeque, vec, vec::Vec};

    fn both(length: usize) -> (Rings, Rings, DmaBuffer) {
        let memory = DmaBuffer::of_this_process(length);
        let rings = |side| Rings::new(&memory, side).expect("long enough");
        (rings(Side::Client), rings(Side::Switch), memory)
    }

    #[test]
    fn memory_that_is_too_short_is_refused() {
        for length in [0, 100, 2 * SLOTS, 2 * (SLOTS + SLOT) - 2] {
            assert!(Rings::new(&DmaBuffer::of_this_process(length), Side::Client).is_none(), "{length}");
        }
        assert!(Rings::new(&DmaBuffer::of_this_process(2 * (SLOTS + SLOT)), Side::Client).is_some());
    }

    proptest! {
        #[test]
        fn frames_come_as_they_were_sent(steps in prop::collection::vec((any::<bool>(), 0usize..2100, any::<bool>()), 0..200)) {
            let (mut client, mut switch, memory) = both(64 << 10);
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            for (number, (send, length, again)) in steps.into_iter().enumerate() {
                if again {
                    // Either may end and take its side up again.
                    client = Rings::new(&memory, Side::Client).unwrap();
                    switch = Rings::new(&memory, Side::Switch).unwrap();
                }
                if send {
                    let frame = vec![number as u8; length];
                    let room = client.has_room();
                    let sent = client.send(&frame);
                    prop_assert_eq!(sent, room && model.len() < 8 && (1..=FRAME).contains(&length));
                    if sent {
                        model.push_back(frame);
                    }
                } else {
                    let mut buffer = vec![0; FRAME];
                    let got = switch.receive(&mut buffer).map(|length| buffer[..length].to_vec());
                    prop_assert_eq!(got, model.pop_front());
                }
            }
        }

        #[test]
        fn whatever_the_other_side_writes_is_survived(writes in prop::collection::vec((0usize..64 << 10, any::<u32>()), 0..50), sends in 0usize..20) {
            let (mut client, _, memory) = both(64 << 10);
            for (place, value) in writes {
                memory.write(place & !3, value);
                let mut buffer = vec![0; FRAME];
                for _ in 0..40 {
                    if client.receive(&mut buffer).is_none() {
                        break;
                    }
                }
                for _ in 0..sends {
                    client.send(&[1; 60]);
                }
            }
        }
    }
}
