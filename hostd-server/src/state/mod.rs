//! State that outlives hostd: keys and values, changed in batches of which all or nothing happens.

mod log;
mod memory;

pub use log::{LogStore, StateFile};
pub use memory::MemoryStore;

use crate::future::LocalFuture;
use alloc::{collections::BTreeMap, string::String, vec::Vec};

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

/// Where state is kept.
pub trait StateStore {
    /// Whether it outlives a restart.
    fn persistent(&self) -> bool;
    /// Everything that is kept.
    fn load(&self) -> LocalFuture<'_, Result<BTreeMap<String, Vec<u8>>, StateError>>;
    /// Carries out all of `changes` or none; when it is ready they are safe.
    fn commit(&self, changes: Vec<Change>) -> LocalFuture<'_, Result<(), StateError>>;
}
