//! Making and mounting a datastore.

use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use tessera_block::BlockDevice;

use crate::bytes::{checksum, u64_at};
use crate::error::Error;
use crate::layout::{
    BLOCK, CATALOG, CATALOG_LEVELS, LOG, MAX_LOG, MAX_ZONES, MIN_DATA, MIN_LOG, RECORD, RECORDS_PER_BLOCK, ROOT_FOLDER, SUPERBLOCK_SLOTS,
    ZONE_BLOCKS, bitmap_block, index_block,
};
use crate::log::{self, Place};
use crate::memory::Memory;
use crate::pointer::{Block, Pointer};
use crate::record::{DYING, Kind, Record};
use crate::state::{Need, Object, State, Stop, Try};
use crate::superblock::{MAX_LABEL, SIZE, Superblock, Zone, zones};
use crate::sync::{Event, Lock};

/// What a new datastore is to be like.
#[derive(Clone, Debug, Default)]
pub struct FormatOptions {
    /// A random number that tells it apart.
    pub uuid: [u8; 16],
    /// What people call it, at most 95 bytes.
    pub label: String,
    /// Seconds since 1970.
    pub now: u64,
    /// Bytes of the datastore; all of the device if none.
    pub size: Option<u64>,
    /// Blocks of the intent log; by the size if none.
    pub log_blocks: Option<u32>,
    /// For what is known of objects.
    pub memory: Memory,
}

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Bytes of memory for metadata. A leaf of 4 KiB leads to 1 MiB of data.
    pub cache: usize,
    /// For what is known of objects. What needs more is not mounted, and nothing is made that would need more.
    pub memory: Memory,
    /// Change nothing on the device.
    pub read_only: bool,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            cache: 32 << 20,
            memory: Memory::default(),
            read_only: false,
        }
    }
}

/// A mounted datastore. Any number of requests may be under way at the same time, in one thread.
pub struct Store<D> {
    pub(crate) device: D,
    pub(crate) state: RefCell<State>,
    /// Held by whoever writes metadata.
    pub(crate) lock: Lock,
    /// Held by whoever gives back what was removed.
    pub(crate) reaping: Lock,
    /// Notified when writes finish.
    pub(crate) event: Event,
    pub(crate) log: Cell<Place>,
    /// When the last flush that succeeded began, in ticks.
    pub(crate) flushed: Cell<u64>,
    clock: Cell<u64>,
    sector_shift: u32,
}

/// How damage is taken while mounting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// It ends the mount.
    Strict,
    /// What is damaged is left out and noted, for repair.
    Lenient,
}

impl<D: BlockDevice> Store<D> {
    pub(crate) fn new(device: D, state: State) -> Result<Self, Error> {
        let geometry = device.geometry();
        if !geometry.sector_size.is_power_of_two() || !(512..=BLOCK as u32).contains(&geometry.sector_size) {
            return Err(Error::Io {
                doing: "looking at the device's sectors",
                error: tessera_block::IoError::Unsupported,
            });
        }
        let log = Place {
            generation: state.superblock.generation,
            number: 0,
            previous: 0,
            datastore: u64_at(&state.superblock.uuid, 0),
        };
        Ok(Self {
            device,
            state: RefCell::new(state),
            lock: Lock::default(),
            reaping: Lock::default(),
            event: Event::default(),
            log: Cell::new(log),
            flushed: Cell::new(0),
            clock: Cell::new(1),
            sector_shift: geometry.sector_size.trailing_zeros(),
        })
    }

    /// The device it is on.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Ends the use of the datastore without writing anything; [`Store::sync`] before keeps what was not flushed.
    pub fn into_device(self) -> D {
        self.device
    }

    pub(crate) fn sector_shift(&self) -> u32 {
        self.sector_shift
    }

    pub(crate) fn sectors_per_block(&self) -> u64 {
        BLOCK as u64 >> self.sector_shift
    }

    /// The first sector of a block.
    pub(crate) fn sector(&self, block: u64) -> u64 {
        block * self.sectors_per_block()
    }

    pub(crate) fn tick(&self) -> u64 {
        let now = self.clock.get();
        self.clock.set(now + 1);
        now
    }

