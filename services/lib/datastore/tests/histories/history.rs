//! One random history of a datastore, with power cuts.

use crate::device::{CutDevice, Random, SECTOR};
use crate::model::{Content, Disk, Names, Snapshot, ZERO};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use tessera_block::{BlockDevice, block_on};
use tessera_datastore::{CheckOptions, DiskOptions, Error, FormatOptions, Kind, MountOptions, Store, Ticket, Translated, check};

/// Bytes of the device: little more than the least, so that it gets full now and then.
const BYTES: usize = 7 << 20;
pub const MAX_DISK: u64 = 3 << 19;

/// A change id or a snapshot, and what the disk held then.
type Question = (Option<u64>, Option<u32>, Rc<BTreeMap<u64, u64>>);

/// A write whose data is on its way.
pub struct Open {
    ticket: Ticket,
    disk: String,
    first: u64,
    count: u64,
    stamp: u64,
}

pub struct History {
    pub random: Random,
    /// None only while it is being mounted.
    pub store: Option<Store<CutDevice>>,
    /// What the names may stand for after a power cut: as of the last flush, and what was done since.
    pub candidates: Vec<Names>,
    pub names: Names,
    pub open: Vec<Open>,
    pub stamp: u64,
    pub cuts: u64,
    pub operations: u64,
    pub trace: Vec<String>,
}

pub fn fill(stamp: u64, first: u64, count: u64) -> Vec<u8> {
    let mut data = Vec::with_capacity(count as usize * SECTOR);
    for sector in first..first + count {
        for _ in 0..SECTOR / 16 {
            data.extend_from_slice(&stamp.to_le_bytes());
            data.extend_from_slice(&sector.to_le_bytes());
        }
    }
    data
}

/// The stamp of a sector's content; none for what nobody wrote there.
pub fn stamp_of(data: &[u8], sector: u64) -> Option<u64> {
    let words = data.as_chunks::<8>().0;
    let stamp = u64::from_le_bytes(words[0]);
    if stamp == ZERO {
        return words.iter().all(|word| *word == [0; 8]).then_some(ZERO);
    }
    let pair = (words[0], sector.to_le_bytes());
    words
        .as_chunks::<2>()
        .0
        .iter()
        .all(|[first, second]| (*first, *second) == pair)
        .then_some(stamp)
}

