//! Frames in a driver's memory, and tags of virtual networks in them (IEEE 802.1Q).

use crate::packet::{Offload, Packet};
use crate::tag::TAGGED;
use alloc::vec::Vec;
use tessera_device::{DmaBuffer, Segment};

/// Bytes of the two addresses, behind which a tag stands.
pub const ADDRESSES: u32 = 12;
/// Bytes of a tag.
pub const TAG: u32 = 4;
/// Shortest frame without its check sequence that a driver takes: a header.
pub const SHORTEST: u32 = 14;
/// What a card received: pieces of one piece of memory.
pub struct Received<'a> {
    memory: &'a DmaBuffer,
    segments: &'a [Segment],
    length: u32,
    offload: Offload,
}

impl<'a> Received<'a> {
    /// A frame that lies in these pieces of `memory`, the first of which holds its header. A tag in it is taken out, unless the card has done so: then it is `vlan`.
    pub fn new(
        memory: &'a DmaBuffer,
        segments: &'a mut Vec<Segment>,
        length: u32,
        mut offload: Offload,
        mut vlan: Option<u16>,
    ) -> (Self, Option<u16>) {
        let mut length = length;
        if vlan.is_none()
            && let Some(first) = segments.first().copied()
            && first.length >= SHORTEST + TAG
        {
            let place = (first.physical - memory.physical()) as usize + ADDRESSES as usize;
            // The header of a frame stands at a multiple of 2.
            if memory.read::<u16>(place) == TAGGED.to_be() {
                vlan = Some(u16::from_be(memory.read::<u16>(place + 2)));
                segments[0] = Segment {
                    physical: first.physical + u64::from(ADDRESSES + TAG),
                    length: first.length - ADDRESSES - TAG,
                };
                let addresses = Segment {
                    physical: first.physical,
                    length: ADDRESSES,
                };
                segments.insert(0, addresses);
                length -= TAG;
                if let Some((start, offset)) = offload.checksum {
                    offload.checksum = Some((start.saturating_sub(TAG as u16), offset));
                }
                if let Some(segmentation) = &mut offload.segmentation {
                    segmentation.header = segmentation.header.saturating_sub(TAG as u16);
                }
            }
        }
        let frame = Self {
            memory,
            segments,
            length,
            offload,
        };
        (frame, vlan)
    }
}

impl Packet for Received<'_> {
    fn length(&self) -> u32 {
        self.length
    }

    fn copy_out(&self, offset: u32, bytes: &mut [u8]) {
        let (mut offset, mut bytes) = (offset, bytes);
        for segment in self.segments {
            if offset >= segment.length {
                offset -= segment.length;
                continue;
            }
            if bytes.is_empty() {
                return;
            }
            let here = bytes.len().min((segment.length - offset) as usize);
            let (now, later) = bytes.split_at_mut(here);
            let place = (segment.physical - self.memory.physical()) as usize + offset as usize;
            self.memory.copy_out(place, now);
            (offset, bytes) = (0, later);
        }
        bytes.fill(0);
    }

    fn segments(&self) -> Option<&[Segment]> {
        Some(self.segments)
    }

    fn offload(&self) -> Offload {
        self.offload
    }
}

/// The pieces of a packet from byte `skip` on; they are together longer than that.
pub fn behind(segments: &[Segment], skip: u32) -> impl Iterator<Item = Segment> {
    let mut skip = skip;
    segments.iter().filter_map(move |segment| {
        let here = skip.min(segment.length);
        skip -= here;
        (here < segment.length).then(|| Segment {
            physical: segment.physical + u64::from(here),
            length: segment.length - here,
        })
    })
}

/// The addresses at the head of a packet and a tag behind them.
pub fn tagged(packet: &dyn Packet, vlan: u16) -> [u8; (ADDRESSES + TAG) as usize] {
    let mut bytes = [0; (ADDRESSES + TAG) as usize];
    packet.copy_out(0, &mut bytes[..ADDRESSES as usize]);
    bytes[12..14].copy_from_slice(&TAGGED.to_be_bytes());
    bytes[14..].copy_from_slice(&vlan.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame of `bytes`, cut into pieces of these lengths, each at a place of its own.
    fn lay_out(bytes: &[u8], cuts: &[usize]) -> (DmaBuffer, Vec<Segment>) {
        let memory = DmaBuffer::of_this_process(64 << 10);
        let (mut segments, mut at) = (Vec::new(), 0);
        for (place, cut) in (1..).zip(cuts.iter().chain([&usize::MAX])) {
            let length = (*cut).min(bytes.len() - at);
            if length == 0 {
                break;
            }
            let offset = place * 2048 + 12;
            memory.copy_in(offset, &bytes[at..at + length]);
            segments.push(Segment {
                physical: memory.physical() + offset as u64,
                length: length as u32,
            });
            at += length;
        }
        (memory, segments)
    }

    proptest! {
        #[test]
        fn a_tag_is_taken_out_and_put_in(mut bytes in proptest::collection::vec(any::<u8>(), 64..1500), cuts in proptest::collection::vec(18usize..500, 0..4), tag: Option<u16>, from in 0u32..1600, length in 0usize..100) {
            bytes[12] = 8;
            let plain = bytes.clone();
            if let Some(tag) = tag {
                bytes.splice(12..12, [0x81, 0, (tag >> 8) as u8, tag as u8]);
            }
            let (memory, mut segments) = lay_out(&bytes, &cuts);
            let (frame, vlan) = Received::new(&memory, &mut segments, bytes.len() as u32, Offload::default(), None);
            prop_assert_eq!(vlan, tag);
            prop_assert_eq!(frame.length() as usize, plain.len());
            prop_assert_eq!(frame.segments().unwrap().iter().map(|one| one.length).sum::<u32>(), frame.length());
            let mut part = vec![1; length];
            frame.copy_out(from, &mut part);
            for (place, byte) in (from as usize..).zip(part) {
                prop_assert_eq!(byte, plain.get(place).copied().unwrap_or(0));
            }
            let again = tagged(&frame, tag.unwrap_or(5));
            prop_assert_eq!(&again[..12], &plain[..12]);
            prop_assert_eq!(&again[12..], &[0x81, 0, (tag.unwrap_or(5) >> 8) as u8, tag.unwrap_or(5) as u8]);
        }

        #[test]
        fn what_is_behind_is_the_rest(cuts in proptest::collection::vec(1u32..50, 1..6), skip in 0u32..40) {
            let segments: Vec<Segment> = (1..).zip(&cuts).map(|(place, length)| Segment { physical: place << 12, length: *length }).collect();
            let all: Vec<u64> = segments.iter().flat_map(|one| one.physical..one.physical + u64::from(one.length)).collect();
            let rest: Vec<u64> = behind(&segments, skip).flat_map(|one| one.physical..one.physical + u64::from(one.length)).collect();
            prop_assert_eq!(&rest[..], &all[(skip as usize).min(all.len())..]);
        }
    }
}