    pub(crate) async fn read_block(&self, block: u64, doing: &'static str) -> Result<Rc<Block>, Error> {
        let mut node = Rc::new([0; BLOCK]);
        self.device
            .read(self.sector(block), &mut Rc::make_mut(&mut node)[..])
            .await
            .map_err(Error::io(doing))?;
        Ok(node)
    }

    /// A block of metadata, which may still be on its way to the device.
    async fn read_metadata(&self, block: u64, doing: &'static str) -> Result<Rc<Block>, Error> {
        let in_flight = self.state.borrow().in_flight(block);
        match in_flight {
            Some(node) => Ok(node),
            None => self.read_block(block, doing).await,
        }
    }

    /// Reads into memory what an operation needs.
    pub(crate) async fn load(&self, need: Need, trim: bool) -> Result<(), Error> {
        match need {
            Need::Node(key, from) => {
                let node = self.read_metadata(from.block, "reading metadata").await?;
                let mut state = self.state.borrow_mut();
                if trim {
                    state.cache.trim();
                }
                state.take_node(key, from, node)
            }
            Need::Group(group) => {
                let Some(descriptor) = self.state.borrow().space.descriptor(u64::from(group)) else {
                    return Ok(());
                };
                let Some(slot) = descriptor.slot else {
                    let _ = self.state.borrow_mut().space.load(group, None);
                    return Ok(());
                };
                let block = bitmap_block(u64::from(group), slot);
                let bitmap = self.read_metadata(block, "reading a bitmap").await?;
                let mut state = self.state.borrow_mut();
                if state.space.descriptor(u64::from(group)) != Some(descriptor) {
                    return Ok(());
                }
                let damaged = Error::Damaged { what: "a bitmap", block };
                if checksum(&bitmap[..]) != descriptor.crc {
                    return Err(damaged);
                }
                if trim {
                    state.space.trim();
                }
                state.space.load(group, Some(&bitmap)).map_err(|()| damaged)
            }
        }
    }

    /// Does something in memory, reading what it needs.
    pub(crate) async fn run<T>(&self, mut attempt: impl FnMut(&mut State) -> Try<T>) -> Result<T, Error> {
        loop {
            let need = match attempt(&mut self.state.borrow_mut()) {
                Ok(value) => return Ok(value),
                Err(Stop::Error(error)) => return Err(error),
                Err(Stop::Need(need)) => need,
            };
            self.load(need, true).await?;
        }
    }

    /// Makes an empty datastore. Whatever was on the device is lost.
    ///
    /// # Errors
    /// [`Error::TooSmall`] below about 5 MiB, [`Error::BadSize`] above 64 TiB or where the options do not fit, [`Error::Io`].
    pub async fn format(device: D, options: &FormatOptions) -> Result<Self, Error> {
        let bytes = device.geometry().bytes();
        let size = options.size.unwrap_or(bytes);
        if size > bytes {
            return Err(Error::TooSmall {
                needed: size,
                found: bytes,
            });
        }
        let blocks = size / BLOCK as u64;
        if blocks > MAX_ZONES * ZONE_BLOCKS {
            return Err(Error::BadSize {
                size,
                why: "a datastore has 64 TiB at most",
            });
        }
        let log_blocks = options.log_blocks.unwrap_or_else(|| (blocks / 256).clamp(64, 1024) as u32);
        if !(MIN_LOG..=MAX_LOG).contains(&log_blocks) {
            return Err(Error::BadSize {
                size: u64::from(log_blocks) * BLOCK as u64,
                why: "the intent log has 4 to 16384 blocks",
            });
        }
        let least = LOG + u64::from(log_blocks) + MIN_DATA;
        // The last zone must have room for its header.
        let blocks = if blocks > ZONE_BLOCKS && blocks % ZONE_BLOCKS < 2 * crate::layout::ZONE_HEADER {
            blocks / ZONE_BLOCKS * ZONE_BLOCKS
        } else {
            blocks
        };
        if blocks < least {
            return Err(Error::TooSmall {
                needed: least * BLOCK as u64,
                found: size,
            });
        }
        if options.label.len() > MAX_LABEL {
            return Err(Error::InvalidName(options.label.clone()));
        }
        let superblock = Superblock {
            uuid: options.uuid,
            generation: 0,
            blocks,
            log_blocks,
            objects: 0,
            levels: CATALOG_LEVELS,
            catalog: Pointer::default(),
            created: options.now,
            label: options.label.to_string(),
            zones: vec![Zone { crc: 0, slot: None }; zones(blocks) as usize],
        };
        let mut state = State::new(superblock, MountOptions::default().cache / BLOCK, options.memory.clone());
        let mut root = Record::new(Kind::Folder, 0, "");
        root.created = options.now;
        root.modified = options.now;
        state.put_object(ROOT_FOLDER, root)?;
        state.dirty.insert(ROOT_FOLDER);
        let store = Self::new(device, state)?;
        // No older superblock may win over the new one.
        let nothing = vec![0; SIZE];
        for slot in SUPERBLOCK_SLOTS {
            store
                .device
                .write(store.sector(slot), &nothing)
                .await
                .map_err(Error::io("making a datastore"))?;
        }
        store.device.flush().await.map_err(Error::io("making a datastore"))?;
        let held = store.lock.hold().await;
        store.commit(&held, &[], |_| {}).await?;
        drop(held);
        Ok(store)
    }

