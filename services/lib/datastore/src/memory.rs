//! Memory for what is known of objects.
//!
//! All folders, files, disks and snapshots of a mounted datastore are known in memory, with their names. Where memory is small, as in a storage server, there is a limit to that: nothing
//! is made that would not fit at the next mount, and what does not fit is not mounted.

use alloc::rc::Rc;
use core::cell::Cell;

use crate::error::Error;
use crate::state::Object;

/// Bytes of the places that numbers of objects have. Twice a pointer, because a list that grows has room for as much again.
const PLACE: usize = 16;
/// Bytes that an object takes beside its name: itself, its place in the table of names, which may be half empty, and what the allocator needs for each.
const OBJECT: usize = size_of::<Object>() + 16 + 96;

/// Bytes that a datastore, or several that share them, may take for what they know of objects.
#[derive(Clone, Debug)]
pub struct Memory(Rc<Cell<usize>>);

impl Default for Memory {
    /// No limit.
    fn default() -> Self {
        Self::limited(usize::MAX)
    }
}

impl Memory {
    /// So many bytes. 512 for each object are enough where names have at most 32 bytes; one with a name of 255 bytes takes less than 1024.
    #[must_use]
    pub fn limited(bytes: usize) -> Self {
        Self(Rc::new(Cell::new(bytes)))
    }

    /// What a storage server with a heap of so many bytes has for all its datastores: half of it. The rest is for metadata, requests and guests.
    #[must_use]
    pub fn of_heap(heap: u64) -> Self {
        Self::limited(usize::try_from(heap / 2).unwrap_or(usize::MAX))
    }

    /// The heap that a storage server must have for datastores that take so many bytes.
    #[must_use]
    pub const fn heap_for(bytes: u64) -> u64 {
        bytes.saturating_mul(2)
    }

    /// Bytes that are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.0.get()
    }

    fn take(&self, bytes: usize) -> Result<(), Error> {
        self.0.set(self.0.get().checked_sub(bytes).ok_or(Error::TooMany)?);
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.0.set(self.0.get().saturating_add(bytes));
    }
}

/// What one datastore has taken; given back when it is not mounted any more.
#[derive(Debug)]
pub struct Account {
    memory: Memory,
    taken: usize,
}

impl Account {
    /// Nothing yet.
    pub const fn new(memory: Memory) -> Self {
        Self { memory, taken: 0 }
    }

    fn take(&mut self, bytes: usize) -> Result<(), Error> {
        self.memory.take(bytes)?;
        self.taken += bytes;
        Ok(())
    }

    fn give_back(&mut self, bytes: usize) {
        self.taken -= bytes;
        self.memory.give_back(bytes);
    }

    /// Bytes that were taken.
    pub const fn taken(&self) -> usize {
        self.taken
    }

    /// Takes what `count` more places need.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub fn take_places(&mut self, count: usize) -> Result<(), Error> {
        self.take(count.saturating_mul(PLACE))
    }

    /// Takes what an object of that name needs.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub fn take_object(&mut self, name: &str) -> Result<(), Error> {
        self.take(cost(name))
    }

    /// Gives back what an object of that name needed.
    pub fn give_back_object(&mut self, name: &str) {
        self.give_back(cost(name));
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.memory.give_back(self.taken);
    }
}

/// The name is there twice: in the record, and in the table of names.
const fn cost(name: &str) -> usize {
    OBJECT + 2 * (name.len().next_multiple_of(16) + 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_documented_is_enough() {
        assert!(cost(&"n".repeat(32)) + PLACE <= 512);
        assert!(cost(&"n".repeat(255)) + PLACE < 1024);
    }
}
