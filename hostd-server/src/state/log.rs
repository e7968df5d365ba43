//! State in two files, each a log of batches. One is in use; when it has grown past what it holds, everything is written into the other one, which is in
//! use from its last flush on. A batch counts when all of its bytes are there, which its checksum says; a reader stops at the first that does not.
//!
//! File: `TSRASTA1`, generation (u64), then batches: length (u32), CRC-32C of generation, number and payload (u32), payload. Numbers are little-endian. The first batch of a
//! file is everything there was when it was begun. Payload: per change a tag (0 put, 1 remove), key length (u16), key, and for a put value length (u32), value.

use super::{Change, Content, StateError, StateStore, apply};
use crate::future::LocalFuture;
use alloc::{boxed::Box, collections::BTreeMap, string::String, vec, vec::Vec};
use core::cell::{Cell, RefCell};

const MAGIC: &[u8; 8] = b"TSRASTA1";
const HEADER: u64 = 16;
const MAX_BATCH: usize = 16 << 20;
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// A file that holds a log.
pub trait StateFile {
    /// Reads everything.
    fn read(&self) -> LocalFuture<'_, Result<Vec<u8>, StateError>>;
    /// Writes at a place, which may be the end.
    fn write(&self, offset: u64, bytes: Vec<u8>) -> LocalFuture<'_, Result<(), StateError>>;
    /// Ready when everything that was written before is safe.
    fn sync(&self) -> LocalFuture<'_, Result<(), StateError>>;
}

/// State in two files.
pub struct LogStore<F> {
    files: [F; 2],
    place: Cell<Place>,
    /// What is kept, and what is to be kept by the time the lock is free.
    content: RefCell<BTreeMap<String, Vec<u8>>>,
    busy: Cell<bool>,
    /// Failures so far: what was asked before one fails with it.
    epoch: Cell<u64>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    file: usize,
    generation: u64,
    batches: u64,
    end: u64,
    /// A write failed half-way: the next batch begins another file.
    broken: bool,
}

impl<F: StateFile> LogStore<F> {
    /// In these files, which may be empty.
    #[must_use]
    pub fn new(files: [F; 2]) -> Self {
        Self {
            files,
            place: Cell::default(),
            content: RefCell::default(),
            busy: Cell::new(false),
            epoch: Cell::new(0),
        }
    }

    /// To be taken when a change is made, for [`Self::commit_in`].
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// Begins with this, whatever was there.
    pub(super) async fn begin_with(&self, content: Content) -> Result<(), StateError> {
        let _lock = self.lock().await;
        self.content.replace(content);
        self.begin_other().await
    }

    /// Commits what was changed in `epoch`.
    pub(super) async fn commit_in(&self, epoch: u64, changes: Vec<Change>) -> Result<(), StateError> {
        if changes.is_empty() {
            return Ok(());
        }
        let _lock = self.lock().await;
        if epoch != self.epoch.get() {
            return Err(StateError::Device);
        }
        let written = self.append(&changes).await;
        match written {
            Ok(()) => apply(&mut self.content.borrow_mut(), changes),
            Err(_) => self.epoch.set(epoch + 1),
        }
        written
    }

    async fn append(&self, changes: &[Change]) -> Result<(), StateError> {
        let held: usize = self.content.borrow().iter().map(|(key, value)| key.len() + value.len() + 7).sum();
        let place = self.place.get();
        if place.broken || place.batches == 0 || place.end > 65536 + 4 * held as u64 {
            self.begin_other().await?;
        }
        let mut place = self.place.get();
        let batch = encode(place.generation, place.batches, changes)?;
        let length = batch.len() as u64;
        self.place.set(Place { broken: true, ..place });
        self.files[place.file].write(place.end, batch).await?;
        self.files[place.file].sync().await?;
        place.end += length;
        place.batches += 1;
        self.place.set(place);
        Ok(())
    }

    async fn lock(&self) -> Lock<'_> {
        core::future::poll_fn(|context| {
            if self.busy.replace(true) {
                // Whoever holds it is a task of the same executor and gets ahead meanwhile.
                context.waker().wake_by_ref();
                core::task::Poll::Pending
            } else {
                core::task::Poll::Ready(())
            }
        })
        .await;
        Lock(&self.busy)
    }

    async fn begin_other(&self) -> Result<(), StateError> {
        let old = self.place.get();
        let (file, generation) = (1 - old.file, old.generation + 1);
        let all: Vec<Change> = self
            .content
            .borrow()
            .iter()
            .map(|(key, value)| Change::Put(key.clone(), value.clone()))
            .collect();
        let batch = encode(generation, 0, &all)?;
        let end = HEADER + batch.len() as u64;
        // The header comes last: until it is there, the old file is the newer one. What the file held before must not go on after the batch.
        let target = &self.files[file];
        target.write(0, vec![0; usize::try_from(HEADER).unwrap_or(16)]).await?;
        target.sync().await?;
        target.write(HEADER, batch).await?;
        target.sync().await?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&generation.to_le_bytes());
        target.write(0, header).await?;
        target.sync().await?;
        self.place.set(Place {
            file,
            generation,
            batches: 1,
            end,
            broken: false,
        });
        Ok(())
    }
}

