//! What is to outlive the server, in memory that is init's own: two places, the newer of which holds. Wherever the process ends, one of them is whole.
//!
//! ```text
//!  place: number | length | check | bytes ...      number 0: empty; the check covers number, length and bytes
//! ```

use alloc::{vec, vec::Vec};
use tessera_device::DmaBuffer;

const NUMBER: usize = 0;
const LENGTH: usize = 8;
const CHECK: usize = 16;
const BYTES: usize = 24;

/// FNV-1a (draft-eastlake-fnv): against what is half written, not against people.
fn check(number: u64, bytes: &[u8]) -> u64 {
    let head = number.to_le_bytes().into_iter().chain((bytes.len() as u64).to_le_bytes());
    head.chain(bytes.iter().copied()).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The memory.
pub struct Keep {
    places: [DmaBuffer; 2],
}

impl Keep {
    /// Takes memory up as it is. `None`: it is too short for anything.
    #[must_use]
    pub fn new(memory: &DmaBuffer) -> Option<Self> {
        let half = memory.length() / 2 / 8 * 8;
        (half > BYTES).then(|| Self {
            places: [memory.part(0, half), memory.part(half, half)],
        })
    }

    /// Number and bytes of a place, if it is whole.
    fn read(place: &DmaBuffer) -> Option<(u64, Vec<u8>)> {
        let number = place.read::<u64>(NUMBER);
        let length = usize::try_from(place.read::<u64>(LENGTH)).ok()?;
        if number == 0 || length > place.length() - BYTES {
            return None;
        }
        let mut bytes = vec![0; length];
        place.copy_out(BYTES, &mut bytes);
        (check(number, &bytes) == place.read::<u64>(CHECK)).then_some((number, bytes))
    }

    fn newest(&self) -> Option<(usize, u64, Vec<u8>)> {
        let all = self.places.iter().enumerate();
        let whole = all.filter_map(|(place, memory)| Self::read(memory).map(|(number, bytes)| (place, number, bytes)));
        whole.max_by_key(|(_, number, _)| *number)
    }

    /// What was put here last.
    #[must_use]
    pub fn get(&self) -> Option<Vec<u8>> {
        self.newest().map(|(.., bytes)| bytes)
    }

    /// Most bytes that may be put here.
    #[must_use]
    pub fn room(&self) -> usize {
        self.places[0].length() - BYTES
    }

    /// Puts something here. False: it is too long, and what was here still is.
    pub fn put(&self, bytes: &[u8]) -> bool {
        if bytes.len() > self.room() {
            return false;
        }
        let (place, number) = self.newest().map_or((0, 1), |(place, number, _)| (1 - place, number + 1));
        let memory = &self.places[place];
        // Nobody takes it for whole before the number stands there again.
        memory.write::<u64>(NUMBER, 0);
        memory.copy_in(BYTES, bytes);
        memory.write::<u64>(LENGTH, bytes.len() as u64);
        memory.write::<u64>(CHECK, check(number, bytes));
        memory.write::<u64>(NUMBER, number);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_half_written_change_is_the_old_one_or_the_new_one(
            first in proptest::collection::vec(any::<u8>(), 0..200),
            second in proptest::collection::vec(any::<u8>(), 0..200),
            third in proptest::collection::vec(any::<u8>(), 0..200),
            written in 0usize..512,
        ) {
            let memory = DmaBuffer::of_this_process(512);
            let keep = Keep::new(&memory).unwrap();
            prop_assert_eq!(keep.get(), None);
            prop_assert!(keep.put(&first) && keep.put(&second));
            let mut before = vec![0; 512];
            memory.copy_out(0, &mut before);
            prop_assert!(keep.put(&third));
            let mut after = vec![0; 512];
            memory.copy_out(0, &mut after);
            // Any part of the bytes may have arrived.
            let half: Vec<u8> = (0..512).map(|at| if at < written { after[at] } else { before[at] }).collect();
            memory.copy_in(0, &half);
            let got = keep.get();
            prop_assert!(got.as_ref() == Some(&second) || got.as_ref() == Some(&third), "{:?}", got);
            let half: Vec<u8> = (0..512).map(|at| if at >= written { after[at] } else { before[at] }).collect();
            memory.copy_in(0, &half);
            let got = keep.get();
            prop_assert!(got.as_ref() == Some(&second) || got.as_ref() == Some(&third), "{:?}", got);
            memory.copy_in(0, &after);
            prop_assert_eq!(keep.get(), Some(third));
        }

        #[test]
        fn foreign_bytes_are_nothing(bytes in proptest::collection::vec(any::<u8>(), 128)) {
            let memory = DmaBuffer::of_this_process(128);
            memory.copy_in(0, &bytes);
            prop_assert_eq!(Keep::new(&memory).unwrap().get(), None);
        }
    }

    #[test]
    fn what_is_too_long_changes_nothing() {
        let keep = Keep::new(&DmaBuffer::of_this_process(256)).unwrap();
        assert!(keep.put(&[1; 104]));
        assert!(!keep.put(&[2; 105]));
        assert_eq!(keep.get(), Some(vec![1; 104]));
    }
}
