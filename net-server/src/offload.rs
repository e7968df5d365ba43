//! What hardware or a guest's driver would do, in software: cutting large packets, and checksums. For those that cannot do it by themselves.

use crate::packet::{Offload, Packet, Segmentation, SegmentationKind};
use crate::tag::TAGGED;
use alloc::vec::Vec;
use tessera_device::{Piece, Segment};

/// Frames that one packet may become.
const MOST_FRAMES: usize = 2048;
/// IPv4's and IPv6's types (IEEE 802 numbers).
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Flags of TCP (RFC 9293, 3.1; RFC 3168).
const FIN: u8 = 0x01;
const PUSH: u8 = 0x08;
const CONGESTION_WINDOW_REDUCED: u8 = 0x80;

/// Memory for the work.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Grows only, so that it is not cleared for each packet.
    packet: Vec<u8>,
    headers: Vec<u8>,
}

/// A packet in memory of this process: complete, nothing left to do. Headers and what they are for lie apart, so that the latter is not copied to where it can follow.
struct Flat<'a>(&'a [u8], &'a [u8]);

impl Packet for Flat<'_> {
    fn length(&self) -> u32 {
        (self.0.len() + self.1.len()) as u32
    }
    fn copy_out(&self, offset: u32, bytes: &mut [u8]) {
        let mut skip = offset as usize;
        let mut filled = 0;
        for part in [self.0, self.1] {
            let rest = part.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            filled += Piece::of(rest).copy_out(&mut bytes[filled..]);
        }
        bytes[filled..].fill(0);
    }
    fn segments(&self) -> Option<&[Segment]> {
        None
    }
    fn offload(&self) -> Offload {
        Offload {
            verified: true,
            ..Offload::default()
        }
    }
    fn visit(&self, each: &mut dyn FnMut(Piece<'_>)) {
        each(Piece::of(self.0));
        if !self.1.is_empty() {
            each(Piece::of(self.1));
        }
    }
}

/// Does what is left undone of a packet, and gives the frames to `each`, in order, up to its first error. `None`: it makes no sense, and nothing was given. What is given lies in this process's memory, where no device
/// reaches.
pub fn finish<E>(packet: &dyn Packet, scratch: &mut Scratch, each: &mut dyn FnMut(&dyn Packet) -> Result<(), E>) -> Option<Result<(), E>> {
    let Scratch { packet: memory, headers } = scratch;
    let length = packet.length() as usize;
    if memory.len() < length {
        memory.resize(length, 0);
    }
    let whole = &mut memory[..length];
    // Read once: whoever owns the memory may be changing it.
    packet.copy_out(0, whole);
    let offload = packet.offload();
    let Some(cut) = offload.segmentation else {
        if let Some((start, offset)) = offload.checksum {
            fill_checksum(whole, &[], start.into(), usize::from(start) + usize::from(offset))?;
        }
        return Some(each(&Flat(whole, &[])));
    };
    let (start, _) = offload.checksum?;
    segment(whole, cut, start.into(), headers, each)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn put(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    bytes.get_mut(at..at + 2)?.copy_from_slice(&value.to_be_bytes());
    Some(())
}

/// The sum of 16-bit words, in ones' complement (RFC 1071). Eight bytes at a time, the order of the bytes being put right at the end (RFC 1071, 2).
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    let (blocks, rest) = bytes.as_chunks::<32>();
    let (words, rest) = rest.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    // No overflow: a packet has far less than 2^64 words. An addition and its carry for each eight bytes.
    let mut total = u128::from(u64::from_le_bytes(last));
    for block in blocks {
        for word in block.as_chunks::<8>().0 {
            total += u128::from(u64::from_le_bytes(*word));
        }
    }
    for word in words {
        total += u128::from(u64::from_le_bytes(*word));
    }
    let halves = |word: u64| (word & 0xffff_ffff) + (word >> 32);
    fold(halves(total as u64) + halves((total >> 64) as u64)).swap_bytes()
}

/// A sum as 16 bits.
pub(crate) const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// Fills in the checksum of what begins at `start` and goes on with `rest`; the field holds the sum of the pseudo header.
fn fill_checksum(bytes: &mut [u8], rest: &[u8], start: usize, field: usize) -> Option<()> {
    word(bytes, field)?;
    let own = bytes.get(start..)?;
    // Words of the rest are whole ones of both.
    if !own.len().is_multiple_of(2) && !rest.is_empty() {
        return None;
    }
    let value = !fold(u64::from(sum(own)) + u64::from(sum(rest)));
    // In UDP 0 means that there is none; in the others it is the same number (RFC 768).
    put(bytes, field, if value == 0 { 0xffff } else { value })
}

