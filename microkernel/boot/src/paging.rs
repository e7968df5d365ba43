//! Building the kernel's own page tables at boot. They never change afterwards; user and guest tables are the objects' business.

/// Bits of page-table entries (Intel SDM volume 3, 4.5; the same in AMD's nested tables).
pub mod bits {
    /// The entry is used.
    pub const PRESENT: u64 = 1 << 0;
    /// Writable.
    pub const WRITE: u64 = 1 << 1;
    /// User mode may use it.
    pub const USER: u64 = 1 << 2;
    /// Selects the page attribute: write-combining, as the kernel sets PAT.
    pub const PWT: u64 = 1 << 3;
    /// Selects the page attribute, with PWT: uncached.
    pub const PCD: u64 = 1 << 4;
    /// Was used.
    pub const ACCESSED: u64 = 1 << 5;
    /// Was written.
    pub const DIRTY: u64 = 1 << 6;
    /// A leaf above the lowest level.
    pub const LARGE: u64 = 1 << 7;
    /// Stays in the TLB when CR3 is written.
    pub const GLOBAL: u64 = 1 << 8;
    /// No instructions may be fetched from it.
    pub const NO_EXECUTE: u64 = 1 << 63;
    /// The physical address in an entry.
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    /// Memory of devices.
    pub const UNCACHED: u64 = PCD | PWT;
    /// Frame buffers.
    pub const WRITE_COMBINING: u64 = PWT;
}

/// Size of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Large,
    /// 1 GiB.
    Huge,
}

impl PageSize {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    const fn shift(self) -> u32 {
        match self {
            Self::Small => 12,
            Self::Large => 21,
            Self::Huge => 30,
        }
    }
}

/// Physical memory as the builder sees it.
pub trait TableMemory {
    /// Reads entry `index` (0 to 511) of the table at `table`.
    fn read(&self, table: u64, index: usize) -> u64;
    /// Writes it.
    fn write(&mut self, table: u64, index: usize, entry: u64);
    /// A new table, all zero; `None` when memory is short.
    fn allocate(&mut self) -> Option<u64>;
}

/// Why a page could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// No memory for a table.
    NoMemory,
    /// Something is mapped there.
    Occupied,
    /// Address not a multiple of the page size.
    Misaligned,
    /// The page would be writable and executable.
    WriteExecute,
}

/// Maps one page. `flags` are the leaf's bits besides address, PRESENT and LARGE.
///
/// # Errors
/// See [`MapError`]; what was mapped before stays as it was.
pub fn map(memory: &mut impl TableMemory, root: u64, address: u64, physical: u64, size: PageSize, flags: u64) -> Result<(), MapError> {
    if !(address | physical).is_multiple_of(size.bytes()) || physical & !bits::ADDRESS != 0 {
        return Err(MapError::Misaligned);
    }
    if flags & bits::WRITE != 0 && flags & bits::NO_EXECUTE == 0 {
        return Err(MapError::WriteExecute);
    }
    let index = |shift: u32| (address >> shift & 511) as usize;
    let mut table = root;
    let mut shift = 39;
    while shift > size.shift() {
        let entry = memory.read(table, index(shift));
        table = if entry & bits::PRESENT == 0 {
            let new = memory.allocate().ok_or(MapError::NoMemory)?;
            // Rights are decided by the leaf.
            memory.write(table, index(shift), new | bits::PRESENT | bits::WRITE);
            new
        } else if entry & bits::LARGE != 0 {
            return Err(MapError::Occupied);
        } else {
            entry & bits::ADDRESS
        };
        shift -= 9;
    }
    if memory.read(table, index(shift)) & bits::PRESENT != 0 {
        return Err(MapError::Occupied);
    }
    let large = if matches!(size, PageSize::Small) { 0 } else { bits::LARGE };
    memory.write(table, index(shift), physical | flags | large | bits::PRESENT);
    Ok(())
}

/// Page tables in a vector, for tests.
#[cfg(test)]
pub(crate) mod simulated {
    use super::*;

    pub struct Simulated {
        tables: Vec<[u64; 512]>,
        limit: usize,
    }

    impl Simulated {
        pub fn new(limit: usize) -> Self {
            Self { tables: vec![[0; 512]], limit }
        }
    }

