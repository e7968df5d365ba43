//! The header in front of each packet in a queue (virtio 1.2, 5.1.6).

use super::features::{Features, Takes};
use crate::packet::{Offload, Segmentation, SegmentationKind};

/// Bytes, for drivers of the standard.
pub const LENGTH: usize = 12;

const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const NONE: u8 = 0;
const TCP4: u8 = 1;
const TCP6: u8 = 4;
const CONGESTION: u8 = 0x80;

/// A header that makes no sense, or asks for what was not agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

fn word(bytes: &[u8; LENGTH], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// What the driver leaves undone of a packet of `length` bytes.
///
/// # Errors
/// It makes no sense, or was not agreed on.
pub fn parse(bytes: &[u8; LENGTH], length: u32, features: Features) -> Result<Offload, Malformed> {
    let mut offload = Offload::default();
    if bytes[0] & NEEDS_CHECKSUM != 0 {
        let (start, offset) = (word(bytes, 6), word(bytes, 8));
        // The field lies inside of the packet.
        let end = u32::from(start) + u32::from(offset) + 2;
        if !features.leaves_checksums() || end > length {
            return Err(Malformed);
        }
        offload.checksum = Some((start, offset));
    }
    let kind = match bytes[1] & !CONGESTION {
        NONE => return Ok(offload),
        TCP4 => SegmentationKind::Tcp4,
        TCP6 => SegmentationKind::Tcp6,
        _ => return Err(Malformed),
    };
    let cut = Segmentation {
        kind,
        congestion: bytes[1] & CONGESTION != 0,
        size: word(bytes, 4),
        header: word(bytes, 2),
    };
    // Each frame gets a checksum of its own, so it has to be said where (5.1.6.2).
    if !features.leaves_segmentation(kind, cut.congestion) || cut.size == 0 || offload.checksum.is_none() {
        return Err(Malformed);
    }
    offload.segmentation = Some(cut);
    Ok(offload)
}

/// The header of a packet for a driver that takes all that is undone. `shift`: bytes that were put in front of what the offload's places count from; `buffers`: where it lies.
#[must_use]
pub fn encode(offload: &Offload, takes: Takes, shift: u16, buffers: u16) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let mut put = |at: usize, value: u16| bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    put(10, buffers);
    if let Some((start, offset)) = offload.checksum {
        put(6, start.saturating_add(shift));
        put(8, offset);
    }
    if let Some(cut) = offload.segmentation {
        put(2, cut.header.saturating_add(shift));
        put(4, cut.size);
        bytes[1] = match cut.kind {
            SegmentationKind::Tcp4 => TCP4,
            SegmentationKind::Tcp6 => TCP6,
            SegmentationKind::Udp => NONE,
        } | if cut.congestion { CONGESTION } else { 0 };
    }
    bytes[0] = if offload.checksum.is_some() {
        NEEDS_CHECKSUM
    } else if offload.verified && takes.checksums() {
        DATA_VALID
    } else {
        0
    };
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Features = Features(u64::MAX);

    #[test]
    fn what_makes_no_sense_is_refused() {
        let header = |bytes: [u8; LENGTH], length| parse(&bytes, length, ALL);
        assert_eq!(header([0; LENGTH], 60), Ok(Offload::default()));
        let checksum = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
        assert_eq!(header(checksum, 52).unwrap().checksum, Some((34, 16)));
        assert_eq!(header(checksum, 51), Err(Malformed), "the field is outside");
        assert_eq!(parse(&checksum, 60, Features(0)), Err(Malformed), "not agreed on");
        let tcp = [1, 0x81, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
        let cut = header(tcp, 3000).unwrap().segmentation.unwrap();
        assert_eq!(
            (cut.kind, cut.congestion, cut.size, cut.header),
            (SegmentationKind::Tcp4, true, 1460, 54)
        );
        for (place, value, why) in [(0, 0, "no checksum"), (4, 0, "no size"), (1, 3, "UDP"), (1, 7, "unknown")] {
            let mut bad = tcp;
            bad[place] = value;
            if place == 4 {
                bad[5] = 0;
            }
            assert_eq!(header(bad, 3000), Err(Malformed), "{why}");
        }
    }

    proptest! {
        #[test]
        fn what_was_left_undone_arrives(bytes: [u8; LENGTH], length in 0u32..70_000) {
            let Ok(offload) = parse(&bytes, length, ALL) else { return Ok(()) };
            let takes = ALL.takes();
            prop_assert!(takes.all_of(&offload));
            let again = encode(&offload, takes, 0, 1);
            prop_assert_eq!(parse(&again, length, ALL), Ok(offload));
        }
    }
}
