//! What a request of a virtio block driver says (virtio 1.2, 5.2.6).

use crate::controller::{Operation, Segment};
use crate::guest::Ram;
use alloc::vec::Vec;
use tessera_virtqueue::{Queue, Segment as Buffer};

/// Most buffers of data of one request, as guests are told.
pub const MAX_SEGMENTS: usize = 126;
/// Most pieces that they become where they cross frames.
const MAX_PIECES: usize = MAX_SEGMENTS + 8;
/// Bytes of the header: kind, reserved, sector.
const HEADER: usize = 16;
/// Bytes of a sector, whatever the disk's own are.
pub const SECTOR: u64 = 512;
/// Bytes of the serial number.
pub const ID: usize = 20;
/// Bytes of a range to be discarded or zeroed: sector, sectors, flags.
const RANGE: usize = 16;
/// Flag of such a range: blocks may be given back.
const UNMAP: u32 = 1;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// How a request ends, as its last byte says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Not done.
    Error = 1,
    /// No such thing.
    Unsupported = 2,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// For the disk; sectors of 512 bytes. The memory is in the scratch.
    Disk {
        /// What.
        operation: Operation,
        /// First sector.
        sector: u64,
        /// Sectors.
        sectors: u64,
    },
    /// Write the serial number at this address, so many bytes of it.
    Identify(u64, usize),
    /// It is over already.
    Done(Status),
}

/// A request that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What is to be done.
    pub action: Action,
    /// Guest-physical address of the status byte.
    pub status: u64,
    /// Bytes that the device writes before the status byte.
    pub written: u32,
}

/// Buffers of the request in hand and the segments that they become; kept for their memory.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Buffers.
    pub buffers: Vec<Buffer>,
    /// Segments of the data.
    pub segments: Vec<Segment>,
}

impl Scratch {
    /// With room for any request.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffers: Vec::with_capacity(MAX_SEGMENTS + 2),
            segments: Vec::with_capacity(MAX_PIECES),
        }
    }
}

/// Takes `bytes` from the front of the buffers to read. False: there are too few.
fn take_front(ram: &Ram, buffers: &mut Vec<Buffer>, bytes: &mut [u8]) -> bool {
    let mut done = 0;
    while done < bytes.len() {
        let Some(first) = buffers.first_mut().filter(|buffer| !buffer.writable) else {
            return false;
        };
        let here = (first.length as usize).min(bytes.len() - done);
        if ram.copy_out(first.address, &mut bytes[done..done + here]).is_none() {
            return false;
        }
        done += here;
        first.address += here as u64;
        first.length -= here as u32;
        if first.length == 0 {
            buffers.remove(0);
        }
    }
    true
}

/// Reads the request whose chain is in `scratch.buffers`: all of it once. `None`: it has no place for a status, so nothing can be answered.
pub fn parse(ram: &Ram, scratch: &mut Scratch) -> Option<Parsed> {
    let Scratch { buffers, segments } = scratch;
    segments.clear();
    // The status is the last byte that the device can write.
    let last = buffers.last_mut().filter(|buffer| buffer.writable)?;
    last.length -= 1;
    let status = last.address + u64::from(last.length);
    if last.length == 0 {
        buffers.pop();
    }
    let mut header = [0; HEADER];
    let done = |status_is| Parsed {
        action: Action::Done(status_is),
        status,
        written: 0,
    };
    // Nearly every driver has the header in a buffer of its own.
    let alone = buffers.first().filter(|first| !first.writable && first.length as usize == HEADER);
    let skip = usize::from(alone.is_some());
    let read = match alone {
        Some(first) => ram.copy_out(first.address, &mut header).is_some(),
        None => take_front(ram, buffers, &mut header),
    };
    if !read {
        return Some(done(Status::Error));
    }
    let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
    let (kind, sector) = (u32::from_le_bytes([k0, k1, k2, k3]), u64::from_le_bytes(sector));
    let parsed = match kind {
        IN => data(ram, &buffers[skip..], segments, true).map(|bytes| (disk(Operation::Read, sector, bytes), bytes as u32)),
        OUT => data(ram, &buffers[skip..], segments, false).map(|bytes| (disk(Operation::Write, sector, bytes), 0)),
        FLUSH => Some((disk(Operation::Flush, 0, 0), 0)),
        GET_ID => identify(&buffers[skip..]),
        DISCARD => range(ram, buffers, skip, Operation::Discard, 0).map(|action| (action, 0)),
        WRITE_ZEROES => range(ram, buffers, skip, Operation::WriteZeroes, UNMAP).map(|action| (action, 0)),
        _ => Some((Action::Done(Status::Unsupported), 0)),
    };
    Some(parsed.map_or(done(Status::Error), |(action, written)| Parsed { action, status, written }))
}

