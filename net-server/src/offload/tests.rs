//! Against a straightforward reader of frames.

use super::*;
use crate::packet::Bytes;
use proptest::prelude::*;

type Given = Bytes<Vec<u8>>;

fn finished(packet: &Given) -> Option<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    let outcome = finish::<()>(packet, &mut Scratch::default(), &mut |frame| {
        let mut bytes = vec![0; frame.length() as usize];
        frame.copy_out(0, &mut bytes);
        // Shown in pieces it is the same, and so is each end of it.
        let mut shown = Vec::new();
        frame.visit(&mut |piece| {
            let begin = shown.len();
            shown.resize(begin + piece.length(), 0);
            piece.copy_out(&mut shown[begin..]);
        });
        assert_eq!(shown, bytes);
        let from = bytes.len() / 2;
        let mut end = vec![0xff; bytes.len() - from + 3];
        frame.copy_out(from as u32, &mut end);
        assert_eq!(end, [&bytes[from..], &[0; 3]].concat());
        frames.push(bytes);
        Ok(())
    });
    outcome.map(|_| frames)
}

/// A TCP packet with `payload` and what a driver leaves undone of it.
fn tcp(version6: bool, tagged: bool, flags: u8, payload: &[u8], size: u16) -> Given {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if tagged {
        bytes.extend([0x81, 0, 0, 7]);
    }
    bytes.extend(if version6 { [0x86, 0xdd] } else { [8, 0] });
    let length = (20 + payload.len()) as u16;
    if version6 {
        bytes.extend([0x60, 0, 0, 0]);
        bytes.extend(length.to_be_bytes());
        bytes.extend([6, 64]);
        bytes.extend((0..32).map(|at| at * 3));
    } else {
        bytes.extend([0x45, 0]);
        bytes.extend((length + 20).to_be_bytes());
        bytes.extend([0xff, 0xfe, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    }
    let start = bytes.len() as u16;
    bytes.extend([
        0x12, 0x34, 0, 80, 0xff, 0xff, 0xff, 0, 0, 0, 0, 9, 0x50, flags, 1, 2, 0xab, 0xcd, 0, 0,
    ]);
    bytes.extend(payload);
    let offload = Offload {
        checksum: Some((start, 16)),
        verified: false,
        segmentation: Some(Segmentation {
            kind: if version6 { SegmentationKind::Tcp6 } else { SegmentationKind::Tcp4 },
            congestion: false,
            size,
            header: start + 20,
        }),
    };
    Bytes(bytes, offload)
}

/// Sequence number, flags and payload of a good TCP frame.
fn read(frame: &[u8], version6: bool, tagged: bool) -> (u32, u8, Vec<u8>) {
    let ip = if tagged { 18 } else { 14 };
    let (tcp, addresses) = if version6 {
        (ip + 40, ip + 8..ip + 40)
    } else {
        (ip + 20, ip + 12..ip + 20)
    };
    let said = if version6 {
        word(frame, ip + 4).unwrap() as usize + 40
    } else {
        word(frame, ip + 2).unwrap() as usize
    };
    assert_eq!(said, frame.len() - ip);
    if !version6 {
        assert_eq!(sum(&frame[ip..tcp]), 0xffff, "the header's checksum");
    }
    let pseudo = u64::from(sum(&frame[addresses])) + 6 + (frame.len() - tcp) as u64;
    assert_eq!(fold(pseudo + u64::from(sum(&frame[tcp..]))), 0xffff, "TCP's checksum");
    let sequence = u32::from(word(frame, tcp + 4).unwrap()) << 16 | u32::from(word(frame, tcp + 6).unwrap());
    (sequence, frame[tcp + 13], frame[tcp + 20..].to_vec())
}

proptest! {
    #[test]
    fn sums_are_those_of_the_words(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let words = bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0)));
        prop_assert_eq!(sum(&bytes), fold(words.sum()));
    }

    #[test]
    fn frames_together_are_the_packet(version6: bool, tagged: bool, flags: u8, payload in prop::collection::vec(any::<u8>(), 1..9000), size in 8u16..3000) {
        let packet = tcp(version6, tagged, flags, &payload, size);
        let frames = finished(&packet).unwrap();
        let count = frames.len();
        prop_assert_eq!(count, payload.len().div_ceil(size.into()));
        let (mut all, mut next) = (Vec::new(), 0xffff_ff00_u32);
        for (number, frame) in frames.iter().enumerate() {
            let (sequence, said, part) = read(frame, version6, tagged);
            prop_assert_eq!(sequence, next);
            next = next.wrapping_add(part.len() as u32);
            let (first, last) = (number == 0, number + 1 == count);
            let wanted = flags & if last { 0xff } else { !9 } & if first { 0xff } else { !0x80 };
            prop_assert_eq!(said, wanted);
            prop_assert_eq!(&frame[..12], &packet.0[..12]);
            all.extend(part);
        }
        prop_assert_eq!(all, payload);
    }

    #[test]
    fn survives_anything(mut bytes in prop::collection::vec(any::<u8>(), 0..300), start: u16, offset in 0u16..40, size in 1u16..100, kind in 0usize..3, good: bool, change in 14usize..60, to: u8) {
        let kind = [SegmentationKind::Tcp4, SegmentationKind::Tcp6, SegmentationKind::Udp][kind];
        let mut given = tcp(kind == SegmentationKind::Tcp6, false, 0, &bytes, size);
        if let Some(byte) = given.0.get_mut(change) {
            *byte = to;
        }
        if !good {
            core::mem::swap(&mut given.0, &mut bytes);
            given.1.checksum = Some((start % 80, offset));
            given.1.segmentation.as_mut().unwrap().kind = kind;
        }
        for frame in finished(&given).into_iter().flatten() {
            prop_assert!(frame.len() <= given.0.len());
        }
        given.1.segmentation = None;
        for frame in finished(&given).into_iter().flatten() {
            prop_assert_eq!(frame.len(), given.0.len());
        }
    }

    #[test]
    fn a_checksum_is_filled_in(payload in prop::collection::vec(any::<u8>(), 1..1500)) {
        let mut packet = tcp(false, false, 0x18, &payload, 1);
        packet.1.segmentation = None;
        let length = (packet.0.len() - 34) as u64;
        let pseudo = fold(u64::from(sum(&packet.0[26..34])) + 6 + length);
        packet.0[50..52].copy_from_slice(&pseudo.to_be_bytes());
        packet.0[24..26].fill(0);
        let header = !sum(&packet.0[14..34]);
        packet.0[24..26].copy_from_slice(&header.to_be_bytes());
        let frames = finished(&packet).unwrap();
        prop_assert_eq!(read(&frames[0], false, false).2, payload);
    }
}
