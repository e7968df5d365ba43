//! Page tables of a domain: the same tree in two formats (VT-d 9.8; AMD-Vi 2.2.3).

use crate::{Error, Hardware, Kind};
use alloc::vec::Vec;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Address bits of an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Absent,
    /// The next table.
    Table(u64),
    /// Memory.
    Leaf,
}

/// Bits of VT-d's entries.
mod vtd {
    /// May be read and written.
    pub const READ_WRITE: u64 = 3;
    /// A page of this level's size.
    pub const LARGE: u64 = 1 << 7;
}

/// Bits of AMD-Vi's entries.
mod amd {
    pub const PRESENT: u64 = 1;
    /// Level of the next table; 0: this is memory.
    pub const NEXT: u32 = 9;
    /// May be read and written.
    pub const READ_WRITE: u64 = 3 << 61;
    /// Not present; all other bits are software's. QEMU's unit refuses what leads here only if it looks like a table, and passes over an entry that is all zero without recording a fault.
    pub const ABSENT: u64 = 1 << NEXT;
}

impl Kind {
    /// What stands where nothing is mapped.
    const fn absent(self) -> u64 {
        match self {
            Self::Vtd => 0,
            Self::Amd => amd::ABSENT,
        }
    }

    fn decode(self, word: u64, level: u8) -> Entry {
        let (present, leaf) = match self {
            Self::Vtd => (word & vtd::READ_WRITE != 0, level == 1 || word & vtd::LARGE != 0),
            Self::Amd => (word & amd::PRESENT != 0, word >> amd::NEXT & 7 == 0),
        };
        match (present, leaf) {
            (false, _) => Entry::Absent,
            (true, true) => Entry::Leaf,
            (true, false) => Entry::Table(word & ADDRESS),
        }
    }

    /// An entry of level `level` for the table `next`.
    const fn table(self, next: u64, level: u8) -> u64 {
        match self {
            Self::Vtd => next | vtd::READ_WRITE,
            Self::Amd => next | amd::PRESENT | amd::READ_WRITE | (level as u64 - 1) << amd::NEXT,
        }
    }

    /// An entry of level `level` for memory.
    const fn leaf(self, address: u64, level: u8) -> u64 {
        match self {
            Self::Vtd => address | vtd::READ_WRITE | if level > 1 { vtd::LARGE } else { 0 },
            Self::Amd => address | amd::PRESENT | amd::READ_WRITE,
        }
    }
}

/// Bytes that an entry of a level maps.
const fn size(level: u8) -> u64 {
    PAGE << (9 * (level as u32 - 1))
}

/// What all tables have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Format.
    pub kind: Kind,
    /// Levels, 3 or 4.
    pub levels: u8,
    /// Highest level at which memory may stand: 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB.
    pub large: u8,
    /// Units do not look into the processors' caches.
    pub flush: bool,
}

impl Shape {
    /// Makes a table without entries.
    pub fn empty(self, hardware: &mut impl Hardware) -> Result<u64, Error> {
        let page = hardware.take(0).ok_or(Error::NoMemory)?;
        for place in (page..page + PAGE).step_by(8) {
            hardware.store(place, self.kind.absent(), self.flush);
        }
        Ok(page)
    }
}

/// The tables of a domain.
#[derive(Debug)]
pub struct Tables {
    shape: Shape,
    /// The first table.
    pub root: u64,
    /// The others.
    pages: Vec<u64>,
}

impl Tables {
    /// Maps nothing.
    pub fn new(shape: Shape, hardware: &mut impl Hardware) -> Result<Self, Error> {
        Ok(Self {
            shape,
            root: shape.empty(hardware)?,
            pages: Vec::new(),
        })
    }

    /// Pages that they take.
    pub fn pages(&self) -> usize {
        self.pages.len() + 1
    }

    /// Gives their memory back. No unit refers to it any more.
    pub fn end(self, hardware: &mut impl Hardware) {
        for page in self.pages.into_iter().chain([self.root]) {
            hardware.give(page);
        }
    }

    fn check(&self, address: u64, length: u64) -> Result<u64, Error> {
        let end = address.checked_add(length).ok_or(Error::OutOfReach(address))?;
        if length == 0 || !address.is_multiple_of(PAGE) || !length.is_multiple_of(PAGE) {
            return Err(Error::BadRange);
        }
        let reach = size(self.shape.levels) << 9;
        if end > reach { Err(Error::OutOfReach(end - 1)) } else { Ok(end) }
    }

    /// The place of the entry for `address` at `level` or above, with its level: the first on the way down that is no table.
    fn find(&self, hardware: &impl Hardware, address: u64, level: u8) -> (u64, u8, Entry) {
        let (mut table, mut at) = (self.root, self.shape.levels);
        loop {
            let place = table + (address / size(at)) % 512 * 8;
            let entry = self.shape.kind.decode(hardware.load(place), at);
            match entry {
                Entry::Table(next) if at > level => (table, at) = (next, at - 1),
                _ => return (place, at, entry),
            }
        }
    }

    /// Maps a range to memory at `physical`, readable and writable. Either all of it is mapped afterwards, or nothing of it.
    pub fn map(&mut self, hardware: &mut impl Hardware, address: u64, physical: u64, length: u64) -> Result<(), Error> {
        let end = self.check(address, length)?;
        if !physical.is_multiple_of(PAGE) || physical.checked_add(length).is_none_or(|end| end & !ADDRESS & !(PAGE - 1) != 0) {
            return Err(Error::BadRange);
        }
        let mut next = address;
        while next < end {
            match self.map_one(hardware, next, physical + (next - address), end) {
                Ok(mapped) => next += mapped,
                Err(error) => {
                    self.clear(hardware, address, next);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Maps the largest page that fits at `address`; answers its bytes.
    fn map_one(&mut self, hardware: &mut impl Hardware, address: u64, physical: u64, end: u64) -> Result<u64, Error> {
        let fits = |level: &u8| (address | physical).is_multiple_of(size(*level)) && address + size(*level) <= end;
        let wanted = (1..=self.shape.large).rev().find(fits).unwrap_or(1);
        let Shape { kind, flush, .. } = self.shape;
        loop {
            match self.find(hardware, address, wanted) {
                (place, level, Entry::Absent) if level == wanted => {
                    hardware.store(place, kind.leaf(physical, level), flush);
                    return Ok(size(level));
                }
                (place, level, Entry::Absent) => {
                    let table = self.shape.empty(hardware)?;
                    self.pages.push(table);
                    hardware.store(place, kind.table(table, level), flush);
                }
                (_, _, Entry::Leaf) => return Err(Error::Overlap(address)),
                // A table is left from smaller pages that were here: it is used again, for then no unit has to forget it.
                (_, level, Entry::Table(_)) => return self.map_one(hardware, address, physical, address + size(level - 1)),
            }
        }
    }

    /// Unmaps a range that was mapped as it is.
    pub fn unmap(&mut self, hardware: &mut impl Hardware, address: u64, length: u64) -> Result<(), Error> {
        let end = self.check(address, length)?;
        self.clear(hardware, address, end);
        Ok(())
    }

    fn clear(&self, hardware: &mut impl Hardware, address: u64, end: u64) {
        let mut next = address;
        while next < end {
            let (place, level, entry) = self.find(hardware, next, 1);
            if entry == Entry::Leaf {
                hardware.store(place, self.shape.kind.absent(), self.shape.flush);
            }
            next = (next / size(level) + 1) * size(level);
        }
    }
}
