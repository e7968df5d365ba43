//! Snapshots, and what goes on from them.
//!
//! A snapshot takes the disk's topmost pointer and its place in the tree of versions; the disk goes on from it. What was born until that commit belongs to the snapshot,
//! whatever the disk writes from then on to the disk.

use alloc::string::ToString;
use alloc::vec::Vec;
use tessera_block::BlockDevice;

use crate::error::Error;
use crate::layout::{BLOCK, FANOUT, blocks};
use crate::names::Info;
use crate::record::{CHECKSUMS, DYING, Kind, Record, THICK, TRACKED, is_name};
use crate::state::State;
use crate::store::Store;

impl State {
    /// A disk by number.
    pub(crate) fn disk(&self, id: u32) -> Result<&Record, Error> {
        let record = &self.living(id)?.record;
        if record.kind == Kind::Disk {
            Ok(record)
        } else {
            Err(Error::WrongKind {
                name: record.name.clone(),
                expected: "disk",
            })
        }
    }

    /// A snapshot by number.
    pub(crate) fn snapshot(&self, id: u32) -> Result<&Record, Error> {
        let record = &self.living(id)?.record;
        if record.kind == Kind::Snapshot {
            Ok(record)
        } else {
            Err(Error::WrongKind {
                name: record.name.clone(),
                expected: "snapshot",
            })
        }
    }

    /// Whether a thick disk that owns nothing of `size` bytes any more could still be written all over.
    fn check_thick(&self, disk: u32, size: u64) -> Result<(), Error> {
        if !self.disk(disk)?.is(THICK) {
            return Ok(());
        }
        let needed = blocks(size) + blocks(size).div_ceil(FANOUT) + 4;
        let available = self.available_to(disk);
        if needed <= available {
            Ok(())
        } else {
            Err(Error::NoSpace {
                needed: needed * BLOCK as u64,
                available: available * BLOCK as u64,
            })
        }
    }
}

impl<D: BlockDevice> Store<D> {
    /// Commits a change that needs the number of a new object. The object is made by `change`, with the name of the placeholder; where the commit does not come about, there is none.
    async fn commit_with_new(&self, others: &[u32], placeholder: Record, change: impl FnOnce(&mut State, u32)) -> Result<u32, Error> {
        let held = self.lock.hold().await;
        let id = {
            let mut state = self.state.borrow_mut();
            let id = state.free_id()?;
            state.put_object(id, placeholder)?;
            id
        };
        let mut list = others.to_vec();
        list.push(id);
        let done = self.commit(&held, &list, |state| change(state, id)).await;
        if done.is_err() {
            let mut state = self.state.borrow_mut();
            if !state.failed {
                state.remove_object(id);
            }
        }
        done.map(|()| id)
    }

    /// Takes a snapshot of a disk, durably, in a time that does not depend on the disk's size. Writes that finished before are in it, writes that begin meanwhile wait and
    /// are not.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongKind`], [`Error::InvalidName`], [`Error::TooMany`], [`Error::NoSpace`] (for a thick disk where not all of it could be written again), [`Error::Io`].
    pub async fn create_snapshot(&self, disk: u32, name: &str, now: u64) -> Result<u32, Error> {
        if !is_name(name) {
            return Err(Error::InvalidName(name.to_string()));
        }
        {
            let state = self.state.borrow();
            state.check_writable()?;
            state.check_thick(disk, state.disk(disk)?.size)?;
        }
        let _quiet = self.quiesce(disk).await?;
        let placeholder = Record::new(Kind::Snapshot, disk, name);
        self.commit_with_new(&[disk], placeholder, |state, id| {
            let generation = state.generation;
            let Ok(object) = state.object_mut(disk) else { return };
            let record = &mut object.record;
            let mut snapshot = record.clone();
            record.origin = id;
            record.shared = generation;
            record.owned = 0;
            if record.is(TRACKED) {
                record.tracked = generation;
            }
            snapshot.kind = Kind::Snapshot;
            snapshot.flags &= CHECKSUMS;
            snapshot.parent = disk;
            snapshot.tracked = generation;
            snapshot.name = name.to_string();
            snapshot.created = now;
            snapshot.modified = now;
            if let Ok(object) = state.object_mut(id) {
                object.record = snapshot;
            }
        })
        .await
    }

