//! What a driver wants sent (82574 datasheet 7.2): descriptors, and what the card is to do to a packet.

use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Most bytes of a packet, before it is cut.
pub const LONGEST: usize = (64 << 10) + 64;
/// Bytes of the header in front of each packet in a virtio queue (virtio 1.2, 5.1.6).
pub const HEADER: usize = 12;

// Bits of a descriptor's third word.
const END: u32 = 1 << 24;
/// Of one of old: fill in a checksum. Of one with data: cut it.
const CHECKSUM_OR_CUT: u32 = 1 << 26;
const REPORT: u32 = 1 << 27;
const EXTENDED: u32 = 1 << 29;
const TAG: u32 = 1 << 30;
/// Commands of a context: TCP, IPv4.
const IPV4: u32 = 1 << 25;
/// What data's options ask for: the checksum of IPv4's header, that of TCP or UDP.
const FILL_IP: u8 = 1;
const FILL_TCP: u8 = 2;

/// A descriptor, as it stands in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(pub [u32; 4]);

/// Where the headers of packets are, until another one says otherwise (7.2.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context([u32; 4]);

/// A packet that is put together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    bytes: Vec<u8>,
    /// The first descriptor's second half.
    first: Option<(u32, u32)>,
    /// It is longer than a packet can be, or not all of it is RAM.
    bad: bool,
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A context.
    Context(Context),
    /// Bytes of a packet: address and number.
    Data(u64, u32),
}

impl Descriptor {
    /// What it is.
    pub const fn kind(self) -> Kind {
        let [low, high, third, _] = self.0;
        let address = low as u64 | (high as u64) << 32;
        match third & EXTENDED != 0 {
            false => Kind::Data(address, third & 0xffff),
            true if third >> 20 & 0xf == 0 => Kind::Context(Context(self.0)),
            true => Kind::Data(address, third & 0xf_ffff),
        }
    }

    /// The packet ends with it.
    pub const fn ends(self) -> bool {
        self.0[2] & END != 0
    }

    /// The driver wants to be told that it is done.
    pub const fn reports(self) -> bool {
        self.0[2] & REPORT != 0
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn put(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    bytes.get_mut(at..at + 2)?.copy_from_slice(&value.to_be_bytes());
    Some(())
}

/// The sum of RFC 1071.
fn sum(bytes: &[u8]) -> u16 {
    let sum = bytes.chunks(2).fold(0u32, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
    });
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum + (sum >> 16)) as u16
}

fn add(a: u16, b: u16) -> u16 {
    let (sum, over) = a.overflowing_add(b);
    sum + u16::from(over)
}

impl Packet {
    /// Adds bytes, which `read` gets. A packet that cannot be one is dropped at its end.
    pub fn add(&mut self, descriptor: Descriptor, count: u32, read: impl FnOnce(&mut [u8]) -> Option<()>) {
        let [.., third, fourth] = descriptor.0;
        self.first.get_or_insert((third, fourth));
        let start = self.bytes.len();
        if self.bad || start + count as usize > LONGEST {
            self.bad = true;
            return;
        }
        self.bytes.resize(start + count as usize, 0);
        self.bad = read(&mut self.bytes[start..]).is_none();
    }