/// Reads a request to read or write straight into `segments`, if header and status are buffers of their own and no other, as nearly every driver makes them. `None`: it is another one, or a wrong one,
/// and [`parse`] is to say what of it.
#[inline]
pub fn transfer(ram: &Ram, queue: &Queue, head: u16, segments: &mut Vec<Segment>) -> Option<Parsed> {
    segments.clear();
    let mut header = [0; HEADER];
    let (mut number, mut bytes) = (0, 0);
    let mut data: Option<Buffer> = None;
    let whole = queue.plain_chain(ram, head, |buffer| {
        number += 1;
        if number == 1 {
            return !buffer.writable && buffer.length as usize == HEADER && ram.copy_out(buffer.address, &mut header).is_some();
        }
        // What another one follows is data.
        if let Some(data) = data.replace(buffer) {
            let reads = header[0] == IN as u8;
            bytes += u64::from(data.length);
            return data.writable == reads
                && number <= MAX_SEGMENTS + 2
                && ram.translate(data.address, data.length, segments, MAX_PIECES).is_some();
        }
        true
    });
    let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
    let operation = match u32::from_le_bytes([k0, k1, k2, k3]) {
        IN => Operation::Read,
        OUT => Operation::Write,
        _ => return None,
    };
    let last = data.filter(|last| whole && last.writable && last.length == 1)?;
    let written = u32::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes > 0 && bytes.is_multiple_of(SECTOR as u32))?;
    Some(Parsed {
        action: disk(operation, u64::from_le_bytes(sector), bytes),
        status: last.address,
        written: if operation == Operation::Read { written } else { 0 },
    })
}

fn disk(operation: Operation, sector: u64, bytes: u64) -> Action {
    Action::Disk {
        operation,
        sector,
        sectors: bytes / SECTOR,
    }
}

/// The buffers of data, all of one direction, as segments; their bytes, whole sectors.
fn data(ram: &Ram, buffers: &[Buffer], segments: &mut Vec<Segment>, writable: bool) -> Option<u64> {
    let mut bytes = 0;
    for buffer in buffers {
        if buffer.writable != writable {
            return None;
        }
        ram.translate(buffer.address, buffer.length, segments, MAX_PIECES)?;
        bytes += u64::from(buffer.length);
    }
    (bytes > 0 && bytes.is_multiple_of(SECTOR)).then_some(bytes)
}

fn identify(buffers: &[Buffer]) -> Option<(Action, u32)> {
    let first = buffers.first().filter(|buffer| buffer.writable)?;
    let length = (first.length as usize).min(ID);
    Some((Action::Identify(first.address, length), length as u32))
}

/// One range behind the first `skip` buffers; more were not offered.
fn range(ram: &Ram, buffers: &mut Vec<Buffer>, skip: usize, operation: Operation, allowed: u32) -> Option<Action> {
    buffers.drain(..skip);
    let mut bytes = [0; RANGE];
    if !take_front(ram, buffers, &mut bytes) || !buffers.is_empty() {
        return None;
    }
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (sector, sectors, flags) = (u64::from(word(0)) | u64::from(word(4)) << 32, word(8), word(12));
    if flags & !allowed != 0 {
        return Some(Action::Done(Status::Unsupported));
    }
    Some(Action::Disk {
        operation,
        sector,
        sectors: sectors.into(),
    })
}
