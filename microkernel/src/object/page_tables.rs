//! The page tables of address spaces and guests: four levels, 4 KiB and 2 MiB pages, tables from the space's own pool.

use tessera_abi::Error;
use tessera_abi::object::{Rights, frame as op};
use tessera_boot::paging::bits;

/// Where tables come from and how they are reached.
pub trait Tables {
    /// Reads entry `index` (0 to 511) of the table at `table`.
    fn read(&self, table: u64, index: usize) -> u64;
    /// Writes it.
    fn write(&self, table: u64, index: usize, entry: u64);
    /// Clears `flags` in an entry that processors may be using, and returns which of them were set.
    fn take(&self, table: u64, index: usize, flags: u64) -> u64 {
        let entry = self.read(table, index);
        self.write(table, index, entry & !flags);
        entry & flags
    }
    /// A zeroed table; `None` when the pool is empty.
    fn allocate(&self) -> Option<u64>;
    /// Takes a table back; all its entries are zero.
    fn free(&self, table: u64);
    /// What the hardware that walks them expects.
    fn format(&self) -> Format {
        Format { extended: false, huge: false }
    }
}

/// What kind of tables they are. Presence, the right to write, the size of a page and addresses stand in the same bits in all, and entries that name a table hold
/// the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// VT-x's extended page tables (Intel SDM volume 3, 29.3.2): the right to execute and the caching have bits of their own.
    pub extended: bool,
    /// There are pages of 1 GiB.
    pub huge: bool,
}

/// How a page is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Write-back.
    Normal,
    /// None: device registers.
    Uncached,
    /// Write-combining: frame buffers.
    WriteCombining,
}

impl Caching {
    /// From the flags of `Frame` `MAP`; `None` if both are set.
    pub fn from_flags(flags: u64) -> Option<Self> {
        match flags {
            0 => Some(Self::Normal),
            op::UNCACHED => Some(Self::Uncached),
            op::WRITE_COMBINING => Some(Self::WriteCombining),
            _ => None,
        }
    }
}

/// What to map.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// Virtual or guest-physical address.
    pub address: u64,
    /// Physical address.
    pub physical: u64,
    /// Length in 4 KiB pages.
    pub pages: u64,
    /// Read, write, execute.
    pub rights: Rights,
    /// Caching.
    pub caching: Caching,
    /// Only 4 KiB pages.
    pub small: bool,
}

impl Mapping {
    /// A page of a kernel object that its holder reads and writes too.
    pub const fn shared_page(address: u64, physical: u64) -> Self {
        let rights = Rights::READ.union(Rights::WRITE);
        Self { address, physical, pages: 1, rights, caching: Caching::Normal, small: true }
    }
}

/// Most leaf entries that one operation writes, so that it ends soon.
pub const MAX_LEAVES: u64 = 1 << 16;

const LARGE_PAGES: u64 = 512;
const HUGE_PAGES: u64 = 512 * 512;
/// The right to execute in extended tables.
const EXTENDED_EXECUTE: u64 = 1 << 2;
const TABLE_FLAGS: u64 = bits::PRESENT | bits::WRITE | bits::USER;

fn leaf_flags(mapping: &Mapping, format: Format) -> u64 {
    if format.extended {
        let write = if mapping.rights.contains(Rights::WRITE) { bits::WRITE } else { 0 };
        let execute = if mapping.rights.contains(Rights::EXECUTE) { EXTENDED_EXECUTE } else { 0 };
        let kind = match mapping.caching {
            Caching::Normal => 6,
            Caching::Uncached => 0,
            Caching::WriteCombining => 1,
        };
        return bits::PRESENT | write | execute | kind << 3;
    }
    let mut flags = bits::PRESENT | bits::USER;
    if mapping.rights.contains(Rights::WRITE) {
        flags |= bits::WRITE;
    }
    if !mapping.rights.contains(Rights::EXECUTE) {
        flags |= bits::NO_EXECUTE;
    }
    flags
        | match mapping.caching {
            Caching::Normal => 0,
            Caching::Uncached => bits::UNCACHED,
            Caching::WriteCombining => bits::WRITE_COMBINING,
        }
}

fn index(address: u64, shift: u32) -> usize {
    (address >> shift & 511) as usize
}

