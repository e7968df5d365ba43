//! A simulated datastore: files and disks in memory.

use super::{fail, unix_ms};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    task::{Context, Poll},
};
use tessera_hostd::{
    host::{EntryFacts, EntryKind, Failure, FileSink, HostError},
    http::{BodyError, BodySource},
};

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) kind: EntryKind,
    pub(super) size: u64,
    pub(super) data: Rc<RefCell<Vec<u8>>>,
    pub(super) modified_ms: u64,
    pub(super) snapshots: Vec<String>,
}

pub(super) struct Store {
    pub(super) device: String,
    pub(super) capacity: u64,
    pub(super) entries: BTreeMap<String, Entry>,
}

pub(super) struct Bytes {
    pub(super) data: Rc<RefCell<Vec<u8>>>,
    pub(super) at: u64,
    pub(super) end: u64,
    pub(super) length: u64,
}

impl BodySource for Bytes {
    fn length(&self) -> Option<u64> {
        Some(self.length)
    }
    fn poll_read(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, BodyError>> {
        let count = (self.end - self.at).min(buffer.len() as u64) as usize;
        let data = self.data.borrow();
        for (index, byte) in buffer[..count].iter_mut().enumerate() {
            // A virtual disk is made of zeros where nothing was written.
            *byte = data.get(self.at as usize + index).copied().unwrap_or(0);
        }
        self.at += count as u64;
        Poll::Ready(Ok(count))
    }
}

pub(super) struct Sink {
    pub(super) data: Rc<RefCell<Vec<u8>>>,
    pub(super) at: usize,
}

impl FileSink for Sink {
    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, HostError>> {
        let mut data = self.data.borrow_mut();
        let end = self.at + bytes.len();
        if data.len() < end {
            data.resize(end, 0);
        }
        data[self.at..end].copy_from_slice(bytes);
        self.at = end;
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_sync(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HostError>> {
        Poll::Ready(Ok(()))
    }
}

impl Store {
    pub(super) fn used(&self) -> u64 {
        self.entries.values().map(|entry| entry.data.borrow().len() as u64).sum()
    }
    pub(super) fn parent_is_there(&self, path: &str) -> bool {
        path.rsplit_once('/')
            .is_none_or(|(folder, _)| self.entries.get(folder).is_some_and(|entry| entry.kind == EntryKind::Folder))
    }
    pub(super) fn insert(&mut self, path: &str, kind: EntryKind, size: u64) -> Result<&mut Entry, HostError> {
        if self.entries.contains_key(path) {
            return fail(Failure::Exists, format!("There is {path} already"));
        }
        if !self.parent_is_there(path) {
            return fail(Failure::NotFound, format!("There is no folder for {path}"));
        }
        let entry = Entry {
            kind,
            size,
            data: Rc::default(),
            modified_ms: unix_ms(),
            snapshots: Vec::new(),
        };
        Ok(self.entries.entry(path.into()).or_insert(entry))
    }
}

pub(super) fn entry_facts(name: &str, entry: &Entry) -> EntryFacts {
    let held = entry.data.borrow().len() as u64;
    EntryFacts {
        name: name.into(),
        kind: entry.kind,
        size: if entry.kind == EntryKind::Disk { entry.size } else { held },
        allocated: held,
        modified_ms: entry.modified_ms,
    }
}
