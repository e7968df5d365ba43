//! State that begins in memory and moves to a disk when there is one.

use super::{Change, Content, LogStore, MemoryStore, StateError, StateFile, StateStore};
use crate::future::LocalFuture;
use alloc::{boxed::Box, rc::Rc, vec::Vec};
use core::cell::RefCell;

/// In memory, or in files as soon as some are given.
pub struct Keeper<F> {
    memory: MemoryStore,
    log: RefCell<Option<Rc<LogStore<F>>>>,
}

impl<F: StateFile> Keeper<F> {
    /// In these files, or (`None`) in memory for now.
    #[must_use]
    pub fn new(files: Option<[F; 2]>) -> Self {
        Self {
            memory: MemoryStore::default(),
            log: RefCell::new(files.map(|files| Rc::new(LogStore::new(files)))),
        }
    }

    fn log(&self) -> Option<Rc<LogStore<F>>> {
        self.log.borrow().clone()
    }

    /// Moves everything from memory to files, which hold nothing yet. What was acknowledged meanwhile comes along.
    ///
    /// # Errors
    /// The files cannot be written; everything stays in memory.
    pub async fn adopt(&self, files: [F; 2]) -> Result<(), StateError> {
        if self.log().is_some() {
            return Ok(());
        }
        let log = Rc::new(LogStore::new(files));
        loop {
            let (content, commits) = self.memory.snapshot();
            log.begin_with(content).await?;
            // Nothing else runs between the look and the change.
            if commits == self.memory.commits() {
                self.log.replace(Some(log));
                return Ok(());
            }
        }
    }
}

impl<F: StateFile> StateStore for Keeper<F> {
    fn persistent(&self) -> bool {
        self.log.borrow().is_some()
    }
    fn load(&self) -> LocalFuture<'_, Result<Content, StateError>> {
        Box::pin(async move {
            match self.log() {
                Some(log) => log.load().await,
                None => self.memory.load().await,
            }
        })
    }
    fn commit(&self, changes: Vec<Change>) -> LocalFuture<'_, Result<(), StateError>> {
        let Some(log) = self.log() else {
            return self.memory.commit(changes);
        };
        let epoch = log.epoch();
        Box::pin(async move { log.commit_in(epoch, changes).await })
    }
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        match self.log() {
            Some(log) => log.get(key),
            None => self.memory.get(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::log::testing::{Disk, File, now},
        *,
    };
    use alloc::{format, vec};

    #[test]
    fn what_was_in_memory_is_on_the_disk_that_came() {
        let disk = Disk::new(u32::MAX, 1);
        let keeper = Keeper::new(None);
        for number in 0..20 {
            now(keeper.commit(vec![Change::Put(format!("a/{number}"), vec![number])])).unwrap();
        }
        assert!(!keeper.persistent());
        now(keeper.adopt([File(disk.clone(), 0), File(disk.clone(), 1)])).unwrap();
        assert!(keeper.persistent());
        now(keeper.commit(vec![Change::Remove("a/3".into())])).unwrap();
        let again = Keeper::new(Some([File(disk.clone(), 0), File(disk, 1)]));
        let found = now(again.load()).unwrap();
        assert_eq!(found.len(), 19);
        assert_eq!(found.get("a/7"), Some(&vec![7]));
        assert_eq!(again.get("a/3"), None);
    }

    #[test]
    fn a_disk_that_fails_leaves_everything_in_memory() {
        let disk = Disk::new(2, 1);
        let keeper = Keeper::new(None);
        now(keeper.commit(vec![Change::Put("a".into(), vec![1])])).unwrap();
        assert_eq!(now(keeper.adopt([File(disk.clone(), 0), File(disk, 1)])), Err(StateError::Device));
        assert!(!keeper.persistent());
        assert_eq!(keeper.get("a"), Some(vec![1]));
    }
}
