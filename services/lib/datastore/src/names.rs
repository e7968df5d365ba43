//! Folders, files and disks by name.
//!
//! Paths are names with slashes between them, `iso/debian.iso`; a slash in front makes no difference. What is changed here is durable after the next
//! [`Store::flush`] or [`Store::sync`].

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use tessera_block::BlockDevice;

use crate::error::Error;
use crate::layout::{BLOCK, MAX_OBJECTS, MAX_SIZE, ROOT_FOLDER, blocks};
use crate::log::Entry;
use crate::record::{CHECKSUMS, DYING, Kind, Record, THICK, is_name};
use crate::state::State;
use crate::store::Store;

/// What is known of a folder, file, disk or snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its number, which the other operations take. It stays the same across mounts, until it is removed.
    pub id: u32,
    /// What it is.
    pub kind: Kind,
    /// What it is called.
    pub name: String,
    /// Bytes of its content; for a disk, what is provisioned.
    pub size: u64,
    /// Bytes of space that its content takes.
    pub used: u64,
    /// Those of them that it shares with snapshots or clones.
    pub shared: u64,
    /// Bytes of space set aside for what a thick disk has yet to write.
    pub reserved: u64,
    /// Space for all of it is set aside.
    pub thick: bool,
    /// Data has checksums.
    pub checksums: bool,
    /// Tells disks apart; zeroes for others.
    pub uuid: [u8; 16],
    /// Seconds since 1970.
    pub created: u64,
    /// Seconds since 1970.
    pub modified: u64,
    /// The snapshot that it goes on from, for disks and snapshots.
    pub origin: Option<u32>,
}

/// What a new disk is to be like.
#[derive(Clone, Debug, Default)]
pub struct DiskOptions {
    /// Bytes, a multiple of 512.
    pub size: u64,
    /// Set space for all of it aside, so that writing never finds the datastore full.
    pub thick: bool,
    /// Keep a checksum of each block. Every write goes to a new place then, and through memory.
    pub checksums: bool,
    /// A random number that tells it apart.
    pub uuid: [u8; 16],
    /// Seconds since 1970.
    pub now: u64,
}

/// Space of a datastore in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// All of it.
    pub size: u64,
    /// In use: data, metadata, and what the format itself takes.
    pub used: u64,
    /// In use for nothing. Part of it may become available only after a commit.
    pub free: u64,
    /// Free, and not set aside for thick disks or metadata: what thin disks and files can still take.
    pub available: u64,
    /// Set aside for thick disks.
    pub reserved: u64,
    /// Bytes that all disks and files would have if they were full.
    pub provisioned: u64,
    /// Less than a tenth or less than 256 MiB is available, whichever is less: time to do something.
    pub near_full: bool,
}

impl State {
    fn info(&self, id: u32, record: &Record) -> Info {
        Info {
            id,
            kind: record.kind,
            name: record.name.clone(),
            size: record.size,
            used: record.mapped * BLOCK as u64,
            shared: record.mapped.saturating_sub(record.owned) * BLOCK as u64,
            reserved: self.object(id).map_or(0, |object| object.reserved() * BLOCK as u64),
            thick: record.is(THICK),
            checksums: record.is(CHECKSUMS),
            uuid: record.uuid,
            created: record.created,
            modified: record.modified,
            origin: (record.origin != 0).then_some(record.origin),
        }
    }

