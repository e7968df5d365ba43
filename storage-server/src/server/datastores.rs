//! What is answered about datastores.

use super::answers::{Answers, Later};
use alloc::{format, rc::Rc, string::String, vec, vec::Vec};
use tessera_block::IoError;
use tessera_datastore::{DiskOptions, Error, FormatOptions, Info, Kind, Store};
use tessera_proto::{
    Call, Failure, FailureKind, MAX_MESSAGE, Page,
    datastore::{ChangedRanges, DatastoreInfo, EntryInfo, EntryKind, FileData, MAX_DATA, MAX_RANGES, NewDisk},
};
use tessera_rt::{start, time};
use tessera_storage::stores::{Datastore, Stores, Volume};

/// Bytes of shared memory that are copied at once.
const CHUNK: usize = 128 << 10;
/// More entries of a folder than go into an answer.
const PAGE: usize = MAX_MESSAGE / 8;

pub(super) type Mounted = Rc<Store<Volume>>;

/// The number of this life of the server.
fn life() -> u64 {
    u64::from(start::start_info().restarts) + 1
}

pub(super) fn trouble(error: Error) -> Failure {
    let kind = match &error {
        Error::NotFound(_) | Error::NotADatastore | Error::Io { error: IoError::Gone, .. } => FailureKind::NotFound,
        Error::NoSpace { .. } | Error::TooMany | Error::InUse { .. } => FailureKind::Exhausted,
        Error::Exists(_) | Error::NotEmpty(_) | Error::Busy(_) | Error::Failed | Error::ChangeUnknown { .. } => FailureKind::BadState,
        Error::ReadOnly => FailureKind::NotAllowed,
        Error::Version(_) => FailureKind::Unsupported,
        Error::InvalidName(_) | Error::WrongKind { .. } | Error::OutOfRange { .. } | Error::Misaligned { .. } | Error::BadSize { .. } => {
            FailureKind::BadRequest
        }
        _ => FailureKind::Internal,
    };
    Failure::new(kind, error)
}

fn entry(info: Info) -> EntryInfo {
    EntryInfo {
        id: info.id,
        kind: match info.kind {
            Kind::Folder => EntryKind::Folder,
            Kind::File => EntryKind::File,
            Kind::Disk => EntryKind::Disk,
            Kind::Snapshot => EntryKind::Snapshot,
        },
        name: info.name,
        size: info.size,
        used: info.used,
        shared: info.shared,
        thick: info.thick,
        checksums: info.checksums,
        modified: info.modified,
        origin: info.origin,
    }
}

fn describe(store: &Datastore) -> DatastoreInfo {
    let usage = store.store.as_ref().ok().map(|store| store.usage());
    let amount = |of: fn(&tessera_datastore::Usage) -> u64| usage.as_ref().map_or(0, of);
    DatastoreInfo {
        name: store.name.clone(),
        disk: store.disk.name().into(),
        partition: store.partition,
        size: amount(|usage| usage.size),
        used: amount(|usage| usage.used),
        available: amount(|usage| usage.available),
        reserved: amount(|usage| usage.reserved),
        provisioned: amount(|usage| usage.provisioned),
        near_full: usage.is_some_and(|usage| usage.near_full),
        trouble: match &store.store {
            Err(trouble) => trouble.clone(),
            Ok(_) if !store.disk.is_there() => "its disk is gone".into(),
            Ok(_) => String::new(),
        },
    }
}

/// Fills a page with what stands from `first` on.
fn page(items: Vec<Info>, first: u32) -> Page<EntryInfo> {
    Page::fill((first..).zip(items.into_iter().map(entry)))
}

/// Seconds since 1970.
pub(super) fn seconds() -> u64 {
    time::wall_clock(time::now()).unwrap_or(0)
}