    /// The snapshots of a disk, oldest first. `origin` says which one each goes on from.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongKind`].
    pub fn snapshots(&self, disk: u32) -> Result<Vec<Info>, Error> {
        let state = self.state.borrow();
        state.disk(disk)?;
        let mut list: Vec<(u64, u32)> = state
            .all()
            .filter(|(_, object)| object.record.kind == Kind::Snapshot && object.record.parent == disk && !object.record.is(DYING))
            .map(|(id, object)| (object.record.tracked, id))
            .collect();
        list.sort_unstable();
        drop(state);
        list.into_iter().map(|(_, id)| self.info(id)).collect()
    }

    /// Makes a disk what it was when one of its snapshots was taken, durably. What was written since is removed ([`Store::reclaim`] gives the space back); the
    /// snapshot stays, and the disk goes on from it. The size is that of the snapshot.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongKind`], [`Error::TooMany`], [`Error::NoSpace`], [`Error::Io`].
    pub async fn revert(&self, disk: u32, snapshot: u32) -> Result<(), Error> {
        {
            let state = self.state.borrow();
            state.check_writable()?;
            let record = state.snapshot(snapshot)?;
            if record.parent != disk {
                return Err(Error::WrongKind {
                    name: record.name.clone(),
                    expected: "snapshot of this disk",
                });
            }
            state.check_thick(disk, record.size)?;
        }
        let _quiet = self.quiesce(disk).await?;
        let placeholder = Record::new(Kind::Snapshot, disk, &self.state.borrow().living(disk)?.record.name);
        self.commit_with_new(&[disk], placeholder, |state, id| {
            let generation = state.generation;
            let Ok(source) = state.object(snapshot).map(|object| object.record.clone()) else {
                return;
            };
            let Ok(object) = state.object_mut(disk) else { return };
            let record = &mut object.record;
            let mut old = record.clone();
            record.root = source.root;
            record.levels = source.levels;
            record.size = source.size;
            record.mapped = source.mapped;
            record.owned = 0;
            record.origin = snapshot;
            record.shared = generation;
            record.epoch = generation;
            old.flags = DYING | old.flags & CHECKSUMS;
            old.parent = 0;
            if let Ok(object) = state.object_mut(id) {
                object.record = old;
            }
            state.cache.forget(disk);
        })
        .await
        .map(drop)
    }

    /// Makes a new disk that goes on from a snapshot and shares its blocks.
    ///
    /// # Errors
    /// As [`Store::create_disk`], and [`Error::NotFound`], [`Error::WrongKind`] for the snapshot.
    pub fn clone_snapshot(&self, snapshot: u32, path: &str, uuid: [u8; 16], now: u64) -> Result<u32, Error> {
        let mut state = self.state.borrow_mut();
        let source = state.snapshot(snapshot)?.clone();
        let id = state.create_at(path, Kind::Disk, now)?;
        let generation = state.generation;
        let record = state.record_mut(id)?;
        record.flags = source.flags & CHECKSUMS;
        record.uuid = uuid;
        record.size = source.size;
        record.levels = source.levels;
        record.root = source.root;
        record.mapped = source.mapped;
        record.origin = snapshot;
        // What it shares is on the device, so it was born before.
        record.shared = generation - 1;
        record.epoch = generation - 1;
        Ok(id)
    }

    /// Removes a snapshot. What only it needed comes back by [`Store::reclaim`], the rest goes over to what goes on from it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongKind`].
    pub fn remove_snapshot(&self, snapshot: u32) -> Result<(), Error> {
        let mut state = self.state.borrow_mut();
        state.check_writable()?;
        state.snapshot(snapshot)?;
        let record = state.record_mut(snapshot)?;
        record.flags |= DYING;
        record.parent = 0;
        state.structural = true;
        Ok(())
    }
}
