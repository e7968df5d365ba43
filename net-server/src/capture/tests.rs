use super::{Capture, Direction};
use crate::packet::Bytes;
use proptest::prelude::*;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Takes a file apart as its specification says: blocks with their types and bodies.
fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
    let mut all = Vec::new();
    while !file.is_empty() {
        let length = word(file, 4) as usize;
        assert!(length.is_multiple_of(4) && length >= 12 && length <= file.len());
        assert_eq!(word(file, length - 4) as usize, length);
        all.push((word(file, 0), &file[8..length - 4]));
        file = &file[length..];
    }
    all
}

/// Options of a body from a place on.
fn options(body: &[u8], mut at: usize) -> Vec<(u16, Vec<u8>)> {
    let mut all = Vec::new();
    loop {
        let half = |at: usize| u16::from_le_bytes([body[at], body[at + 1]]);
        let (code, length) = (half(at), usize::from(half(at + 2)));
        if code == 0 {
            assert_eq!((length, at + 4), (0, body.len()));
            return all;
        }
        all.push((code, body[at + 4..at + 4 + length].to_vec()));
        at += 4 + length.next_multiple_of(4);
    }
}

proptest! {
    #[test]
    fn a_file_says_what_passed(
        port in "[a-z0-9.-]{1,30}",
        snap in 1u32..200,
        frames in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 14..300), any::<u32>(), any::<bool>()), 0..20),
        room in 0usize..4000,
        portion in 1usize..500,
    ) {
        let mut capture = Capture::new(&port, snap, room);
        let mut file = Vec::new();
        let mut kept = Vec::new();
        for (number, (frame, time, outbound)) in frames.iter().enumerate() {
            let direction = if *outbound { Direction::Outbound } else { Direction::Inbound };
            let before = capture.counts();
            let time = u64::from(*time) << 8;
            capture.add(time, &Bytes::plain(frame.clone()), direction);
            let after = capture.counts();
            prop_assert_eq!(after.0 + after.1, before.0 + before.1 + 1);
            if after.0 > before.0 {
                kept.push((frame.clone(), time, *outbound));
                prop_assert!(capture.waiting() <= room);
            }
            if number % 3 == 0 {
                let (part, end) = capture.read(file.len() as u64, portion).unwrap();
                prop_assert!(!end);
                file.extend(part);
            }
        }
        capture.stop(77);
        capture.add(1, &Bytes::plain(vec![0; 60]), Direction::Inbound);
        loop {
            let (part, end) = capture.read(file.len() as u64, portion).unwrap();
            prop_assert!(end || !part.is_empty());
            file.extend(part);
            if end {
                break;
            }
        }
        prop_assert!(capture.read(file.len() as u64 + 100_000, 10).is_none());
        let all = blocks(&file);
        prop_assert_eq!(all.len(), kept.len() + 3);
        prop_assert_eq!(all[0].0, 0x0a0d_0d0a);
        prop_assert_eq!(word(all[0].1, 0), 0x1a2b_3c4d);
        options(all[0].1, 16);
        prop_assert_eq!((all[1].0, word(all[1].1, 0), word(all[1].1, 4)), (1, 1, snap));
        prop_assert_eq!(options(all[1].1, 8), vec![(2, port.into_bytes()), (9, vec![9])]);
        for ((kind, body), (frame, time, outbound)) in all[2..].iter().zip(&kept) {
            let captured = (frame.len() as u32).min(snap);
            prop_assert_eq!(*kind, 6);
            prop_assert_eq!(word(body, 0), 0);
            prop_assert_eq!(u64::from(word(body, 4)) << 32 | u64::from(word(body, 8)), *time);
            prop_assert_eq!((word(body, 12), word(body, 16)), (captured, frame.len() as u32));
            prop_assert_eq!(&body[20..20 + captured as usize], &frame[..captured as usize]);
            let flags = if *outbound { 2u32 } else { 1 };
            let rest = options(body, 20 + (captured as usize).next_multiple_of(4));
            prop_assert_eq!(rest, vec![(2, flags.to_le_bytes().to_vec())]);
        }
        let (kind, body) = all[all.len() - 1];
        prop_assert_eq!(kind, 5);
        let lost = frames.len() - kept.len();
        prop_assert_eq!(options(body, 12), vec![
            (4, (frames.len() as u64).to_le_bytes().to_vec()),
            (5, (lost as u64).to_le_bytes().to_vec()),
        ]);
    }

    #[test]
    fn what_was_read_is_forgotten_and_makes_room(steps in proptest::collection::vec((0u64..600, 0usize..300), 0..40)) {
        let mut capture = Capture::new("p", 64, 400);
        let mut from = 0;
        for (skip, most) in steps {
            capture.add(0, &Bytes::plain(vec![1; 64]), Direction::Inbound);
            match capture.read(skip, most) {
                Some((part, end)) => {
                    prop_assert!(skip >= from && part.len() <= most && !end);
                    from = skip;
                }
                None => prop_assert!(skip < from || skip > from + capture.waiting() as u64),
            }
        }
    }
}
