//! What the kernel's own page tables show: the direct map of physical memory and the kernel's image.

use tessera_abi::{LARGE_PAGE_SIZE, PAGE_SIZE};

use crate::memory_map::{FOUR_GIB, MemoryMap, PHYS_LIMIT};
use crate::paging::{MapError, PageSize, TableMemory, bits, map};
use crate::regions::Region;

/// Physical memory appears here.
pub const PHYS_MAP: u64 = 0xffff_8000_0000_0000;
/// The kernel is linked here plus its physical address.
pub const KERNEL_VIRT: u64 = 0xffff_ffff_8000_0000;

const LARGE: u64 = LARGE_PAGE_SIZE as u64;

/// Where the parts of the kernel's image begin and end, as physical addresses on pages. Text is followed by constants, and these by data.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// The boot code, which is not mapped at the link address.
    pub start: u64,
    /// First page of text.
    pub text: u64,
    /// First page of constants.
    pub constants: u64,
    /// First page of data.
    pub data: u64,
    /// End of the image.
    pub end: u64,
}

impl Image {
    /// All of it.
    #[must_use]
    pub const fn region(&self) -> Region {
        Region { base: self.start, end: self.end }
    }

    /// Rights of a page of it, as page-table bits.
    fn rights(&self, page: u64) -> u64 {
        if page < self.constants {
            0
        } else if page < self.data {
            bits::NO_EXECUTE
        } else {
            bits::NO_EXECUTE | bits::WRITE
        }
    }
}

/// Maps the image at [`KERNEL_VIRT`], and at [`PHYS_MAP`] the first 4 GiB and all cacheable memory: what is not RAM or the firmware's uncached, text and constants
/// read-only, nothing executable. `huge` allows 1 GiB pages.
///
/// # Errors
/// The address that could not be mapped, and why.
pub fn build(memory: &mut impl TableMemory, root: u64, image: &Image, map_of: &MemoryMap, huge: bool) -> Result<(), (u64, MapError)> {
    let mut put = |address: u64, physical: u64, size: PageSize, flags: u64| {
        map(memory, root, address, physical, size, flags | bits::GLOBAL).map_err(|error| (address, error))
    };
    let data = bits::NO_EXECUTE | bits::WRITE;
    for page in (image.text..image.end).step_by(PAGE_SIZE) {
        put(KERNEL_VIRT + page, page, PageSize::Small, image.rights(page))?;
    }
    for base in (0..FOUR_GIB).step_by(LARGE_PAGE_SIZE) {
        let chunk = Region::with_length(base, LARGE);
        if chunk.overlaps(image.region()) {
            for page in (chunk.base..chunk.end).step_by(PAGE_SIZE) {
                let rights = if (image.text..image.end).contains(&page) { image.rights(page) | bits::NO_EXECUTE } else { data };
                put(PHYS_MAP + page, page, PageSize::Small, rights)?;
            }
        } else {
            let caching = if map_of.cached().overlaps(chunk) { 0 } else { bits::UNCACHED };
            put(PHYS_MAP + base, base, PageSize::Large, data | caching)?;
        }
    }
    let high = Region { base: FOUR_GIB, end: PHYS_LIMIT };
    let mut next = FOUR_GIB;
    for region in map_of.cached().as_slice() {
        let region = region.intersection(high).grown_to(LARGE);
        next = next.max(region.base);
        while next < region.end {
            let gigabyte = PageSize::Huge.bytes();
            let fits = huge && next.is_multiple_of(gigabyte) && region.end - next >= gigabyte;
            let size = if fits { PageSize::Huge } else { PageSize::Large };
            put(PHYS_MAP + next, next, size, data)?;
            next += size.bytes();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multiboot2::{MemoryEntry, MemoryKind};
    use crate::paging::simulated::{Simulated, look_up};
    use proptest::prelude::*;

    const IMAGE: Image = Image { start: 0x20_0000, text: 0x20_3000, constants: 0x21_0000, data: 0x21_4000, end: 0x24_5000 };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Whatever the firmware's map: nothing is writable and executable anywhere, text and constants are never writable, all RAM is there and cached, and what
        /// nobody named is uncached.
        #[test]
        fn shows_memory_as_it_must(entries in prop::collection::vec((0u64..1 << 21, 1u64..1 << 19, 0u8..4), 1..12), huge: bool) {
            let kind = |number| [MemoryKind::Available, MemoryKind::AcpiTables, MemoryKind::AcpiNvs, MemoryKind::Reserved][number as usize];
            let entries: Vec<_> = entries.into_iter().map(|(base, length, number)| MemoryEntry { base: base << 12, length: length << 12, kind: kind(number) }).collect();
            let memory_map = MemoryMap::new(&entries, IMAGE.region(), Region { base: 1 << 30, end: (1 << 30) + 0x1000 });
            let mut memory = Simulated::new(100_000);
            build(&mut memory, 0, &IMAGE, &memory_map, huge).unwrap();
            for page in (0..0x40_0000).step_by(PAGE_SIZE) {
                let (entry, _) = look_up(&memory, 0, PHYS_MAP + page).unwrap();
                prop_assert_eq!(entry & bits::ADDRESS & !0x1f_f000, page & !0x1f_ffff);
                prop_assert!(entry & bits::NO_EXECUTE != 0);
                prop_assert_eq!(entry & bits::WRITE == 0, (IMAGE.text..IMAGE.data).contains(&page));
                let linked = look_up(&memory, 0, KERNEL_VIRT + page).map(|(entry, _)| (entry & bits::ADDRESS, entry & (bits::WRITE | bits::NO_EXECUTE)));
                let expected = (IMAGE.text..IMAGE.end).contains(&page).then(|| (page, IMAGE.rights(page)));
                prop_assert_eq!(linked, expected);
            }
            for region in memory_map.cached().as_slice().iter().chain(memory_map.free.as_slice()) {
                for at in [region.base, (region.base + region.end) / 2, region.end - 1] {
                    let (entry, size) = look_up(&memory, 0, PHYS_MAP + at).unwrap();
                    prop_assert_eq!(entry & bits::ADDRESS & !(size.bytes() - 1), at & !(size.bytes() - 1));
                    prop_assert_eq!(entry & bits::UNCACHED, 0);
                }
            }
            let last = FOUR_GIB - LARGE;
            let uncached = look_up(&memory, 0, PHYS_MAP + last).unwrap().0 & bits::UNCACHED != 0;
            prop_assert_eq!(uncached, !memory_map.cached().overlaps(Region::with_length(last, LARGE)));
        }
    }
}