    /// The newest superblock.
    ///
    /// # Errors
    /// [`Error::NotADatastore`] and whatever [`Superblock::decode`] says.
    pub(crate) async fn read_superblock(device: &D) -> Result<Superblock, Error> {
        let geometry = device.geometry();
        let sectors = BLOCK as u64 / u64::from(geometry.sector_size.clamp(512, BLOCK as u32));
        let mut newest: Option<Superblock> = None;
        let mut problem = Error::NotADatastore;
        for slot in SUPERBLOCK_SLOTS {
            let mut bytes = vec![0; SIZE];
            if geometry.check_buffer(slot * sectors, SIZE).is_err() {
                continue;
            }
            let read = device
                .read(slot * sectors, &mut bytes)
                .await
                .map_err(Error::io("reading the superblock"));
            match read.and_then(|()| Superblock::decode(&bytes, slot, geometry.bytes() / BLOCK as u64)) {
                Ok(superblock) => {
                    if newest.as_ref().is_none_or(|best| best.generation < superblock.generation) {
                        newest = Some(superblock);
                    }
                }
                Err(Error::NotADatastore) => {}
                Err(error) => problem = error,
            }
        }
        newest.ok_or(problem)
    }

    /// Mounts the datastore on a device: reads the catalogue, repeats the intent log, and commits, so that an old log can never be mistaken for a new one.
    ///
    /// # Errors
    /// [`Error::NotADatastore`], [`Error::Version`], [`Error::TooSmall`], [`Error::Damaged`], [`Error::Io`], [`Error::NoSpace`], [`Error::TooMany`].
    pub async fn mount(device: D, options: MountOptions) -> Result<Self, Error> {
        let writes = !options.read_only;
        let (store, _) = Self::open(device, options, Strictness::Strict).await?;
        if writes {
            let held = store.lock.hold().await;
            store.commit(&held, &[], |_| {}).await?;
            drop(held);
        }
        Ok(store)
    }

    /// Mounts without committing. The second value is what was left out.
    pub(crate) async fn open(device: D, options: MountOptions, strictness: Strictness) -> Result<(Self, Vec<Error>), Error> {
        let read_only = options.read_only || device.geometry().read_only;
        let superblock = Self::read_superblock(&device).await?;
        let mut state = State::new(superblock, options.cache / BLOCK, options.memory);
        state.read_only = read_only;
        state.make_places(state.superblock.objects as usize)?;
        let mut store = Self::new(device, state)?;
        let mut damage = Vec::new();
        let mut note = |result: Result<(), Error>| match (result, strictness) {
            (Err(error @ (Error::Damaged { .. } | Error::Io { .. })), Strictness::Lenient) => {
                damage.push(error);
                Ok(())
            }
            (result, _) => result,
        };
        let zone_list = store.state.borrow().superblock.zones.clone();
        for (zone, entry) in zone_list.iter().enumerate() {
            note(store.read_index(zone as u64, *entry).await)?;
        }
        let tables = store.state.borrow().superblock.objects.div_ceil(RECORDS_PER_BLOCK);
        for table in 0..tables {
            note(store.read_table(table).await)?;
        }
        note(store.state.get_mut().check_catalog())?;
        note(store.replay().await)?;
        Ok((store, damage))
    }

