//! VLAN tags of frames (IEEE 802.1Q, 9.3): the same frame with one, or without it.

use crate::packet::{LONGEST_HEADER, Offload, Packet};
use tessera_device::Segment;

/// Where a tag stands: behind the addresses.
const PLACE: u32 = 12;
/// Bytes of it.
const LENGTH: u16 = 4;
/// The type that says that one follows (9.4).
pub const TAGGED: u16 = 0x8100;

/// Moves what an offload's places count from.
fn moved(mut offload: Offload, by: impl Fn(u16) -> u16) -> Offload {
    offload.checksum = offload.checksum.map(|(start, offset)| (by(start), offset));
    offload.segmentation = offload.segmentation.map(|mut cut| {
        cut.header = by(cut.header);
        cut
    });
    offload
}

/// A frame without the tag that stands in it. Devices do not reach it.
pub struct Untagged<'a> {
    packet: &'a dyn Packet,
    offload: Offload,
}

impl<'a> Untagged<'a> {
    /// Hides the tag. `None`: the frame is too short to have one, or its checksum is to begin in it.
    #[must_use]
    pub fn new(packet: &'a dyn Packet) -> Option<Self> {
        let offload = packet.offload();
        let behind = offload.checksum.is_none_or(|(start, _)| usize::from(start) >= LONGEST_HEADER);
        (behind && packet.length() as usize >= LONGEST_HEADER).then(|| Self {
            packet,
            offload: moved(offload, |place| place.saturating_sub(LENGTH)),
        })
    }
}

impl Packet for Untagged<'_> {
    fn length(&self) -> u32 {
        self.packet.length() - u32::from(LENGTH)
    }
    fn copy_out(&self, offset: u32, bytes: &mut [u8]) {
        let before = bytes.len().min(PLACE.saturating_sub(offset) as usize);
        let (addresses, rest) = bytes.split_at_mut(before);
        if before > 0 {
            self.packet.copy_out(offset, addresses);
        }
        if !rest.is_empty() {
            self.packet.copy_out(offset.max(PLACE).saturating_add(u32::from(LENGTH)), rest);
        }
    }
    fn segments(&self) -> Option<&[Segment]> {
        None
    }
    fn offload(&self) -> Offload {
        self.offload
    }
}

/// A frame with a tag put into it. Devices do not reach it.
pub struct Tagged<'a>(pub &'a dyn Packet, pub u16);

impl Packet for Tagged<'_> {
    fn length(&self) -> u32 {
        self.0.length().saturating_add(u32::from(LENGTH))
    }
    fn copy_out(&self, offset: u32, bytes: &mut [u8]) {
        let before = bytes.len().min(PLACE.saturating_sub(offset) as usize);
        let (addresses, rest) = bytes.split_at_mut(before);
        if before > 0 {
            self.0.copy_out(offset, addresses);
        }
        let [high, low] = self.1.to_be_bytes();
        let [first, second] = TAGGED.to_be_bytes();
        let field = [first, second, high, low];
        let skipped = (offset.max(PLACE) - PLACE) as usize;
        let here = field.get(skipped..).unwrap_or_default();
        let count = here.len().min(rest.len());
        rest[..count].copy_from_slice(&here[..count]);
        let rest = &mut rest[count..];
        if !rest.is_empty() {
            let from = skipped.max(LENGTH.into()) as u32 - u32::from(LENGTH) + PLACE;
            self.0.copy_out(from, rest);
        }
    }
    fn segments(&self) -> Option<&[Segment]> {
        None
    }
    fn offload(&self) -> Offload {
        moved(self.0.offload(), |place| place.saturating_add(LENGTH))
    }
}

/// Gives a frame to `give` as it is to be where the switch says that it has the tag `to`: in it where `inside`, which says that its tag `from` stands in it, is to stay, and else beside it. `None`: it makes no sense.
pub fn retag<T>(
    packet: &dyn Packet,
    (from, inside): (Option<u16>, bool),
    to: Option<u16>,
    give: impl FnOnce(&dyn Packet, Option<u16>) -> T,
) -> Option<T> {
    if !inside {
        return Some(give(packet, to));
    }
    if from == to {
        return Some(give(packet, None));
    }
    Some(give(&Untagged::new(packet)?, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Bytes;
    use alloc::{vec, vec::Vec};
    use proptest::prelude::*;

    /// All of it, and parts of it as they are cut.
    fn read(packet: &dyn Packet, cut: usize) -> Vec<u8> {
        let mut all = vec![0xee; packet.length() as usize];
        for (number, part) in all.chunks_mut(cut).enumerate() {
            packet.copy_out((number * cut) as u32, part);
        }
        let mut seen = Vec::new();
        packet.visit(&mut |piece| {
            let mut bytes = vec![0; piece.length()];
            piece.copy_out(&mut bytes);
            seen.extend(bytes);
        });
        assert_eq!(seen, all);
        all
    }

    proptest! {
        #[test]
        fn a_tag_goes_in_and_out(bytes in proptest::collection::vec(any::<u8>(), 14..3000), tag: u16, cut in 1usize..40, start in 14u16..2000) {
            let offload = Offload { checksum: Some((start, 16)), ..Offload::default() };
            let plain = Bytes(bytes.clone(), offload);
            let tagged = Tagged(&plain, tag);
            let mut expected = bytes.clone();
            expected.splice(12..12, [0x81, 0, (tag >> 8) as u8, tag as u8]);
            prop_assert_eq!(read(&tagged, cut), &expected[..]);
            prop_assert_eq!(tagged.offload().checksum, Some((start + 4, 16)));
            let again = Untagged::new(&tagged).unwrap();
            prop_assert_eq!(read(&again, cut), bytes);
            prop_assert_eq!(again.offload(), offload);
        }
    }

    #[test]
    fn a_tag_is_kept_or_moved() {
        let plain = Bytes::plain((0..60).collect::<Vec<u8>>());
        let tagged = Tagged(&plain, 7);
        let look = |packet: &dyn Packet, vlan: Option<u16>| (packet.length(), vlan);
        assert_eq!(retag(&plain, (None, false), None, look), Some((60, None)));
        assert_eq!(retag(&plain, (Some(7), false), Some(9), look), Some((60, Some(9))));
        assert_eq!(retag(&tagged, (Some(7), true), Some(7), look), Some((64, None)));
        assert_eq!(retag(&tagged, (Some(7), true), Some(9), look), Some((60, Some(9))));
        assert_eq!(retag(&tagged, (Some(7), true), None, look), Some((60, None)));
        let short = Bytes::plain([0; 17]);
        assert_eq!(retag(&short, (Some(7), true), None, look), None);
        let inside = Offload {
            checksum: Some((17, 0)),
            ..Offload::default()
        };
        assert_eq!(retag(&Bytes(vec![0; 60], inside), (Some(7), true), None, look), None);
    }
}
