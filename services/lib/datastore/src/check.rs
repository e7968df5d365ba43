//! Looking for everything that does not fit together, and mending it.
//!
//! Every block that the format uses must belong to exactly one thing: the catalogue, one object's tree or data, or nothing; what an object shares must be its origin's at the same
//! place. The bitmaps must say the same. Memory: one bit per block of the device, and the node cache.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use tessera_block::BlockDevice;

use crate::bytes::checksum;
use crate::cache::Key;
use crate::error::Error;
use crate::layout::{BLOCK, CATALOG, FANOUT, GROUP_BLOCKS, RECORDS_PER_BLOCK, ROOT_FOLDER, blocks, is_allocatable};
use crate::memory::Memory;
use crate::pointer::{Pointer, pointer, set_pointer};
use crate::record::{CHECKSUMS, DYING, Kind, REAPING, Record, is_name};
use crate::state::{Need, State, Stop};
use crate::store::{MountOptions, Store, Strictness};
use crate::walk::{Step, capacity, node_over};

/// Problems that are told apart; more are only counted.
const MAX_PROBLEMS: usize = 1000;

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The object that it is about: 0 for the catalogue.
    pub object: Option<u32>,
    /// The block of the datastore that it is about.
    pub block: Option<u64>,
    /// What it is.
    pub what: String,
    /// Only space is lost, no data.
    pub harmless: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.object {
            Some(CATALOG) => write!(f, "catalogue: ")?,
            Some(object) => write!(f, "object {object}: ")?,
            None => {}
        }
        write!(f, "{}", self.what)?;
        match self.block {
            Some(block) => write!(f, " (block {block})"),
            None => Ok(()),
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What does not fit, the first thousand.
    pub problems: Vec<Problem>,
    /// How many problems there are in all.
    pub count: u64,
    /// Objects looked at.
    pub objects: u64,
    /// Bytes of memory that they take where the datastore is mounted; see [`Memory`].
    pub memory: u64,
    /// Blocks of data and metadata in use.
    pub used: u64,
    /// Blocks of data whose checksum was compared.
    pub verified: u64,
}

/// What to look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Read all data that has checksums.
    pub data: bool,
    /// Bytes of memory for metadata.
    pub cache: usize,
}

struct Checker<'a, D> {
    store: &'a Store<D>,
    seen: Vec<u64>,
    report: Report,
    options: CheckOptions,
    fix: bool,
}

impl Report {
    fn add(&mut self, object: Option<u32>, block: Option<u64>, what: String, harmless: bool) {
        self.count += 1;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem {
                object,
                block,
                what,
                harmless,
            });
        }
    }
}

/// Looks for problems without changing anything. `progress` hears how many of how many objects were looked at.
///
/// # Errors
/// [`Error::NotADatastore`] and the like where there is no superblock to begin with, [`Error::Io`] where the device is gone.
pub async fn check<D: BlockDevice>(device: D, options: CheckOptions, progress: impl FnMut(u64, u64)) -> Result<Report, Error> {
    run(device, options, false, progress).await.map(|(report, _)| report)
}

/// Mends what [`check`] finds: what cannot be read or belongs to somebody else becomes a hole, what lost its folder goes to `lost+found`, and the bitmaps are
/// made anew. What was mended is in the report; data that is gone stays gone.
///
/// # Errors
/// As [`check`], and [`Error::NoSpace`], [`Error::ReadOnly`].
pub async fn repair<D: BlockDevice>(device: D, options: CheckOptions, progress: impl FnMut(u64, u64)) -> Result<Report, Error> {
    let (report, _) = run(&device, options, true, progress).await?;
    // What was cut off may have had blocks that only another look can tell to be free.
    for _ in 0..3 {
        if run(&device, options, true, |_, _| {}).await?.0.count == 0 {
            break;
        }
    }
    Ok(report)
}