/// The table one level down, made if it is missing.
fn descend(tables: &impl Tables, table: u64, at: usize) -> Result<u64, Error> {
    let entry = tables.read(table, at);
    if entry & bits::PRESENT == 0 {
        let new = tables.allocate().ok_or(Error::NoMemory)?;
        tables.write(table, at, new | TABLE_FLAGS);
        Ok(new)
    } else if entry & bits::LARGE != 0 {
        Err(Error::AlreadyMapped)
    } else {
        Ok(entry & bits::ADDRESS)
    }
}

/// Maps a range with the largest pages that fit.
///
/// # Errors
/// `AlreadyMapped`, `NoMemory`, `BadArgument` (too long for one operation); nothing is mapped then.
pub fn map(tables: &impl Tables, root: u64, mapping: &Mapping) -> Result<(), Error> {
    let format = tables.format();
    let flags = leaf_flags(mapping, format);
    let mut done = 0;
    let mut leaves = 0;
    while done < mapping.pages {
        let address = mapping.address + done * 4096;
        let physical = mapping.physical + done * 4096;
        let fits = |pages: u64| !mapping.small && (address | physical).is_multiple_of(pages * 4096) && mapping.pages - done >= pages;
        let pages = if format.huge && fits(HUGE_PAGES) {
            HUGE_PAGES
        } else if fits(LARGE_PAGES) {
            LARGE_PAGES
        } else {
            1
        };
        leaves += 1;
        let result = if leaves > MAX_LEAVES { Err(Error::BadArgument) } else { map_leaf(tables, root, address, physical, flags, pages) };
        if let Err(error) = result {
            // Tables that were made on the way and hold nothing go with this.
            unmap(tables, root, mapping.address, done);
            prune(tables, root, address);
            return Err(error);
        }
        done += pages;
    }
    Ok(())
}

fn map_leaf(tables: &impl Tables, root: u64, address: u64, physical: u64, flags: u64, pages: u64) -> Result<(), Error> {
    let pointers = descend(tables, root, index(address, 39))?;
    let (table, at, size) = if pages == HUGE_PAGES {
        (pointers, index(address, 30), bits::LARGE)
    } else {
        let directory = descend(tables, pointers, index(address, 30))?;
        if pages == LARGE_PAGES {
            (directory, index(address, 21), bits::LARGE)
        } else {
            (descend(tables, directory, index(address, 21))?, index(address, 12), 0)
        }
    };
    if tables.read(table, at) & bits::PRESENT != 0 {
        return Err(Error::AlreadyMapped);
    }
    tables.write(table, at, physical | flags | size);
    Ok(())
}

/// Takes the mappings of a range away, and tables that hold nothing any more. The range is one that [`map`] was given.
pub fn unmap(tables: &impl Tables, root: u64, address: u64, pages: u64) {
    let end = address + pages * 4096;
    let mut at = address;
    while at < end {
        let Some((table, position, size)) = leaf(tables, root, at) else {
            at += 4096;
            continue;
        };
        tables.write(table, position, 0);
        let next = at + size;
        // A table can only have become empty when its last entry of the range is gone.
        if next >= end || next.is_multiple_of(LARGE_PAGES * 4096) {
            prune(tables, root, at);
        }
        at = next;
    }
}

/// Table, index and size of the leaf that maps `address`.
fn leaf(tables: &impl Tables, root: u64, address: u64) -> Option<(u64, usize, u64)> {
    let mut table = root;
    for shift in [39, 30, 21] {
        let entry = tables.read(table, index(address, shift));
        if entry & bits::PRESENT == 0 {
            return None;
        }
        if entry & bits::LARGE != 0 {
            return Some((table, index(address, shift), 1 << shift));
        }
        table = entry & bits::ADDRESS;
    }
    (tables.read(table, index(address, 12)) & bits::PRESENT != 0).then_some((table, index(address, 12), 4096))
}

