//! Sets of physical address ranges: from the firmware's memory map to what is free.

use heapless::Vec;
use tessera_abi::boot::{MAX_UNTYPED, UntypedInfo};

/// Ranges that a set holds at most.
pub const MAX_REGIONS: usize = 96;
/// Bytes in a page.
const PAGE: u64 = tessera_abi::PAGE_SIZE as u64;

/// A range of physical addresses, `base..end`, never empty inside a [`RegionSet`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub base: u64,
    /// One past the last byte.
    pub end: u64,
}

impl Region {
    /// A range of `length` bytes, cut at the end of the address space.
    #[must_use]
    pub const fn with_length(base: u64, length: u64) -> Self {
        Self { base, end: base.saturating_add(length) }
    }

    /// Bytes in it.
    #[must_use]
    pub const fn length(self) -> u64 {
        self.end.saturating_sub(self.base)
    }

    /// Whole pages in it.
    #[must_use]
    pub const fn pages(self) -> u64 {
        self.length() / PAGE
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.end <= self.base
    }

    /// Whether a byte is in both.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.base < other.end && other.base < self.end
    }

    /// The whole pages inside.
    #[must_use]
    pub const fn shrunk_to(self, alignment: u64) -> Self {
        let base = match self.base.checked_next_multiple_of(alignment) {
            Some(base) => base,
            None => return Self { base: 0, end: 0 },
        };
        Self { base, end: self.end - self.end % alignment }
    }

    /// All pages that it touches; the last partial page of the address space is left out.
    #[must_use]
    pub const fn grown_to(self, alignment: u64) -> Self {
        let end = match self.end.checked_next_multiple_of(alignment) {
            Some(end) => end,
            None => u64::MAX - u64::MAX % alignment,
        };
        Self { base: self.base - self.base % alignment, end }
    }

    /// What both have.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self { base: self.base.max(other.base), end: self.end.min(other.end) }
    }
}

/// A set of addresses as sorted ranges that neither overlap nor touch.
///
/// When a set is full, it forgets addresses and never invents any: memory may be lost, never handed out wrongly.
#[derive(Clone, Debug, Default)]
pub struct RegionSet {
    regions: Vec<Region, MAX_REGIONS>,
    lost: u64,
}

impl RegionSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { regions: Vec::new(), lost: 0 }
    }

    /// The ranges, in ascending order.
    #[must_use]
    pub fn as_slice(&self) -> &[Region] {
        &self.regions
    }

    /// Bytes forgotten because the set was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Bytes in the set.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.regions.iter().map(|region| region.length()).sum()
    }

    /// Whether all of `region` is in the set.
    #[must_use]
    pub fn contains(&self, region: Region) -> bool {
        self.regions.iter().any(|one| one.base <= region.base && region.end <= one.end)
    }

    /// Whether some of `region` is in the set.
    #[must_use]
    pub fn overlaps(&self, region: Region) -> bool {
        self.regions.iter().any(|one| one.overlaps(region))
    }

    /// Adds a range.
    #[inline(never)]
    pub fn add(&mut self, mut region: Region) {
        if region.is_empty() {
            return;
        }
        let first = self.regions.iter().position(|one| one.end >= region.base).unwrap_or(self.regions.len());
        while let Some(&next) = self.regions.get(first).filter(|one| one.base <= region.end) {
            region = Region { base: region.base.min(next.base), end: region.end.max(next.end) };
            self.regions.remove(first);
        }
        if self.regions.insert(first, region).is_err() {
            self.lost += region.length();
        }
    }

    /// Removes a range.
    #[inline(never)]
    pub fn subtract(&mut self, hole: Region) {
        if hole.is_empty() {
            return;
        }
        let mut index = 0;
        while let Some(&region) = self.regions.get(index) {
            if !region.overlaps(hole) {
                index += 1;
                continue;
            }
            let below = Region { base: region.base, end: hole.base.max(region.base) };
            let above = Region { base: hole.end.min(region.end), end: region.end };
            self.regions.remove(index);
            for part in [below, above] {
                if part.is_empty() {
                    continue;
                }
                if self.regions.insert(index, part).is_err() {
                    self.lost += part.length();
                } else {
                    index += 1;
                }
            }
        }
    }

    /// Shrinks every range to whole pages.
    pub fn shrink_to_pages(&mut self) {
        for region in &mut self.regions {
            *region = region.shrunk_to(PAGE);
        }
        self.regions.retain(|region| !region.is_empty());
    }

    /// Takes `length` bytes at a multiple of `alignment` (a power of two) out of the set, at the lowest address in `within`.
    pub fn take(&mut self, length: u64, alignment: u64, within: Region) -> Option<u64> {
        let found = self.regions.iter().find_map(|&region| {
            let candidate = region.intersection(within);
            let base = candidate.base.checked_next_multiple_of(alignment)?;
            (base.checked_add(length)? <= candidate.end).then_some(base)
        })?;
        self.subtract(Region::with_length(found, length));
        Some(found)
    }
}

