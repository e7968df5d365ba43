//! Everything that is known in memory, and the trees. Nothing here waits: what is missing in memory is named, and whoever asked loads it and asks again.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bytes::checksum;
use crate::cache::{Cache, Key};
use crate::error::Error;
use crate::layout::{BLOCK, CATALOG, FANOUT, FANOUT_BITS, GROUP_BLOCKS, LOG, MAX_SIZE, ROOT_FOLDER, blocks, is_allocatable, levels};
use crate::log::{Entry, MAX_CHECKSUMS};
use crate::memory::{Account, Memory};
use crate::pointer::{Block, Pointer, empty_node, pointer, set_pointer};
use crate::record::{CHECKSUMS, DYING, Kind, REAPING, Record, THICK};
use crate::space::{Run, Space};
use crate::superblock::Superblock;
use crate::tickets::Tickets;

/// What must be read before an operation can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A node of a tree, to be found at a pointer.
    Node(Key, Pointer),
    /// A group's bitmap.
    Group(u32),
}

/// Why an operation did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Something must be read first; nothing was changed.
    Need(Need),
    /// It cannot be done.
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// The outcome of an operation in memory.
pub type Try<T> = Result<T, Stop>;

/// Where a node is.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// In memory.
    Cached,
    /// Nowhere, for a pointer above it is a hole.
    Hole {
        /// Since when.
        birth: u64,
        /// The node that the hole stands for. Below it there may be nodes that are only in memory yet.
        at: Key,
    },
}

/// A write under way that will change where blocks are.
#[derive(Debug)]
pub struct Pending {
    /// Its number.
    pub id: u64,
    /// First block.
    pub block: u64,
    /// Blocks.
    pub count: u64,
    /// The object's blocks and the new ones of the device.
    pub runs: Vec<(u64, Run)>,
}

/// An object, and what is going on with it.
#[derive(Debug)]
pub struct Object {
    /// What is known of it.
    pub record: Record,
    /// Writes under way.
    pub writing: u32,
    /// Those of them that write in place and keep nobody away from their blocks.
    pub in_place: Tickets,
    /// Whether new writes have to wait: a snapshot is being taken, or it is being removed.
    pub frozen: bool,
    /// Writes under way that change the tree.
    pub pending: Vec<Pending>,
    /// Where the next block is wanted.
    pub hint: u64,
    /// A floor that holds until the commit that takes it away is on the device: until then a power cut would bring back who shares the blocks.
    pub held_floor: u64,
}

impl Object {
    /// An object nobody uses yet.
    pub fn new(record: Record) -> Self {
        Self {
            record,
            writing: 0,
            in_place: Tickets::default(),
            frozen: false,
            pending: Vec::new(),
            hint: 0,
            held_floor: 0,
        }
    }

    /// Blocks born later are written in place.
    #[inline]
    pub fn floor(&self) -> u64 {
        if self.record.flags & CHECKSUMS != 0 {
            u64::MAX
        } else {
            self.record.shared.max(self.record.tracked).max(self.held_floor)
        }
    }

    /// Blocks that must stay free so that all of it can be written.
    pub fn reserved(&self) -> u64 {
        if !self.record.is(THICK) {
            return 0;
        }
        let rest = self.record.size.div_ceil(BLOCK as u64).saturating_sub(self.record.owned);
        rest + rest.div_ceil(FANOUT) + 4
    }
}

/// Blocks with their places on the device, in order.
pub type Blocks = Rc<[(u64, Rc<Block>)]>;

/// The state of a mounted datastore.
pub struct State {
    /// The superblock of the last commit; size and label as of now.
    pub superblock: Superblock,
    /// The generation that the next commit will write.
    pub generation: u64,
    /// Objects by number.
    pub objects: Vec<Option<Box<Object>>>,
    /// Memory that they take.
    memory: Account,
    /// Folder and name to number.
    pub names: BTreeMap<(u32, String), u32>,
    /// Thick disks.
    pub thick: BTreeSet<u32>,
    /// Records that the next commit has to write.
    pub dirty: BTreeSet<u32>,
    /// Objects came, went or were renamed since the last commit, so that the log alone does not do.
    pub structural: bool,
    /// Nodes.
    pub cache: Cache,
    /// Blocks.
    pub space: Space,
    /// Requests.
    pub tickets: Tickets,
    /// Blocks that a commit is writing, in order. What leads to them is in memory already, so others may ask for them before the device has them.
    pub in_flight: Option<Blocks>,
    /// Changes since the log was written last.
    pub unlogged: Vec<Entry>,
    /// Number of the next pending write.
    pub next_pending: u64,
    /// Objects with a `held_floor`, and the generation whose commit lifts it.
    pub held_floors: Vec<(u32, u64)>,
    /// Writing metadata failed.
    pub failed: bool,
    /// Whether it was mounted read-only.
    pub read_only: bool,
}

