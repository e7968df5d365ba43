//! Frames in memory that devices reach, for what a card cannot send from where it lies.

use crate::packet::{Offload, Packet};
use alloc::vec::Vec;
use tessera_device::{DmaBuffer, Piece, Segment};

/// Bytes of one: a jumbo frame.
pub const FRAME: usize = 9216;

/// A frame. Complete: nothing is left to do.
struct Frame {
    memory: DmaBuffer,
    segment: [Segment; 1],
}

impl Packet for Frame {
    fn length(&self) -> u32 {
        self.segment[0].length
    }
    fn copy_out(&self, offset: u32, bytes: &mut [u8]) {
        self.memory.part(0, self.length() as usize).copy_out(offset as usize, bytes);
    }
    fn segments(&self) -> Option<&[Segment]> {
        Some(&self.segment)
    }
    fn offload(&self) -> Offload {
        Offload::default()
    }
    fn visit(&self, each: &mut dyn FnMut(Piece<'_>)) {
        each(self.memory.piece(0, self.length() as usize));
    }
}

/// A fixed number of them.
pub struct Bounce {
    frames: Vec<Frame>,
    free: Vec<u32>,
}

impl Bounce {
    /// As many as `memory` has room for.
    #[must_use]
    pub fn new(memory: &DmaBuffer) -> Self {
        let frames: Vec<Frame> = (0..memory.length() / FRAME)
            .map(|number| {
                let memory = memory.part(number * FRAME, FRAME);
                let segment = [Segment {
                    physical: memory.physical(),
                    length: 0,
                }];
                Frame { memory, segment }
            })
            .collect();
        let free = (0..frames.len() as u32).collect();
        Self { frames, free }
    }

    /// Copies a frame and gives the copy to `send` with its number. It is taken until [`Self::free`], unless `send` answers false. False: there was none, or it was too long, or `send` did not take it.
    pub fn copy(&mut self, packet: &dyn Packet, send: impl FnOnce(&dyn Packet, u32) -> bool) -> bool {
        let length = packet.length() as usize;
        let Some(number) = self.free.pop_if(|_| length <= FRAME && length > 0) else {
            return false;
        };
        let frame = &mut self.frames[number as usize];
        // Only as much as there is, however often its owner changes it.
        let mut offset = 0;
        packet.visit(&mut |piece| {
            let piece = piece.part(0, length - offset);
            frame.memory.copy_from(offset, piece);
            offset += piece.length();
        });
        // What another frame left there is nobody's business.
        frame.memory.clear(offset, length - offset);
        frame.segment[0].length = length as u32;
        let sent = send(frame, number);
        if !sent {
            self.free.push(number);
        }
        sent
    }

    /// A card is done with one.
    pub fn free(&mut self, number: u32) {
        if (number as usize) < self.frames.len() && !self.free.contains(&number) {
            self.free.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Bytes;
    use alloc::vec;

    #[test]
    fn each_is_used_once_at_a_time() {
        let memory = DmaBuffer::of_this_process(2 * FRAME + 100);
        let mut bounce = Bounce::new(&memory);
        let given = Bytes::plain((0..5000).map(|byte| byte as u8).collect::<Vec<u8>>());
        let mut numbers = vec![];
        for taken in [true, false, true] {
            let sent = bounce.copy(&given, |copy, number| {
                let mut bytes = vec![0; 5000];
                copy.copy_out(0, &mut bytes);
                assert_eq!(bytes, given.0);
                assert_eq!(copy.segments().unwrap()[0].length, 5000);
                if taken {
                    numbers.push(number);
                }
                taken
            });
            assert_eq!(sent, taken);
        }
        assert_ne!(numbers[0], numbers[1]);
        assert!(!bounce.copy(&given, |_, _| true), "all are taken");
        bounce.free(numbers[0]);
        bounce.free(numbers[0]);
        assert!(!bounce.copy(&Bytes::plain(vec![0; FRAME + 1]), |_, _| true), "too long");
        assert!(bounce.copy(&given, |_, _| true));
        assert!(!bounce.copy(&given, |_, _| true), "freed once");
    }
}
