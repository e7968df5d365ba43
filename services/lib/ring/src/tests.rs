use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

#[repr(C, align(64))]
struct Shared([u8; 512]);

impl Shared {
    fn new() -> Box<Self> {
        Box::new(Self([0; 512]))
    }

    fn counter(&mut self, offset: usize, value: u64) {
        self.0[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }
}

fn attach(base: *mut u8, length: usize) -> (Writer<'static>, Reader<'static>) {
    // SAFETY: each test keeps its memory until it is done with both sides.
    unsafe { (Writer::attach(base, length).unwrap(), Reader::attach(base, length).unwrap()) }
}

#[test]
fn refuses_memory_that_holds_no_ring() {
    let mut shared = Shared::new();
    let base = shared.0.as_mut_ptr();
    // SAFETY: the memory outlives the calls.
    unsafe {
        assert!(Writer::attach(base, MIN_LENGTH - 1).is_none());
        assert!(Writer::attach(base.add(1), MIN_LENGTH).is_none());
        assert!(Reader::attach(core::ptr::null_mut(), MIN_LENGTH).is_none());
    }
}

#[test]
fn capacity_is_the_largest_power_of_two_that_fits() {
    let mut shared = Shared::new();
    let (writer, reader) = attach(shared.0.as_mut_ptr(), 512);
    assert_eq!((writer.capacity(), reader.capacity()), (256, 256));
}

#[test]
fn counters_may_wrap() {
    let mut shared = Shared::new();
    shared.counter(0, u64::MAX - 2);
    shared.counter(64, u64::MAX - 2);
    let (mut writer, mut reader) = attach(shared.0.as_mut_ptr(), 512);
    assert_eq!(writer.write(b"abcdef"), 6);
    let mut buffer = [0; 8];
    assert_eq!(reader.read(&mut buffer), 6);
    assert_eq!(&buffer[..6], b"abcdef");
    assert!(writer.is_drained());
}

#[test]
fn a_new_reader_and_writer_go_on_where_the_old_ones_stopped() {
    let mut shared = Shared::new();
    let base = shared.0.as_mut_ptr();
    let mut buffer = [0; 8];
    {
        let (mut writer, mut reader) = attach(base, 512);
        writer.write(b"hello");
        reader.read(&mut buffer[..2]);
    }
    let (mut writer, mut reader) = attach(base, 512);
    writer.write(b"!");
    assert_eq!(reader.read(&mut buffer), 4);
    assert_eq!(&buffer[..4], b"llo!");
}

#[test]
fn a_garbled_ring_is_empty_until_resynchronised() {
    let mut shared = Shared::new();
    let base = shared.0.as_mut_ptr();
    let (_, mut reader) = attach(base, 512);
    shared.counter(0, 5000);
    assert_eq!(reader.read(&mut [0; 8]), 0);
    assert!(reader.resynchronise());
    let mut writer = attach(base, 512).0;
    writer.write(b"x");
    assert_eq!(reader.read(&mut [0; 8]), 1);
    assert!(!reader.resynchronise());
}

proptest! {
    #[test]
    fn behaves_like_a_queue(steps in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..400)), 0..60)) {
        let mut shared = Shared::new();
        let (mut writer, mut reader) = attach(shared.0.as_mut_ptr(), 512);
        let mut queue = VecDeque::new();
        for (write, bytes) in steps {
            if write {
                let room = 256 - queue.len();
                let count = writer.write(&bytes);
                prop_assert_eq!(count, bytes.len().min(room));
                queue.extend(&bytes[..count]);
            } else {
                let mut buffer = vec![0; bytes.len()];
                let count = reader.read(&mut buffer);
                prop_assert_eq!(count, bytes.len().min(queue.len()));
                let expected: Vec<u8> = queue.drain(..count).collect();
                prop_assert_eq!(&buffer[..count], &expected[..]);
            }
            prop_assert_eq!(reader.available(), queue.len());
        }
    }

    #[test]
    fn a_hostile_peer_changes_nothing_but_contents(steps in proptest::collection::vec((0u8..4, any::<u64>(), 0usize..600), 0..60)) {
        // Bytes after the ring must never change.
        let mut shared = Shared::new();
        let base = shared.0.as_mut_ptr();
        let (mut writer, mut reader) = attach(base, 256);
        for (step, value, length) in steps {
            match step {
                0 => shared.counter(0, value),
                1 => shared.counter(64, value),
                2 => prop_assert!(writer.write(&vec![0xff; length]) <= 128),
                _ => prop_assert!(reader.read(&mut vec![0; length]) <= 128),
            }
            prop_assert!(writer.room() <= 128 && reader.available() <= 128);
            prop_assert!(shared.0[256..].iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn peeking_reads_nothing_and_skipping_gives_room() {
    let mut shared = Shared::new();
    let (mut writer, mut reader) = attach(shared.0.as_mut_ptr(), 512);
    assert_eq!(writer.write(&[7; 300]), 256);
    let mut buffer = [0; 300];
    assert_eq!(reader.peek(0, &mut buffer), 256);
    assert_eq!(reader.peek(250, &mut buffer), 6);
    assert_eq!(reader.peek(256, &mut buffer), 0);
    assert_eq!(reader.peek(usize::MAX, &mut buffer), 0);
    assert_eq!((reader.position(), writer.room()), (0, 0));
    assert_eq!(reader.skip(10), 10);
    assert_eq!((reader.position(), writer.room(), reader.available()), (10, 10, 246));
    assert_eq!(reader.skip(usize::MAX), 246);
    assert!(writer.is_drained());
}