/// Where the headers of a packet are.
pub(crate) struct Headers {
    /// IP.
    pub network: usize,
    pub version6: bool,
    /// TCP or UDP.
    pub transport: usize,
    /// Payload.
    pub payload: usize,
    pub protocol: u8,
}

/// The headers of a packet that is to be cut, whose transport header begins at `start`. `None`: it makes no sense.
pub(crate) fn headers(bytes: &[u8], cut: Segmentation, start: usize) -> Option<Headers> {
    let (mut kind, mut network) = (word(bytes, 12)?, 14);
    if kind == TAGGED {
        (kind, network) = (word(bytes, 16)?, 18);
    }
    let version6 = match kind {
        IPV4 => false,
        IPV6 => true,
        _ => return None,
    };
    let shortest = if version6 { 40 } else { 20 };
    if start < network + shortest || bytes.get(network)? >> 4 != if version6 { 6 } else { 4 } {
        return None;
    }
    if !version6 && usize::from(bytes[network] & 15) * 4 != start - network {
        return None;
    }
    let (protocol, length) = match cut.kind {
        SegmentationKind::Tcp4 | SegmentationKind::Tcp6 => (TCP, usize::from(*bytes.get(start + 12)? >> 4) * 4),
        SegmentationKind::Udp => (UDP, 8),
    };
    let fits = match cut.kind {
        SegmentationKind::Tcp4 => !version6,
        SegmentationKind::Tcp6 => version6,
        SegmentationKind::Udp => true,
    };
    let payload = start + length;
    let says = bytes.get(network + if version6 { 6 } else { 9 });
    let known = version6 && start != network + 40 || says == Some(&protocol);
    (fits && known && length >= if protocol == TCP { 20 } else { 8 } && payload < bytes.len()).then_some(Headers {
        network,
        version6,
        transport: start,
        payload,
        protocol,
    })
}

fn segment<E>(
    whole: &[u8],
    cut: Segmentation,
    start: usize,
    headers: &mut Vec<u8>,
    each: &mut dyn FnMut(&dyn Packet) -> Result<(), E>,
) -> Option<Result<(), E>> {
    let at = self::headers(whole, cut, start)?;
    let payload = &whole[at.payload..];
    let count = payload.len().div_ceil(usize::from(cut.size));
    if count > MOST_FRAMES {
        return None;
    }
    for (number, part) in payload.chunks(usize::from(cut.size)).enumerate() {
        headers.clear();
        headers.extend_from_slice(&whole[..at.payload]);
        write_headers(headers, part, &at, cut, number, number + 1 == count)?;
        if let Err(error) = each(&Flat(headers, part)) {
            return Some(Err(error));
        }
    }
    Some(Ok(()))
}

/// Makes the headers those of frame `number`, which has `payload` behind them.
fn write_headers(frame: &mut [u8], payload: &[u8], at: &Headers, cut: Segmentation, number: usize, last: bool) -> Option<()> {
    let length = frame.len() + payload.len();
    let transport_length = length - at.transport;
    let addresses = if at.version6 {
        put(frame, at.network + 4, u16::try_from(length - at.network - 40).ok()?)?;
        at.network + 8..at.network + 40
    } else {
        put(frame, at.network + 2, u16::try_from(length - at.network).ok()?)?;
        // Each frame is a datagram of its own.
        let identity = word(frame, at.network + 4)?.wrapping_add(number as u16);
        put(frame, at.network + 4, identity)?;
        put(frame, at.network + 10, 0)?;
        let header = !sum(frame.get(at.network..at.transport)?);
        put(frame, at.network + 10, header)?;
        at.network + 12..at.network + 20
    };
    let field = if at.protocol == TCP {
        let sequence = u32::from(word(frame, at.transport + 4)?) << 16 | u32::from(word(frame, at.transport + 6)?);
        let sequence = sequence.wrapping_add(number as u32 * u32::from(cut.size));
        put(frame, at.transport + 4, (sequence >> 16) as u16)?;
        put(frame, at.transport + 6, sequence as u16)?;
        let flags = frame.get_mut(at.transport + 13)?;
        if !last {
            *flags &= !(FIN | PUSH);
        }
        if number > 0 {
            *flags &= !CONGESTION_WINDOW_REDUCED;
        }
        at.transport + 16
    } else {
        put(frame, at.transport + 4, transport_length as u16)?;
        at.transport + 6
    };
    // The pseudo header (RFC 9293, 3.1; RFC 8200, 8.1).
    let pseudo = u64::from(sum(frame.get(addresses)?)) + u64::from(at.protocol) + transport_length as u64;
    put(frame, field, fold(pseudo))?;
    fill_checksum(frame, payload, at.transport, field)
}

#[cfg(test)]
mod tests;
