//! Giving back what was removed.
//!
//! What is removed keeps its tree, read-only, and a cursor that goes through it once: blocks of its own before the cursor are given back, unless the one object that still
//! shares them, the *heir*, keeps them. Blocks before the cursor belong to the heir from then on (`State::shared` knows), so both can be used all the while, and a power cut
//! anywhere leaves nothing to mend: the cursor is committed together with what was freed. A snapshot that several others go on from waits until there is one.

use alloc::vec::Vec;
use tessera_block::BlockDevice;

use crate::cache::Key;
use crate::error::Error;
use crate::layout::FANOUT;
use crate::pointer::pointer;
use crate::record::{DYING, REAPING};
use crate::space::Run;
use crate::state::{State, Try};
use crate::store::Store;
use crate::walk::{Step, capacity, node_over};

impl State {
    /// Who goes on from a snapshot.
    pub(crate) fn children(&self, snapshot: u32) -> impl Iterator<Item = u32> + '_ {
        self.all()
            .filter(move |(_, object)| snapshot != 0 && object.record.origin == snapshot)
            .map(|(id, _)| id)
    }

    /// What can be given back now; what was begun comes first.
    fn next_to_reclaim(&self) -> Option<u32> {
        let dying = || self.all().filter(|(_, object)| object.record.is(DYING));
        let begun = dying().find(|(_, object)| object.record.is(REAPING));
        let ready = || {
            dying().find(|&(id, object)| {
                let mut children = self.children(id);
                let heir_is_ready = match (children.next(), children.next()) {
                    (None, _) => true,
                    (Some(heir), None) => self.living(heir).is_ok(),
                    _ => false,
                };
                // While its origin is being handed over, an heir stays.
                heir_is_ready && !self.object(object.record.origin).is_ok_and(|origin| origin.record.is(REAPING))
            })
        };
        begun.or_else(ready).map(|(id, _)| id)
    }

    /// Goes one leaf on; true when all is done.
    fn reclaim_step(&mut self, id: u32) -> Try<bool> {
        let (shared, cursor, levels) = {
            let record = &self.object(id)?.record;
            (record.shared, record.cursor, record.levels)
        };
        let heir = self.children(id).next();
        let of_heir = |key: Key| heir.map(|heir| Key::new(heir, key.level(), key.index()));
        let step = self.descend(id, cursor, |state, key, found| {
            let kept = match of_heir(key) {
                Some(same) => !state.is_dirty(same) && state.pointer_at(same)? == found,
                None => false,
            };
            Ok(found.birth <= shared || kept)
        })?;
        let (end, first_level) = match step {
            Step::Skip { end, level } => (end.min(capacity(levels)), level + 1),
            Step::Leaf(key) => (key.end(), 0),
        };
        let mut data = Vec::new();
        if let Step::Leaf(key) = step {
            for block in cursor..end {
                let found = self
                    .cache
                    .peek(key)
                    .map(|leaf| pointer(leaf, (block % FANOUT) as usize))
                    .unwrap_or_default();
                if found.is_hole() || found.birth <= shared {
                    continue;
                }
                let kept = match heir {
                    Some(heir) => self.find(heir, block)?.0.block == found.block,
                    None => false,
                };
                if !kept {
                    data.push(found.block);
                }
            }
        }
        let mut nodes = Vec::new();
        for level in first_level..levels {
            let key = node_over(id, level, end - 1);
            if key.end() != end {
                break;
            }
            let found = self.pointer_at(key)?;
            let kept = match of_heir(key) {
                Some(same) => self.pointer_at(same)? == found,
                None => false,
            };
            if !found.is_hole() && found.birth > shared && !kept {
                nodes.push(found.block);
            }
        }
        for &block in data.iter().chain(&nodes) {
            self.space.free_run(Run { start: block, count: 1 });
        }
        let record = self.record_mut(id)?;
        record.owned = record.owned.saturating_sub(data.len() as u64);
        record.cursor = end;
        Ok(end >= capacity(levels))
    }

    /// Everything was given back or handed over.
    fn bury(&mut self, id: u32) -> Result<(), Error> {
        let heirs: Vec<u32> = self.children(id).collect();
        let (origin, shared, owned) = {
            let record = &self.object(id)?.record;
            (record.origin, record.shared, record.owned)
        };
        let generation = self.generation;
        for heir in heirs {
            let object = self.object_mut(heir)?;
            object.held_floor = object.held_floor.max(object.record.shared);
            self.held_floors.push((heir, generation));
            let record = self.record_mut(heir)?;
            record.origin = origin;
            record.shared = shared;
            record.owned += owned;
        }
        self.remove_object(id);
        self.cache.forget(id);
        self.dirty.insert(id);
        Ok(())
    }
}

impl<D: BlockDevice> Store<D> {
    /// Gives back space of what was removed, up to `steps` MiB of it; false when nothing is left to be given back. Others can use the datastore
    /// meanwhile. What a power cut interrupts goes on with the next call.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`], [`Error::NoSpace`], [`Error::ReadOnly`], [`Error::Failed`].
    pub async fn reclaim(&self, steps: usize) -> Result<bool, Error> {
        let _reaping = self.reaping.hold().await;
        for _ in 0..steps {
            self.relieve().await?;
            let next = {
                let state = self.state.borrow();
                state.check_writable()?;
                state.next_to_reclaim()
            };
            let Some(id) = next else { return Ok(false) };
            if !self.state.borrow().object(id)?.record.is(REAPING) {
                // Its tree must be on the device as it is, to be gone through.
                let held = self.lock.hold().await;
                if self.state.borrow().is_tree_dirty(id) {
                    self.commit(&held, &[], |_| {}).await?;
                }
                let mut state = self.state.borrow_mut();
                let record = state.record_mut(id)?;
                record.flags |= REAPING;
                record.cursor = 0;
            }
            if self.run(|state| state.reclaim_step(id)).await? {
                self.state.borrow_mut().bury(id)?;
            }
        }
        Ok(self.state.borrow().next_to_reclaim().is_some())
    }
}

impl State {
    fn is_tree_dirty(&self, object: u32) -> bool {
        let all = Key::new(object, 0, 0)..Key::new(object + 1, 0, 0);
        self.cache.dirty().range(all).next().is_some()
    }
}
