//! State that outlives hostd: keys and values, changed in batches of which all or nothing happens.

mod keeper;
mod log;
mod memory;

pub use keeper::Keeper;
pub use log::{LogStore, StateFile};
pub use memory::MemoryStore;

use crate::future::LocalFuture;
use alloc::{collections::BTreeMap, string::String, vec::Vec};

/// Keys and values.
pub type Content = BTreeMap<String, Vec<u8>>;

fn apply(content: &mut Content, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Put(key, value) => {
                content.insert(key, value);
            }
            Change::Remove(key) => {
                content.remove(&key);
            }
        }
    }
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a value.
    Put(String, Vec<u8>),
    /// Removes it.
    Remove(String),
}

/// Why state could not be read or kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// The disk does not do what it is asked.
    Device,
    /// No room.
    Full,
}

impl Change {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put(key, _) | Self::Remove(key) => key,
        }
    }
}

/// Where state is kept.
pub trait StateStore {
    /// Whether it outlives a restart.
    fn persistent(&self) -> bool;
    /// Everything that is kept.
    fn load(&self) -> LocalFuture<'_, Result<Content, StateError>>;
    /// Carries out all of `changes` or none; when it is ready they are safe. Whatever was asked before a failure is known fails with it: it may have been made from what
    /// is not kept.
    fn commit(&self, changes: Vec<Change>) -> LocalFuture<'_, Result<(), StateError>>;
    /// What is kept under a key.
    fn get(&self, key: &str) -> Option<Vec<u8>>;
}