    impl TableMemory for Simulated {
        fn read(&self, table: u64, index: usize) -> u64 {
            self.tables[(table >> 12) as usize][index]
        }
        fn write(&mut self, table: u64, index: usize, entry: u64) {
            self.tables[(table >> 12) as usize][index] = entry;
        }
        fn allocate(&mut self) -> Option<u64> {
            (self.tables.len() < self.limit).then(|| {
                self.tables.push([0; 512]);
                (self.tables.len() as u64 - 1) << 12
            })
        }
    }

    /// The leaf that maps `address`, with its size; `None` if nothing is mapped there.
    pub fn look_up(memory: &Simulated, root: u64, address: u64) -> Option<(u64, PageSize)> {
        let mut table = root;
        for (shift, size) in [(39, None), (30, Some(PageSize::Huge)), (21, Some(PageSize::Large)), (12, Some(PageSize::Small))] {
            let entry = memory.read(table, (address >> shift & 511) as usize);
            if entry & bits::PRESENT == 0 {
                return None;
            }
            match size {
                Some(size) if entry & bits::LARGE != 0 || size == PageSize::Small => return Some((entry, size)),
                _ => table = entry & bits::ADDRESS,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::simulated::{Simulated, look_up};
    use super::*;
    use proptest::prelude::*;

    const DATA: u64 = bits::WRITE | bits::NO_EXECUTE;

    #[test]
    fn refuses_what_it_must() {
        let mut memory = Simulated::new(9);
        assert_eq!(map(&mut memory, 0, 0x1000, 0x2000, PageSize::Small, bits::WRITE), Err(MapError::WriteExecute));
        assert_eq!(map(&mut memory, 0, 0x1000, 0x2000, PageSize::Large, DATA), Err(MapError::Misaligned));
        assert_eq!(map(&mut memory, 0, 0x1001, 0x2000, PageSize::Small, DATA), Err(MapError::Misaligned));
        assert_eq!(map(&mut memory, 0, 0x20_0000, 0x40_0000, PageSize::Large, DATA), Ok(()));
        assert_eq!(map(&mut memory, 0, 0x20_1000, 0x2000, PageSize::Small, DATA), Err(MapError::Occupied));
        assert_eq!(map(&mut memory, 0, 0x20_0000, 0x2000, PageSize::Small, DATA), Err(MapError::Occupied));
        assert_eq!(map(&mut memory, 0, 0, 0, PageSize::Huge, DATA), Err(MapError::Occupied));
        let mut small = Simulated::new(2);
        assert_eq!(map(&mut small, 0, 0, 0, PageSize::Small, DATA), Err(MapError::NoMemory));
    }

    proptest! {
        /// What was mapped is found, with its bits; the page beside it is not, unless it was mapped too.
        #[test]
        fn finds_what_it_mapped(pages in proptest::collection::vec((0u64..1 << 35, 0u64..1 << 30, 0u8..3, any::<bool>()), 1..30)) {
            let mut memory = Simulated::new(1000);
            let mut mapped: Vec<(u64, u64, PageSize, u64)> = vec![];
            for (page, frame, size, writable) in pages {
                let size = [PageSize::Small, PageSize::Large, PageSize::Huge][size as usize];
                let address = (page << 12) / size.bytes() * size.bytes();
                let physical = (frame << 12) / size.bytes() * size.bytes();
                let flags = if writable { DATA } else { 0 };
                let free = !mapped.iter().any(|&(at, _, other, _)| address < at + other.bytes() && at < address + size.bytes());
                match map(&mut memory, 0, address, physical, size, flags) {
                    Ok(()) => {
                        prop_assert!(free);
                        mapped.push((address, physical, size, flags));
                    }
                    // A large page is also refused where a table of smaller pages stands.
                    Err(error) => prop_assert!(error == MapError::Occupied && !free),
                }
            }
            for (address, physical, size, flags) in mapped {
                for offset in [0, size.bytes() - 1] {
                    let (entry, found) = look_up(&memory, 0, address + offset).unwrap();
                    prop_assert_eq!(found, size);
                    prop_assert_eq!(entry & bits::ADDRESS, physical);
                    prop_assert_eq!(entry & (bits::WRITE | bits::NO_EXECUTE), flags);
                }
            }
        }
    }
}