impl History {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let log_blocks = [4, 8, 32][random.below(3) as usize];
        let options = FormatOptions {
            log_blocks: Some(log_blocks),
            label: format!("history {seed}"),
            uuid: [seed as u8; 16],
            ..FormatOptions::default()
        };
        let store = block_on(Store::format(CutDevice::new(BYTES), &options)).unwrap();
        Self {
            random,
            store: Some(store),
            candidates: vec![Names::default()],
            names: Names::default(),
            open: Vec::new(),
            stamp: 0,
            cuts: 0,
            operations: 0,
            trace: vec![format!("seed {seed}, log {log_blocks}")],
        }
    }

    pub fn store(&self) -> &Store<CutDevice> {
        self.store.as_ref().unwrap()
    }

    pub fn is_dead(&self) -> bool {
        self.store().device().is_dead()
    }

    #[track_caller]
    pub fn fail(&self, what: &str) -> ! {
        panic!("{what}\nhistory:\n  {}", self.trace.join("\n  "));
    }

    /// A result of an operation: whether it was done. What a full datastore or a power cut refuses is not.
    #[track_caller]
    pub fn done<T>(&self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(Error::NoSpace { .. }) if !self.is_dead() => None,
            Err(_) if self.is_dead() => None,
            Err(error) => self.fail(&format!("unexpected: {error}")),
        }
    }

    /// Notes what the names stand for now, as something that may be found after a power cut.
    fn renamed(&mut self) {
        self.candidates.push(self.names.clone());
    }

    /// Everything so far is certain.
    pub fn flushed(&mut self) {
        self.candidates = vec![self.names.clone()];
        for (name, disk) in &self.names.disks {
            let content = &mut *disk.content.borrow_mut();
            let open: Vec<_> = self
                .open
                .iter()
                .filter(|open| open.disk == *name)
                .map(|open| open.first..open.first + open.count)
                .collect();
            let before = content.durable.clone();
            content.flush();
            // What is on its way is not.
            for range in open {
                for sector in range {
                    match before.get(&sector) {
                        Some(&index) => content.durable.insert(sector, index),
                        None => content.durable.remove(&sector),
                    };
                }
            }
        }
    }

    pub fn any_disk(&mut self) -> Option<(String, Disk)> {
        let place = self.random.below(self.names.disks.len() as u64) as usize;
        self.names.disks.iter().nth(place).map(|(name, disk)| (name.clone(), disk.clone()))
    }

    pub fn any_range(&mut self, disk: &Disk) -> (u64, u64) {
        let sectors = disk.size / SECTOR as u64;
        let most = match self.random.below(4) {
            0 => 3,
            1 => 16,
            2 => 64,
            _ => 600,
        };
        let mut first = self.random.below(sectors);
        let mut count = 1 + self.random.below(most);
        if self.random.chance(50) {
            first -= first % 8;
            count = count.next_multiple_of(8);
        }
        (first, count.min(sectors - first))
    }

    fn is_open(&self, name: &str, first: u64, count: u64) -> bool {
        let (start, end) = (first / 8 * 8, (first + count).next_multiple_of(8));
        self.open
            .iter()
            .any(|open| open.disk == name && open.first / 8 * 8 < end && start < (open.first + open.count).next_multiple_of(8))
    }

    pub fn close(&mut self, which: impl Fn(&Open) -> bool) {
        let (closing, rest) = core::mem::take(&mut self.open).into_iter().partition(which);
        self.open = rest;
        for open in closing {
            self.store().finish(open.ticket, true);
            if let Some(disk) = self.names.disks.get(&open.disk) {
                let mut content = disk.content.borrow_mut();
                for sector in open.first..open.first + open.count {
                    content.set(sector, open.stamp);
                }
            }
        }
    }

    /// Goes on for some operations, then the power goes.
    pub fn run(&mut self, operations: u64) {
        if self.random.chance(80) {
            let requests = 1 + self.random.below(operations * 6);
            self.store().device().cut_after(requests);
        }
        for _ in 0..operations {
            if self.is_dead() {
                break;
            }
            self.operations += 1;
            self.step();
        }
        self.power_cut();
    }

    fn step(&mut self) {
        if self.random.chance(10) {
            return self.together();
        }
        match self.random.below(100) {
            0..30 => self.write(),
            30..40 => self.write_by_extents(),
            40..45 => self.close(|_| true),
            45..53 => self.discard(),
            53..63 => {
                self.trace.push("flush".into());
                let result = block_on(self.store().flush());
                if self.done(result).is_some() {
                    self.flushed();
                }
            }
            63..65 => {
                self.trace.push("sync".into());
                let result = block_on(self.store().sync());
                if self.done(result).is_some() {
                    self.flushed();
                }
            }
            65..70 => self.create_disk(),
            70..72 => self.remove_disk(),
            72..75 => self.grow_disk(),
            75..80 => self.create_snapshot(),
            80..82 => self.revert(),
            82..84 => self.clone_snapshot(),
            84..87 => self.remove_snapshot(),
            87..91 => {
                let steps = 1 + self.random.below(6) as usize;
                self.trace.push(format!("reclaim {steps}"));
                let result = block_on(self.store().reclaim(steps));
                self.done(result);
            }
            91..93 => self.folder(),
            93..95 => self.change_id(),
            95..97 => self.compare_changes(),
            _ => self.compare_one(),
        }
    }

    fn write(&mut self) {
        let Some((name, disk)) = self.any_disk() else { return };
        let (first, count) = self.any_range(&disk);
        if self.is_open(&name, first, count) {
            return;
        }
        // A write of a part of a block waits for those in place, which nobody would end here.
        if !first.is_multiple_of(8) || !(first + count).is_multiple_of(8) {
            self.close(|open| open.disk == name);
        }
        self.stamp += 1;
        let stamp = self.stamp;
        self.trace.push(format!("write {name} {first}+{count} = {stamp}"));
        let zeroes = self.random.chance(10);
        let (result, stamp) = if zeroes {
            (
                block_on(self.store().write_zeroes(disk.id, first * SECTOR as u64, count * SECTOR as u64)),
                ZERO,
            )
        } else {
            (
                block_on(self.store().write(disk.id, first * SECTOR as u64, &fill(stamp, first, count))),
                stamp,
            )
        };
        let done = self.done(result).is_some();
        {
            let mut content = disk.content.borrow_mut();
            for sector in first..first + count {
                let old = content.now(sector);
                content.set(sector, stamp);
                if !done {
                    content.set(sector, old);
                }
            }
        }
        if !done && !self.is_dead() {
            // Large writes are done in parts; which of them were, a look tells.
            self.settle(&disk, first, count);
        }
    }

    pub fn settle(&self, disk: &Disk, first: u64, count: u64) {
        let mut data = vec![0; count as usize * SECTOR];
        self.done(block_on(self.store().read(disk.id, first * SECTOR as u64, &mut data)));
        let mut content = disk.content.borrow_mut();
        for (step, bytes) in data.chunks(SECTOR).enumerate() {
            let sector = first + step as u64;
            match stamp_of(bytes, sector) {
                Some(stamp) if content.may_hold(sector, stamp) => content.set(sector, stamp),
                _ => self.fail(&format!("sector {sector} of a disk that was zeroed in part has something strange")),
            }
        }
    }

    /// As a guest's request: extents from the store, data straight to the device, the end reported later.
    fn write_by_extents(&mut self) {
        let Some((name, disk)) = self.any_disk() else { return };
        let (first, count) = self.any_range(&disk);
        if disk.checksums || self.is_open(&name, first, count) {
            return;
        }
        self.stamp += 1;
        let stamp = self.stamp;
        self.trace.push(format!("begin {name} {first}+{count} = {stamp}"));
        let (offset, length) = (first * SECTOR as u64, count * SECTOR as u64);
        let mut extents = Vec::new();
        let ticket = match self.store().translate_write(disk.id, offset, length, &mut extents) {
            Ok(Translated::Ready(ticket)) => ticket,
            Ok(Translated::NeedsWork) => {
                let result = block_on(self.store().prepare_write(disk.id, offset, length, &mut extents));
                match self.done(result) {
                    Some(ticket) => ticket,
                    None => return,
                }
            }
            Err(error) => {
                self.done::<()>(Err(error));
                return;
            }
        };
        assert_eq!(extents.iter().map(|extent| u64::from(extent.length)).sum::<u64>(), length);
        // From here on the data may be there in part.
        {
            let mut content = disk.content.borrow_mut();
            for sector in first..first + count {
                let old = content.now(sector);
                content.set(sector, stamp);
                content.set(sector, old);
            }
        }
        let data = fill(stamp, first, count);
        let mut at = 0;
        for extent in extents {
            let part = &data[at..at + extent.length as usize];
            at += extent.length as usize;
            if block_on(self.store().device().write(extent.sector.unwrap(), part)).is_err() {
                self.store().finish(ticket, false);
                return;
            }
        }
        self.open.push(Open {
            ticket,
            disk: name,
            first,
            count,
            stamp,
        });
        if self.random.chance(60) {
            self.close(|_| true);
        }
    }

    fn discard(&mut self) {
        let Some((name, disk)) = self.any_disk() else { return };
        let (first, count) = self.any_range(&disk);
        if self.is_open(&name, first, count) {
            return;
        }
        self.trace.push(format!("discard {name} {first}+{count}"));
        let result = block_on(self.store().discard(disk.id, first * SECTOR as u64, count * SECTOR as u64));
        let done = self.done(result).is_some();
        let last = disk.size / SECTOR as u64;
        let end = if first + count == last { last } else { (first + count) / 8 * 8 };
        let mut content = disk.content.borrow_mut();
        for sector in first.next_multiple_of(8)..end {
            let old = content.now(sector);
            content.set(sector, ZERO);
            if !done {
                content.set(sector, old);
            }
        }
    }

    fn create_disk(&mut self) {
        let name = format!("disk{}", self.random.below(6));
        if self.names.disks.len() >= 4 {
            return;
        }
        let size = SECTOR as u64 * (1 + self.random.below(MAX_DISK / SECTOR as u64));
        let (thick, checksums) = (self.random.chance(20), self.random.chance(25));
        self.trace.push(format!("create {name} {size} thick {thick} checksums {checksums}"));
        let result = self.store().create_disk(
            &name,
            &DiskOptions {
                size,
                thick,
                checksums,
                ..DiskOptions::default()
            },
        );
        if self.names.disks.contains_key(&name) {
            assert!(matches!(result, Err(Error::Exists(_) | Error::NoSpace { .. } | Error::Failed)));
            return;
        }
        if let Some(id) = self.done(result) {
            self.names.disks.insert(
                name,
                Disk {
                    id,
                    size,
                    checksums,
                    content: Rc::default(),
                    snapshots: Vec::new(),
                    tracked: None,
                },
            );
            self.renamed();
        }
    }

    fn remove_disk(&mut self) {
        let Some((name, _)) = self.any_disk() else { return };
        self.close(|_| true);
        self.trace.push(format!("remove {name}"));
        let result = block_on(self.store().remove(&name));
        if self.done(result).is_some() {
            self.names.disks.remove(&name);
            self.renamed();
        }
    }

    fn grow_disk(&mut self) {
        let Some((name, disk)) = self.any_disk() else { return };
        // What is under way in the last block is waited for.
        self.close(|open| open.disk == name);
        let size = disk.size + SECTOR as u64 * self.random.below(2000);
        self.trace.push(format!("grow {name} {size}"));
        let result = block_on(self.store().grow_disk(disk.id, size));
        if self.done(result).is_some() {
            self.names.disks.get_mut(&name).unwrap().size = size;
            self.renamed();
        }
    }

    fn create_snapshot(&mut self) {
        let Some((name, disk)) = self.any_disk() else { return };
        if disk.snapshots.len() >= 4 {
            return;
        }
        self.close(|open| open.disk == name);
        self.stamp += 1;
        let snapshot_name = format!("snapshot {}", self.stamp);
        self.trace.push(format!("{snapshot_name} of {name}"));
        let stamps = Rc::new(disk.content.borrow().frozen());
        let add = |names: &mut Names, id, change_id| {
            let snapshot = Snapshot {
                id,
                name: snapshot_name.clone(),
                size: disk.size,
                stamps: stamps.clone(),
                instead: BTreeMap::new(),
                change_id,
            };
            names.disks.get_mut(&name).unwrap().snapshots.push(snapshot);
        };
        let result = block_on(self.store().create_snapshot(disk.id, &snapshot_name, 0));
        match self.done(result) {
            Some(id) => {
                let change_id = self.store().snapshot_change_id(id).unwrap();
                add(&mut self.names, id, change_id);
                self.flushed();
            }
            None if self.is_dead() => {
                let mut names = self.names.clone();
                add(&mut names, 0, 0);
                self.candidates.push(names);
            }
            None => {}
        }
    }

    fn any_snapshot(&mut self) -> Option<(String, Disk, usize)> {
        let (name, disk) = self.any_disk()?;
        let place = self.random.below(disk.snapshots.len() as u64) as usize;
        (!disk.snapshots.is_empty()).then_some((name, disk, place))
    }

    fn revert(&mut self) {
        let Some((name, disk, place)) = self.any_snapshot() else { return };
        self.close(|open| open.disk == name);
        let snapshot = disk.snapshots[place].clone();
        self.trace.push(format!("revert {name} to {}", snapshot.name));
        let change = |names: &mut Names| {
            let disk = names.disks.get_mut(&name).unwrap();
            disk.size = snapshot.size;
            disk.content = Rc::new(RefCell::new(Content::certain((*snapshot.stamps).clone())));
            disk.tracked = None;
        };
        let result = block_on(self.store().revert(disk.id, snapshot.id));
        match self.done(result) {
            Some(()) => {
                change(&mut self.names);
                self.flushed();
            }
            None if self.is_dead() => {
                let mut names = self.names.clone();
                change(&mut names);
                self.candidates.push(names);
            }
            None => {}
        }
    }

    fn clone_snapshot(&mut self) {
        let Some((_, disk, place)) = self.any_snapshot() else { return };
        let snapshot = &disk.snapshots[place];
        let name = format!("disk{}", self.random.below(6));
        if self.names.disks.len() >= 5 || self.names.disks.contains_key(&name) {
            return;
        }
        self.trace.push(format!("clone {} to {name}", snapshot.name));
        let result = self.store().clone_snapshot(snapshot.id, &name, [1; 16], 0);
        if let Some(id) = self.done(result) {
            let content = Rc::new(RefCell::new(Content::certain((*snapshot.stamps).clone())));
            self.names.disks.insert(
                name,
                Disk {
                    id,
                    size: snapshot.size,
                    checksums: disk.checksums,
                    content,
                    snapshots: Vec::new(),
                    tracked: None,
                },
            );
            self.renamed();
        }
    }

    fn remove_snapshot(&mut self) {
        let Some((name, disk, place)) = self.any_snapshot() else { return };
        self.trace.push(format!("remove {}", disk.snapshots[place].name));
        let result = self.store().remove_snapshot(disk.snapshots[place].id);
        if self.done(result).is_some() {
            self.names.disks.get_mut(&name).unwrap().snapshots.remove(place);
            self.renamed();
        }
    }

    fn folder(&mut self) {
        let name = format!("folder{}", self.random.below(4));
        if let Some(place) = self.names.folders.iter().position(|folder| *folder == name) {
            self.trace.push(format!("remove {name}"));
            let result = block_on(self.store().remove(&name));
            if self.done(result).is_some() {
                self.names.folders.remove(place);
                self.renamed();
            }
        } else {
            self.trace.push(format!("make {name}"));
            let result = self.store().create_folder(&name, 0);
            if self.done(result).is_some() {
                self.names.folders.push(name);
                self.names.folders.sort();
                self.renamed();
            }
        }
    }

    fn change_id(&mut self) {
        let Some((name, disk)) = self.any_disk() else { return };
        self.close(|open| open.disk == name);
        self.trace.push(format!("change id of {name}"));
        let result = block_on(self.store().change_id(disk.id));
        if let Some(id) = self.done(result) {
            let stamps = Rc::new(disk.content.borrow().frozen());
            self.names.disks.get_mut(&name).unwrap().tracked = Some((id, stamps));
            self.flushed();
        }
    }

    /// Everything that differs must be among the changes, both since an id and against a snapshot.
    fn compare_changes(&mut self) {
        let Some((name, disk)) = self.any_disk() else { return };
        self.close(|open| open.disk == name);
        let now = disk.content.borrow().frozen();
        let mut questions: Vec<Question> = Vec::new();
        questions.extend(disk.tracked.iter().map(|(id, stamps)| (Some(*id), None, stamps.clone())));
        questions.extend(
            disk.snapshots
                .iter()
                .map(|snapshot| (None, Some(snapshot.id), snapshot.stamps.clone())),
        );
        for (id, snapshot, then) in questions {
            self.trace.push(format!("changes of {name} since {id:?} {snapshot:?}"));
            let result = match (id, snapshot) {
                (Some(id), _) => block_on(self.store().changes_since(disk.id, id, 0)),
                (_, Some(snapshot)) => block_on(self.store().difference(disk.id, snapshot, 0)),
                _ => return,
            };
            let Some(changes) = self.done(result) else { return };
            assert_eq!(changes.next, None);
            for sector in 0..disk.size / SECTOR as u64 {
                let at = sector * SECTOR as u64;
                if now.get(&sector) != then.get(&sector) && !changes.ranges.iter().any(|range| range.contains(&at)) {
                    self.fail(&format!(
                        "sector {sector} of {name} changed and is not among the changes {:?}",
                        changes.ranges
                    ));
                }
            }
        }
    }

    fn compare_one(&mut self) {
        if let Some((name, disk)) = self.any_disk() {
            self.trace.push(format!("compare {name}"));
            if let Err(problem) = self.compare(&name, &disk, false) {
                if !self.is_dead() {
                    self.fail(&problem);
                }
            }
        }
    }

    /// Compares a disk with what it should hold; after a power cut, with what it may hold.
    pub fn compare(&self, name: &str, disk: &Disk, after_cut: bool) -> Result<(), String> {
        let content = disk.content.borrow();
        self.each_sector(disk.id, disk.size, |sector, stamp| {
            let good = match stamp {
                None => false,
                Some(stamp) if after_cut => content.may_hold(sector, stamp),
                Some(stamp) => stamp == content.now(sector) || self.is_open(name, sector, 1),
            };
            let known = (content.sectors.get(&sector), content.durable.get(&sector));
            if good {
                Ok(())
            } else {
                Err(format!(
                    "sector {sector} of {name} holds {stamp:?}, it may hold {:?} from {:?} on",
                    known.0, known.1
                ))
            }
        })?;
        for snapshot in &disk.snapshots {
            self.each_sector(snapshot.id, snapshot.size, |sector, stamp| {
                let wanted = snapshot.stamps.get(&sector).copied().unwrap_or(ZERO);
                if stamp == Some(wanted) || stamp.is_some() && stamp.as_ref() == snapshot.instead.get(&sector) {
                    Ok(())
                } else {
                    Err(format!("sector {sector} of {} holds {stamp:?}, not {wanted}", snapshot.name))
                }
            })?;
        }
        Ok(())
    }

    /// Reads an object from start to end.
    pub fn each_sector(&self, id: u32, size: u64, mut each: impl FnMut(u64, Option<u64>) -> Result<(), String>) -> Result<(), String> {
        let mut buffer = [0; 128 << 10];
        let mut at = 0;
        while at < size {
            let part = &mut buffer[..(size - at).min(128 << 10) as usize];
            block_on(self.store().read(id, at, part)).map_err(|error| format!("reading object {id}: {error}"))?;
            for (step, bytes) in part.chunks(SECTOR).enumerate() {
                let sector = at / SECTOR as u64 + step as u64;
                each(sector, stamp_of(bytes, sector))?;
            }
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Whether the store is what `names` says, with the numbers of today.
    fn matches(&self, names: &Names) -> Result<Names, String> {
        let mut found = names.clone();
        let list = self.store().list("").map_err(|error| error.to_string())?;
        let disks: Vec<&str> = list
            .iter()
            .filter(|info| info.kind == Kind::Disk)
            .map(|info| info.name.as_str())
            .collect();
        let folders: Vec<&str> = list
            .iter()
            .filter(|info| info.kind == Kind::Folder)
            .map(|info| info.name.as_str())
            .collect();
        if disks != names.disks.keys().collect::<Vec<_>>() || folders != names.folders {
            return Err(format!("there are {disks:?} and {folders:?}"));
        }
        for (name, disk) in &mut found.disks {
            let info = self.store().lookup(name).map_err(|error| error.to_string())?;
            disk.id = info.id;
            if info.size != disk.size {
                return Err(format!("{name} has {} bytes, not {}", info.size, disk.size));
            }
            let snapshots = self.store().snapshots(info.id).map_err(|error| error.to_string())?;
            let mut present: Vec<&str> = snapshots.iter().map(|info| info.name.as_str()).collect();
            let mut wanted: Vec<&str> = disk.snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
            present.sort_unstable();
            wanted.sort_unstable();
            if present != wanted {
                return Err(format!("{name} has snapshots {present:?}, not {wanted:?}"));
            }
            for snapshot in &mut disk.snapshots {
                let info = snapshots.iter().find(|info| info.name == snapshot.name).unwrap();
                snapshot.id = info.id;
                snapshot.change_id = self.store().snapshot_change_id(info.id).unwrap();
            }
            self.compare(name, disk, true)?;
        }
        Ok(found)
    }

    fn power_cut(&mut self) {
        self.cuts += 1;
        self.open.clear();
        let device = self.store.take().unwrap().into_device();
        device.cut(&mut self.random);
        self.trace.push("power cut".into());
        // What a checker says of the device as it is, and once more when it was mounted.
        let problems = |device: &CutDevice| {
            block_on(check(
                device,
                CheckOptions {
                    data: true,
                    cache: 4 << 20,
                },
                |_, _| {},
            ))
        };
        match problems(&device) {
            Ok(report) if report.count == 0 => {}
            other => self.fail(&format!("check before the mount: {other:#?}")),
        }
        let cut_again = self.random.chance(20);
        if cut_again {
            // The power goes again while it is being mounted.
            device.cut_after(1 + self.random.below(12));
            match block_on(Store::mount(
                &device,
                MountOptions {
                    cache: 1 << 20,
                    ..MountOptions::default()
                },
            )) {
                Err(error) if !device.is_dead() => self.fail(&format!("mount: {error}")),
                _ => {}
            }
            device.cut(&mut self.random);
            self.trace.push("power cut while mounting".into());
        }
        let store = block_on(Store::mount(
            device,
            MountOptions {
                cache: 1 << 20,
                ..MountOptions::default()
            },
        ));
        match store {
            Ok(store) => self.store = Some(store),
            Err(error) => self.fail(&format!("mount: {error}")),
        }
        match problems(self.store().device()) {
            Ok(report) if report.count == 0 => {}
            other => self.fail(&format!("check after the mount: {other:#?}")),
        }
        let mut reasons = Vec::new();
        let mut found = None;
        for candidate in self.candidates.iter().rev() {
            match self.matches(candidate) {
                Ok(names) => {
                    found = Some(names);
                    break;
                }
                Err(reason) => reasons.push(reason),
            }
        }
        let Some(mut names) = found else {
            self.fail(&format!("what was flushed is not there:\n    {}", reasons.join("\n    ")))
        };
        // What is there now is certain.
        for disk in names.disks.values_mut() {
            self.look_at_snapshots(disk);
            let mut stamps = BTreeMap::new();
            let read = self.each_sector(disk.id, disk.size, |sector, stamp| {
                stamps.extend(stamp.filter(|stamp| *stamp != ZERO).map(|stamp| (sector, stamp)));
                Ok(())
            });
            read.unwrap();
            disk.content = Rc::new(RefCell::new(Content::certain(stamps)));
        }
        self.names = names;
        self.candidates = vec![self.names.clone()];
    }

    /// Removes everything and sees that all space comes back.
    pub fn finish(&mut self) {
        let names: Vec<String> = self.names.disks.keys().cloned().chain(self.names.folders.iter().cloned()).collect();
        for name in names {
            block_on(self.store().remove(&name)).unwrap();
        }
        for _ in 0..200 {
            if !block_on(self.store().reclaim(64)).unwrap() {
                break;
            }
        }
        block_on(self.store().sync()).unwrap();
        block_on(self.store().sync()).unwrap();
        let usage = self.store().usage();
        let empty = BYTES as u64 - usage.free;
        // Superblocks, bitmaps, log, and one table of the catalogue with its tree, or a few.
        if empty > (1058 + 32 + 16) * 4096 {
            self.fail(&format!("{empty} bytes are in use by nothing"));
        }
    }
}
