//! Which slots of a capability table are free.

use alloc::{vec, vec::Vec};

/// A bit for each slot of a range.
#[derive(Debug, Default)]
pub(crate) struct SlotTable {
    first: u32,
    count: u32,
    used: Vec<u64>,
}

impl SlotTable {
    /// All slots from `first` to below `end` are free.
    pub(crate) fn new(first: u32, end: u32) -> Self {
        let count = end.saturating_sub(first);
        Self {
            first,
            count,
            used: vec![0; count.div_ceil(64) as usize],
        }
    }

    fn is_used(&self, index: u32) -> bool {
        self.used[(index / 64) as usize] & 1 << (index % 64) != 0
    }

    /// Takes `count` consecutive slots, the lowest that are free.
    pub(crate) fn take(&mut self, count: u32) -> Option<u32> {
        let mut run = 0;
        let mut index = 0;
        while index < self.count {
            // Words without a free slot are skipped whole.
            if index.is_multiple_of(64) && self.used[(index / 64) as usize] == u64::MAX {
                run = 0;
                index += 64;
                continue;
            }
            run = if self.is_used(index) { 0 } else { run + 1 };
            index += 1;
            if run == count && count > 0 {
                for taken in index - count..index {
                    self.used[(taken / 64) as usize] |= 1 << (taken % 64);
                }
                return Some(self.first + index - count);
            }
        }
        None
    }

    /// Gives slots back; slots outside the table are ignored.
    pub(crate) fn give(&mut self, slot: u32, count: u32) {
        let end = slot.saturating_add(count).min(self.first + self.count);
        for index in slot.max(self.first) - self.first..end.saturating_sub(self.first) {
            self.used[(index / 64) as usize] &= !(1 << (index % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn never_hands_a_slot_out_twice(first in 0u32..100, size in 0u32..300, steps in proptest::collection::vec((any::<bool>(), 1u32..6, any::<prop::sample::Index>()), 0..200)) {
            let mut table = SlotTable::new(first, first + size);
            let mut taken: Vec<(u32, u32)> = Vec::new();
            let mut used = BTreeSet::new();
            for (take, count, which) in steps {
                if take {
                    match table.take(count) {
                        Some(slot) => {
                            prop_assert!(slot >= first && slot + count <= first + size);
                            for slot in slot..slot + count {
                                prop_assert!(used.insert(slot));
                            }
                            taken.push((slot, count));
                        }
                        None => {
                            let free_run = (first..first + size).collect::<Vec<_>>().windows(count as usize).any(|run| run.iter().all(|slot| !used.contains(slot)));
                            prop_assert!(!free_run);
                        }
                    }
                } else if !taken.is_empty() {
                    let (slot, count) = taken.swap_remove(which.index(taken.len()));
                    table.give(slot, count);
                    for slot in slot..slot + count {
                        used.remove(&slot);
                    }
                }
            }
        }
    }

    #[test]
    fn ignores_slots_of_others() {
        let mut table = SlotTable::new(10, 12);
        table.give(0, u32::MAX);
        assert_eq!(table.take(2), Some(10));
        assert_eq!(table.take(1), None);
        assert_eq!(table.take(0), None);
    }
}