/// Takes the flags that say that pages of a range were written, or (`accessed`) touched, and names those pages by their number in the range. The caller flushes translations, which
/// remember that the flags need not be set.
pub fn take_flags(tables: &impl Tables, root: u64, range: core::ops::Range<u64>, accessed: bool, mut found: impl FnMut(u64)) {
    let flag = if accessed { bits::ACCESSED } else { bits::DIRTY } << if tables.format().extended { 3 } else { 0 };
    let mut at = range.start;
    while at < range.end {
        let Some((table, position, size)) = leaf(tables, root, at) else {
            at += 4096;
            continue;
        };
        let next = (at & !(size - 1)) + size;
        // A large page that is only partly looked at is told of again with the rest.
        let whole = next - size >= range.start && next <= range.end;
        if (if whole { tables.take(table, position, flag) } else { tables.read(table, position) & flag }) != 0 {
            (at..next.min(range.end)).step_by(4096).for_each(|page| found((page - range.start) / 4096));
        }
        at = next;
    }
}

/// Frees the tables on the way to `address` that hold nothing.
fn prune(tables: &impl Tables, root: u64, address: u64) {
    let mut path = [(root, index(address, 39)), (0, 0), (0, 0)];
    let mut depth = 0;
    for (i, shift) in [30, 21].into_iter().enumerate() {
        let (table, at) = path[i];
        let entry = tables.read(table, at);
        if entry & bits::PRESENT == 0 || entry & bits::LARGE != 0 {
            break;
        }
        path[i + 1] = (entry & bits::ADDRESS, index(address, shift));
        depth = i + 1;
    }
    loop {
        let (table, at) = path[depth];
        let entry = tables.read(table, at);
        if entry & bits::PRESENT != 0 && entry & bits::LARGE == 0 {
            let child = entry & bits::ADDRESS;
            if (0..512).any(|i| tables.read(child, i) != 0) {
                return;
            }
            tables.write(table, at, 0);
            tables.free(child);
        }
        if depth == 0 {
            return;
        }
        depth -= 1;
    }
}

/// What maps `address`: physical address, rights and page size.
pub fn look_up(tables: &impl Tables, root: u64, address: u64) -> Option<(u64, Rights, u64)> {
    let (table, at, size) = leaf(tables, root, address)?;
    let entry = tables.read(table, at);
    let mut rights = Rights::READ;
    rights.set(Rights::WRITE, entry & bits::WRITE != 0);
    let executable = if tables.format().extended { entry & EXTENDED_EXECUTE != 0 } else { entry & bits::NO_EXECUTE == 0 };
    rights.set(Rights::EXECUTE, executable);
    Some((entry & bits::ADDRESS & !(size - 1) | address & (size - 1), rights, size))
}

/// Counts the leaves under the first `roots` entries of `root`, and those that are writable and executable; the third is the first such address.
pub fn check_write_execute(tables: &impl Tables, root: u64, range: core::ops::Range<usize>) -> (u64, u64, u64) {
    let mut result = (0, 0, 0);
    for top in range {
        walk(tables, root, top, 39, 0, true, true, &mut result);
    }
    result
}