    /// Follows a path to an object.
    fn walk(&self, path: &str) -> Result<u32, Error> {
        let mut at = ROOT_FOLDER;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = *self
                .names
                .get(&(at, name.to_string()))
                .ok_or_else(|| Error::NotFound(path.to_string()))?;
        }
        Ok(at)
    }

    /// The folder that a path's last name is in, and that name.
    fn split<'a>(&self, path: &'a str) -> Result<(u32, &'a str), Error> {
        let path = path.trim_matches('/');
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if !is_name(name) {
            return Err(Error::InvalidName(name.to_string()));
        }
        let at = self.walk(folder)?;
        if self.object(at)?.record.kind != Kind::Folder {
            return Err(Error::WrongKind {
                name: folder.to_string(),
                expected: "folder",
            });
        }
        Ok((at, name))
    }

    /// A number that no object has.
    pub(crate) fn free_id(&self) -> Result<u32, Error> {
        let gap = self
            .objects
            .iter()
            .enumerate()
            .skip(ROOT_FOLDER as usize)
            .find(|(_, object)| object.is_none());
        let id = gap.map_or(self.objects.len(), |(id, _)| id) as u32;
        if id < MAX_OBJECTS { Ok(id) } else { Err(Error::TooMany) }
    }

    /// Makes a new object known.
    pub(crate) fn create(&mut self, record: Record) -> Result<u32, Error> {
        if self.available_to(0) == 0 {
            return Err(Error::NoSpace {
                needed: BLOCK as u64,
                available: 0,
            });
        }
        let id = self.free_id()?;
        self.put_object(id, record)?;
        self.dirty.insert(id);
        self.structural = true;
        Ok(id)
    }

    pub(crate) fn create_at(&mut self, path: &str, kind: Kind, now: u64) -> Result<u32, Error> {
        self.check_writable()?;
        let (folder, name) = self.split(path)?;
        if self.names.contains_key(&(folder, name.to_string())) {
            return Err(Error::Exists(path.to_string()));
        }
        let mut record = Record::new(kind, folder, name);
        record.created = now;
        record.modified = now;
        self.create(record)
    }
}

