//! Several operations at once, as tasks that overtake each other wherever one waits for the device or for another.

use crate::device::{CutDevice, Random, SECTOR};
use crate::history::{History, MAX_DISK, fill, stamp_of};
use crate::model::{Content, Disk, Names, Snapshot, ZERO};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use tessera_block::BlockDevice;
use tessera_datastore::{DiskOptions, Error, Store, Translated};

type Task<'a> = Pin<Box<dyn Future<Output = Result<u32, Error>> + 'a>>;
type Apply = Rc<dyn Fn(&mut Names, u32)>;

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs tasks to their end; which goes on next is chance, but only one that was woken does. None where nobody is woken any more: somebody forgot to wake a task.
fn run(mut tasks: Vec<Task>, random: &mut Random) -> Option<Vec<Result<u32, Error>>> {
    let mut results: Vec<_> = tasks.iter().map(|_| None).collect();
    let woken: Vec<_> = tasks.iter().map(|_| Arc::new(Woken(AtomicBool::new(true)))).collect();
    while results.iter().any(Option::is_none) {
        let ready: Vec<usize> = (0..tasks.len())
            .filter(|&task| results[task].is_none() && woken[task].0.load(Ordering::Relaxed))
            .collect();
        let task = *ready.get(random.below(ready.len() as u64) as usize)?;
        woken[task].0.store(false, Ordering::Relaxed);
        let waker = Waker::from(woken[task].clone());
        if let Poll::Ready(result) = tasks[task].as_mut().poll(&mut Context::from_waker(&waker)) {
            results[task] = Some(result);
        }
    }
    results.into_iter().collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Data {
    Write,
    /// And then a flush, after which it is certain.
    WriteAndFlush,
    ByExtents,
    Zeroes,
    Discard,
    Read,
}

/// What is done to a range of a disk; no two of them touch the same blocks.
struct Access {
    data: Data,
    disk: Disk,
    first: u64,
    count: u64,
    stamp: u64,
}

impl Access {
    /// Sectors that it changes.
    fn changed(&self) -> core::ops::Range<u64> {
        let end = self.first + self.count;
        match self.data {
            Data::Read => 0..0,
            // Whole blocks, and the last one where the disk ends.
            Data::Discard if end == self.disk.size / SECTOR as u64 => self.first.next_multiple_of(8)..end,
            Data::Discard => self.first.next_multiple_of(8)..end / 8 * 8,
            _ => self.first..end,
        }
    }

    async fn go(&self, store: &Store<CutDevice>) -> Result<u32, Error> {
        store.device().delay().await;
        let (id, offset, length) = (self.disk.id, self.first * SECTOR as u64, self.count * SECTOR as u64);
        match self.data {
            Data::Write => store.write(id, offset, &fill(self.stamp, self.first, self.count)).await?,
            Data::WriteAndFlush => {
                store.write(id, offset, &fill(self.stamp, self.first, self.count)).await?;
                store.flush().await?;
            }
            Data::ByExtents => {
                let mut extents = Vec::new();
                let ticket = match store.translate_write(id, offset, length, &mut extents)? {
                    Translated::Ready(ticket) => ticket,
                    Translated::NeedsWork => store.prepare_write(id, offset, length, &mut extents).await?,
                };
                let data = fill(self.stamp, self.first, self.count);
                let mut rest = &data[..];
                for extent in extents {
                    let (part, behind) = rest.split_at(extent.length as usize);
                    rest = behind;
                    if let Err(error) = store.device().write(extent.sector.unwrap(), part).await {
                        store.finish(ticket, false);
                        return Err(Error::Io { doing: "writing", error });
                    }
                }
                store.finish(ticket, true);
            }
            Data::Zeroes => store.write_zeroes(id, offset, length).await?,
            Data::Discard => store.discard(id, offset, length).await?,
            Data::Read => {
                let mut data = vec![0; length as usize];
                store.read(id, offset, &mut data).await?;
                let content = self.disk.content.borrow();
                for (sector, bytes) in (self.first..).zip(data.chunks(SECTOR)) {
                    let (found, wanted) = (stamp_of(bytes, sector), content.now(sector));
                    assert_eq!(found, Some(wanted), "sector {sector} of object {id}, read while others work");
                }
            }
        }
        Ok(0)
    }
}

/// A change of names and what they stand for.
struct Change {
    apply: Apply,
    /// It is durable when it is done.
    durable: bool,
    /// The disk of which it is a snapshot.
    snapshot_of: Option<String>,
}

enum Plan {
    Access(Rc<Access>),
    Change(Change),
    Flush,
    Reclaim,
}

/// What the plans of one go have taken for themselves.
#[derive(Default)]
struct Taken {
    ranges: Vec<(String, u64, u64)>,
    /// Disks that are changed as a whole; with true nobody else may touch them.
    disks: BTreeMap<String, bool>,
    names: Vec<String>,
    /// What is written to disks, by sector.
    written: Rc<RefCell<BTreeMap<String, BTreeMap<u64, u64>>>>,
}

impl Taken {
    fn is_free(&self, name: &str, start: u64, end: u64) -> bool {
        self.disks.get(name) != Some(&true)
            && !self
                .ranges
                .iter()
                .any(|(disk, first, last)| disk == name && start < *last && *first < end)
    }
}

impl History {
    /// Some operations at once.
    pub fn together(&mut self) {
        self.close(|_| true);
        let count = 2 + self.random.below(5);
        let Some(store) = self.store.take() else { return };
        let (mut plans, mut tasks, mut taken) = (Vec::new(), Vec::<Task>::new(), Taken::default());
        self.trace.push("together:".into());
        for _ in 0..count {
            if let Some((plan, task)) = self.plan(&store, &mut taken) {
                plans.push(plan);
                tasks.push(task);
            }
        }
        store.device().set_delays(Some(Random::new(self.random.next())));
        let results = run(tasks, &mut self.random);
        store.device().set_delays(None);
        self.store = Some(store);
        let Some(results) = results else {
            self.fail("tasks wait for each other, or nobody wakes them")
        };
        self.trace.push(format!("together: {results:?}"));
        self.learn(plans, results);
    }

    fn plan<'a>(&mut self, store: &'a Store<CutDevice>, taken: &mut Taken) -> Option<(Plan, Task<'a>)> {
        match self.random.below(14) {
            0..8 => self.plan_access(store, taken),
            8 => {
                self.trace.push("  flush".into());
                let task = async {
                    store.device().delay().await;
                    store.flush().await.map(|()| 0)
                };
                Some((Plan::Flush, Box::pin(task)))
            }
            9 => {
                self.trace.push("  sync".into());
                Some((Plan::Flush, Box::pin(async { store.sync().await.map(|()| 0) })))
            }
            10 => {
                self.trace.push("  reclaim".into());
                Some((Plan::Reclaim, Box::pin(async { store.reclaim(3).await.map(|_| 0) })))
            }
            _ if taken.names.len() == 3 => None,
            _ => {
                let (name, change, task) = self.plan_change(store, taken)?;
                taken.names.push(name);
                Some((Plan::Change(change), task))
            }
        }
    }

    fn plan_access<'a>(&mut self, store: &'a Store<CutDevice>, taken: &mut Taken) -> Option<(Plan, Task<'a>)> {
        let (name, disk) = self.any_disk()?;
        let (first, count) = self.any_range(&disk);
        let (start, end) = (first / 8 * 8, (first + count).next_multiple_of(8));
        if !taken.is_free(&name, start, end) {
            return None;
        }
        let mut data = [
            Data::Write,
            Data::WriteAndFlush,
            Data::ByExtents,
            Data::Zeroes,
            Data::Discard,
            Data::Read,
        ][self.random.below(6) as usize];
        // What counts as a whole block at the end of the disk changes while it grows.
        let at_end = first + count == disk.size / SECTOR as u64;
        if (data == Data::ByExtents && disk.checksums) || (data == Data::Discard && at_end) {
            data = Data::Write;
        }
        self.stamp += 1;
        let stamp = if matches!(data, Data::Zeroes | Data::Discard) {
            ZERO
        } else {
            self.stamp
        };
        self.trace.push(format!("  {data:?} {name} {first}+{count} = {stamp}"));
        taken.ranges.push((name.clone(), start, end));
        let access = Rc::new(Access {
            data,
            disk,
            first,
            count,
            stamp,
        });
        taken
            .written
            .borrow_mut()
            .entry(name.clone())
            .or_default()
            .extend(access.changed().map(|sector| (sector, stamp)));
        let task = access.clone();
        Some((Plan::Access(access), Box::pin(async move { task.go(store).await })))
    }

    /// A change, and the name that it is about.
    fn plan_change<'a>(&mut self, store: &'a Store<CutDevice>, taken: &mut Taken) -> Option<(String, Change, Task<'a>)> {
        let kind = self.random.below(6);
        if kind == 0 {
            return self.plan_new_disk(store, taken);
        }
        let (name, disk) = self.any_disk()?;
        let idle = !taken.ranges.iter().any(|(other, ..)| *other == name);
        let alone = matches!(kind, 1 | 2);
        if taken.names.contains(&name) || alone && !idle {
            return None;
        }
        let id = disk.id;
        let place = self.random.below(disk.snapshots.len() as u64) as usize;
        let about = name.clone();
        let change = |apply: Apply, durable| Change {
            apply,
            durable,
            snapshot_of: None,
        };
        let (change, task): (Change, Task) = match kind {
            1 => {
                self.trace.push(format!("  remove {name}"));
                let apply = move |names: &mut Names, _| {
                    names.disks.remove(&about);
                };
                let path = name.clone();
                (
                    change(Rc::new(apply), false),
                    Box::pin(async move { store.remove(&path).await.map(|()| 0) }),
                )
            }
            2 => {
                let snapshot = disk.snapshots.get(place)?.clone();
                self.trace.push(format!("  revert {name} to {}", snapshot.name));
                let source = snapshot.id;
                // Shared by what may be found after a power cut and what is there now.
                let content = Rc::new(RefCell::new(Content::certain((*snapshot.stamps).clone())));
                let apply = move |names: &mut Names, _| {
                    if let Some(disk) = names.disks.get_mut(&about) {
                        disk.size = snapshot.size;
                        disk.content = content.clone();
                        disk.tracked = None;
                    }
                };
                (
                    change(Rc::new(apply), true),
                    Box::pin(async move { store.revert(id, source).await.map(|()| 0) }),
                )
            }
            3 => {
                let size = disk.size + SECTOR as u64 * self.random.below(2000);
                self.trace.push(format!("  grow {name} {size}"));
                let apply = move |names: &mut Names, _| {
                    if let Some(disk) = names.disks.get_mut(&about) {
                        disk.size = size;
                    }
                };
                (
                    change(Rc::new(apply), false),
                    Box::pin(async move {
                        store.device().delay().await;
                        store.grow_disk(id, size).await.map(|()| 0)
                    }),
                )
            }
            4 => {
                let snapshot = disk.snapshots.get(place)?;
                let (source, known) = (snapshot.id, snapshot.name.clone());
                self.trace.push(format!("  remove {known}"));
                let apply = move |names: &mut Names, _| {
                    if let Some(disk) = names.disks.get_mut(&about) {
                        disk.snapshots.retain(|snapshot| snapshot.name != known);
                    }
                };
                (
                    change(Rc::new(apply), false),
                    Box::pin(async move {
                        store.device().delay().await;
                        store.remove_snapshot(source).map(|()| 0)
                    }),
                )
            }
            _ if disk.snapshots.len() >= 4 => return None,
            _ => self.plan_snapshot(store, taken, &name, &disk),
        };
        taken.disks.insert(name.clone(), alone);
        Some((name, change, task))
    }

    fn plan_snapshot<'a>(&mut self, store: &'a Store<CutDevice>, taken: &Taken, name: &str, disk: &Disk) -> (Change, Task<'a>) {
        self.stamp += 1;
        let snapshot_name = format!("snapshot {}", self.stamp);
        self.trace.push(format!("  {snapshot_name} of {name}"));
        let stamps = Rc::new(disk.content.borrow().frozen());
        let (size, id, about, written) = (disk.size, disk.id, name.to_string(), taken.written.clone());
        let called = snapshot_name.clone();
        let apply = move |names: &mut Names, id| {
            if let Some(disk) = names.disks.get_mut(&about) {
                disk.snapshots.push(Snapshot {
                    id,
                    name: called.clone(),
                    size,
                    stamps: stamps.clone(),
                    instead: written.borrow().get(&about).cloned().unwrap_or_default(),
                    change_id: 0,
                });
            }
        };
        let change = Change {
            apply: Rc::new(apply),
            durable: true,
            snapshot_of: Some(name.into()),
        };
        let task = async move {
            store.device().delay().await;
            store.create_snapshot(id, &snapshot_name, 0).await
        };
        (change, Box::pin(task))
    }

    fn plan_new_disk<'a>(&mut self, store: &'a Store<CutDevice>, taken: &Taken) -> Option<(String, Change, Task<'a>)> {
        let name = format!("disk{}", self.random.below(6));
        if self.names.disks.contains_key(&name) || self.names.disks.len() >= 4 || taken.names.contains(&name) {
            return None;
        }
        let size = SECTOR as u64 * (1 + self.random.below(MAX_DISK / SECTOR as u64));
        let (thick, checksums) = (self.random.chance(20), self.random.chance(25));
        self.trace
            .push(format!("  create {name} {size} thick {thick} checksums {checksums}"));
        let about = name.clone();
        // Shared by what may be found after a power cut and what is there now.
        let content: Rc<RefCell<Content>> = Rc::default();
        let apply = move |names: &mut Names, id| {
            let disk = Disk {
                id,
                size,
                checksums,
                content: content.clone(),
                snapshots: Vec::new(),
                tracked: None,
            };
            names.disks.insert(about.clone(), disk);
        };
        let change = Change {
            apply: Rc::new(apply),
            durable: false,
            snapshot_of: None,
        };
        let path = name.clone();
        let task = async move {
            store.device().delay().await;
            let options = DiskOptions {
                size,
                thick,
                checksums,
                ..DiskOptions::default()
            };
            store.create_disk(&path, &options)
        };
        Some((name, change, Box::pin(task)))
    }

    /// Has the model do what the tasks did, as far as that is known.
    fn learn(&mut self, plans: Vec<Plan>, results: Vec<Result<u32, Error>>) {
        let results: Vec<Option<u32>> = results.into_iter().map(|result| self.done(result)).collect();
        let certain = plans.iter().zip(&results).any(|(plan, result)| {
            let flushes = match plan {
                Plan::Flush => true,
                Plan::Access(access) => access.data == Data::WriteAndFlush,
                Plan::Change(change) => change.durable,
                Plan::Reclaim => false,
            };
            flushes && result.is_some()
        });
        // What had been done before all of this, that is.
        if certain {
            self.flushed();
        }
        let mut changes = Vec::new();
        for (plan, result) in plans.into_iter().zip(results) {
            match plan {
                Plan::Access(access) => self.learn_access(&access, result.is_some()),
                // What a full datastore refused was not done.
                Plan::Change(change) if result.is_some() || self.is_dead() => changes.push((change, result)),
                _ => {}
            }
        }
        let before = self.names.clone();
        for choice in 0..1_u32 << changes.len() {
            let mut names = before.clone();
            let mut possible = true;
            for (place, (change, result)) in changes.iter().enumerate() {
                if choice & (1 << place) != 0 {
                    (change.apply)(&mut names, result.unwrap_or(0));
                } else {
                    possible &= !(change.durable && result.is_some());
                }
            }
            if possible {
                self.candidates.push(names);
            }
        }
        // Where something durable was done, what was there before it cannot be found any more.
        if changes.iter().any(|(change, result)| change.durable && result.is_some()) {
            self.candidates.remove(0);
        }
        for (change, id) in changes {
            let Some(id) = id else { continue };
            (change.apply)(&mut self.names, id);
            let Some(name) = change.snapshot_of else { continue };
            let Some(mut disk) = self.names.disks.remove(&name) else { continue };
            if !self.is_dead() {
                self.look_at_snapshots(&mut disk);
                if let Some(snapshot) = disk.snapshots.last_mut() {
                    snapshot.change_id = self.store().snapshot_change_id(id).unwrap();
                }
            }
            self.names.disks.insert(name, disk);
        }
    }

    fn learn_access(&self, access: &Access, done: bool) {
        {
            let mut content = access.disk.content.borrow_mut();
            for sector in access.changed() {
                let old = content.now(sector);
                content.set(sector, access.stamp);
                if !done {
                    content.set(sector, old);
                } else if access.data == Data::WriteAndFlush {
                    let last = content.sectors[&sector].len() - 1;
                    content.durable.insert(sector, last);
                }
            }
        }
        if !done && !self.is_dead() {
            self.settle(&access.disk, access.first, access.count);
        }
    }

    /// Finds out what snapshots hold that were taken while others wrote.
    pub fn look_at_snapshots(&self, disk: &mut Disk) {
        for snapshot in disk.snapshots.iter_mut().filter(|snapshot| !snapshot.instead.is_empty()) {
            let mut stamps = BTreeMap::new();
            let look = self.each_sector(snapshot.id, snapshot.size, |sector, stamp| {
                let stamp = stamp.ok_or_else(|| format!("sector {sector} holds something strange"))?;
                let known = snapshot.stamps.get(&sector).copied().unwrap_or(ZERO);
                if stamp != known && snapshot.instead.get(&sector) != Some(&stamp) {
                    return Err(format!("sector {sector} holds {stamp}, not {known}"));
                }
                if stamp != ZERO {
                    stamps.insert(sector, stamp);
                }
                Ok(())
            });
            if let Err(problem) = look {
                self.fail(&format!("{}: {problem}", snapshot.name));
            }
            snapshot.stamps = Rc::new(stamps);
            snapshot.instead.clear();
        }
    }
}