/// What is left of RAM and devices, as the first server gets it: whole pages, no piece longer than 32 bits count, at most [`MAX_UNTYPED`] of them.
#[must_use]
pub fn untyped(free: &RegionSet, devices: &RegionSet) -> Vec<UntypedInfo, MAX_UNTYPED> {
    const PAGE: u64 = tessera_abi::PAGE_SIZE as u64;
    let mut list = Vec::new();
    let regions = free.as_slice().iter().map(|region| (region, 0)).chain(devices.as_slice().iter().map(|region| (region, 1)));
    for (region, device) in regions {
        let (mut base, end) = (region.base.next_multiple_of(PAGE), region.end & !(PAGE - 1));
        while base < end {
            let pages = ((end - base) / PAGE).min(u32::MAX.into());
            if list.push(UntypedInfo { base, pages, device }).is_err() {
                return list;
            }
            base += pages * PAGE;
        }
    }
    list
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_left_is_whole_pages_and_says_what_it_is() {
        let (mut free, mut devices) = (RegionSet::default(), RegionSet::default());
        free.add(Region { base: 0x1800, end: 0x3fff });
        free.add(Region { base: 0x10_0000, end: 0x10_0800 });
        devices.add(Region { base: 1 << 40, end: (1 << 40) + (1 << 45) });
        let list = untyped(&free, &devices);
        assert_eq!((list[0].base, list[0].pages, list[0].device), (0x2000, 1, 0));
        assert!(list[1..].iter().all(|piece| piece.device == 1 && piece.pages <= u32::MAX.into()));
        assert_eq!(list[1..].iter().map(|piece| piece.pages).sum::<u64>(), 1 << 33);
    }

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn merges_and_splits() {
        let mut set = RegionSet::new();
        set.add(Region { base: 10, end: 20 });
        set.add(Region { base: 30, end: 40 });
        set.add(Region { base: 20, end: 30 });
        assert_eq!(set.as_slice(), [Region { base: 10, end: 40 }]);
        set.subtract(Region { base: 15, end: 25 });
        set.subtract(Region { base: 39, end: 100 });
        assert_eq!(set.as_slice(), [Region { base: 10, end: 15 }, Region { base: 25, end: 39 }]);
    }

    #[test]
    fn a_full_set_only_loses() {
        let mut set = RegionSet::new();
        for i in 0..MAX_REGIONS as u64 {
            set.add(Region { base: i * 100, end: i * 100 + 50 });
        }
        set.add(Region { base: 1 << 40, end: (1 << 40) + 7 });
        assert_eq!(set.lost(), 7);
        set.subtract(Region { base: 10, end: 20 });
        assert!(!set.overlaps(Region { base: 10, end: 20 }));
        assert_eq!(set.lost(), 7 + 30);
        assert_eq!(set.as_slice().len(), MAX_REGIONS);
    }

    #[test]
    fn takes_aligned_memory_once() {
        let mut set = RegionSet::new();
        set.add(Region { base: 0x1800, end: 0x9000 });
        let all = Region { base: 0, end: u64::MAX };
        assert_eq!(set.take(0x2000, 0x1000, all), Some(0x2000));
        assert_eq!(set.take(0x2000, 0x1000, all), Some(0x4000));
        assert_eq!(set.take(0x4000, 0x1000, all), None);
        assert_eq!(set.take(0x1000, 0x1000, Region { base: 0x7800, end: 0x9000 }), Some(0x8000));
    }

    #[test]
    fn rounds_at_the_edges() {
        assert!(Region { base: u64::MAX - 5, end: u64::MAX }.shrunk_to(PAGE).is_empty());
        assert_eq!(Region { base: 1, end: u64::MAX }.grown_to(PAGE), Region { base: 0, end: !0xfff });
    }

    proptest! {
        /// A set agrees with a bitmap that does the same.
        #[test]
        fn agrees_with_a_bitmap(steps in proptest::collection::vec((any::<bool>(), 0u64..200, 0u64..60), 0..60)) {
            let mut set = RegionSet::new();
            let mut bitmap = [false; 300];
            for (add, base, length) in steps {
                let region = Region::with_length(base, length);
                if add { set.add(region) } else { set.subtract(region) }
                bitmap[base as usize..(base + length) as usize].fill(add);
                for pair in set.as_slice().windows(2) {
                    prop_assert!(pair[0].end < pair[1].base);
                }
                for (address, &there) in bitmap.iter().enumerate() {
                    prop_assert_eq!(set.overlaps(Region::with_length(address as u64, 1)), there);
                }
            }
            prop_assert_eq!(set.lost(), 0);
        }
    }
}
