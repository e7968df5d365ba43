//! The storage server: disks, datastores and what is in them. Long files go through memory that is shared with it.

use super::{LIST, error, unsupported};
use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::task::{Context, Poll};
use tessera_device::{DmaBuffer, platform};
use tessera_hostd::{
    host::{DeviceFacts, EntryFacts, EntryKind, Failure, FileSink, HostError, StoreFacts},
    http::{BodyError, BodySource},
};
use tessera_proto::{
    CallError, FailureKind, collect,
    datastore::{Client, DatastoreInfo, EntryInfo, EntryKind as Kind, NewDisk},
    storage,
};
use tessera_rt::{Connection, Endpoint, require, time};

/// Milliseconds that a disk may take.
const PATIENCE_MS: u64 = 30_000;
/// Name of the grant with the shared memory.
const BUFFER: &str = "buffer";
/// Bytes that are made safe at once: what is written again if the server ends meanwhile.
const SAFE: usize = 1 << 20;

fn connection() -> Connection {
    Connection::with_timeout(Endpoint::new(require("storage")), time::milliseconds(PATIENCE_MS))
}

/// The disks' client.
pub fn disks() -> Result<storage::Client<Connection>, CallError> {
    Ok(storage::Client(connection()))
}

/// The datastores' client.
pub fn client() -> Client<Connection> {
    Client(connection())
}

/// The disks.
pub fn devices() -> Result<Vec<DeviceFacts>, HostError> {
    let mut client = storage::Client(connection());
    let disks = collect(LIST, |first| client.disks(first)).map_err(|failure| error("the disks", failure))?;
    let fact = |disk: storage::DiskInfo| DeviceFacts {
        size: disk.sectors.saturating_mul(disk.sector_size.into()),
        name: disk.name,
        model: disk.model,
        kind: disk.driver,
        sector_size: disk.sector_size,
        health: match disk.state {
            storage::DiskState::Ready if disk.last_error.is_empty() => "green",
            storage::DiskState::Ready => "yellow",
            _ => "red",
        }
        .into(),
    };
    Ok(disks.into_iter().map(fact).collect())
}

/// The datastores.
pub fn stores() -> Result<Vec<StoreFacts>, HostError> {
    let mut client = client();
    let stores = collect(LIST, |first| client.list(first)).map_err(|failure| error("the datastores", failure))?;
    let fact = |store: DatastoreInfo| StoreFacts {
        name: store.name,
        device: store.disk,
        capacity: store.size,
        free: store.available,
        provisioned: store.provisioned,
        problem: store.trouble,
    };
    Ok(stores.into_iter().map(fact).collect())
}

fn entry(info: EntryInfo) -> Option<EntryFacts> {
    Some(EntryFacts {
        name: info.name,
        kind: match info.kind {
            Kind::Folder => EntryKind::Folder,
            Kind::File => EntryKind::File,
            Kind::Disk => EntryKind::Disk,
            Kind::Snapshot => return None,
        },
        size: info.size,
        allocated: info.used,
        modified_ms: info.modified.saturating_mul(1000),
    })
}

/// What is in a folder.
pub fn browse(store: &str, folder: &str) -> Result<Vec<EntryFacts>, HostError> {
    let mut client = client();
    let entries = collect(LIST, |first| client.browse(store, folder, first)).map_err(|failure| error(folder, failure))?;
    Ok(entries.into_iter().filter_map(entry).collect())
}

/// What is known of something.
pub fn stat(store: &str, path: &str) -> Result<EntryFacts, HostError> {
    let info = client().stat(store, path).map_err(|failure| error(path, failure))?;
    entry(info).ok_or_else(|| super::not_found("file", path))
}

/// Does something of which only success is told.
pub fn act(path: &str, act: impl FnOnce(&mut Client<Connection>) -> Result<(), CallError>) -> Result<(), HostError> {
    act(&mut client()).map_err(|failure| error(path, failure))
}

/// Makes a datastore on a whole disk.
pub fn create(device: &str, name: &str) -> Result<(), HostError> {
    act(device, |client| client.format(device, 0, name))
}

/// Makes a virtual disk.
pub fn create_disk(store: &str, path: &str, size: u64, thick: bool) -> Result<(), HostError> {
    let options = NewDisk {
        size,
        thick,
        ..NewDisk::default()
    };
    act(path, |client| client.create_disk(store, path, options))
}

