//! Making the state durable: commits, and the intent log between them.
//!
//! A commit writes every changed node to a new place, then the bitmaps and zone indexes to their other slots, waits until all of it is on the medium,
//! and then writes the superblock that leads to it. Whatever happens before that, the last superblock leads to what it led to. The moment of a commit is one
//! step without waiting (`freeze`); the writing goes on while others change the state for the next commit.

use alloc::collections::BTreeSet;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use tessera_block::BlockDevice;

use crate::bytes::{checksum, u64_at};
use crate::cache::Key;
use crate::error::Error;
use crate::layout::{
    BLOCK, CATALOG, FANOUT, GROUP_BLOCKS, LOG, RECORD, RECORDS_PER_BLOCK, SUPERBLOCK_SLOTS, ZONE_GROUPS, bitmap_block, index_block,
};
use crate::log::{self, Place};
use crate::pointer::{Block, Pointer, pointer, set_pointer};
use crate::space::Run;
use crate::state::{Blocks, Need, State, Stop};
use crate::store::Store;
use crate::sync::Held;

/// Blocks that are written with one request at most.
const BATCH: usize = 64;

/// What a commit will write.
struct Plan {
    nodes: BTreeSet<Key>,
    tables: BTreeSet<u32>,
}

/// What a commit writes.
struct Work {
    blocks: Blocks,
    superblock: Vec<u8>,
    generation: u64,
}

impl State {
    /// All that has to be written, or what must be read before.
    fn plan(&mut self) -> Result<Plan, Result<Vec<Need>, Error>> {
        let mut needs = Vec::new();
        let mut nodes = self.cache.dirty().clone();
        let mut queue: Vec<Key> = nodes.iter().copied().collect();
        self.climb(&mut queue, &mut nodes, &mut needs)?;
        let tables: BTreeSet<u32> = self.dirty.iter().map(|id| id / RECORDS_PER_BLOCK).collect();
        for &table in &tables {
            let leaf = Key::leaf(CATALOG, u64::from(table));
            match self.ensure(leaf) {
                Ok(()) if nodes.insert(leaf) => queue.push(leaf),
                Ok(()) => {}
                Err(Stop::Need(need)) => needs.push(need),
                Err(Stop::Error(error)) => return Err(Err(error)),
            }
        }
        self.climb(&mut queue, &mut nodes, &mut needs)?;
        if !needs.is_empty() {
            return Err(Ok(needs));
        }
        let mut groups: BTreeSet<u32> = self.space.freed_groups().collect();
        for &key in &nodes {
            if let Some(old) = self.pointer_to(key).filter(|old| !old.is_hole()) {
                groups.insert((old.block / GROUP_BLOCKS) as u32);
            }
        }
        for &table in &tables {
            let old = self
                .cache
                .peek(Key::leaf(CATALOG, u64::from(table)))
                .map(|leaf| pointer(leaf, (u64::from(table) % FANOUT) as usize));
            groups.extend(old.filter(|old| !old.is_hole()).map(|old| (old.block / GROUP_BLOCKS) as u32));
        }
        groups.retain(|&group| !self.space.is_loaded(group));
        if !groups.is_empty() {
            return Err(Ok(groups.into_iter().map(Need::Group).collect()));
        }
        let wanted = (nodes.len() + tables.len()) as u64;
        if self.space.available_loaded() < wanted {
            let next = self.space.next_to_load().ok_or(Err(Error::NoSpace {
                needed: wanted * BLOCK as u64,
                available: self.space.available() * BLOCK as u64,
            }))?;
            return Err(Ok(vec![Need::Group(next)]));
        }
        Ok(Plan { nodes, tables })
    }

    /// Adds all nodes above those in the queue; notes which objects get new tops.
    fn climb(&mut self, queue: &mut Vec<Key>, nodes: &mut BTreeSet<Key>, needs: &mut Vec<Need>) -> Result<(), Result<Vec<Need>, Error>> {
        while let Some(key) = queue.pop() {
            let (_, levels) = self.root(key.object()).map_err(Err)?;
            if key.level() + 1 >= levels {
                if key.object() != CATALOG {
                    self.dirty.insert(key.object());
                }
                continue;
            }
            let parent = key.parent();
            if nodes.contains(&parent) {
                continue;
            }
            match self.ensure(parent) {
                Ok(()) => {
                    nodes.insert(parent);
                    queue.push(parent);
                }
                Err(Stop::Need(need)) => {
                    if !needs.contains(&need) {
                        needs.push(need);
                    }
                }
                Err(Stop::Error(error)) => return Err(Err(error)),
            }
        }
        Ok(())
    }