/// A number that no other disk has, as good as can be had without a source of randomness: the time, in ticks and in seconds, mixed.
pub(super) fn unique() -> [u8; 16] {
    let mix = |value: u64| {
        // The finaliser of MurmurHash3, which spreads each bit over all.
        let value = (value ^ value >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let value = (value ^ value >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        value ^ value >> 33
    };
    let (ticks, seconds) = (time::now(), seconds());
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix(ticks ^ seconds << 20).to_le_bytes());
    bytes[8..].copy_from_slice(&mix(seconds ^ ticks.rotate_left(32)).to_le_bytes());
    // Version 4, variant 1 (RFC 9562, 5.4).
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

fn snapshot(store: &Mounted, disk: u32, name: &str) -> Result<u32, Failure> {
    let all = store.snapshots(disk).map_err(trouble)?;
    let found = all.iter().find(|snapshot| snapshot.name == name);
    found
        .map(|snapshot| snapshot.id)
        .ok_or_else(|| Failure::new(FailureKind::NotFound, format_args!("the disk has no snapshot `{name}`")))
}

impl Answers {
    fn datastore(&self, name: &str) -> Result<Rc<Datastore>, Failure> {
        self.stores().named(name).ok_or_else(|| {
            Failure::new(
                FailureKind::NotFound,
                format_args!("there is no datastore `{name}`: `datastore list` shows all"),
            )
        })
    }

    pub(super) fn mounted(&self, name: &str) -> Result<Mounted, Failure> {
        let found = self.datastore(name)?;
        let store = found.store.clone();
        store.map_err(|trouble| Failure::new(FailureKind::BadState, format_args!("datastore {name}: {trouble}")))
    }

    /// The store and a disk in it.
    pub(super) fn virtual_disk(&self, store: &str, path: &str) -> Result<(Mounted, Info), Failure> {
        let store = self.mounted(store)?;
        let info = store.lookup(path).map_err(trouble)?;
        Ok((store, info))
    }

    fn not_in_use(&self, store: &str, path: &str) -> Result<(), Failure> {
        match self.guests().user_of(store, path) {
            None => Ok(()),
            Some(machine) => Err(Failure::new(
                FailureKind::BadState,
                format_args!("{path} is in use by the virtual machine {machine}: stop it first"),
            )),
        }
    }

    /// Answers when what was changed is safe.
    fn when_safe(&self, call: &mut Call, store: Mounted, tidy: Option<Rc<Datastore>>) -> Later<()> {
        let stores: Rc<Stores> = self.stores().clone();
        self.later(call, async move {
            store.flush().await.map_err(trouble)?;
            if let Some(datastore) = tidy {
                stores.tidy(&datastore);
            }
            Ok(())
        })
    }
}

impl tessera_proto::datastore::Server for &Answers {
    fn list(&mut self, _call: &mut Call, first: u32) -> Result<Page<DatastoreInfo>, Failure> {
        let all = self.stores().all();
        Ok(Page::fill((0..).zip(all.iter().map(|store| describe(store))).skip(first as usize)))
    }

    fn browse(&mut self, _call: &mut Call, store: &str, folder: &str, first: u32) -> Result<Page<EntryInfo>, Failure> {
        let part = self.mounted(store)?.list_part(folder, first as usize, PAGE).map_err(trouble)?;
        Ok(page(part, first))
    }

    fn stat(&mut self, _call: &mut Call, store: &str, path: &str) -> Result<EntryInfo, Failure> {
        Ok(entry(self.virtual_disk(store, path)?.1))
    }

    fn create_folder(&mut self, call: &mut Call, store: &str, path: &str) -> Result<(), Failure> {
        let store = self.mounted(store)?;
        store.create_folder(path, seconds()).map_err(trouble)?;
        self.when_safe(call, store, None)
    }

    fn create_file(&mut self, call: &mut Call, store: &str, path: &str) -> Result<(), Failure> {
        let store = self.mounted(store)?;
        store.create_file(path, seconds()).map_err(trouble)?;
        self.when_safe(call, store, None)
    }

    fn create_disk(&mut self, call: &mut Call, store: &str, path: &str, options: NewDisk) -> Result<(), Failure> {
        let store = self.mounted(store)?;
        let options = DiskOptions {
            size: options.size,
            thick: options.thick,
            checksums: options.checksums,
            uuid: unique(),
            now: seconds(),
        };
        store.create_disk(path, &options).map_err(trouble)?;
        self.when_safe(call, store, None)
    }

    fn grow_disk(&mut self, call: &mut Call, store: &str, path: &str, size: u64) -> Result<(), Failure> {
        let (mounted, info) = self.virtual_disk(store, path)?;
        let (guests, store, path) = (self.guests().clone(), String::from(store), String::from(path));
        self.later(call, async move {
            mounted.grow_disk(info.id, size).await.map_err(trouble)?;
            mounted.flush().await.map_err(trouble)?;
            guests.resized(&store, &path);
            Ok(())
        })
    }

    fn rename(&mut self, call: &mut Call, store: &str, from: &str, to: &str) -> Result<(), Failure> {
        self.not_in_use(store, from)?;
        let store = self.mounted(store)?;
        store.rename(from, to).map_err(trouble)?;
        self.when_safe(call, store, None)
    }

    fn remove(&mut self, call: &mut Call, store: &str, path: &str) -> Result<(), Failure> {
        self.not_in_use(store, path)?;
        let (mounted, datastore) = (self.mounted(store)?, self.datastore(store)?);
        let (path, stores) = (String::from(path), self.stores().clone());
        self.later(call, async move {
            mounted.remove(&path).await.map_err(trouble)?;
            mounted.flush().await.map_err(trouble)?;
            stores.tidy(&datastore);
            Ok(())
        })
    }

    fn read(&mut self, call: &mut Call, store: &str, path: &str, offset: u64, length: u32) -> Result<FileData, Failure> {
        let (store, info) = self.virtual_disk(store, path)?;
        let length = u64::from(length).min(MAX_DATA as u64).min(info.size.saturating_sub(offset));
        self.later(call, async move {
            let mut data = vec![0; length as usize];
            store.read(info.id, offset, &mut data).await.map_err(trouble)?;
            Ok(FileData { data })
        })
    }

    fn write(&mut self, call: &mut Call, store: &str, path: &str, offset: u64, data: &[u8]) -> Result<u64, Failure> {
        self.not_in_use(store, path)?;
        let (store, info) = self.virtual_disk(store, path)?;
        if data.len() > MAX_DATA {
            return Err(FailureKind::BadRequest.into());
        }
        let end = offset
            .checked_add(data.len() as u64)
            .ok_or(Failure::from(FailureKind::BadRequest))?;
        let data = data.to_vec();
        self.later(call, async move {
            if info.kind == Kind::File && end > info.size {
                store.set_file_size(info.id, end).await.map_err(trouble)?;
            }
            store.write(info.id, offset, &data).await.map_err(trouble)?;
            store.set_modified(info.id, seconds()).map_err(trouble)?;
            Ok(life())
        })
    }

    fn fetch(&mut self, call: &mut Call, store: &str, path: &str, offset: u64, length: u32, at: u32) -> Result<u32, Failure> {
        let (store, info) = self.virtual_disk(store, path)?;
        let length = info.size.saturating_sub(offset).min(length.into()) as u32;
        let buffer = self.buffers().part(call, at, length)?;
        self.later(call, async move {
            let mut chunk = vec![0; CHUNK.min(length as usize)];
            let mut done = 0;
            while done < length as usize {
                let part = &mut chunk[..CHUNK.min(length as usize - done)];
                store.read(info.id, offset + done as u64, part).await.map_err(trouble)?;
                buffer.copy_in(done, part);
                done += part.len();
            }
            Ok(length)
        })
    }

    fn put(&mut self, call: &mut Call, store: &str, path: &str, offset: u64, length: u32, at: u32) -> Result<u64, Failure> {
        self.not_in_use(store, path)?;
        let (store, info) = self.virtual_disk(store, path)?;
        let end = offset.checked_add(length.into()).ok_or(Failure::from(FailureKind::BadRequest))?;
        let buffer = self.buffers().part(call, at, length)?;
        self.later(call, async move {
            if info.kind == Kind::File && end > info.size {
                store.set_file_size(info.id, end).await.map_err(trouble)?;
            }
            let mut chunk = vec![0; CHUNK.min(length as usize)];
            let mut done = 0;
            while done < length as usize {
                let part = &mut chunk[..CHUNK.min(length as usize - done)];
                buffer.copy_out(done, part);
                store.write(info.id, offset + done as u64, part).await.map_err(trouble)?;
                done += part.len();
            }
            store.set_modified(info.id, seconds()).map_err(trouble)?;
            Ok(life())
        })
    }

    fn sync(&mut self, call: &mut Call, store: &str, wanted: u64) -> Result<(), Failure> {
        if wanted != life() {
            let text = "the storage server was restarted since: write again what was not safe yet";
            return Err(Failure::new(FailureKind::BadState, text));
        }
        let store = self.mounted(store)?;
        self.when_safe(call, store, None)
    }

    fn snapshots(&mut self, _call: &mut Call, store: &str, disk: &str, first: u32) -> Result<Page<EntryInfo>, Failure> {
        let (store, info) = self.virtual_disk(store, disk)?;
        let all = store.snapshots(info.id).map_err(trouble)?;
        Ok(page(all.into_iter().skip(first as usize).collect(), first))
    }

    fn create_snapshot(&mut self, call: &mut Call, store: &str, disk: &str, name: &str) -> Result<(), Failure> {
        let (store, info) = self.virtual_disk(store, disk)?;
        if store.snapshots(info.id).map_err(trouble)?.iter().any(|known| known.name == name) {
            return Err(trouble(Error::Exists(name.into())));
        }
        let name = String::from(name);
        self.later(call, async move {
            store.create_snapshot(info.id, &name, seconds()).await.map_err(trouble)?;
            Ok(())
        })
    }

    fn remove_snapshot(&mut self, call: &mut Call, store: &str, disk: &str, name: &str) -> Result<(), Failure> {
        let datastore = self.datastore(store)?;
        let (store, info) = self.virtual_disk(store, disk)?;
        let id = snapshot(&store, info.id, name)?;
        store.remove_snapshot(id).map_err(trouble)?;
        self.when_safe(call, store, Some(datastore))
    }

    fn revert(&mut self, call: &mut Call, store: &str, disk: &str, name: &str) -> Result<(), Failure> {
        self.not_in_use(store, disk)?;
        let datastore = self.datastore(store)?;
        let (store, info) = self.virtual_disk(store, disk)?;
        let id = snapshot(&store, info.id, name)?;
        let stores = self.stores().clone();
        self.later(call, async move {
            store.revert(info.id, id).await.map_err(trouble)?;
            stores.tidy(&datastore);
            Ok(())
        })
    }

    fn clone_snapshot(&mut self, call: &mut Call, store: &str, disk: &str, name: &str, path: &str) -> Result<(), Failure> {
        let (store, info) = self.virtual_disk(store, disk)?;
        let id = snapshot(&store, info.id, name)?;
        store.clone_snapshot(id, path, unique(), seconds()).map_err(trouble)?;
        self.when_safe(call, store, None)
    }

    fn change_id(&mut self, call: &mut Call, store: &str, disk: &str) -> Result<u64, Failure> {
        let (store, info) = self.virtual_disk(store, disk)?;
        self.later(call, async move { store.change_id(info.id).await.map_err(trouble) })
    }

    fn changed(&mut self, call: &mut Call, store: &str, disk: &str, since: u64, from: u64) -> Result<ChangedRanges, Failure> {
        let (store, info) = self.virtual_disk(store, disk)?;
        self.later(call, async move {
            let changes = store.changes_since(info.id, since, from).await.map_err(trouble)?;
            let cut = changes.ranges.get(MAX_RANGES).map(|range| range.start);
            Ok(ChangedRanges {
                ranges: changes
                    .ranges
                    .iter()
                    .take(MAX_RANGES)
                    .map(|range| (range.start, range.end - range.start))
                    .collect(),
                next: cut.or(changes.next),
            })
        })
    }

    fn format(&mut self, call: &mut Call, disk: &str, partition: u32, label: &str) -> Result<(), Failure> {
        let disk = self.disk(disk)?;
        if let Some(machine) = self.guests().user_of_device(disk.name()) {
            let text = format!("{} is in use by the virtual machine {machine}: stop it first", disk.name());
            return Err(Failure::new(FailureKind::BadState, text));
        }
        let options = FormatOptions {
            uuid: unique(),
            label: label.into(),
            now: seconds(),
            ..FormatOptions::default()
        };
        let stores = self.stores().clone();
        self.later(call, async move {
            stores
                .format(&disk, partition, options)
                .await
                .map_err(|text| Failure::new(FailureKind::BadState, text))
        })
    }
}
