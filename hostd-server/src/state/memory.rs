//! State for a host without a disk: nothing is kept beyond hostd's life.

use super::{Change, Content, StateError, StateStore, apply};
use crate::future::LocalFuture;
use alloc::{boxed::Box, vec::Vec};
use core::cell::{Cell, RefCell};

/// Holds everything in memory, in case a disk comes.
#[derive(Default)]
pub struct MemoryStore {
    content: RefCell<Content>,
    /// Commits so far.
    commits: Cell<u64>,
}

impl MemoryStore {
    /// Everything, and a number that is another one after each change.
    pub(super) fn snapshot(&self) -> (Content, u64) {
        (self.content.borrow().clone(), self.commits.get())
    }

    /// The number alone.
    pub(super) fn commits(&self) -> u64 {
        self.commits.get()
    }
}

impl StateStore for MemoryStore {
    fn persistent(&self) -> bool {
        false
    }
    fn load(&self) -> LocalFuture<'_, Result<Content, StateError>> {
        Box::pin(async { Ok(self.content.borrow().clone()) })
    }
    fn commit(&self, changes: Vec<Change>) -> LocalFuture<'_, Result<(), StateError>> {
        Box::pin(async move {
            self.commits.set(self.commits.get() + 1);
            apply(&mut self.content.borrow_mut(), changes);
            Ok(())
        })
    }
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.content.borrow().get(key).cloned()
    }
}
