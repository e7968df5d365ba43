//! Memory that the kernel writes while the shell reads it: trace rings, the kernel's log, the panic record. Nothing in it is believed: counts are bounded by the memory that is there.

use alloc::{string::String, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering, fence};
use tessera_abi::trace::Record;

/// Words of a ring's header and of a record (`tessera_abi::trace`).
const RECORD_WORDS: usize = size_of::<Record>() / 8;

/// A trace ring.
#[derive(Clone, Copy)]
pub struct TraceRing<'a> {
    words: &'a [AtomicU64],
}

impl<'a> TraceRing<'a> {
    /// The ring in a mapped frame; `None` if it is too short to be one.
    #[must_use]
    pub fn new(words: &'a [AtomicU64]) -> Option<Self> {
        (words.len() >= 2 * RECORD_WORDS).then_some(Self { words })
    }

    /// Records ever written.
    #[must_use]
    pub fn written(&self) -> u64 {
        // Acquire: the records precede their count.
        self.words.first().map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Records that fit.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        let room = (self.words.len() / RECORD_WORDS - 1) as u64;
        self.words.get(1).map_or(0, |word| word.load(Ordering::Relaxed)).min(room)
    }

    /// The oldest record that is still there; one more than necessary is given up, since the kernel may be writing it.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        let kept = self.capacity().saturating_sub(1);
        self.written().saturating_sub(kept)
    }

    /// Record `index`; `None` if it is not there yet or no longer.
    #[must_use]
    pub fn record(&self, index: u64) -> Option<Record> {
        if index >= self.written() || index < self.oldest() {
            return None;
        }
        let place = (index.checked_rem(self.capacity())? as usize + 1) * RECORD_WORDS;
        let words = self.words.get(place..place + RECORD_WORDS)?;
        let word = |number: usize| words.get(number).map_or(0, |word| word.load(Ordering::Relaxed));
        let record = Record {
            tsc: word(0),
            event: word(1),
            a: word(2),
            b: word(3),
        };
        // Acquire: the words were read before the count is looked at again.
        fence(Ordering::Acquire);
        (index >= self.oldest()).then_some(record)
    }
}

/// The kernel's log.
#[derive(Clone, Copy)]
pub struct LogText<'a> {
    words: &'a [AtomicU64],
}

/// Words of `tessera_abi::boot::LogHeader`.
const LOG_HEADER_WORDS: usize = 2;

impl<'a> LogText<'a> {
    /// The log in a mapped frame.
    #[must_use]
    pub fn new(words: &'a [AtomicU64]) -> Option<Self> {
        (words.len() > LOG_HEADER_WORDS).then_some(Self { words })
    }

    /// The text that is kept, whole lines if some were lost.
    #[must_use]
    pub fn text(&self) -> String {
        let word = |number: usize| self.words.get(number).map_or(0, |word| word.load(Ordering::Acquire));
        let room = ((self.words.len() - LOG_HEADER_WORDS) * 8) as u64;
        let (written, capacity) = (word(0), word(1).min(room));
        let kept = written.min(capacity);
        let bytes: Vec<u8> = (written - kept..written)
            .filter_map(|position| {
                let position = position.checked_rem(capacity)? as usize;
                let word = self.words.get(LOG_HEADER_WORDS + position / 8)?;
                Some(word.load(Ordering::Relaxed).to_le_bytes()[position % 8])
            })
            .collect();
        let text = String::from_utf8_lossy(&bytes);
        match (written > kept, text.find('\n')) {
            (true, Some(end)) => text[end + 1..].into(),
            _ => text.into_owned(),
        }
    }
}

/// Text up to the first zero byte.
#[must_use]
pub fn zero_terminated(words: &[AtomicU64]) -> String {
    let bytes: Vec<u8> = words
        .iter()
        .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
        .take_while(|&byte| byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(values: &[u64]) -> Vec<AtomicU64> {
        values.iter().map(|&value| AtomicU64::new(value)).collect()
    }

    #[test]
    fn records_come_back_until_they_are_overwritten() {
        let mut values = vec![6, 4, 0, 0];
        for index in [4u64, 5, 2, 3] {
            values.extend([100 + index, index, index * 2, index * 3]);
        }
        let memory = words(&values);
        let ring = TraceRing::new(&memory).unwrap();
        assert_eq!((ring.written(), ring.capacity(), ring.oldest()), (6, 4, 3));
        assert!(ring.record(2).is_none() && ring.record(6).is_none());
        for index in 3..6 {
            let record = ring.record(index).unwrap();
            assert_eq!(
                (record.tsc, record.event, record.a, record.b),
                (100 + index, index, index * 2, index * 3)
            );
        }
    }

    #[test]
    fn the_log_is_a_ring_of_lines() {
        let mut values = vec![20, 16];
        values.extend([u64::from_le_bytes(*b"a\nthird\n"), u64::from_le_bytes(*b"one\nline")]);
        // 20 bytes were written into 16: the newest stand in front.
        values[2] = u64::from_le_bytes(*b"end\nird\n");
        let memory = words(&values);
        assert_eq!(LogText::new(&memory).unwrap().text(), "one\nlineend\n");
        let fresh = words(&[3, 8, u64::from_le_bytes(*b"abcXXXXX")]);
        assert_eq!(LogText::new(&fresh).unwrap().text(), "abc");
        assert_eq!(zero_terminated(&words(&[u64::from_le_bytes(*b"12345678"), 0x41])), "12345678A");
    }

    proptest! {
        #[test]
        fn any_memory_is_read_within_its_bounds(values in proptest::collection::vec(prop_oneof![any::<u64>(), 0u64..20], 0..40), index in any::<u64>()) {
            let memory = words(&values);
            if let Some(ring) = TraceRing::new(&memory) {
                prop_assert!(ring.capacity() <= 9);
                let oldest = ring.oldest();
                for index in [index, oldest, oldest.saturating_sub(1), ring.written().saturating_sub(1)] {
                    let _ = ring.record(index);
                }
            }
            if let Some(log) = LogText::new(&memory) {
                prop_assert!(log.text().chars().count() <= 8 * values.len());
            }
        }
    }
}
