//! The storage server: drives, datastores and what is in them.
//!
//! Bytes of files and disks go through memory that hostd shares with it. There is one such memory, and a call is over before the next begins, so that any number of
//! files can be open.

use super::{Answer, LIST, failed, server};
use alloc::{
    boxed::Box,
    format,
    rc::Rc,
    string::{String, ToString},
    vec::Vec,
};
use core::task::{Context, Poll};
use tessera_device::{dma::DmaBuffer, platform};
use tessera_hostd::{
    future::LocalFuture,
    host::{DeviceFacts, EntryFacts, EntryKind, Failure, FileSink, HostError, StoreFacts},
    http::{BodyError, BodySource},
    platform::Platform,
};
use tessera_proto::{
    CallError, FailureKind, collect,
    datastore::{self, Client, DatastoreInfo, EntryInfo, MAX_DATA, NewDisk},
    storage::{self, DiskInfo, DiskState, GuestDiskStatistics},
};
use tessera_rt::{Connection, abi::Error};

/// How long it may take: as long as a disk, with a reset in between.
const PATIENCE: u64 = 120_000;
/// Most bytes of one read or write: what else hostd does waits for it.
const CHUNK: usize = 64 << 10;
/// Most bytes of an upload that may not be safe yet. They are kept, to be written again if the storage server is started again.
const UNSAFE: usize = 256 << 10;
/// How often to try again while the server is started again, and after how many milliseconds.
const TRIES: u32 = 50;
const INTERVAL: u64 = 200;
/// How often in one `sync` what the server lost is written again.
const REWRITES: u32 = 5;

fn client() -> Answer<Client<Connection>> {
    Ok(Client(server("storage", PATIENCE)?))
}

fn drives() -> Answer<storage::Client<Connection>> {
    Ok(storage::Client(server("storage", PATIENCE)?))
}

/// The server ended before it answered, and is being started again.
pub const fn is_passing(error: &CallError) -> bool {
    matches!(error, CallError::Kernel(Error::ServerDied))
}

pub fn is_bad_state(error: &CallError) -> bool {
    matches!(error, CallError::Failed(failure) if failure.kind == FailureKind::BadState)
}

fn no_grant() -> CallError {
    CallError::Kernel(Error::BadSlot)
}

/// Files of datastores.
pub struct Files {
    shared: Option<DmaBuffer>,
}

impl Files {
    /// The storage server.
    ///
    /// # Errors
    /// The manifest does not grant it.
    pub fn connect() -> Result<Client<Connection>, CallError> {
        client().map_err(|_| no_grant())
    }

    /// Most bytes of one call.
    fn most(&self) -> usize {
        self.shared.as_ref().map_or(MAX_DATA, |shared| shared.length().min(CHUNK))
    }

    /// Reads some bytes of a file or disk from `offset` on; 0: the end.
    ///
    /// # Errors
    /// What the storage server says.
    pub fn read(&self, store: &str, path: &str, offset: u64, bytes: &mut [u8]) -> Result<usize, CallError> {
        let wanted = bytes.len().min(self.most());
        let Some(bytes) = bytes.get_mut(..wanted) else { return Ok(0) };
        let mut client = Self::connect()?;
        if let Some(shared) = &self.shared {
            let count = (client.fetch(store, path, offset, wanted as u32, 0)? as usize).min(wanted);
            shared.copy_out(0, bytes.get_mut(..count).unwrap_or_default());
            return Ok(count);
        }
        let answer = client.read(store, path, offset, wanted as u32)?.data;
        let count = answer.len().min(wanted);
        for (to, from) in bytes.iter_mut().zip(&answer) {
            *to = *from;
        }
        Ok(count)
    }

    /// Writes some bytes of a file from `offset` on: how many, and the number of the server's life, for [`Self::sync`].
    ///
    /// # Errors
    /// What the storage server says.
    pub fn write(&self, store: &str, path: &str, offset: u64, bytes: &[u8]) -> Result<(usize, u64), CallError> {
        let bytes = bytes.get(..self.most()).unwrap_or(bytes);
        let mut client = Self::connect()?;
        let life = if let Some(shared) = &self.shared {
            shared.copy_in(0, bytes);
            client.put(store, path, offset, bytes.len() as u32, 0)?
        } else {
            client.write(store, path, offset, bytes)?
        };
        Ok((bytes.len(), life))
    }

    /// Makes safe what was written in life `life` of the server. `BadState`: it is over, write again.
    ///
    /// # Errors
    /// What the storage server says.
    pub fn sync(&self, store: &str, life: u64) -> Result<(), CallError> {
        Self::connect()?.sync(store, life)
    }
}

