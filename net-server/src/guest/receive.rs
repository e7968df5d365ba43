//! Packets that a guest receives.

use super::features::{Features, Takes};
use super::header::{self, LENGTH};
use super::queue::Served;
use crate::packet::{Offload, Packet};
use alloc::vec::Vec;
use tessera_device::{Piece, Ram};
use tessera_virtqueue::{Segment as Buffer, Violation};

/// Bytes in front of a tag: the addresses.
const ADDRESSES: usize = 12;
/// Bytes of a tag (IEEE 802.1Q, 9.5).
const TAG: usize = 4;

/// Why a guest does not get a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// No driver is there, or it broke a rule.
    NotRunning,
    /// The driver does not want it.
    Filtered,
    /// The driver has no buffers there now.
    NoBuffers,
    /// It does not fit into a buffer, or cannot be finished.
    Unfit,
}

/// The receive queue of a pair.
pub struct Receive {
    pub served: Served,
    /// The driver was asked to notify of new buffers.
    pub starved: bool,
    buffers: Vec<Buffer>,
    /// Heads of the requests, and where the buffers of each end.
    heads: Vec<(u16, usize)>,
}

impl Receive {
    pub const fn new(served: Served) -> Self {
        Self {
            served,
            starved: false,
            buffers: Vec::new(),
            heads: Vec::new(),
        }
    }

    /// Takes buffers for `wanted` bytes.
    fn gather(&mut self, ram: &Ram, mergeable: bool, wanted: u64) -> Result<Result<(), Dropped>, Violation> {
        self.buffers.clear();
        self.heads.clear();
        let mut room = 0;
        while room < wanted {
            if !self.heads.is_empty() && !mergeable {
                return Ok(Err(Dropped::Unfit));
            }
            let Some(head) = self.next(ram)? else {
                return Ok(Err(Dropped::NoBuffers));
            };
            let from = self.buffers.len();
            let fits = self.served.read(ram, head, &mut self.buffers)?;
            // What the device may only read is none of a buffer to receive.
            let mut place = 0;
            self.buffers.retain(|buffer| {
                place += 1;
                place <= from || buffer.writable
            });
            if !fits || self.buffers.len() == from {
                self.heads.push((head, from));
                return Ok(Err(Dropped::Unfit));
            }
            room += self.buffers[from..].iter().map(|buffer| u64::from(buffer.length)).sum::<u64>();
            self.heads.push((head, self.buffers.len()));
        }
        Ok(Ok(()))
    }

    fn next(&mut self, ram: &Ram) -> Result<Option<u16>, Violation> {
        loop {
            if let Some(head) = self.served.take(ram)? {
                if core::mem::take(&mut self.starved) {
                    self.served.queue.disable_notifications(ram);
                }
                return Ok(Some(head));
            }
            self.starved = true;
            if !self.served.queue.enable_notifications(ram) {
                return Ok(None);
            }
        }
    }

    /// Puts a packet into the driver's buffers, with a tag behind the addresses if there is one. Answers its bytes.
    pub fn deliver(
        &mut self,
        ram: &Ram,
        (features, takes): (Features, Takes),
        packet: &dyn Packet,
        offload: &Offload,
        vlan: Option<u16>,
    ) -> Result<Result<u32, Dropped>, Violation> {
        let length = packet.length() + if vlan.is_some() { TAG as u32 } else { 0 };
        let wanted = LENGTH as u64 + u64::from(length);
        if let Err(dropped) = self.gather(ram, features.mergeable(), wanted)? {
            for (head, _) in self.heads.drain(..).rev() {
                self.served.put_back(head);
            }
            return Ok(Err(dropped));
        }
        let shift = if vlan.is_some() { TAG as u16 } else { 0 };
        let header = header::encode(offload, takes, shift, self.heads.len() as u16);
        let mut writer = Writer {
            ram,
            buffers: &self.buffers,
            offset: 0,
        };
        writer.write(Piece::of(&header));
        match vlan {
            None => packet.visit(&mut |piece| writer.write(piece)),
            Some(tag) => write_tagged(&mut writer, packet, tag),
        }
        let mut left = wanted;
        let mut from = 0;
        for (head, end) in self.heads.drain(..) {
            let room = self.buffers[from..end].iter().map(|buffer| u64::from(buffer.length)).sum();
            let here = left.min(room);
            self.served.done.push((head, here as u32));
            left -= here;
            from = end;
        }
        self.served.flush(ram)?;
        Ok(Ok(length))
    }
}

fn write_tagged(writer: &mut Writer<'_>, packet: &dyn Packet, tag: u16) {
    let [high, low] = tag.to_be_bytes();
    let field = [0x81, 0, high, low];
    let mut before = ADDRESSES;
    packet.visit(&mut |piece| {
        if before == 0 {
            return writer.write(piece);
        }
        let head = piece.part(0, before);
        before -= head.length();
        writer.write(head);
        if before == 0 {
            writer.write(Piece::of(&field));
            writer.write(piece.part(head.length(), piece.length()));
        }
    });
}

/// Writes into buffers, one behind the other. What has no room is lost: there is room for what was announced.
struct Writer<'a> {
    ram: &'a Ram,
    buffers: &'a [Buffer],
    /// In the first of them.
    offset: u32,
}

impl Writer<'_> {
    fn write(&mut self, mut piece: Piece<'_>) {
        while piece.length() > 0 {
            let Some(buffer) = self.buffers.first() else { return };
            let room = buffer.length - self.offset;
            let here = piece.part(0, room as usize);
            // It was RAM when it was read, and RAM stays.
            let _ = self.ram.copy_from(buffer.address + u64::from(self.offset), here);
            piece = piece.part(here.length(), piece.length());
            self.offset += here.length() as u32;
            if self.offset == buffer.length {
                self.buffers = &self.buffers[1..];
                self.offset = 0;
            }
        }
    }
}
