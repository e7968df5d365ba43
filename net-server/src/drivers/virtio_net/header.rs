//! The header in front of each packet (virtio 1.2, 5.1.6): what was left to the other side.

use crate::packet::{Offload, Segmentation, SegmentationKind};

/// Bytes.
pub const LENGTH: u32 = 12;

/// Flags: a checksum is to be filled in; the checksums were found right.
const NEEDS_CHECKSUM: u8 = 1;
const VALID: u8 = 2;
/// Kinds of segmentation, and the bit of congestion.
const TCP4: u8 = 1;
const UDP: u8 = 3;
const TCP6: u8 = 4;
const CONGESTION: u8 = 0x80;

/// The header of a packet that is sent; `shift` bytes were put in in front of what the offload counts from.
pub fn encode(offload: &Offload, shift: u16) -> [u32; 3] {
    let (mut flags, mut kind, mut header, mut size, mut start, mut offset) = (0u8, 0u8, 0u16, 0u16, 0u16, 0u16);
    if let Some(checksum) = offload.checksum {
        flags = NEEDS_CHECKSUM;
        (start, offset) = (checksum.0.saturating_add(shift), checksum.1);
    }
    if let Some(segmentation) = offload.segmentation {
        kind = match segmentation.kind {
            SegmentationKind::Tcp4 => TCP4,
            SegmentationKind::Tcp6 => TCP6,
            SegmentationKind::Udp => UDP,
        };
        if segmentation.congestion {
            kind |= CONGESTION;
        }
        (header, size) = (segmentation.header.saturating_add(shift), segmentation.size);
    }
    let half = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
    [
        u32::from(flags) | u32::from(kind) << 8 | u32::from(header) << 16,
        half(size, start),
        half(offset, 0),
    ]
}

/// What the header of a received packet says, and in how many buffers it lies. `None`: it makes no sense for a packet of `length` bytes.
pub fn decode(words: [u32; 3], length: u32) -> Option<(Offload, u16)> {
    let [first, second, third] = words;
    let (flags, kind) = (first as u8, (first >> 8) as u8);
    let (header, size) = ((first >> 16) as u16, second as u16);
    let (start, offset) = ((second >> 16) as u16, third as u16);
    let mut offload = Offload {
        verified: flags & VALID != 0,
        ..Offload::default()
    };
    if flags & NEEDS_CHECKSUM != 0 {
        if u32::from(start) + u32::from(offset) + 2 > length {
            return None;
        }
        offload.checksum = Some((start, offset));
    }
    let kind_found = match kind & !CONGESTION {
        0 => None,
        TCP4 => Some(SegmentationKind::Tcp4),
        TCP6 => Some(SegmentationKind::Tcp6),
        UDP => Some(SegmentationKind::Udp),
        _ => return None,
    };
    if let Some(kind_found) = kind_found {
        // What is to be cut needs its checksum filled in (5.1.6.4.1).
        if size == 0 || offload.checksum.is_none() {
            return None;
        }
        offload.segmentation = Some(Segmentation {
            kind: kind_found,
            congestion: kind & CONGESTION != 0,
            size,
            header,
        });
    }
    Some((offload, (third >> 16) as u16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(checksum in proptest::option::of((0u16..9000, 0u16..100)), kind in 0usize..4, congestion: bool, size in 1u16.., header: u16) {
            let kind = [None, Some(SegmentationKind::Tcp4), Some(SegmentationKind::Tcp6), Some(SegmentationKind::Udp)][kind];
            let segmentation = kind.filter(|_| checksum.is_some()).map(|kind| Segmentation { kind, congestion, size, header });
            let offload = Offload { checksum, verified: false, segmentation };
            prop_assert_eq!(decode(encode(&offload, 0), 65550), Some((offload, 0)));
            let moved = decode(encode(&offload, 4), 65550).unwrap().0;
            prop_assert_eq!(moved.checksum, checksum.map(|(start, offset)| (start + 4, offset)));
        }

        #[test]
        fn any_header_is_in_bounds_or_refused(words: [u32; 3], length in 0u32..70000) {
            if let Some((offload, _)) = decode(words, length) {
                prop_assert!(offload.checksum.is_none_or(|(start, offset)| u32::from(start) + u32::from(offset) + 2 <= length));
                prop_assert!(offload.segmentation.is_none_or(|one| one.size > 0 && offload.checksum.is_some()));
            }
        }
    }
}