#[allow(clippy::too_many_arguments, reason = "one recursive walk with its accumulated rights")]
fn walk(tables: &impl Tables, table: u64, at: usize, shift: u32, base: u64, write: bool, execute: bool, result: &mut (u64, u64, u64)) {
    let entry = tables.read(table, at);
    if entry & bits::PRESENT == 0 {
        return;
    }
    let address = base | (at as u64) << shift;
    let write = write && entry & bits::WRITE != 0;
    let execute = execute && entry & bits::NO_EXECUTE == 0;
    if shift == 12 || entry & bits::LARGE != 0 {
        result.0 += 1;
        if write && execute {
            result.1 += 1;
            if result.1 == 1 {
                // Sign-extended, as addresses of the upper half are written.
                result.2 = ((address << 16) as i64 >> 16) as u64;
            }
        }
        return;
    }
    for i in 0..512 {
        walk(tables, entry & bits::ADDRESS, i, shift - 9, address, write, execute, result);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    struct Memory {
        format: Format,
        tables: RefCell<BTreeMap<u64, Vec<u64>>>,
        limit: usize,
        next: RefCell<u64>,
    }

    impl Memory {
        fn new(limit: usize) -> Self {
            let format = Format { extended: false, huge: false };
            let memory = Self { format, tables: RefCell::default(), limit: limit + 1, next: RefCell::new(0x10_0000) };
            memory.allocate().unwrap();
            memory
        }
        const ROOT: u64 = 0x10_0000;
        fn used(&self) -> usize {
            self.tables.borrow().len() - 1
        }
    }

    impl Tables for Memory {
        fn read(&self, table: u64, index: usize) -> u64 {
            self.tables.borrow()[&table][index]
        }
        fn write(&self, table: u64, index: usize, entry: u64) {
            self.tables.borrow_mut().get_mut(&table).unwrap()[index] = entry;
        }
        fn allocate(&self) -> Option<u64> {
            if self.tables.borrow().len() >= self.limit {
                return None;
            }
            let at = *self.next.borrow();
            *self.next.borrow_mut() += 4096;
            self.tables.borrow_mut().insert(at, std::vec![0; 512]);
            Some(at)
        }
        fn format(&self) -> Format {
            self.format
        }
        fn free(&self, table: u64) {
            let gone = self.tables.borrow_mut().remove(&table).expect("freed a table that is not there");
            assert!(gone.iter().all(|e| *e == 0));
        }
    }

    fn mapping(address: u64, physical: u64, pages: u64) -> Mapping {
        Mapping { address, physical, pages, rights: Rights::READ | Rights::WRITE, caching: Caching::Normal, small: false }
    }

    #[test]
    fn large_pages_where_they_fit() {
        let memory = Memory::new(64);
        map(&memory, Memory::ROOT, &mapping(0x1f_f000, 0x7f_f000, 1 + 512 + 3)).unwrap();
        assert_eq!(look_up(&memory, Memory::ROOT, 0x1f_f123), Some((0x7f_f123, Rights::READ | Rights::WRITE, 4096)));
        assert_eq!(look_up(&memory, Memory::ROOT, 0x2a_b123).unwrap(), (0x8a_b123, Rights::READ | Rights::WRITE, 2 << 20));
        assert_eq!(look_up(&memory, Memory::ROOT, 0x40_2fff).unwrap().2, 4096);
        assert_eq!(look_up(&memory, Memory::ROOT, 0x40_3000), None);
        unmap(&memory, Memory::ROOT, 0x1f_f000, 1 + 512 + 3);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn memory_is_cached_in_one_way() {
        assert_eq!(Caching::from_flags(op::UNCACHED), Some(Caching::Uncached));
        assert_eq!(Caching::from_flags(op::WRITE_COMBINING), Some(Caching::WriteCombining));
        assert_eq!(Caching::from_flags(op::UNCACHED | op::WRITE_COMBINING), None);
    }

    #[test]
    fn an_overlap_or_an_empty_pool_leaves_nothing_behind() {
        let memory = Memory::new(4);
        map(&memory, Memory::ROOT, &mapping(0x5000, 0x9000, 1)).unwrap();
        assert_eq!(map(&memory, Memory::ROOT, &mapping(0x3000, 0xa000, 4)), Err(Error::AlreadyMapped));
        assert_eq!(look_up(&memory, Memory::ROOT, 0x3000), None);
        assert_eq!(look_up(&memory, Memory::ROOT, 0x5000).unwrap().0, 0x9000);
        assert_eq!(map(&memory, Memory::ROOT, &mapping(0x80_0000_0000, 0xa000, 1)), Err(Error::NoMemory));
        assert_eq!(memory.used(), 3);
    }

    #[test]
    fn huge_pages_where_the_hardware_has_them() {
        const GIB: u64 = 1 << 30;
        let mut memory = Memory::new(64);
        memory.format.huge = true;
        map(&memory, Memory::ROOT, &mapping(GIB - 0x20_0000, 3 * GIB - 0x20_0000, 2 * HUGE_PAGES)).unwrap();
        assert_eq!(look_up(&memory, Memory::ROOT, GIB + 0x1234_5678).unwrap(), (3 * GIB + 0x1234_5678, Rights::READ | Rights::WRITE, GIB));
        assert_eq!(look_up(&memory, Memory::ROOT, GIB - 1).unwrap().2, 2 << 20);
        assert_eq!(look_up(&memory, Memory::ROOT, 2 * GIB).unwrap().2, 2 << 20);
        assert_eq!(map(&memory, Memory::ROOT, &mapping(GIB, 0, 1)), Err(Error::AlreadyMapped));
        unmap(&memory, Memory::ROOT, GIB - 0x20_0000, 2 * HUGE_PAGES);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn flags_are_taken_once_and_large_pages_only_as_a_whole() {
        for extended in [false, true] {
            let mut memory = Memory::new(64);
            memory.format.extended = extended;
            map(&memory, Memory::ROOT, &Mapping { small: true, ..mapping(0x1f_e000, 0x9000, 2) }).unwrap();
            map(&memory, Memory::ROOT, &mapping(0x20_0000, 0x80_0000, 512)).unwrap();
            let (accessed, dirty) = if extended { (1 << 8, 1 << 9) } else { (1 << 5, 1 << 6) };
            for (address, flags) in [(0x1f_e000, accessed), (0x1f_f000, accessed | dirty), (0x20_0000, accessed | dirty)] {
                let (table, at, _) = leaf(&memory, Memory::ROOT, address).unwrap();
                memory.write(table, at, memory.read(table, at) | flags);
            }
            let taken = |start: u64, pages: u64, accessed| {
                let mut seen = Vec::new();
                take_flags(&memory, Memory::ROOT, start..start + pages * 4096, accessed, |page| seen.push(page));
                seen
            };
            assert_eq!(taken(0x1f_d000, 5, false), [2, 3, 4], "nothing is mapped at the first page");
            assert_eq!(taken(0x1f_d000, 5, false), [3, 4], "the large page was not taken");
            assert_eq!(taken(0x20_0000, 512, false).len(), 512);
            assert_eq!(taken(0x1f_d000, 515, false), [0u64; 0]);
            assert_eq!(taken(0x1f_d000, 3, true), [1, 2]);
            assert_eq!(look_up(&memory, Memory::ROOT, 0x1f_e123).unwrap().0, 0x9123, "the mapping stays");
        }
    }

    #[test]
    fn extended_tables_have_their_own_rights_and_caching() {
        let mut memory = Memory::new(8);
        memory.format.extended = true;
        let all = Rights::READ | Rights::WRITE | Rights::EXECUTE;
        for (page, rights, caching, flags) in [
            (0, all, Caching::Normal, 7 | 6 << 3),
            (1, Rights::READ, Caching::Normal, 1 | 6 << 3),
            (2, Rights::READ | Rights::WRITE, Caching::Uncached, 3),
            (3, Rights::READ | Rights::EXECUTE, Caching::WriteCombining, 5 | 1 << 3),
        ] {
            map(&memory, Memory::ROOT, &Mapping { rights, caching, ..mapping(page * 4096, 0x9000, 1) }).unwrap();
            let (table, at, _) = leaf(&memory, Memory::ROOT, page * 4096).unwrap();
            assert_eq!(memory.read(table, at), 0x9000 | flags);
            assert_eq!(look_up(&memory, Memory::ROOT, page * 4096).unwrap().1, rights);
        }
    }

    proptest! {
        #[test]
        fn matches_a_list_of_ranges(steps in proptest::collection::vec((0..3000_u64, 1..1200_u64, 0..3000_u64, any::<bool>(), any::<bool>()), 1..30)) {
            let memory = Memory::new(40);
            let mut ranges: Vec<Mapping> = Vec::new();
            for (at, pages, physical, small, add) in steps {
                if add {
                    let m = Mapping { small, ..mapping(at * 4096, physical * 4096, pages) };
                    let overlaps = ranges.iter().any(|r| r.address < m.address + pages * 4096 && m.address < r.address + r.pages * 4096);
                    match map(&memory, Memory::ROOT, &m) {
                        Ok(()) => { prop_assert!(!overlaps); ranges.push(m); }
                        Err(e) => prop_assert!(overlaps || e == Error::NoMemory, "{e:?}"),
                    }
                } else if !ranges.is_empty() {
                    let r = ranges.remove(at as usize % ranges.len());
                    unmap(&memory, Memory::ROOT, r.address, r.pages);
                }
                for page in (0..4500_u64).step_by(7) {
                    let expected = ranges.iter().find(|r| r.address <= page * 4096 && page * 4096 < r.address + r.pages * 4096)
                        .map(|r| r.physical + (page * 4096 - r.address));
                    prop_assert_eq!(look_up(&memory, Memory::ROOT, page * 4096).map(|l| l.0), expected);
                }
            }
            for r in ranges { unmap(&memory, Memory::ROOT, r.address, r.pages); }
            prop_assert_eq!(memory.used(), 0);
        }
    }
}
