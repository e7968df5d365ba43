//! Where hostd's state is: two files in the folder `.tessera` of a datastore. People reach no path that begins with a dot, so it is hostd's alone.

use super::stores::{Files, Stores, is_bad_state, is_passing};
use alloc::{
    boxed::Box,
    rc::Rc,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::cell::{Cell, RefCell};
use tessera_hostd::{
    future::LocalFuture,
    platform::Platform,
    state::{StateError, StateFile},
};
use tessera_proto::{CallError, FailureKind};
use tessera_rt::log;

/// The folder.
pub const FOLDER: &str = ".tessera";
const PATHS: [&str; 2] = [".tessera/state-0", ".tessera/state-1"];
/// A file that is longer is no state.
const MOST: usize = 12 << 20;
/// How often to try again while the storage server is started again, and after how many milliseconds.
const TRIES: u32 = 100;
const INTERVAL: u64 = 100;
/// How often what a server lost is written again.
const REWRITES: u32 = 5;

/// A file of the state.
pub struct StoreFile {
    files: Rc<Files>,
    platform: Rc<dyn Platform>,
    store: String,
    path: &'static str,
    /// What was written since the last `sync`, and in which life of the storage server the first of it was.
    pending: RefCell<Vec<(u64, Vec<u8>)>>,
    life: Cell<Option<u64>>,
}

/// Has `order` carried out, also if the storage server is just being started again.
async fn patiently<T>(platform: &Rc<dyn Platform>, order: impl Fn() -> Result<T, CallError>) -> Result<T, CallError> {
    let mut left = TRIES;
    loop {
        match order() {
            Err(error) if is_passing(&error) && left > 0 => {
                left -= 1;
                platform.sleep(INTERVAL).await;
            }
            outcome => return outcome,
        }
    }
}

fn is_missing(error: &CallError) -> bool {
    matches!(error, CallError::Failed(failure) if failure.kind == FailureKind::NotFound)
}

impl StoreFile {
    fn trouble(&self, error: &CallError) -> StateError {
        log::error!("the state in [{}] {}: {error}", self.store, self.path);
        match error {
            CallError::Failed(failure) if failure.kind == FailureKind::Exhausted => StateError::Full,
            _ => StateError::Device,
        }
    }

    async fn put(&self, offset: u64, bytes: &[u8]) -> Result<(), CallError> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            let (count, life) = patiently(&self.platform, || self.files.write(&self.store, self.path, at, rest)).await?;
            // If the server was started again since the first one, `sync` says so.
            self.life.set(self.life.get().or(Some(life)));
            done += count;
        }
        Ok(())
    }

    async fn settle(&self) -> Result<(), CallError> {
        let mut again = 0;
        while let Some(life) = self.life.get() {
            match patiently(&self.platform, || self.files.sync(&self.store, life)).await {
                Ok(()) => self.life.set(None),
                Err(error) if is_bad_state(&error) && again < REWRITES => {
                    again += 1;
                    self.life.set(None);
                    let pending = self.pending.borrow().clone();
                    for (offset, bytes) in pending {
                        self.put(offset, &bytes).await?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl StateFile for StoreFile {
    fn read(&self) -> LocalFuture<'_, Result<Vec<u8>, StateError>> {
        Box::pin(async {
            let (mut all, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
            loop {
                let buffer = RefCell::new(&mut chunk);
                let read = || {
                    self.files
                        .read(&self.store, self.path, all.len() as u64, buffer.borrow_mut().as_mut_slice())
                };
                let count = patiently(&self.platform, read).await.map_err(|error| self.trouble(&error))?;
                all.extend_from_slice(chunk.get(..count).unwrap_or_default());
                if count == 0 || all.len() > MOST {
                    return Ok(all);
                }
            }
        })
    }

    fn write(&self, offset: u64, bytes: Vec<u8>) -> LocalFuture<'_, Result<(), StateError>> {
        Box::pin(async move {
            let written = self.put(offset, &bytes).await;
            self.pending.borrow_mut().push((offset, bytes));
            written.map_err(|error| self.trouble(&error))
        })
    }

    fn sync(&self) -> LocalFuture<'_, Result<(), StateError>> {
        Box::pin(async {
            let settled = self.settle().await;
            self.pending.borrow_mut().clear();
            self.life.set(None);
            settled.map_err(|error| self.trouble(&error))
        })
    }
}

/// Where the state may be.
pub enum Found {
    /// It is in this datastore.
    There(String),
    /// It is nowhere, and this datastore can take it.
    Room(String),
    /// No datastore can be used.
    Nowhere,
}

/// Looks for the state. `loud`: says what stands in the way.
pub async fn find(stores: &Stores, platform: &Rc<dyn Platform>, loud: bool) -> Found {
    let mut left = TRIES;
    let all = loop {
        match stores.list() {
            Ok(all) => break all,
            Err(error) if left == 0 => {
                log::error!("{}", error.message);
                return Found::Nowhere;
            }
            Err(_) => {
                left -= 1;
                platform.sleep(INTERVAL).await;
            }
        }
    };
    let mut best: Option<(u64, String)> = None;
    let mut troubled = false;
    for store in &all {
        if !store.problem.is_empty() {
            troubled = true;
            continue;
        }
        let mut newest = None;
        for path in PATHS {
            let mut header = [0; 16];
            let buffer = RefCell::new(&mut header);
            let read = || stores.files().read(&store.name, path, 0, buffer.borrow_mut().as_mut_slice());
            match patiently(platform, read).await {
                // Its generation stands behind the magic number; a file that is only begun has generation 0 here.
                Ok(_) => {
                    let [.., a, b, c, d, e, f, g, h] = header;
                    newest = newest.max(Some(u64::from_le_bytes([a, b, c, d, e, f, g, h])));
                }
                Err(error) if is_missing(&error) => {}
                Err(error) => log::error!("[{}] {path}: {error}", store.name),
            }
        }
        let Some(newest) = newest else { continue };
        if let Some((_, other)) = &best {
            log::warn!(
                "there is state of a host in [{other}] and in [{}]: the one that was changed more often counts",
                store.name
            );
        }
        if best.as_ref().is_none_or(|(other, _)| *other < newest) {
            best = Some((newest, store.name.clone()));
        }
    }
    if let Some((_, store)) = best {
        return Found::There(store);
    }
    if troubled {
        // It might be in the one that cannot be read now.
        if loud {
            log::error!("a datastore that may hold the host's state cannot be used: nothing will be kept until it can");
        }
        return Found::Nowhere;
    }
    let usable = all.iter().map(|store| &store.name).min();
    usable.map_or(Found::Nowhere, |name| Found::Room(name.to_string()))
}

/// The two files, made if they are not there.
///
/// # Errors
/// The datastore does not let them be made.
pub async fn open(stores: &Stores, platform: &Rc<dyn Platform>, store: &str) -> Result<[StoreFile; 2], StateError> {
    let file = |path| StoreFile {
        files: stores.files(),
        platform: platform.clone(),
        store: store.into(),
        path,
        pending: RefCell::default(),
        life: Cell::new(None),
    };
    let make = |path: &str, folder: bool| {
        let mut client = Files::connect()?;
        match client.stat(store, path) {
            Err(error) if is_missing(&error) && folder => client.create_folder(store, path),
            Err(error) if is_missing(&error) => client.create_file(store, path),
            other => other.map(|_| ()),
        }
    };
    let files = PATHS.map(file);
    for (path, folder) in [(FOLDER, true), (PATHS[0], false), (PATHS[1], false)] {
        // A repeated order finds what the first one made.
        patiently(platform, || make(path, folder))
            .await
            .map_err(|error| files[0].trouble(&error))?;
    }
    Ok(files)
}
