//! Captures of what goes through a port: a file in pcapng that is read while it is written.

mod pcapng;

pub use pcapng::Direction;

use crate::packet::Packet;
use alloc::{collections::VecDeque, vec, vec::Vec};

/// Bytes that a capture keeps, and the place of the first of them in the file.
#[derive(Debug)]
pub struct Capture {
    bytes: VecDeque<u8>,
    /// Bytes of the file that were read and forgotten.
    forgotten: u64,
    room: usize,
    snap: u32,
    frames: u64,
    lost: u64,
    running: bool,
    /// One frame's beginning, used again for each.
    scratch: Vec<u8>,
}

impl Capture {
    /// Begins a file about a port, with up to `snap` bytes of each frame and room for `room` bytes.
    #[must_use]
    pub fn new(port: &str, snap: u32, room: usize) -> Self {
        let mut head = Vec::new();
        pcapng::begin(port, snap, &mut head);
        Self {
            bytes: head.into(),
            forgotten: 0,
            room,
            snap,
            frames: 0,
            lost: 0,
            running: true,
            scratch: vec![0; snap as usize],
        }
    }

    /// Bytes of each frame.
    #[must_use]
    pub const fn snap(&self) -> u32 {
        self.snap
    }

    /// Bytes that may wait.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.room
    }

    /// Bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.bytes.len()
    }

    /// Frames in the file, and those that found no room.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64) {
        (self.frames, self.lost)
    }

    /// It goes on.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.running
    }

    /// Adds a frame that passed at a time in nanoseconds since 1970. One that finds no room is counted.
    pub fn add(&mut self, time: u64, packet: &dyn Packet, direction: Direction) {
        if !self.running {
            return;
        }
        let length = packet.length();
        let kept = length.min(self.snap);
        if self.bytes.len() + pcapng::packet_length(kept) > self.room {
            self.lost += 1;
            return;
        }
        let part = &mut self.scratch[..kept as usize];
        packet.copy_out(0, part);
        pcapng::packet(time, part, length, direction, &mut |bytes| self.bytes.extend(bytes));
        self.frames += 1;
    }

    /// Ends it, with a word about what was lost.
    pub fn stop(&mut self, time: u64) {
        if core::mem::take(&mut self.running) {
            // There is always room for this: it comes once.
            pcapng::end(time, self.frames + self.lost, self.lost, &mut |bytes| self.bytes.extend(bytes));
        }
    }

    /// Bytes of the file from `from` on, up to `most`, and whether they are its last. `None`: what was asked for is forgotten already, or was never there.
    #[must_use]
    pub fn peek(&self, from: u64, most: usize) -> Option<(Vec<u8>, bool)> {
        let skip = usize::try_from(from.checked_sub(self.forgotten)?).ok()?;
        let rest = self.bytes.len().checked_sub(skip)?;
        let count = rest.min(most);
        let part = self.bytes.iter().skip(skip).take(count).copied().collect();
        Some((part, !self.running && count == rest))
    }

    /// The same; what lies before `from` is forgotten.
    pub fn read(&mut self, from: u64, most: usize) -> Option<(Vec<u8>, bool)> {
        let part = self.peek(from, most)?;
        // It fits: there was something to look at.
        self.bytes.drain(..(from - self.forgotten) as usize);
        self.forgotten = from;
        Some(part)
    }
}

#[cfg(test)]
mod tests;