struct Lock<'a>(&'a Cell<bool>);

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

fn checksum(generation: u64, number: u64, payload: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(&generation.to_le_bytes());
    digest.update(&number.to_le_bytes());
    digest.update(payload);
    digest.finalize()
}

fn encode(generation: u64, number: u64, changes: &[Change]) -> Result<Vec<u8>, StateError> {
    let mut payload = Vec::new();
    for change in changes {
        let (tag, key, value) = match change {
            Change::Put(key, value) => (0, key, Some(value)),
            Change::Remove(key) => (1, key, None),
        };
        payload.push(tag);
        payload.extend_from_slice(&u16::try_from(key.len()).map_err(|_| StateError::Full)?.to_le_bytes());
        payload.extend_from_slice(key.as_bytes());
        if let Some(value) = value {
            payload.extend_from_slice(&u32::try_from(value.len()).map_err(|_| StateError::Full)?.to_le_bytes());
            payload.extend_from_slice(value);
        }
    }
    if payload.len() > MAX_BATCH {
        return Err(StateError::Full);
    }
    let mut batch = (payload.len() as u32).to_le_bytes().to_vec();
    batch.extend_from_slice(&checksum(generation, number, &payload).to_le_bytes());
    batch.extend_from_slice(&payload);
    Ok(batch)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(length)?;
    *bytes = tail;
    Some(head)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?))
}

fn decode(mut payload: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while !payload.is_empty() {
        let tag = take(&mut payload, 1)?[0];
        let length = u16::from_le_bytes(take(&mut payload, 2)?.try_into().ok()?);
        let key = core::str::from_utf8(take(&mut payload, length.into())?).ok()?.into();
        changes.push(match tag {
            0 => {
                let length = take_u32(&mut payload)?;
                Change::Put(key, take(&mut payload, length as usize)?.to_vec())
            }
            1 => Change::Remove(key),
            _ => return None,
        });
    }
    Some(changes)
}

/// Generation, content, batches and end of a file; `None`: it holds no log.
fn read(file: &[u8]) -> Option<(u64, Content, u64, u64)> {
    let mut rest = file;
    if take(&mut rest, 8)? != MAGIC {
        return None;
    }
    let generation = u64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?);
    let (mut content, mut batches, mut end) = (BTreeMap::new(), 0, HEADER);
    loop {
        let mut next = rest;
        let Some(changes) = (|| {
            let length = take_u32(&mut next)? as usize;
            let sum = take_u32(&mut next)?;
            let payload = take(&mut next, length)?;
            (length <= MAX_BATCH && checksum(generation, batches, payload) == sum)
                .then(|| decode(payload))
                .flatten()
        })() else {
            break;
        };
        apply(&mut content, changes);
        end += (rest.len() - next.len()) as u64;
        batches += 1;
        rest = next;
    }
    // Its first batch is everything that there was: without it the other file is the one in use.
    (batches > 0).then_some((generation, content, batches, end))
}

impl<F: StateFile> StateStore for LogStore<F> {
    fn persistent(&self) -> bool {
        true
    }

