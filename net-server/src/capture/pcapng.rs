//! Blocks of a pcapng file (draft-ietf-opsawg-pcapng, section 4), little-endian.

use alloc::vec::Vec;

/// Block types (4.1 to 4.6).
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const STATISTICS: u32 = 5;
/// What tells the byte order (4.1).
const MAGIC: u32 = 0x1a2b_3c4d;
/// Ethernet (LINKTYPE_ETHERNET).
const ETHERNET: u16 = 1;
/// Options (3.5, 4.1, 4.2, 4.3, 4.6).
const END: u16 = 0;
const USER_APPLICATION: u16 = 4;
const NAME: u16 = 2;
const RESOLUTION: u16 = 9;
const FLAGS: u16 = 2;
const RECEIVED: u16 = 4;
const DROPPED: u16 = 5;
/// Nanoseconds: 10 to the power of minus this.
const NANOSECONDS: u8 = 9;
/// Bytes of a packet's block beside the packet: type, two lengths, interface, time, captured and original length, flags, end of options.
const PACKET_FRAMING: usize = 4 + 4 + 4 + 8 + 4 + 4 + 8 + 4 + 4;

/// Which way a frame went, as the port's owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It was given to the owner.
    Inbound,
    /// The owner sent it.
    Outbound,
}

const fn padding(length: usize) -> usize {
    length.next_multiple_of(4) - length
}

fn option(code: u16, value: &[u8], to: &mut Vec<u8>) {
    to.extend(code.to_le_bytes());
    // Values of this module are names of ports and numbers.
    to.extend((value.len() as u16).to_le_bytes());
    to.extend(value);
    to.extend(core::iter::repeat_n(0, padding(value.len())));
}

fn block(kind: u32, body: &[u8], to: &mut dyn FnMut(&[u8])) {
    let length = (body.len() as u32 + 12).to_le_bytes();
    to(&kind.to_le_bytes());
    to(&length);
    to(body);
    to(&length);
}

/// The file's beginning: a section, and the port as its only interface.
pub fn begin(port: &str, snap: u32, to: &mut Vec<u8>) {
    let mut body = Vec::new();
    body.extend(MAGIC.to_le_bytes());
    // Version 1.0; the section's length is not known.
    body.extend([1, 0, 0, 0]);
    body.extend([0xff; 8]);
    option(USER_APPLICATION, b"Tessera", &mut body);
    option(END, &[], &mut body);
    block(SECTION, &body, &mut |bytes| to.extend(bytes));
    body.clear();
    body.extend(ETHERNET.to_le_bytes());
    body.extend([0; 2]);
    body.extend(snap.to_le_bytes());
    option(NAME, &port.as_bytes()[..port.floor_char_boundary(255)], &mut body);
    option(RESOLUTION, &[NANOSECONDS], &mut body);
    option(END, &[], &mut body);
    block(INTERFACE, &body, &mut |bytes| to.extend(bytes));
}

/// Bytes that a packet of which `kept` bytes are kept takes.
pub const fn packet_length(kept: u32) -> usize {
    PACKET_FRAMING + (kept as usize).next_multiple_of(4)
}

/// Both halves of a time (4.3).
fn halves(time: u64) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&((time >> 32) as u32).to_le_bytes());
    bytes[4..].copy_from_slice(&(time as u32).to_le_bytes());
    bytes
}

/// A packet of `length` bytes, of which these are kept.
pub fn packet(time: u64, kept: &[u8], length: u32, direction: Direction, to: &mut dyn FnMut(&[u8])) {
    let total = (packet_length(kept.len() as u32) as u32).to_le_bytes();
    to(&PACKET.to_le_bytes());
    to(&total);
    to(&[0; 4]);
    to(&halves(time));
    to(&(kept.len() as u32).to_le_bytes());
    to(&length.to_le_bytes());
    to(kept);
    to(&[0; 3][..padding(kept.len())]);
    let mut options = Vec::with_capacity(12);
    let flags: u32 = match direction {
        Direction::Inbound => 1,
        Direction::Outbound => 2,
    };
    option(FLAGS, &flags.to_le_bytes(), &mut options);
    option(END, &[], &mut options);
    to(&options);
    to(&total);
}

/// The end: how many packets came, and how many of them are not in the file.
pub fn end(time: u64, received: u64, dropped: u64, to: &mut dyn FnMut(&[u8])) {
    let mut body = Vec::new();
    body.extend([0; 4]);
    body.extend(halves(time));
    option(RECEIVED, &received.to_le_bytes(), &mut body);
    option(DROPPED, &dropped.to_le_bytes(), &mut body);
    option(END, &[], &mut body);
    block(STATISTICS, &body, to);
}