/// The memory that is shared with the storage server, mapped once.
#[derive(Clone)]
pub struct Buffer(Option<DmaBuffer>);

impl Buffer {
    /// Maps it.
    pub fn map() -> Self {
        Self(platform::shared(BUFFER))
    }

    fn memory(&self) -> Result<&DmaBuffer, HostError> {
        self.0.as_ref().ok_or_else(|| {
            unsupported("hostd shares no memory with the storage server: grant it `buffer = { share = \"storage + 256 KiB\" }`")
        })
    }
}

/// A file being read.
struct Reading {
    buffer: DmaBuffer,
    store: String,
    path: String,
    offset: u64,
    left: u64,
}

impl BodySource for Reading {
    fn length(&self) -> Option<u64> {
        Some(self.left)
    }

    fn poll_read(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, BodyError>> {
        let most = self.left.min(self.buffer.length() as u64).min(buffer.len() as u64) as u32;
        if most == 0 {
            return Poll::Ready(Ok(0));
        }
        Poll::Ready(match client().fetch(&self.store, &self.path, self.offset, most, 0) {
            Ok(count) if count > 0 && count <= most => {
                self.buffer.copy_out(0, &mut buffer[..count as usize]);
                self.offset += u64::from(count);
                self.left -= u64::from(count);
                Ok(count as usize)
            }
            _ => Err(BodyError::Source),
        })
    }
}

/// Reads a file from `offset` on.
pub fn read(buffer: &Buffer, store: &str, path: &str, offset: u64, length: Option<u64>) -> Result<Box<dyn BodySource>, HostError> {
    let size = stat(store, path)?.size;
    let left = size.saturating_sub(offset);
    Ok(Box::new(Reading {
        buffer: buffer.memory()?.clone(),
        store: store.into(),
        path: path.into(),
        offset,
        left: length.map_or(left, |length| length.min(left)),
    }))
}

/// A file being written. What is not safe yet is kept, so that it can be written again when the storage server ends.
struct Writing {
    buffer: DmaBuffer,
    store: String,
    path: String,
    /// Where they begin.
    offset: u64,
    pending: Vec<u8>,
}

impl Writing {
    fn put(&self) -> Result<(), CallError> {
        loop {
            let mut life = None;
            for (number, part) in self.pending.chunks(self.buffer.length()).enumerate() {
                self.buffer.copy_in(0, part);
                let offset = self.offset + (number * self.buffer.length()) as u64;
                let now = client().put(&self.store, &self.path, offset, part.len() as u32, 0)?;
                // Parts that went to different lives of the server are all written again.
                if *life.get_or_insert(now) != now {
                    life = Some(0);
                }
            }
            let Some(life) = life else { return Ok(()) };
            match client().sync(&self.store, life) {
                Err(CallError::Failed(failure)) if failure.kind == FailureKind::BadState => {}
                other => return other,
            }
        }
    }

    fn make_safe(&mut self) -> Result<(), HostError> {
        self.put().map_err(|failure| error(&self.path, failure))?;
        self.offset += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

impl FileSink for Writing {
    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, HostError>> {
        let count = bytes.len().min(SAFE - self.pending.len());
        self.pending.extend_from_slice(&bytes[..count]);
        if self.pending.len() == SAFE
            && let Err(failure) = self.make_safe()
        {
            return Poll::Ready(Err(failure));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_sync(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HostError>> {
        Poll::Ready(self.make_safe())
    }
}

/// Writes a file from `offset` on; one that is not there is made.
pub fn write(buffer: &Buffer, store: &str, path: &str, offset: u64) -> Result<Box<dyn FileSink>, HostError> {
    match stat(store, path) {
        Ok(entry) if entry.kind == EntryKind::Folder => {
            return Err(HostError::new(Failure::Invalid, format!("{path} is a folder")));
        }
        Ok(entry) if entry.size < offset => {
            let text = format!("{path} has {} bytes: go on from there", entry.size);
            return Err(HostError::new(Failure::Invalid, text));
        }
        Ok(_) => {}
        Err(failure) if failure.failure == Failure::NotFound => act(path, |client| client.create_file(store, path))?,
        Err(failure) => return Err(failure),
    }
    Ok(Box::new(Writing {
        buffer: buffer.memory()?.clone(),
        store: store.to_string(),
        path: path.to_string(),
        offset,
        pending: Vec::new(),
    }))
}