    async fn read_index(&self, zone: u64, entry: Zone) -> Result<(), Error> {
        let Some(slot) = entry.slot else { return Ok(()) };
        let block = index_block(zone, slot);
        let index = self.read_block(block, "reading a zone's index").await?;
        let sane = checksum(&index[..]) == entry.crc && self.state.borrow_mut().space.set_index(zone, &index).is_ok();
        if sane {
            Ok(())
        } else {
            Err(Error::Damaged {
                what: "a zone's index",
                block,
            })
        }
    }

    async fn read_table(&self, table: u32) -> Result<(), Error> {
        let (at, _) = self.run(|state| state.find(CATALOG, u64::from(table))).await?;
        if at.is_hole() {
            return Ok(());
        }
        let block = self.read_block(at.block, "reading the catalogue").await?;
        let damaged = Error::Damaged {
            what: "the catalogue",
            block: at.block,
        };
        if checksum(&block[..]) != at.crc {
            return Err(damaged);
        }
        let mut state = self.state.borrow_mut();
        let (generation, total, log_blocks) = (state.superblock.generation, state.superblock.blocks, state.superblock.log_blocks);
        for (place, bytes) in block.as_chunks::<RECORD>().0.iter().enumerate() {
            let id = table * RECORDS_PER_BLOCK + place as u32;
            match Record::decode(id, bytes, generation, total, log_blocks) {
                Ok(Some(record)) if id != CATALOG => state.put_object(id, record)?,
                Ok(_) => {}
                Err(()) => return Err(damaged),
            }
        }
        Ok(())
    }

    async fn replay(&self) -> Result<(), Error> {
        let (log_blocks, most) = (self.state.borrow().superblock.log_blocks, 4 * 4096 + 1024);
        let mut place = self.log.get();
        while place.number < log_blocks {
            let block = self.read_block(LOG + u64::from(place.number), "reading the intent log").await?;
            let Some((entries, behind)) = log::decode(&block, place) else {
                break;
            };
            for entry in &entries {
                self.run(|state| state.replay(entry)).await?;
                // A commit is due long before an honest log gets that long.
                if self.state.borrow().cache.dirty().len() > most {
                    return Err(Error::Damaged {
                        what: "the intent log",
                        block: LOG + u64::from(place.number),
                    });
                }
            }
            place = behind;
        }
        Ok(())
    }
}

impl State {
    /// Whether the objects fit together: every folder and name is where it can be found.
    pub(crate) fn check_catalog(&mut self) -> Result<(), Error> {
        let damaged = Err(Error::Damaged {
            what: "the catalogue",
            block: self.superblock.catalog.block,
        });
        if !matches!(self.object(ROOT_FOLDER), Ok(root) if root.record.kind == Kind::Folder && !root.record.is(DYING)) {
            return damaged;
        }
        let mut named = 0;
        for (id, object) in self.all() {
            let record = &object.record;
            let origin_fits = record.origin == 0
                || matches!(self.object(record.origin), Ok(origin) if origin.record.kind == Kind::Snapshot && record.origin != id);
            let parent = if record.kind == Kind::Snapshot { Kind::Disk } else { Kind::Folder };
            let parent_fits = id == ROOT_FOLDER
                || record.is(DYING)
                || matches!(self.object(record.parent), Ok(found) if found.record.kind == parent && !found.record.is(DYING));
            if !origin_fits || !parent_fits {
                return damaged;
            }
            named += usize::from(record.kind != Kind::Snapshot && !record.is(DYING) && id != ROOT_FOLDER);
        }
        // Fewer names than objects with names: two have the same.
        if self.names.len() == named { Ok(()) } else { damaged }
    }

    /// An object by number that was not removed.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) fn living(&self, id: u32) -> Result<&Object, Error> {
        match self.objects.get(id as usize) {
            Some(Some(object)) if !object.record.is(DYING) => Ok(object),
            _ => Err(Error::NotFound(alloc::format!("object {id}"))),
        }
    }
}
