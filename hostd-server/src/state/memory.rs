//! State for a host without a disk: nothing is kept.

use super::{Change, StateError, StateStore};
use crate::future::LocalFuture;
use alloc::{boxed::Box, collections::BTreeMap, string::String, vec::Vec};

/// Forgets everything; what hostd knows it holds itself.
#[derive(Default)]
pub struct MemoryStore;

impl StateStore for MemoryStore {
    fn persistent(&self) -> bool {
        false
    }
    fn load(&self) -> LocalFuture<'_, Result<BTreeMap<String, Vec<u8>>, StateError>> {
        Box::pin(async { Ok(BTreeMap::new()) })
    }
    fn commit(&self, _: Vec<Change>) -> LocalFuture<'_, Result<(), StateError>> {
        Box::pin(async { Ok(()) })
    }
}