impl<D: BlockDevice> Store<D> {
    /// The object at a path.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn lookup(&self, path: &str) -> Result<Info, Error> {
        let state = self.state.borrow();
        let id = state.walk(path)?;
        Ok(state.info(id, &state.object(id)?.record))
    }

    /// An object by number.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn info(&self, id: u32) -> Result<Info, Error> {
        let state = self.state.borrow();
        Ok(state.info(id, &state.living(id)?.record))
    }

    /// The path of an object that has a name.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn path(&self, id: u32) -> Result<String, Error> {
        let state = self.state.borrow();
        let mut names: Vec<&str> = Vec::new();
        let mut at = id;
        // Folders that hold each other would never end.
        while at != ROOT_FOLDER && names.len() < 4096 {
            let record = &state.living(at)?.record;
            names.push(&record.name);
            at = record.parent;
        }
        names.reverse();
        Ok(names.join("/"))
    }

    /// What is in a folder, by name.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongKind`].
    pub fn list(&self, path: &str) -> Result<Vec<Info>, Error> {
        self.list_part(path, 0, usize::MAX)
    }

    /// What is in a folder, by name, without the first `skip` and `most` at most.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongKind`].
    pub fn list_part(&self, path: &str, skip: usize, most: usize) -> Result<Vec<Info>, Error> {
        let state = self.state.borrow();
        let folder = state.walk(path)?;
        if state.object(folder)?.record.kind != Kind::Folder {
            return Err(Error::WrongKind {
                name: path.to_string(),
                expected: "folder",
            });
        }
        let range = (folder, String::new())..(folder + 1, String::new());
        let part = state.names.range(range).skip(skip).take(most);
        part.map(|(_, &id)| Ok(state.info(id, &state.object(id)?.record))).collect()
    }

    /// Makes a folder.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotFound`] for the folder that it should be in, [`Error::InvalidName`], [`Error::NoSpace`], [`Error::TooMany`], [`Error::ReadOnly`].
    pub fn create_folder(&self, path: &str, now: u64) -> Result<u32, Error> {
        self.state.borrow_mut().create_at(path, Kind::Folder, now)
    }

    /// Makes an empty file.
    ///
    /// # Errors
    /// As [`Store::create_folder`].
    pub fn create_file(&self, path: &str, now: u64) -> Result<u32, Error> {
        self.state.borrow_mut().create_at(path, Kind::File, now)
    }

    /// Makes a disk that reads as zeroes.
    ///
    /// # Errors
    /// As [`Store::create_folder`], [`Error::BadSize`], and [`Error::NoSpace`] for a thick disk.
    pub fn create_disk(&self, path: &str, options: &DiskOptions) -> Result<u32, Error> {
        check_disk_size(options.size)?;
        let mut state = self.state.borrow_mut();
        if options.thick {
            let needed = blocks(options.size) + blocks(options.size).div_ceil(256) + 4;
            let available = state.available_to(0);
            if available < needed {
                return Err(Error::NoSpace {
                    needed: needed * BLOCK as u64,
                    available: available * BLOCK as u64,
                });
            }
        }
        let id = state.create_at(path, Kind::Disk, options.now)?;
        let generation = state.generation;
        let record = state.record_mut(id)?;
        record.flags = if options.thick { THICK } else { 0 } | if options.checksums { CHECKSUMS } else { 0 };
        record.uuid = options.uuid;
        record.epoch = generation - 1;
        if options.thick {
            state.thick.insert(id);
        }
        state.set_size(id, options.size);
        Ok(id)
    }

    /// Makes a disk larger, also while it is used.
    ///
    /// # Errors
    /// [`Error::BadSize`] where it would become smaller, [`Error::WrongKind`], [`Error::NoSpace`], [`Error::Io`].
    pub async fn grow_disk(&self, disk: u32, size: u64) -> Result<(), Error> {
        check_disk_size(size)?;
        let old = self.state.borrow().living(disk)?.record.size;
        self.check_growth(disk, size)?;
        self.clear_tail(disk, old).await?;
        // Others may have changed it meanwhile.
        self.check_growth(disk, size)?;
        let mut state = self.state.borrow_mut();
        state.set_size(disk, size);
        state.structural = true;
        Ok(())
    }

    fn check_growth(&self, disk: u32, size: u64) -> Result<(), Error> {
        let state = self.state.borrow();
        state.check_writable()?;
        let record = &state.living(disk)?.record;
        if record.kind != Kind::Disk {
            return Err(Error::WrongKind {
                name: record.name.clone(),
                expected: "disk",
            });
        }
        if size < record.size {
            return Err(Error::BadSize {
                size,
                why: "a disk can only grow",
            });
        }
        if record.is(THICK) {
            let more = blocks(size) - blocks(record.size);
            let (needed, available) = (more + more.div_ceil(256) + 4, state.available_to(0));
            if available < needed {
                return Err(Error::NoSpace {
                    needed: needed * BLOCK as u64,
                    available: available * BLOCK as u64,
                });
            }
        }
        Ok(())
    }

    /// Makes a file shorter or longer; what is added reads as zeroes.
    ///
    /// # Errors
    /// [`Error::WrongKind`], [`Error::BadSize`], [`Error::Io`] and others of writing.
    pub async fn set_file_size(&self, file: u32, size: u64) -> Result<(), Error> {
        let old = {
            let state = self.state.borrow();
            state.check_writable()?;
            let record = &state.living(file)?.record;
            if record.kind != Kind::File {
                return Err(Error::WrongKind {
                    name: record.name.clone(),
                    expected: "file",
                });
            }
            if size > MAX_SIZE {
                return Err(Error::BadSize {
                    size,
                    why: "a file has 64 TiB at most",
                });
            }
            record.size
        };
        if size < old {
            // What is cut off must not come back when the file grows again.
            let edge = size.next_multiple_of(BLOCK as u64).min(old);
            self.write(file, size, &[0; BLOCK][..(edge - size) as usize]).await?;
            self.unmap_blocks(file, blocks(size), blocks(old)).await?;
        } else {
            self.clear_tail(file, old).await?;
        }
        let mut state = self.state.borrow_mut();
        state.set_size(file, size);
        state.unlogged.push(Entry::Size { object: file, size });
        Ok(())
    }

    /// Notes when a file or disk was changed.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn set_modified(&self, id: u32, now: u64) -> Result<(), Error> {
        let mut state = self.state.borrow_mut();
        state.check_writable()?;
        state.living(id)?;
        state.record_mut(id)?.modified = now;
        Ok(())
    }

    /// Gives something another name, or moves it to another folder.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Exists`], [`Error::InvalidName`], [`Error::TooMany`]; [`Error::Busy`] for a folder that would hold itself.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let mut state = self.state.borrow_mut();
        state.check_writable()?;
        let id = state.walk(from)?;
        let (folder, name) = state.split(to)?;
        if state.names.contains_key(&(folder, name.to_string())) {
            return Err(Error::Exists(to.to_string()));
        }
        let mut above = folder;
        while above != ROOT_FOLDER {
            if above == id {
                return Err(Error::Busy(from.to_string()));
            }
            above = state.object(above)?.record.parent;
        }
        if id == ROOT_FOLDER {
            return Err(Error::Busy("the topmost folder".to_string()));
        }
        let old = (state.object(id)?.record.parent, state.object(id)?.record.name.clone());
        state.rename_object(id, name)?;
        state.record_mut(id)?.parent = folder;
        state.names.remove(&old);
        state.names.insert((folder, name.to_string()), id);
        state.structural = true;
        Ok(())
    }

    /// Removes a file, an empty folder, or a disk with its snapshots; waits for writes that are under way. The name is gone at once; the space comes back
    /// by [`Store::reclaim`]. Clones of its snapshots keep what they share.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotEmpty`], [`Error::Busy`] for the topmost folder.
    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        let id = {
            let mut state = self.state.borrow_mut();
            state.check_writable()?;
            let id = state.walk(path)?;
            if id == ROOT_FOLDER {
                return Err(Error::Busy("the topmost folder".to_string()));
            }
            if state.object(id)?.record.kind == Kind::Folder {
                if state.names.range((id, String::new())..(id + 1, String::new())).next().is_some() {
                    return Err(Error::NotEmpty(path.to_string()));
                }
                let key = (state.object(id)?.record.parent, state.object(id)?.record.name.clone());
                state.names.remove(&key);
                state.remove_object(id);
                state.dirty.insert(id);
                state.structural = true;
                return Ok(());
            }
            id
        };
        let quiet = self.quiesce(id).await?;
        let mut state = self.state.borrow_mut();
        let snapshots: Vec<u32> = state
            .all()
            .filter(|(_, object)| object.record.kind == Kind::Snapshot && object.record.parent == id && !object.record.is(DYING))
            .map(|(id, _)| id)
            .collect();
        let key = (state.object(id)?.record.parent, state.object(id)?.record.name.clone());
        state.names.remove(&key);
        state.thick.remove(&id);
        for id in snapshots.into_iter().chain([id]) {
            let record = state.record_mut(id)?;
            record.flags |= DYING;
            record.parent = 0;
        }
        state.structural = true;
        drop(state);
        drop(quiet);
        Ok(())
    }

    /// How full the datastore is.
    pub fn usage(&self) -> Usage {
        let state = self.state.borrow();
        let block = BLOCK as u64;
        let size = state.superblock.blocks * block;
        let free = (state.space.free() + state.space.waiting().min(state.space.total())) * block;
        let available = state.available_to(0) * block;
        Usage {
            size,
            used: size.saturating_sub(free),
            free,
            available,
            reserved: state.reserved() * block,
            provisioned: state
                .all()
                .filter(|(_, object)| matches!(object.record.kind, Kind::Disk | Kind::File) && !object.record.is(DYING))
                .map(|(_, object)| object.record.size)
                .fold(0, u64::saturating_add),
            near_full: available < (size / 10).min(256 << 20),
        }
    }

    /// What the datastore is called, and the number that tells it apart.
    pub fn identity(&self) -> (String, [u8; 16]) {
        let state = self.state.borrow();
        (state.superblock.label.clone(), state.superblock.uuid)
    }
}

fn check_disk_size(size: u64) -> Result<(), Error> {
    if size == 0 || size > MAX_SIZE || !size.is_multiple_of(512) {
        return Err(Error::BadSize {
            size,
            why: "a disk has 512 bytes to 64 TiB, in multiples of 512",
        });
    }
    Ok(())
}