/// Tries again while the storage server is started again.
struct Patience {
    platform: Rc<dyn Platform>,
    sleep: Option<LocalFuture<'static, ()>>,
    left: u32,
}

impl Patience {
    fn new(platform: Rc<dyn Platform>) -> Self {
        Self {
            platform,
            sleep: None,
            left: TRIES,
        }
    }

    fn waits(&mut self, context: &mut Context<'_>) -> bool {
        let waits = self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(context).is_pending());
        if !waits {
            self.sleep = None;
        }
        waits
    }

    /// `None`: try again later, the task is woken then.
    fn outcome<T>(&mut self, context: &mut Context<'_>, outcome: Result<T, CallError>) -> Option<Result<T, CallError>> {
        if outcome.as_ref().err().is_some_and(is_passing) && self.left > 0 {
            self.left -= 1;
            self.sleep = Some(self.platform.sleep(INTERVAL));
            if !self.waits(context) {
                context.waker().wake_by_ref();
            }
            return None;
        }
        if outcome.is_ok() {
            self.left = TRIES;
        }
        Some(outcome)
    }
}

/// A file or disk being read.
struct Reader {
    files: Rc<Files>,
    store: String,
    path: String,
    at: u64,
    end: u64,
    length: u64,
    patience: Patience,
}

impl BodySource for Reader {
    fn length(&self) -> Option<u64> {
        Some(self.length)
    }

    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, BodyError>> {
        let count = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        if count == 0 {
            return Poll::Ready(Ok(0));
        }
        if self.patience.waits(context) {
            return Poll::Pending;
        }
        let buffer = buffer.get_mut(..count).unwrap_or_default();
        let outcome = self.files.read(&self.store, &self.path, self.at, buffer);
        match self.patience.outcome(context, outcome) {
            None => Poll::Pending,
            // It became shorter: the promised length cannot be kept.
            Some(Ok(0) | Err(_)) => Poll::Ready(Err(BodyError::Source)),
            Some(Ok(count)) => {
                self.at += count as u64;
                Poll::Ready(Ok(count))
            }
        }
    }
}

/// A file being written.
struct Writer {
    files: Rc<Files>,
    store: String,
    path: String,
    /// Everything before is safe.
    safe: u64,
    /// What comes then and was written in life `life`, but may not be safe.
    kept: Vec<u8>,
    life: Option<u64>,
    patience: Patience,
}

impl Writer {
    fn trouble(&self, error: &CallError) -> HostError {
        failed(&format!("[{}] {} cannot be written", self.store, self.path), error)
    }

    /// Writes again what is kept, all in one life of the server.
    fn rewrite(&mut self) -> Result<(), CallError> {
        for _ in 0..REWRITES {
            let (mut done, mut life, mut whole) = (0, None, true);
            while let Some(rest) = self.kept.get(done..).filter(|rest| !rest.is_empty()) {
                let (count, of) = self.files.write(&self.store, &self.path, self.safe + done as u64, rest)?;
                done += count;
                whole &= *life.get_or_insert(of) == of;
            }
            if whole {
                self.life = life;
                return Ok(());
            }
        }
        // It is started again and again.
        Err(CallError::Kernel(Error::ServerDied))
    }

