//! Address spaces and guest spaces: page tables with the pool they come from, and a guest's doorbells.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

use tessera_abi::Error;
use tessera_abi::object::{ObjectKind, space as op};
use tessera_abi::virt::VirtFeatures;

use super::Header;
use super::page_tables::{Format, Tables};
use super::slot::Slot;
use crate::kref::Ref;
use crate::virt::{self, Backend};

/// Most pages of a pool.
pub const MAX_POOL: usize = 2048;

/// A guest's write that signals a notification.
#[repr(C)]
#[derive(Default)]
pub struct Doorbell {
    /// Port or guest-physical address.
    pub address: Cell<u64>,
    /// 0 port, 1 address.
    pub kind: Cell<u32>,
    /// Bytes of the access; 0: any.
    pub length: Cell<u32>,
}

/// The first page of the object; the root table follows, then the pool.
#[repr(C)]
#[derive(Default)]
pub struct Space {
    /// Header: kind `AddressSpace` or `GuestSpace`.
    pub header: Header,
    /// Physical address of the root table.
    pub root: Cell<u64>,
    /// Pages of the pool.
    pub pool: Cell<u32>,
    /// How many are in use.
    pub used: Cell<u32>,
    /// Place in the table of spaces, with the generation: what a mapped Frame remembers.
    pub identity: Cell<u64>,
    /// Counts what was taken away, so that vCPUs know when to flush.
    pub generation: Cell<u64>,
    /// Doorbells in use.
    pub doorbells_used: Cell<u32>,
    bitmap: [Cell<u64>; MAX_POOL / 64],
    /// Doorbells of a guest space.
    pub doorbells: [Doorbell; op::MAX_DOORBELLS],
    /// Their notifications, capabilities of their own; empty: no doorbell.
    pub doorbell_slots: [Slot; op::MAX_DOORBELLS],
}

const _: () = assert!(size_of::<Space>() <= 4096);

impl Space {
    /// A space whose root and pool lie behind it.
    #[inline(never)]
    pub fn new(kind: ObjectKind, root: u64, pool: u32) -> Self {
        let (root, pool, generation) = (Cell::new(root), Cell::new(pool), Cell::new(1));
        Self { header: Header::new(kind), root, pool, generation, ..Self::default() }
    }

    /// Pages that a space with `pool` pages takes.
    pub const fn pages(pool: u64) -> u64 {
        pool + 2
    }

    /// The notification of the doorbell at a port or address, for an access of `length` bytes (0: any).
    pub fn doorbell(&self, kind: u32, address: u64, length: u64) -> Option<&Slot> {
        let mut pairs = self.doorbells.iter().zip(&self.doorbell_slots);
        let (_, slot) = pairs.find(|(d, slot)| {
            let fits = d.length.get() == 0 || length == 0 || u64::from(d.length.get()) == length;
            !slot.is_empty() && d.kind.get() == kind && d.address.get() == address && fits
        })?;
        Some(slot)
    }

    fn table(&self, physical: u64) -> *const Cell<u64> {
        // Root and pool lie behind this page, in the same direct map.
        let offset = physical.wrapping_sub(self.root.get());
        (core::ptr::from_ref(self) as u64 + 4096 + offset) as *const Cell<u64>
    }
}

impl Tables for Space {
    fn read(&self, table: u64, index: usize) -> u64 {
        // SAFETY: `table` is the root or was given out by `allocate`, so it is a page of this object; the index is below 512.
        unsafe { (*self.table(table).add(index & 511)).get() }
    }

    fn write(&self, table: u64, index: usize, entry: u64) {
        // SAFETY: as in `read`. The processor may walk the table meanwhile; an aligned word is written at once.
        unsafe { self.table(table).add(index & 511).cast::<u64>().cast_mut().write_volatile(entry) };
    }

    fn take(&self, table: u64, index: usize, flags: u64) -> u64 {
        // SAFETY: as in `read`. The processor sets flags by itself meanwhile.
        let entry = unsafe { AtomicU64::from_ptr(self.table(table).add(index & 511).cast::<u64>().cast_mut()) };
        // Relaxed: the flush that follows orders it before whatever is written later.
        entry.fetch_and(!flags, Ordering::Relaxed) & flags
    }

    fn allocate(&self) -> Option<u64> {
        for (i, word) in self.bitmap.iter().enumerate() {
            let free = (!word.get()).trailing_zeros();
            let page = i as u32 * 64 + free;
            if free < 64 && page < self.pool.get() {
                word.set(word.get() | 1 << free);
                self.used.set(self.used.get() + 1);
                return Some(self.root.get() + 4096 * (u64::from(page) + 1));
            }
        }
        None
    }

    fn format(&self) -> Format {
        let guest = self.header.kind == ObjectKind::GuestSpace;
        Format { extended: guest && virt::backend() == Backend::Vmx, huge: guest && virt::features()[1].contains(VirtFeatures::HUGE_PAGES) }
    }

    fn free(&self, table: u64) {
        let page = (table.wrapping_sub(self.root.get()) / 4096).wrapping_sub(1) as usize;
        if let Some(word) = self.bitmap.get(page / 64) {
            word.set(word.get() & !(1 << (page % 64)));
            self.used.set(self.used.get().saturating_sub(1));
        }
    }
}

/// Spaces that can exist at once.
const MAX_SPACES: usize = 1024;

/// A space, and how many had the number before.
type Entry = (Cell<Option<Ref<Space>>>, Cell<u32>);

/// All spaces by number, so that a Frame can remember where it is mapped without a pointer that could outlive the space.
pub struct SpaceTable {
    entries: [Entry; MAX_SPACES],
}

// SAFETY: used in exclusive mode only, but for the table's address.
unsafe impl Sync for SpaceTable {}

/// The one table.
pub static SPACES: SpaceTable = SpaceTable { entries: [const { (Cell::new(None), Cell::new(0)) }; MAX_SPACES] };

impl SpaceTable {
    /// Enters a space, which then knows its identity.
    ///
    /// # Errors
    /// `NoMemory` when too many spaces exist.
    pub fn enter(&self, space: Ref<Space>) -> Result<(), Error> {
        let number = self.entries.iter().position(|e| e.0.get().is_none()).ok_or(Error::NoMemory)?;
        let (entry, generation) = &self.entries[number];
        generation.set(generation.get().wrapping_add(1));
        entry.set(Some(space));
        space.identity.set((number as u64) << 32 | u64::from(generation.get()));
        Ok(())
    }

    /// Takes a space out.
    pub fn leave(&self, space: &Space) {
        if let Some((entry, _)) = self.entries.get((space.identity.get() >> 32) as usize) {
            entry.set(None);
        }
    }

    /// The space of an identity, if it still exists.
    pub fn find(&self, identity: u64) -> Option<Ref<Space>> {
        let (entry, generation) = self.entries.get((identity >> 32) as usize)?;
        entry.get().filter(|_| generation.get() == identity as u32)
    }
}
