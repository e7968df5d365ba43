//! Packets that a guest sends.

use super::features::Features;
use super::header::{self, LENGTH};
use super::queue::Served;
use crate::packet::{LONGEST, Offload, Packet};
use alloc::vec::Vec;
use core::cell::{Cell, OnceCell};
use tessera_device::{Piece, Ram, Segment};
use tessera_virtqueue::{Segment as Buffer, Violation};

/// Shortest packet: addresses and type (IEEE 802.3, 3.2).
const SHORTEST: u32 = 14;
/// Pieces of physical memory of one packet.
const MOST_SEGMENTS: usize = 512;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Its memory is the guest's again.
    Done,
    /// Its memory is in use until [`super::Device::complete`] with the token.
    Held,
    /// It cannot be taken now: offered again at the next turn.
    Later,
}

/// A packet that is held. Names no other packet until it was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub(super) pair: u8,
    pub(super) head: u16,
    /// Number of the attachment.
    pub(super) epoch: u32,
}

/// A packet in a guest's memory, which the guest may be changing.
pub struct GuestPacket<'a> {
    ram: &'a Ram,
    buffers: &'a [Buffer],
    length: u32,
    offload: Offload,
    physical: OnceCell<Option<Vec<Segment>>>,
    spare: Cell<Vec<Segment>>,
}

impl Packet for GuestPacket<'_> {
    fn length(&self) -> u32 {
        self.length
    }

    fn copy_out(&self, offset: u32, bytes: &mut [u8]) {
        let (mut skip, mut filled) = (offset, 0);
        for buffer in self.buffers {
            if filled == bytes.len() {
                return;
            }
            if skip >= buffer.length {
                skip -= buffer.length;
                continue;
            }
            let piece = self.ram.piece(buffer.address + u64::from(skip), buffer.length - skip);
            filled += piece.map_or(0, |piece| piece.copy_out(&mut bytes[filled..]));
            skip = 0;
        }
        bytes[filled..].fill(0);
    }

    fn segments(&self) -> Option<&[Segment]> {
        let translated = self.physical.get_or_init(|| {
            let mut segments = self.spare.take();
            segments.clear();
            for buffer in self.buffers {
                self.ram.translate(buffer.address, buffer.length, &mut segments, MOST_SEGMENTS)?;
            }
            Some(segments)
        });
        translated.as_deref()
    }

    fn offload(&self) -> Offload {
        self.offload
    }

    fn visit(&self, each: &mut dyn FnMut(Piece<'_>)) {
        for buffer in self.buffers {
            // It was RAM when it was read, and RAM stays.
            if let Some(piece) = self.ram.piece(buffer.address, buffer.length) {
                each(piece);
            }
        }
    }
}

/// The transmit queue of a pair.
pub struct Transmit {
    pub served: Served,
    /// Packets that are held.
    pub held: u16,
    buffers: Vec<Buffer>,
    segments: Vec<Segment>,
}

/// What was read of a request.
enum Read {
    Packet(u32, Offload),
    /// It makes no sense and is not sent.
    Malformed,
}

impl Transmit {
    pub const fn new(served: Served) -> Self {
        Self {
            served,
            held: 0,
            buffers: Vec::new(),
            segments: Vec::new(),
        }
    }

    /// Reads the request `head` and offers its packet to `outlet`. `longest`: bytes of a frame. `None`: it made no sense.
    pub fn send(
        &mut self,
        ram: &Ram,
        features: Features,
        longest: u32,
        head: u16,
        outlet: &mut dyn FnMut(&GuestPacket<'_>) -> Sent,
    ) -> Result<Option<(Sent, u32)>, Violation> {
        let Read::Packet(length, offload) = self.read(ram, features, longest, head)? else {
            return Ok(None);
        };
        let packet = GuestPacket {
            ram,
            buffers: &self.buffers,
            length,
            offload,
            physical: OnceCell::new(),
            spare: Cell::new(core::mem::take(&mut self.segments)),
        };
        let sent = outlet(&packet);
        let spare = packet.spare.take();
        self.segments = packet.physical.into_inner().flatten().unwrap_or(spare);
        Ok(Some((sent, length)))
    }

    fn read(&mut self, ram: &Ram, features: Features, longest: u32, head: u16) -> Result<Read, Violation> {
        self.buffers.clear();
        if !self.served.read(ram, head, &mut self.buffers)? {
            return Ok(Read::Malformed);
        }
        // What is for the device to write is none of a packet.
        let readable = self.buffers.iter().take_while(|buffer| !buffer.writable).count();
        self.buffers.truncate(readable);
        let mut bytes = [0; LENGTH];
        let (mut filled, mut gone) = (0, 0);
        for buffer in &mut self.buffers {
            let count = (LENGTH - filled).min(buffer.length as usize);
            if let Some(piece) = ram.piece(buffer.address, count as u32) {
                piece.copy_out(&mut bytes[filled..]);
            }
            filled += count;
            buffer.address += count as u64;
            buffer.length -= count as u32;
            gone += usize::from(buffer.length == 0);
            if filled == LENGTH {
                break;
            }
        }
        self.buffers.drain(..gone);
        // No overflow: a chain is less than 4 GiB.
        let length = self.buffers.iter().map(|buffer| buffer.length).sum();
        if filled < LENGTH || !(SHORTEST..=LONGEST).contains(&length) {
            return Ok(Read::Malformed);
        }
        Ok(match header::parse(&bytes, length, features) {
            Ok(offload) if length <= longest || offload.segmentation.is_some() => Read::Packet(length, offload),
            _ => Read::Malformed,
        })
    }
}