async fn run<D: BlockDevice>(
    device: D,
    options: CheckOptions,
    fix: bool,
    mut progress: impl FnMut(u64, u64),
) -> Result<(Report, Store<D>), Error> {
    let mount = MountOptions {
        cache: options.cache.max(1 << 20),
        memory: Memory::default(),
        read_only: !fix,
    };
    let (store, damage) = Store::open(device, mount, Strictness::Lenient).await?;
    let total = store.state.borrow().superblock.blocks;
    let mut checker = Checker {
        store: &store,
        seen: crate::space::bitset(total),
        report: Report::default(),
        options,
        fix,
    };
    for error in damage {
        let block = if let Error::Damaged { block, .. } = error {
            Some(block)
        } else {
            None
        };
        checker.report.add(None, block, error.to_string(), false);
    }
    if fix {
        checker.mend_catalog()?;
    }
    for run in store.state.borrow().space.freed() {
        for block in run.start..run.start + run.count {
            checker.seen[(block / 64) as usize] |= 1 << (block % 64);
        }
    }
    checker.walk(CATALOG).await?;
    let order = store.state.borrow().origins_first();
    for (place, &object) in order.iter().enumerate() {
        progress(place as u64, order.len() as u64);
        if store.state.borrow().objects[object as usize]
            .as_ref()
            .is_some_and(|object| object.record.kind != Kind::Folder)
        {
            checker.walk(object).await?;
        }
    }
    progress(order.len() as u64, order.len() as u64);
    checker.report.objects = order.len() as u64;
    checker.report.memory = store.state.borrow().memory().taken() as u64;
    checker.bitmaps().await?;
    let report = checker.report;
    if fix {
        let held = store.lock.hold().await;
        // Twice, so that both superblocks are new: where the newest was lost, a log that goes on from it must not be taken for this one's.
        for _ in 0..2 {
            store.commit(&held, &[], |_| {}).await?;
        }
        drop(held);
    }
    Ok((report, store))
}

impl State {
    /// All objects, each after the one that it goes on from. Objects that go on from each other come last.
    fn origins_first(&self) -> Vec<u32> {
        let mut done = BTreeSet::from([0]);
        let mut order = Vec::new();
        let mut rest: Vec<u32> = self.all().map(|(id, _)| id).collect();
        loop {
            let before = rest.len();
            rest.retain(|&id| {
                let origin = self.object(id).map_or(0, |object| object.record.origin);
                let ready = done.contains(&origin) || self.object(origin).is_err();
                if ready {
                    order.push(id);
                    done.insert(id);
                }
                !ready
            });
            if rest.len() == before {
                order.extend(rest);
                return order;
            }
        }
    }

    /// The object whose blocks another shares up to `end`: what has been handed over already has the origin of its origin.
    fn origin_at(&self, object: u32, end: u64) -> u32 {
        let mut origin = self.object(object).map_or(0, |object| object.record.origin);
        // Longer chains than there are objects go in a circle.
        for _ in 0..self.objects.len() {
            match self.object(origin) {
                Ok(found) if found.record.is(REAPING) && end <= found.record.cursor => origin = found.record.origin,
                _ => break,
            }
        }
        origin
    }

    /// Makes a pointer a hole, or what it should be.
    fn mend(&mut self, key: Key, new: Pointer) {
        let (_, levels) = self.root(key.object()).unwrap_or_default();
        if key.level() + 1 < levels {
            if let Some(node) = self.cache.change(key.parent()) {
                set_pointer(node, key.place(), new);
            }
        } else if key.object() == CATALOG {
            self.superblock.catalog = new;
        } else if let Ok(record) = self.record_mut(key.object()) {
            record.root = new;
        }
    }
}

