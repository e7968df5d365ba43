//! Which parts of a disk changed since a moment, for backups that copy only those.
//!
//! A change id is the number of a generation. Blocks that were born later have changed since; what was born before is written anew instead of in place from the moment that the
//! id was given out, so that its birth tells. Ids stay good when the snapshot they came with is removed.

use alloc::vec::Vec;
use core::ops::Range;
use tessera_block::BlockDevice;

use crate::cache::Key;
use crate::error::Error;
use crate::layout::{BLOCK, FANOUT, blocks};
use crate::pointer::pointer;
use crate::record::{Kind, TRACKED};
use crate::state::{State, Try};
use crate::store::Store;
use crate::walk::Step;

/// How many ranges are gathered before they are handed out.
const PORTION: usize = 4096;

/// Changed ranges, and where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Bytes that changed, in order, each whole blocks or up to the end.
    pub ranges: Vec<Range<u64>>,
    /// From which byte to ask for more; none at the end.
    pub next: Option<u64>,
}

impl State {
    /// The next blocks from `block` on that differ from those of `base`, or were born after it.
    fn changed(&mut self, object: u32, base: Base, block: u64) -> Try<(u64, Vec<u64>)> {
        let step = self.descend(object, block, |state, key, found| match base {
            Base::Generation(id) => Ok(found.birth <= id),
            Base::Object(base) => {
                let same = Key::new(base, key.level(), key.index());
                Ok(!state.is_dirty(same) && state.pointer_at(same)? == found)
            }
        })?;
        let mut list = Vec::new();
        let end = match (step, base) {
            // A hole here may be data there.
            (Step::Skip { end, level }, Base::Object(other)) if !self.is_same(object, other, block, level)? => {
                let until = end.min((block / FANOUT + 1) * FANOUT);
                for at in block..until {
                    if self.find(object, at)?.0.block != self.find(other, at)?.0.block {
                        list.push(at);
                    }
                }
                until
            }
            (Step::Skip { end, .. }, _) => end,
            (Step::Leaf(key), _) => {
                for at in block..key.end() {
                    let now = self
                        .cache
                        .peek(key)
                        .map(|leaf| pointer(leaf, (at % FANOUT) as usize))
                        .unwrap_or_default();
                    let differs = match base {
                        Base::Generation(id) => now.birth > id,
                        Base::Object(other) => self.find(other, at)?.0.block != now.block,
                    };
                    if differs {
                        list.push(at);
                    }
                }
                key.end()
            }
        };
        Ok((end, list))
    }

    /// Whether what was skipped at a level is the same in both.
    fn is_same(&mut self, object: u32, other: u32, block: u64, level: u8) -> Try<bool> {
        let (_, levels) = self.root(object)?;
        if level >= levels {
            return Ok(true);
        }
        let key = crate::walk::node_over(object, level, block);
        let same = Key::new(other, level, key.index());
        let (mine, theirs) = (self.pointer_at(key)?, self.pointer_at(same)?);
        Ok((mine == theirs || (mine.is_hole() && theirs.is_hole() && !self.cache.contains(same))) && !self.is_dirty(same))
    }
}

#[derive(Clone, Copy)]
enum Base {
    Generation(u64),
    Object(u32),
}

impl<D: BlockDevice> Store<D> {
    /// Begins to track a disk's changes, or goes on, and gives an id for this moment: what is written from now on has changed since. Writes that are under way
    /// are waited for.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongKind`], [`Error::Io`], [`Error::NoSpace`].
    pub async fn change_id(&self, disk: u32) -> Result<u64, Error> {
        self.state.borrow().disk(disk)?;
        let _quiet = self.quiesce(disk).await?;
        let held = self.lock.hold().await;
        let mut id = 0;
        self.commit(&held, &[disk], |state| {
            id = state.generation;
            if let Ok(object) = state.object_mut(disk) {
                object.record.tracked = id;
                object.record.flags |= TRACKED;
            }
        })
        .await?;
        Ok(id)
    }

    /// The change id of the moment that a snapshot was taken.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongKind`].
    pub fn snapshot_change_id(&self, snapshot: u32) -> Result<u64, Error> {
        Ok(self.state.borrow().snapshot(snapshot)?.tracked)
    }

    /// The ranges of a disk or snapshot that changed since a change id, from byte `from` on. Holes that were data before are among them.
    ///
    /// # Errors
    /// [`Error::ChangeUnknown`] where the disk was reverted since, or the id is none of its; [`Error::NotFound`], [`Error::Io`], [`Error::Damaged`].
    pub async fn changes_since(&self, object: u32, id: u64, from: u64) -> Result<Changes, Error> {
        {
            let state = self.state.borrow();
            let record = &state.living(object)?.record;
            let newest = if record.kind == Kind::Snapshot {
                record.tracked
            } else {
                state.generation - 1
            };
            if id < record.epoch || id > newest {
                return Err(Error::ChangeUnknown { id, oldest: record.epoch });
            }
        }
        self.collect(object, Base::Generation(id), from).await
    }

    /// The ranges in which two disks or snapshots differ, from byte `from` on, up to the size of the first. Blocks that both share are known to be the same; others count
    /// as different, whatever is in them.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`], [`Error::Damaged`].
    pub async fn difference(&self, object: u32, base: u32, from: u64) -> Result<Changes, Error> {
        self.state.borrow().living(base)?;
        self.collect(object, Base::Object(base), from).await
    }

    async fn collect(&self, object: u32, base: Base, from: u64) -> Result<Changes, Error> {
        let size = self.state.borrow().living(object)?.record.size;
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut block = from / BLOCK as u64;
        while block < blocks(size) {
            if ranges.len() >= PORTION {
                return Ok(Changes {
                    ranges,
                    next: Some(block * BLOCK as u64),
                });
            }
            let (next, changed) = self.run(|state| state.changed(object, base, block)).await?;
            for at in changed.into_iter().filter(|&at| at < blocks(size)) {
                let range = at * BLOCK as u64..((at + 1) * BLOCK as u64).min(size);
                match ranges.last_mut() {
                    Some(last) if last.end == range.start => last.end = range.end,
                    _ => ranges.push(range),
                }
            }
            block = next;
        }
        Ok(Changes { ranges, next: None })
    }
}
