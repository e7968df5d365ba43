//! Which parts of an address range are free.

use alloc::vec::Vec;

const PAGE: u64 = tessera_abi::PAGE_SIZE as u64;

/// Free address ranges, sorted, never touching each other.
#[derive(Debug)]
pub(crate) struct Regions {
    free: Vec<(u64, u64)>,
}

impl Regions {
    /// One free range. `start` and `end` are page-aligned.
    pub(crate) fn new(start: u64, end: u64) -> Self {
        let mut free = Vec::new();
        if start < end {
            free.push((start, end));
        }
        Self { free }
    }

    /// Takes `length` bytes (a multiple of the page size) at a multiple of `align`. A free page stays before and after each taken range as a guard: it belongs to the range.
    pub(crate) fn take(&mut self, length: u64, align: u64) -> Option<u64> {
        let align = align.max(PAGE);
        for index in 0..self.free.len() {
            let (start, end) = self.free[index];
            let Some(address) = start.checked_add(PAGE).and_then(|low| low.checked_next_multiple_of(align)) else {
                continue;
            };
            let Some(after) = address.checked_add(length).and_then(|high| high.checked_add(PAGE)) else {
                continue;
            };
            if after > end || length == 0 {
                continue;
            }
            let before = address - PAGE;
            self.free.remove(index);
            if after < end {
                self.free.insert(index, (after, end));
            }
            if start < before {
                self.free.insert(index, (start, before));
            }
            return Some(address);
        }
        None
    }

    /// Gives a range back that [`Self::take`] returned.
    pub(crate) fn give(&mut self, address: u64, length: u64) {
        let (start, end) = (address - PAGE, address + length + PAGE);
        let index = self.free.partition_point(|range| range.0 < start);
        self.free.insert(index, (start, end));
        if index + 1 < self.free.len() && self.free[index + 1].0 == end {
            self.free[index].1 = self.free.remove(index + 1).1;
        }
        if index > 0 && self.free[index - 1].1 == start {
            self.free[index - 1].1 = self.free.remove(index).1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_are_apart_and_all_comes_back(steps in proptest::collection::vec((any::<bool>(), 1u64..20, 0u32..6, any::<prop::sample::Index>()), 0..120)) {
            let (low, high) = (0x4000_0000, 0x4100_0000);
            let mut regions = Regions::new(low, high);
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (take, pages, align, which) in steps {
                if take {
                    let align = PAGE << align;
                    if let Some(address) = regions.take(pages * PAGE, align) {
                        prop_assert!(address.is_multiple_of(align));
                        prop_assert!(address > low && address + pages * PAGE < high);
                        for (other, length) in &taken {
                            prop_assert!(address >= other + length + PAGE || address + pages * PAGE + PAGE <= *other);
                        }
                        taken.push((address, pages * PAGE));
                    }
                } else if !taken.is_empty() {
                    let (address, length) = taken.swap_remove(which.index(taken.len()));
                    regions.give(address, length);
                }
            }
            for (address, length) in taken {
                regions.give(address, length);
            }
            prop_assert_eq!(regions.free, vec![(low, high)]);
        }
    }
}