    /// Gives a changed block its place on the device, and frees the old one if it was the object's own.
    fn place(&mut self, object: u32, end: u64, old: Pointer, block: &Block) -> Result<Pointer, Error> {
        let at = self.space.allocate_node().ok_or(Error::Failed)?;
        let shared = if object == CATALOG { 0 } else { self.shared(object, end) };
        if !old.is_hole() && old.birth > shared {
            self.space.free_run(Run {
                start: old.block,
                count: 1,
            });
        }
        Ok(Pointer {
            block: at,
            birth: self.generation,
            crc: checksum(block),
        })
    }

    fn place_node(&mut self, key: Key, blocks: &mut Vec<(u64, Rc<Block>)>) -> Result<(), Error> {
        let node = self.cache.peek(key).cloned().ok_or(Error::Failed)?;
        let old = self.pointer_to(key).unwrap_or_default();
        let new = self.place(key.object(), key.end(), old, &node)?;
        blocks.push((new.block, node));
        self.cache.clean(key);
        let (_, levels) = self.root(key.object())?;
        if key.level() + 1 < levels {
            let parent = self.cache.change(key.parent()).ok_or(Error::Failed)?;
            set_pointer(parent, key.place(), new);
        } else if key.object() == CATALOG {
            self.superblock.catalog = new;
        } else {
            self.object_mut(key.object())?.record.root = new;
        }
        Ok(())
    }

    /// The moment of the commit. `change` sees all trees in their places and may change records that are in `dirty` already.
    fn freeze(&mut self, plan: &Plan, change: impl FnOnce(&mut Self)) -> Result<Work, Error> {
        let generation = self.generation;
        let mut blocks = Vec::new();
        for &key in plan.nodes.iter().filter(|key| key.object() != CATALOG) {
            self.place_node(key, &mut blocks)?;
        }
        change(self);
        for &table in &plan.tables {
            let mut block = [0; BLOCK];
            for (place, bytes) in block.as_chunks_mut::<RECORD>().0.iter_mut().enumerate() {
                let id = table * RECORDS_PER_BLOCK + place as u32;
                if let Some(Some(object)) = self.objects.get(id as usize) {
                    object.record.encode(id, bytes);
                }
            }
            let leaf = Key::leaf(CATALOG, u64::from(table));
            let place = (u64::from(table) % FANOUT) as usize;
            let old = self.cache.peek(leaf).map_or(Pointer::default(), |node| pointer(node, place));
            let new = self.place(CATALOG, 0, old, &block)?;
            set_pointer(self.cache.change(leaf).ok_or(Error::Failed)?, place, new);
            blocks.push((new.block, Rc::new(block)));
        }
        for &key in plan.nodes.iter().filter(|key| key.object() == CATALOG) {
            self.place_node(key, &mut blocks)?;
        }
        let epoch = self.tickets.advance();
        let mut zones = BTreeSet::new();
        for (group, bitmap) in self.space.commit(epoch) {
            if let Some(slot) = self.space.descriptor(group).and_then(|descriptor| descriptor.slot) {
                blocks.push((bitmap_block(group, slot), Rc::new(bitmap)));
                zones.insert(group / ZONE_GROUPS);
            }
        }
        for zone in zones {
            let index = self.space.index(zone);
            let entry = &mut self.superblock.zones[zone as usize];
            let slot = entry.slot.map_or(0, |slot| 1 - slot);
            entry.slot = Some(slot);
            entry.crc = checksum(&index);
            blocks.push((index_block(zone, slot), Rc::new(index)));
        }
        self.superblock.generation = generation;
        self.superblock.objects = self.objects.len() as u32;
        self.generation = generation + 1;
        self.dirty.clear();
        self.structural = false;
        self.unlogged.clear();
        blocks.sort_unstable_by_key(|(block, _)| *block);
        let blocks: Blocks = blocks.into();
        self.in_flight = Some(blocks.clone());
        Ok(Work {
            blocks,
            superblock: self.superblock.encode(),
            generation,
        })
    }
}

impl<D: BlockDevice> Store<D> {
    /// Commits, whoever holds the lock; see [`State::freeze`] for `change`, which needs `records`.
    pub(crate) async fn commit(&self, _held: &Held<'_>, records: &[u32], change: impl FnOnce(&mut State)) -> Result<(), Error> {
        let work = loop {
            let needs = {
                let mut state = self.state.borrow_mut();
                state.check_writable()?;
                state.dirty.extend(records);
                match state.plan() {
                    Ok(plan) => {
                        let work = state.freeze(&plan, change);
                        state.failed |= work.is_err();
                        break work?;
                    }
                    Err(Ok(needs)) => needs,
                    Err(Err(error)) => return Err(error),
                }
            };
            for need in needs {
                self.load(need, false).await?;
            }
        };
        let generation = work.generation;
        let written = self.write_commit(work).await;
        if written.is_err() {
            self.state.borrow_mut().failed = true;
        }
        written?;
        {
            let mut state = self.state.borrow_mut();
            state.in_flight = None;
            state.lift_floors(generation);
            state.cache.trim();
            state.space.trim();
        }
        self.release().await;
        self.event.notify();
        Ok(())
    }

