//! State in two files, each a log of batches. One is in use; when it has grown past what it holds, everything is written into the other one, which is in
//! use from its last flush on. A batch counts when all of its bytes are there, which its checksum says; a reader stops at the first that does not.
//!
//! File: `TSRASTA1`, generation (u64), then batches: length (u32), CRC-32C of generation, number and payload (u32), payload. Numbers are little-endian. The first batch of a
//! file is everything there was when it was begun. Payload: per change a tag (0 put, 1 remove), key length (u16), key, and for a put value length (u32), value.

use super::{Change, StateError, StateStore};
use crate::future::LocalFuture;
use alloc::{boxed::Box, collections::BTreeMap, string::String, vec, vec::Vec};
use core::cell::{Cell, RefCell};

/// Keys and values.
type Content = BTreeMap<String, Vec<u8>>;

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
        }
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

fn apply(content: &mut BTreeMap<String, Vec<u8>>, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Put(key, value) => {
                content.insert(key, value);
            }
            Change::Remove(key) => {
                content.remove(&key);
            }
        }
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

    fn load(&self) -> LocalFuture<'_, Result<BTreeMap<String, Vec<u8>>, StateError>> {
        Box::pin(async {
            let _lock = self.lock().await;
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
        Box::pin(async move {
            if changes.is_empty() {
                return Ok(());
            }
            let _lock = self.lock().await;
            let held: usize = self.content.borrow().iter().map(|(key, value)| key.len() + value.len() + 7).sum();
            let place = self.place.get();
            if place.broken || place.batches == 0 || place.end > 65536 + 4 * held as u64 {
                self.begin_other().await?;
            }
            let mut place = self.place.get();
            let batch = encode(place.generation, place.batches, &changes)?;
            let length = batch.len() as u64;
            self.place.set(Place { broken: true, ..place });
            self.files[place.file].write(place.end, batch).await?;
            self.files[place.file].sync().await?;
            place.end += length;
            place.batches += 1;
            self.place.set(place);
            apply(&mut self.content.borrow_mut(), changes);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, rc::Rc};
    use core::{future::Future, pin::pin, task::Context};
    use proptest::prelude::*;

    /// A disk whose power fails after some writes: what was not flushed is there in part, and each block of 512 bytes is old or new.
    struct Disk {
        safe: [Vec<u8>; 2],
        pending: Vec<(usize, u64, Vec<u8>)>,
        left: u32,
        seed: u64,
    }
    struct File(Rc<RefCell<Disk>>, usize);

    impl Disk {
        fn chance(&mut self) -> bool {
            self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            self.seed >> 63 == 1
        }
        fn settle(&mut self, cut: bool) {
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

    fn now<T>(future: impl Future<Output = T>) -> T {
        let mut context = Context::from_waker(core::task::Waker::noop());
        let mut future = pin!(future);
        loop {
            if let core::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
        }
    }

    fn cut_after(writes: u32, seed: u64) {
        let disk = Rc::new(RefCell::new(Disk {
            safe: Default::default(),
            pending: Vec::new(),
            left: u32::MAX,
            seed,
        }));
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