    /// The whole packet with its header of virtio. `None`: it is none.
    pub fn finish(mut self, context: &Context) -> Option<([u8; HEADER], Vec<u8>)> {
        let (third, fourth) = self.first.filter(|_| !self.bad && self.bytes.len() >= 14)?;
        let mut header = [0; HEADER];
        let mut checksum = None;
        let mut cut = None;
        if third & EXTENDED == 0 {
            if third & CHECKSUM_OR_CUT != 0 {
                // Offset of the checksum in the third word, start in the fourth.
                checksum = Some(((fourth >> 8 & 0xff) as usize, (third >> 16 & 0xff) as usize));
            }
        } else {
            let options = (fourth >> 8) as u8;
            let Context([ip, tcp, commands, lengths]) = *context;
            let (ip_start, ip_field, ip_end) = ((ip & 0xff) as usize, (ip >> 8 & 0xff) as usize, (ip >> 16) as usize);
            let (tcp_start, tcp_field) = ((tcp & 0xff) as usize, (tcp >> 8 & 0xff) as usize);
            let length = self.bytes.len();
            if options & FILL_TCP != 0 {
                checksum = Some((tcp_start, tcp_field));
            }
            if third & CHECKSUM_OR_CUT != 0 {
                let (head, size) = ((lengths >> 8 & 0xff) as usize, (lengths >> 16) as u16);
                let ipv4 = commands & IPV4 != 0;
                // Drivers leave lengths to the card: here they are those of the whole.
                if ipv4 {
                    put(&mut self.bytes, ip_start + 2, length.checked_sub(ip_start)? as u16)?;
                } else {
                    put(&mut self.bytes, ip_start + 4, length.checked_sub(ip_start + 40)? as u16)?;
                }
                let pseudo = add(half(&self.bytes, tcp_field)?, length.checked_sub(tcp_start)? as u16);
                put(&mut self.bytes, tcp_field, pseudo)?;
                checksum = Some((tcp_start, tcp_field));
                if size > 0 && length > head + usize::from(size) {
                    cut = Some((if ipv4 { 1 } else { 4 }, head as u16, size));
                }
            }
            if options & FILL_IP != 0 {
                let end = if ip_end > ip_start { ip_end + 1 } else { length };
                put(&mut self.bytes, ip_field, 0)?;
                let sum = sum(self.bytes.get(ip_start..end)?);
                put(&mut self.bytes, ip_field, !sum)?;
            }
        }
        let mut shift = 0;
        if third & TAG != 0 {
            let [low, high] = ((fourth >> 16) as u16).to_le_bytes();
            self.bytes.splice(12..12, [0x81, 0, high, low]);
            shift = 4;
        }
        if let Some((start, field)) = checksum {
            let offset = field.checked_sub(start)?;
            (field + usize::from(shift) + 2 <= self.bytes.len()).then_some(())?;
            header[0] = 1;
            header[6..8].copy_from_slice(&(start as u16 + shift).to_le_bytes());
            header[8..10].copy_from_slice(&(offset as u16).to_le_bytes());
        }
        if let Some((kind, head, size)) = cut {
            header[1] = kind;
            header[2..4].copy_from_slice(&(head + shift).to_le_bytes());
            header[4..6].copy_from_slice(&u16::to_le_bytes(size));
        }
        Some((header, self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(third: u32, fourth: u32, bytes: &[u8]) -> Packet {
        let mut packet = Packet::default();
        packet.add(Descriptor([0, 0, third, fourth]), bytes.len() as u32, |to| {
            to.copy_from_slice(bytes);
            Some(())
        });
        packet
    }

    #[test]
    fn a_large_tcp_packet_is_left_to_be_cut() {
        let mut bytes = std::vec![0; 54 + 4000];
        bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
        // As drivers leave it: no length, and the sum of addresses and protocol.
        bytes[50..52].copy_from_slice(&0xfff0u16.to_be_bytes());
        let context = Context([
            14 | 24 << 8 | 33 << 16,
            34 | 50 << 8,
            1 << 29 | 7 << 24 | 4000,
            54 << 8 | 1460 << 16,
        ]);
        let (header, sent) = packet(EXTENDED | 1 << 20 | CHECKSUM_OR_CUT, 3 << 8, &bytes)
            .finish(&context)
            .unwrap();
        assert_eq!(header, [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0]);
        assert_eq!(half(&sent, 16), Some(4040));
        assert_eq!(sum(&sent[14..34]), 0xffff, "IPv4's header adds up");
        assert_eq!(half(&sent, 50), Some(add(0xfff0, 4020)));
        // A tag in front of what the places count from.
        let tagged = packet(EXTENDED | 1 << 20 | TAG, 2 << 8 | 5 << 16, &bytes).finish(&context).unwrap();
        assert_eq!(
            (&tagged.0[6..10], &tagged.1[12..18]),
            (&[38, 0, 16, 0][..], &[0x81, 0, 0, 5, 8, 0][..])
        );
    }

    #[test]
    fn one_of_old_has_its_checksum_filled_in() {
        let (header, sent) = packet(CHECKSUM_OR_CUT | 50 << 16 | 60, 34 << 8, &[7; 60])
            .finish(&Context::default())
            .unwrap();
        assert_eq!((header, sent.len()), ([1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0], 60));
        assert_eq!(
            packet(CHECKSUM_OR_CUT | 59 << 16, 34 << 8, &[7; 60]).finish(&Context::default()),
            None,
            "outside"
        );
        assert_eq!(
            packet(CHECKSUM_OR_CUT | TAG | 59 << 16, 34 << 8, &[7; 60]).finish(&Context::default()),
            None,
            "outside, though a tag comes before it"
        );
        assert_eq!(packet(0, 0, &[7; 13]).finish(&Context::default()), None);
    }

    proptest! {
        #[test]
        fn survives_anything(third: u32, fourth: u32, context: [u32; 4], bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            if let Some((header, sent)) = packet(third, fourth, &bytes).finish(&Context(context)) {
                prop_assert!(sent.len() >= bytes.len());
                if header[0] != 0 {
                    let word = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
                    prop_assert!(word(6) + word(8) + 2 <= sent.len());
                }
            }
        }
    }
}
