//! What the switch looks at: the head of a frame, read once.

use crate::{
    packet::{LONGEST_HEADER, Packet},
    tag::TAGGED,
};

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// To whom.
    pub destination: [u8; 6],
    /// From whom, as the frame says.
    pub source: [u8; 6],
    /// The tag beside the frame or in it (priority, DEI, number; IEEE 802.1Q, 9.6).
    pub tag: Option<u16>,
    /// The tag stands in the frame.
    pub inside: bool,
    /// What the frame carries, behind a tag.
    pub ethertype: u16,
    /// Bytes.
    pub length: u32,
}

impl Head {
    /// Reads it. `beside`: a tag that was taken out already. `None`: too short to be a frame.
    #[must_use]
    pub fn read(packet: &dyn Packet, beside: Option<u16>) -> Option<Self> {
        let length = packet.length();
        let mut bytes = [0; LONGEST_HEADER];
        packet.copy_out(0, &mut bytes);
        if length < 14 {
            return None;
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = bytes;
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let inside = beside.is_none() && word(12) == TAGGED;
        if inside && length < LONGEST_HEADER as u32 {
            return None;
        }
        Some(Self {
            destination: [a, b, c, d, e, f],
            source: [g, h, i, j, k, l],
            tag: if inside { Some(word(14)) } else { beside },
            inside,
            ethertype: word(if inside { 16 } else { 12 }),
            length,
        })
    }

    /// For many: a multicast or the broadcast (IEEE 802, 8.2).
    #[must_use]
    pub const fn is_group(&self) -> bool {
        self.destination[0] & 1 != 0
    }
}
