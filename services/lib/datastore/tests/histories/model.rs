//! What a datastore should hold, in the simplest way that could be right.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The stamp of a sector that reads as zeroes.
pub const ZERO: u64 = 0;

/// A sector's stamps since it was last certain what it holds: the first is durable, the others may be.
pub type Stamps = Vec<u64>;

/// The content of a disk or file while it lives: sectors, each with what it may hold after a power cut.
#[derive(Debug, Default)]
pub struct Content {
    pub sectors: BTreeMap<u64, Stamps>,
    /// How many stamps of each sector a flush has made certain; an index into `sectors`.
    pub durable: BTreeMap<u64, usize>,
}

impl Content {
    pub fn now(&self, sector: u64) -> u64 {
        self.sectors.get(&sector).and_then(|stamps| stamps.last()).copied().unwrap_or(ZERO)
    }

    pub fn set(&mut self, sector: u64, stamp: u64) {
        self.sectors.entry(sector).or_insert_with(|| vec![ZERO]).push(stamp);
    }

    /// What it holds now is certain.
    pub fn flush(&mut self) {
        for (sector, stamps) in &self.sectors {
            self.durable.insert(*sector, stamps.len() - 1);
        }
    }

    /// Whether a sector may hold a stamp after a power cut.
    pub fn may_hold(&self, sector: u64, stamp: u64) -> bool {
        match self.sectors.get(&sector) {
            None => stamp == ZERO,
            Some(stamps) => stamps[self.durable.get(&sector).copied().unwrap_or(0)..].contains(&stamp),
        }
    }

    /// All that is known now, as of a snapshot.
    pub fn frozen(&self) -> BTreeMap<u64, u64> {
        self.sectors
            .iter()
            .filter_map(|(sector, stamps)| Some((*sector, *stamps.last()?)))
            .filter(|(_, stamp)| *stamp != ZERO)
            .collect()
    }

    /// Content that is certain.
    pub fn certain(stamps: BTreeMap<u64, u64>) -> Self {
        Self {
            sectors: stamps.into_iter().map(|(sector, stamp)| (sector, vec![stamp])).collect(),
            durable: BTreeMap::new(),
        }
    }
}

/// A snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub id: u32,
    pub name: String,
    pub size: u64,
    pub stamps: Rc<BTreeMap<u64, u64>>,
    /// What sectors may hold instead that were written while it was taken, until a look tells.
    pub instead: BTreeMap<u64, u64>,
    pub change_id: u64,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk {
    pub id: u32,
    pub size: u64,
    pub checksums: bool,
    pub content: Rc<RefCell<Content>>,
    pub snapshots: Vec<Snapshot>,
    /// A change id and what the disk held then.
    pub tracked: Option<(u64, Rc<BTreeMap<u64, u64>>)>,
}

/// Names and what they stand for.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub disks: BTreeMap<String, Disk>,
    pub folders: Vec<String>,
}