impl<D: BlockDevice> Checker<'_, D> {
    /// Notes that a block is in use; false where it cannot be.
    fn mark(&mut self, object: u32, block: u64, what: &str) -> bool {
        let (total, log_blocks) = {
            let state = self.store.state.borrow();
            (state.superblock.blocks, state.superblock.log_blocks)
        };
        if !is_allocatable(block, total, log_blocks) {
            self.report
                .add(Some(object), Some(block), format!("{what} is where nothing can be"), false);
            return false;
        }
        let (word, bit) = (&mut self.seen[(block / 64) as usize], 1 << (block % 64));
        if *word & bit != 0 {
            self.report
                .add(Some(object), Some(block), format!("{what} is in use by something else too"), false);
            return false;
        }
        *word |= bit;
        self.report.used += 1;
        true
    }

    /// Goes through an object's own part of its tree.
    async fn walk(&mut self, object: u32) -> Result<(), Error> {
        let (levels, start, size, checked) = {
            let state = self.store.state.borrow();
            let (_, levels) = state.root(object)?;
            match state.object(object) {
                Ok(found) if object != CATALOG => {
                    let record = &found.record;
                    (
                        levels,
                        if record.is(REAPING) { record.cursor } else { 0 },
                        record.size,
                        record.is(CHECKSUMS),
                    )
                }
                _ => (
                    levels,
                    0,
                    u64::from(state.superblock.objects.div_ceil(RECORDS_PER_BLOCK)) * BLOCK as u64,
                    true,
                ),
            }
        };
        let (mut own, mut handed_over) = (0, 0);
        let mut block = start;
        while block < capacity(levels) {
            let step = self.store.state.borrow_mut().descend(object, block, |state, key, found| {
                Ok(object != CATALOG && found.birth <= state.shared(object, key.end()))
            });
            let (end, first_level) = match step {
                Ok(Step::Skip { end, level }) => {
                    if level < levels {
                        self.compare_with_origin(node_over(object, level, block)).await?;
                    }
                    (end.min(capacity(levels)), level + 1)
                }
                Ok(Step::Leaf(key)) => (key.end(), 0),
                Err(Stop::Error(error)) => return Err(error),
                Err(Stop::Need(need)) => {
                    match (self.store.load(need, true).await, need) {
                        (Ok(()), _) => {}
                        (
                            Err(Error::Io {
                                error: tessera_block::IoError::Gone,
                                doing,
                            }),
                            _,
                        ) => {
                            return Err(Error::Io {
                                doing,
                                error: tessera_block::IoError::Gone,
                            });
                        }
                        (Err(error), Need::Node(key, found)) => {
                            self.report.add(Some(object), Some(found.block), error.to_string(), false);
                            if key.object() != object {
                                return Ok(());
                            }
                            if self.fix {
                                let hole = Pointer::hole(self.store.state.borrow().generation);
                                self.store.state.borrow_mut().mend(key, hole);
                            } else {
                                block = key.end();
                            }
                        }
                        (Err(error), Need::Group(_)) => return Err(error),
                    }
                    continue;
                }
            };
            // Nodes that begin here.
            for level in (first_level..levels).rev() {
                let key = node_over(object, level, block);
                if (key.end() - capacity(level + 1)).max(start) != block {
                    continue;
                }
                let found = self.store.run(|state| state.pointer_at(key)).await?;
                // A changed node may still stand where its origin's does.
                let own = object == CATALOG || found.birth > self.store.state.borrow().shared(object, key.end());
                if own && !found.is_hole() && !self.mark(object, found.block, "a node of the tree") && self.fix {
                    let hole = Pointer::hole(self.store.state.borrow().generation);
                    self.store.state.borrow_mut().mend(key, hole);
                    self.store.state.borrow_mut().cache.forget(object);
                }
            }
            if first_level == 0 {
                let leaf = self.store.state.borrow().cache.peek(Key::leaf(object, block)).cloned();
                for at in block..end {
                    let found = leaf.as_ref().map(|leaf| pointer(leaf, (at % FANOUT) as usize)).unwrap_or_default();
                    if found.is_hole() {
                        continue;
                    }
                    if at >= blocks(size) {
                        self.report.add(Some(object), Some(found.block), "data behind the end".into(), true);
                        if self.fix {
                            self.make_hole(object, at)?;
                            continue;
                        }
                    }
                    let (mine, shared) = {
                        let state = self.store.state.borrow();
                        let recorded = if object == CATALOG {
                            0
                        } else {
                            state.object(object)?.record.shared
                        };
                        (
                            found.birth > recorded,
                            if object == CATALOG { 0 } else { state.shared(object, at + 1) },
                        )
                    };
                    let good = if found.birth > shared {
                        own += u64::from(mine);
                        handed_over += u64::from(!mine);
                        self.mark(object, found.block, "data")
                    } else {
                        self.compare_block_with_origin(object, at, found).await?
                    };
                    let intact = good && (!checked || (object != CATALOG && !self.options.data) || self.verify(object, found).await?);
                    if !(good && intact) && self.fix && object != CATALOG {
                        self.make_hole(object, at)?;
                        own -= u64::from(mine && found.birth > shared);
                    }
                }
            }
            block = end;
        }
        if object != CATALOG {
            self.compare_counts(object, own, handed_over)?;
        }
        Ok(())
    }

    /// Nothing is at a block of an object any more, whose leaf is in memory.
    fn make_hole(&self, object: u32, at: u64) -> Result<(), Error> {
        let mut state = self.store.state.borrow_mut();
        let hole = Pointer::hole(state.generation);
        if let Some(leaf) = state.cache.change(Key::leaf(object, at)) {
            set_pointer(leaf, (at % FANOUT) as usize, hole);
        }
        if object != CATALOG {
            let record = state.record_mut(object)?;
            record.mapped = record.mapped.saturating_sub(1);
        }
        Ok(())
    }

    fn compare_counts(&mut self, object: u32, own: u64, handed_over: u64) -> Result<(), Error> {
        let mut state = self.store.state.borrow_mut();
        let origin = state.object(object)?.record.origin;
        // What the origin handed over is still in its account.
        if let Ok(found) = state.object_mut(origin) {
            if found.record.is(REAPING) {
                let left = found.record.owned;
                if handed_over > left {
                    self.report.add(
                        Some(origin),
                        None,
                        format!("{handed_over} blocks are handed over, the account has {left}"),
                        true,
                    );
                }
            }
        }
        let record = &mut state.object_mut(object)?.record;
        let fits = if record.is(REAPING) {
            own <= record.owned
        } else {
            own == record.owned
        };
        if !fits {
            self.report.add(
                Some(object),
                None,
                format!("{own} blocks of data are its own, the account says {}", record.owned),
                true,
            );
            if self.fix {
                record.owned = own;
                state.dirty.insert(object);
            }
        }
        Ok(())
    }

    /// Compares a checksum with the data; a problem where it does not fit.
    async fn verify(&mut self, object: u32, found: Pointer) -> Result<bool, Error> {
        self.report.verified += 1;
        match self.store.read_block(found.block, "reading data").await {
            Ok(content) if checksum(&content[..]) == found.crc => Ok(true),
            Ok(_) => {
                self.report
                    .add(Some(object), Some(found.block), "data is not what was written".into(), false);
                Ok(false)
            }
            Err(Error::Io {
                error: tessera_block::IoError::Gone,
                doing,
            }) => Err(Error::Io {
                doing,
                error: tessera_block::IoError::Gone,
            }),
            Err(error) => {
                self.report.add(Some(object), Some(found.block), error.to_string(), false);
                Ok(false)
            }
        }
    }

    /// What an object shares must be the same in its origin.
    async fn compare_with_origin(&mut self, key: Key) -> Result<(), Error> {
        let (found, origin) = {
            let state = self.store.state.borrow();
            (state.pointer_at(key), state.origin_at(key.object(), key.end()))
        };
        let Ok(found) = found else { return Ok(()) };
        if found.is_hole() {
            return Ok(());
        }
        let same = Key::new(origin, key.level(), key.index());
        let theirs = if origin == 0 {
            Ok(Pointer::default())
        } else {
            self.store.run(|state| state.pointer_at(same)).await
        };
        if theirs.as_ref() != Ok(&found) {
            self.report.add(
                Some(key.object()),
                Some(found.block),
                "a shared part of the tree is not its origin's".into(),
                false,
            );
            if self.fix {
                let mut state = self.store.state.borrow_mut();
                let hole = theirs.unwrap_or_default();
                state.mend(key, hole);
            }
        }
        Ok(())
    }

    async fn compare_block_with_origin(&mut self, object: u32, block: u64, found: Pointer) -> Result<bool, Error> {
        let origin = self.store.state.borrow().origin_at(object, block + 1);
        let theirs = if origin == 0 {
            Ok((Pointer::default(), 0))
        } else {
            self.store.run(|state| state.find(origin, block)).await
        };
        let same = theirs.as_ref().is_ok_and(|(theirs, _)| *theirs == found);
        if !same {
            self.report.add(
                Some(object),
                Some(found.block),
                format!(
                    "data at its byte {} is shared, but not what its origin has there",
                    block * BLOCK as u64
                ),
                false,
            );
        }
        Ok(same)
    }

    /// Compares the bitmaps with what was seen.
    async fn bitmaps(&mut self) -> Result<(), Error> {
        let groups = self.store.state.borrow().space.group_count();
        for group in 0..groups {
            let loaded = self.store.load(Need::Group(group), true).await;
            let mut wrong = loaded.is_err();
            if let Err(error) = loaded {
                self.report.add(None, None, error.to_string(), false);
            } else {
                wrong = self.compare_group(group);
            }
            if wrong && self.fix {
                let seen = &self.seen;
                self.store
                    .state
                    .borrow_mut()
                    .space
                    .rebuild(group, |block| seen[(block / 64) as usize] >> (block % 64) & 1 != 0);
            }
        }
        Ok(())
    }

    fn compare_group(&mut self, group: u32) -> bool {
        let state = self.store.state.borrow();
        let (total, log_blocks) = (state.superblock.blocks, state.superblock.log_blocks);
        let start = u64::from(group) * GROUP_BLOCKS;
        let (mut lost, mut wrong) = (0_u64, false);
        let mut first = None;
        for block in (start..total.min(start + GROUP_BLOCKS)).filter(|&block| is_allocatable(block, total, log_blocks)) {
            let seen = self.seen[(block / 64) as usize] >> (block % 64) & 1 != 0;
            match (seen, state.space.is_used(block).unwrap_or(seen)) {
                (true, false) => {
                    wrong = true;
                    self.report.add(None, Some(block), "in use, but marked as free".into(), false);
                }
                (false, true) => {
                    lost += 1;
                    first.get_or_insert(block);
                }
                _ => {}
            }
        }
        if lost > 0 {
            self.report.add(
                None,
                first,
                format!("{lost} blocks from here on are marked as used, but nothing uses them"),
                true,
            );
        }
        wrong || lost > 0
    }

    /// Makes the objects fit together.
    fn mend_catalog(&mut self) -> Result<(), Error> {
        let mut state = self.store.state.borrow_mut();
        if !matches!(state.object(ROOT_FOLDER), Ok(root) if root.record.kind == Kind::Folder && !root.record.is(DYING)) {
            state.put_object(ROOT_FOLDER, Record::new(Kind::Folder, 0, ""))?;
            state.dirty.insert(ROOT_FOLDER);
        }
        // Tables that could not be read are written anew.
        let slots = state.superblock.objects;
        for first in (0..slots).step_by(RECORDS_PER_BLOCK as usize) {
            let none = (first..first + RECORDS_PER_BLOCK).all(|id| state.object(id).is_err());
            if none {
                state.dirty.insert(first);
                state.make_places(first as usize + 1)?;
            }
        }
        let list: Vec<u32> = state.all().map(|(id, _)| id).filter(|&id| id != ROOT_FOLDER).collect();
        let mut taken = BTreeSet::new();
        let mut lost: Option<u32> = None;
        for id in list {
            let record = state.object(id)?.record.clone();
            let mut new = record.clone();
            if record.origin != 0 && (record.origin == id || state.object(record.origin).is_err()) {
                new.origin = 0;
                new.shared = 0;
            }
            if !record.is(DYING) {
                let parent = state
                    .object(record.parent)
                    .map(|parent| (parent.record.kind, parent.record.is(DYING)));
                match (record.kind, parent) {
                    (Kind::Snapshot, Ok((Kind::Disk, false))) | (_, Ok((Kind::Folder, false))) => {}
                    (Kind::Snapshot, _) => {
                        new.flags |= DYING;
                        new.parent = 0;
                    }
                    _ => {
                        let folder = match lost {
                            Some(folder) => folder,
                            None => {
                                let known = state.names.get(&(ROOT_FOLDER, "lost+found".to_string())).copied();
                                let folder = match known {
                                    Some(folder) => folder,
                                    None => state.create(Record::new(Kind::Folder, ROOT_FOLDER, "lost+found"))?,
                                };
                                lost = Some(folder);
                                folder
                            }
                        };
                        new.parent = folder;
                        new.name = format!("{id}");
                    }
                }
                if new.kind != Kind::Snapshot && (!is_name(&new.name) || !taken.insert((new.parent, new.name.clone()))) {
                    new.name = format!(
                        "{}-{id}",
                        new.name.chars().take(200).filter(|character| *character != '/').collect::<String>()
                    );
                    taken.insert((new.parent, new.name.clone()));
                }
            }
            if new != record {
                self.report.add(Some(id), None, "did not fit into the catalogue".into(), false);
                state.names.retain(|_, other| *other != id);
                state.put_object(id, new)?;
                state.dirty.insert(id);
            }
        }
        Ok(())
    }
}