    fn sync(&mut self) -> Result<(), CallError> {
        let mut again = 0;
        while let Some(life) = self.life {
            match self.files.sync(&self.store, life) {
                Ok(()) => {
                    self.safe += self.kept.len() as u64;
                    self.kept.clear();
                    self.life = None;
                }
                Err(error) if is_bad_state(&error) && again < REWRITES => {
                    again += 1;
                    self.rewrite()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, CallError> {
        if self.kept.len() >= UNSAFE {
            self.sync()?;
        }
        let room = UNSAFE - self.kept.len();
        let bytes = bytes.get(..room).unwrap_or(bytes);
        let at = self.safe + self.kept.len() as u64;
        let (count, life) = self.files.write(&self.store, &self.path, at, bytes)?;
        self.kept.extend_from_slice(bytes.get(..count).unwrap_or(bytes));
        // The first one counts: if the server was started again since, `sync` says so, and all is written again.
        self.life.get_or_insert(life);
        Ok(count)
    }
}

impl FileSink for Writer {
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, HostError>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.patience.waits(context) {
            return Poll::Pending;
        }
        let outcome = self.write(bytes);
        match self.patience.outcome(context, outcome) {
            None => Poll::Pending,
            Some(outcome) => Poll::Ready(outcome.map_err(|error| self.trouble(&error))),
        }
    }

    fn poll_sync(&mut self, context: &mut Context<'_>) -> Poll<Result<(), HostError>> {
        if self.patience.waits(context) {
            return Poll::Pending;
        }
        let outcome = self.sync();
        match self.patience.outcome(context, outcome) {
            None => Poll::Pending,
            Some(outcome) => Poll::Ready(outcome.map_err(|error| self.trouble(&error))),
        }
    }
}

fn store_facts(info: DatastoreInfo) -> StoreFacts {
    StoreFacts {
        name: info.name,
        device: match info.partition {
            0 => info.disk,
            partition => format!("{}:{partition}", info.disk),
        },
        capacity: info.size,
        free: info.available,
        provisioned: info.provisioned,
        problem: info.trouble,
    }
}

fn entry_facts(info: EntryInfo) -> EntryFacts {
    EntryFacts {
        name: info.name,
        kind: match info.kind {
            datastore::EntryKind::Folder => EntryKind::Folder,
            datastore::EntryKind::File => EntryKind::File,
            datastore::EntryKind::Disk | datastore::EntryKind::Snapshot => EntryKind::Disk,
        },
        size: info.size,
        allocated: info.used,
        modified_ms: info.modified.saturating_mul(1000),
    }
}

fn health(disk: &DiskInfo) -> &'static str {
    match disk.state {
        DiskState::Failed | DiskState::Gone => "red",
        DiskState::Ready if disk.health.failing == Some(true) => "red",
        DiskState::Ready if disk.statistics.errors > 0 => "yellow",
        DiskState::Ready => "green",
        DiskState::Resetting => "yellow",
        DiskState::Empty => "gray",
    }
}

fn device_facts(disk: DiskInfo) -> DeviceFacts {
    DeviceFacts {
        health: health(&disk).into(),
        size: disk.sectors.saturating_mul(disk.sector_size.into()),
        name: disk.name,
        model: disk.model,
        kind: disk.driver,
        sector_size: disk.sector_size,
    }
}

/// What a drive tells of its condition; empty: nothing.
fn condition(disk: &DiskInfo) -> String {
    let told = [
        disk.health.temperature.map(|degrees| format!("{degrees} °C")),
        disk.health.used_percent.map(|percent| format!("{percent} % used")),
        disk.health.power_on_hours.map(|hours| format!("{hours} h")),
        disk.health
            .failing
            .filter(|failing| *failing)
            .map(|_| "warns of its failure".to_string()),
        Some(disk.last_error.clone()).filter(|error| !error.is_empty()),
    ];
    told.into_iter().flatten().collect::<Vec<String>>().join(", ")
}

/// The storage server.
pub struct Stores {
    files: Rc<Files>,
    platform: Rc<dyn Platform>,
}

impl Stores {
    pub fn new(platform: Rc<dyn Platform>) -> Self {
        let files = Files {
            shared: platform::shared("buffer"),
        };
        Self {
            files: Rc::new(files),
            platform,
        }
    }

    pub fn files(&self) -> Rc<Files> {
        self.files.clone()
    }

    fn disks(&self) -> Answer<Vec<DiskInfo>> {
        let mut client = drives()?;
        collect(LIST, |first| client.disks(first)).map_err(|error| failed("The drives cannot be listed", &error))
    }

    pub fn devices(&self) -> Answer<Vec<DeviceFacts>> {
        Ok(self.disks()?.into_iter().map(device_facts).collect())
    }

    /// Name, condition and health of each drive.
    pub fn sensors(&self) -> Answer<Vec<(String, String, String)>> {
        let sensor = |disk: &DiskInfo| (disk.name.clone(), condition(disk), health(disk).to_string());
        Ok(self.disks()?.iter().map(sensor).collect())
    }

    /// Bytes read and written by all drives.
    pub fn transferred(&self) -> Answer<(u64, u64)> {
        let sum = |(read, written): (u64, u64), disk: &DiskInfo| {
            let counted = &disk.statistics;
            (
                read.saturating_add(counted.read_bytes),
                written.saturating_add(counted.written_bytes),
            )
        };
        Ok(self.disks()?.iter().fold((0, 0), sum))
    }

    /// What machines did with their disks.
    pub fn guest_disks(&self) -> Answer<Vec<GuestDiskStatistics>> {
        let mut client = drives()?;
        collect(LIST, |first| client.guest_disks(first)).map_err(|error| failed("The machines' disks cannot be listed", &error))
    }

    pub fn list(&self) -> Answer<Vec<StoreFacts>> {
        let mut client = client()?;
        let all = collect(LIST, |first| client.list(first)).map_err(|error| failed("The datastores cannot be listed", &error))?;
        Ok(all.into_iter().map(store_facts).collect())
    }

    pub fn create_store(&self, device: &str, name: &str) -> Answer<()> {
        if self.list()?.iter().any(|store| store.name == name) {
            return Err(HostError::new(Failure::Exists, format!("There is a datastore {name} already")));
        }
        client()?
            .format(device, 0, name)
            .map_err(|error| failed(&format!("Datastore {name} was not made on {device}"), &error))
    }

    pub fn browse(&self, store: &str, folder: &str) -> Answer<Vec<EntryFacts>> {
        let mut client = client()?;
        let all = collect(LIST, |first| client.browse(store, folder, first))
            .map_err(|error| failed(&format!("[{store}] {folder} cannot be listed"), &error))?;
        // hostd's own is nobody's to see.
        let all = all
            .into_iter()
            .filter(|info| !folder.is_empty() || info.name != super::state::FOLDER);
        Ok(all.map(entry_facts).collect())
    }

    pub fn stat(&self, store: &str, path: &str) -> Answer<EntryFacts> {
        let info = client()?.stat(store, path);
        info.map(entry_facts)
            .map_err(|error| failed(&format!("[{store}] {path} cannot be looked at"), &error))
    }

    /// Changes what is at `path`.
    pub fn change(&self, store: &str, path: &str, order: impl FnOnce(&mut Client<Connection>) -> Result<(), CallError>) -> Answer<()> {
        order(&mut client()?).map_err(|error| failed(&format!("[{store}] {path} was not changed"), &error))
    }

    /// Makes something at `path`, where nothing is yet.
    pub fn make(&self, store: &str, path: &str, order: impl FnOnce(&mut Client<Connection>) -> Result<(), CallError>) -> Answer<()> {
        let mut client = client()?;
        let Err(error) = order(&mut client) else { return Ok(()) };
        if is_bad_state(&error) && client.stat(store, path).is_ok() {
            return Err(HostError::new(Failure::Exists, format!("There is [{store}] {path} already")));
        }
        Err(failed(&format!("[{store}] {path} was not made"), &error))
    }

    pub fn create_disk(&self, store: &str, path: &str, size: u64, thick: bool) -> Answer<()> {
        let options = NewDisk {
            size,
            thick,
            checksums: false,
        };
        self.make(store, path, |stores| stores.create_disk(store, path, options))
    }

    pub fn read_file(&self, store: &str, path: &str, offset: u64, length: Option<u64>) -> Answer<Box<dyn BodySource>> {
        let entry = self.stat(store, path)?;
        if entry.kind == EntryKind::Folder {
            return Err(HostError::new(Failure::Invalid, format!("[{store}] {path} is a folder")));
        }
        let end = length.map_or(entry.size, |length| entry.size.min(offset.saturating_add(length)));
        let at = offset.min(end);
        Ok(Box::new(Reader {
            files: self.files(),
            store: store.into(),
            path: path.into(),
            at,
            end,
            length: end - at,
            patience: Patience::new(self.platform.clone()),
        }))
    }

    pub fn write_file(&self, store: &str, path: &str, offset: u64) -> Answer<Box<dyn FileSink>> {
        let mut client = client()?;
        let trouble = |error| failed(&format!("[{store}] {path} cannot be written"), &error);
        match client.stat(store, path) {
            Ok(entry) if entry.kind != datastore::EntryKind::File => {
                return Err(HostError::new(Failure::Busy, format!("[{store}] {path} is there and no file")));
            }
            Ok(entry) if offset > entry.size => {
                let text = format!("[{store}] {path} has {} bytes: it cannot go on at byte {offset}", entry.size);
                return Err(HostError::new(Failure::Invalid, text));
            }
            Ok(_) if offset > 0 => {}
            Ok(entry) => {
                // An empty file needs no other one in its place.
                if entry.size > 0 {
                    client.remove(store, path).map_err(trouble)?;
                    client.create_file(store, path).map_err(trouble)?;
                }
            }
            Err(CallError::Failed(failure)) if failure.kind == FailureKind::NotFound && offset == 0 => {
                client.create_file(store, path).map_err(trouble)?;
            }
            Err(error) => return Err(trouble(error)),
        }
        Ok(Box::new(Writer {
            files: self.files(),
            store: store.into(),
            path: path.into(),
            safe: offset,
            kept: Vec::new(),
            life: None,
            patience: Patience::new(self.platform.clone()),
        }))
    }
}