    async fn write_commit(&self, work: Work) -> Result<(), Error> {
        let doing = "writing metadata";
        let mut rest = &work.blocks[..];
        let mut buffer = Vec::new();
        while let Some((first, _)) = rest.first() {
            let length = rest
                .iter()
                .take(BATCH)
                .enumerate()
                .take_while(|(step, (block, _))| *block == first + *step as u64)
                .count();
            buffer.clear();
            for (_, block) in &rest[..length] {
                buffer.extend_from_slice(&block[..]);
            }
            self.device.write(self.sector(*first), &buffer).await.map_err(Error::io(doing))?;
            rest = &rest[length..];
        }
        self.device.flush().await.map_err(Error::io(doing))?;
        let slot = (work.generation % 2) as usize;
        for copy in [slot, slot + 2] {
            self.device
                .write(self.sector(SUPERBLOCK_SLOTS[copy]), &work.superblock)
                .await
                .map_err(Error::io(doing))?;
        }
        self.device.flush().await.map_err(Error::io(doing))?;
        self.log.set(Place {
            generation: work.generation,
            number: 0,
            previous: 0,
            datastore: u64_at(&work.superblock, 16),
        });
        Ok(())
    }

    /// Hands freed blocks to the device, and then to whoever needs some.
    async fn release(&self) {
        loop {
            let runs = {
                let state = self.state.borrow();
                match state.space.releasable(|epoch| state.tickets.ended(epoch)) {
                    Some(runs) => runs.to_vec(),
                    None => return,
                }
            };
            if self.device.geometry().discard {
                for run in runs {
                    // A device that does not want to know is not told.
                    let _ = self
                        .device
                        .discard(self.sector(run.start), run.count * self.sectors_per_block())
                        .await;
                }
            }
            self.state.borrow_mut().space.release();
        }
    }

    /// Commits now if enough changed, so that neither memory nor the log overflows.
    pub(crate) async fn relieve(&self) -> Result<(), Error> {
        if self.state.borrow().is_commit_due() {
            let held = self.lock.hold().await;
            if self.state.borrow().is_commit_due() {
                self.commit(&held, &[], |_| {}).await?;
            }
        }
        Ok(())
    }

    /// Commits everything, so that a mount has nothing to repeat.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::ReadOnly`], [`Error::Failed`], [`Error::NoSpace`].
    pub async fn sync(&self) -> Result<(), Error> {
        let held = self.lock.hold().await;
        if self.state.borrow().is_changed() {
            self.commit(&held, &[], |_| {}).await
        } else {
            self.device.flush().await.map_err(Error::io("flushing the device"))
        }
    }

    /// Makes every write that was finished, and every change that was made, survive a power cut. Costs a flush of the device when only blocks
    /// were overwritten, and a few blocks of log and a second flush when blocks were given out. Flushes that wait for each other are done in one.
    ///
    /// # Errors
    /// As [`Store::sync`].
    pub async fn flush(&self) -> Result<(), Error> {
        let arrival = self.tick();
        let held = self.lock.hold().await;
        if self.flushed.get() > arrival {
            return Ok(());
        }
        let start = self.tick();
        let entries = {
            let mut state = self.state.borrow_mut();
            if state.failed {
                return Err(Error::Failed);
            }
            if state.structural {
                None
            } else {
                Some(core::mem::take(&mut state.unlogged))
            }
        };
        match entries {
            None => self.commit(&held, &[], |_| {}).await?,
            Some(entries) => {
                let done = self.write_log(&entries).await;
                if !matches!(done, Ok(true)) {
                    // Not logged: a later flush takes them along.
                    let mut state = self.state.borrow_mut();
                    let later = core::mem::replace(&mut state.unlogged, entries);
                    state.unlogged.extend(later);
                }
                if !done? {
                    self.commit(&held, &[], |_| {}).await?;
                }
            }
        }
        self.flushed.set(start);
        Ok(())
    }

    /// Writes entries to the log; false where they do not fit any more.
    async fn write_log(&self, entries: &[log::Entry]) -> Result<bool, Error> {
        // The data must be there before anything says so.
        self.device.flush().await.map_err(Error::io("flushing the device"))?;
        if entries.is_empty() {
            return Ok(true);
        }
        let place = self.log.get();
        let (blocks, behind) = log::encode(entries, place);
        if behind.number > self.state.borrow().superblock.log_blocks {
            return Ok(false);
        }
        let doing = "writing the intent log";
        self.device
            .write(self.sector(LOG + u64::from(place.number)), blocks.as_flattened())
            .await
            .map_err(Error::io(doing))?;
        self.device.flush().await.map_err(Error::io(doing))?;
        self.log.set(behind);
        Ok(true)
    }
}