impl State {
    /// Nothing but the topmost folder.
    pub fn new(superblock: Superblock, cache: usize, memory: Memory) -> Self {
        Self {
            generation: superblock.generation + 1,
            space: Space::new(superblock.blocks, superblock.log_blocks, (cache / 8).max(8)),
            superblock,
            objects: Vec::new(),
            memory: Account::new(memory),
            names: BTreeMap::new(),
            thick: BTreeSet::new(),
            dirty: BTreeSet::new(),
            structural: false,
            cache: Cache::new(cache.max(64)),
            tickets: Tickets::default(),
            in_flight: None,
            unlogged: Vec::new(),
            next_pending: 0,
            held_floors: Vec::new(),
            failed: false,
            read_only: false,
        }
    }

    /// A block that a commit is writing.
    pub fn in_flight(&self, block: u64) -> Option<Rc<Block>> {
        let blocks = self.in_flight.as_ref()?;
        let place = blocks.binary_search_by_key(&block, |(block, _)| *block).ok()?;
        Some(blocks[place].1.clone())
    }

    /// What is known of them.
    pub const fn memory(&self) -> &Account {
        &self.memory
    }

    /// Has places for objects with numbers below `count`.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub fn make_places(&mut self, count: usize) -> Result<(), Error> {
        if let Some(more) = count.checked_sub(self.objects.len()) {
            self.memory.take_places(more)?;
            self.objects.resize_with(count, || None);
        }
        Ok(())
    }

    /// Puts an object in its place, with its name; what was there is no more.
    ///
    /// # Errors
    /// [`Error::TooMany`]; nothing was changed then.
    pub fn put_object(&mut self, id: u32, record: Record) -> Result<(), Error> {
        self.memory.take_object(&record.name)?;
        self.make_places(id as usize + 1)
            .inspect_err(|_| self.memory.give_back_object(&record.name))?;
        self.remove_object(id);
        if record.is(THICK) && !record.is(DYING) {
            self.thick.insert(id);
        }
        if record.kind != Kind::Snapshot && !record.is(DYING) && id != ROOT_FOLDER {
            self.names.insert((record.parent, record.name.clone()), id);
        }
        self.objects[id as usize] = Some(Box::new(Object::new(record)));
        Ok(())
    }

    /// There is no such object any more; its name in its folder is the caller's business.
    pub fn remove_object(&mut self, id: u32) {
        if let Some(old) = self.objects.get_mut(id as usize).and_then(Option::take) {
            self.memory.give_back_object(&old.record.name);
        }
    }

    /// Gives an object another name, in its record alone.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::TooMany`]; nothing was changed then.
    pub fn rename_object(&mut self, id: u32, name: &str) -> Result<(), Error> {
        self.object(id)?;
        self.memory.take_object(name)?;
        let old = core::mem::replace(&mut self.record_mut(id)?.name, name.into());
        self.memory.give_back_object(&old);
        Ok(())
    }

    /// An object by number.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    #[inline]
    pub fn object(&self, id: u32) -> Result<&Object, Error> {
        match self.objects.get(id as usize) {
            Some(Some(object)) => Ok(object),
            _ => Err(Error::NotFound(format!("object {id}"))),
        }
    }

    /// An object by number, to be changed.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    #[inline]
    pub fn object_mut(&mut self, id: u32) -> Result<&mut Object, Error> {
        match self.objects.get_mut(id as usize) {
            Some(Some(object)) => Ok(object),
            _ => Err(Error::NotFound(format!("object {id}"))),
        }
    }

    /// A record, to be changed and written with the next commit.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn record_mut(&mut self, id: u32) -> Result<&mut Record, Error> {
        self.dirty.insert(id);
        Ok(&mut self.object_mut(id)?.record)
    }

    /// All objects with their numbers.
    pub fn all(&self) -> impl Iterator<Item = (u32, &Object)> {
        self.objects
            .iter()
            .enumerate()
            .filter_map(|(id, object)| Some((id as u32, object.as_deref()?)))
    }

    /// The topmost node of an object and how many levels it has.
    pub fn root(&self, object: u32) -> Result<(Pointer, u8), Error> {
        if object == CATALOG {
            return Ok((self.superblock.catalog, self.superblock.levels));
        }
        let record = &self.object(object)?.record;
        Ok((record.root, record.levels))
    }

    /// Where a node is; what must be read to know is named.
    pub fn locate(&self, key: Key) -> Try<Place> {
        if self.cache.contains(key) {
            return Ok(Place::Cached);
        }
        let (root, levels) = self.root(key.object())?;
        let pointer = if key.level() + 1 >= levels {
            if key.level() + 1 > levels || key.index() > 0 {
                return Ok(Place::Hole { birth: 0, at: key });
            }
            root
        } else {
            let parent = key.parent();
            match self.locate(parent)? {
                Place::Cached => self
                    .cache
                    .peek(parent)
                    .map_or(Pointer::default(), |node| pointer(node, key.place())),
                hole => return Ok(hole),
            }
        };
        if pointer.is_hole() {
            return Ok(Place::Hole {
                birth: pointer.birth,
                at: key,
            });
        }
        Err(Stop::Need(Need::Node(key, pointer)))
    }

    /// The first block that is not in the hole that a leaf was found to be in, as far as can be told at once.
    pub fn hole_end(&self, leaf: Key, hole: Key) -> u64 {
        if self.is_dirty(hole) { leaf.end() } else { hole.end() }
    }

    /// The pointer that leads to a node, where all above it is in memory.
    pub fn pointer_to(&self, key: Key) -> Option<Pointer> {
        let (root, levels) = self.root(key.object()).ok()?;
        if key.level() + 1 >= levels {
            return (key.index() == 0 && key.level() + 1 == levels).then_some(root);
        }
        self.cache.peek(key.parent()).map(|node| pointer(node, key.place()))
    }

    /// Takes in a node that was read from where `from` pointed, unless the tree changed meanwhile.
    ///
    /// # Errors
    /// [`Error::Damaged`] where it is not what the pointer promised, or leads to where nothing can be.
    pub fn take_node(&mut self, key: Key, from: Pointer, node: Rc<Block>) -> Result<(), Error> {
        if self.cache.contains(key) || self.pointer_to(key) != Some(from) {
            return Ok(());
        }
        let damaged = Error::Damaged {
            what: if key.object() == CATALOG {
                "the catalogue's tree"
            } else {
                "an object's tree"
            },
            block: from.block,
        };
        if checksum(&node[..]) != from.crc {
            return Err(damaged);
        }
        for place in 0..FANOUT as usize {
            let child = pointer(&node, place);
            if child.birth > from.birth
                || !(child.is_hole() || is_allocatable(child.block, self.superblock.blocks, self.superblock.log_blocks))
            {
                return Err(damaged);
            }
        }
        self.cache.insert(key, node);
        Ok(())
    }

    /// Sees to it that a node is in memory and in the tree, to be changed.
    pub fn ensure(&mut self, key: Key) -> Try<()> {
        if let Place::Hole { birth, .. } = self.locate(key)? {
            self.cache.insert(key, Rc::new(empty_node(birth)));
            self.cache.change(key);
        }
        Ok(())
    }

    /// Where a block of an object is, and up to which block the answer holds for a hole.
    pub fn find(&mut self, object: u32, block: u64) -> Try<(Pointer, u64)> {
        let key = Key::leaf(object, block);
        if let Some(node) = self.cache.get(key) {
            return Ok((pointer(node, (block % FANOUT) as usize), block + 1));
        }
        match self.locate(key)? {
            Place::Hole { birth, at } => Ok((Pointer::hole(birth), self.hole_end(key, at))),
            Place::Cached => Ok((Pointer::default(), block + 1)),
        }
    }

    /// Blocks of an object that end at `end` and were born later than this are the object's own.
    pub fn shared(&self, object: u32, end: u64) -> u64 {
        let Ok(Object { record, .. }) = self.object(object) else { return 0 };
        match self.object(record.origin) {
            Ok(origin) if origin.record.is(REAPING) && end <= origin.record.cursor => origin.record.shared,
            _ => record.shared,
        }
    }

    /// Gives back a block of data of an object that nothing of it points to any more, if it was its own; keeps the accounts.
    fn drop_block(&mut self, object: u32, block: u64, old: Pointer) {
        let shared = self.shared(object, block + 1);
        let Ok(Object { record, .. }) = self.object_mut(object) else {
            return;
        };
        record.mapped = record.mapped.saturating_sub(1);
        if old.birth <= shared {
            return;
        }
        if old.birth > record.shared {
            record.owned = record.owned.saturating_sub(1);
        } else {
            // Handed over by the origin, whose account still has it until it is gone.
            let origin = record.origin;
            if let Ok(record) = self.record_mut(origin) {
                record.owned = record.owned.saturating_sub(1);
            }
        }
        self.space.free_run(Run {
            start: old.block,
            count: 1,
        });
    }

    /// Points blocks of an object to a run of the device that is in use already. The leaves are made, or named.
    pub fn map(&mut self, object: u32, block: u64, run: Run, checksums: &[u32]) -> Try<()> {
        for index in block >> FANOUT_BITS..=(block + run.count - 1) >> FANOUT_BITS {
            self.ensure(Key::new(object, 0, index))?;
        }
        let birth = self.generation;
        for step in 0..run.count {
            let at = block + step;
            let new = Pointer {
                block: run.start + step,
                birth,
                crc: checksums.get(step as usize).copied().unwrap_or(0),
            };
            let mut old = Pointer::default();
            if let Some(node) = self.cache.change(Key::leaf(object, at)) {
                old = pointer(node, (at % FANOUT) as usize);
                set_pointer(node, (at % FANOUT) as usize, new);
            }
            if !old.is_hole() {
                self.drop_block(object, at, old);
            }
            let record = &mut self.object_mut(object)?.record;
            record.mapped += 1;
            record.owned += 1;
        }
        self.dirty.insert(object);
        Ok(())
    }

    /// Makes blocks of an object a hole, up to the end of the leaf that the first of them is in, or of the hole that is there. Gives the first
    /// block behind what was done, and whether anything changed.
    pub fn unmap(&mut self, object: u32, block: u64, end: u64) -> Try<(u64, bool)> {
        let key = Key::leaf(object, block);
        if let Place::Hole { at, .. } = self.locate(key)? {
            return Ok((self.hole_end(key, at).min(end), false));
        }
        let end = end.min(key.end());
        let birth = self.generation;
        let mut changed = false;
        for at in block..end {
            let place = (at % FANOUT) as usize;
            let old = self.cache.get(key).map_or(Pointer::default(), |node| pointer(node, place));
            if old.is_hole() {
                continue;
            }
            if let Some(node) = self.cache.change(key) {
                set_pointer(node, place, Pointer::hole(birth));
            }
            self.drop_block(object, at, old);
            changed = true;
        }
        if changed {
            self.dirty.insert(object);
        }
        Ok((end, changed))
    }

    /// Notes a change for the next flush.
    pub fn log_map(&mut self, object: u32, block: u64, run: Run, checksums: &[u32]) {
        let mut done = 0;
        while done < run.count {
            let count = (run.count - done).min(if checksums.is_empty() {
                u64::from(u32::MAX)
            } else {
                MAX_CHECKSUMS as u64
            });
            let part = checksums.get(done as usize..(done + count) as usize).unwrap_or(&[]);
            self.unlogged.push(Entry::Map {
                object,
                block: block + done,
                at: run.start + done,
                count: count as u32,
                checksums: part.into(),
            });
            done += count;
        }
    }

    /// Repeats what the log says. What must be read first is named, and the same entry given again later.
    pub fn replay(&mut self, entry: &Entry) -> Try<()> {
        let damaged = || {
            Stop::Error(Error::Damaged {
                what: "an entry of the intent log",
                block: LOG,
            })
        };
        match entry {
            Entry::Map {
                object,
                block,
                at,
                count,
                checksums,
            } => {
                let run = Run {
                    start: *at,
                    count: u64::from(*count),
                };
                let blocks = self.object(*object).map_err(|_| damaged())?.record.size.div_ceil(BLOCK as u64);
                let fits = run.count > 0 && block.checked_add(run.count).is_some_and(|end| end <= blocks);
                let last = at.checked_add(run.count - 1).filter(|_| fits).ok_or_else(damaged)?;
                let (total, log) = (self.superblock.blocks, self.superblock.log_blocks);
                if run.count > GROUP_BLOCKS || !is_allocatable(*at, total, log) || !is_allocatable(last, total, log) {
                    return Err(damaged());
                }
                for index in block >> FANOUT_BITS..=(block + run.count - 1) >> FANOUT_BITS {
                    self.ensure(Key::new(*object, 0, index))?;
                }
                self.space
                    .claim(run)
                    .map_err(|group| group.map_or_else(damaged, |group| Stop::Need(Need::Group(group))))?;
                self.map(*object, *block, run, checksums)
            }
            Entry::Unmap { object, block, count } => {
                self.object(*object).map_err(|_| damaged())?;
                let end = block.checked_add(u64::from(*count)).ok_or_else(damaged)?;
                let mut at = *block;
                while at < end {
                    at = self.unmap(*object, at, end)?.0;
                }
                Ok(())
            }
            Entry::Size { object, size } => {
                self.object(*object).map_err(|_| damaged())?;
                if *size > MAX_SIZE {
                    return Err(damaged());
                }
                self.set_size(*object, *size);
                Ok(())
            }
        }
    }

    /// Changes how many bytes an object has. Its tree gets the levels that it needs; nothing is unmapped.
    pub fn set_size(&mut self, object: u32, size: u64) {
        let wanted = levels(blocks(size));
        while let Ok(Object { record, .. }) = self.object_mut(object) {
            record.size = size;
            if record.levels >= wanted {
                break;
            }
            let (root, top) = (record.root, Key::new(object, record.levels, 0));
            let old = Key::new(object, record.levels - 1, 0);
            record.levels += 1;
            record.root = Pointer::hole(0);
            // A new top whose first pointer is the old one. A top that is only in memory gets its place with the next commit.
            if root != Pointer::hole(0) || self.cache.contains(old) {
                let mut node = empty_node(0);
                set_pointer(&mut node, 0, root);
                self.cache.insert(top, Rc::new(node));
                self.cache.change(top);
            }
        }
        self.dirty.insert(object);
    }

    /// Blocks that stay free for commits and for removing things.
    pub fn margin(&self) -> u64 {
        2 * self.dirty_limit() as u64 + 32
    }

    /// Nodes that may be changed before a commit is due.
    pub fn dirty_limit(&self) -> usize {
        (self.cache.limit() / 4).min((self.superblock.blocks / 64) as usize).clamp(8, 4096)
    }

    /// Blocks that thick disks have yet to get.
    pub fn reserved(&self) -> u64 {
        self.thick.iter().filter_map(|&id| self.object(id).ok()).map(Object::reserved).sum()
    }

    /// Blocks that can still be given to `object`.
    pub fn available_to(&self, object: u32) -> u64 {
        let own = self.object(object).map_or(0, Object::reserved);
        let kept = self.reserved() - own + self.margin() + self.cache.dirty().len() as u64 + 2 * self.dirty.len() as u64;
        self.space.available().saturating_sub(kept)
    }

    /// Whether a commit should come before more is changed.
    pub fn is_commit_due(&self) -> bool {
        self.cache.dirty().len() >= self.dirty_limit() || self.space.freed_runs() >= 4096 || self.unlogged.len() >= 16384
    }

    /// Whether anything changed since the last commit.
    pub fn is_changed(&self) -> bool {
        !self.cache.dirty().is_empty() || !self.dirty.is_empty() || self.structural || self.space.freed_runs() > 0
    }

    /// A commit is on the device.
    pub fn lift_floors(&mut self, generation: u64) {
        let (lifted, held) = core::mem::take(&mut self.held_floors)
            .into_iter()
            .partition(|(_, until)| *until <= generation);
        self.held_floors = held;
        for (id, _) in Vec::<(u32, u64)>::into_iter(lifted) {
            if self.held_floors.iter().all(|(other, _)| *other != id) {
                if let Ok(object) = self.object_mut(id) {
                    object.held_floor = 0;
                }
            }
        }
    }

    /// Whether metadata can be changed.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] and [`Error::Failed`].
    pub fn check_writable(&self) -> Result<(), Error> {
        match (self.read_only, self.failed) {
            (true, _) => Err(Error::ReadOnly),
            (_, true) => Err(Error::Failed),
            _ => Ok(()),
        }
    }
}