    fn load(&self) -> LocalFuture<'_, Result<Content, StateError>> {
        Box::pin(async {
            let _lock = self.lock().await;
            if self.place.get().batches > 0 {
                return Ok(self.content.borrow().clone());
            }
            let mut best: Option<(Place, BTreeMap<String, Vec<u8>>)> = None;
            for (file, bytes) in [self.files[0].read().await?, self.files[1].read().await?].iter().enumerate() {
                if let Some((generation, content, batches, end)) = read(bytes) {
                    if best.as_ref().is_none_or(|(place, _)| place.generation < generation) {
                        best = Some((
                            Place {
                                file,
                                generation,
                                batches,
                                end,
                                broken: false,
                            },
                            content,
                        ));
                    }
                }
            }
            let content = match best {
                Some((place, content)) => {
                    self.place.set(place);
                    content
                }
                None => BTreeMap::new(),
            };
            self.content.replace(content.clone());
            // Half a batch may stand behind the end, and what follows must not be taken for its rest.
            self.begin_other().await?;
            Ok(content)
        })
    }

    fn commit(&self, changes: Vec<Change>) -> LocalFuture<'_, Result<(), StateError>> {
        let epoch = self.epoch();
        Box::pin(self.commit_in(epoch, changes))
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.content.borrow().get(key).cloned()
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use alloc::rc::Rc;
    use core::{future::Future, pin::pin, task::Context};

    /// A disk whose power fails after some writes: what was not flushed is there in part, and each block of 512 bytes is old or new.
    pub(in crate::state) struct Disk {
        pub(super) safe: [Vec<u8>; 2],
        pending: Vec<(usize, u64, Vec<u8>)>,
        pub(super) left: u32,
        seed: u64,
    }
    pub(in crate::state) struct File(pub(in crate::state) Rc<RefCell<Disk>>, pub(in crate::state) usize);

    impl Disk {
        pub(in crate::state) fn new(left: u32, seed: u64) -> Rc<RefCell<Self>> {
            Rc::new(RefCell::new(Self {
                safe: Default::default(),
                pending: Vec::new(),
                left,
                seed,
            }))
        }
        fn chance(&mut self) -> bool {
            self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            self.seed >> 63 == 1
        }
        pub(super) fn settle(&mut self, cut: bool) {
            for (file, offset, bytes) in core::mem::take(&mut self.pending) {
                for (index, block) in bytes.chunks(512).enumerate() {
                    if cut && self.chance() {
                        continue;
                    }
                    let start = offset as usize + index * 512;
                    let safe = &mut self.safe[file];
                    if safe.len() < start + block.len() {
                        safe.resize(start + block.len(), 0);
                    }
                    safe[start..start + block.len()].copy_from_slice(block);
                }
            }
        }
        fn step(&mut self) -> Result<(), StateError> {
            if self.left == 0 {
                return Err(StateError::Device);
            }
            self.left -= 1;
            Ok(())
        }
    }

    impl StateFile for File {
        fn read(&self) -> LocalFuture<'_, Result<Vec<u8>, StateError>> {
            Box::pin(async { Ok(self.0.borrow().safe[self.1].clone()) })
        }
        fn write(&self, offset: u64, bytes: Vec<u8>) -> LocalFuture<'_, Result<(), StateError>> {
            Box::pin(async move {
                let mut disk = self.0.borrow_mut();
                disk.pending.push((self.1, offset, bytes));
                disk.step()
            })
        }
        fn sync(&self) -> LocalFuture<'_, Result<(), StateError>> {
            Box::pin(async {
                let mut disk = self.0.borrow_mut();
                disk.step()?;
                disk.settle(false);
                Ok(())
            })
        }
    }

    pub(in crate::state) fn now<T>(future: impl Future<Output = T>) -> T {
        let mut context = Context::from_waker(core::task::Waker::noop());
        let mut future = pin!(future);
        loop {
            if let core::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{Disk, File, now},
        *,
    };
    use alloc::format;
    use proptest::prelude::*;

    fn cut_after(writes: u32, seed: u64) {
        let disk = Disk::new(u32::MAX, seed);
        let open = || LogStore::new([File(disk.clone(), 0), File(disk.clone(), 1)]);
        let mut acknowledged: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for round in 0..3_u64 {
            let store = open();
            disk.borrow_mut().left = u32::MAX;
            assert_eq!(now(store.load()).unwrap(), acknowledged);
            disk.borrow_mut().left = writes;
            let mut number = 0_u64;
            let attempted = loop {
                number += 1;
                // Each batch is two keys that belong together, of a size that goes over blocks and makes files change.
                let value = vec![number as u8; (number as usize * 977) % 9000];
                let changes = vec![
                    Change::Put(format!("a/{}", number % 7), value.clone()),
                    if number.is_multiple_of(5) {
                        Change::Remove(format!("b/{}", number % 7))
                    } else {
                        Change::Put(format!("b/{}", number % 7), value)
                    },
                ];
                let mut next = acknowledged.clone();
                apply(&mut next, changes.clone());
                if now(store.commit(changes)).is_err() {
                    break next;
                }
                acknowledged = next;
                assert!(number < 100_000);
            };
            disk.borrow_mut().settle(true);
            disk.borrow_mut().left = u32::MAX;
            let found = now(open().load()).unwrap();
            assert!(
                found == acknowledged || found == attempted,
                "round {round}: power cut after {writes} writes (seed {seed})"
            );
            acknowledged = found;
        }
    }

    #[test]
    fn a_power_cut_loses_no_acknowledged_change_and_leaves_none_half_done() {
        for writes in 1..150 {
            cut_after(writes, u64::from(writes) * 7919);
        }
    }

    #[test]
    fn what_was_asked_before_a_failure_fails_with_it() {
        let disk = Disk::new(u32::MAX, 1);
        let store = LogStore::new([File(disk.clone(), 0), File(disk.clone(), 1)]);
        now(store.load()).unwrap();
        disk.borrow_mut().left = 0;
        let put = |key: &str, value| vec![Change::Put(key.into(), vec![value])];
        let (first, second) = (store.commit(put("a", 1)), store.commit(put("a", 2)));
        assert!(now(first).is_err());
        disk.borrow_mut().left = u32::MAX;
        assert!(now(second).is_err(), "it was made from a change that is not kept");
        assert_eq!(store.get("a"), None);
        now(store.commit(put("a", 3))).unwrap();
        assert_eq!(store.get("a"), Some(vec![3]));
    }

    proptest! {
        #[test]
        fn cuts_anywhere(writes in 1_u32..600, seed: u64) {
            cut_after(writes, seed);
        }

        #[test]
        fn any_bytes_can_be_read(bytes: Vec<u8>) {
            let mut file = MAGIC.to_vec();
            file.extend_from_slice(&bytes);
            read(&file);
            decode(&bytes);
        }
    }
}
